"""Every mistake with a pretrained model is named with its mend."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from ftk import UserError
from ftk.parts import Head
from ftk.testing.toys import toy_model
from ftk_plugins.models.pretrained.options import PretrainedOptions
from tests.plugins.models.sources import CAUSAL, load


def failure(path: Path | str, head: Head = CAUSAL, **options: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        load(path, head, **options)
    return caught.value


def test_places_that_hold_no_model(llama: Path, tmp_path: Path) -> None:
    assert "no folder" in failure(tmp_path / "missing").message
    assert "is a file" in failure(llama / "config.json").message
    error = failure("nobody/nothing")
    assert "nobody/nothing" in error.message
    assert "check the spelling" in error.hint
    assert "local folder" in error.hint
    assert "no config.json" in failure(tmp_path).message
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "adapter" in failure(tmp_path).hint
    (tmp_path / "one.gguf").touch()
    assert "one.gguf" in failure(tmp_path).hint
    error = failure(tmp_path, gguf_file="two.gguf")
    assert "no file two.gguf" in error.message
    assert "one.gguf" in error.hint
    assert "no file" in failure(tmp_path / "two.gguf").message
    (tmp_path / "broken.gguf").write_bytes(b"GGUF nonsense")
    assert "broken.gguf" in failure(tmp_path / "broken.gguf").message


def test_a_folder_has_no_revision(llama: Path) -> None:
    assert "is a folder here, and a revision (`v2`) is of what lies on the hub" in failure(llama, revision="v2").message


def test_folders_without_readable_weights(llama: Path, tmp_path: Path) -> None:
    shutil.copy(llama / "config.json", tmp_path)
    assert "no weights in safetensors" in failure(tmp_path).message
    (tmp_path / "pytorch_model.bin").touch()
    assert "pickled" in failure(tmp_path).message
    (tmp_path / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes()[:-100])
    assert "damaged" in failure(tmp_path).message
    shutil.copy(llama / "model.safetensors", tmp_path)
    error = failure(tmp_path)
    assert "tokenizer" in error.message
    assert "a file is missing there" in error.hint
    (tmp_path / "config.json").write_text("{")
    assert str(tmp_path) in failure(tmp_path).message


def test_gguf_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.gguf").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "finetune-toolkit[gguf]" in failure(tmp_path / "one.gguf").hint
    assert "finetune-toolkit[gguf]" in failure("owner/name", gguf_file="one.gguf").hint


def test_models_that_do_not_fit(llama: Path, bert: Path, changed: Any) -> None:
    error = failure(llama, Head("masked_lm"))
    assert "a head for masked_lm, which `llama` does not have" in error.message
    assert "causal_lm" in error.hint
    assert "reads in both directions" in failure(bert).message
    assert "does not work here" in failure(llama, attention="flash_attention_2").hint
    wider = changed(hidden_size=64)
    error = failure(wider)
    assert "has the shape" in error.message
    assert "do not belong together" in error.hint


def test_architectures_that_transformers_does_not_know(changed: Any) -> None:
    folder = changed(model_type="no_such_architecture")
    error = failure(folder)
    assert "no_such_architecture" in error.message
    assert transformers.__version__ in error.hint


def test_quantized_models_are_refused(changed: Any) -> None:
    error = failure(changed(quantization_config={"quant_method": "gptq", "bits": 4}))
    assert "quantized" in error.message
    assert "full precision" in error.hint


def test_an_adapter_beside_a_model_is_refused(llama: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    get_peft_model(AutoModelForCausalLM.from_pretrained(llama), LoraConfig(target_modules=["q_proj"])).save_pretrained(
        folder
    )
    assert "adapter" in failure(folder).message


def test_code_of_the_repository_runs_only_if_trusted(changed: Any) -> None:
    folder = changed(
        model_type="mine", auto_map={"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"}
    )
    (folder / "mine.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class MyConfig(LlamaConfig):\n    model_type = 'mine'\n"
        "class MyModel(LlamaForCausalLM):\n    config_class = MyConfig\n"
    )
    error = failure(folder)
    assert "trust_remote_code = true" in error.hint
    model = load(folder, trust_remote_code=True).model
    assert type(model).__name__ == "MyModel"
    assert torch.equal(model.model.embed_tokens.weight, toy_model().model.embed_tokens.weight)


def test_the_hub_is_asked_for_the_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def config(path: str, **arguments: Any) -> Any:
        asked.update(arguments, path=path)
        raise OSError("not found")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", config)
    failure("owner/name", revision="abc123", gguf_file="m.gguf")
    assert asked == {
        "path": "owner/name",
        "revision": "abc123",
        "gguf_file": "m.gguf",
        "trust_remote_code": False,
    }


def test_one_gguf_file_is_enough() -> None:
    with pytest.raises(ValidationError, match="leave out `gguf_file`"):
        PretrainedOptions(path="a/b.gguf", gguf_file="c.gguf")
