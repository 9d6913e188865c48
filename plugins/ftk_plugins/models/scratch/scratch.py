"""The model source `scratch`: a new model in any text or image architecture of Transformers, with what feeds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from ftk import UserError
from ftk.parts import Head, Loaded, ModelSource
from ftk_plugins.models.calls import explained, quiet, seeded, shortened
from ftk_plugins.models.heads import auto_class, set_labels
from ftk_plugins.models.loading import load_processor, load_saved
from ftk_plugins.models.pretrained.places import fingerprint
from ftk_plugins.models.scratch.bpe import train_tokenizer
from ftk_plugins.models.scratch.options import ScratchOptions
from ftk_plugins.models.scratch.sizes import TWO_TOWERS, make_config, make_image_config, make_towers_config
from ftk_plugins.models.tokenizers import set_chat_template, vocabulary_rows

SENTINELS = 100
"""As many as T5's own tokenizer has."""


class Scratch(ModelSource):
    """Draws a model from a seed and trains its tokenizer on the recipe's texts; the same bits every time.

    A run asks it for a model of each of its heads; their tokenizer is trained once.
    """

    def __init__(self, options: ScratchOptions) -> None:
        self.options = options
        self._tokenizers: dict[bool, Any] = {}

    def identity(self) -> str:
        """That the options say all, and a hash of each file that they name; of a tokenizer on the hub, its commit."""
        named = [(self.options.tokenizer, "tokenizer_config.json"), (self.options.chat_template, "")]
        return "\n".join(["options", *(fingerprint(path, on_hub=on_hub) for path, on_hub in named if path is not None)])

    def load(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Loaded:
        """Make the model in float32 on the CPU, in ``eval`` mode; ``corpus`` is read twice, or not at all."""
        return self._made(head, corpus, torch.device("cpu"))

    def outline(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Loaded:
        """The same without weights; its tokenizer is trained, since it decides how many tokens there are."""
        return self._made(head, corpus, torch.device("meta"))

    def load_folder(self, folder: Path, head: Head) -> Loaded:
        """Load what a stage saved; a head that the saved model lacks is drawn from the seed."""
        return load_saved(folder, head, self.options)

    def _made(self, head: Head, corpus: Callable[[], Iterator[str]], device: torch.device) -> Loaded:
        options = self.options
        if head.kind == "image_classification":
            config = make_image_config(options)
            with device:
                model = self._model(config, head)
            size = {"height": config.image_size, "width": config.image_size}
            with quiet():  # it tells of a library that would read images faster
                return Loaded(model, transformers.ViTImageProcessor(size=size))
        both = head.kind == "encoder" and options.architecture == TWO_TOWERS
        make = make_towers_config if both else make_config
        # Before any reading of texts, so that a wrong size is told at once.
        auto_class(make(options, options.vocabulary_size, None), head, self._name)
        tokenizer = self._tokenizer(head, corpus)
        if options.chat_template is not None:
            set_chat_template(tokenizer, options.chat_template)
        config = make(options, vocabulary_rows(tokenizer), tokenizer)
        with device:
            model = self._model(config, head)
        tokenizer.model_max_length = min(tokenizer.model_max_length, _longest(model, options.max_length))
        return Loaded(model, _reading_both(tokenizer, config.vision_config.image_size) if both else tokenizer)

    @property
    def _name(self) -> str:
        return f"model.architecture = {self.options.architecture}"

    def _tokenizer(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Any:
        options = self.options
        if options.tokenizer is not None:
            return load_processor(options.tokenizer, Head("causal_lm"))
        kind = transformers.CONFIG_MAPPING[options.architecture]
        mask = head.kind == "masked_lm" or kind in transformers.AutoModelForMaskedLM._model_mapping
        if mask not in self._tokenizers:
            self._tokenizers[mask] = train_tokenizer(
                corpus,
                vocabulary_size=options.vocabulary_size,
                max_length=options.max_length,
                mask=mask,
                frame=options.architecture == TWO_TOWERS,
                sentinels=SENTINELS if _is_t5(options.architecture) else 0,
                special_tokens=options.special_tokens,
            )
        return self._tokenizers[mask]

    def _model(self, config: Any, head: Head) -> Any:
        options = self.options
        builder = auto_class(config, head, self._name)
        set_labels(config, head, self._name)
        chosen = {} if options.attention == "auto" else {"attn_implementation": options.attention}
        with quiet(), explained(self._name, attention=options.attention), seeded(options.seed):
            if not options.config:
                return _drawn(_sized(lambda: builder.from_config(config, **chosen)))
            with _told_of_config(options):
                model = builder.from_config(config, **chosen)
                if head.kind in ("causal_lm", "masked_lm") and model.device.type != "meta":
                    _try(model)
            return _drawn(model)


def _drawn(model: Any) -> Any:
    """The model in ``eval`` mode, marked as one of which every weight is new."""
    model.fresh_weights = tuple(name for name, _ in model.named_parameters())
    return model.eval()


def _reading_both(tokenizer: Any, size: int) -> Any:
    """The processor of CLIP, for images of this height and width.

    Raises:
        UserError: the tokenizer does not write a text as CLIP reads it.
    """
    end = tokenizer.eos_token_id
    if end in (None, 2) or tokenizer("a").input_ids[-1] != end:
        raise UserError(
            "model.tokenizer: CLIP reads a text at its end token, which this tokenizer does not write",
            "leave it out, and one is trained",
        )
    with quiet():
        images = transformers.CLIPImageProcessor(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        )
        return transformers.CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def _is_t5(architecture: str) -> bool:
    """Whether models of this architecture learn to write what sentinels stand for."""
    return "t5" in architecture or architecture == "switch_transformers"


def _sized(make: Callable[[], Any]) -> Any:
    """What ``make`` makes. Raises ``UserError`` where it is larger than memory, or than a number can be."""
    try:
        return make()
    except (RuntimeError, TypeError, MemoryError, OverflowError) as error:
        reason = shortened(" ".join(str(error).split()), 200)
        raise UserError(
            f"model: no model of these sizes can be made here: {reason}",
            "lower `hidden_size`, `intermediate_size`, `layers` or `vocabulary_size`",
        ) from error


@contextmanager
def _told_of_config(options: ScratchOptions) -> Iterator[None]:
    """Whatever a library raises within is the doing of the table ``config``, which sets what ftk does not know."""
    try:
        yield
    except Exception as error:
        if options.attention != "auto":
            raise  # it may be the cause as well, and its own message names it
        keys = list(options.config)
        place = f"model.config.{keys[0]}" if len(keys) == 1 else "model.config"
        given = ", ".join(f"{key} = {value!r}" for key, value in options.config.items())
        reason = f"it knows no {error}" if isinstance(error, KeyError) else shortened(" ".join(str(error).split()))
        raise UserError(
            f"{place}: `{options.architecture}` cannot work with {given}: {reason or type(error).__name__}",
            "change it, or leave it out",
        ) from error


@torch.no_grad()
def _try(model: Any) -> None:
    """Read a few tokens as in training: some values are only refused when they are used."""
    model.train()
    model(input_ids=torch.zeros((1, 2), dtype=torch.long))


def _longest(model: Any, max_length: int) -> int:
    """Tokens that fit: RoBERTa and its kin count positions from behind the padding token's id."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return max_length
