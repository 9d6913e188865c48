"""After which station of which step a number stopped being finite, and what can have caused it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftk.parts import Context
from ftk.recipe.training import Training

RATE = "lower training.learning_rate, or write training.precision = 'fp32'"

KEPT = "; the last checkpoint is kept"


class Trace:
    """What one step left behind: scalars on the device, which are read when steps are reported.

    Attributes:
        step: the step, from 1.
        losses: of its micro-batches; none in a process without a row.
        totals: the same with the mitigations' penalties.
        norms: the gradient's norm before each mitigation that edits it, in their order, and after the last.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.losses: list[Tensor] = []
        self.totals: list[Tensor] = []
        self.norms: list[Tensor] = []

    def numbers(self) -> Tensor:
        """The loss, the loss with penalties, and the norms: ``(2 + norms,) float32``."""
        sums = [torch.stack(losses).float().sum() for losses in (self.losses, self.totals) if losses]
        norms = torch.stack(self.norms).float()
        return torch.cat([torch.stack(sums).to(norms.device) if sums else norms.new_zeros(2), norms])


def what_broke(
    traces: Sequence[Trace],
    penalties: Sequence[str],
    editors: Sequence[str],
    ctx: Context,
    options: Training,
    weights: Iterable[Tensor] = (),
) -> str:
    """Say which number of these steps was the first that is not finite, and what to change; nothing if all are.

    Args:
        traces: of consecutive steps, the last of them the newest.
        penalties: the mitigations that add to the loss.
        editors: those that edit gradients.
        ctx: the stage.
        options: its training.
        weights: as the last of these steps left them, where they are about to be saved.
    """
    numbers = torch.stack([trace.numbers() for trace in traces])
    if ctx.world_size > 1:  # losses are each process's own, and all must come to one answer
        torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.SUM)
        numbers[:, 2:] /= ctx.world_size
    steps = numbers.tolist()
    # In fp16 a gradient that is not finite is nothing lost: its step is skipped and the scale lowered.
    looked_at = 2 if ctx.precision == "fp16" else numbers.shape[1]
    broken = [
        (row, column)
        for row, step in enumerate(steps)
        for column in range(looked_at)
        if not math.isfinite(step[column])
    ]
    if not broken:
        if math.isfinite(_norm(weights)):
            return ""
        step, cause = traces[-1].step, _changed_since(steps[-1], traces[-1].step + 1, editors, options)
        return f"the weights that step {step} of stage `{ctx.stage_name}` left are not finite\n  {cause}{KEPT}"
    row, column = broken[0]
    step, value = traces[row].step, steps[row][column]
    since_before = _changed_since(steps[row - 1] if row else None, step, editors, options)
    if column == 0:
        what, hint = f"loss is {value}", since_before
    elif column == 1:
        what = f"loss is {value} with the penalty of {_named(penalties)}, and finite without"
        hint = f"lower the strength of {_named(penalties)}, or look at its other options"
    elif column == 2:
        what, hint = f"gradient's norm is {value}", since_before
        if editors:
            what += " before any mitigation changed it"
    else:
        editor = editors[column - 3]
        what = f"gradient's norm is {value} after {_named([editor])} changed it, and finite before"
        hint = f"lower the strength of {_named([editor])}, or look at its other options"
    return f"the {what} at step {step} of stage `{ctx.stage_name}`\n  {hint}{KEPT}"


def _changed_since(before: Sequence[float] | None, step: int, editors: Sequence[str], options: Training) -> str:
    """What to change where a step began with weights that the step before, itself still finite, has driven off."""
    shrunk = options.learning_rate * options.weight_decay
    if step == 1:
        return (
            "nothing was trained before it: look at the options of model and adaptation, at the starting weights and "
            "the rows; or write training.precision = 'fp32'"
        )
    if shrunk > 1:
        return (
            f"lower training.weight_decay: times the learning rate it is {shrunk:g}, and above 1 each step takes "
            "more from a weight than it has"
        )
    if before is not None and editors and before[-1] > 10 * before[2]:
        return (
            f"lower the strength of {_named(editors)}, which made the gradient's norm {before[-1]:.3g} out of "
            f"{before[2]:.3g} in the step before; or lower training.learning_rate"
        )
    return RATE


def _norm(weights: Iterable[Tensor]) -> float:
    norm = torch.nn.utils.get_total_norm([weight.detach() for weight in weights])
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _named(names: Sequence[str]) -> str:
    return " and ".join(f"mitigation `{name}`" for name in names)
