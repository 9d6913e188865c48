"""Memory aware synapses: a pull against the drift, stiff where the outputs on earlier rows are sensitive."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ftk import UserError
from ftk.parts import Batch, Context, Task
from ftk_plugins.mitigations.ewc.fisher import Estimate
from ftk_plugins.mitigations.mas.options import MasOptions
from ftk_plugins.mitigations.measured import MeasuredPull


class Mas(MeasuredPull):
    """Adds the gradient of ``½ · strength · Σ Ω · drift²`` to each step (Aljundi et al. 2018, eq. 4).

    ``Ω`` is the mean over rows of ``|∂‖f(x)‖²/∂W|`` (eq. 3, with the squared norm of section 4.1), where ``f(x)`` are
    all logits that the model gives for a row's targets. What the targets are does not enter.
    """

    def __init__(self, options: MasOptions) -> None:
        super().__init__(
            "mas",
            strength=options.strength,
            every=options.every,
            gamma=options.gamma,
            normalise=options.normalise,
        )
        self.options = options

    def estimate(self, task: Task) -> Estimate:
        loss = partial(squared_outputs, task, self.name)
        options, what = self.options, "sensitivity of the outputs"
        return Estimate(options.samples, options.batch_size, of="absolute", loss=loss, method="mas", what=what)


def squared_outputs(task: Task, method: str, batch: Batch, ctx: Context) -> Tensor:
    """``Σ ‖f(x)‖²`` over a batch's rows of ``task``: a scalar, with its graph; of the classes that have come.

    Raises:
        UserError: the objective tells no logits.
    """
    outputs = task.objective.loss(ctx.model, batch, ctx).outputs
    if "logits" not in outputs:
        raise UserError(
            f"mitigation {method}: the objective of `{task.name}` gives no logits, whose sensitivity could be measured",
            "guard that task with another mitigation, such as ewc or replay",
        )
    logits, known = outputs["logits"].float(), task.objective.known(ctx.earlier)
    return (logits if known is None else logits[..., list(known)]).square().sum()
