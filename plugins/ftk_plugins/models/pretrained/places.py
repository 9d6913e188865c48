"""Finding out what `path` and `gguf_file` of the model source `pretrained` mean."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftk import UserError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")

NAME_LENGTH = 1000
"""What is longer is a text, such as a chat template, and names no file."""

WEIGHTS = (".gguf", ".safetensors")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is: a folder or hub id, and the GGUF file in it, if it is one."""

    path: str
    gguf_file: str | None


def find_place(path: str, gguf_file: str | None, *, revision: str | None = None, weights: bool = True) -> Place:
    """Look at the disk, and only there; ``weights`` says whether a folder must hold them.

    Raises:
        UserError: a local path without a model that can be read, or with a ``revision``, which only the hub has; or
            GGUF without the package ``gguf``.
    """
    local = Path(path).expanduser()
    if path.endswith(".gguf"):
        if not local.is_file():
            raise UserError(f"model.path: no file {path}", _others(local.parent) or "check the path")
        local, gguf_file = local.parent, local.name
    if gguf_file is not None and importlib.util.find_spec("gguf") is None:
        raise UserError(
            "model.gguf_file: the package that reads GGUF files is not installed",
            "pip install 'finetune-toolkit[gguf]'",
        )
    if local.is_dir():
        _check_folder(local, gguf_file, weights)
        if revision is not None:
            raise UserError(
                f"model.path: {path} is a folder here, and a revision (`{revision}`) is of what lies on the hub",
                "leave it out",
            )
        return Place(str(local), gguf_file)
    if local.is_file():
        raise UserError(f"model.path: {path} is a file", "give the folder that holds the model, or a .gguf file")
    if not _HUB_ID.fullmatch(path) or path.startswith("."):
        raise UserError(f"model.path: no folder {path}", "check the path; a hub id reads `owner/name`")
    return Place(path, gguf_file)


def fingerprint(name: str, gguf_file: str | None = None, revision: str | None = None, on_hub: str = "") -> str:
    """What stands behind a name: a hash of a file, or of a folder's files; on the hub the commit; else the text itself.

    Args:
        name: a file, a folder, or a hub id.
        gguf_file: in it; of several files of weights this one alone counts.
        revision: on the hub.
        on_hub: a file that tells the commit of a repository; empty: the name is no hub id.

    Raises:
        OSError: a file cannot be read, or the hub not be reached.
    """
    local = Path(name).expanduser()
    if len(name) < NAME_LENGTH and local.is_file():
        return _digest([local])
    if len(name) < NAME_LENGTH and local.is_dir():
        files = sorted(file for file in local.iterdir() if file.is_file() and not file.name.startswith("."))
        files = [file for file in files if file.suffix != ".md"]  # what is said of a model is no part of it
        return _digest([file for file in files if gguf_file in (None, file.name) or file.suffix not in WEIGHTS])
    if not on_hub:
        return name
    from transformers.utils.hub import cached_file, extract_commit_hash

    return f"{name} {extract_commit_hash(cached_file(name, gguf_file or on_hub, revision=revision), None)}"


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _check_folder(folder: Path, gguf_file: str | None, weights: bool) -> None:
    if gguf_file is not None:
        if not (folder / gguf_file).is_file():
            raise UserError(
                f"model.gguf_file: no file {gguf_file} in {folder}",
                _others(folder) or "it holds no .gguf file",
            )
        return
    if not (folder / "config.json").is_file():
        found = _gguf_files(folder)
        if found:
            hint = f"it holds GGUF: set `gguf_file` in [model] to one of: {', '.join(found)}"
        elif (folder / "adapter_config.json").is_file():
            hint = "it holds an adapter of peft; merge it into its model (`merge_and_unload`) and save that"
        else:
            hint = "give the folder that `save_pretrained` wrote"
        raise UserError(f"model.path: {folder} has no config.json", hint)
    if weights and not any(folder.glob("*.safetensors")):
        pickles = any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth"))
        raise UserError(
            f"model.path: {folder} has no weights in safetensors" + (", only pickled ones" if pickles else ""),
            "ftk reads safetensors and GGUF; load the model where it comes from and call `save_pretrained`",
        )


def _gguf_files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.gguf"))


def _others(folder: Path) -> str:
    found = _gguf_files(folder)
    return f"the .gguf files there: {', '.join(found)}" if found else ""
