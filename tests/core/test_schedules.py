"""Schedules: each by the formula of transformers, whatever the warm-up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import get_scheduler

from ftk.recipe.training import Training
from ftk.running.optimizing import build_schedule

PEAK, STEPS = 0.5, 40


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)


def course(scheduler: torch.optim.lr_scheduler.LRScheduler) -> list[float]:
    """The rate of each step, and the one after the last."""
    rates = []
    for _ in range(STEPS + 1):
        rates.append(float(scheduler.get_last_lr()[0]))
        scheduler.optimizer.step()
        scheduler.step()
    return rates


THEIRS: list[tuple[Any, str, dict[str, Any]]] = [
    ("linear", "linear", {}),
    ("cosine", "cosine", {}),
    ({"use": "cosine", "floor": 0.2}, "cosine_with_min_lr", {"min_lr_rate": 0.2}),
    ("constant", "constant_with_warmup", {}),
    ("wsd", "warmup_stable_decay", {"num_decay_steps": 8, "decay_type": "1-sqrt"}),
    (
        {"use": "wsd", "decay": 0.5, "shape": "cosine", "floor": 0.1},
        "warmup_stable_decay",
        {"num_decay_steps": 20, "decay_type": "cosine", "min_lr_ratio": 0.1},
    ),
    (
        {"use": "wsd", "decay": 0.25, "shape": "linear"},
        "warmup_stable_decay",
        {"num_decay_steps": 10, "decay_type": "linear"},
    ),
    ("inverse_sqrt", "inverse_sqrt", {}),
    ({"use": "inverse_sqrt", "timescale": 7}, "inverse_sqrt", {"timescale": 7}),
    ("polynomial", "linear", {}),
    ({"use": "polynomial", "power": 2, "floor": 0.1}, "polynomial", {"power": 2, "lr_end": 0.1 * PEAK}),
]


@pytest.mark.parametrize(("schedule", "theirs", "options"), THEIRS, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("warmup", [0, 6])
def test_a_schedule_is_that_of_transformers(schedule: Any, theirs: str, options: dict[str, Any], warmup: int) -> None:
    training = Training(schedule=schedule, warmup_steps=warmup, learning_rate=PEAK)
    known = get_scheduler(theirs, optimizer(), warmup, STEPS, scheduler_specific_kwargs=options)
    ours = course(build_schedule(training, optimizer(), STEPS))
    assert ours[:warmup] == pytest.approx([PEAK * step / warmup for step in range(warmup)])
    assert ours[warmup:] == pytest.approx(course(known)[warmup:], abs=1e-12)


def test_linear_and_cosine_are_theirs_to_the_last_bit() -> None:
    for name in ("linear", "cosine"):
        training = Training(schedule=name, warmup=0.1)
        assert course(build_schedule(training, optimizer(), STEPS)) == course(
            get_scheduler(name, optimizer(), 4, STEPS)
        )


def test_every_group_has_a_peak_of_its_own() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 1.0)]
    two = torch.optim.SGD(groups)
    schedule = build_schedule(Training(schedule={"use": "polynomial", "floor": 0.5}, warmup=0), two, STEPS)  # type: ignore[arg-type]
    for _ in range(STEPS):
        two.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.05, 0.5])


def test_a_warm_up_is_a_share_or_steps() -> None:
    assert Training().warmup_of(100) == 3
    assert Training(warmup=0.25).warmup_of(100) == 25
    assert Training(warmup_steps=7).warmup_of(100) == 7
    assert Training(warmup_steps=0).rate_share(0, 100) == 1


def test_a_short_warm_up_and_a_long_decay_meet() -> None:
    """A decay that would begin in the warm-up begins at its end."""
    training = Training(schedule={"use": "wsd", "decay": 0.8, "shape": "linear"}, warmup_steps=20)  # type: ignore[arg-type]
    shares = [training.rate_share(step, STEPS) for step in range(STEPS + 1)]
    assert shares[20] == 1
    assert shares[21:] == pytest.approx([1 - step / 20 for step in range(1, 21)])
