"""The variants of a recipe, the joint one before all, and a series of runs in which some fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftk.comparing import joint, series
from ftk.comparing.joint import CannotJoin, joint_recipe
from ftk.comparing.quality import check_metric
from ftk.comparing.series import Done, Planned, Watcher, run_series
from ftk.comparing.variants import variants
from ftk.errors import Interrupted, RunFailed, UserError
from ftk.plugin.discovery import load_registry
from ftk.recipe.members import tasks_of
from ftk.recipe.reading import load_recipe
from ftk.recipe.specs import Recipe
from ftk.running.folder import InUse
from tests.core.command import ftk_
from tests.system.small import FACTS, HEAD, ONE_STAGE, PIPELINE, written

REGISTRY = load_registry(third_party=False)
JOINED = ("ewc_lora", "domain_adaptive", "dpo_safety", "intermediate_task", "bert_mlm_then_classify", "facts_stream")
"""Recipes whose tasks can be put together: of one objective and of several, test rows named and kept back."""
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


def read(folder: Path, text: str, *settings: str) -> Recipe:
    return load_recipe(written(folder, text), overrides=settings, registry=REGISTRY)


def mitigations(recipe: Recipe) -> list[str]:
    return [spec.name for spec in recipe.stages[0].mitigations]


def test_each_mitigation_is_left_out_and_taken_alone_and_equal_variants_are_one(tmp_path: Path) -> None:
    three = PIPELINE.replace(
        '[[mitigation]]\nuse = "replay"', '[[mitigation]]\nuse = "l2sp"\n[[mitigation]]\nuse = "replay"'
    )
    found, left_out = variants(written(tmp_path, three), [], REGISTRY)
    assert {variant.name: sorted(mitigations(variant.recipe)) for variant in found} == {
        "full": ["ewc", "l2sp", "replay"],
        "without-ewc": ["l2sp", "replay"], "without-l2sp": ["ewc", "replay"], "without-replay": ["ewc", "l2sp"],
        "none": [],
        "only-ewc": ["ewc"], "only-l2sp": ["l2sp"], "only-replay": ["replay"],
        "joint": [],
    }  # fmt: skip
    assert left_out == []
    found, _ = variants(written(tmp_path, PIPELINE), ["seed=9"], REGISTRY)
    assert [variant.name for variant in found] == ["full", "without-ewc", "without-replay", "none", "joint"]
    assert found[1].summary == "without ewc; replay alone"
    assert {variant.recipe.seed for variant in found} == {9}
    assert found[0].seeded(2).seed == 2
    assert found[0].seeded(2).sha256 != found[0].recipe.sha256


def test_a_variant_that_cannot_be_made_is_left_out_with_the_reason() -> None:
    [recipe] = [path for path in RECIPES if path.stem == "budget"]
    found, left_out = variants(recipe, [], REGISTRY)
    assert "without-budget" in [variant.name for variant in found]
    assert "budget" in {gap.name: gap.reason for gap in left_out}["only-budget"]


def test_the_joint_recipe_has_all_rows_in_one_stage_from_the_same_start(tmp_path: Path) -> None:
    full = read(tmp_path, PIPELINE, "training.evaluate_every=2", "training.learning_rate=1e-4",
                "data.validation.use=world_facts", "data.retain_validation.use=world_facts")  # fmt: skip
    made = joint_recipe(full, REGISTRY)
    [stage] = made.stages
    assert made.model.resolved() == full.model.resolved()
    assert made.seed == full.seed
    assert stage.adaptation.resolved() == full.stages[0].adaptation.resolved()
    assert [task.name for task in tasks_of(stage)] == ["joint/retain", "joint/capitals", "joint/currencies"]
    for task, data in zip(tasks_of(stage), (full.retained_data(), *(s.data for s in full.stages)), strict=True):
        assert data is not None
        assert data.test is not None
        assert task.data.test is not None
        assert task.data.train.options == data.train.options
        assert task.data.test.options == data.test.options
        assert [spec.use for spec in task.evaluators] == ["keyword_accuracy", "perplexity"]
    assert (stage.training.steps, stage.training.learning_rate) == (18, 1e-4)
    assert stage.training.evaluate_every == 0
    assert not stage.mitigations
    assert made.retain is None


def test_epochs_are_the_longest_stages(tmp_path: Path) -> None:
    text = PIPELINE.replace("steps = 9\n", "") + "[stage.training]\nepochs = 7\n"
    assert joint_recipe(read(tmp_path, text), REGISTRY).stages[0].training.epochs == 7


SORTED = f"""{HEAD.replace('use = "instruction"', 'use = "classification"').replace("template", "label")}
[adaptation]
use = "full"
[[stage]]
name = "one"
data = {{ train = {{ {FACTS.replace('"en"', '["en", "zh"]')}, relations = ["capital", "currency"], limit = 4 }} }}
[[stage]]
name = "two"
data = {{ train = {{ {FACTS.replace('"en"', '["en", "zh"]')}, relations = ["iso_code", "capital"], limit = 4 }} }}
"""
"""Two stages of classification, by whichever column."""


@pytest.mark.parametrize(("label", "heads"), [("language", ["one", "one"]), ("relation", [None, None])])
def test_tasks_of_the_same_labels_share_a_head_as_their_stages_do(
    tmp_path: Path, label: str, heads: list[str | None]
) -> None:
    full = read(tmp_path, SORTED, f"objective.label={label}")
    tasks = joint_recipe(full, REGISTRY).stages[0].objective.options.model_dump()["tasks"]
    assert [task.get("head") for task in tasks.values()] == heads


@pytest.mark.parametrize(
    ("text", "settings", "reason"),
    [
        (ONE_STAGE, [], "one task"),
        (PIPELINE, ["stage.currencies.training.epochs=2"], "in steps and others in epochs"),
        (PIPELINE, ["stage.capitals.adaptation.use=prompt"], "merge"),
    ],
)
def test_where_tasks_cannot_be_put_together_the_reason_is_told(
    tmp_path: Path, text: str, settings: list[str], reason: str
) -> None:
    if "prompt" in str(settings):
        text = text.replace('adaptation = { use = "full" }', 'adaptation = { use = "prompt" }')
        text = text[: text.rindex("[[stage]]")].replace('[[mitigation]]\nuse = "ewc"\nsamples = 6\n', "")
        settings = []
    with pytest.raises(CannotJoin, match=reason):
        joint_recipe(read(tmp_path, text, *settings), REGISTRY)


@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem != "qlora"], ids=lambda path: path.stem)
def test_the_tasks_of_every_recipe_are_put_together_or_it_is_told_why_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint, "_shared_heads", lambda *_: {})  # rows are not read here
    recipe, reason = load_recipe(path, registry=REGISTRY), ""
    try:
        made = joint_recipe(recipe, REGISTRY)
    except CannotJoin as error:
        reason = str(error)
    else:
        assert len(tasks_of(made.stages[0])) == len(recipe.stages) + (recipe.retain is not None)
    assert not reason or path.stem not in JOINED


@pytest.mark.parametrize("text", ["", "1,", "a", "1.5", "-1", "1;2", "4294967296", "²", "1,1"])
def test_seeds_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    done = ftk_("ablate", str(written(tmp_path, ONE_STAGE)), f"--seeds={text}")
    assert (done.exit_code, "write whole numbers, each once" in done.output) == (2, True)


def test_what_the_command_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = str(written(tmp_path, ONE_STAGE))
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        assert "runs in one process" in ftk_("ablate", recipe).output
    assert ftk_("ablate", recipe, "--seeds", "1", "--set", "seed=2").exit_code == 2
    assert ftk_("ablate", recipe, "--set", "training.step=1").exit_code == 2
    assert ftk_("ablate", str(tmp_path / "nowhere.toml")).exit_code == 2
    tested = f'{ONE_STAGE}test = {{ {FACTS}, relations = "capital" }}\n[[evaluator]]\nuse = "perplexity"\n'
    measured = str(written(tmp_path, tested, "measured.toml"))
    assert "is a file" in ftk_("ablate", measured, "--output", recipe).output
    assert not (tmp_path / "runs").exists()


def test_what_will_be_measured_is_known_from_the_recipe() -> None:
    [path] = [path for path in RECIPES if path.stem == "ewc_lora"]
    recipe = load_recipe(path, registry=REGISTRY)
    for metric in (None, "keyword_accuracy", "keyword_accuracy@unseen_wording"):
        check_metric(recipe, metric)
    with pytest.raises(UserError, match="did you mean `keyword_accuracy@unseen_wording`"):
        check_metric(recipe, "keyword_accuracy@unseen_words")
    with pytest.raises(UserError, match="no evaluator"):
        check_metric(recipe, "keyword_accuracy@unseen_wording", choosing=True)


class Heard(Watcher):
    def __init__(self) -> None:
        self.ends: list[tuple[int, str, bool]] = []

    def ended(self, number: int, done: Done, known: bool) -> None:
        self.ends.append((number, done.error, known))


def planned(tmp_path: Path, count: int = 3) -> list[Planned]:
    recipe = read(tmp_path, ONE_STAGE)
    return [Planned(f"v{number}", recipe, tmp_path / str(number)) for number in range(count)]


def running(monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, list[Any]]) -> list[str]:
    """In place of real runs: for each folder what comes of one try after the other."""
    tried: list[str] = []

    def run(recipe: Recipe, *, output: Path, **_: Any) -> Any:
        tried.append(output.name)
        what = outcomes.get(output.name, [])
        if what and isinstance(error := what.pop(0), BaseException):
            raise error
        return type("Result", (), {"report": {"folder": output.name}})

    monkeypatch.setattr(series, "run", run)
    monkeypatch.setattr(series, "PAUSE", 0.0)
    monkeypatch.setattr(series.gc, "collect", lambda: 0)
    return tried


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = {"1": RunFailed("the loss is not finite"), "2": UserError("wrong", "mend it"), "3": KeyError("x")}
    running(monkeypatch, {folder: [error] for folder, error in failures.items()})
    heard = Heard()
    done = run_series(planned(tmp_path, 5), REGISTRY, heard)
    told = [each.error.partition(" (")[0] for each in done]
    assert told == ["", "the loss is not finite", "wrong\n  mend it", "KeyError: 'x'", ""]
    assert [each.report is None for each in done] == [False, True, True, True, False]
    assert [number for number, _, _ in heard.ends] == [1, 2, 3, 4, 5]


def test_wrong_input_of_the_recipe_itself_and_a_signal_end_the_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (UserError("no such file"), Interrupted("saved")):
        tried = running(monkeypatch, {"0": [error]})
        with pytest.raises(type(error)):
            run_series(planned(tmp_path), REGISTRY, Watcher())
        assert tried == ["0"]


def test_what_another_process_is_at_is_waited_for_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = running(monkeypatch, {"0": [InUse("it"), InUse("it"), None]})
    done = run_series(planned(tmp_path), REGISTRY, Watcher())
    assert tried == ["0", "1", "2", "0", "0"]
    assert [each.report for each in done] == [{"folder": name} for name in "012"]
