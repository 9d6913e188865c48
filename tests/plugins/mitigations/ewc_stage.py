"""A stage with EWC on toy models: what the tests of EWC set up and look at."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from ftk.parts import Adaptation, Context, Gradients, Task
from ftk.testing.toys import toy_context, toy_model, toy_rows, toy_task
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations.ewc.ewc import Ewc
from ftk_plugins.mitigations.ewc.options import EwcOptions
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions

OBJECTIVE = CausalLM(CausalLMOptions())


def gpt2() -> nn.Module:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128, "vocab_size": 260}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=1)).eval()


def task(name: str = "old", first: int = 0, rows: int = 6) -> Task:
    return toy_task(list(toy_rows(first + rows))[first:], OBJECTIVE, name)


def stage(adaptation: Adaptation | None = None, model: nn.Module | None = None, **changes: Any) -> Context:
    """A stage's context: a fresh toy model with the adaptation attached."""
    adaptation = adaptation or Lora(LoraOptions(rank=4))
    model = adaptation.attach(model or toy_model())
    return toy_context(model, OBJECTIVE, adaptation, **changes)


def remembered(ctx: Context, *tasks: Task, **options: Any) -> Ewc:
    ewc = Ewc(EwcOptions(**options))
    for each in tasks or [task()]:
        ewc.remember(each, ctx)
    ewc.begin(ctx)
    return ewc


def fisher_of(ewc: Ewc) -> dict[str, Tensor]:
    prefix = "fisher/"
    return {key.removeprefix(prefix): value for key, value in ewc.state_dict().items() if key.startswith(prefix)}


def wander(model: nn.Module) -> None:
    """Move every trainable parameter, as training would."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape))


def pulled(ewc: Ewc, ctx: Context) -> dict[str, Tensor]:
    """What the step adds to the gradients, which are not zero before."""
    gradients = Gradients(ctx.model)
    before = {name: torch.randn_like(parameter) for name, parameter in gradients.parameters().items()}
    for name, gradient in before.items():
        gradients[name].copy_(gradient)
    with torch.no_grad():
        ewc.edit_gradients(gradients, ctx)
    return {name: gradients[name].detach() - before[name] for name in before}
