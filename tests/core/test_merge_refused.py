"""What `ftk merge` refuses: every problem at once, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.core.merging_lab import merge, rewrite, save_adapter, save_model, weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and an adapter of the first."""
    folder = tmp_path_factory.mktemp("refused")
    save_model(folder / "a", 0)
    save_model(folder / "b", 1)
    save_adapter(folder / "lora", folder / "a", 2)
    return folder


@pytest.fixture
def lab(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "lab")
    return tmp_path / "lab"


def refused(lab: Path, *arguments: str | Path) -> str:
    """The text of a refusal, paths shortened."""
    result = merge(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not (lab / "m").exists()
    assert not list(lab.glob(".*.partial"))
    return result.output.replace(f"{lab}/", "")


def test_the_file_is_checked_as_recipes_are(lab: Path) -> None:
    (lab / "merge.toml").write_text(
        'modles = ["a"]\nmodels = [{ path = "a", weigth = 1 }, 3]\ndtype = "bf16"\nseed = "0"\n'
        'method = { use = "ties", density = 2 }\n'
    )
    told = refused(lab, lab / "merge.toml")
    for problem in (
        "modles: unknown key\n      did you mean `models`?",
        "models.1.weigth: unknown key\n      did you mean `weight`?",
        "models.2: must be a path or a table, got 3", "dtype: must be 'keep', 'float32', 'float16' or 'bfloat16'",
        "seed: must be a whole number, got '0'", "out: is missing", "method.density: must be at most 1, got 2",
    ):  # fmt: skip
        assert problem in told
    (lab / "merge.toml").write_text('models = 5\nmethod = 7\nout = "m"\n')
    told = refused(lab, lab / "merge.toml", "--weights", "1,2")
    assert "models: must be a list of models, got 5" in told
    assert "method: must be a table, got 7" in told
    assert "models: must be a list" in refused(lab, lab / "merge.toml", "--method", "ties", "--density", "0.5")
    (lab / "merge.toml").write_text("models = ")
    assert "cannot be read" in refused(lab, lab / "merge.toml")
    assert "did you mean `merge.toml`?" in refused(lab, lab / "merg.toml")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a", "b", "--out", "m", "--method", "tis"], "unknown merge `tis`\n      did you mean `ties`?"),
        (["a", "b", "--out", "m", "--densty", "1"], "method.densty: unknown key"),
        (["a", "b", "--out", "m", "--wieghts", "1,1"], "did you mean `--weights`?"),
        (["a", "", "--out", "m"], "models.2.path: must not be empty"),
        (["a", "b", "--out", "m", "--method", "ties", "--density"], "--density: has no value"),
        (["a", "b", "--out", "m", "--weights", "1"], "--weights: 1 for 2 models"),
        (["a", "b", "--out", "m", "--weights", "1,x"], "'x' is no number"),
        (["a", "b", "--out", "m", "--weights", "1,-1"], "the weights sum to 0"),
        (["--out", "m"], "Missing argument"),
        (["--density", "1", "--out", "m"], "there is no model to merge"),
        (["a", "b", "--out", "a"], "a is there already"),
        (["a", "b", "--out", "no/m"], "there is no folder"),
        (["a", "b", "--out", "m", "--method", "ties"], "merges what models are more than a base, and there is none"),
        (["a", "--out", "m", "--method", "slerp"], "`slerp` merges 2 models, here are 1"),
        (["a", "b", "--out", "m", "--method", "ema", "--weights", "1,1"], "`ema` weighs the models by itself"),
        (["a", "b", "--out", "m", "--method", "fisher"], "needs to know how important each entry is"),
        (["a", "b", "--out", "m", "--importances", "x,y"], "`linear` does not look at importances"),
        (["a", "gone", "--out", "m"], "gone: there is no such folder"),
        (["a", "b/config.json", "--out", "m"], "b/config.json: is no folder"),
        (["lora", "--out", "m"], "adapters are merged on their base"),
        (["a", "--out", "m", "--adapter-rank", "2"], "a model's change has no low rank"),
        (["lora", "--base", "lora", "--out", "m"], "lora is an adapter"),
    ],
)
def test_what_cannot_be_meant_is_refused(lab: Path, arguments: list[str], told: str) -> None:
    paths = {"a", "b", "m", "gone", "lora", "no/m", "b/config.json"}
    found = refused(lab, *(str(lab / text) if text in paths else text for text in arguments))
    assert told in found


def _pickle(lab: Path) -> None:
    (lab / "b" / "model.safetensors").rename(lab / "b" / "pytorch_model.bin")


def _cut_off(lab: Path) -> None:
    whole = (lab / "b" / "model.safetensors").read_bytes()
    (lab / "b" / "model.safetensors").write_bytes(whole[:-8])


def _index_that_leads_away(lab: Path) -> None:
    table = {"weight_map": {"x": "../a/model.safetensors"}}
    (lab / "b" / "model.safetensors.index.json").write_text(json.dumps(table))


def _index_without_its_file(lab: Path) -> None:
    (lab / "b" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "y.safetensors"}}))


def _vocabulary(lab: Path) -> None:
    table = json.loads((lab / "b" / "tokenizer.json").read_text())
    table["added_tokens"].append({"id": 9999, "content": "<new>", "special": True})
    (lab / "b" / "tokenizer.json").write_text(json.dumps(table))


def _shapes(lab: Path) -> None:
    rewrite(
        lab / "b", {"model.norm.weight": torch.ones(3), "model.layers.0.mlp.up_proj.weight": None, "new": torch.ones(2)}
    )


def _config(lab: Path) -> None:
    table = json.loads((lab / "b" / "config.json").read_text())
    table |= {"model_type": "qwen2", "quantization_config": {"bits": 4}}
    (lab / "b" / "config.json").write_text(json.dumps(table))


def _eight_bits(lab: Path) -> None:
    norm = weights(lab / "b")["model.norm.weight"]
    rewrite(lab / "b", {"model.norm.weight": norm.to(torch.float8_e4m3fn)})


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_pickle, ["pytorch_model.bin is a pickle, which can run code when it is read"]),
        (_cut_off, ["is no whole file of safetensors (it is cut off"]),
        (_index_that_leads_away, ["does not name files of this folder"]),
        (_index_without_its_file, ["names y.safetensors, which is not there"]),
        (_vocabulary, ["its vocabulary is not that of", "<new>"]),
        (_shapes, ["it lacks model.layers.0.mlp.up_proj.weight", "it alone, new", "model.norm.weight is 3"]),
        (_config, ["its model_type is qwen2", "is stored in few bits"]),
        (_eight_bits, ["model.norm.weight in 8 bits cannot be merged"]),
    ],
)
def test_models_that_do_not_fit_are_told_before_anything_is_written(
    lab: Path, damage: Callable[[Path], None], told: list[str]
) -> None:
    damage(lab)
    found = refused(lab, lab / "a", lab / "b", "--out", lab / "m")
    assert [text for text in told if text not in found] == []


def test_one_tied_and_one_untied_output_layer(lab: Path, tmp_path: Path) -> None:
    config = json.loads((lab / "b" / "config.json").read_text())
    (lab / "b" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    rewrite(lab / "b", {"lm_head.weight": weights(lab / "b")["model.embed_tokens.weight"]})
    assert "one ties its output layer" in refused(lab, lab / "a", lab / "b", "--out", lab / "m")
    for name in "ab":
        config = json.loads((lab / name / "config.json").read_text()) | {"tie_word_embeddings": True}
        (lab / name / "config.json").write_text(json.dumps(config))
    assert merge(lab / "a", lab / "b", "--out", tmp_path / "tied").exit_code == 0, "a copy of what is tied is left out"
    assert "lm_head.weight" not in weights(tmp_path / "tied")


def test_other_settings_are_noted(lab: Path, tmp_path: Path) -> None:
    table = json.loads((lab / "b" / "config.json").read_text()) | {"rms_norm_eps": 0.5}
    (lab / "b" / "config.json").write_text(json.dumps(table))
    result = merge(lab / "a", lab / "b", "--out", tmp_path / "m")
    assert result.exit_code == 0
    assert "other settings than" in result.output
    assert "rms_norm_eps" in result.output


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"peft_type": "IA3"}, "its method is IA3"),
        ({"fan_in_fan_out": True}, "is it an adapter of this base?"),
    ],
)
def test_adapters_that_are_no_product(lab: Path, change: dict[str, object], told: str) -> None:
    table = json.loads((lab / "lora" / "adapter_config.json").read_text()) | change
    (lab / "lora" / "adapter_config.json").write_text(json.dumps(table))
    assert told in refused(lab, lab / "lora", "--base", lab / "a", "--out", lab / "m")
