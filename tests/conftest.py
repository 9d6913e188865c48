"""What every test shares: no network by accident, quiet libraries, and fixtures with real models and data."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
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
_cache = tempfile.TemporaryDirectory(prefix="ftk-cache-")
os.environ["FTK_CACHE"] = _cache.name

Found = TypeVar("Found")


LONG = ("test_main_job.py", "test_real_model.py")
"""Files that take minutes: they begin first, each on a core of its own, so that no core waits for them at the end."""


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # xdist would begin with the files that hold the most tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True, scope="module")
def unpictured() -> Iterator[None]:
    """Runs write no page, which takes a second each; a test file that wants pages has a fixture of this name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ftk.pictures.write_at_end", lambda folder, events: None)
        yield


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
    before it was saved.
    """
    return material.smollm2_saved(smollm2_folder)
