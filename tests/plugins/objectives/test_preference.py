"""The objective `preference`: DPO and IPO by their formulas and beside TRL's; rows; the reference; what is learned."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from ftk import UserError
from ftk.testing import toy_context, toy_examples, toy_model, toy_task, toy_tokenizer
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.evaluators.preference_accuracy.options import PreferenceAccuracyOptions
from ftk_plugins.evaluators.preference_accuracy.preference_accuracy import PreferenceAccuracy
from ftk_plugins.objectives.preference.options import PreferenceOptions
from ftk_plugins.objectives.preference.preference import Preference

ROWS = [
    {"prompt": "Is it safe? ", "chosen": "No, it is not.", "rejected": "Yes"},
    {"prompt": "How? ", "chosen": "Ask", "rejected": "Just do it at once"},
    {"prompt": "And then what? ", "chosen": "Wait a while", "rejected": "Go on"},
]


def objective(**options: Any) -> Preference:
    return Preference(PreferenceOptions(**options))


class Moved:
    """A model that has moved away from its start, with the adaptation that remembers it."""

    def __init__(self, preference: Preference) -> None:
        self.start, self.model = toy_model(1), toy_model(1)
        adaptation = FullTuning(FullOptions())
        adaptation.attach(self.model)
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(3)
            for weight in self.model.parameters():
                weight.add_(0.05 * torch.randn_like(weight))
        task = toy_task(ROWS, preference)
        self.ctx = toy_context(self.model, preference, adaptation, task)
        self.batch = preference.collate(list(task.train.encoded))


def log_likelihoods(model: Any) -> list[list[tuple[float, int]]]:
    """Of both answers of each row: the log-likelihood and the tokens, from the model's probabilities alone."""
    tokenizer, found = toy_tokenizer(), []
    for row in ROWS:
        pair = []
        for side in ("chosen", "rejected"):
            prompt = tokenizer(row["prompt"])["input_ids"]
            ids = prompt + tokenizer(row[side])["input_ids"] + [tokenizer.eos_token_id]
            with torch.no_grad():
                logs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
            places = range(len(prompt), len(ids))
            pair.append((sum(float(logs[place - 1, ids[place]]) for place in places), len(places)))
        found.append(pair)
    return found


def by_hand(moved: Moved, method: str, beta: float, noise: float, chosen_weight: float) -> float:
    """The definition, row by row."""
    total = 0.0
    for now, before in zip(log_likelihoods(moved.model), log_likelihoods(moved.start), strict=True):
        ratios = [n[0] - b[0] for n, b in zip(now, before, strict=True)]
        if method == "ipo":
            ratios = [ratio / n[1] for ratio, n in zip(ratios, now, strict=True)]
        margin = ratios[0] - ratios[1]
        for sign, share in ((1, 1 - noise), (-1, noise)):
            if method == "dpo":
                total += share * math.log(1 + math.exp(-beta * sign * margin))
            else:
                total += share * (sign * margin - 1 / (2 * beta)) ** 2
        total += chosen_weight * -now[0][0] / now[0][1]
    return total


@pytest.mark.parametrize("method", ["dpo", "ipo"])
@pytest.mark.parametrize(("beta", "noise", "chosen_weight"), [(0.1, 0.0, 0.0), (0.5, 0.2, 0.0), (0.3, 0.1, 2.0)])
def test_the_loss_is_the_papers(method: str, beta: float, noise: float, chosen_weight: float) -> None:
    preference = objective(method=method, beta=beta, label_noise=noise, chosen_weight=chosen_weight)
    moved = Moved(preference)
    with torch.no_grad():
        loss = preference.loss(moved.model, moved.batch, moved.ctx)
    assert loss.count == len(ROWS)
    assert float(loss.total) == pytest.approx(by_hand(moved, method, beta, noise, chosen_weight), rel=1e-5)


@pytest.mark.parametrize(("method", "name"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_the_loss_and_its_gradients_are_those_of_trl(method: str, name: str, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    preference = objective(method=method, beta=0.2)
    moved = Moved(preference)
    loss = preference.loss(moved.model, moved.batch, moved.ctx)
    loss.total.backward()  # type: ignore[no-untyped-call]
    ours = {name: weight.grad.clone() for name, weight in moved.model.named_parameters() if weight.grad is not None}
    moved.model.zero_grad()
    config = DPOConfig(
        str(tmp_path), loss_type=[name], beta=0.2, per_device_train_batch_size=len(ROWS), use_cpu=True, bf16=False,
        report_to=[], gradient_checkpointing=False,
    )  # fmt: skip
    rows = Dataset.from_list(ROWS)
    trainer = DPOTrainer(moved.model, moved.start, args=config, train_dataset=rows, processing_class=toy_tokenizer())
    theirs = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    theirs.backward()
    assert float(loss.total) / len(ROWS) == pytest.approx(float(theirs), abs=1e-5)
    for key, gradient in ours.items():
        other = trainer.model.get_parameter(key).grad
        torch.testing.assert_close(gradient / len(ROWS), other, atol=1e-5, rtol=1e-3)


def test_the_reference_is_the_model_that_the_stage_began_with() -> None:
    preference = objective()
    moved = Moved(preference)
    margins = preference.loss(moved.model, moved.batch, moved.ctx).outputs["margins"]
    assert margins.abs().min() > 1e-3
    assert margins.requires_grad
    moved.ctx.adaptation.scale(0)  # type: ignore[union-attr]
    start = preference.loss(moved.model, moved.batch, moved.ctx)
    assert start.outputs["margins"].abs().max() < 1e-5
    assert float(start.total) == pytest.approx(len(ROWS) * math.log(2), rel=1e-5)
    unadapted = toy_context(moved.model, preference, None, moved.ctx.task)
    assert float(preference.loss(moved.model, moved.batch, unadapted).total) == pytest.approx(3 * math.log(2))


def test_the_reference_drops_nothing_out_and_leaves_the_model_in_training() -> None:
    preference = objective()
    moved = Moved(preference)
    moved.model.train()
    heard: list[bool] = []
    moved.model.register_forward_hook(lambda module, *_: heard.append(module.training))
    preference.loss(moved.model, moved.batch, moved.ctx)
    assert heard == [False, True]
    assert moved.model.training


def test_what_it_predicts_is_what_the_evaluator_compares() -> None:
    preference = objective()
    moved = Moved(preference)
    likelihoods = [[side[0] for side in pair] for pair in log_likelihoods(moved.model)]
    found = preference.predict(moved.model, moved.batch, moved.ctx)
    torch.testing.assert_close(
        found.values.double(), torch.tensor(likelihoods, dtype=torch.double), rtol=1e-5, atol=1e-4
    )
    margins = [chosen - rejected for chosen, rejected in likelihoods]
    task = replace(moved.ctx.task, test=toy_examples(ROWS, preference))  # type: ignore[type-var]
    accuracy, margin = PreferenceAccuracy(PreferenceAccuracyOptions()).measure(moved.model, task, moved.ctx)
    assert accuracy.value == pytest.approx(sum(each > 0 for each in margins) / 3)
    assert margin.value == pytest.approx(sum(margins) / 3, rel=1e-4)
    assert (accuracy.name, margin.name) == PreferenceAccuracyOptions().metrics()


CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_rows_of_every_form_say_the_same() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = CHAT
    question = [{"role": "user", "content": "Which?"}]
    answers = {
        side: [{"role": "assistant", "content": text}] for side, text in (("chosen", "This"), ("rejected", "That"))
    }
    forms = [
        {"instruction": "Which?", "chosen": "This", "rejected": "That"},
        {"prompt": question, **answers},
        {side: question + answer for side, answer in answers.items()},
    ]
    encoded = [objective().encode(row, tokenizer) for row in forms]
    text = tokenizer.decode(encoded[0]["input_ids"])
    assert text == "<user>Which?<assistant>This<|end|><user>Which?<assistant>That<|end|>"
    learned = encoded[0]["input_ids"][encoded[0]["labels"] != -100]
    assert tokenizer.decode(learned) == "This<|end|>That<|end|>"
    for other in encoded[1:]:
        assert all((other[name] == array).all() for name, array in encoded[0].items())
    assert objective().answer(forms[1]) == "This"
    assert tokenizer.decode(objective().prompt(forms[2], tokenizer)) == "<user>Which?<assistant>"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "no answer in column `rejected`"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same"),
        ({"prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c"}, "`prompt` is not"),
        ({"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"}, "`chosen` is not"),
        (
            {
                side: [{"role": "user", "content": side}, {"role": "assistant", "content": "x"}]
                for side in ("chosen", "rejected")
            },
            "differ before their last answers",
        ),
    ],
)
def test_bad_rows_are_named(row: dict[str, Any], message: str) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = CHAT
    with pytest.raises(UserError, match=message):
        objective().encode(row, tokenizer)


def test_long_rows_are_cut_as_the_options_say() -> None:
    row = {"prompt": "a long prompt " * 3, "chosen": "yes", "rejected": "no"}
    with pytest.raises(UserError, match="`max_length` is 20"):
        objective(max_length=20).encode(row, toy_tokenizer())
    cut = objective(max_length=20, long_rows="cut_start").encode(row, toy_tokenizer())
    sides = np.split(cut["input_ids"], cut["split"])
    texts = [toy_tokenizer().decode(side) for side in sides]
    assert texts == ["ng prompt a long prompt yes<|end|>"[-len(texts[0]) :], texts[0].replace("yes", "no")]
    assert len(sides[0]) == 20, "the longer side is as long as it may be, and both have the same prompt"
