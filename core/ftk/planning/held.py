"""What mitigations hold in a planned stage: what they remember, what steps make them keep, what they leave behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensor

from ftk.parts import Mitigation, State
from ftk.running.stage import Stage

Counting = Callable[[str], AbstractContextManager[Any]]
"""Within what it gives, new tensors are counted as the part it is told."""

VALUES = (DataDependentOutputException, DynamicOutputShapeException)
"""What is raised where what is computed depends on values, which a plan does not have."""


@dataclass(frozen=True)
class Left:
    """What one mitigation leaves to the next stage.

    Attributes:
        state: as its `state_dict`; in the place of tensors without values such on the device ``meta``.
        tasks: the names of those that it has seen.
    """

    state: State
    tasks: frozenset[str]


def hold_what_is_remembered(
    stage: Stage,
    left: Mapping[str, Left],
    make: Callable[[Tensor], Tensor],
    partly: set[str],
    counting: Counting = lambda part: nullcontext(),
) -> None:
    """Let the mitigations hold what they do in the middle of the stage, and objectives what they need.

    Args:
        stage: at its last step.
        left: what the stages before it left, by mitigation.
        make: a tensor like one of those that have no values.
        partly: is told the names of mitigations that read values, and so do not get to the end of what they do.
        counting: counts it.
    """
    ctx = stage.ctx
    for name, part in stage.mitigations.parts.items():
        before = left.get(name, Left({}, frozenset()))
        with as_far_as_known(name, partly):
            with counting(f"mitigation {name}"):
                if name in left:
                    part.load_state_dict({key: _again(value, make) for key, value in before.state.items()})
                for task in ctx.earlier:
                    if task.name not in before.tasks:
                        part.rehearse(task, ctx.through(task.objective))
            with counting(f"mitigation {name}"):  # again: a pass has counted what came of it as its own
                part.begin(ctx)
                with torch.no_grad():  # every step but the first finds what one before it has left
                    part.read_gradients(ctx.gradients(), ctx)
                    part.after_step(ctx)
    with counting("objective"):
        stage.mixer().begin(ctx)


def left_by(stage: Stage) -> dict[str, Left]:
    """What the mitigations leave to the next stage, of those whose state depends on no values."""
    found: dict[str, Left] = {}
    seen = frozenset(task.name for task in stage.ctx.earlier)
    for name, part in stage.mitigations.parts.items():
        with as_far_as_known(name, set()):
            part.rehearse_finish(stage.ctx)
            found[name] = Left({key: _emptied(value) for key, value in part.state_dict().items()}, seen)
    return found


def kept_bytes(parts: Mapping[str, Mitigation]) -> int:
    """Bytes of the tensors in their states."""
    total = 0
    for name, part in parts.items():
        with as_far_as_known(name, set()):
            total += size_of(part.state_dict().values())
    return total


def size_of(values: Any) -> int:
    """Bytes of the tensors among these."""
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


@contextmanager
def as_far_as_known(name: str, partly: set[str]) -> Iterator[None]:
    """Within it a mitigation ends where it would read a value, and its name is written down."""
    try:
        yield
    except VALUES:
        partly.add(name)


def _again(value: Any, make: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return make(value) if value.is_meta else value.clone()
    return value


def _emptied(value: Any) -> Any:
    if isinstance(value, FakeTensor):
        return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")
    return value
