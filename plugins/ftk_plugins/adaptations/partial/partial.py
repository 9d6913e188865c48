"""Partial fine-tuning: the last blocks and what stands behind them."""

from __future__ import annotations

from typing import Any

from torch import nn

from ftk import UserError
from ftk_plugins.adaptations.blocks import heights_of
from ftk_plugins.adaptations.named import aliases_of, matching
from ftk_plugins.adaptations.own_weights import OwnWeights
from ftk_plugins.adaptations.partial.options import PartialOptions


class PartialTuning(OwnWeights):
    """Trains the weights of the last ``blocks`` of every stack, those behind it, and those that ``also`` matches."""

    name = "partial"

    def __init__(self, options: PartialOptions) -> None:
        super().__init__(options)
        self.options = options

    def choose(self, model: Any) -> dict[str, nn.Parameter]:
        aliases, heights = aliases_of(model), heights_of(model, self.name)
        most = max(heights.values()) - 1
        if self.options.blocks > most:
            raise UserError(
                f"adaptation.blocks: {self.options.blocks} are more than the {most} that the model has",
                "Lower it, or use the adaptation `full`.",
            )
        chosen = {parameter for parameter, height in heights.items() if height <= self.options.blocks}
        chosen |= matching(aliases, "also", self.options.also)
        if not chosen:
            raise UserError("adaptation `partial`: nothing stands behind the last block", "Set `blocks` or `also`.")
        return {names[0]: parameter for parameter, names in aliases.items() if parameter in chosen}
