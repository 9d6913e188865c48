"""The step: equal to transformers' Trainer, and independent of how a batch is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.data import SequentialSampler
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from ftk.errors import Interrupted
from ftk.parts import Mitigation
from ftk.running.loop import Loop, Progress
from ftk.testing import toy_tokenizer
from tests.core.loops import BATCH, STEPS, losses, make_loop, weights


@pytest.mark.parametrize("adaptation", ["full", "lora"])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_loss_curve_is_that_of_trainer(adaptation, accumulation, tmp_path):
    events: list = []
    rate = {"full": 1e-3, "lora": 2e-2}[adaptation]
    loop = make_loop(adaptation, events=events, micro_batch_size=BATCH // accumulation, learning_rate=rate)
    order = [item["input_ids"].tolist() for _, item in loop.batches.mixer.draw(0, STEPS * BATCH)]
    reference = make_loop(adaptation)
    reference.ctx.model.load_state_dict(loop.ctx.model.state_dict())
    loop.train(Progress())

    class InOrder(Trainer):
        def get_decay_parameter_names(self, model: Any) -> list[str]:
            return [
                name for name in super().get_decay_parameter_names(model) if "embed" not in name
            ]  # ours never decay

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset)

    tokenizer = toy_tokenizer()
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=STEPS, per_device_train_batch_size=BATCH // accumulation,
        gradient_accumulation_steps=accumulation, learning_rate=rate, lr_scheduler_type="linear", warmup_steps=5,
        weight_decay=0.01, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
        max_grad_norm=1.0, logging_nan_inf_filter=False,
    )  # fmt: skip
    trainer = InOrder(
        model=reference.ctx.model, args=arguments, train_dataset=[{"input_ids": ids} for ids in order],
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )  # fmt: skip
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses(events)) == len(theirs) == STEPS
    torch.testing.assert_close(torch.tensor(losses(events)), torch.tensor(theirs), atol=1e-4, rtol=0)
    assert losses(events)[-1] < losses(events)[0] - 0.2


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_the_cut_of_a_batch_does_not_change_the_weights(adaptation):
    ends = []
    for size in (8, 2, 1):
        loop = make_loop(adaptation, micro_batch_size=size, steps=5)
        loop.train(Progress())
        ends.append(weights(loop))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ends[2], ends[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"group_by_length": True}, {"batch_tokens": 200}])
def test_the_cut_of_a_grouped_step_and_of_one_in_tokens_changes_nothing(options):
    key, sizes = ("micro_batch_tokens", (40, 111)) if "batch_tokens" in options else ("micro_batch_size", (1, 3))
    ends = []
    for size in (None, *sizes):
        loop = make_loop(steps=4, **options, **({} if size is None else {key: size}))
        loop.train(Progress())
        ends.append(weights(loop))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-5, atol=1e-6)


def test_dropout_is_a_function_of_seed_and_step():
    ends = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        loop = make_loop("lora", dropout=0.5, steps=4)
        loop.train(Progress())
        ends.append(weights(loop))
    assert torch.equal(*ends)


def test_mitigations_act_in_the_order_of_a_step():
    seen: list[str] = []

    class First(Mitigation):
        def edit_gradients(self, gradients: Any, ctx: Any) -> None:
            next(iter(gradients.values())).add_(100.0)

    class Watcher(Mitigation):
        def penalty(self, batch: Any, loss: Any, ctx: Any) -> Any:
            seen.append("penalty")
            assert torch.is_grad_enabled()
            return 0 * loss.total

        def read_gradients(self, gradients: Any, ctx: Any) -> None:
            seen.append("read_gradients")
            assert not torch.is_grad_enabled()
            assert gradients.norm() < 99, "as the loss gave them, before anybody edits"

        def edit_gradients(self, gradients: Any, ctx: Any) -> None:
            seen.append("edit_gradients")
            assert not torch.is_grad_enabled()
            for gradient in gradients.values():
                gradient.fill_(100.0)

        def after_step(self, ctx: Any) -> None:
            seen.append("after_step")

    events: list = []
    parts = {"first": First(), "watch": Watcher()}
    loop = make_loop(parts=parts, steps=2, micro_batch_size=4, events=events, max_grad_norm=1.0)
    loop.train(Progress())
    assert seen == ["penalty", "penalty", "read_gradients", "edit_gradients", "after_step"] * 2
    norms = [event.data["gradient_norm"] for event in events if event.kind == "step"]
    size = weights(loop).numel()
    assert norms[0] == pytest.approx(100 * size**0.5, rel=1e-4), "the norm is of the edited gradients, before clipping"


def test_what_moves_weights_after_a_step_does_so_before_others_look():
    seen: list[str] = []

    class Looks(Mitigation):
        def after_step(self, ctx: Any) -> None:
            seen.append("looks")

    class Moves(Mitigation):
        moves_weights = True

        def after_step(self, ctx: Any) -> None:
            seen.append("moves")

    make_loop(parts={"one": Looks(), "two": Moves(), "three": Looks()}, steps=1).train(Progress())
    assert seen == ["moves", "looks", "looks"]


def test_a_penalty_is_a_sum_over_the_same_targets_as_the_loss():
    """A penalty equal to the loss doubles the gradient, whatever the cut of the batch."""

    class Twice(Mitigation):
        def penalty(self, batch: Any, loss: Any, ctx: Any) -> Any:
            return loss.total

    norms = []
    for parts, size in (({}, 8), ({"twice": Twice()}, 8), ({"twice": Twice()}, 2)):
        events: list = []
        loop = make_loop(parts=parts, steps=1, micro_batch_size=size, events=events, max_grad_norm=0)
        loop.train(Progress())
        norms.append(events[-1].data["gradient_norm"])
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-4)
    assert norms[2] == pytest.approx(norms[1], rel=1e-4)


def test_checkpoints_come_when_due_and_at_the_end():
    saved: list[int] = []
    loop = make_loop(steps=7, checkpoint_every=3, save=lambda progress: saved.append(progress.step))
    loop.train(Progress())
    assert saved == [3, 6, 7]


def test_a_signal_saves_and_stops():
    saved: list[int] = []
    stop = iter([False, False, True])
    loop = make_loop(steps=9, save=lambda progress: saved.append(progress.step), stop=lambda: next(stop))
    with pytest.raises(Interrupted, match="after step 3"):
        loop.train(Progress())
    assert saved == [3]


def test_the_schedule_warms_up_and_decays():
    events: list = []
    make_loop(events=events, steps=20, warmup=0.25).train(Progress())
    rates = [event.data["learning_rate"] for event in events if event.kind == "step"]
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] == 0
    assert rates.index(max(rates)) == 5, "after a quarter of twenty steps"
    assert rates[-1] == pytest.approx(1e-3 / 15), "one step of fifteen short of zero"
    constant: list = []
    make_loop(events=constant, steps=20, warmup=0.25, schedule="constant").train(Progress())
    assert constant[-1].data["learning_rate"] == pytest.approx(1e-3)
    cosine: list = []
    make_loop(events=cosine, steps=20, warmup=0.0, schedule="cosine").train(Progress())
    assert [e.data["learning_rate"] for e in cosine if e.kind == "step"][10] == pytest.approx(5e-4)


def test_float16_trains_and_its_scale_goes_on_after_an_interruption():
    def half(**options: Any) -> Loop:
        loop = make_loop(steps=4, **options)
        return replace(loop, ctx=replace(loop.ctx, precision="fp16"))

    plain, whole = make_loop(steps=4), half()
    plain.train(Progress())
    start = Progress()
    whole.train(start)
    assert weights(whole).dtype == torch.float32
    assert start.scaler["_growth_tracker"] == 4, "no step was skipped"
    torch.testing.assert_close(weights(whole), weights(plain), atol=2e-3, rtol=1e-2)
    stop = iter([False, True, False, False])
    cut, progress = half(stop=lambda: next(stop)), Progress()
    with pytest.raises(Interrupted):
        cut.train(progress)
    assert progress.scaler["_growth_tracker"] == 2
    cut.train(progress)
    assert progress.scaler == start.scaler
    assert torch.equal(weights(cut), weights(whole))


def test_bfloat16_changes_the_arithmetic_and_keeps_the_weights_float32():
    plain, half = make_loop(steps=3), make_loop(steps=3)
    half = replace(half, ctx=replace(half.ctx, precision="bf16"))
    plain.train(Progress())
    half.train(Progress())
    assert weights(half).dtype == torch.float32
    assert not torch.equal(weights(plain), weights(half))
    torch.testing.assert_close(weights(half), weights(plain), atol=1e-2, rtol=1e-1)


def test_an_adaptation_edits_gradients_and_follows_a_step_without_a_graph() -> None:
    loop = make_loop(steps=1)
    enabled: list[bool] = []
    for station in ("edit_gradients", "after_step"):
        setattr(loop.ctx.adaptation, station, lambda *given: enabled.append(torch.is_grad_enabled()))
    loop.train(Progress())
    assert enabled == [False, False]
