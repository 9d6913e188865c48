"""What makes two encodings the same: the content of the rows, the objective, and the processor."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk.data.cache import key_of
from ftk.recipe.specs import PartSpec

if TYPE_CHECKING:
    from datasets import Dataset

ROWS_AT_A_TIME = 10_000


def rows_key(rows: Dataset) -> str:
    """Of the rows' columns and values, read as Arrow buffers; equal rows from different places have the same."""
    digest = hashlib.sha256(json.dumps(rows.features.to_dict(), sort_keys=True, default=str).encode())
    for batch in rows.with_format("arrow").iter(ROWS_AT_A_TIME):
        for part in batch.combine_chunks().to_batches():
            digest.update(part.serialize())
    return digest.hexdigest()


def part_key(spec: PartSpec) -> str:
    """Of a part's options and of the code of the package that it comes from, so that changed code is never missed."""
    return key_of(
        spec.distribution, spec.variant.name, spec.options.model_dump(mode="json"), code_key(spec.variant.build)
    )


def processor_key(processor: Any) -> str:
    """Of all that decides which numbers a processor makes of a row; None has none of it."""
    if processor is None:
        return ""
    backend = getattr(processor, "backend_tokenizer", None)
    if backend is not None:
        # Before the added tokens stand truncation and padding, which are set anew in each call.
        _, _, text = backend.to_str().partition('"added_tokens":')
        content: Any = hashlib.sha256(text.encode()).hexdigest()
    else:
        with tempfile.TemporaryDirectory() as folder:
            processor.save_pretrained(folder)
            files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
            content = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    special = {name: str(value) for name, value in getattr(processor, "special_tokens_map", {}).items()}
    template = getattr(processor, "chat_template", None)
    versions = [metadata.version(name) for name in ("tokenizers", "transformers")]
    return key_of(type(processor).__name__, versions, content, special, template)


@lru_cache
def code_key(reference: str) -> str:
    """The SHA-256 of the Python files of the package, or the module, that a ``"module:attr"`` or a module stands in."""
    found = importlib.util.find_spec(reference.partition(":")[0].partition(".")[0])
    places = list(found.submodule_search_locations or ()) if found else []
    files = sorted(file for place in places for file in Path(place).rglob("*.py"))
    if not files and found and found.origin:
        files = [Path(found.origin)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
