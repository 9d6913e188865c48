"""The objective `causal_lm`: from a text to rows, split and packed."""

import numpy as np
import pytest

from ftk import UserError
from ftk.parts.packing import packed
from ftk.testing import toy_tokenizer
from tests.plugins.objectives.text_rows import TOKENIZER, encoded, objective


def test_a_text_and_its_end_are_tokens_and_targets():
    _, (item, *_) = encoded()
    assert item["input_ids"].dtype == np.int32
    assert TOKENIZER.decode(item["input_ids"]) == "The sea is wide.<|end|>"
    assert (item["labels"] == item["input_ids"]).all()


def test_append_eos_false_leaves_the_end_out():
    _, (item, *_) = encoded(append_eos=False)
    assert TOKENIZER.decode(item["input_ids"]) == "The sea is wide."


def test_what_the_tokenizer_puts_before_a_text_stays():
    tokenizer = toy_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    from tokenizers.processors import TemplateProcessing

    begin = ("<|begin|>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[begin])
    item = objective().encode({"text": "Salt."}, tokenizer)
    assert tokenizer.decode(item["input_ids"]) == "<|begin|>Salt.<|end|>"


def test_text_names_the_column():
    item = objective(text="body").encode({"body": "Salt."}, TOKENIZER)
    assert TOKENIZER.decode(item["input_ids"]) == "Salt.<|end|>"
    assert list(objective(text="body").texts({"body": "Salt.", "text": "no"})) == ["Salt."]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"body": "x"}, "column `text`; the row has `body`"),
        ({"text": None}, "no columns"),
        ({"text": " \n"}, "is empty"),
        ({"text": ["a"]}, "holds a list"),
    ],
)
def test_rows_without_text_are_refused(row, words):
    with pytest.raises(UserError, match=words):
        objective().encode(row, TOKENIZER)


def test_a_single_token_leaves_nothing_to_predict():
    with pytest.raises(UserError, match="nothing is left to predict"):
        objective(append_eos=False).encode({"text": "x"}, TOKENIZER)


def test_a_tokenizer_without_an_end_is_refused_only_where_the_end_is_learned():
    tokenizer = toy_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end-of-text token"):
        objective().encode({"text": "Salt."}, tokenizer)
    assert len(objective(append_eos=False).encode({"text": "Salt."}, tokenizer)["input_ids"]) == 5


def test_long_rows_are_split_with_every_token_a_target_once():
    part, items = encoded(max_length=8)
    windows = packed(items, part.packing(), part.join)
    assert max(len(window["input_ids"]) for window in windows) == 8
    assert part.collate(windows).count == sum(len(item["input_ids"]) - 1 for item in items)
    targets = [token for window in windows for token in window["labels"][1:]]
    assert targets == [token for item in items for token in item["labels"][1:]]


def test_long_rows_are_cut_at_the_end_if_asked():
    part, items = encoded(max_length=8, long_rows="truncate")
    assert [TOKENIZER.decode(item["input_ids"]) for item in packed(items, part.packing(), part.join)] == [
        "The sea ",
        "Salt.<|end|>",
        "Birds kn",
    ]


def test_without_packing_short_rows_stay_as_they_are():
    part, items = encoded()
    assert packed(items, part.packing(), part.join) == items
    assert set(items[0]) == {"input_ids", "labels"}


def test_packing_keeps_every_target_and_fills_blocks():
    part, items = encoded(packing=True, max_length=60)
    blocks = packed(items, part.packing(), part.join)
    assert [len(block["input_ids"]) for block in blocks] == [17, 57]
    assert part.collate(blocks).count == objective().collate(items).count
    assert blocks[1]["position_ids"].tolist() == [*range(6), *range(51)]
    assert blocks[1]["labels"][[0, 6]].tolist() == [-100, -100]
    assert (blocks[1]["labels"][7:] == items[2]["labels"][1:]).all()
    assert (items[2]["labels"] == items[2]["input_ids"]).all()
