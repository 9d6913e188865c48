"""Weights held in few bits: by which formula, how `lora` learns over them and merges, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import ftk
from ftk import UserError
from ftk.events import RunEvent
from ftk.testing import toy_model, toy_tokenizer
from ftk_plugins.models.pretrained import pretrained
from ftk_plugins.models.pretrained.options import PretrainedOptions
from tests.plugins.adaptations.effective import TOKENS, attached, shake
from tests.plugins.models.sources import load
from tests.system.small import weights, written

INSTALLED = importlib.util.find_spec("bitsandbytes") is not None
needs_bitsandbytes = pytest.mark.skipif(not INSTALLED, reason="bitsandbytes is not installed")
NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip
"""The values of a 4-bit normal float (Dettmers et al. 2023, appendix E)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("plain")
    toy_model(hidden_size=64, intermediate_size=128).save_pretrained(here)
    toy_tokenizer().save_pretrained(here)
    rows = [{"instruction": f"say {n}", "output": f"{n}"} for n in range(12)]
    (here / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return here


def recipe(folder: Path, adaptation: str, more: str = "", model: str = 'quantization = "nf4"') -> str:
    return f"""
name = "few-bits"
seed = 3
[model]
use = "pretrained"
path = "{folder}"
{model}
[objective]
use = "instruction"
[adaptation]
{adaptation}
[data]
overlap = "allow"
train = {{ use = "files", path = "{folder}/rows.jsonl" }}
retain = {{ use = "files", path = "{folder}/rows.jsonl" }}
[training]
steps = 5
batch_size = 4
learning_rate = 1e-2
checkpoint_every = 2
log_every = 1
precision = "fp32"
{more}
"""


def nf4(weight: Tensor) -> Tensor:
    """Each of 64 numbers in a row as the nearest of 16 values, times the largest of the 64."""
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks[..., None] / scales[..., None] - NF4).abs().argmin(-1)
    return (NF4[nearest] * scales).reshape(weight.shape)


def int8(weight: Tensor) -> Tensor:
    scales = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scales).round() * scales


def with_weights(plain: Any, of: Any) -> Any:
    """A copy of the plain model whose hidden matrices went through ``of``."""
    other = copy.deepcopy(plain)
    with torch.no_grad():
        for name, module in other.named_modules():
            if isinstance(module, nn.Linear) and name != "lm_head":
                module.weight.copy_(of(module.weight))
    return other


@needs_bitsandbytes
@pytest.mark.parametrize(("kind", "of", "off"), [("nf4", nf4, 1e-5), ("int8", int8, 2e-2)])
def test_the_model_computes_with_these_weights_and_merges_into_them(
    kind: str, of: Any, off: float, folder: Path, tmp_path: Path
) -> None:
    """With ``int8`` the inputs of a layer are rounded as well, to 127 steps, and the merged model's are not."""
    double = {"double_quantization": False} if kind == "nf4" else {}
    model = load(folder, quantization=kind, **double).model
    plain = toy_model(hidden_size=64, intermediate_size=128)
    expected = with_weights(plain, of)
    distance = float((plain(TOKENS).logits - expected(TOKENS).logits).detach().abs().max())
    torch.testing.assert_close(model(TOKENS).logits, expected(TOKENS).logits, atol=off, rtol=0)
    assert distance > 3e-3, "few bits are another model"
    assert model.lm_head.weight.dtype == torch.float32

    adaptation, adapted = attached("lora", model, rank=2)
    shake(adapted)
    trained = adapted(TOKENS).logits
    twin, same = attached("lora", copy.deepcopy(expected), rank=2)
    shake(same)
    same(TOKENS).logits.square().sum().backward()
    adapted(TOKENS).logits.square().sum().backward()
    others = dict(same.named_parameters())
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            wanted = others[name].grad
            scale = float(wanted.abs().max())
            torch.testing.assert_close(parameter.grad, wanted, atol=max(30 * off, 1e-4) * scale, rtol=0)
    with torch.no_grad(), adaptation.reference():
        torch.testing.assert_close(adapted(TOKENS).logits, expected(TOKENS).logits, atol=2 * off, rtol=0)
    adaptation.export(tmp_path)
    again = load(folder, quantization=kind, **double).model
    loaded = PeftModel.from_pretrained(again, tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(TOKENS).logits, trained, atol=2 * off, rtol=0)

    merged = adaptation.merge()
    torch.testing.assert_close(merged(TOKENS).logits, trained, atol=3 * off, rtol=0)
    merged.save_pretrained(tmp_path / "merged")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert torch.equal(read(TOKENS).logits, merged(TOKENS).logits)
    assert {name: p.shape for name, p in read.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}
    one, other = (each.model.layers[0].mlp.up_proj.weight for each in (read, twin.merge()))
    torch.testing.assert_close(one, other, atol=max(1e-6, off / 20), rtol=0)  # `int8` rounds a few the other way


@needs_bitsandbytes
@pytest.mark.parametrize("use", ["dora", "adalora"])
def test_others_of_peft_learn_over_them_too(use: str, folder: Path) -> None:
    adaptation, model = attached(use, load(folder, quantization="nf4").model, rank=2)
    before = model(TOKENS).logits
    shake(model)
    logits = model(TOKENS).logits
    assert (logits - before).abs().max() > 1e-2
    with torch.no_grad(), adaptation.reference():
        torch.testing.assert_close(model(TOKENS).logits, before, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(adaptation.merge()(TOKENS).logits, logits, atol=1e-5, rtol=1e-4)


@needs_bitsandbytes
def test_dora_does_not_go_with_8_bits(folder: Path) -> None:
    with pytest.raises(UserError, match="bitsandbytes loses those of 8 bits then"):
        attached("dora", load(folder, quantization="int8").model, rank=2)


@needs_bitsandbytes
def test_double_quantization_is_near_and_not_the_same(folder: Path) -> None:
    double, single = (
        load(folder, quantization="nf4", double_quantization=each).model(TOKENS).logits for each in (True, False)
    )
    assert not torch.equal(double, single)
    torch.testing.assert_close(double, single, atol=2e-2, rtol=0)


@needs_bitsandbytes
def test_a_run_is_stopped_and_resumed_and_leaves_a_plain_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    more = """
[[mitigation]]
use = "replay"
share = 0.25
[[mitigation]]
use = "interpolation"
alpha = 0.5
[[stage]]
name = "first"
[[stage]]
name = "second"
"""
    text = written(tmp_path, recipe(folder, 'use = "lora"\nrank = 2\ninit = "pissa"', more))
    whole = ftk.run(text, output=tmp_path / "whole")

    def stop(event: RunEvent) -> None:
        if event.kind == "step" and event.data["step"] == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ftk.Interrupted):
        ftk.run(text, output=tmp_path / "stopped", observers=[stop])
    assert weights(ftk.run(text, output=tmp_path / "stopped").folder) == weights(whole.folder)
    plain = AutoModelForCausalLM.from_pretrained(whole.folder / "model")
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    counts = [stage["total_parameters"] - stage["trainable_parameters"] for stage in whole.report["stages"]]
    assert counts[0] == sum(p.numel() for p in plain.parameters()) + _frozen(whole)


def _frozen(result: Any) -> int:
    """The frozen adapter that balances the start of `pissa` has as many parameters as the trained one."""
    return int(result.report["stages"][0]["trainable_parameters"])


@pytest.fixture
def _as_if_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: find("json" if name == "bitsandbytes" else name, *rest)
    )


@pytest.mark.usefixtures("_as_if_installed")
def test_check_says_what_does_not_go_with_them(folder: Path, tmp_path: Path) -> None:
    for text, told in (
        (recipe(folder, 'use = "full"'), "`pretrained` needs quantized-base, which adaptation `full` does not provide"),
        (
            recipe(folder, 'use = "lora"', '[[mitigation]]\nuse = "ewc"'),
            "`ewc` needs weight-drift, which model `pretrained` rules out with these options",
        ),
        (
            recipe(folder, 'use = "lora"', 'sharding = "full"'),
            "training.sharding: model `pretrained` with these options holds weights that are not divided",
        ),
        (
            recipe(folder, 'use = "lora"', model='quantization = "int8"\ndouble_quantization = false'),
            'is of `quantization = "nf4"`',
        ),
        (recipe(folder, 'use = "lora"', model='quantization = "nf4"\ngguf_file = "a.gguf"'), "is of plain weights"),
    ):
        with pytest.raises(ftk.RecipeError) as refused:
            ftk.run(written(tmp_path, text), output=tmp_path / "out")
        assert told in str(refused.value)
        assert refused.value.exit_code == 2


def test_without_the_package_check_says_how_to_get_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest)
    )
    told = r"model\.quantization: .*needs bitsandbytes, which is not installed: pip install bitsandbytes"
    with pytest.raises(ftk.RecipeError, match=told):
        ftk.run(written(tmp_path, recipe(folder, 'use = "lora"')), output=tmp_path / "out")


@pytest.mark.usefixtures("_as_if_installed")
@pytest.mark.parametrize(
    "error", [RuntimeError("None of the available devices is supported"), ImportError("too old a version")]
)
def test_where_it_cannot_run_the_hardware_is_named(
    error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.from_pretrained", refuse)
    monkeypatch.setattr(pretrained, "quantization_of", lambda options: object())
    with pytest.raises(UserError, match="bitsandbytes cannot run here: ") as told:
        load(folder, quantization="nf4")
    assert str(error) in told.value.message
    assert "an NVIDIA, AMD or Intel accelerator, or, from version" in told.value.hint
    assert told.value.exit_code == 2


def test_whole_weights_are_the_default() -> None:
    assert PretrainedOptions(path="x").more_needs() == ()
    assert "weight-drift" not in PretrainedOptions(path="x").withheld()
