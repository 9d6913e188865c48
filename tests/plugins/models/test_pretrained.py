"""Pretrained models: every head, every type, and every way back from a folder."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from ftk import UserError
from ftk.parts import Head
from ftk.testing.toys import toy_model, toy_tokenizer
from ftk_plugins.models.pretrained.options import PretrainedOptions
from ftk_plugins.models.pretrained.places import fingerprint
from ftk_plugins.models.pretrained.pretrained import Pretrained
from tests.plugins.models.sources import CAUSAL, CLASSES, load


def test_a_folder_gives_the_model_that_was_saved(llama: Path) -> None:
    loaded, plain = load(llama), toy_model()
    assert all(torch.equal(one, plain.state_dict()[name]) for name, one in loaded.model.state_dict().items())
    assert not loaded.model.training
    assert loaded.processor("Hello").input_ids == toy_tokenizer()("Hello").input_ids


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        ("auto", torch.bfloat16),
    ],
)
def test_dtype(dtype: str, expected: torch.dtype, tmp_path: Path) -> None:
    toy_model().to(torch.bfloat16).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    model = load(tmp_path, dtype=dtype).model
    assert {weight.dtype for weight in model.parameters()} == {expected}


def test_float32_is_the_default() -> None:
    assert PretrainedOptions(path="x").dtype == "float32"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention(attention: str, llama: Path) -> None:
    assert load(llama, attention=attention).model.config._attn_implementation == attention


def test_a_new_head_depends_on_the_seed_alone_and_is_reported(llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load(llama, CLASSES).model
    assert torch.equal(torch.rand(3), expected)
    second, other = load(llama, CLASSES).model, load(llama, CLASSES, seed=1).model
    assert first.config.id2label == {0: "bad", 1: "good"}
    assert first.config.label2id == {"bad": 0, "good": 1}
    assert torch.equal(first.score.weight, second.score.weight)
    assert not torch.equal(first.score.weight, other.score.weight)
    assert torch.equal(first.model.embed_tokens.weight, toy_model().model.embed_tokens.weight)
    assert "newly drawn and in need of training: score.weight" in caplog.text
    assert first.fresh_weights == ("score.weight",)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ("masked_lm", "BertForMaskedLM"),
        ("encoder", "BertModel"),
        ("sequence_classification", "BertForSequenceClassification"),
        ("token_classification", "BertForTokenClassification"),
    ],
)
def test_heads_of_an_encoder(head: Any, kind: str, bert: Path) -> None:
    loaded = load(bert, Head(head, ("a", "b", "c") if "class" in head else ()))
    assert type(loaded.model).__name__ == kind
    assert "class" not in head or loaded.model.classifier.weight.shape == (3, 32)
    assert loaded.processor.pad_token_id == 0


def test_a_classifier_for_other_labels_gets_a_new_head(
    llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = load(llama, CLASSES)
    trained.model.save_pretrained(tmp_path)
    trained.processor.save_pretrained(tmp_path)
    same = load(tmp_path, CLASSES).model
    assert torch.equal(same.score.weight, trained.model.score.weight)
    assert load(tmp_path, Head("sequence_classification")).model.config.id2label == {0: "bad", 1: "good"}
    caplog.clear()
    wider = load(tmp_path, Head("sequence_classification", ("a", "b", "c"))).model
    assert wider.score.weight.shape == (3, 32)
    assert "newly drawn and in need of training: score.weight" in caplog.text
    assert wider.fresh_weights == ("score.weight",)
    caplog.clear()
    load(tmp_path, Head("sequence_classification", ("good", "bad")))
    assert "same labels in the order" in caplog.text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stage_comes_back_bit_for_bit(dtype: Any, llama: Path, tmp_path: Path) -> None:
    source = Pretrained(
        PretrainedOptions(path=str(llama), dtype=dtype, attention="eager", chat_template="{{ messages }}")
    )
    started = source.load(CAUSAL, lambda: iter(()))
    with torch.no_grad():
        for weight in started.model.parameters():
            weight.add_(torch.randn_like(weight) * 0.01)
    started.model.save_pretrained(tmp_path)
    started.processor.save_pretrained(tmp_path)
    again = source.load_folder(tmp_path, CAUSAL)
    expected = started.model.state_dict()
    assert again.model.state_dict().keys() == expected.keys()
    for name, weight in again.model.state_dict().items():
        assert weight.dtype == expected[name].dtype
        assert torch.equal(weight, expected[name])
    assert again.model.config._attn_implementation == "eager"
    assert again.processor.chat_template == "{{ messages }}"
    assert again.processor.get_vocab() == started.processor.get_vocab()
    assert again.processor("é 你").input_ids == started.processor("é 你").input_ids


def test_weights_trained_in_float32_are_not_rounded_on_the_way_to_the_next_stage(llama: Path, tmp_path: Path) -> None:
    source = Pretrained(PretrainedOptions(path=str(llama), dtype="bfloat16"))
    toy_model(seed=2).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    weight = source.load_folder(tmp_path, CAUSAL).model.model.embed_tokens.weight
    assert torch.equal(weight, toy_model(seed=2).model.embed_tokens.weight)


def test_the_end_token_pads_where_there_is_no_padding_token(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.pad_token = None
    toy_model(pad_token_id=None).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.processor.pad_token == "<|end|>"
    assert loaded.model.config.pad_token_id == 1
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="neither a padding token nor an end token"):
        load(tmp_path)


def test_another_tokenizer_and_chat_template(llama: Path, tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.eos_token = "<|pad|>"
    tokenizer.save_pretrained(tmp_path)
    loaded = load(llama, tokenizer=str(tmp_path), chat_template="{% for m in messages %}[{{ m.content }}]{% endfor %}")
    assert loaded.processor.eos_token == "<|pad|>"
    assert loaded.processor.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "[hi]"
    tokenizer.add_tokens(["more", "than", "fits"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="262 tokens, the model has embeddings for 260"):
        load(llama, tokenizer=str(tmp_path))


def test_loading_is_silent(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger("transformers").level
    load(llama, CLASSES)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "LOAD REPORT" not in captured.err
    assert "%|" not in captured.err
    assert logging.getLogger("transformers").level == before


def test_a_generation_configuration_that_could_not_be_saved_is_mended(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": False, "temperature": 0.5}))
    model = load(folder).model
    model.generation_config.max_new_tokens = 3
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").is_file()


@pytest.mark.real_model
def test_a_gguf_model_saves_and_loads_in_plain_transformers(smollm2_saved: Path) -> None:
    expected = load_file(smollm2_saved / "expected" / "expected.safetensors")
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(smollm2_saved),
        AutoTokenizer.from_pretrained(smollm2_saved),
    )
    assert model.dtype == torch.float32
    assert getattr(model.config, "quantization_config", None) is None
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert torch.equal(ids, expected["input_ids"])
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    assert torch.equal(logits, expected["logits"])
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"
    assert tokenizer.chat_template is not None


@pytest.mark.real_model
def test_a_real_encoder(minilm_folder: Path) -> None:
    loaded = load(minilm_folder, Head("encoder"))
    texts = ["A man is eating food.", "Somebody has a meal.", "The stock market fell."]
    batch = loaded.processor(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = loaded.model(**batch).last_hidden_state
        assert torch.equal(hidden, AutoModel.from_pretrained(minilm_folder)(**batch).last_hidden_state)
    mask = batch["attention_mask"].unsqueeze(-1)
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    similar, different = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert similar > 0.4 > 0.2 > different


def test_its_identity_is_that_of_its_files(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(llama, folder)

    def identity(**options: Any) -> str:
        return Pretrained(PretrainedOptions(path=str(folder), **options)).identity()

    first = identity()
    assert first == identity() == Pretrained(PretrainedOptions(path=str(llama))).identity()
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages }}")
    named = identity(chat_template=str(template)), identity(tokenizer=str(llama)), identity(chat_template="{{ 1 }}")
    assert len({first, *named}) == 4
    template.write_text("{{ messages }}!")
    assert identity(chat_template=str(template)) != named[0]
    (folder / "tokenizer_config.json").write_text("{}")
    assert identity() != first
    second = identity()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    assert identity() != second


def test_of_several_files_of_weights_the_named_one_counts(tmp_path: Path) -> None:
    for name in ("one.gguf", "other.gguf", "config.json"):
        (tmp_path / name).write_text(name)
    first = fingerprint(str(tmp_path), "one.gguf")
    (tmp_path / "other.gguf").write_text("changed")
    assert fingerprint(str(tmp_path), "one.gguf") == first
    (tmp_path / "one.gguf").write_text("changed")
    assert fingerprint(str(tmp_path), "one.gguf") != first


def test_on_the_hub_it_is_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789" * 4
    asked: list[Any] = []

    def cached(name: str, file: str, revision: str | None) -> str:
        asked.append((name, file, revision))
        return f"/cache/models--owner--name/snapshots/{commit}/{file}"

    monkeypatch.setattr("transformers.utils.hub.cached_file", cached)
    found = Pretrained(PretrainedOptions(path="owner/name", revision="main")).identity()
    assert found == f"owner/name {commit}"
    assert asked == [("owner/name", "config.json", "main")]
