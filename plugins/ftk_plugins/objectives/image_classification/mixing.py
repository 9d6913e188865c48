"""Mixes of two images and their labels: mixup and CutMix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ftk.parts import Features


def mixed(
    item: Features, draw: Callable[[], Features], mixup: float, cutmix: float, rng: np.random.Generator
) -> Features:
    """An image mixed with another one, or as it is where both strengths are 0.

    Args:
        item: ``pixel_values (channels, height, width) float32`` and ``labels (1,) int32``.
        draw: gives another such row.
        mixup: of the mean of both images (Zhang et al. 2018, https://arxiv.org/abs/1710.09412, equation 1).
        cutmix: of a rectangle of the other put in (Yun et al. 2019, https://arxiv.org/abs/1905.04899, section 3).
        rng: draws the share; a coin between the two where both are on; and where a rectangle lies.

    Returns:
        ``pixel_values`` and ``labels`` as in ``item``; ``others``, the labels of the other row, and
        ``shares (1,) float32``, the share of ``item`` in the image.
    """
    if not mixup and not cutmix:
        return item
    other = draw()
    cut = bool(cutmix) and (not mixup or rng.random() < 0.5)
    share = rng.beta(cutmix, cutmix) if cut else rng.beta(mixup, mixup)
    own, its = item["pixel_values"], other["pixel_values"]
    if cut:
        pixels, share = _put_in(own, its, share, rng)
    else:
        pixels = np.float32(share) * own + np.float32(1 - share) * its
    return {**item, "pixel_values": pixels, "others": other["labels"], "shares": np.array([share], np.float32)}


def _put_in(own: np.ndarray, its: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """``own`` with a rectangle of about ``1 - share`` of its area from ``its``, and the share that is left of it.

    The rectangle has the image's proportions and lies around any of its points; what would be outside is cut off.
    """
    bounds = []
    for length in own.shape[1:]:
        half, middle = length * np.sqrt(1 - share) / 2, rng.integers(length)
        bounds.append(slice(max(0, round(middle - half)), min(length, round(middle + half))))
    pixels = own.copy()
    pixels[:, bounds[0], bounds[1]] = its[:, bounds[0], bounds[1]]
    area = (bounds[0].stop - bounds[0].start) * (bounds[1].stop - bounds[1].start)
    return pixels, 1 - area / (own.shape[1] * own.shape[2])
