"""Discriminative fine-tuning: the nearer to the input a weight stands, the more slowly it learns."""

from __future__ import annotations

from typing import Any

from torch import nn

from ftk.parts import weight_kinds
from ftk_plugins.adaptations.blocks import heights_of
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.layerwise_lr.options import LayerwiseOptions


class LayerwiseTuning(FullTuning):
    """Full tuning at the rate ``lr · decay^height`` (Howard & Ruder 2018, section 3.2; blocks as ELECTRA counts them).

    The height is 0 behind the last block, 1 in the last block, and ``n + 1`` in front of the first of ``n``.
    """

    name = "layerwise_lr"

    def __init__(self, options: LayerwiseOptions) -> None:
        super().__init__(options)
        self.decay = options.decay

    def attach(self, model: Any) -> nn.Module:
        """As full tuning does it.

        Raises:
            UserError: see there; or the model has no blocks.
        """
        self.heights = heights_of(model, self.name)
        return super().attach(model)

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """From the head downwards, at each height one group that decays and one that does not."""
        kinds = weight_kinds(model)
        groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
        for parameter in self._trained.values():
            still = kinds[parameter] not in ("matrix", "head")
            groups.setdefault((self.heights[parameter], still), []).append(parameter)
        return [
            {"params": groups[height, still], "lr": lr * self.decay**height, **({"weight_decay": 0.0} if still else {})}
            for height, still in sorted(groups)
        ]
