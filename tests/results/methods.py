"""The methods that are measured against each other, as a recipe writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LORA, FULL = '{ use = "lora", rank = 16 }', '{ use = "full" }'


@dataclass(frozen=True)
class Method:
    """One line of the table.

    Attributes:
        name: of the line, and of its runs' folder.
        mitigations: what stands in ``mitigation``, as TOML tables.
        full: whether all weights are trained; else LoRA.
        grid: what is tried beforehand, as ``key=value`` changes of which the first point is the default; the
            mitigation is addressed by its name.
        from_the_start: whether the mitigation acts in the first stage too.
        joint: all tasks at once, the upper bound.
    """

    name: str
    mitigations: Sequence[str] = ()
    full: bool = False
    grid: Sequence[str] = ()
    from_the_start: bool = False
    joint: bool = False

    @property
    def settings(self) -> Mapping[str, str]:
        """The adaptation and the mitigations, by key."""
        return {
            "adaptation": FULL if self.full else LORA,
            "mitigation": f"[{', '.join(f'{{ {table} }}' for table in self.mitigations)}]",
        }


def strengths(name: str, *values: float, key: str = "strength") -> tuple[str, ...]:
    """A grid over one number of a mitigation."""
    return tuple(f"mitigation.{name}.{key}={value:g}" for value in values)


EWC, BUDGET, REPLAY = 'use = "ewc"', 'use = "budget"', 'use = "replay", share = 0.05'
KFAC = f'{EWC}, fisher = "kfac"'
METHODS = (
    Method("none, full", full=True),
    Method("none, LoRA"),
    Method("l2sp", ['use = "l2sp"'], grid=strengths("l2sp", 0.1, 0.01, 1)),
    Method("ewc, diagonal", [EWC], grid=strengths("ewc", 0.1, 0.01, 1, 10, 0.001)),
    Method("ewc, factored", [f'{EWC}, fisher = "factored"'], grid=strengths("ewc", 0.1, 0.01, 1, 10, 0.001)),
    Method("ewc, kfac", [KFAC], grid=strengths("ewc", 0.1, 0.01, 1, 10, 0.001)),
    Method(
        "ewc, allowed_loss", [f"{EWC}, allowed_loss = 0.05"],
        grid=strengths("ewc", 0.05, 0.2, 0.8, key="allowed_loss"),
    ),
    Method(
        "synaptic_intelligence", ['use = "synaptic_intelligence"'], from_the_start=True,
        grid=strengths("synaptic_intelligence", 0.1, 0.01, 1),
    ),
    Method("mas", ['use = "mas"'], grid=strengths("mas", 0.1, 0.01, 1)),
    Method("distill", ['use = "distill"'], grid=strengths("distill", 1, 4, 0.25, key="weight")),
    Method("replay 1%", ['use = "replay", share = 0.01']),
    Method("replay 5%", [REPLAY]),
    Method("replay 25%", ['use = "replay", share = 0.25']),
    Method("der", ['use = "der"'], grid=strengths("der", 0.5, 2, 0.1, key="weight")),
    Method("agem", ['use = "agem"']),
    Method("gpm", ['use = "gpm"'], grid=strengths("gpm", 0.97, 0.99, 0.9, key="threshold")),
    Method("olora", ['use = "olora"'], grid=strengths("olora", 0.5, 5, 0.05, key="orthogonality")),
    Method(
        "momentum_filter", ['use = "momentum_filter"'], full=True,
        grid=strengths("momentum_filter", 0.15, 0.05, 0.5, key="share"),
    ),
    Method(
        "freeze_important", ['use = "freeze_important"'], full=True,
        grid=strengths("freeze_important", 0.5, 0.9, 0.99, key="share"),
    ),
    Method("interpolation, linear", ['use = "interpolation", alpha = "validation"']),
    Method("interpolation, lines", ['use = "interpolation", method = "lines"']),
    Method("interpolation, ema", ['use = "interpolation", trained_weights = "ema", alpha = 1.0'], full=True),
    Method("budget of ewc", [EWC, BUDGET]),
    Method("budget of ewc kfac, replay 5%", [REPLAY, KFAC, BUDGET]),
    Method("replay 5% + ewc kfac", [REPLAY, KFAC], grid=strengths("ewc", 0.1, 0.01, 1, 10, 0.001)),
    Method("joint", joint=True),
)  # fmt: skip
"""All of them, in the order of the table."""

DECADES = (0.1, 0.01, 1, 10, 100)
CLASSICAL = (
    Method("none", full=True),
    Method("ewc", [f'{EWC}, anchors = "separate"'], full=True, grid=strengths("ewc", *DECADES)),
    Method(
        "si", ['use = "synaptic_intelligence", damping = 0.1'], full=True,
        grid=strengths("synaptic_intelligence", *DECADES),
    ),
    Method("distill", ['use = "distill"'], full=True, grid=strengths("distill", 1, 0.25, 4, key="weight")),
    Method("replay", ['use = "replay", share = 0.5, buffer_size = 500'], full=True),
    Method("joint", full=True, joint=True),
)  # fmt: skip
"""Those of van de Ven and Tolias 2018 (https://arxiv.org/abs/1809.10635) that are measured on the streams of images."""
