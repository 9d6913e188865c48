"""The model source `mlp`: what it computes, how its heads and seeds relate, and how others load what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftk import UserError
from ftk.parts import Head
from ftk_plugins.models.mlp.mlp import Mlp
from ftk_plugins.models.mlp.options import MlpOptions
from ftk_plugins.objectives.pictures import pixels_of

HEAD = Head("image_classification", ("a", "b", "c"), "single_label_classification")
IMAGE = torch.arange(16).reshape(4, 4).mul(17).tolist()


def made(head: Head = HEAD, **options: object) -> tuple[Mlp, object, object]:
    source = Mlp(MlpOptions(**{"image_size": 4, "hidden_size": 6, "seed": 1, **options}))
    loaded = source.load(head, lambda: iter(()))
    return source, loaded.model, loaded.processor


@pytest.mark.parametrize("colours", [False, True])
def test_what_it_computes_can_be_computed_from_its_file(colours: bool, tmp_path: Path) -> None:
    """Layer by layer from the weights alone, as the card says."""
    source, model, processor = made(colours=colours)
    source.save(model, processor, tmp_path)
    pixels = torch.from_numpy(pixels_of([{"image": IMAGE}], "image", processor)[0])[None]
    assert pixels.max() == 1
    x = (pixels if colours else pixels[:, 0]).flatten(1)
    weights = load_file(tmp_path / "model.safetensors")
    for layer in ("mlp.1", "mlp.4"):
        x = (x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]).relu()
    expected = x @ weights["classifier.weight"].T + weights["classifier.bias"]
    with torch.no_grad():
        torch.testing.assert_close(model(pixel_values=pixels).logits, expected)  # type: ignore[operator]
    again = source.load_folder(tmp_path, HEAD).model
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in weights.items())
    assert again.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert ("red, then green" in source.how_to_load()) == colours
    assert not list(tmp_path.glob("*.bin"))


def test_its_options_act() -> None:
    _, model, _ = made(layers=3, dropout=0.5, hidden_size=7)
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim == 2]  # type: ignore[attr-defined]
    assert shapes == [(7, 16), (7, 7), (7, 7), (3, 7)]
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}  # type: ignore[attr-defined]
    one, same, other = (made(seed=seed)[1].classifier.weight for seed in (1, 1, 2))  # type: ignore[attr-defined]
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_heads_share_hidden_layers_and_are_drawn_alike() -> None:
    """The same bits under every head, so that a run may load them in any order."""
    wide = Head("image_classification", tuple("abcde"))
    one, other = made()[1], made(wide)[1]
    assert torch.equal(one.mlp[1].weight, other.mlp[1].weight)  # type: ignore[attr-defined]
    assert other.classifier.weight.shape == (5, 6)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="a head for causal_lm, and it classifies images alone"):
        made(Head("causal_lm"))
