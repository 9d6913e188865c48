"""Any method of PEFT: which are taken, what is checked of their options, and what is refused in words."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ftk
from ftk import RecipeError, UserError
from ftk.planning.machine import this_machine
from ftk.planning.plan import Planner
from ftk.recipe.levels import Reader
from ftk.recipe.reading import recipe_from_table
from ftk.running.rehearsal import copy_with
from ftk_plugins.adaptations.peft.options import REFUSED
from tests.core.planned import recipe_table
from tests.plugins.adaptations.effective import MODELS, REGISTRY, TOKENS, attached, made, shake
from tests.plugins.adaptations.test_adapted_runs import RECIPE
from tests.plugins.mitigations.ewc_stage import fisher_of, remembered, stage
from tests.system.small import written


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("lora", 'has a variant of its own; write use = "lora"'),
        ("ia3", 'has a variant of its own; write use = "ia3"'),
        ("ln_tuning", 'train = ["*norm*"]'),
        ("prefix_tuning", 'write use = "prefix"'),
        ("p_tuning", "adds something to the input and changes no weight"),
        ("xlora", "computes with other weights for each input"),
        ("adalora", 'has a variant of its own; write use = "adalora"'),
    ],
)
def test_what_it_does_not_take_is_told_before_torch_is_there(method: str, reason: str) -> None:
    reader = Reader(REGISTRY)
    assert reader.part("adaptation", {"use": "peft", "method": method}, "adaptation") is None
    (problem,) = reader.problems
    assert problem.path == "adaptation.method"
    assert reason in problem.reason


CONFIGS: list[tuple[str, dict[str, Any], str]] = [
    ("vear", {}, r"the installed PEFT has no method 'vear'\n  did you mean `vera`"),
    ("vera", {"r": 4, "vera_dropuot": 0.1}, r"config\.vera_dropuot: PEFT's vera has no such option\n.*`vera_dropout`"),
    ("vera", {"r": "4"}, r"config\.r: input should be a valid integer, not '4'"),
    ("vera", {"r": True}, r"config\.r: input should be a valid integer, not True"),
    ("oft", {"block_share": 1}, r"config\.block_share: input should be a valid boolean, not 1"),
    ("lokr", {"target_modules": ["q_proj"]}, r"config\.target_modules: .*\n  it follows from adaptation\.targets"),
    ("oft", {"bias": "all"}, r"config\.bias: .*\n  .* use the adaptation `full`"),
    ("lokr", {"r": 0}, r"PEFT refuses lokr with these options: .*positive"),
    ("fourierft", {"n_frequency": 10**6}, r"PEFT refuses fourierft .*n_frequency"),
    ("fourierft", {"n_frequency": 9, "init_weights": False}, r"starts away from the model's own weights, at model\."),
    ("beft", {}, r"learns a bias at model\..*, which has none to merge it into"),
]


@pytest.mark.parametrize(("method", "config", "message"), CONFIGS)
def test_options_that_cannot_be_are_the_users_error(method: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        attached("peft", MODELS["llama"](), method=method, config=config)


def test_layers_that_a_method_does_not_take_are_named() -> None:
    with pytest.raises(UserError, match=r"PEFT refuses oft .*Conv1D"):
        attached("peft", MODELS["gpt2"](), method="oft")
    with pytest.raises(UserError, match=r"osf takes no layers of the type Conv1D, as transformer\.h\.0"):
        attached("peft", MODELS["gpt2"](), method="osf")


def test_a_method_that_computes_with_several_weights_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lily is refused by its name; here a method that nobody has tried yet."""
    monkeypatch.delitem(REFUSED, "lily")
    with pytest.raises(UserError, match="lily does not compute with one weight for all inputs, as at model"):
        attached("peft", MODELS["llama"](), method="lily")


def test_trying_the_layers_leaves_no_trace() -> None:
    plain = MODELS["llama"]()
    state = torch.random.get_rng_state()
    _, model = attached("peft", copy.deepcopy(plain), method="lokr", config={"r": 4})
    drawn = torch.random.get_rng_state()
    assert torch.equal(model(TOKENS).logits, plain(TOKENS).logits)
    assert all(p.grad is None for p in model.parameters())
    torch.random.set_rng_state(state)
    hollow = copy_with(plain, lambda tensor: torch.empty_like(tensor, device="meta"))
    attached("peft", hollow, method="lokr", config={"r": 4})  # nothing to try
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_options_reach_the_method() -> None:
    sizes = []
    for rank in (2, 4):
        _, model = attached("peft", MODELS["llama"](), method="loha", config={"r": rank}, targets=["q_proj"])
        sizes.append(sum(p.numel() for p in model.parameters() if p.requires_grad))
    assert sizes[1] == 2 * sizes[0]


def test_vectors_never_decay() -> None:
    adaptation, model = attached("peft", MODELS["llama"](), method="vera", config={"r": 4})
    (group,) = adaptation.param_groups(model, 0.1)
    assert group["weight_decay"] == 0
    adaptation, model = attached("peft", MODELS["llama"](), method="lokr", config={"r": 4})
    assert all("weight_decay" not in group for group in adaptation.param_groups(model, 0.1))


def test_the_pull_under_osf_stays_in_the_space_that_it_trains() -> None:
    """OSF keeps the largest directions of each weight, and projects its gradients away from them."""
    adaptation, model = attached("peft", MODELS["llama"](), method="osf", targets=["q_proj"])
    shake(model)
    for name, drift in adaptation.drift().items():
        drift.pull_back(0, drift.shape[0], torch.randn(drift.shape))
        trained = model.get_submodule(name.removesuffix(".weight")).osf_svd_params["default"]
        left, _, right = torch.linalg.svd(drift.weight)
        kept = len(left) - trained["U_low"].shape[1]
        for low, high in ((trained["U_low"].grad, left[:, :kept]), (trained["V_low"].grad.mT, right[:kept].mT)):
            assert low.abs().max() > 0.1
            assert (high.mT @ low).abs().max() < 1e-4 * low.abs().max()


@pytest.mark.parametrize("method", ["glora", "hra"])
def test_the_fisher_information_is_that_of_the_plain_model(method: str) -> None:
    """In these the base layer's own gradient is not the weight's, even where nothing has moved yet."""
    found = [
        fisher_of(remembered(stage(made(use, **options))))
        for use, options in (("full", {}), ("peft", {"method": method}))
    ]
    assert found[1]
    scale = {name: found[0][name].sum() / found[1][name].sum() for name in found[1]}
    for name, fisher in found[1].items():
        torch.testing.assert_close(fisher * scale[name], found[0][name], atol=1e-4, rtol=1e-3)
    ratios = torch.stack(list(scale.values()))
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios), atol=0, rtol=1e-3)  # normalised over other weights


def test_a_run_is_refused_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    events: list[str] = []
    recipe = f'adaptation = {{ use = "peft", method = "vera", config = {{ rank = 8 }} }}\n{RECIPE}'
    with pytest.raises(UserError, match=r"config\.rank: PEFT's vera has no such option") as refused:
        ftk.run(written(tmp_path, recipe), output=tmp_path / "run", observers=[lambda event: events.append(event.kind)])
    assert refused.value.exit_code == 2
    assert not {"measured", "stage_started"} & set(events)
    with pytest.raises(RecipeError, match=r"adaptation\.method"):
        ftk.run(written(tmp_path, recipe.replace("vera", "cpt")), output=tmp_path / "other")


@pytest.mark.parametrize(
    "adaptation", [{"use": "dora"}, {"use": "adalora", "every": 1}, {"use": "peft", "method": "oft"}]
)
def test_a_stage_is_planned_without_weights(adaptation: dict[str, Any], tmp_path: Path) -> None:
    """Through EWC's pull: shapes and types, nothing that can be read."""
    texts = (f"row {number} of ten that are all {number} words long or more" for number in range(10))
    rows = written(tmp_path, "".join(json.dumps({"text": text}) + "\n" for text in texts), "rows.jsonl")
    table = recipe_table(rows, adaptation=adaptation, mitigation=[{"use": "ewc", "samples": 4}])
    plan = Planner(recipe_from_table(table, "test", ""), this_machine(1)).stage(1)
    assert plan.unknown == ""
    remembering = dict(plan.stations[0].parts)
    assert remembering["mitigation ewc"] > 0
