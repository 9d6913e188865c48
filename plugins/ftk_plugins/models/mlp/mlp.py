"""The model source `mlp`: draws a multilayer perceptron, with an image processor that hands it pixels from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import ViTImageProcessor

from ftk import UserError
from ftk.parts import Head, Loaded, ModelSource
from ftk_plugins.models.calls import explained, quiet, seeded
from ftk_plugins.models.growing import keep_rows
from ftk_plugins.models.heads import set_labels
from ftk_plugins.models.mlp.modeling import MlpConfig, MlpForImageClassification
from ftk_plugins.models.mlp.options import MlpOptions

HOW_TO_LOAD = """The folder holds `model.safetensors`, and the sizes in `config.json`. Where ftk is installed:

```python
from transformers import AutoImageProcessor
from ftk_plugins.models.mlp.modeling import MlpForImageClassification

model = MlpForImageClassification.from_pretrained("path/to/this/folder")
processor = AutoImageProcessor.from_pretrained("path/to/this/folder")
```

Without it, the network is what its weights say: `mlp.1`, `mlp.4` and so on are linear layers with a ReLU behind each,
`classifier` is the last one. It reads {pixels}, as numbers from 0 to 1."""


class Mlp(ModelSource):
    """Weights drawn from a seed, the same for every head but the head's own."""

    def __init__(self, options: MlpOptions) -> None:
        self.options = options

    def identity(self) -> str:
        """The same always, for nothing is read."""
        return "mlp"

    def load(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Loaded:
        """Make the model in float32 on the CPU, in ``eval`` mode; ``corpus`` is not read."""
        return self._made(head, torch.device("cpu"))

    def outline(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Loaded:
        """The same without weights."""
        return self._made(head, torch.device("meta"))

    def load_folder(self, folder: Path, head: Head) -> Loaded:
        with quiet(), explained(str(folder), str(folder)):
            model = MlpForImageClassification.from_pretrained(folder, local_files_only=True)
            if model.config.num_labels < len(head.labels):
                saved, model = dict(model.named_parameters()), self._made(head, torch.device("cpu")).model
                keep_rows(model, saved)
                model.fresh_weights = ()
            return Loaded(model.eval(), ViTImageProcessor.from_pretrained(folder, local_files_only=True))

    def how_to_load(self) -> str:
        size = self.options.image_size
        told = "red, then green, then blue, of" if self.options.colours else "the mean of the colours of"
        return HOW_TO_LOAD.format(pixels=f"{told} the {size} by {size} pixels, row by row")

    def _made(self, head: Head, device: torch.device) -> Loaded:
        if head.kind != "image_classification":
            raise UserError(
                f"model.use = `mlp`: the objective needs a head for {head.kind}, and it classifies images alone",
                "use the objective image_classification, or the model source `scratch` or `pretrained`",
            )
        options, size = self.options, {"height": self.options.image_size, "width": self.options.image_size}
        config = MlpConfig(
            options.image_size, options.colours, options.hidden_size, options.layers, options.dropout
        )  # fmt: skip
        set_labels(config, head, "model.use = mlp")
        with quiet():
            with device, seeded(options.seed):
                model = MlpForImageClassification(config)
            model.fresh_weights = tuple(name for name, _ in model.named_parameters())
            return Loaded(model.eval(), ViTImageProcessor(size=size, do_normalize=False))
