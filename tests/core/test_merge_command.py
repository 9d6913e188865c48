"""``ftk merge`` on small models: what it writes, what it keeps, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftk.merging import combining, finishing, writing
from tests.core.merging_lab import in_two_files, merge, rewrite, save_model, weights


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of one class: ``a``, ``b``, and their base ``c``."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("abc"):
        save_model(folder / name, seed)
    return folder


@pytest.fixture
def models(lab: Path) -> dict[str, dict[str, Tensor]]:
    return {name: weights(lab / name) for name in "abc"}


def done(*arguments: str | Path) -> str:
    result = merge(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_weighted_average_loads_with_plain_transformers(lab: Path, models: Any, tmp_path: Path) -> None:
    told = done(lab / "a", lab / "b", "--weights", "3,1", "--out", tmp_path / "m")
    assert "peak memory" in told
    found = weights(tmp_path / "m")
    assert found.keys() == models["a"].keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, 0.75 * models["a"][name] + 0.25 * models["b"][name])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    torch.testing.assert_close(model.lm_head.weight, found.get("lm_head.weight", model.get_input_embeddings().weight))
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "m").get_vocab()
        == AutoTokenizer.from_pretrained(lab / "a").get_vocab()
    )
    card = (tmp_path / "m" / "README.md").read_text()
    assert "| `a` | 3 |" in card
    assert "`linear`" in card
    assert str(lab) not in card
    assert not list(tmp_path.glob(".*"))


def test_options_of_the_method_stand_on_the_command_line_or_in_a_file(lab: Path, models: Any, tmp_path: Path) -> None:
    done(lab / "a", lab / "b", "--base", lab / "c", "--method", "ties", "--density", "0.3", "--out", tmp_path / "m")
    (tmp_path / "merge.toml").write_text(
        f'models = ["{lab}/a", "{lab}/b"]\nbase = "{lab}/c"\nout = "{tmp_path}/n"\n'
        '[method]\nuse = "ties"\ndensity = 0.9\n'
    )
    done(tmp_path / "merge.toml", "--density", "0.3")
    done(tmp_path / "merge.toml", "--out", tmp_path / "o")
    one, other, denser = (weights(tmp_path / name) for name in "mno")
    name = "model.layers.0.mlp.down_proj.weight"
    assert all(torch.equal(one[key], other[key]) for key in one)
    moved = [((each[name] - models["c"][name]).abs() > 1e-7).float().mean() for each in (one, denser)]
    assert 0.3 <= moved[0] < 0.6 < moved[1]


def test_seeds_change_what_is_drawn(lab: Path, tmp_path: Path) -> None:
    for out, seed in (("m", "0"), ("n", "0"), ("o", "1")):
        done(lab / "a", "--base", lab / "c", "--method", "dare", "--seed", seed, "--out", tmp_path / out)
    one, same, other = (weights(tmp_path / out)["model.norm.weight"] for out in "mno")
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_lines_takes_little_of_the_first_block_and_all_of_the_last(lab: Path, models: Any, tmp_path: Path) -> None:
    done(lab / "a", "--base", lab / "c", "--method", "lines", "--first", "0.25", "--out", tmp_path / "m")
    found, last = weights(tmp_path / "m"), max(int(n.split(".")[2]) for n in models["a"] if ".layers." in n)
    for name, share in (
        ("model.embed_tokens.weight", 0.25), ("model.layers.0.mlp.up_proj.weight", 0.25),
        (f"model.layers.{last}.mlp.up_proj.weight", 1.0), ("model.norm.weight", 1.0),
    ):  # fmt: skip
        a, c = models["a"][name], models["c"][name]
        torch.testing.assert_close(found[name], c + share * (a - c))


def test_importances_choose_the_model(lab: Path, models: Any, tmp_path: Path) -> None:
    for name, least in (("a", 1.0), ("b", 0.0)):
        ones = {key: torch.full_like(tensor, least) for key, tensor in models["a"].items()}
        save_file(ones, tmp_path / f"{name}.safetensors")
    files = f"{tmp_path}/a.safetensors,{tmp_path}/b.safetensors"
    done(lab / "a", lab / "b", "--method", "fisher", "--importances", files, "--out", tmp_path / "m")
    for name, tensor in weights(tmp_path / "m").items():
        torch.testing.assert_close(tensor, models["a"][name], atol=1e-5, rtol=1e-5)


def test_pieces_and_files_do_not_show(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Any) -> None:
    arguments = ("--base", lab / "c", "--method", "ties")
    done(lab / "a", lab / "b", *arguments, "--out", tmp_path / "m")
    monkeypatch.setattr(combining.Combiner.__init__, "__defaults__", (100,))
    monkeypatch.setattr(writing.TensorFiles.__init__, "__defaults__", ("model", 20_000))
    save_model(tmp_path / "b", 1)
    in_two_files(tmp_path / "b")
    done(lab / "a", tmp_path / "b", *arguments, "--out", tmp_path / "n")
    assert len(list((tmp_path / "n").glob("model-*-of-*.safetensors"))) > 1
    one, other = weights(tmp_path / "m"), weights(tmp_path / "n")
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name])
    AutoModelForCausalLM.from_pretrained(tmp_path / "n")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_type_that_is_asked_for_is_stored_and_told(lab: Path, models: Any, dtype: str, tmp_path: Path) -> None:
    done(lab / "a", lab / "b", "--dtype", dtype, "--out", tmp_path / "m")
    kind = getattr(torch, dtype)
    for name, tensor in weights(tmp_path / "m").items():
        assert torch.equal(tensor, ((models["a"][name] + models["b"][name]) / 2).to(kind))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "m").dtype == kind
    done(tmp_path / "m", tmp_path / "m", "--out", tmp_path / "n")
    assert {tensor.dtype for tensor in weights(tmp_path / "n").values()} == {kind}


def test_what_float16_does_not_hold_is_no_infinity(lab: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "a", 0)
    rewrite(tmp_path / "a", {"model.norm.weight": 1e6 * weights(tmp_path / "a")["model.norm.weight"]})
    result = merge(tmp_path / "a", lab / "b", "--dtype", "float16", "--out", tmp_path / "m")
    assert result.exit_code == 1
    assert "model.norm.weight: has numbers that float16 does not hold" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_dry_run_writes_nothing(lab: Path, tmp_path: Path) -> None:
    told = json.loads(done(lab / "a", lab / "b", "--out", tmp_path / "m", "--dry-run", "--json"))
    assert told["merged"] == told["weights"] == len(weights(lab / "a"))
    assert told["bytes"] == sum(tensor.nbytes for tensor in weights(lab / "a").values())
    assert not (tmp_path / "m").exists()
    assert "linear" in done(lab / "a", lab / "b", "--out", tmp_path / "m", "--dry-run")


def test_an_interruption_leaves_nothing(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks, seen = combining.Combiner.chunks, []

    def interrupted(self: Any, weight: Any) -> Iterator[Any]:
        seen.append(weight.name)
        if len(seen) == 5:
            assert (tmp_path / ".m.partial" / "model.safetensors").is_file()
            raise KeyboardInterrupt
        yield from chunks(self, weight)

    monkeypatch.setattr(combining.Combiner, "chunks", interrupted)
    result = merge(lab / "a", lab / "b", "--out", tmp_path / "m")
    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_do_not_write_into_each_other(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, others = finishing.merge_card, []

    def meanwhile(*arguments: Any) -> str:
        others.append(merge(lab / "a", lab / "c", "--out", tmp_path / "m"))
        return card(*arguments)

    monkeypatch.setattr(finishing, "merge_card", meanwhile)
    done(lab / "a", lab / "b", "--out", tmp_path / "m")
    assert [other.exit_code for other in others] == [2]
    assert "another merge is writing it" in others[0].output
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_what_comes_into_the_way_meanwhile_stays(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = finishing.merge_card

    def meanwhile(*arguments: Any) -> str:
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "mine").write_text("mine")
        return card(*arguments)

    monkeypatch.setattr(finishing, "merge_card", meanwhile)
    result = merge(lab / "a", lab / "b", "--out", tmp_path / "m")
    assert result.exit_code == 1
    assert "somebody has put something there" in result.output
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["mine"]


def test_whole_numbers_are_copied_where_they_agree(lab: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_model(tmp_path / name, 3)
        rewrite(tmp_path / name, {"model.counts": torch.arange(5)})
    done(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "m")
    assert torch.equal(weights(tmp_path / "m")["model.counts"], torch.arange(5))
    rewrite(tmp_path / "b", {"model.counts": torch.arange(5) + 1})
    result = merge(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "n")
    assert result.exit_code == 2
    assert "model.counts" in result.output


def test_a_runs_folder_stands_for_its_model(lab: Path, models: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_model(run / "model", 1)
    (run / "recipe.resolved.json").write_text("{}")
    done(lab / "a", run, "--weights", "0,1", "--out", tmp_path / "m")
    for name, tensor in weights(tmp_path / "m").items():
        assert torch.equal(tensor, models["b"][name])
