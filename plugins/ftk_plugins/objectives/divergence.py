"""How far the predictions of one model are from those of another: what distillation minimises."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0, kind: Divergence = "forward_kl") -> Tensor:
    """``T² · D`` between the two softmaxes at a temperature ``T``, in float32, with the graph of both.

    With ``p`` the teacher's probabilities and ``q`` the student's, ``D`` is ``Σ p log(p/q)`` (forward),
    ``Σ q log(q/p)`` (reverse), or the mean of the forward divergences of both from ``(p + q)/2`` (Jensen-Shannon), in
    nats. The factor ``T²`` keeps gradients of one size whatever the temperature (Hinton, Vinyals and Dean 2015,
    https://arxiv.org/abs/1503.02531, section 2).

    Args:
        student: logits ``(targets, classes)`` of any floating-point type.
        teacher: logits ``(targets, classes)`` of the same classes.
        temperature: divides both before the softmax.
        kind: which divergence.

    Returns:
        ``(targets,) float32``.
    """
    q = torch.log_softmax(student / temperature, dim=-1, dtype=torch.float32)
    p = torch.log_softmax(teacher / temperature, dim=-1, dtype=torch.float32)
    return between(q, p, kind) * temperature**2


def between(q: Tensor, p: Tensor, kind: Divergence) -> Tensor:
    """``D`` of :func:`divergence` between two distributions given by their log-probabilities ``(targets, classes)``."""
    if kind == "forward_kl":
        return _kl(p, q)
    if kind == "reverse_kl":
        return _kl(q, p)
    middle = torch.logaddexp(p, q) - math.log(2)
    return (_kl(p, middle) + _kl(q, middle)) / 2


def as_pairs(logits: Tensor) -> Tensor:
    """Logits of yes or no ``(…,)`` as those of two classes ``(…, 2)``, whose softmax is their sigmoid."""
    return torch.stack([logits, torch.zeros_like(logits)], dim=-1)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """``Σ p log(p/q)`` over the last dimension, of log-probabilities."""
    return (p.exp() * (p - q)).sum(dim=-1)
