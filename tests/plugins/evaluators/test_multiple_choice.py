"""Multiple choice, against plain Transformers choice by choice, and rows of every usual shape."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from ftk import RunFailed, UserError
from ftk.parts import Metric
from ftk.testing import toy_context, toy_model, toy_task
from ftk_plugins.evaluators.multiple_choice.likelihood import encode_pairs, log_likelihoods
from ftk_plugins.evaluators.multiple_choice.multiple_choice import MultipleChoice
from ftk_plugins.evaluators.multiple_choice.options import MultipleChoiceOptions
from ftk_plugins.evaluators.multiple_choice.questions import Reader, with_shots
from tests.plugins.evaluators.talk import Talk

SUBJECTS = ["the red fox", "a river", "日本", "three hens", "the old mill", "Ada", "salt", "a comet", "north", "seven"]
ROWS = [
    {
        "question": f"What is said of {subject}?",
        "choices": [f"{subject} is {word}" + " indeed" * (place == number % 4) for place, word in enumerate(WORDS)],
        # Mixed, so that each way to score is right now and then, and the ways differ.
        "answer": WORDS.index("blue") if number % 3 else number % 4,
    }
    for number, subject in enumerate(SUBJECTS)
    for WORDS in [("blue", "far away", "水", "gone")]
]


@cache
def tokenizer() -> Any:
    """Byte-level BPE with merges, some of which join a space with the word after it."""
    learned = Tokenizer(BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|pad|>", "<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    texts = [text for row in ROWS for text in (row["question"], *row["choices"], "Question: Answer: blue gone")]
    learned.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=learned, pad_token="<|pad|>", eos_token="<|end|>")


@cache
def model(**sizes: Any) -> Any:
    made = toy_model(vocab_size=330, **sizes)
    with torch.no_grad():  # far enough apart that rounding chooses nothing
        for weight in made.parameters():
            weight.mul_(4) if weight.ndim > 1 else None
    return made


def measure(rows: Any = ROWS, shots_from: Any = None, its: Any = None, **options: Any) -> dict[str, Metric]:
    task = toy_task(rows, Talk(), processor=tokenizer())
    part = MultipleChoice(MultipleChoiceOptions(**options))
    if shots_from is not None:
        part.take({"shots_from": Dataset.from_list(shots_from)})
    ctx = toy_context(its or model(), task.objective, processor=tokenizer())
    return {metric.name: metric for metric in part.measure(its or model(), task, ctx)}


def by_hand(context: str, following: str, its: Any = None, room: int = 256) -> float:
    """One choice alone: no padding, no batch, all logits; spaces before it are its own."""
    ids = tokenizer()(context + following)["input_ids"]
    before = len(tokenizer()(context.rstrip(" "))["input_ids"])
    with torch.no_grad():
        read = torch.tensor([ids[:-1][-room:]])
        logs = torch.log_softmax((its or model())(input_ids=read, use_cache=False).logits.double(), -1)[0]
    scored = ids[before:]
    return sum(float(logs[place - len(scored), token]) for place, token in enumerate(scored))


def chosen(row: dict[str, Any], context: str, divisor: Any) -> int:
    scores = [by_hand(context, " " + choice) / divisor(choice) for choice in row["choices"]]
    return int(np.argmax(scores))


@pytest.mark.parametrize(
    ("length", "divisor"),
    [
        ("characters", len),
        ("bytes", lambda text: len(text.encode())),
        ("tokens", lambda text: len(tokenizer()(" " + text)["input_ids"])),
    ],
)
def test_it_is_the_likeliest_choice_by_plain_transformers(length: str, divisor: Any) -> None:
    found = measure(length=length, batch_size=7)
    contexts = [f"Question: {row['question']}\nAnswer:" for row in ROWS]
    for name, by in (("choice_accuracy", lambda text: 1), ("choice_accuracy_norm", divisor)):
        picked = [chosen(row, context, by) for row, context in zip(ROWS, contexts, strict=True)]
        expected = np.mean([pick == row["answer"] for pick, row in zip(picked, ROWS, strict=True)])
        assert found[name].value == expected
        assert found[name].detail == {"chance": 0.25}
        assert found[name].interval() is not None
    raw, normed = ([chosen(row, c, by) for row, c in zip(ROWS, contexts, strict=True)] for by in (lambda t: 1, divisor))
    assert length == "tokens" or raw != normed


def test_the_log_likelihoods_are_those_of_plain_transformers_whatever_the_batch() -> None:
    texts = [("Question: who?\nAnswer:", " blue"), ("Say: ", "gone far"), ("x", "y"), ("長い", " the red fox indeed")]
    pairs = encode_pairs(texts, tokenizer())
    expected = [by_hand(*each) for each in texts]
    for size in (1, 3, 4):
        found = log_likelihoods(pairs, model(), toy_context(model(), Talk()), size)
        assert found == pytest.approx(expected, rel=1e-4)


def test_spaces_before_a_choice_are_its_own_and_the_text_is_read_as_one() -> None:
    apart = encode_pairs([("Answer: ", "blue"), ("Answer:", " blue")], tokenizer())
    assert apart[0] == apart[1]
    context, ids = apart[0]
    assert tokenizer().decode(context) == "Answer:"
    assert context + ids == tokenizer()("Answer: blue")["input_ids"]
    assert len(ids) == len(tokenizer()(" blue")["input_ids"]) < len(tokenizer()("blue")["input_ids"]) + 1


def test_a_long_context_loses_its_beginning() -> None:
    small = model(max_position_embeddings=16)
    context = "Question: " + "the old mill is far away " * 5 + "\nAnswer:"
    (found,) = log_likelihoods(
        encode_pairs([(context, " gone indeed")], tokenizer()), small, toy_context(small, Talk()), 4
    )
    assert found == pytest.approx(by_hand(context, " gone indeed", small, room=16), rel=1e-4)
    assert abs(found - by_hand(context, " gone indeed")) > 0.1
    with pytest.raises(UserError, match="does not fit the model's 16 positions"):
        log_likelihoods([([5], [7] * 17)], small, toy_context(small, Talk()), 4)


def test_an_empty_prompt_follows_the_token_that_ends_texts() -> None:
    ((context, ids),) = encode_pairs([("", "blue")], tokenizer())
    assert (context, ids) == ([tokenizer().eos_token_id], tokenizer()("blue")["input_ids"])
    with pytest.raises(UserError, match="adds no token"):
        encode_pairs([("what", "")], tokenizer())


def test_several_processes_score_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = encode_pairs([("Answer:", f" {word * times}") for word in ("blue", "far") for times in (1, 3)], tokenizer())
    module = "ftk_plugins.evaluators.multiple_choice.likelihood"
    told: dict[int, Any] = {}
    for rank in range(3):
        monkeypatch.setattr(f"{module}.gathered", lambda own, ctx: told.setdefault(ctx.rank, own))
        monkeypatch.setattr(f"{module}.np.empty", np.zeros)
        log_likelihoods(pairs, model(), toy_context(model(), Talk(), rank=rank, world_size=3), 2)
    monkeypatch.undo()
    both = dict(piece for own in told.values() for piece in own)
    assert len(both) == sum(map(len, told.values())) == len(pairs), "each is scored once"
    alone = log_likelihoods(pairs, model(), toy_context(model(), Talk()), 2)
    assert [both[index] for index in range(len(pairs))] == alone.tolist()


MMLU = {"question": "2 + 2?", "choices": ["3", "4", "22", "5"], "answer": 1}
ARC = {"question": "2 + 2?", "choices": {"text": ["3", "4", "22"], "label": ["1", "2", "3"]}, "answerKey": "2"}
SWAG = {"ctx": "Two and two make", "endings": ["three.", "four."], "label": "1"}


@pytest.mark.parametrize(
    ("row", "prompt"),
    [(MMLU, "Question: 2 + 2?\nAnswer:"), (ARC, "Question: 2 + 2?\nAnswer:"), (SWAG, "Two and two make")],
)
def test_rows_of_the_usual_shapes(row: dict[str, Any], prompt: str) -> None:
    (found,) = Reader(MultipleChoiceOptions()).questions([row], "rows")
    assert (found.prompt, found.right) == (prompt, 1)
    assert found.choices == found.endings


@pytest.mark.parametrize(
    ("answer", "options", "right"),
    [
        (1, {}, 1), ("B", {}, 1), ("b", {}, 1), ("4", {"answer_is": "text"}, 1), (" 22 ", {}, 2),
        (2, {"answer_is": "number"}, 1), ("2", {"answer_is": "number"}, 1), ("1", {}, 1),
        ("3", {"answer_is": "index"}, 3), ("3", {"answer_is": "text"}, 0), ("C", {"answer_is": "letter"}, 2),
    ],
)  # fmt: skip
def test_how_the_answer_is_told(answer: Any, options: dict[str, Any], right: int) -> None:
    (found,) = Reader(MultipleChoiceOptions(**options)).questions([{**MMLU, "answer": answer}], "rows")
    assert found.right == right


BAD_ROWS = [
    ({**MMLU, "answer": "3"}, {}, "row 1: the answer '3' in column `answer` may mean choice 1 or 4 of 4"),
    ({**MMLU, "answer": 4}, {}, "is none of the 4 choices"),
    ({**MMLU, "answer": -1}, {}, "is none of the 4 choices"),
    ({**MMLU, "answer": True}, {}, "is none of the 4 choices"),
    ({**MMLU, "answer": "D"}, {"answer_is": "text"}, "is none of the 4 choices by its text"),
    ({**ARC, "answerKey": "B"}, {}, "is none of the 3 choices"),
    ({**MMLU, "answer": ""}, {}, "is none of the 4 choices"),
    ({**MMLU, "answer": None}, {}, "there is nothing in column `answer` or `answerKey` or `label`"),
    ({**MMLU, "choices": ["3"]}, {}, "holds no choices"),
    ({**MMLU, "choices": "34"}, {}, "holds no choices"),
    ({**MMLU, "choices": ["3", " "], "answer": 0}, {}, "a choice in column `choices` is empty"),
    ({**ARC, "choices": {"text": ["3", "4"], "label": ["A"]}}, {}, "2 texts and 1 labels"),
    (MMLU, {"choices": "options"}, "there is nothing in column `options`; the row has `question`"),
    ({"choices": ["a", "b"], "answer": 0}, {}, "there is nothing in column `question` or `ctx`"),
    (MMLU, {"template": "{topic}: {question}"}, "the template names `topic`"),
    ({**MMLU, "choices": [f"{n} apples" for n in range(27)]}, {"scored": "letter"}, "27 choices and 26 letters"),
]


@pytest.mark.parametrize(("row", "options", "told"), BAD_ROWS, ids=[told[:40] for *_, told in BAD_ROWS])
def test_rows_that_are_no_question_are_refused(row: dict[str, Any], options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=r"^rows, row 1: ") as failure:
        Reader(MultipleChoiceOptions(**options)).questions([row], "rows")
    assert told in str(failure.value)
    assert failure.value.hint


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"while_training": True}, "`while_training` is for `data`"),
        ({"shots_from": {"use": "files"}}, "`shots` asks for none"),
        ({"shots_separator": "\n"}, "`shots_separator` stands after examples, and `shots` asks for none"),
        ({"template": "Q:"}, "names no column"),
        ({"template": "{question} {answer}"}, "`{answer}` tells the answer"),
        ({"template": "{question} {gold}", "answer": "gold"}, "`{gold}` tells the answer"),
        ({"template": "{question}", "scored": "letter"}, "letters mean nothing"),
        ({"scored": "letter", "length": "bytes"}, "`length` changes nothing"),
    ],
)
def test_options_that_cannot_act_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as failure:
        MultipleChoiceOptions(**options)
    assert told in str(failure.value)


def test_letters_are_scored_after_the_choices_they_stand_for() -> None:
    (found,) = Reader(MultipleChoiceOptions(scored="letter")).questions([ARC], "rows")
    assert found.prompt == "2 + 2?\nA. 3\nB. 4\nC. 22\nAnswer:"
    assert found.endings == ("A", "B", "C")
    metrics = measure(scored="letter")
    picked = []
    for row in ROWS:
        listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True))
        context = f"{row['question']}\n{listed}\nAnswer:"
        picked.append(int(np.argmax([by_hand(context, f" {letter}") for letter in "ABCD"])))
    expected = np.mean([pick == row["answer"] for pick, row in zip(picked, ROWS, strict=True)])
    assert {name: metric.value for name, metric in metrics.items()} == {"choice_accuracy": expected}


def test_template_and_separator_are_what_the_model_reads() -> None:
    found = measure(template="{question} Es ist", separator="", length="characters")["choice_accuracy"].value
    scores = [[by_hand(f"{row['question']} Es ist", choice) for choice in row["choices"]] for row in ROWS]
    assert found == np.mean([np.argmax(each) == row["answer"] for each, row in zip(scores, ROWS, strict=True)])


def test_shots_are_other_rows_with_their_answers_drawn_by_the_number_of_the_row() -> None:
    options = MultipleChoiceOptions(shots=2, shots_separator="###")
    asked = Reader(options).questions(ROWS, "rows")
    contexts = with_shots(asked, None, options)
    drawn = []
    for row, context in zip(ROWS, contexts, strict=True):
        *examples, last = context.split("###")
        assert last == f"Question: {row['question']}\nAnswer:"
        solved = {f"Question: {r['question']}\nAnswer: {r['choices'][r['answer']]}" for r in ROWS if r is not row}
        assert len(examples) == len(set(examples)) == 2
        assert set(examples) <= solved
        drawn.append(tuple(examples))
    assert len(set(drawn)) > len(ROWS) // 2, "each question has examples of its own"
    assert contexts == with_shots(asked, None, options)


def test_shots_from_another_data_set() -> None:
    found = measure(shots=1, shots_from=[MMLU], shots_separator="\n")["choice_accuracy"].value
    head = "Question: 2 + 2?\nAnswer: 4\n"
    scores = [
        [by_hand(f"{head}Question: {row['question']}\nAnswer:", f" {choice}") for choice in row["choices"]]
        for row in ROWS
    ]
    assert found == np.mean([np.argmax(each) == row["answer"] for each, row in zip(scores, ROWS, strict=True)])
    with pytest.raises(UserError, match=r"`shots_from` of .*: `shots = 2` needs 2 rows .* and there are 1"):
        measure(shots=2, shots_from=[MMLU])
    with pytest.raises(UserError, match="`shots = 10` needs 11 rows"):
        measure(shots=10)
    with pytest.raises(UserError, match="shots_from, row 1"):
        measure(shots=1, shots_from=[{**MMLU, "answer": 9}])


def test_a_model_that_has_diverged_is_told() -> None:
    broken = toy_model(vocab_size=330)
    with torch.no_grad():
        broken.lm_head.weight[:] = torch.nan
    with pytest.raises(RunFailed, match="not finite"):
        measure(its=broken)
