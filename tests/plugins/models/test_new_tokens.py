"""Tokens that a recipe adds to a pretrained model: how they are read, where their rows start, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, ViTConfig, ViTForImageClassification, ViTImageProcessor

from ftk import UserError
from ftk.parts import Head
from ftk.testing.toys import toy_model, toy_tokenizer
from ftk_plugins.models.pretrained.options import PretrainedOptions
from ftk_plugins.models.pretrained.pretrained import Pretrained
from tests.plugins.models.sources import CAUSAL, CLASSES, load

NEW = ("<|tool|>", "stenosis")


def rows_of(model: Any) -> dict[str, torch.Tensor]:
    """All that has an entry for each token."""
    width = model.get_input_embeddings().weight.shape[0]
    return {name: p.detach() for name, p in model.named_parameters() if p.shape[0] == width}


@pytest.mark.parametrize("kind", ["llama", "untied", "bert"])
@pytest.mark.parametrize("start", ["parts", "mean"])
def test_they_are_read_in_one_piece_and_start_where_the_recipe_says(
    kind: str, start: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if kind == "untied":
        toy_model(tie_word_embeddings=False).save_pretrained(tmp_path)
        toy_tokenizer().save_pretrained(tmp_path)
    folder = tmp_path if kind == "untied" else request.getfixturevalue(kind)
    head = Head("masked_lm") if kind == "bert" else CAUSAL
    plain, loaded = load(folder, head), load(folder, head, new_tokens=NEW, new_token_start=start)
    old, new = plain.processor, loaded.processor
    first, second = loaded.model.new_token_ids
    ids = new("a <|tool|> b", add_special_tokens=False)["input_ids"]
    assert ids.count(first) == 1
    assert [number for number in ids if number != first] == [
        *old("a ", add_special_tokens=False)["input_ids"], *old(" b", add_special_tokens=False)["input_ids"],
    ]  # fmt: skip
    assert new.decode(ids) == old.decode(old("a ", add_special_tokens=False)["input_ids"]) + "<|tool|> b"
    before, after = rows_of(plain.model), rows_of(loaded.model)
    assert before.keys() == after.keys()
    assert len(after) == {"llama": 1, "untied": 2, "bert": 2}[kind]  # of Bert the bias of the output layer
    known = len(old.get_vocab())
    for name, table in after.items():
        assert torch.equal(table[:first], before[name][:first])
        for number, token in ((first, NEW[0]), (second, NEW[1])):
            parts = old(token, add_special_tokens=False)["input_ids"] if start == "parts" else range(known)
            torch.testing.assert_close(table[number], before[name][list(parts)].mean(0))
    assert (
        loaded.model.config.vocab_size
        == loaded.model.get_input_embeddings().weight.shape[0]
        == max(second + 1, plain.model.config.vocab_size)
    )


def test_a_file_names_them_and_the_export_has_them(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text("<|tool|>\n\nstenosis\n", encoding="utf-8")
    options = PretrainedOptions(path=str(llama), new_tokens=str(tmp_path / "tokens.txt"))
    loaded = Pretrained(options).load(CAUSAL, lambda: iter(()))
    Pretrained(options).save(loaded.model, loaded.processor, tmp_path / "out")
    again = Pretrained(options).load_folder(tmp_path / "out", CAUSAL)
    assert again.model.new_token_ids == loaded.model.new_token_ids
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(plain.get_input_embeddings().weight, loaded.model.get_input_embeddings().weight)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(list(NEW)) == list(loaded.model.new_token_ids)
    classifier = Pretrained(options).load_folder(tmp_path / "out", CLASSES).model
    assert classifier.new_token_ids == loaded.model.new_token_ids


def test_a_plan_knows_their_shapes(llama: Path) -> None:
    options = PretrainedOptions(path=str(llama), new_tokens=NEW)
    outline = Pretrained(options).outline(CAUSAL, lambda: iter(())).model
    model = Pretrained(options).load(CAUSAL, lambda: iter(())).model
    assert outline.device.type == "meta"
    shapes = [{name: p.shape for name, p in each.named_parameters()} for each in (outline, model)]
    assert shapes[0] == shapes[1]
    assert outline.new_token_ids == model.new_token_ids


def test_what_cannot_be_added_is_refused(llama: Path, tmp_path: Path) -> None:
    known = toy_tokenizer().convert_ids_to_tokens(5)
    with pytest.raises(UserError, match="is a token of the model already"):
        load(llama, new_tokens=(known,))
    with pytest.raises(UserError, match="no-such-file cannot be read: No such file"):
        load(llama, new_tokens=str(tmp_path / "no-such-file"))
    (tmp_path / "twice.txt").write_text("a1\na1\n", encoding="utf-8")
    with pytest.raises(UserError, match="'a1' stands there twice"):
        load(llama, new_tokens=str(tmp_path / "twice.txt"))
    for wrong, told in ((("b", "b"), "twice"), ((" b",), "a space at an end"), (("",), "is empty"), ("", "is empty")):
        with pytest.raises(ValueError, match=told):
            PretrainedOptions(path="x", new_tokens=wrong)
    with pytest.raises(ValueError, match="there are none"):
        PretrainedOptions(path="x", new_token_start="mean")
    assert PretrainedOptions(path="x").withheld() == ("new-tokens",)
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=8, patch_size=4
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match="new_tokens: the model reads no text"):
        load(tmp_path / "vit", Head("image_classification", ("a", "b")), new_tokens=NEW)
