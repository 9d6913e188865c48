"""The tokenizer that `scratch` trains."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ftk import UserError
from ftk.parts import Head
from ftk_plugins.models.scratch.options import ScratchOptions
from ftk_plugins.models.scratch.scratch import Scratch
from tests.plugins.models.small_scratch import TEXTS, make


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer = make().processor
    for text in [*TEXTS, "Ελληνικά 🙂 ไทย हिन्दी 𠮷野家", " two  spaces\r\n", "don't I'LL"]:
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, None)


def test_chinese_becomes_words_and_not_sentences_or_broken_characters() -> None:
    sentence = "人工智能是计算机科学的一个分支它研究如何让机器思考"
    tokenizer = make(vocabulary_size=2000, texts=[sentence, "AI人工智能"] * 50).processor

    def pieces(text: str) -> list[str]:
        return [tokenizer.decode([token]) for token in tokenizer(text).input_ids]

    assert "".join(pieces(sentence)) == sentence
    assert max(map(len, pieces(sentence))) == 4
    assert pieces("AI人工智能") == ["AI", "人工智能"]
    assert pieces("能工人") == ["能", "工", "人"]


def test_the_rarest_characters_give_way_where_the_vocabulary_is_small() -> None:
    many = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 500))
    texts = ["我们我们我们" * 10, f"words {many} words"]
    tokenizer = make(vocabulary_size=400, texts=texts).processor
    assert len(tokenizer) <= 400
    assert [tokenizer.decode([token]) for token in tokenizer("我们").input_ids] == ["我们"]
    assert tokenizer.decode(tokenizer(texts[1]).input_ids) == texts[1]


def test_merges_are_those_of_byte_pair_encoding() -> None:
    """Against the textbook's loop, on a corpus without ties."""
    words = {"ab": 100, "bc": 83, "abc": 31, "cab": 17, "bcab": 7}
    expected = []
    state = {tuple(word): count for word, count in words.items()}
    for _ in range(5):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in state.items():
            for pair in pairwise(word):
                pairs[pair] += count
        (left, right), _ = pairs.most_common(1)[0]
        expected.append(left + right)
        state = {_joined(word, left, right): count for word, count in state.items()}
    texts = [word for word, count in words.items() for _ in range(count)]
    tokenizer = make(vocabulary_size=264, texts=texts).processor
    assert tokenizer.convert_ids_to_tokens(range(259, 264)) == expected


def _joined(word: tuple[str, ...], left: str, right: str) -> tuple[str, ...]:
    pieces: list[str] = []
    for piece in word:
        if pieces and (pieces[-1], piece) == (left, right):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return tuple(pieces)


def test_the_vocabulary_is_as_large_as_asked_where_the_corpus_gives_it() -> None:
    assert len(make(vocabulary_size=300).processor) == 300


def test_special_tokens_and_chat_template(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}", encoding="utf-8")
    tokenizer = make(special_tokens=("<|user|>",), chat_template=str(template)).processor
    written = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert written == "<|user|>x"
    assert len(tokenizer(written).input_ids) == 2
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.chat_template == tokenizer.chat_template
    assert again(written).input_ids == tokenizer(written).input_ids


def test_an_existing_tokenizer_is_used(tmp_path: Path) -> None:
    first = make().processor
    first.save_pretrained(tmp_path)
    options = ScratchOptions(hidden_size=32, max_length=32, tokenizer=str(tmp_path))
    loaded = Scratch(options).load(Head("causal_lm"), lambda: pytest.fail("the corpus must not be read"))
    assert loaded.processor.get_vocab() == first.get_vocab()
    assert loaded.model.get_input_embeddings().weight.shape[0] == len(first)
    assert loaded.processor.model_max_length == 32


@pytest.mark.parametrize(
    ("head", "architecture", "expected"),
    [
        ("masked_lm", "bert", "<|start|>It's<|end|>"),
        ("encoder", "roberta", "<|start|>It's<|end|>"),
        ("seq2seq_lm", "bart", "<|start|>It's<|end|>"),
        ("seq2seq_lm", "t5", "It's<|end|>"),
        ("causal_lm", "gpt2", "It's"),
    ],
)
def test_a_text_stands_between_the_tokens_of_its_architecture(head: str, architecture: str, expected: str) -> None:
    loaded = make(head, architecture=architecture)
    assert loaded.processor.decode(loaded.processor("It's").input_ids) == expected
    pair = loaded.processor("It's", "4.", return_token_type_ids=True)
    assert loaded.processor.decode(pair.input_ids).startswith(expected)
    tokens = {name: getattr(loaded.processor, f"{name}_token_id") for name in ("mask", "cls", "bos", "sep")}
    framed = expected.startswith("<|start|>")
    assert tokens == ({"mask": 3, "cls": 4, "bos": 4, "sep": 1} if framed else dict.fromkeys(tokens))
    if framed:
        assert pair.token_type_ids == [0] * pair.input_ids.index(1) + [0] + [1] * (
            len(pair.input_ids) - pair.input_ids.index(1) - 1
        )


def test_t5_has_its_sentinels_and_a_small_vocabulary_is_told_what_it_lacks(tmp_path: Path) -> None:
    loaded = make("seq2seq_lm", architecture="t5")
    loaded.processor.save_pretrained(tmp_path)
    for tokenizer in (loaded.processor, AutoTokenizer.from_pretrained(tmp_path)):
        assert tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [3, 102]
        assert tokenizer("a<extra_id_7>b<|end|>").input_ids == tokenizer("a<extra_id_7>b<|end|>").input_ids
        assert 10 in tokenizer("a<extra_id_7>b").input_ids
    with pytest.raises(UserError, match="no room for 256 bytes and 103 special tokens"):
        make("seq2seq_lm", architecture="t5", vocabulary_size=300)
