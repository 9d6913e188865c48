"""Synaptic intelligence: a pull against the drift, stiff where a weight's way lowered the loss of earlier stages."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ftk import UserError
from ftk.parts import Batch, Context, Drift, Gradients, Loss, State, own_rows
from ftk_plugins.mitigations.pieces import piece_elements
from ftk_plugins.mitigations.pulling import WeightedPull
from ftk_plugins.mitigations.synaptic_intelligence.options import SynapticIntelligenceOptions
from ftk_plugins.mitigations.synaptic_intelligence.taps import Taps, span

_PATH, _LEARNED = "path/", "learned/"


class SynapticIntelligence(WeightedPull):
    """Adds the gradient of ``½ · strength · Σ Ω · drift²`` to each step (Zenke et al. 2017, eq. 4).

    While a stage trains, each weight gathers ``ω = −Σ g · ΔW`` over the steps: what its way has taken off the loss, by
    the loss's own gradient g with respect to the effective weight (eq. 3). At its end ``Ω ← γ·Ω + max(0, ω/(Δ² + ξ))``
    (eq. 5), for the stages after it. The sum is made of ``g · drift`` before the step minus the same after it.

    Its state is Ω, within a stage ω, and after a stage what the next one adds to Ω.
    """

    of_weights = {**WeightedPull.of_weights, f"{_LEARNED}*": "zeros"}

    def __init__(self, options: SynapticIntelligenceOptions) -> None:
        super().__init__("synaptic_intelligence", strength=options.strength, every=options.every, gamma=options.gamma)
        self.options = options
        self._path: dict[str, Tensor] = {}
        self._learned: dict[str, Tensor] = {}
        self._drift: dict[str, Drift] = {}
        self._own: dict[str, nn.Parameter] = {}
        self._gradients: dict[str, Tensor] = {}
        self._taps: Taps | None = None

    def begin(self, ctx: Context) -> None:
        """Take what the stage before has learned into Ω, and begin the path.

        Raises:
            UserError: the gradient of a weight cannot be heard.
        """
        assert ctx.adaptation is not None
        if self._learned:
            self.accumulate(self._learned)
            self._learned = {}
        super().begin(ctx)
        self._drift = dict(self.drifts(ctx))
        trained = [p for group in ctx.adaptation.param_groups(ctx.model, 1.0) for p in group["params"]]
        moving = {id(parameter): parameter for parameter in trained}
        self._own = {n: moving[id(d.weight)] for n, d in self._drift.items() if id(d.weight) in moving}
        computed = {name: drift for name, drift in self._drift.items() if name not in self._own}
        begun, self._path = self._path, {}  # in the order of the drifts, so that sums round alike after a restart
        for name, drift in self._drift.items():
            if not drift.weight.is_floating_point():
                raise UserError(
                    f"mitigation synaptic_intelligence: {name} is held in few bits, and its path cannot be followed",
                    "load the model without quantization, or use another mitigation, such as replay",
                )
            kept = begun.get(name)
            like = drift.weight.detach()
            self._path[name] = torch.zeros_like(like, dtype=torch.float32) if kept is None else kept.to(like.device)
        if computed:
            self._taps = Taps(ctx, computed)
        unknown = [task.name for task in ctx.earlier if task.name not in self.tasks]
        if unknown:
            ctx.events(
                "warning",
                text=f"synaptic_intelligence: it has not seen how {', '.join(f'`{name}`' for name in unknown)} came to "
                "be learned, so nothing of it is guarded",
            )

    def penalty(self, batch: Batch, loss: Loss, ctx: Context) -> None:
        """None; but a pass for which it is asked is one that is trained on."""
        if self._taps is not None:
            self._taps.count()

    def read_gradients(self, gradients: Gradients, ctx: Context) -> None:
        for name, drift in self._drift.items():
            if name in self._own:
                found = self._own[name].grad
                found = None if found is None else own_rows(found)[0].clone()
            else:
                assert self._taps is not None
                found = self._taps.take(name, ctx, gradients.scale)
            if found is None:
                continue
            if ctx.precision == "fp16":  # a step that is left out moves nothing
                found.nan_to_num_(0.0, 0.0, 0.0)
            self._gradients[name] = found
            self._walk(name, drift, 1)

    def after_step(self, ctx: Context) -> None:
        for name in self._gradients:
            self._walk(name, self._drift[name], -1)
        self._gradients = {}

    def _walk(self, name: str, drift: Drift, sign: int) -> None:
        """``ω ← ω ± g · drift``."""
        path, first = own_rows(self._path[name])
        gradient, begun = self._gradients[name], span(drift)[0]
        path, gradient = (tensor if tensor.ndim else tensor.view(1) for tensor in (path, gradient))
        for start, stop in drift.chunks(piece_elements(path.device)):
            its = gradient[start - begun : stop - begun].float()
            path[start - first : stop - first].addcmul_(drift.rows(start, stop), its, value=sign)

    def go_back(self, state: State) -> None:
        """The path leads to the weights that the stage leaves, and no farther."""
        self._path = {name: state[_PATH + name].to(path.device) for name, path in self._path.items()}

    def finish(self, ctx: Context) -> None:
        """Make of the path what the stage has learned."""
        if self._taps is not None:
            self._taps.remove()
            self._taps = None
        assert ctx.adaptation is not None
        lowered = _sum(self._path)
        for name, drift in self.drifts(ctx).items():
            path, first = own_rows(self._path[name])
            path = path if path.ndim else path.view(1)
            for start, stop in drift.chunks():
                piece = path[start - first : stop - first]
                piece.div_(drift.rows(start, stop).square_().add_(self.options.damping)).clamp_(min=0)
        total = _sum(self._path)
        if self.options.normalise and total > 0:
            count = sum(path.numel() for path in self._path.values())
            for path in self._path.values():
                own_rows(path)[0].mul_(count / total)
        self._learned, self._path = self._path, {}
        for task in ctx.taught:
            self.tasks[task.name] = {"lowered": lowered, "total": total}

    def rehearse_finish(self, ctx: Context) -> None:
        self._learned, self._path = self._path, {}

    def state_dict(self) -> State:
        begun = {_PATH + name: path for name, path in self._path.items()}
        return {**super().state_dict(), **begun, **{_LEARNED + name: each for name, each in self._learned.items()}}

    def load_state_dict(self, state: State) -> None:
        self._path, self._learned = (
            {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            for prefix in (_PATH, _LEARNED)
        )
        super().load_state_dict({k: v for k, v in state.items() if not k.startswith((_PATH, _LEARNED))})


def _sum(tensors: dict[str, Tensor]) -> float:
    """Of all of them, over the rows of all processes where they are sharded."""
    if not tensors:
        return 0.0
    sums = torch.stack([own_rows(tensor)[0].sum(dtype=torch.float64).cpu() for tensor in tensors.values()])
    total = sums.sum()
    if any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        device = own_rows(next(iter(tensors.values())))[0].device
        total = total.to(device)
        torch.distributed.all_reduce(total)
    return float(total)
