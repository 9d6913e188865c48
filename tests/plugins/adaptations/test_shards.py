"""Full tuning and the Fisher information on a model that is divided, here among one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor
from transformers import LlamaForCausalLM

from ftk.parts import model as model_module
from ftk.parts import own_rows
from ftk.processes import sharding
from ftk.processes.sharding import make_mesh, shard
from ftk.testing import toy_model
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.models.scratch.options import ScratchOptions
from ftk_plugins.models.scratch.scratch import Scratch


@pytest.fixture
def divided() -> Iterator[Any]:
    """A toy model, divided; with its process group gone afterwards."""
    model = toy_model(num_hidden_layers=4)
    shard(model, make_mesh(Accelerator(cpu=True)), "fp32")
    yield model
    torch.distributed.destroy_process_group()


def loss_of(model: Any) -> torch.Tensor:
    ids = torch.tensor([[5, 9, 7, 20]])
    return model(input_ids=ids, labels=ids).loss


def test_the_reference_is_the_start_and_an_open_graph_stays_valid(divided: Any) -> None:
    plain = toy_model(num_hidden_layers=4)
    start = loss_of(plain).item()
    adaptation = FullTuning(FullOptions())
    adaptation.attach(divided)
    with torch.no_grad():
        for moved in (plain, divided):
            for parameter in moved.parameters():
                own_rows(parameter)[0].mul_(1.1)
    expected = loss_of(plain)
    expected.backward()

    found = loss_of(divided)
    with torch.no_grad(), adaptation.reference():
        assert loss_of(divided).item() == pytest.approx(start, rel=1e-6)
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(divided.get_parameter(name).grad.full_tensor(), parameter.grad, msg=name)


def test_a_scaled_drift_is_that_of_whole_weights(divided: Any) -> None:
    adaptation = FullTuning(FullOptions())
    adaptation.attach(divided)
    name = "model.layers.0.mlp.up_proj.weight"
    began = toy_model(num_hidden_layers=4).get_parameter(name).detach()
    with torch.no_grad():
        own_rows(divided.get_parameter(name))[0].add_(1)
    adaptation.scale(0.25)
    torch.testing.assert_close(divided.get_parameter(name).full_tensor(), began + 0.25)
    drift = adaptation.drift()[name]
    rows = [drift.rows(start, stop) for start, stop in drift.chunks(100)]
    torch.testing.assert_close(torch.cat(rows), torch.full_like(began, 0.25))


def test_one_layer_is_whole_at_a_time_and_none_between_passes(divided: Any) -> None:
    layers, seen = divided.model.layers, []

    def whole() -> int:
        return sum(not isinstance(layer.mlp.up_proj.weight, DTensor) for layer in layers)

    for layer in layers:
        layer.mlp.register_forward_hook(lambda *_: seen.append(whole()))
        layer.mlp.register_full_backward_hook(lambda *_: seen.append(whole()))
    loss = loss_of(divided)
    assert seen == [1] * len(layers)
    assert whole() == 0
    loss.backward()
    assert max(seen) <= 2, "in the backward pass the next one is fetched ahead"
    assert whole() == 0
    assert all(isinstance(parameter.grad, DTensor) for parameter in divided.parameters())


def test_the_export_is_an_ordinary_folder_in_files_of_a_size(
    divided: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "FILE_SIZE", "40KB")
    (tmp_path / "model").mkdir()
    source = Scratch(ScratchOptions())
    sharding.save_model(divided, None, source, tmp_path / "model", keep=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "what was gathered beside it is gone"
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 1
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    for name, parameter in toy_model(num_hidden_layers=4).named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter), name
