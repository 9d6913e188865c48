"""The recipe `clip_pairs`, shortened: it learns, a stopped run ends alike, and transformers alone finds drawings."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoProcessor, CLIPModel

import ftk
from ftk.events import RunEvent
from ftk_plugins.datasets.drawn_shapes.drawn_shapes import DrawnShapes
from ftk_plugins.datasets.drawn_shapes.options import DrawnShapesOptions

RECIPE = Path(__file__).parents[2] / "recipes" / "clip_pairs.toml"
SMALL = (
    "model.hidden_size=48",
    "model.layers=1",
    "model.config.vision_config={ image_size = 24, patch_size = 8 }",
    "training.batch_size=48",
    "training.micro_batch_size=16",
    "training.learning_rate=4e-3",
    "stage.places.data.train.limit=200",
    "stage.places.data.train.pixels=24",
    "stage.places.training.steps=50",
    "stage.pairs.data.train.limit=150",
    "stage.pairs.data.train.pixels=24",
    "stage.pairs.training.steps=8",
)


FEW = (
    "stage.places.training.steps=2", "stage.pairs.training.steps=4", "training.batch_size=24", "training.log_every=1",
    "stage.places.data.train.limit=70", "stage.pairs.data.train.limit=70",
)  # fmt: skip


def run(folder: Path, *more: str, stop: bool = False) -> ftk.RunResult:
    def watch(event: RunEvent) -> None:
        if stop and event.kind == "step" and event.data["stage"] == 2 and event.data["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    return ftk.run(RECIPE, output=folder, overrides=[*SMALL, *more], observers=[watch])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ftk.RunResult:
    return run(tmp_path_factory.mktemp("clip") / "whole")


def test_it_learns_which_drawing_a_caption_tells_of(whole: ftk.RunResult) -> None:
    report = whole.report
    assert report["tasks"] == ["places", "pairs"]
    for metric in ("recall_at_5", "backward_recall_at_5"):
        assert report["start"][metric][0] < 0.3
        assert report["matrix"][metric][0][0] > 0.35
    assert report["stages"][1]["mitigations"]["replay"]["rows"] == {"places": 160}


def test_a_stopped_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    with pytest.raises(ftk.Interrupted):
        run(tmp_path / "cut", *FEW, stop=True)
    again, expected = (
        load_file(run(tmp_path / name, *FEW).folder / "model" / "model.safetensors") for name in ("cut", "whole")
    )
    assert again.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in again.items())


def test_the_export_finds_drawings_with_transformers_alone(whole: ftk.RunResult) -> None:
    folder = whole.folder / "stages" / "1-places" / "model"
    model, processor = CLIPModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    rows: Dataset = DrawnShapes(DrawnShapesOptions(limit=200, pixels=24, test_fraction=0.2)).rows("test")
    inputs = processor(text=rows["text"][:], images=rows["image"][:], return_tensors="pt", padding=True)
    with torch.no_grad():
        scores = model(**inputs).logits_per_text
    found = (scores.topk(5).indices == torch.arange(len(rows))[:, None]).any(1).float().mean()
    assert float(found) == pytest.approx(whole.report["matrix"]["recall_at_5"][0][0], abs=1e-6)
    card = (whole.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "AutoProcessor" in card
