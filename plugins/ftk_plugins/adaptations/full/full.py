"""Full fine-tuning: the model's own weights are trained, all or those that patterns choose."""

from __future__ import annotations

from torch import nn

from ftk import UserError
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.named import aliases_of, matching
from ftk_plugins.adaptations.own_weights import OwnWeights


class FullTuning(OwnWeights):
    """Trains every weight that ``train`` matches and ``freeze`` does not, each matched under all of its names."""

    name = "full"

    def __init__(self, options: FullOptions) -> None:
        super().__init__(options)
        self.options = options

    def choose(self, model: nn.Module) -> dict[str, nn.Parameter]:
        aliases = aliases_of(model)
        matched = matching(aliases, "train", self.options.train) - matching(aliases, "freeze", self.options.freeze)
        if not matched:
            raise UserError(
                f"adaptation `{self.name}`: `freeze` leaves no weight to train", "Freeze less, or train more."
            )
        return {names[0]: parameter for parameter, names in aliases.items() if parameter in matched}
