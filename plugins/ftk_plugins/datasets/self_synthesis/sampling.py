"""Texts that a model writes by chance, and how likely it finds what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from ftk import UserError
from ftk.parts import Loaded
from ftk_plugins.datasets.self_synthesis.options import SelfSynthesisOptions
from ftk_plugins.models.writing import end_tokens, left_padded, only_with, until


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote after a prompt.

    Attributes:
        ids: the tokens, without the one that ends them.
        ended: whether one ended them; else they were cut off.
        nats: the negative log-likelihood of the tokens, the last one too, under the model as it is: temperature 1.
        tokens: how many tokens that are.
    """

    ids: list[int]
    ended: bool
    nats: float
    tokens: int


class Writer:
    """Draws what a model writes after prompts.

    Args:
        loaded: the model, in ``eval`` mode, and its tokenizer.
        options: how tokens are drawn.
        pause: called at each token; may raise to give up.

    Raises:
        UserError: the model cannot write.
    """

    def __init__(self, loaded: Loaded, options: SelfSynthesisOptions, pause: Callable[[], None]) -> None:
        self.model, self.processor = loaded.model, loaded.processor
        if not hasattr(self.model, "generate") or self.processor is None:
            raise UserError(
                f"the starting model, a {type(self.model).__name__}, writes no text",
                "name a decoder of transformers with a tokenizer in [model], or rows with another data set",
            )
        self._options = options
        self._pause = pause
        self._device = next(self.model.parameters()).device
        self._ends = end_tokens(self.model, self.processor)
        padding = next((id for id in (self.processor.pad_token_id, *self._ends) if id is not None), 0)
        self._config = GenerationConfig(
            max_new_tokens=options.max_new_tokens, do_sample=True, temperature=options.temperature, top_p=options.top_p,
            top_k=options.top_k or 0, use_cache=True, eos_token_id=self._ends or None, pad_token_id=padding,
        )  # fmt: skip

    def write(self, prompts: Sequence[Sequence[int]], seed: int) -> list[Written]:
        """Draw one text after each prompt; what is drawn depends on the prompts, the options and the seed alone.

        Raises:
            UserError: a prompt and what may follow it do not fit the model's context.
        """
        self._check_room(max(map(len, prompts)))
        inputs = left_padded(prompts, self._config.pad_token_id, self._device)
        said = _Likelihoods(self._pause)
        with torch.inference_mode(), only_with(self._config, self.model), _seeded(seed, self._device):
            whole = self.model.generate(
                **inputs, generation_config=self._config, logits_processor=LogitsProcessorList([said])
            )
        new = whole[:, inputs["input_ids"].shape[1] :]
        return [self._written(ids, nats) for ids, nats in zip(new.tolist(), said.of(new).tolist(), strict=True)]

    def _written(self, ids: list[int], nats: list[float]) -> Written:
        kept = until(self._ends, ids)
        tokens = min(len(kept) + 1, len(ids))
        return Written(kept, len(kept) < len(ids), -sum(nats[:tokens]), tokens)

    def _check_room(self, longest: int) -> None:
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None and longest + self._options.max_new_tokens > positions:
            raise UserError(
                f"a beginning of {longest} tokens and up to {self._options.max_new_tokens} more do not fit the model's "
                f"context of {positions} tokens",
                "lower `max_new_tokens`, or shorten `prompts`",
            )


class _Likelihoods(LogitsProcessor):  # type: ignore[misc]
    """Notes how likely each token was before temperature and cuts; changes nothing."""

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause
        self._last: Tensor | None = None
        self._found: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._pause()
        self._note(input_ids[:, -1])
        self._last = scores.float().log_softmax(-1)
        return scores

    def of(self, ids: Tensor) -> Tensor:
        """The log-likelihood of each token written, ``(rows, time) float64``."""
        self._note(ids[:, -1])
        return torch.stack(self._found, 1).double().cpu()

    def _note(self, drawn: Tensor) -> None:
        if self._last is not None:
            self._found.append(self._last.gather(1, drawn[:, None])[:, 0])


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within it draws on the CPU and on ``device`` come from ``seed``; the generators are then as they were."""
    devices: list[Any] = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=devices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        yield
