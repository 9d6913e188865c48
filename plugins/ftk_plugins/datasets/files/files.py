"""The data set `files`: finds the files that a recipe names and reads their rows."""

from __future__ import annotations

import glob
import hashlib
import os
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from ftk import UserError, did_you_mean
from ftk_plugins.datasets.files.options import FilesOptions
from ftk_plugins.datasets.files.readers import FORMAT_OF_SUFFIX, OPTION_OF_FORMAT, READERS
from ftk_plugins.datasets.rows import DividedRows


class Files(DividedRows):
    """Rows from local files, in the order of the files and of the rows in them.

    The files are hashed in each run; what has been read of the same contents before comes from the core's cache.
    """

    def __init__(self, options: FilesOptions) -> None:
        super().__init__(options)
        self.options = options
        self._identity: str | None = None

    @property
    def place(self) -> str:
        path = self.options.path
        return path if isinstance(path, str) else ", ".join(path)

    def identity(self) -> str:
        """A hash of the files' contents and formats, in their order."""
        if self._identity is None:
            digest = hashlib.sha256()
            for file, form in self._formats().items():
                try:
                    with file.open("rb") as opened:
                        content = hashlib.file_digest(opened, "sha256").hexdigest()
                except OSError as error:
                    raise UserError(f"{file} cannot be read: {error.strerror or error}") from None
                digest.update(f"{form} {content}\n".encode())
            self._identity = digest.hexdigest()
        return self._identity

    def read(self) -> Dataset:
        formats = self._formats()
        self._check_options(set(formats.values()))
        tables = []
        for file, form in formats.items():
            try:
                table = READERS[form](file, self.options)
            except UnicodeError as error:
                raise UserError(
                    f"{file} is not {self.options.encoding} text: {getattr(error, 'reason', error)}",
                    "name the file's own encoding with `encoding`",
                ) from None
            except (OSError, EOFError) as error:
                raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
            if table.num_rows == 0:
                raise UserError(f"{file} is empty", "fill it, or leave it out of `path`")
            tables.append(table)
        try:
            return Dataset(pa.concat_tables(tables, promote_options="permissive"))
        except pa.ArrowException as error:
            raise UserError(
                f"the files of {self.place} do not fit together: {error}", "make each column of one type"
            ) from None

    def _formats(self) -> dict[Path, str]:
        """The files to read, in their order, each with its format."""
        patterns = [self.options.path] if isinstance(self.options.path, str) else self.options.path
        try:
            return {file: self._format(file) for pattern in patterns for file in _found(pattern)}
        except OSError as error:  # a name that no file can have
            raise UserError(f"{self.place:.100} cannot be looked for: {error.strerror}", "mend `path`") from None

    def _format(self, file: Path) -> str:
        if self.options.format != "auto":
            return self.options.format
        suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
        form = FORMAT_OF_SUFFIX.get(suffixes[-1] if suffixes else "")
        if form is None:
            known = ", ".join(FORMAT_OF_SUFFIX)
            raise UserError(
                f"{file}: no format goes with this suffix; known are {known}",
                'say which with `format = "..."`',
            )
        return form

    def _check_options(self, formats: set[str]) -> None:
        for form, option in OPTION_OF_FORMAT.items():
            if option in self.options.model_fields_set and form not in formats:
                raise UserError(f"`{option}` is for {form} files, and {self.place} has none", f"leave out `{option}`")


def _found(pattern: str) -> list[Path]:
    """The files that a path or pattern names, sorted. Raises ``UserError`` where there are none."""
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        raise UserError(f"{path} is a folder", f'name the files in it, as in `path = "{path}/*.jsonl"`')
    if glob.has_magic(pattern):
        files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if files:
            return files
        raise UserError(f"no file matches {path}", f"the current folder is {Path.cwd()}")
    if os.path.lexists(path):
        raise UserError(f"{path} is no file that could be read", "it is a link that leads nowhere, or a device")
    hint = f"the current folder is {Path.cwd()}"
    if path.parent.is_dir():
        near = did_you_mean(path.name, [file.name for file in path.parent.iterdir()])
        hint = near if near.startswith("did you mean") else hint
    raise UserError(f"there is no file {path}", hint)
