"""The network of `mlp`, as Transformers saves and loads models: pixels, hidden layers, a head."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput


class MlpConfig(PretrainedConfig):  # type: ignore[misc, unused-ignore]
    """The sizes of a multilayer perceptron."""

    model_type = "ftk_mlp"

    def __init__(
        self,
        image_size: int = 28,
        colours: bool = False,
        hidden_size: int = 400,
        layers: int = 2,
        hidden_dropout: float = 0.0,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.image_size = image_size
        self.colours = colours
        self.hidden_size = hidden_size
        self.layers = layers
        self.hidden_dropout = hidden_dropout

    @property
    def inputs(self) -> int:
        """Numbers of an image."""
        return self.image_size**2 * (3 if self.colours else 1)


class Pixels(nn.Module):
    """An image's numbers in one row: ``(rows, 3, height, width)`` to ``(rows, inputs)``."""

    def __init__(self, colours: bool) -> None:
        super().__init__()
        self.colours = colours

    def forward(self, pixel_values: Tensor) -> Tensor:
        return (pixel_values if self.colours else pixel_values.mean(1)).flatten(1)


class MlpForImageClassification(PreTrainedModel):  # type: ignore[misc, unused-ignore]
    """A multilayer perceptron; its layers are drawn as torch draws them."""

    config_class = MlpConfig
    base_model_prefix = "mlp"
    main_input_name = "pixel_values"

    def __init__(self, config: MlpConfig) -> None:
        super().__init__(config)
        widths = [config.inputs, *[config.hidden_size] * config.layers]
        layers: list[nn.Module] = [Pixels(config.colours)]
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(config.hidden_dropout)]
        self.mlp = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1], config.num_labels)
        self.post_init()

    def forward(self, pixel_values: Tensor, **others: Any) -> ImageClassifierOutput:
        """Logits ``(rows, labels)`` of ``pixel_values (rows, 3, height, width)``."""
        return ImageClassifierOutput(logits=self.classifier(self.mlp(pixel_values)))

    def _init_weights(self, module: nn.Module) -> None:
        """Leave each layer as torch has drawn it."""
