"""Orthogonal LoRA: the adapters of a stage read directions of the inputs that earlier stages' did not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftk.parts import Context, Drift, Gradients, Knob, Mitigation, State
from ftk_plugins.mitigations.layers import inner, layers_of, outer

from .options import OloraOptions

EARLIER = "earlier/"


class Olora(Mitigation):
    """Adds ``λ₁ Σ_i ‖A_i Aᵀ‖² + λ₂ (‖A‖² + ‖B‖²)`` to the mean loss of every step (Wang et al. 2023, equations 7, 8).

    ``A`` is ``(rank, inputs)``, ``A_i`` that of an earlier stage, and the norm Frobenius': the sum of the squared
    products of each two rows. It depends on the weights alone, so that its gradient, ``2 λ₁ Σ_i (A A_iᵀ) A_i`` for A,
    is added to that of the step.

    Stages merge their adapters. So the state is each layer's earlier A, one below the other: ``earlier/<weight>``,
    ``(directions, inputs) float32``. A stage's own is added when the stage ends.
    """

    of_weights = {f"{EARLIER}*": "none"}

    def __init__(self, options: OloraOptions) -> None:
        self.knob: Knob = Knob(options.orthogonality)
        self.options = options
        self._earlier: dict[str, Tensor] = {}
        self._kinds: dict[str, str] = {}
        self._within = 0.0

    def begin(self, ctx: Context) -> None:
        """Bring what earlier stages left to where the weights are; say where there is nothing."""
        drifts = dict(_drifts(ctx))
        self._kinds = layers_of(ctx.model, {name: drift.weight for name, drift in drifts.items()})
        self._earlier |= {n: a.to(drifts[n].weight.device) for n, a in self._earlier.items() if n in drifts}
        if ctx.stage > 1 and not self._earlier.keys() & drifts.keys():
            ctx.events(
                "warning",
                text=f"olora: no stage before `{ctx.stage_name}` kept adapters of the weights that it trains, so that "
                "there is nothing to keep off; it must stand in the stages before as well",
            )

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        for name, drift in _drifts(ctx):
            if ctx.rank and isinstance(drift.weight, DTensor):
                continue  # the factors are whole in every process, and pulls at them are added up
            earlier = self._earlier.get(name)
            for each in drift.products() if earlier is not None or self.options.l2 else ():
                if each.left_grad is None or each.right_grad is None:
                    continue
                kind = self._kinds[name]
                a, a_grad = inner(kind, each.left, each.right), inner(kind, each.left_grad, each.right_grad)
                if earlier is not None:
                    a_grad.add_((a @ earlier.T) @ earlier, alpha=2 * self.knob.value)
                if self.options.l2:
                    a_grad.add_(a, alpha=2 * self.options.l2)
                    outer(kind, each.left_grad, each.right_grad).add_(
                        outer(kind, each.left, each.right), alpha=2 * self.options.l2
                    )

    @torch.no_grad()
    def finish(self, ctx: Context) -> None:
        """Keep this stage's A for the stages after it, and tell how much of it lies in the span of earlier ones."""
        within = total = 0.0
        for name, drift in _drifts(ctx):
            basis = torch.linalg.qr(self._earlier[name].T)[0] if name in self._earlier else None
            for each in drift.products():
                a = inner(self._kinds[name], each.left, each.right).float()
                total += float(a.square().sum())
                within += 0.0 if basis is None else float((a @ basis).square().sum())
        self._within = within / total if total else 0.0
        self.rehearse_finish(ctx)

    @torch.no_grad()
    def rehearse_finish(self, ctx: Context) -> None:
        for name, drift in _drifts(ctx):
            for each in drift.products():
                a = inner(self._kinds[name], each.left, each.right).float()
                self._earlier[name] = torch.cat([self._earlier[name], a]) if name in self._earlier else a.clone()

    def report(self) -> dict[str, Any]:
        tensors = self._earlier.values()
        return {
            "directions": sum(len(earlier) for earlier in tensors),
            "bytes": sum(earlier.numel() * earlier.element_size() for earlier in tensors),
            "within": round(self._within, 4),
        }

    def state_dict(self) -> State:
        return {"within": self._within, **{EARLIER + name: earlier for name, earlier in self._earlier.items()}}

    def load_state_dict(self, state: State) -> None:
        if strange := [name for name in state if name != "within" and not name.startswith(EARLIER)]:
            raise ValueError(f"olora: a state has earlier adapters, not {', '.join(strange)}")
        self._within = state.get("within", 0.0)
        self._earlier = {name.removeprefix(EARLIER): its for name, its in state.items() if name.startswith(EARLIER)}


def _drifts(ctx: Context) -> Iterator[tuple[str, Drift]]:
    """Those of low rank, by the names that weights have in every stage."""
    assert ctx.adaptation is not None
    for name, drift in ctx.adaptation.drift().items():
        if drift.products():
            yield ctx.common_name(name), drift
