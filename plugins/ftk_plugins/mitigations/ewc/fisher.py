"""The diagonal of the Fisher information: the mean square of each row's own log-likelihood gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ftk import RunFailed, UserError
from ftk.parts import Batch, ComparingObjective, Context, Features, Task, attention_by, evaluated, lengths_of, own_rows

from .collector import Collector, NotPerSample


@dataclass(frozen=True)
class Fisher:
    """An estimate.

    Attributes:
        diagonal: float32, shaped as each weight, by the weight's name.
        trace: the sum of all of it: the mean over rows of the gradient's squared norm, in nats².
        samples: the rows it was estimated on.
    """

    diagonal: dict[str, Tensor]
    trace: float
    samples: int


def estimate_fisher(
    task: Task, ctx: Context, weights: Mapping[str, Tensor], *, samples: int, draw: bool, batch_size: int
) -> Fisher:
    """Estimate the Fisher information of ``weights`` on the training rows of ``task``.

    The model runs in ``eval`` mode and float32. Rows are drawn without replacement; each process takes its
    share. A sharded model runs in the precision of the training instead: its weights are put together in that type,
    and no process could hold all of them in another. What it gives is sharded as the weights are.

    Args:
        task: whose training rows and objective.
        ctx: the moment; its model owns the weights.
        weights: by name; found in the model by identity.
        samples: how many rows; all of them where there are fewer.
        draw: whether targets are drawn from the model (true Fisher) or are the rows' own (empirical Fisher).
        batch_size: rows per pass.

    Raises:
        UserError: the task has no rows.
        RunFailed: a gradient is not finite.
    """
    _refuse_compared(task)
    if len(task.train) == 0:
        raise UserError(
            f"mitigation ewc: {task.train.origin} has no rows, nothing tells what `{task.name}` depends on",
            "give the task training rows, or drop the mitigation",
        )
    rows = _draw_rows(task, samples, ctx.generator("fisher", task.name))
    sharded = any(isinstance(weight, DTensor) for weight in weights.values())
    # The hooks must hear every call of a layer, the output layer's too, with all of its outputs.
    ctx = replace(ctx, precision=ctx.precision if sharded else "fp32", loss_chunks=1)
    scoring = _Scoring(task, ctx, weights, draw, len(rows), sharded)
    with _exact_arithmetic(ctx.model, ctx.device):
        try:
            diagonal = scoring.batched(rows, batch_size)
        except NotPerSample as reason:
            ctx.events(
                "warning",
                text=f"ewc: the gradients of a batch cannot be told apart by row ({reason}); the Fisher "
                "information is estimated row by row, which gives the same and takes longer",
            )
            diagonal = scoring.one_by_one(rows)
    if ctx.world_size > 1 and not sharded:
        for total in diagonal.values():
            torch.distributed.all_reduce(total)
    for total in diagonal.values():
        own_rows(total)[0].div_(len(rows))
    trace = sum(_sums(diagonal).values())
    if not math.isfinite(trace):
        raise _not_finite(task)
    return Fisher(diagonal, trace, len(rows))


def rehearse_fisher(
    task: Task, ctx: Context, weights: Mapping[str, Tensor], *, samples: int, batch_size: int
) -> dict[str, Tensor]:
    """What an estimate keeps, by weight, of any values; its largest batch goes through the model once.

    A batch is squared as one row would be: the gradient of one weight at a time beside what its layers keep.
    """
    _refuse_compared(task)
    rows = _draw_rows(task, samples, ctx.generator("fisher", task.name))[:batch_size]
    scoring = _Scoring(task, replace(ctx, precision="fp32"), weights, False, len(rows), sharded=False)
    with _exact_arithmetic(ctx.model, ctx.device):
        squares = scoring.zeros()
        scoring.add_by_autograd(squares, task.objective.collate(rows).to(ctx.device))
    return squares


@dataclass
class _Scoring:
    """The two ways to the sums of squares, over the rows that fall to this process."""

    task: Task
    ctx: Context
    weights: Mapping[str, Tensor]
    draw: bool
    rows: int
    sharded: bool

    def __post_init__(self) -> None:
        self.generator = self.ctx.generator("fisher targets", self.task.name, self.ctx.rank)

    def batched(self, rows: Sequence[Features], batch_size: int) -> dict[str, Tensor]:
        """Batches of rows, gradients told apart by hooks; the first rows are checked against autograd."""
        squares = self.zeros()
        collector = Collector(self.ctx.model, self.weights, squares)
        self._check(collector, [rows[0], rows[-1]][:batch_size])
        for share, counts in self._shares(rows, batch_size):
            batch = self._batch(share)  # drawing targets is a pass of its own, which the hooks must not hear
            with collector:
                collector.add(lambda: self._total(batch) * counts, len(share))  # noqa: B023 - called before it returns
        return squares

    def one_by_one(self, rows: Sequence[Features]) -> dict[str, Tensor]:
        """One backward pass for each row; knows nothing of the model. A sharded one's processes all take each row."""
        squares = self.zeros()
        if self.sharded:  # the same row in every process, and the same draws
            self.generator = self.ctx.generator("fisher targets", self.task.name)
        shares = (([row], True) for row in rows) if self.sharded else self._shares(rows, 1)
        for share, _ in shares:
            if self.sharded:
                self.ctx.check_interrupt()
            self.add_by_autograd(squares, self._batch(share))
        return squares

    def _check(self, collector: Collector, pair: Sequence[Features]) -> None:
        """Raise unless hooks and autograd agree on two rows; finds weights used outside their layers.

        Each process takes these two; the sums of a sharded model then hold them once for each.
        """
        batch = self.task.objective.collate(pair).to(self.ctx.device)
        if any(tensor.shape[0] != len(pair) for tensor in batch.inputs.values()):
            raise NotPerSample("the objective's batches do not have one entry for each row")
        with collector:
            collector.add(lambda: self._total(batch), len(pair))
        sums = _sums(collector.squares)
        if not math.isfinite(sum(sums.values())):
            raise _not_finite(self.task)
        for item in pair:
            single = self.task.objective.collate([item]).to(self.ctx.device)
            self.add_by_autograd(collector.squares, single, sign=-self.ctx.world_size if self.sharded else -1)
        noise = 1e-6 * sum(sums.values())
        share = 1e-3 if self.ctx.precision == "fp32" else 2e-2
        for name, difference in _sums(collector.squares, torch.abs).items():
            if not difference <= share * sums[name] + noise:
                raise NotPerSample(f"{name} is used in a way that its layer does not show")
            own_rows(collector.squares[name])[0].zero_()

    def add_by_autograd(self, squares: Mapping[str, Tensor], batch: Batch, sign: int = 1) -> None:
        """Add or take away the squares of one row; each gradient is dropped as soon as it is squared."""
        kept = {name: (weight, weight.grad) for name, weight in self.weights.items()}

        def square(name: str, weight: Tensor) -> None:
            assert weight.grad is not None
            gradient = own_rows(weight.grad)[0]
            own_rows(squares[name])[0].addcmul_(gradient, gradient, value=sign)
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
            text = f"Fisher information of {self.task.name}"
            self.ctx.events("phase", text=text, done=done, total=self.rows)

    def _batch(self, items: Sequence[Features]) -> Batch:
        batch = self.task.objective.collate(items).to(self.ctx.device)
        if self.draw:
            with torch.no_grad(), self.ctx.autocast():
                batch = self.task.objective.draw_targets(self.ctx.model, batch, self.generator)
        return batch

    def _total(self, batch: Batch) -> Tensor:
        with self.ctx.autocast():
            return self.task.objective.loss(self.ctx.model, batch, self.ctx).total

    def zeros(self) -> dict[str, Tensor]:
        weights = {name: weight.detach() for name, weight in self.weights.items()}
        return {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}


def _sums(tensors: Mapping[str, Tensor], of: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> dict[str, float]:
    """The sum over each tensor, in float64, over the rows of all processes where it is sharded."""
    own = [own_rows(tensor)[0] for tensor in tensors.values()]
    sums = torch.stack([of(rows).sum(dtype=torch.float64).to(own[0].device) for rows in own])
    if any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        torch.distributed.all_reduce(sums)
    return dict(zip(tensors, sums.tolist(), strict=True))


def _draw_rows(task: Task, samples: int, generator: torch.Generator) -> list[Features]:
    """Rows as training cuts them, but not joined; longest first, so that a batch has little padding."""
    chosen = torch.randperm(len(task.train), generator=generator)[:samples].tolist()
    rows = task.train.subset(chosen).pieces  # a long text is several rows
    kept = torch.randperm(len(rows), generator=generator)[:samples].tolist()
    drawn = [rows[index] for index in kept]
    return [drawn[place] for place in np.argsort(-lengths_of(drawn), kind="stable")]


@contextmanager
def _exact_arithmetic(model: nn.Module, device: torch.device) -> Iterator[None]:
    """``eval`` mode, float32 unless sharded, no parameter asking for a gradient; everything as it was afterwards.

    Flash attention has no float32, and gives way to torch's own.
    """
    attention = {str(getattr(m.config, "_attn_implementation", "")) for m in model.modules() if hasattr(m, "config")}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tensors = [*model.parameters(), *model.buffers()]
    narrow = (torch.bfloat16, torch.float16)
    halves = [(t, t.data) for t in tensors if t.dtype in narrow and not isinstance(t, DTensor)]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        for tensor, data in halves:
            tensor.data = data.float()
        exact = attention_by(model, "sdpa") if any("flash" in each for each in attention) else nullcontext()
        with evaluated(model), exact, torch.autocast(device.type, enabled=False):
            yield
    finally:
        for tensor, data in halves:
            tensor.data = data
        for parameter in trainable:
            parameter.requires_grad_(True)


def _refuse_compared(task: Task) -> None:
    if isinstance(task.objective, ComparingObjective):
        raise UserError(
            f"mitigation ewc: the objective of `{task.name}` compares rows with each other, and the Fisher information"
            " is made of the gradients of single rows",
            "guard that task with another mitigation, such as replay or interpolation",
        )


def _not_finite(task: Task) -> RunFailed:
    return RunFailed(f"mitigation ewc: the gradients of `{task.name}` are not finite")
