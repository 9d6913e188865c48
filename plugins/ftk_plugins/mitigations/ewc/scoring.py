"""The two ways to the sums of rows' gradients: batches told apart by hooks, and one row after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftk import RunFailed, UserError
from ftk.parts import Batch, Context, Features, Task, own_rows

from .collector import Collector, NotPerSample
from .sums import Sums, checked

if TYPE_CHECKING:
    from .fisher import Estimate

MOST_TARGETS = 100
"""Targets of a row up to which each of them is tried: an estimate takes that many passes over its rows."""


@dataclass
class Scoring:
    """Runs the model over the rows that fall to this process."""

    task: Task
    ctx: Context
    weights: Mapping[str, Tensor]
    how: Estimate
    rows: int
    sharded: bool

    def __post_init__(self) -> None:
        self.generator = self.ctx.generator("fisher targets", self.task.name, self.ctx.rank)

    def batched(self, rows: Sequence[Features], sums: dict[str, Sums]) -> dict[str, Sums]:
        """Batches of rows, gradients told apart by hooks; the first rows are checked against autograd.

        Raises:
            NotPerSample: they cannot be told apart.
        """
        batch_size = self.how.batch_size or self.ctx.micro_batch_size
        self._check(checked(sums, self.weights), [rows[0], rows[-1]][:batch_size])
        collector = Collector(self.ctx.model, self.weights, sums)
        for share, counts in self._shares(rows, batch_size):
            # Drawing targets is a pass of its own, which the hooks must not hear.
            for batch, factors in self._with_targets(share):
                with collector:
                    collector.add(lambda: self._total(batch) * counts, len(share), factors)  # noqa: B023 - called before it returns
        return sums

    def one_by_one(self, rows: Sequence[Features], sums: dict[str, Sums]) -> dict[str, Sums]:
        """One backward pass for each row; knows nothing of the model. A sharded one's processes all take each row."""
        if self.sharded:  # the same row in every process, and the same draws
            self.generator = self.ctx.generator("fisher targets", self.task.name)
        shares = (([row], True) for row in rows) if self.sharded else self._shares(rows, 1)
        for share, _ in shares:
            if self.sharded:
                self.ctx.check_interrupt()
            for batch, factors in self._with_targets(share):
                self.add_by_autograd(sums, batch, 1.0 if factors is None else float(factors[0]) ** 2)
        return sums

    def _check(self, sums: Mapping[str, Sums], pair: Sequence[Features]) -> None:
        """Raise unless hooks and autograd agree on two rows; finds weights used outside their layers.

        Each process takes these two; the sums of a sharded model then hold them once for each.
        """
        batch = self.task.objective.collate(pair).to(self.ctx.device)
        if any(tensor.shape[0] != len(pair) for tensor in batch.inputs.values()):
            raise NotPerSample("the objective's batches do not have one entry for each row")
        collector = Collector(self.ctx.model, self.weights, sums)
        with collector:
            collector.add(lambda: self._total(batch), len(pair))
        found = self._sizes(sums)
        if not math.isfinite(sum(found.values())):
            raise not_finite(self.task, self.how.method)
        for item in pair:
            single = self.task.objective.collate([item]).to(self.ctx.device)
            self.add_by_autograd(sums, single, -self.ctx.world_size if self.sharded else -1)
        noise = 1e-6 * sum(found.values())
        share = 1e-3 if self.ctx.precision == "fp32" else 2e-2
        for name, difference in self._sizes(sums).items():
            if not difference <= share * found[name] + noise:
                raise NotPerSample(f"{name} is used in a way that its layer does not show")
            for total in sums[name].tensors():
                own_rows(total)[0].zero_()

    def add_by_autograd(self, sums: Mapping[str, Sums], batch: Batch, sign: float = 1.0) -> None:
        """Take in one row, or take it out; each gradient is dropped as soon as it is squared."""
        kept = {name: (weight, weight.grad) for name, weight in self.weights.items()}

        def square(name: str, weight: Tensor) -> None:
            assert weight.grad is not None
            sums[name].add_gradient(weight.grad, sign)
            weight.grad = None

        with ExitStack() as stack:
            for name, (weight, gradient) in kept.items():
                stack.callback(setattr, weight, "grad", gradient)
                stack.callback(weight.requires_grad_, False)
                weight.grad = None
                weight.requires_grad_()
                if not self.sharded:
                    hear = partial(square, name)
                    hook = weight.register_post_accumulate_grad_hook(hear)  # type: ignore[no-untyped-call]
                    stack.callback(hook.remove)
            with torch.enable_grad():
                self._total(batch).backward()  # type: ignore[no-untyped-call]
            for name, weight in self.weights.items() if self.sharded else ():
                if weight.grad is not None:
                    square(name, weight)

    def _shares(self, rows: Sequence[Features], batch_size: int) -> Iterator[tuple[Sequence[Features], bool]]:
        """This process's rows in batches, all of which count; every process makes the same number of stops.

        A sharded model answers only where all processes call it: one that has no more rows gets the first again, and
        that does not count.
        """
        mine = rows[self.ctx.rank :: self.ctx.world_size]
        most = -(-len(rows) // self.ctx.world_size)
        for start in range(0, most, batch_size):
            self.ctx.check_interrupt()
            if share := mine[start : start + batch_size]:
                yield share, True
            elif self.sharded:
                yield rows[:1], False
            done = min(self.rows, min(most, start + batch_size) * self.ctx.world_size)
            text = f"{self.how.what} of {self.task.name}"
            self.ctx.events("phase", text=text, done=done, total=self.rows)

    def _with_targets(self, items: Sequence[Features]) -> Iterator[tuple[Batch, Tensor | None]]:
        """The batches to run for these rows, and what to multiply the rows' gradients by before they are squared."""
        batch = self.task.objective.collate(items).to(self.ctx.device)
        if self.how.labels == "empirical":
            yield batch, None
        elif self.how.labels == "sample":
            with torch.no_grad(), self.ctx.autocast():
                drawn = self.task.objective.draw_targets(self.ctx.model, batch, self.generator)
            yield drawn, None
        else:
            with torch.no_grad(), self.ctx.autocast():
                targets = self.task.objective.all_targets(self.ctx.model, batch)
            if len(targets) > MOST_TARGETS:
                raise UserError(
                    f"mitigation {self.how.method}: a row of `{self.task.name}` can have {len(targets)} targets, and"
                    f" `exact` takes a pass for each of them, of {MOST_TARGETS} at most",
                    'set labels = "sample", which draws one of them',
                )
            yield from ((each, probability.sqrt()) for probability, each in targets)

    def _total(self, batch: Batch) -> Tensor:
        with self.ctx.autocast():
            if self.how.loss is not None:
                return self.how.loss(batch, self.ctx)
            return self.task.objective.loss(self.ctx.model, batch, self.ctx).total

    def _sizes(self, sums: Mapping[str, Sums]) -> dict[str, float]:
        """The sum of sizes of what each weight has, in float64, over all processes where the model is sharded."""
        found, cut = {}, any(isinstance(total, DTensor) for each in sums.values() for total in each.tensors())
        for name, each in sums.items():
            parts = [total if isinstance(total, DTensor) else self._met(total) for total in each.tensors()]
            sizes = torch.stack([own_rows(part)[0].abs().sum(dtype=torch.float64) for part in parts])
            if cut and not isinstance(parts[0], DTensor):
                sizes /= self.ctx.world_size
            found[name] = sizes.sum().to(self.ctx.device)
        stacked = torch.stack(list(found.values()))
        if cut:
            torch.distributed.all_reduce(stacked)
        return dict(zip(found, stacked.tolist(), strict=True))

    def _met(self, total: Tensor) -> Tensor:
        """The sum over the processes, where these hold rows of one gradient."""
        if self.sharded:
            torch.distributed.all_reduce(total := total.clone())
        return total


def not_finite(task: Task, method: str) -> RunFailed:
    """The gradients overflowed, or the model is broken."""
    return RunFailed(f"mitigation {method}: the gradients of `{task.name}` are not finite")
