"""Makes a merge: everything is written beside the place where it belongs, and takes it when it is whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ftk.errors import RunFailed, UserError
from ftk.merging.adapting import AdapterWriter
from ftk.merging.card import merge_card
from ftk.merging.checking import DTYPES, Merged, MergePlan
from ftk.merging.combining import Combiner
from ftk.merging.folders import CONFIG, PICKLES
from ftk.merging.writing import Entry, TensorFiles

LEFT_OUT = (".safetensors", ".gguf", ".h5", ".msgpack", ".onnx", ".md", ".lock", *PICKLES)
"""Endings of files that are not copied: weights, and what is told of another model."""

Told = Callable[[str, int, int], None]
"""Called with what goes on, the bytes done and the bytes of all."""


@dataclass(frozen=True)
class MergeResult:
    """What a merge has made.

    Attributes:
        folder: where it is.
        bytes: of all weights.
        errors: of an adapter, by weight the share of the merged change that its rank does not hold.
    """

    folder: Path
    bytes: int
    errors: dict[str, float]


def make_merge(plan: MergePlan, told: Told) -> MergeResult:
    """Merge and write; whatever ends it early leaves nothing.

    Raises:
        RunFailed: a weight cannot be written as it should, or a file has changed meanwhile.
    """
    combiner = Combiner(plan)
    out = Path(plan.request.options.out).expanduser()
    try:
        with written_aside(out) as aside:
            copy_files(plan, aside)
            if plan.request.options.adapter_rank is not None:
                writer = AdapterWriter(plan, combiner)
                total = writer.write(aside, told)
                errors = writer.errors
            else:
                total, errors = _write_model(plan, combiner, aside, told), {}
            (aside / "README.md").write_text(merge_card(plan, errors), encoding="utf-8")
    finally:
        combiner.files.close()
    return MergeResult(out, total, errors)


def copy_files(plan: MergePlan, folder: Path) -> None:
    """The base's config, tokenizer and other files, all but weights; of an adapter none."""
    if plan.request.options.adapter_rank is not None:
        return
    for file in sorted(plan.reference.path.iterdir()):
        kept = file.is_file() and not file.name.startswith(".") and not file.name.endswith(LEFT_OUT)
        if kept and not file.name.endswith(".index.json"):
            shutil.copyfile(file, folder / file.name)
    dtype = plan.request.options.dtype
    if dtype in DTYPES:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        for key in {"dtype", "torch_dtype"} & set(config) or {"dtype"}:
            config[key] = dtype
        (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def written_aside(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that becomes ``out`` at the end, and is gone where there is no good end.

    Raises:
        UserError: another process writes ``out``.
    """
    aside = out.with_name(f".{out.name}.partial")
    with _alone(out):
        shutil.rmtree(aside, ignore_errors=True)  # a process that was killed has left it
        aside.mkdir()
        try:
            yield aside
            try:
                aside.rename(out)  # an empty folder makes room, one that holds something does not
            except OSError as error:
                raise RunFailed(f"{out}: somebody has put something there meanwhile; it is left as it is") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold a lock beside ``out``, which ends with the process; the file goes when it is given back."""
    path = out.with_name(f".{out.name}.lock")
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A holder that has just given it back took the file away, and somebody else may have begun.
            free = os.path.samestat(path.stat(), os.fstat(lock.fileno()))
        except (BlockingIOError, FileNotFoundError):
            free = False
        except OSError:
            free = True  # a file system without locks
        if not free:
            raise UserError(f"{out}: another merge is writing it", "wait for its end, or name another folder")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def entries_of(plan: MergePlan) -> list[Entry]:
    """What a merged model holds."""
    return [Entry(weight.name, weight.dtype, weight.base.shape) for weight in plan.weights]


def _write_model(plan: MergePlan, combiner: Combiner, folder: Path, told: Told) -> int:
    named: dict[str, Merged] = {weight.name: weight for weight in plan.weights}
    files, done = TensorFiles(folder, entries_of(plan)), 0

    def chunks(entry: Entry) -> Iterator[np.ndarray[Any, Any]]:
        nonlocal done
        told(entry.name, done, files.total)
        yield from combiner.chunks(named[entry.name])
        done += entry.bytes

    files.write(chunks)
    return files.total
