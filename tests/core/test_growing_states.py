"""What mitigations keep of weights, taken up under a recipe that has grown: more rows of a head, or more heads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from transformers import BertConfig, BertForSequenceClassification

from ftk.parts import Head, ModelSource
from ftk.parts.growing import grown
from ftk.parts.heads import Heads
from ftk.processes.sharding import make_mesh
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.mitigations.ewc.ewc import Ewc
from ftk_plugins.mitigations.gpm.gpm import Gpm
from ftk_plugins.mitigations.l2sp.l2sp import L2sp
from ftk_plugins.mitigations.synaptic_intelligence.synaptic_intelligence import SynapticIntelligence

SIZES = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20
}  # fmt: skip
KIND = "sequence_classification"
THREE, FOUR = Head(KIND, ("a", "b", "c")), Head(KIND, ("a", "b", "c", "d"))
OTHER = Head(KIND, ("new", "old"))


def bert(head: Head) -> Any:
    return BertForSequenceClassification(BertConfig(**SIZES, num_labels=len(head.labels)))


def stage(*heads: Head, first: Head) -> Any:
    """A stage with full tuning of the model of the first of the heads; ``first`` was taught before."""
    models = {head: bert(head) for head in heads}
    run = Heads(models, heads[0], None, lambda model: ModelSource.body(None, model))  # type: ignore[arg-type]
    adaptation = FullTuning(FullOptions())
    run = run.following(adaptation.attach(run.model))
    earlier = [SimpleNamespace(objective=SimpleNamespace(head=first))]
    return SimpleNamespace(adaptation=adaptation, heads=run, earlier=earlier, common_name=run.common_name)


def test_importances_get_zeros_and_copies_the_weights_own_rows() -> None:
    ctx = stage(FOUR, first=FOUR)
    weight = ctx.heads.model.classifier.weight
    state = {"tasks": {}, "importance/classifier.weight": torch.rand(3, 8), "learned/classifier.bias": torch.rand(3)}
    found = grown(state, SynapticIntelligence.of_weights, ctx)
    for key, tensor in state.items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(found[key][:3], tensor)
            assert torch.equal(found[key][3:], torch.zeros_like(found[key][3:]))
    kept = grown({"new": [], "start/classifier.weight": torch.rand(3, 8)}, L2sp.of_weights, ctx)
    assert torch.equal(kept["start/classifier.weight"][3], weight[3])
    again = grown(found, SynapticIntelligence.of_weights, ctx)
    assert all(again[key] is found[key] for key in found), "nothing has changed"


def test_what_has_other_rows_than_the_weight_stays() -> None:
    """As a basis of the inputs, also where it has by chance the shape of the weight as it was."""
    ctx = stage(FOUR, first=FOUR)
    basis = torch.rand(3, 8)
    assert grown({"basis/classifier.weight": basis}, Gpm.of_weights, ctx)["basis/classifier.weight"] is basis


@pytest.mark.parametrize("square", [False, True])
def test_factors_pull_at_old_rows_as_they_did_and_at_new_ones_not(square: bool) -> None:
    torch.manual_seed(0)
    rows, columns = torch.rand(3), torch.rand(8)
    if square:
        rows, columns = (each.outer(each) + each.diag() for each in (rows, columns))
    key = "fisher/classifier.weight"
    state = {f"{key}/rows": rows, f"{key}/columns": columns}
    found = grown(state, Ewc.of_weights, stage(FOUR, first=FOUR))
    assert found[f"{key}/columns"] is columns

    def pull(rows: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        """``F · moved`` with the whole matrix F, of all weights by all weights."""
        left, right = (each if square else each.diag() for each in (rows, columns))
        return (torch.kron(left, right) / left.trace() @ moved.flatten()).view_as(moved)

    moved = torch.randn(4, 8)
    now = pull(found[f"{key}/rows"], moved)
    torch.testing.assert_close(now[:3], pull(rows, moved[:3]))
    assert not now[3].any()


def test_a_run_that_gains_a_head_finds_what_was_kept_of_the_body_and_of_its_one_head() -> None:
    before = stage(OTHER, first=OTHER)
    kept = {f"fisher/{name}": weight.detach() for name, weight in before.heads.model.named_parameters()}
    ctx = stage(OTHER, THREE, first=OTHER)
    found = grown({"tasks": {}, **kept}, Ewc.of_weights, ctx)
    names = {ctx.common_name(name): name for name in ctx.adaptation.drift()}
    assert found.keys() == {"tasks", *(f"fisher/{name}" for name in names)}
    for name, plain in names.items():
        assert found[f"fisher/{name}"] is kept[f"fisher/{plain}"]
    gpm = {"held": ["classifier.weight"], "basis/bert.pooler.dense.weight": torch.ones(8, 1)}
    state = grown(gpm, Gpm.of_weights, ctx)
    assert state["held"] == [ctx.common_name("classifier.weight")]
    assert "basis/pooler.dense.weight" in state


def test_beside_another_head_a_head_is_found_by_the_labels_that_it_had() -> None:
    before, ctx = stage(THREE, OTHER, first=THREE), stage(FOUR, OTHER, first=FOUR)
    old, new = (each.common_name("classifier.weight") for each in (before, ctx))
    assert old != new
    found = grown({f"fisher/{old}": torch.ones(3, 8)}, Ewc.of_weights, ctx)
    assert found.keys() == {f"fisher/{new}"}
    assert found[f"fisher/{new}"].shape == (4, 8)


def test_what_is_divided_among_processes_is_divided_anew() -> None:
    ctx, mesh = stage(FOUR, first=FOUR), make_mesh(Accelerator(cpu=True))
    try:
        kept, weight = torch.rand(3, 8), ctx.heads.model.classifier.weight.detach()
        divided = [distribute_tensor(tensor, mesh, [Shard(0)]) for tensor in (kept, weight)]
        ctx.adaptation = SimpleNamespace(drift=lambda: {"classifier.weight": SimpleNamespace(weight=divided[1])})
        state = {"fisher/classifier.weight": divided[0], "start/classifier.weight": divided[0]}
        found = grown(state, Ewc.of_weights, ctx)
        for key, new in (("fisher/classifier.weight", torch.zeros(1, 8)), ("start/classifier.weight", weight[3:])):
            assert isinstance(found[key], DTensor)
            assert found[key].placements == (Shard(0),)
            assert torch.equal(found[key].full_tensor(), torch.cat([kept, new]))
    finally:
        torch.distributed.destroy_process_group()


def test_a_head_that_is_not_trained_needs_nothing() -> None:
    ctx = stage(FOUR, first=FOUR)
    ctx.adaptation = SimpleNamespace(drift=dict)
    state = {"fisher/classifier.weight": torch.ones(3, 8)}
    assert grown(state, Ewc.of_weights, ctx) == state
