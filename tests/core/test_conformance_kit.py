"""The conformance suite finds each way of breaking the contract, and says which clause was broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import Entry, Registry
from ftk.plugin.variant import Variant
from ftk.testing import Case, Subject, check_variant, clauses

SMALL = {"hidden_size": 32, "layers": 1}
LIKE = {
    "objective": "ftk_plugins.objectives.instruction.options:InstructionOptions",
    "adaptation": "ftk_plugins.adaptations.full.options:FullOptions",
    "model": "ftk_plugins.models.scratch.options:ScratchOptions",
    "evaluator": "tests.core.broken_parts:LossOptions",
}
PROVIDES = {
    "objective": (
        "prompts",
        "token-loss",
        "target-sampling",
        "target-listing",
        "loss-chunks",
        "label-smoothing",
    ),
    "adaptation": ("merge", "weight-drift", "weight-scale"),
}

APART = {"mitigation": "broken_mitigations", "adaptation": "broken_adaptations"}
"""Kinds whose broken parts stand in a file of their own."""

BROKEN = [
    ("objective", "MeanLoss", "a_loss_is_the_sum_of_its_rows"),
    ("objective", "MeanLoss", "token_loss_is_cross_entropy"),
    ("objective", "PaddingIsATarget", "a_batch_says_what_it_holds"),
    ("objective", "PaddingIsATarget", "a_loss_is_the_sum_of_its_rows"),
    ("objective", "ShiftedLabels", "token_loss_is_cross_entropy"),
    ("objective", "KeyErrors", "a_bad_row_is_a_user_error"),
    ("objective", "WholePrompt", "a_prompt_begins_its_row"),
    ("objective", "NoGraph", "a_loss_has_a_graph"),
    ("objective", "FreezesInLoss", "a_loss_leaves_the_model_alone"),
    ("objective", "DropsAChunk", "chunks_change_nothing"),
    ("objective", "DetachesChunks", "chunks_change_nothing"),
    ("objective", "SmoothsWhatIsMeasured", "smoothing_is_for_training"),
    ("objective", "NeverSmooths", "smoothing_is_for_training"),
    ("objective", "DrawsInPlace", "drawn_targets_are_a_new_batch"),
    ("objective", "HalfOfTheTargets", "listed_targets_are_all"),
    ("objective", "VariesInPlace", "varies_by_its_generator_alone"),
    ("objective", "VariesByItself", "varies_by_its_generator_alone"),
    ("objective", "AugmentsWhatItDraws", "varies_by_its_generator_alone"),
    ("objective", "AugmentsTargetsAway", "augmented_rows_go_with_others"),
    ("adaptation", "HidesADrift", "drift_is_the_real_displacement"),
    ("adaptation", "StaleStart", "drift_is_the_real_displacement"),
    ("adaptation", "DoublePull", "pull_back_is_the_chain_rule"),
    ("adaptation", "TwiceItsProducts", "products_are_the_drift"),
    ("adaptation", "OverwritingPull", "pull_back_is_the_chain_rule"),
    ("adaptation", "NoReference", "reference_is_the_start"),
    ("adaptation", "RelativeScale", "scaling_is_absolute"),
    ("adaptation", "ForgottenGroup", "trains_what_it_says"),
    ("adaptation", "ThawsInSilence", "before_a_step_it_says_what_changes"),
    ("adaptation", "NeverThaws", "before_a_step_it_says_what_changes"),
    ("adaptation", "CountsItsSteps", "before_a_step_it_says_what_changes"),
    ("adaptation", "RoundedState", "state_brings_the_model_back"),
    ("adaptation", "MergesToNothing", "merging_gives_the_plain_model"),
    ("adaptation", "ExportsPickles", "exporting_changes_nothing"),
    ("adaptation", "ChangesTheFunction", "attaching_keeps_the_function"),
    ("mitigation", "Idle", "acts_at_its_stations"),
    ("mitigation", "GlobalRandomness", "the_same_seed_gives_the_same_weights"),
    ("mitigation", "Forgetful", "resuming_changes_nothing"),
    ("mitigation", "RemembersInMemory", "resuming_changes_nothing"),
    ("mitigation", "RehearsesLess", "rehearses_what_it_remembers"),
    ("mitigation", "OneTaskOnly", "goes_on_in_the_next_stage"),
    ("mitigation", "IdleKnob", "its_knob_turns_it"),
    ("mitigation", "LeavesAHook", "leaves_the_model_as_it_was"),
    ("mitigation", "Freezes", "leaves_the_model_as_it_was"),
    ("mitigation", "OtherShare", "its_sources_are_shares"),
    ("mitigation", "MeanPenalty", "its_penalty_is_a_sum"),
    ("mitigation", "BreaksGradients", "it_edits_gradients_in_place"),
    ("mitigation", "BreaksGradients", "acts_at_its_stations"),
    ("mitigation", "EditsWhatItReads", "it_reads_gradients_without_a_trace"),
    ("mitigation", "MovesWeights", "it_edits_gradients_in_place"),
    ("mitigation", "SetState", "its_state_survives_the_disk"),
    ("mitigation", "TakesAnything", "unknown_state_is_refused"),
    ("evaluator", "MeanOfBatches", "does_not_depend_on_the_batch_size"),
    ("evaluator", "Guesses", "measures_the_same_twice"),
    ("evaluator", "NoNumber", "gives_finite_numbers"),
    ("evaluator", "OtherName", "gives_finite_numbers"),
    ("evaluator", "NotesATensor", "gives_finite_numbers"),
    ("evaluator", "ModeLeft", "leaves_the_model_as_it_was"),
    ("model", "RandomWeights", "loads_the_same_twice"),
    ("model", "AnotherEachTime", "its_identity_stays"),
    ("model", "OutlinesAnother", "its_outline_is_the_model"),
    ("model", "IgnoresTheFolder", "loads_what_a_stage_saved"),
    ("model", "DrawsTheHeadAnew", "keeps_the_rows_of_a_head_that_grows"),
    ("model", "BodyWithoutWeights", "its_heads_share_a_body"),
    ("dataset", "Unordered", "gives_the_same_rows_twice"),
    ("dataset", "SameSplits", "keeps_splits_apart"),
    ("dataset", "Nothing", "gives_rows"),
    ("dataset", "TellsOnAndOn", "tells_what_it_left_out"),
    ("transform", "Shuffles", "applies_to_rows"),
    ("transform", "ForgetsRows", "tells_what_it_did"),
]


def subject(kind: str, part: str, **changes) -> Subject:
    """A variant that builds one of the broken parts, beside all that is installed."""
    declared = {
        "summary": "Broken on purpose.",
        "options": LIKE.get(kind, "tests.core.broken_parts:NoOptions"),
        "build": f"tests.core.{APART.get(kind, 'broken_parts')}:{part}",
        "provides": PROVIDES.get(kind, ()),
        **changes,
    }
    entry = Entry(kind, Variant(name="broken", **declared), "broken-plugin", "1", "broken")
    registry = Registry((), (*load_registry(third_party=False).entries(), entry))
    return Subject(kind, "broken", SMALL if kind == "model" else {}, registry=registry)


def clause(kind: str, name: str):
    return next(found for found in clauses(kind) if found.__name__ == name)


@pytest.mark.parametrize(("kind", "part", "name"), BROKEN)
def test_a_broken_part_is_found_by_its_clause(kind: str, part: str, name: str) -> None:
    with pytest.raises(AssertionError) as caught:
        Case(subject(kind, part), clause(kind, name)).check()
    message = str(caught.value)
    assert f"{kind} `broken` breaks `{name}`" in message
    assert "found: " in message


def test_an_adaptation_that_neither_merges_nor_exports_is_found() -> None:
    lost = subject("adaptation", "MergesToTheStart", provides=())
    with pytest.raises(AssertionError, match="nothing holds what it has learned"):
        Case(lost, clause("adaptation", "merging_gives_the_plain_model")).check()


def test_packing_that_lets_rows_see_each_other_is_found() -> None:
    options = "ftk_plugins.objectives.causal_lm.options:CausalLMOptions"
    registry = subject("objective", "PacksInOneRow", options=options).registry
    leaky = Subject("objective", "broken", {"packing": True}, registry=registry)
    with pytest.raises(AssertionError, match="packed and unpacked rows"):
        Case(leaky, clause("objective", "packing_keeps_rows_apart")).check()


@pytest.mark.parametrize(
    ("changes", "name", "told"),
    [
        ({"options": "tests.core.broken_parts:BareOptions"}, "options_are_described_and_strict", "size"),
        ({"options": "tests.core.broken_parts:LooseOptions"}, "options_are_described_and_strict", "forbid"),
        ({"needs": ("flying",)}, "needs_what_can_be_given", "nothing provides flying"),
        ({"options": "tests.core.broken_parts:GroundingOptions"}, "withholds_what_could_be_given", "provides flying"),
        ({"build": "tests.core.broken_parts:Shuffles"}, "builds_its_kind", "not a Mitigation"),
        ({"summary": "x" * 200}, "is_listed_once_and_works", "120"),
    ],
)
def test_a_broken_declaration_is_found(changes: dict[str, object], name: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        Case(subject("mitigation", "Idle", **changes), clause("mitigation", name)).check()


def test_options_may_withhold_what_another_part_provides() -> None:
    one = subject("mitigation", "Idle", options="tests.core.broken_parts:WithoutDrift")
    Case(one, clause("mitigation", "withholds_what_could_be_given")).check()


HEAVY_PLUGIN = """
import os
import numpy
from ftk import Variant, hookimpl
os.environ["CHANGED_BY_PLUGIN"] = "1"

@hookimpl
def ftk_mitigations():
    return [Variant(name="heavy", summary="Heavy.", options="tests.core.broken_parts:NoOptions",
                    build="tests.core.broken_mitigations:Idle")]
"""


def test_a_plugin_that_imports_what_is_heavy_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_plugin.py").write_text(HEAVY_PLUGIN)
    info = tmp_path / "heavy_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: heavy-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ftk]\nheavy = heavy_plugin\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    monkeypatch.syspath_prepend(str(tmp_path))
    check = clause("mitigation", "lists_and_checks_without_heavy_imports")
    with pytest.raises(AssertionError, match=r"imports .*numpy"):
        Case(Subject("mitigation", "heavy"), check).check()


def test_check_variant_names_every_broken_clause_at_once() -> None:
    broken = subject("evaluator", "Guesses")
    with pytest.raises(AssertionError) as caught:
        check_variant("evaluator", "broken", registry=broken.registry)
    for name in ("measures_the_same_twice", "does_not_depend_on_the_batch_size"):
        assert name in str(caught.value)
    assert "gives_finite_numbers" not in str(caught.value)


def test_what_stands_beside_a_variant_can_be_named() -> None:
    beside = {"objective": {"use": "causal_lm"}, "adaptation": {"use": "lora", "rank": 2}}
    replay = Subject("mitigation", "replay", beside=beside)
    assert [spec.use for spec in replay.companions("objective")] == ["causal_lm"]
    assert [spec.options.rank for spec in replay.companions("adaptation")] == [2]
    assert [spec.use for spec in Subject("mitigation", "ewc").companions("adaptation")] == [
        "finetune-toolkit/full", "finetune-toolkit/lora",
    ]  # fmt: skip
