"""What the adaptations share that put learned vectors before a decoder's tokens and leave its weights alone."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import PromptLearningConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ftk import UserError
from ftk.parts import Adaptation, State
from ftk_plugins.adaptations.named import remember_requires_grad, take_back

MODULE = "virtual_tokens"
"""The name under which the model holds what is learned while the adaptation is attached."""


class VirtualTokens(Adaptation):
    """The model stays as it is, bit for bit; hooks on its trunk bring the learned vectors in, and can be turned off.

    Callers see what they would see of the plain model: logits and hidden states of their own tokens alone.
    """

    name: ClassVar[str]
    """The variant's, for messages."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.active = True
        self._table: int | None = None
        self._hooks: list[RemovableHandle] = []

    @abstractmethod
    def make(self, model: Any) -> nn.Module:
        """What is learned, in float32 and on the model's device.

        Raises:
            UserError: this model cannot be given it.
        """

    @abstractmethod
    def hook(self, model: Any, learned: nn.Module) -> list[RemovableHandle]:
        """Bring what is learned into the model's passes wherever :attr:`active` says so."""

    @abstractmethod
    def exported(self, model: Any, learned: nn.Module) -> tuple[PromptLearningConfig, Tensor]:
        """PEFT's settings, and its ``prompt_embeddings``."""

    def attach(self, model: Any) -> nn.Module:
        """Freeze the model and put the vectors in.

        Raises:
            UserError: the model is no decoder with an output layer, or has no room for so many tokens; see also
                :meth:`make`.
        """
        if type(model).__name__ not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() or model.base_model is model:
            raise UserError(
                f"adaptation `{self.name}` is for decoders that predict the next token, and this is a "
                f"{type(model).__name__}",
                "Use the adaptation `lora`, `ia3` or `bottleneck`.",
            )
        room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        tables = [module.num_embeddings for module in model.base_model.modules() if isinstance(module, nn.Embedding)]
        self._table = room if room is not None and len(tables) > 1 and tables[1] >= room else None
        if room is not None and self.tokens >= room:
            raise UserError(
                f"adaptation.tokens: {self.tokens} leave nothing of the model's context of {room} tokens", "Lower it."
            )
        learned = self.make(model)
        self._model, self.active = model, True
        self._restore_requires_grad = remember_requires_grad(model)
        model.requires_grad_(False)
        model.add_module(MODULE, learned)
        learned.train(model.training)
        self._hooks = self.hook(model, learned)
        module: nn.Module = model
        return module

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        return [{"params": list(self._learned.parameters()), "lr": lr, "weight_decay": 0.0}]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Leave the vectors out: the weights are the starting model's own."""
        before, self.active = self.active, False
        try:
            yield
        finally:
            self.active = before

    @torch.no_grad()
    def export(self, directory: Path) -> None:
        """Write ``adapter/``: a plain PEFT adapter; loaded on the starting model it gives this one."""
        folder = directory / "adapter"
        folder.mkdir(parents=True, exist_ok=True)
        config, embeddings = self.exported(self._model, self._learned)
        save_file(
            {"prompt_embeddings": embeddings.detach().cpu().contiguous()},
            folder / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        config.base_model_name_or_path = getattr(self._model, "name_or_path", "") or None
        config.inference_mode = True
        config.save_pretrained(str(folder))

    def merge(self) -> Any:
        """Take the vectors out: the model is the one that the stage started from."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        delattr(self._model, MODULE)
        self._restore_requires_grad()
        return self._model

    def state_dict(self) -> State:
        return {name: parameter.detach() for name, parameter in self._learned.named_parameters()}

    def load_state_dict(self, state: State) -> None:
        take_back(dict(self._learned.named_parameters()), state)

    def check_room(self, positions: int) -> None:
        """See that a row of so many positions fits, where the model has a table of them.

        Raises:
            UserError: it does not.
        """
        if self._table is not None and positions + self.tokens > self._table:
            raise UserError(
                f"adaptation `{self.name}`: a row of {positions} tokens and {self.tokens} virtual ones do not fit the "
                f"model's {self._table} positions",
                "Lower adaptation.tokens, or the length of the rows (`max_length` in the objective).",
            )

    @property
    def _learned(self) -> nn.Module:
        learned: nn.Module = self._model.get_submodule(MODULE)
        return learned


def arguments_of(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a module's forward pass by name."""
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def cached_tokens(arguments: Mapping[str, Any]) -> int:
    """How many tokens the cache holds that a pass goes on from."""
    cache = arguments.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())


def sampled_tokens(model: Any, count: int) -> Tensor:
    """The ids of ``count`` tokens of the vocabulary, drawn from torch's global generator: ``(count,) int64``."""
    weight = model.get_input_embeddings().weight
    return torch.randint(len(weight), (count,)).to(weight.device)
