"""What stopped being finite first is told with its cause."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ftk.errors import RunFailed
from ftk.parts import Mitigation
from ftk.running.loop import Progress
from tests.core.loops import make_loop

RATE, STRENGTH = "lower training.learning_rate", "lower the strength of mitigation"


def test_a_loss_that_is_not_finite_stops_the_run():
    loop = make_loop(steps=3)
    with torch.no_grad():
        next(loop.ctx.model.parameters()).fill_(float("nan"))
    with pytest.raises(RunFailed, match=r"loss is nan at step 1 of stage `toy`\n  nothing was trained before it"):
        loop.train(Progress())


def test_weights_that_are_not_finite_are_not_saved():
    class Drives(Mitigation):
        def after_step(self, ctx: Any) -> None:
            if ctx.step == 2:
                next(p for p in ctx.model.parameters() if p.requires_grad).fill_(float("inf"))

    saved = []
    loop = make_loop(steps=3, parts={"drives": Drives()}, save=lambda progress: saved.append(progress.step))
    with pytest.raises(RunFailed, match=r"the weights that step 3 of stage `toy` left are not finite\n  lower"):
        loop.train(Progress())
    assert saved == []


class Breaks(Mitigation):
    """Makes something infinite in one step."""

    def __init__(self, step: int = 2) -> None:
        self.step = step


class BreaksGradients(Breaks):
    def edit_gradients(self, gradients: Any, ctx: Any) -> None:
        if ctx.step == self.step:
            next(iter(gradients.values())).fill_(float("inf"))


class BreaksLoss(Breaks):
    def penalty(self, batch: Any, loss: Any, ctx: Any) -> Any:
        return loss.total * (float("inf") if ctx.step == self.step else 0.0)


class Idle(Mitigation):
    def edit_gradients(self, gradients: Any, ctx: Any) -> None:
        pass


class Strong(Mitigation):
    """Too strong by far: after it a gradient's norm is a thousand times what it was, and then the weights leave."""

    def edit_gradients(self, gradients: Any, ctx: Any) -> None:
        for name, gradient in gradients.items():
            gradient.mul_(1000)
            if ctx.step == 1:
                gradients.parameters()[name].fill_(float("nan"))


@pytest.mark.parametrize("log_every", [1, 5])
@pytest.mark.parametrize(
    ("parts", "training", "said"),
    [
        (
            {"idle": Idle(), "mine": BreaksGradients()},
            {},
            ("the gradient's norm is inf after mitigation `mine` changed it, and finite before at step 3", STRENGTH),
        ),
        (
            {"mine": BreaksGradients(), "idle": Idle()},
            {},
            ("the gradient's norm is inf after mitigation `mine` changed it, and finite before at step 3", STRENGTH),
        ),
        (
            {"idle": Idle(), "mine": BreaksLoss()},
            {},
            ("the loss is inf with the penalty of mitigation `mine`, and finite without at step 3", STRENGTH),
        ),
        ({"mine": Strong()}, {}, ("the loss is nan at step 3", f"{STRENGTH} `mine`, which made the gradient's norm")),
        ({}, {"weight_decay": 1e9, "learning_rate": 1e-2}, ("lower training.weight_decay", "it is 1e+07")),
        ({}, {"learning_rate": 1e30, "weight_decay": 0.0}, ("is nan at step 2", RATE)),
    ],
    ids=["gradients", "gradients first", "penalty", "strength", "weight decay", "learning rate"],
)
def test_what_broke_first_is_told_and_nothing_is_saved_after_it(parts, training, said, log_every):
    saved: list[int] = []
    loop = make_loop(
        parts=parts, save=lambda progress: saved.append(progress.step),
        **{"steps": 10, "warmup": 0.0, "log_every": log_every, **training},
    )  # fmt: skip
    with pytest.raises(RunFailed) as stopped:
        loop.train(Progress())
    assert all(text in str(stopped.value) for text in said), str(stopped.value)
    assert not saved
