"""Prefix tuning: learned keys and values before the text, in every layer of a decoder."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from peft import PrefixTuningConfig, PromptLearningConfig, TaskType
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.hooks import RemovableHandle

from ftk import UserError
from ftk.parts import evaluated
from ftk_plugins.adaptations.prefix.options import PrefixOptions
from ftk_plugins.adaptations.virtual import VirtualTokens, arguments_of, cached_tokens, sampled_tokens

START = 0.02
"""Standard deviation of what starts at random."""


class Prefix(nn.Module):
    """The keys and values of all layers, trained themselves or made by a network.

    Args:
        start: where they start, ``(tokens, layers, 2, heads, channels)``.
        width: of the network's hidden layer; it is that of Li & Liang 2021, section 4.3.
    """

    def __init__(self, start: Tensor, width: int | None) -> None:
        super().__init__()
        self.shape = start.shape
        size = start[0].numel()
        if width is None:
            self.entries = nn.Parameter(start.flatten(1))
        else:
            channels = start.shape[-1] * start.shape[-2]
            self.entries = nn.Parameter(torch.randn(start.shape[0], channels).to(start.device))
            self.network = nn.Sequential(nn.Linear(channels, width), nn.Tanh(), nn.Linear(width, size)).to(start.device)

    def forward(self) -> Tensor:
        """Keys and values, float32."""
        flat: Tensor = self.network(self.entries) if hasattr(self, "network") else self.entries
        return flat.view(self.shape)


class PrefixTuning(VirtualTokens):
    """Every layer attends to ``tokens`` learned keys and values before the text (Li & Liang 2021, section 4).

    They are put in where a layer's attention takes its keys and values, so that a cache, packed rows and activations
    that are computed again know nothing of them. The text's own positions begin behind them.
    """

    name = "prefix"

    def __init__(self, options: PrefixOptions) -> None:
        super().__init__(options.tokens)
        self.init, self.width = options.init, options.projection
        self._now: Tensor | None = None

    @torch.no_grad()
    def make(self, model: Any) -> nn.Module:
        config = model.config.get_text_config()
        layers = attention_layers(model)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        shape = (self.tokens, len(layers), 2, heads, layers[0].head_dim)
        device = model.get_input_embeddings().weight.device
        if self.init == "random":
            return Prefix(START * torch.randn(shape).to(device), self.width)
        with evaluated(model):
            cache = model.base_model(input_ids=sampled_tokens(model, self.tokens)[None], use_cache=True).past_key_values
        pairs = [torch.stack([layer.keys[0], layer.values[0]]).to(device) for layer in cache.layers]
        return Prefix(torch.stack(pairs).permute(3, 0, 1, 2, 4).float().contiguous(), None)

    def hook(self, model: Any, learned: nn.Module) -> list[RemovableHandle]:
        def before(trunk: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not self.active:
                return None
            self._now = learned()
            return (), self._behind(arguments_of(trunk, args, kwargs))

        return [
            model.base_model.register_forward_pre_hook(before, with_kwargs=True),
            *(
                layer.register_forward_pre_hook(partial(self._attend, number), with_kwargs=True)
                for number, layer in enumerate(attention_layers(model))
            ),
        ]

    def exported(self, model: Any, learned: nn.Module) -> tuple[PromptLearningConfig, Tensor]:
        entries: Tensor = learned()
        tokens, layers, _, heads, channels = entries.shape
        settings = PrefixTuningConfig(
            task_type=TaskType.CAUSAL_LM, num_virtual_tokens=tokens, num_layers=layers, token_dim=heads * channels,
            num_attention_heads=heads, num_transformer_submodules=1, encoder_hidden_size=heads * channels,
        )  # fmt: skip
        return settings, entries.flatten(1)

    def _behind(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a pass whose positions begin behind the prefix."""
        places = given.get("position_ids")
        ids = given.get("input_ids")
        states: Tensor = given["inputs_embeds"] if ids is None else ids
        start = cached_tokens(given)
        if places is None:
            places = torch.arange(start, start + states.shape[1], device=states.device)[None]
        if self._table is not None:
            self.check_room(int(places.max()) + 1)
        return {**given, "position_ids": places + self.tokens}

    def _attend(self, number: int, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The arguments of a layer's attention with the prefix in front of its keys and values."""
        if not self.active:
            return None
        assert self._now is not None
        if layer.config._attn_implementation not in ("sdpa", "eager"):
            raise UserError(
                f"adaptation `prefix` does not go with attention by {layer.config._attn_implementation}",
                'Write training.attention = "sdpa".',
            )
        given = arguments_of(layer, args, kwargs)
        states, mask, cache = given["hidden_states"], given.get("attention_mask"), given.get("past_key_values")
        if mask is None and states.shape[1] > 1:
            mask = _causal(states.shape[1], 0 if cache is None else cache.get_seq_length(number), states.device)
            if layer.config._attn_implementation == "eager":
                mask = torch.zeros_like(mask, dtype=states.dtype).masked_fill(~mask, torch.finfo(states.dtype).min)
        if mask is not None:
            mask = pad(mask, (self.tokens, 0), value=True if mask.dtype == torch.bool else 0.0)
        keys, values = self._now[:, number].permute(1, 2, 0, 3)
        return (), {**given, "attention_mask": mask, "past_key_values": Behind(cache, keys, values)}


class Behind:
    """A layer's cache, or none, with keys and values ``(heads, tokens, channels)`` in front of what it gives."""

    def __init__(self, cache: Any, keys: Tensor, values: Tensor) -> None:
        self._cache, self._front = cache, (keys, values)

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """What the layer attends to: ``(rows, heads, tokens + time, channels)``, twice."""
        if self._cache is not None:
            keys, values = self._cache.update(keys, values, *args, **kwargs)
        front = (part.to(keys).expand(keys.shape[0], -1, -1, -1) for part in self._front)
        both = [torch.cat([part, own], dim=2) for part, own in zip(front, (keys, values), strict=True)]
        return both[0], both[1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


def attention_layers(model: Any) -> list[Any]:
    """The attention of each layer of a decoder, in order.

    Raises:
        UserError: it is not of the common form.
    """
    found = [
        module
        for module in model.base_model.modules()
        if hasattr(module, "layer_idx")
        and getattr(module, "head_dim", None)
        and {"past_key_values", "attention_mask"} <= set(inspect.signature(type(module).forward).parameters)
    ]
    alike = {module.head_dim for module in found}
    if len(found) != model.config.get_text_config().num_hidden_layers or len(alike) != 1:
        raise UserError(
            f"adaptation `prefix`: a {type(model).__name__} does not attend in each layer alike",
            "Use the adaptation `prompt` or `lora`.",
        )
    return found


def _causal(time: int, cached: int, device: torch.device) -> Tensor:
    """Which positions each token may see, ``(1, 1, time, cached + time)`` bool."""
    return torch.ones(time, cached + time, dtype=torch.bool, device=device).tril(cached)[None, None]
