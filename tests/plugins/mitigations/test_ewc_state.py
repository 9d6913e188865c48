"""What EWC carries through checkpoints and from stage to stage, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftk import RunFailed, UserError
from ftk.testing.toys import toy_model
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations.ewc.ewc import Ewc
from ftk_plugins.mitigations.ewc.options import EwcOptions
from tests.plugins.mitigations.ewc_stage import (
    fisher_of,
    pulled,
    remembered,
    stage,
    task,
    wander,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_state_goes_through_files_exactly(tmp_path: Path) -> None:
    ctx = stage()
    ewc = remembered(ctx, task("a"), task("b", 6))
    state = ewc.state_dict()
    save_file({key: value for key, value in state.items() if isinstance(value, Tensor)}, tmp_path / "s.safetensors")
    values = json.loads(json.dumps({key: value for key, value in state.items() if not isinstance(value, Tensor)}))
    back = Ewc(EwcOptions())
    back.load_state_dict({**load_file(tmp_path / "s.safetensors"), **values})
    back.begin(ctx)
    wander(ctx.model)
    torch.manual_seed(1)
    first = pulled(ewc, ctx)
    torch.manual_seed(1)
    second = pulled(back, ctx)
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert back.report() == ewc.report()
    for each in (ewc, back):
        each.remember(task("c", 12), ctx)
    assert all(torch.equal(value, fisher_of(ewc)[name]) for name, value in fisher_of(back).items())


def test_steps_leave_the_state_untouched_so_that_checkpoints_can_link_it() -> None:
    ctx = stage()
    ewc = remembered(ctx)
    before = {name: (id(value), value._version) for name, value in fisher_of(ewc).items()}
    wander(ctx.model)
    pulled(ewc, ctx)
    assert {name: (id(value), value._version) for name, value in fisher_of(ewc).items()} == before


def test_a_strange_state_is_refused() -> None:
    with pytest.raises(ValueError, match="rows"):
        Ewc(EwcOptions()).load_state_dict({"rows": [1]})


def test_weights_that_the_stage_does_not_train_are_kept_for_later_stages() -> None:
    wide = remembered(stage())
    narrow_ctx = stage(Lora(LoraOptions(rank=4, targets=("q_proj",))))
    narrow = Ewc(EwcOptions())
    narrow.load_state_dict(wide.state_dict())
    narrow.begin(narrow_ctx)
    pulled(narrow, narrow_ctx)
    assert fisher_of(narrow).keys() == fisher_of(wide).keys()
    assert 0 < narrow.report()["guarded_weights"] < wide.report()["guarded_weights"]


def test_a_stage_that_trains_nothing_remembered_is_warned_of() -> None:
    first = remembered(stage(Lora(LoraOptions(rank=4, targets=("q_proj",)))))
    events: list[Any] = []
    ctx = stage(Lora(LoraOptions(rank=4, targets=("v_proj",))), events=events)
    ewc = Ewc(EwcOptions())
    ewc.load_state_dict(first.state_dict())
    ewc.begin(ctx)
    assert ["none of the weights" in event.data["text"] for event in events] == [True]


def test_a_first_stage_has_nothing_to_guard() -> None:
    ctx = stage()
    ewc = Ewc(EwcOptions(strength=100))
    ewc.begin(ctx)
    wander(ctx.model)
    assert not any(value.any() for value in pulled(ewc, ctx).values())
    assert ewc.report() == {"tasks": {}, "guarded_weights": 0, "forms": {"diagonal": 0}}


def test_a_weight_that_changed_its_shape_is_named() -> None:
    ewc = remembered(stage())
    wider = stage(model=toy_model(intermediate_size=48))
    with pytest.raises(RunFailed, match=r"layers.0.mlp.gate_proj.weight was remembered in shape \(64, 32\)"):
        ewc.begin(wider)


def test_a_task_without_rows_is_refused() -> None:
    empty = replace(task(), train=task().train.subset([]))
    with pytest.raises(UserError, match="nothing tells what `old` depends on"):
        remembered(stage(), empty)
