"""Low-rank adaptation whose ranks move between layers, by PEFT's layers and its allocator."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, AdaLoraModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Context, Drift, Gradients, State
from ftk_plugins.adaptations.adalora.options import AdaLoraOptions
from ftk_plugins.adaptations.injected import TRAINED, Injected

UNKNOWN_STEPS = 1
"""What PEFT is told about the stage's length before it is known."""


class AdaLora(Injected):
    """Adds ``s·P·diag(E)·Q`` to each target; a rank is taken away by holding its entry of E at zero.

    PEFT calls P ``lora_B`` and Q ``lora_A``. Which entries are zero follows from two running means of each parameter's
    sensitivity ``|w · ∂L/∂w|`` (section 3.2 of the paper), which are part of the state.
    """

    name = "adalora"

    def __init__(self, options: AdaLoraOptions) -> None:
        super().__init__(options)
        self.options = options

    def inject(self, model: nn.Module, targets: list[str]) -> BaseTuner:
        options = self.options
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it advises options that are set by `before_step`
            config = AdaLoraConfig(
                init_r=options.ranks_at_first,
                target_r=options.rank,
                lora_alpha=options.alpha,
                lora_dropout=options.dropout,
                beta1=options.sensitivity_decay,
                beta2=options.uncertainty_decay,
                orth_reg_weight=options.orthogonality,
                total_step=UNKNOWN_STEPS,
                target_modules=targets,
                fan_in_fan_out=self._transposed,
            )
            return AdaLoraModel(model, config, TRAINED)

    def before_step(self, ctx: Context) -> bool:
        """Tell PEFT how long the stage is; what requires gradients never changes.

        Raises:
            UserError: the stage ends before ranks are shared out once.
        """
        config, steps = self._tuner.peft_config[TRAINED], ctx.steps
        config.total_step = steps
        config.tinit, config.tfinal = int(self.options.first_share * steps), int(self.options.last_share * steps)
        config.deltaT = self.options.every
        between = steps - config.tinit - config.tfinal
        if config.deltaT >= between and "every" in self.options.model_fields_set:
            raise UserError(
                f"adaptation.every: {config.deltaT} steps do not fit into the {between} of {steps} in which ranks are "
                "shared out",
                "Lower it, or `first_share` and `last_share`.",
            )
        return False

    def attach(self, model: Any) -> nn.Module:
        attached = super().attach(model)
        named = self._tuner.model.named_parameters()
        self._ranked = {name: p for name, p in named if "lora_" in name and f".{TRAINED}" in name and p.requires_grad}
        self._real = all(type(p) is nn.Parameter and not p.is_meta for p in self._ranked.values())
        ranks = self.options.ranks_at_first
        self._kept = {name: torch.ones(ranks, dtype=torch.bool) for name in self._ranked if ".lora_E." in name}
        self._fill_means()
        return attached

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        """Add the gradient of PEFT's penalty: the mean of ``‖QQᵀ − I‖`` and ``‖PᵀP − I‖`` over all Q and P.

        Of ``‖QQᵀ − I‖`` it is ``2(QQᵀ − I)Q / ‖QQᵀ − I‖``. The paper (equation 4) has the squares of these norms.
        """
        weight = self.options.orthogonality / (2 * len(self._layers))
        for name, parameter in self._ranked.items() if weight else ():
            if ".lora_E." in name:
                continue
            turned = ".lora_B." in name  # its directions are columns
            rows = parameter.detach().mT if turned else parameter.detach()
            excess = rows @ rows.mT
            excess.diagonal().sub_(1)
            slope = excess @ rows * (2 * weight / torch.linalg.matrix_norm(excess).clamp_min(1e-12))
            _gradient(parameter).add_(slope.mT if turned else slope)

    def after_step(self, ctx: Context) -> None:
        """Take the step's gradients into the running means, and share the ranks out where it is time to."""
        allocator = self._tuner.rankallocator
        for name, parameter in self._ranked.items():
            gradient = _gradient(parameter)
            if ctx.precision == "fp16":
                gradient.nan_to_num_(0, 0, 0)  # of a step that was not taken, for its scale was too large
            for means in (allocator.exp_avg_ipt, allocator.exp_avg_unc):
                means[name] = means[name].to(parameter.device)
        if not self._real:
            allocator.update_ipt(self._tuner.model)  # without values nothing can be ranked
            return
        self._tuner.update_and_allocate(ctx.step + 1)
        for name, kept in (self._tuner.peft_config[TRAINED].rank_pattern or {}).items():
            self._kept[name] = torch.tensor(kept)
        self._fill_means()

    def export(self, directory: Path) -> str | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a layer may be left without any rank, and has tensors of no rows
            return super().export(directory)

    def state_dict(self) -> State:
        allocator = self._tuner.rankallocator
        return {
            **super().state_dict(),
            **{f"sensitivity/{name}": mean for name, mean in allocator.exp_avg_ipt.items()},
            **{f"uncertainty/{name}": mean for name, mean in allocator.exp_avg_unc.items()},
            **{f"kept/{name}": kept for name, kept in self._kept.items()},
        }

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self._tuner.peft_config[TRAINED].rank_pattern = {name: kept.tolist() for name, kept in self._kept.items()}

    def _fill_means(self) -> None:
        """PEFT makes its means when they are first needed, and drops them in the end; a state always has them."""
        allocator = self._tuner.rankallocator
        for name, parameter in self._ranked.items():
            for means in (allocator.ipt, allocator.exp_avg_ipt, allocator.exp_avg_unc):
                if name not in means:
                    means[name] = torch.zeros_like(parameter.detach())

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """The entries of E never decay, for that would be a second judgement of which ranks matter."""
        _, *beside = super().param_groups(model, lr)
        values = [layer.lora_E[TRAINED] for layer in self._layers.values()]
        apart = {id(parameter) for parameter in values}
        directions = [parameter for parameter in self._trained if id(parameter) not in apart]
        return [{"params": directions, "lr": lr}, {"params": values, "lr": lr, "weight_decay": 0.0}, *beside]

    def drifts(self, layer: Any) -> Iterator[tuple[str, Drift]]:
        def effective(start: int, stop: int) -> Tensor:
            weight = layer.get_base_layer().weight
            scale = layer.scaling[TRAINED] / (layer.ranknum[TRAINED] + 1e-5)
            p, q = layer.lora_B[TRAINED], layer.lora_A[TRAINED] * layer.lora_E[TRAINED] * scale
            left, right = (q.mT, p.mT) if getattr(layer, "fan_in_fan_out", False) else (p, q)
            rows: Tensor = weight[start:stop].float() + left[start:stop] @ right
            return rows

        yield "weight", self.computed(layer, "weight", effective)


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Its gradient; zeros where the loss did not reach it."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
