"""Generated answers, against the likeliest token one by one; and how rows are divided."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from ftk import Interrupted, UserError
from ftk.parts import batches_of_process
from ftk.testing import toy_context, toy_model, toy_task, toy_tokenizer
from ftk_plugins.evaluators.generation import generate_answers
from ftk_plugins.models.writing import end_tokens
from tests.plugins.evaluators.talk import ROWS, Talk, greedy


def answers(model: Any, rows: list[dict[str, Any]] = ROWS, limit: int = 12, batch: int = 64, **ctx: Any) -> list[str]:
    task = toy_task(rows, Talk())
    written = generate_answers(model, task, toy_context(model, task.objective, **ctx), limit, batch)
    return [written[index] for index in sorted(written)]


def expected(model: Any, limit: int = 12, ends: tuple[int, ...] = (1,)) -> list[str]:
    tokenizer = toy_tokenizer()
    prompts = [tokenizer(row["instruction"])["input_ids"] for row in ROWS]
    return [tokenizer.decode(greedy(model, prompt, limit, ends), skip_special_tokens=True) for prompt in prompts]


@pytest.mark.parametrize("batch", [1, 2, 3, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_an_answer_is_the_same_alone_and_in_any_batch(seed: int, batch: int) -> None:
    model = toy_model(seed=seed)
    assert answers(model, batch=batch) == expected(model)


def test_an_answer_ends_where_the_model_ends_it(learned: Any) -> None:
    assert answers(learned, limit=30) == [row["output"] for row in ROWS]


def test_an_answer_is_cut_off_at_the_limit(learned: Any) -> None:
    assert answers(learned, limit=2)[0] == "Pa"


def test_special_tokens_within_an_answer_are_left_out() -> None:
    class Babbling(torch.nn.Module):
        generation_config = None

        def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
            written = torch.tensor([80, 2, 81, 0, 82, 1, 83]).expand(len(input_ids), -1)
            return torch.cat([input_ids, written], dim=1)

    assert answers(Babbling()) == [toy_tokenizer().decode([80, 81, 82])] * len(ROWS)


def test_settings_that_came_with_the_model_have_no_say_and_nothing_is_printed(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    model = toy_model(seed=2)
    plain = expected(model)
    own = model.generation_config
    for name, value in {
        "do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 5.0, "max_length": 7,
        "num_beams": 3, "min_length": 3, "suppress_tokens": [30, 31], "max_new_tokens": 3,
    }.items():  # fmt: skip
        setattr(own, name, value)
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        assert answers(model) == plain
    finally:
        logger.removeHandler(caplog.handler)
    assert model.generation_config is own
    assert caplog.records == []
    assert [str(warning.message) for warning in recwarn if issubclass(warning.category, UserWarning)] == []


def test_the_model_s_further_end_tokens_end_an_answer_too() -> None:
    model = toy_model(seed=1)
    first = toy_tokenizer()(expected(model)[0])["input_ids"]
    model.generation_config.eos_token_id = [1, first[3]]
    assert end_tokens(model, toy_tokenizer()) == sorted({1, first[3]})
    assert answers(model) == expected(model, ends=(1, first[3]))


def test_the_chat_template_s_end_of_a_turn_ends_an_answer() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|over|>"]})
    over = tokenizer.convert_tokens_to_ids("<|over|>")
    assert over not in end_tokens(toy_model(), tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|over|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    assert end_tokens(toy_model(), tokenizer) == [1, over]
    tokenizer.chat_template = "{{ raise_exception('no such roles') }}"
    assert end_tokens(toy_model(), tokenizer) == [1]


def test_a_tokenizer_without_padding_and_a_model_without_end_can_answer() -> None:
    model, tokenizer = toy_model(seed=1, eos_token_id=None), toy_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = None
    assert end_tokens(model, tokenizer) == []
    assert answers(model, processor=tokenizer) == expected(model, ends=())


def test_a_prompt_that_leaves_no_room_is_an_error_that_names_the_row() -> None:
    rows = [*ROWS, {**ROWS[0], "instruction": "x" * 60}]
    model = toy_model(max_position_embeddings=64)
    with pytest.raises(
        UserError, match=r"toy, row 6: a prompt of 60 tokens .* up to 12 .* 64 tokens\n.*max_new_tokens"
    ):
        answers(model, rows)
    assert len(answers(model, rows, limit=4)) == 6


def test_a_row_that_gives_no_prompt_is_named() -> None:
    with pytest.raises(UserError, match="toy, row 2: the text in column `instruction` is empty"):
        answers(toy_model(), [ROWS[0], {**ROWS[1], "instruction": ""}])


def test_processes_answer_each_row_once(learned: Any) -> None:
    task = toy_task(ROWS, Talk())
    shares = [
        generate_answers(learned, task, toy_context(learned, task.objective, rank=rank, world_size=2), 30, 2)
        for rank in range(2)
    ]
    assert not shares[0].keys() & shares[1].keys()
    together = {**shares[0], **shares[1]}
    assert [together[index] for index in range(len(ROWS))] == [row["output"] for row in ROWS]


@pytest.mark.parametrize(("rows", "batch_size", "world_size"), [(1, 4, 3), (7, 2, 3), (12, 2, 3), (5, 1, 2)])
def test_every_process_gets_as_many_batches_and_every_row_counts_once(
    rows: int, batch_size: int, world_size: int
) -> None:
    lengths = [(index * 7) % 5 for index in range(rows)]
    model = torch.nn.Identity()
    shares = [
        list(batches_of_process(lengths, batch_size, toy_context(model, Talk(), rank=rank, world_size=world_size)))
        for rank in range(world_size)
    ]
    assert len({len(share) for share in shares}) == 1
    counted = Counter(index for share in shares for batch, counts in share if counts for index in batch)
    assert counted == Counter(range(rows))
    alone = list(batches_of_process(lengths, batch_size, toy_context(model, Talk())))
    assert [lengths[index] for batch, _ in alone for index in batch] == sorted(lengths, reverse=True)
    assert all(batch in [one for one, _ in alone] for share in shares for batch, _ in share)


def test_it_can_be_interrupted_between_batches() -> None:
    calls = []

    def stop() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        answers(toy_model(), batch=1, limit=1, check_interrupt=stop)
    assert len(calls) == 2


def test_evaluators_of_one_measurement_generate_once(learned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for a model as it stands, a task, rows and options; and anew after the weights have changed."""
    from ftk_plugins.evaluators.exact_match.exact_match import ExactMatch
    from ftk_plugins.evaluators.exact_match.options import ExactMatchOptions
    from ftk_plugins.evaluators.keyword_accuracy.keyword_accuracy import KeywordAccuracy
    from ftk_plugins.evaluators.keyword_accuracy.options import KeywordAccuracyOptions

    model, calls = copy.deepcopy(learned), []
    generate = type(model).generate
    monkeypatch.setattr(type(model), "generate", lambda self, **inputs: calls.append(1) or generate(self, **inputs))

    def measured(limit: int) -> tuple[dict[str, float], int]:
        evaluators = (
            KeywordAccuracy(KeywordAccuracyOptions(max_new_tokens=30)),
            ExactMatch(ExactMatchOptions(max_new_tokens=limit, fold_case=True)),
        )
        task, before = toy_task(ROWS, Talk(), evaluators=evaluators), len(calls)
        ctx = toy_context(model, task.objective)
        found = {metric.name: metric.value for metric in ctx.measure_task(task, "test")}
        ctx.measure_task(replace(task, evaluators=evaluators[:1]), "test")
        return found, len(calls) - before

    assert measured(30) == ({"keyword_accuracy": 1.0, "exact_match": 1.0}, 2), "one for both, one for the second time"
    assert measured(2) == ({"keyword_accuracy": 1.0, "exact_match": 0.4}, 3), "other options, other answers"
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()
    assert measured(30)[0] == {"keyword_accuracy": 0.0, "exact_match": 0.0}
