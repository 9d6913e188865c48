"""The data set `images`: finds the images of a folder, with a class or a caption for each."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from datasets import Dataset, Image

from ftk import UserError, did_you_mean
from ftk_plugins.datasets.files.files import Files
from ftk_plugins.datasets.files.options import FilesOptions
from ftk_plugins.datasets.images.options import ImagesOptions
from ftk_plugins.datasets.rows import DividedRows, need_pillow

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""What an image's name ends in."""

SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
"""Names of folders that hold a split each, and no class."""


class Images(DividedRows):
    """Images as they are stored, decoded when a row is read.

    Columns: `image`; `sha256`, of its file, so that a changed image is never taken for the old one; `label`, the name
    of its class, or the columns of the captions.
    """

    def __init__(self, options: ImagesOptions) -> None:
        super().__init__(options)
        self.options = options
        self._folder = Path(options.path).expanduser()

    @property
    def place(self) -> str:
        return self.options.path

    def identity(self) -> str:
        """A hash of where the images lie, of what they hold, and of what is told of them."""
        digest = hashlib.sha256(str(self._folder.resolve()).encode())
        if self._captions is not None:
            digest.update(self._captions.identity().encode())
        for file, held in zip(self._files, self._hashes, strict=True):
            digest.update(f"{file} {held}\n".encode())
        return digest.hexdigest()

    def read(self) -> Dataset:
        need_pillow()
        for file in self._files:
            _check(file)
        if self._captions is None:
            told = {"label": [file.relative_to(self._folder).parts[0] for file in self._files]}
        else:
            told = {name: self._told[name] for name in self._told.column_names}
        paths = [str(file.resolve()) for file in self._files]
        return Dataset.from_dict({"image": paths, **told, "sha256": self._hashes}).cast_column("image", Image())

    @cached_property
    def _captions(self) -> Files | None:
        if self.options.captions is None:
            return None
        return Files(FilesOptions(path=str(self._folder / self.options.captions)))

    @cached_property
    def _told(self) -> Dataset:
        """The captions' rows."""
        assert self._captions is not None
        rows, name = self._captions.read(), self.options.file_column
        if name not in rows.column_names:
            hint = did_you_mean(name, rows.column_names)
            raise UserError(f"{self._captions.place} has no column `{name}` that names the images", hint)
        if taken := {"image", "sha256"} & set(rows.column_names):
            raise UserError(
                f"{self._captions.place} has a column `{min(taken)}`, which is what the images are read into",
                "give it another name in the file",
            )
        return rows

    @cached_property
    def _files(self) -> list[Path]:
        """The images, in the order of the rows."""
        if not self._folder.is_dir():
            raise UserError(f"{self._folder} is no folder", f"the current folder is {Path.cwd()}")
        return self._of_classes() if self._captions is None else self._of_captions()

    def _of_classes(self) -> list[Path]:
        entries = sorted(entry for entry in self._folder.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in entries if entry.is_dir()]
        if not folders:
            hint = "put the images of each class into a folder of its name, or name a file of `captions`"
            raise UserError(f"{self._folder} holds no folders, one for each class", hint)
        if all(folder.name.lower() in SPLITS for folder in folders):
            raise UserError(
                f"{self._folder} holds splits ({', '.join(folder.name for folder in folders)}), not classes",
                f'name one of them, as in `path = "{folders[0]}"`',
            )
        found = []
        for entry in entries:
            files = sorted(path for path in entry.rglob("*") if path.is_file()) if entry.is_dir() else [entry]
            files = [file for file in files if not file.name.startswith(".")]
            for file in files:
                if entry == file or file.suffix.lower() not in SUFFIXES:
                    reason = "stands in no class's folder" if entry == file else "does not end like an image"
                    raise UserError(
                        f"{file} {reason}",
                        f"move it away, or name it as `captions` if it is such; images end in {', '.join(SUFFIXES)}",
                    )
            if not files:
                raise UserError(f"the class {entry.name} has no images", f"delete {entry}, or put some into it")
            found += files
        return found

    def _of_captions(self) -> list[Path]:
        found = []
        for number, name in enumerate(self._told[self.options.file_column], start=1):
            file = self._folder / name if isinstance(name, str) and name else None
            if file is None or not file.is_file():
                what = f"there is no image {file}" if file else f"`{self.options.file_column}` names no image"
                raise UserError(
                    f"{self.options.captions}, row {number}: {what}",
                    f"its path goes from {self._folder}; mend or remove the row",
                )
            found.append(file)
        return found

    @cached_property
    def _hashes(self) -> list[str]:
        hashes = []
        for file in self._files:
            try:
                with file.open("rb") as opened:
                    hashes.append(hashlib.file_digest(opened, "sha256").hexdigest())
            except OSError as error:
                raise UserError(f"{file} cannot be read: {error.strerror or error}") from None
        return hashes


def _check(file: Path) -> None:
    """Read what an image says of itself, before the first step and not in the middle of a run."""
    from PIL import Image as Picture

    try:
        with Picture.open(file) as picture:
            picture.verify()
    except Exception as error:
        raise UserError(f"{file} is no image that can be read: {error}", "mend it, or remove it") from None
