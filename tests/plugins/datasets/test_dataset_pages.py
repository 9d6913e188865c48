"""The fragments on the pages of data sets give the rows that the pages tell of."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path

import datasets
import pytest
from PIL import Image

from ftk.data.cache import Cache
from ftk.data.rows import RowReader
from ftk.plugin.discovery import load_registry
from ftk.recipe.reading import recipe_from_table
from ftk.recipe.specs import DataSpec, PartSpec
from tests.core.test_docs import completed, fences

PAGES = Path(__file__).parents[3] / "docs" / "variants" / "datasets"
BUILTIN = load_registry(third_party=False)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def fragment(name: str, number: int = 0) -> tuple[DataSpec, PartSpec | None]:
    _, text = list(fences((PAGES / f"{name}.md").read_text(encoding="utf-8"), "toml"))[number]
    recipe = recipe_from_table(completed(tomllib.loads(text)), "page", text, registry=BUILTIN)
    return recipe.stages[0].data, recipe.retain


def rows(spec: PartSpec, split: str = "train") -> list[dict[str, object]]:
    read = RowReader(Cache(Path("cache"))).read(spec, split)  # type: ignore[arg-type]
    return [dict(row) for row in read.rows]


def write(path: str, texts: list[str], **more: object) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps({"text": text, **more}) + "\n" for text in texts), encoding="utf-8")


def test_mixture() -> None:
    for name, count in (("support", 60), ("faq", 40), ("general", 10)):
        write(f"{name}.jsonl", [f"{name} {n}" for n in range(count)], **({"id": 1} if name == "general" else {}))
    data, _ = fragment("mixture")
    mix = Counter(str(row["text"]).split()[0] for row in rows(data.train))
    assert mix == {"support": 120, "faq": 40, "general": 40}


def test_images() -> None:
    for place in ("pets/cat/1", "pets/cat/2", "pets/dog/1", "pets/dog/2", "photos/a", "photos/more/b", "photos/c"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (len(place), 0, 0)).save(f"{place}.png")
    text = (PAGES / "images.md").read_text(encoding="utf-8")
    ((_, captions),) = fences(text, "csv")
    Path("photos/captions.csv").write_text(captions, encoding="utf-8")
    data, _ = fragment("images")
    labels = [row["label"] for split in ("train", "test") for row in rows(data.train, split)]
    assert (len(labels), Counter(labels)) == (4, {"cat": 2, "dog": 2})
    data, _ = fragment("images", 1)
    assert [row["text"] for row in rows(data.train)] == ["a red square", "a blue one"]


def test_a_part_of_the_hub() -> None:
    for n in range(3):
        write(f"big-copy/train-0000{n}-of-00003.jsonl", [f"{n} {row}" for row in range(3)])
    data, retain = fragment("hub", 1)
    assert retain is not None
    assert [row["text"] for row in rows(retain)] == ["0 0", "0 1", "0 2", "1 0"]
    read = [row["text"] for split in ("train", "test") for row in rows(data.train, split)]
    assert len(read) == 5
    assert set(read) == {"0 0", "0 1", "0 2", "1 0", "1 1"}
