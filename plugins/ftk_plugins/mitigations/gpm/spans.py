"""The directions that span most of what a layer was given."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-12
"""Directions with less than this part of the squared length of all inputs are rounding, not inputs."""


def grown(moment: Tensor, basis: Tensor | None, threshold: float) -> Tensor:
    """A basis with the fewest further directions that hold this share of a task's inputs (Saha et al. 2021, section 5).

    With the inputs ``R`` as columns the paper takes the singular value decomposition of ``R − M Mᵀ R``, and the fewest
    left singular vectors with which ``‖proj R‖² ≥ threshold · ‖R‖²``. Those vectors and the squares of the singular
    values are the eigenvectors and eigenvalues of the second moment, which is as large as the layer is wide, however
    many inputs there were.

    Args:
        moment: ``R Rᵀ``, ``(inputs, inputs) float64``.
        basis: ``M``, orthonormal, ``(inputs, directions) float32``; None: none yet.
        threshold: above 0, 1 at most.

    Returns:
        ``(inputs, directions) float32``, what was there first.
    """
    exact = moment.double() if moment.device.type != "mps" else moment.cpu().double()
    left, total = exact, exact.trace()
    if basis is not None:
        held = basis.to(exact)
        left = left - held @ (held.T @ left)
        left = left - (left @ held) @ held.T
    values, vectors = torch.linalg.eigh((left + left.T) / 2)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    short = threshold * total - (total - left.trace())
    enough = int((values.cumsum(0) < short * (1 - 1e-9)).sum()) + 1 if short > 0 else 0
    added = vectors[:, : min(enough, int((values > LEAST * total).sum()))]
    if basis is None:
        # Laid out as it comes back from a checkpoint: products of it would round otherwise.
        first: Tensor = added.to(moment.device, torch.float32).contiguous()
        return first
    added, _ = torch.linalg.qr(added - basis.to(exact) @ (basis.to(exact).T @ added))
    together: Tensor = torch.cat([basis, added.to(basis)], 1)
    return together
