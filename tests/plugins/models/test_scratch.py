"""New models: the sizes asked for, the same bits every time, and a tokenizer that loses no text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftk import UserError
from ftk.parts import Head
from ftk_plugins.models.scratch.options import ScratchOptions
from ftk_plugins.models.scratch.scratch import Scratch
from tests.plugins.models.small_scratch import TEXTS, corpus, fingerprint, make


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "mistral", "gemma3_text", "gpt_neox", "opt"])
def test_the_model_has_the_sizes_asked_for(architecture: str) -> None:
    loaded = make(architecture=architecture, layers=3, intermediate_size=48)
    config = loaded.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (32, 3, 4)
    assert config.max_position_embeddings == 64
    shapes = [tuple(weight.shape) for weight in loaded.model.state_dict().values()]
    assert any(48 in shape for shape in shapes)
    assert loaded.model.get_input_embeddings().weight.shape == (len(loaded.processor), 32)
    assert loaded.model.get_input_embeddings().weight is loaded.model.get_output_embeddings().weight
    assert loaded.model.dtype == torch.float32
    assert not loaded.model.training


def test_untied_embeddings_and_fewer_key_heads() -> None:
    model = make(tie_embeddings=False, kv_heads=2).model
    assert model.get_input_embeddings().weight is not model.get_output_embeddings().weight
    assert model.model.layers[0].self_attn.k_proj.weight.shape == (16, 32)


def test_the_config_table_reaches_the_model() -> None:
    assert make(config={"attention_bias": True}).model.model.layers[0].self_attn.q_proj.bias is not None
    assert make(architecture="gpt2", config={"n_inner": 40}).model.transformer.h[0].mlp.c_fc.nf == 40


def test_attention_is_the_one_asked_for() -> None:
    assert make(attention="eager").model.config._attn_implementation == "eager"


def test_a_causal_model_does_not_see_what_comes_later() -> None:
    loaded = make()
    ids = loaded.processor(TEXTS[0], return_tensors="pt").input_ids
    changed = ids.clone()
    changed[0, -1] = 5
    with torch.no_grad():
        logits, others = loaded.model(ids).logits, loaded.model(changed).logits
    assert torch.equal(logits[:, :-1], others[:, :-1])
    assert not torch.equal(logits[:, -1], others[:, -1])


def test_seeds_decide_the_weights_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second = make(seed=1), make(seed=2)
    assert torch.equal(torch.rand(2), expected)
    assert fingerprint(first) == fingerprint(make(seed=1)) != fingerprint(second)


def test_another_process_makes_the_same_bits() -> None:
    code = "from tests.plugins.models.small_scratch import fingerprint, make; print(fingerprint(make(seed=7)))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == fingerprint(make(seed=7))
    assert done.stderr == ""


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_saved_model_comes_back_bit_for_bit(architecture: str, tmp_path: Path) -> None:
    source = Scratch(ScratchOptions(architecture=architecture, hidden_size=32, vocabulary_size=400, attention="eager"))
    made = source.load(Head("causal_lm"), corpus)
    made.model.save_pretrained(tmp_path)
    made.processor.save_pretrained(tmp_path)
    again = source.load_folder(tmp_path, Head("causal_lm"))
    assert fingerprint(again) == fingerprint(made)
    assert again.model.config._attn_implementation == "eager"
    assert again.processor.model_max_length == made.processor.model_max_length == 512
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt").input_ids
        assert ids[0].tolist() == made.processor(text).input_ids
        with torch.no_grad():
            assert torch.allclose(plain(ids).logits, made.model(ids).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("head", "architecture"),
    [
        ("masked_lm", "bert"),
        ("masked_lm", "roberta"),
        ("seq2seq_lm", "t5"),
        ("seq2seq_lm", "bart"),
        ("seq2seq_lm", "marian"),
        ("encoder", "bert"),
    ],
)
def test_other_heads(head: str, architecture: str) -> None:
    loaded = make(head, architecture=architecture)
    tokenizer = loaded.processor
    assert head != "masked_lm" or tokenizer.mask_token_id is not None
    length = tokenizer.model_max_length
    ids = torch.full((1, length), 10)
    extra = {"decoder_input_ids": ids} if head == "seq2seq_lm" else {}
    with torch.no_grad():
        output = loaded.model(input_ids=ids, **extra)
    assert output[0].shape[1] == length


def test_labels_of_a_classifier_and_a_new_head_after_a_stage(tmp_path: Path) -> None:
    source = Scratch(ScratchOptions(hidden_size=32, vocabulary_size=300))
    classes = Head("sequence_classification", ("no", "yes", "maybe"))
    model = source.load(classes, corpus).model
    assert model.config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    assert model.score.weight.shape == (3, 32)
    made = source.load(Head("causal_lm"), corpus)
    made.model.save_pretrained(tmp_path)
    made.processor.save_pretrained(tmp_path)
    one, other = source.load_folder(tmp_path, classes).model, source.load_folder(tmp_path, classes).model
    assert torch.equal(one.score.weight, other.score.weight)
    assert torch.equal(one.model.embed_tokens.weight, made.model.model.embed_tokens.weight)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"architecture": "lama"}, "knows no `lama`", "did you mean `llama`"),
        ({"architecture": "vit"}, "no plain text model", "llama"),
        ({"architecture": "gemma3"}, "no plain text model", "gemma3_text"),
        ({"architecture": "bert"}, "reads in both directions", "masked_lm"),
        ({"architecture": "vit_mae"}, "no plain text model", ""),
        ({"config": {"atention_bias": True}}, "no such key", "did you mean `attention_bias`"),
        ({"config": {"num_hidden_layers": 3}}, "`layers` sets it already", "one of the two"),
        ({"config": {"vocab_size": 9}}, "the tokenizer decides it", ""),
        ({"config": {"dtype": "float16"}}, "the run decides it", ""),
        ({"config": {"hidden_act": 3}}, "refuses these sizes", ""),
        ({"hidden_size": 2**40}, "model: no model of these sizes can be made here", "lower `hidden_size`"),
        ({"hidden_size": 2**70}, "model: no model of these sizes can be made here", "lower `hidden_size`"),
        ({"config": {"attention_dropout": 2}}, "model.config.attention_dropout: `llama` cannot work with", "change it"),
        ({"config": {"hidden_act": "swig"}}, "model.config.hidden_act: `llama` cannot work with", "leave it out"),
        ({"config": {"head_dim": 0, "mlp_bias": True}}, "model.config: `llama` cannot work with head_dim = 0, mlp", ""),
        ({"architecture": "gpt2", "kv_heads": 2}, "`gpt2` has no such size", "leave it out"),
        ({"hidden_size": 12}, "even width", "change `heads`"),
        ({"attention": "flash_attention_2"}, "", 'leave it at "auto"'),
        ({"tokenizer": "nowhere/at-all"}, "nowhere/at-all", ""),
        ({"chat_template": "missing.jinja"}, "no file missing.jinja", ""),
        ({"chat_template": "{% for %}"}, "chat_template, line 1", ""),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str, hint: str) -> None:
    options = {"vocabulary_size": 300, **options}
    if "tokenizer" in options:
        del options["vocabulary_size"]
    with pytest.raises(UserError) as caught:
        Scratch(ScratchOptions(**{"layers": 1, **options})).load(Head("causal_lm"), corpus)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_chat_template_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_bytes(b"\xff\xfe")
    options = ScratchOptions(layers=1, chat_template=str(tmp_path / "chat.jinja"))
    with pytest.raises(UserError, match=r"model\.chat_template: .*cannot be read: invalid start byte"):
        Scratch(options).load(Head("causal_lm"), corpus)


@pytest.mark.parametrize("texts", [[], ["", "  \n"]])
def test_an_empty_corpus_is_named(texts: list[str]) -> None:
    with pytest.raises(UserError, match="no text to train a tokenizer on"):
        Scratch(ScratchOptions(layers=1)).load(Head("causal_lm"), lambda: iter(texts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 100, "heads": 3}, "must divide `hidden_size`"),
        ({"heads": 4, "kv_heads": 3}, "must divide `heads`"),
        ({"tokenizer": "x", "vocabulary_size": 500}, "give one or the other"),
        ({"vocabulary_size": 260, "special_tokens": ("<a>",)}, "256 bytes"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScratchOptions(**options)
