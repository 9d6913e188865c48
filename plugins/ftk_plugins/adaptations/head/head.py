"""Linear probing and its like: the trunk stays as it is, and the head that reads it is trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from ftk import UserError
from ftk_plugins.adaptations.head.options import HeadOptions
from ftk_plugins.adaptations.named import aliases_of, matching
from ftk_plugins.adaptations.own_weights import OwnWeights


class HeadTuning(OwnWeights):
    """Trains the weights outside of the model's trunk (``base_model``), and an output layer that is not tied."""

    name = "head"

    def __init__(self, options: HeadOptions) -> None:
        super().__init__(options)
        self.options = options

    def choose(self, model: Any) -> dict[str, nn.Parameter]:
        aliases = aliases_of(model)
        chosen = head_of(model) | matching(aliases, "also", self.options.also)
        if not chosen:
            raise UserError(
                f"adaptation `head`: a {type(model).__name__} has no weights of its own behind its trunk"
                + (", for its output layer is tied to the embedding" if _is_tied(model) else ""),
                "Name the weights to train in `also`, or use the adaptation `partial` or `full`.",
            )
        return {names[0]: parameter for parameter, names in aliases.items() if parameter in chosen}


def head_of(model: Any) -> set[nn.Parameter]:
    """The weights behind the trunk; none where a model does not say what its trunk is."""
    trunk = set(getattr(model, "base_model", model).parameters())
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if output is not None:  # some models, as T5, have no trunk apart from their output layer
        trunk -= set(output.parameters())
    inputs = _inputs(model)
    return set(model.parameters()) - trunk - (set(inputs.parameters()) if inputs is not None else set())


def _inputs(model: Any) -> nn.Module | None:
    try:
        found: nn.Module | None = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return found


def _is_tied(model: Any) -> bool:
    output = getattr(model, "get_output_embeddings", lambda: None)()
    inputs = _inputs(model)
    return output is not None and inputs is not None and not set(output.parameters()).isdisjoint(inputs.parameters())
