"""Cross-entropy from hidden states, with a piece of the logits at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


@dataclass(frozen=True, slots=True)
class Curve:
    """What a model does to its logits after the output layer: ``cap · tanh(scale · x / cap)``, or ``scale · x``."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """The values curved, with their graph; the same tensor where there is nothing to do."""
        if self.scale != 1:
            values = values * self.scale
        return values if self.cap is None else torch.tanh(values / self.cap) * self.cap

    def slope_(self, gradient: Tensor, curved: Tensor | None) -> None:
        """Carry a gradient of the curved values back to the values, in place."""
        if self.cap is not None:
            assert curved is not None
            gradient.mul_((curved / self.cap).square_().neg_().add_(1))
        if self.scale != 1:
            gradient.mul_(self.scale)


@dataclass(frozen=True, slots=True)
class Beside:
    """A loss that takes a share of the cross-entropy's place.

    Attributes:
        share: of the whole, above 0 and at most 1.
        losses: its values at some of the targets, ``(piece,) float32`` with their graph, of the logits there
            ``(piece, vocab)`` and of which targets these are.
    """

    share: float
    losses: Callable[[Tensor, slice], Tensor]

    def mixed_into(self, own: Tensor, slope: Tensor | None, logits: Tensor, piece: slice) -> Tensor:
        """``own (piece,)`` with its share replaced; its gradient with respect to the logits is changed in place."""
        with torch.set_grad_enabled(slope is not None):
            losses = self.losses(logits.requires_grad_(slope is not None), piece)
            total = losses.sum()
        if slope is not None:
            slope.lerp_(torch.autograd.grad(total, logits)[0], self.share)
        return torch.lerp(own, losses.detach(), self.share)


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    chunks: int,
    curve: Curve = Curve(),
    smoothing: float = 0.0,
    beside: Beside | None = None,
    each: Tensor | None = None,
) -> Tensor:
    """The summed cross-entropy of ``curve(hidden @ weight.T + bias)``, whose logits are never there all at once.

    Each chunk's gradients are computed while its logits are there, so that the backward pass has only to scale
    them; it can be taken once. Products are in the type of ``autocast`` where that is on, everything after them,
    and the sum of the weight's gradient, in float32. The way is that of Liger Kernel (Hsu et al. 2024,
    https://arxiv.org/abs/2410.10989, section 3.2).

    Args:
        hidden: ``(targets, width)`` floating point.
        weight: ``(vocab, width)`` floating point.
        bias: ``(vocab,)`` floating point, or None.
        labels: ``(targets,) int64``.
        chunks: into how many pieces of about the same size the targets are cut.
        curve: what the logits go through.
        smoothing: the share of each target that is spread over the vocabulary (Szegedy et al. 2016, section 7).
        beside: what takes a share of its place.
        each: ``(targets,) float32``, filled with the loss of each target, without a graph; None: nobody asks.

    Returns:
        scalar float32, in nats.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        total: Tensor = _Chunked.apply(
            hidden, weight, bias, labels, chunks, curve, smoothing, beside, dtype, torch.is_grad_enabled(), each
        )  # type: ignore[no-untyped-call]
    return total


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, chunks: int, curve: Curve,
        smoothing: float, beside: Beside | None, dtype: torch.dtype, graph: bool, each: Tensor | None,
    ) -> Tensor:  # fmt: skip
        needed = [graph and need for need in ctx.needs_input_grad[:3]]
        like = (hidden, weight, bias)
        gradients = [
            None
            if tensor is None or not need
            else torch.zeros_like(tensor, dtype=tensor.dtype if tensor is hidden else torch.float32)
            for tensor, need in zip(like, needed, strict=True)
        ]
        losses = torch.empty(len(labels), dtype=torch.float32, device=hidden.device) if each is None else each
        matrix, shift = weight.to(dtype), None if bias is None else bias.to(dtype)
        size = max(1, -(-len(labels) // chunks))
        for start in range(0, len(labels), size):
            piece = slice(start, start + size)
            states = hidden[piece].to(dtype)
            scores = curve(linear(states, matrix, shift).float())
            curved = scores.clone() if beside or (any(needed) and curve.cap is not None) else None
            found, slope = _cross_entropy_(scores, labels[piece], smoothing, any(needed))
            if beside is not None:
                assert curved is not None
                found = beside.mixed_into(found, slope, curved, piece)
            losses[piece] = found
            if slope is not None:
                curve.slope_(slope, curved)
                _add_gradients(gradients, piece, slope.to(dtype), states, matrix)
        ctx.gradients = [
            None if found is None or tensor is None else found.to(tensor.dtype)
            for found, tensor in zip(gradients, like, strict=True)
        ]
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        if ctx.gradients is None:
            raise RuntimeError("the gradient of a loss in chunks can be taken once; set training.loss_chunks = 1")
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [None if gradient is None else gradient.mul_(upstream[0]) for gradient in gradients]
        return *scaled, None, None, None, None, None, None, None, None


def _cross_entropy_(scores: Tensor, labels: Tensor, smoothing: float, graph: bool) -> tuple[Tensor, Tensor | None]:
    """Each row's loss, and its gradient with respect to ``scores``, which are overwritten."""
    at = labels[:, None]
    targets = scores.gather(1, at).squeeze(1)
    means = scores.mean(1) if smoothing else targets
    largest = scores.amax(1, keepdim=True)
    sums = scores.sub_(largest).exp_().sum(1, keepdim=True)
    losses = (largest + sums.log()).squeeze(1) - torch.lerp(targets, means, smoothing)
    if not graph:
        return losses, None
    gradient = scores.div_(sums)
    if smoothing:
        gradient.sub_(smoothing / scores.shape[1])
    gradient.scatter_add_(1, at, torch.full_like(targets[:, None], smoothing - 1))
    return losses, gradient


def _add_gradients(gradients: list[Tensor | None], piece: slice, slope: Tensor, states: Tensor, matrix: Tensor) -> None:
    """Add what one chunk gives to the gradients of hidden states, weight and bias, those that are needed."""
    of_hidden, of_weight, of_bias = gradients
    if of_hidden is not None:
        of_hidden[piece] = slope @ matrix
    if of_weight is not None:
        if slope.dtype == of_weight.dtype:
            of_weight.addmm_(slope.T, states)
        else:
            of_weight.add_(slope.T @ states)
    if of_bias is not None:
        of_bias.add_(slope.sum(0, dtype=torch.float32))
