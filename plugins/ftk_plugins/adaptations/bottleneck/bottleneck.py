"""Bottleneck adapters: small networks behind a block's sublayers, exported with the file that loads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ftk.parts import Adaptation, State
from ftk_plugins.adaptations.bottleneck import load_adapter
from ftk_plugins.adaptations.bottleneck.load_adapter import MODULE, SETTINGS, TENSORS, WHOLE, Bottleneck, place
from ftk_plugins.adaptations.bottleneck.options import BottleneckOptions
from ftk_plugins.adaptations.bottleneck.places import places_of, width_of
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.named import remember_requires_grad, take_back
from ftk_plugins.adaptations.targets import choose_whole

README = """# Bottleneck adapters

These adapters belong on the model that their stage started from, which lies in the folder above this one.
`load_adapter.py` puts them on it; it needs `torch` and `transformers`, and nothing else:

```python
from transformers import {loader}
from load_adapter import load_adapter  # the file in this folder

model = load_adapter({loader}.from_pretrained("path/to/model"), "path/to/model/adapter")
```

`bottleneck.json` tells where they stand, `bottleneck.safetensors` holds their weights.
"""


class BottleneckTuning(Adaptation):
    """Puts ``x + scale · up(activation(down(x)))`` behind linear layers of every block (Houlsby et al. 2019, 2.1).

    The way up starts at zero, so that the model starts as what it is. An adapter is not linear in its input, and so
    there is no weight that it moves: it has no drift, and cannot be merged. Random starts draw from torch's global
    generator.
    """

    name = "bottleneck"

    def __init__(self, options: BottleneckOptions) -> None:
        self.options = options
        self.active = True
        self._hooks: list[RemovableHandle] = []
        self._whole: FullTuning | None = None

    def attach(self, model: Any) -> nn.Module:
        """Freeze the model and put the adapters in.

        Raises:
            UserError: see :func:`ftk_plugins.adaptations.bottleneck.places.places_of`; or a pattern of
                ``modules_to_save`` matches nothing.
        """
        options = self.options
        saved = choose_whole(model, options.modules_to_save)
        places = places_of(model, options.style, options.targets)
        self._restore_requires_grad = remember_requires_grad(model)
        self._whole = FullTuning(FullOptions(train=tuple(f"{name}.*" for name in saved))) if saved else None
        if self._whole is not None:
            self._whole.attach(model)
        else:
            model.requires_grad_(False)
        shape = (options.size, options.activation, options.dropout, options.scale)
        adapters = {
            name: Bottleneck(width_of(layer), *shape).to(next(layer.parameters()).device)
            for name, layer in places.items()
        }
        self._model, self.active, self._places = model, True, {name: width_of(layer) for name, layer in places.items()}
        self._hooks = place(model, adapters, lambda: self.active)
        self._adapters.train(model.training)
        module: nn.Module = model
        return module

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """The matrices of the adapters, their biases, which never decay, and what is trained whole."""
        matrices, biases = ([p for p in self._adapters.parameters() if (p.ndim == 2) == two] for two in (True, False))
        groups = [{"params": matrices, "lr": lr}, {"params": biases, "lr": lr, "weight_decay": 0.0}]
        return groups if self._whole is None else [*groups, *self._whole.param_groups(model, lr)]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Leave the adapters out, and set what is trained whole to where it started."""
        before, self.active = self.active, False
        try:
            with nullcontext() if self._whole is None else self._whole.reference():
                yield
        finally:
            self.active = before

    def export(self, directory: Path) -> None:
        """Write ``adapter/``: the adapters, where they stand, and a file that puts them on the starting model."""
        folder = directory / "adapter"
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in self._tensors().items()}, folder / TENSORS
        )
        settings = self.options.model_dump(include={"size", "activation", "dropout", "scale"})
        told = json.dumps({**settings, "places": self._places}, indent=2)
        (folder / SETTINGS).write_text(f"{told}\n", encoding="utf-8")
        shutil.copyfile(load_adapter.__file__, folder / "load_adapter.py")
        loader = type(self._model).__name__
        (folder / "README.md").write_text(README.format(loader=loader), encoding="utf-8")

    def merge(self) -> Any:
        """Take the adapters off: the model is the one that the stage started from."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        delattr(self._model, MODULE)
        if self._whole is not None:
            self._whole.scale(0.0)
            self._whole.merge()
        self._restore_requires_grad()
        return self._model

    def state_dict(self) -> State:
        return dict(self._tensors())

    def load_state_dict(self, state: State) -> None:
        take_back(self._tensors(), state)

    def _tensors(self) -> dict[str, Tensor]:
        """All that is trained: the adapters by their names in the module that holds them, the rest as ``whole.``."""
        whole = {} if self._whole is None else self._whole.state_dict()
        own = {name: parameter.detach() for name, parameter in self._adapters.named_parameters()}
        return {**own, **{f"{WHOLE}{name}": tensor for name, tensor in whole.items()}}

    @property
    def _adapters(self) -> nn.Module:
        adapters: nn.Module = self._model.get_submodule(MODULE)
        return adapters
