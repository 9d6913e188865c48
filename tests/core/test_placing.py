"""Where layers lie: what a recipe says of it, what is refused, and weights that come for the length of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftk.errors import UserError
from ftk.parts import Head
from ftk.processes.loading import Loading
from ftk.processes.placing import Placement, _units, _visit, follow, is_placed
from ftk.testing import toy_model
from tests.core.loops import build

CPU, HERE = torch.device("cpu"), torch.device("cpu", 0)
"""One device under two names: a weight on the first is copied to the second."""


def model_of(layers: int = 2) -> Any:
    torch.manual_seed(0)
    return toy_model(num_hidden_layers=layers)


def places(wanted: str | Mapping[str, int | str], main: torch.device = CPU, **more: Any) -> dict[str, Any]:
    return Placement(wanted, more.get("max_memory"), None).places(model_of(), main)


@pytest.mark.parametrize("recompute", [False, True])
def test_weights_come_for_a_pass_with_their_graph_and_go_again(recompute: bool) -> None:
    ids = torch.randint(3, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    gradients = []
    for away in (False, True):
        model = model_of().train()
        for _, unit, deep in _units(model) if away else ():
            _visit(unit, HERE, deep)
        assert is_placed(model) == away
        adapted = build("adaptation", "lora", rank=2, init="pissa").attach(model)
        follow(adapted, HERE)
        if recompute:
            model.activation_checkpointing_enable({"use_reentrant": False})
        adapted(input_ids=ids, labels=ids).loss.backward()
        assert all(
            isinstance(p, torch.nn.Parameter) for m in model.modules() for p in m._parameters.values() if p is not None
        )
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradients[1][name], gradient), name


def test_weights_go_back_where_a_pass_breaks_off() -> None:
    model = model_of()
    before = {name: id(p) for name, p in model.named_parameters()}
    for _, unit, deep in _units(model):
        _visit(unit, HERE, deep)
    model.model.layers[1].mlp.down_proj.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(input_ids=torch.ones(1, 3, dtype=torch.long))
    assert {name: id(p) for name, p in model.named_parameters()} == before


def test_the_longest_name_tells_and_what_has_none_lies_on_the_runs_device() -> None:
    found = places({"model": "cpu", "model.layers.1": "disk", "model.norm.weight": "disk"})
    assert {name for name, place in found.items() if place == "disk"} == {
        name for name in found if name.startswith("model.layers.1.") or name == "model.norm.weight"
    }
    assert set(found.values()) == {"disk", CPU}
    assert set(places({}).values()) == {CPU}


def test_tied_weights_stay_one_and_other_models_are_left_alone() -> None:
    model = model_of()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    values = {name: p.clone() for name, p in model.named_parameters()}
    told = Placement({"": "disk"}, None, None).place(model, CPU)
    assert told.endswith("GB on disk")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert all(torch.equal(p, values[name]) for name, p in model.named_parameters())
    assert not is_placed(model), "on a CPU everything is where it computes"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"model.layer": "cpu"}, "no module or weight `model.layer` did you mean `model.layers`?"),
        ({"xyz": "cpu"}, "no module or weight `xyz` valid here: lm_head, model"),
        ({"model.layers": 0}, "there is no accelerator 0; this machine has none"),
        ("auto", 'device_map = "auto" divides a model among accelerators, and this run is on cpu'),
        ("sequential", "and this run is on cpu leave it out"),
    ],
)
def test_what_is_not_there_is_refused(wanted: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        places(wanted)
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_quantized_weights_are_not_moved() -> None:
    model = model_of()
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(3, 3, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UserError, match=r"lm_head\.weight is quantized"):
        Placement({}, None, None).place(model, CPU)


def test_a_layer_lies_in_one_place() -> None:
    with pytest.raises(UserError, match=r"`model\.layers\.0` would lie in several places"):
        Placement({"model.layers.0.mlp": "disk"}, None, None).place(model_of(), CPU)


def test_layers_fill_one_accelerator_after_another_up_to_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    model = model_of(layers=6)
    sizes = {name: p.numel() * p.element_size() for name, p in model.named_parameters()}
    layer = sum(size for name, size in sizes.items() if ".layers.0." in name)
    embedding = sizes["model.embed_tokens.weight"]
    room = max(layer, embedding)  # where weights from elsewhere come to compute, and where those from disk pass through
    limits = {"cuda:0": embedding + 1.5 * layer + room, "cuda:1": 1.5 * layer, "cpu": 2.5 * layer}
    keys = ("0", "1", "cpu")
    limit = {key: f"{size / 1000:.0f}KB" for key, size in zip(keys, limits.values(), strict=True)}
    found = Placement("sequential", limit, None).places(model, torch.device("cuda", 0))
    order = [*limits, "disk"]
    lie = [order.index(str(found[f"model.layers.{number}.mlp.up_proj.weight"])) for number in range(6)]
    assert lie == sorted(lie), "in the order of the layers"
    assert {0, 1, 3} <= set(lie)
    for place, most in limits.items():
        assert sum(sizes[name] for name, where in found.items() if str(where) == place) <= most + 500
    for number in range(6):
        assert len({place for name, place in found.items() if f".layers.{number}." in name}) == 1


@pytest.mark.parametrize(
    ("heads", "processes", "said"),
    [
        ((Head("causal_lm"), Head("masked_lm")), 1, r"training.device_map: the tasks of this run have several heads"),
        ((Head("causal_lm"),), 2, "divides a model among the devices of one process, and this run has 2"),
    ],
)
def test_it_is_for_one_head_in_one_process(heads: tuple[Head, ...], processes: int, said: str) -> None:
    accelerator: Any = SimpleNamespace(num_processes=processes, device=CPU)
    nothing: Any = None
    loading = Loading(nothing, 0, nothing, accelerator, None, Placement({}, None, None), "fp32", nothing)
    with pytest.raises(UserError, match=said):
        loading.load(dict.fromkeys(heads), heads[0])
