"""What every test shares: no network by accident, quiet libraries, and fixtures with real models and data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests import material

# Read when the libraries are imported, and no line above imports one of them.
for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ[_name] = _value
os.environ.setdefault("OMP_NUM_THREADS", "1")

Found = TypeVar("Found")


def fetched(fetch: Callable[[], Found]) -> Found:
    """What ``fetch`` gives; without the package index the test is skipped, or fails where ``CI=true``."""
    try:
        return fetch()
    except material.FetchFailed as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The folder with SmolLM2-135M-Instruct as a GGUF file."""
    return fetched(material.smollm2)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder with all-MiniLM-L6-v2 in safetensors."""
    return fetched(material.minilm)


@pytest.fixture(scope="session")
def chatterbot_rows() -> Callable[..., list[dict[str, str]]]:
    """``chatterbot_rows("korean", "food")``: instruction rows of the ChatterBot corpus."""

    def rows(language: str, topic: str | None = None) -> list[dict[str, str]]:
        return fetched(lambda: material.chatterbot(language, topic))

    return rows


@pytest.fixture(scope="session")
def smollm2_saved(smollm2_folder: Path) -> Path:
    """SmolLM2-135M-Instruct as the model source ``pretrained`` loads it, saved in float32: reads in a second.

    Under it lies ``expected/expected.safetensors``: ``input_ids`` and the ``logits`` that the model gave
    before it was saved. It is made anew whenever the code that loads models changes.
    """
    import transformers

    import ftk_plugins.models

    version = f"{transformers.__version__}-{material.digest_of(Path(ftk_plugins.models.__path__[0]))}"
    return material.kept(
        f"smollm2-saved-{version}",
        lambda folder: _save_smollm2(smollm2_folder, folder),
        replaces="smollm2-saved-*",
    )


def _save_smollm2(source: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from ftk.parts import Head
    from ftk_plugins.models.pretrained.options import PretrainedOptions
    from ftk_plugins.models.pretrained.pretrained import Pretrained

    [file] = source.glob("*.gguf")
    loaded = Pretrained(PretrainedOptions(path=str(file))).load(Head("causal_lm"), lambda: iter(()))
    input_ids = loaded.processor("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = loaded.model(input_ids=input_ids).logits
    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    (folder / "expected").mkdir()
    save_file({"input_ids": input_ids, "logits": logits}, folder / "expected" / "expected.safetensors")
