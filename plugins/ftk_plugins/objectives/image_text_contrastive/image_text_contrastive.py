"""The objective `image_text_contrastive`: each text finds its image among those of a step, and each image its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Batch, ComparingObjective, Context, Features, Head, Predictions, Row
from ftk_plugins.objectives.image_text_contrastive.options import ImageTextContrastiveOptions
from ftk_plugins.objectives.infonce import alike, identity, infonce
from ftk_plugins.objectives.model_inputs import base_model
from ftk_plugins.objectives.pictures import pixels_of, seen_anew
from ftk_plugins.objectives.sentences import encode_texts, outputs_of, padded
from ftk_plugins.objectives.tokens import required_text, text_of, texts_in


class ImageTextContrastive(ComparingObjective):
    """One row, one target: the pair of a text and an image; the model has both towers and the temperature."""

    def __init__(self, options: ImageTextContrastiveOptions) -> None:
        self.options = options

    @property
    def head(self) -> Head:
        return Head("encoder")

    def texts(self, row: Row) -> Iterator[str]:
        return texts_in(iter([text_of(row, self.options.text)]))

    def encode(self, row: Row, processor: Any) -> Features:
        """``input_ids (time,) int32`` and ``pixel_values (channels, height, width) float32``."""
        return self.encode_batch([row], processor)[0]

    def encode_batch(self, rows: Sequence[Row], processor: Any) -> list[Features]:
        texts = [required_text(row, self.options.text) for row in rows]
        if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
            raise UserError(
                f"the model's {type(processor).__name__} does not read both texts and images",
                "choose a model with a text tower and an image tower, such as openai/clip-vit-base-patch32",
            )
        pixels = pixels_of(rows, self.options.image, processor.image_processor)
        encoded = encode_texts(processor.tokenizer, texts, None, self.options.max_length)
        return [
            {"input_ids": features["input_ids"], "pixel_values": image}
            for features, image in zip(encoded, pixels, strict=True)
        ]

    def augment(
        self, item: Features, draw: Callable[[], Features], processor: Any, rng: np.random.Generator
    ) -> Features:
        """The image seen anew; ``whole () int64`` tells which image it was, so that equal ones stay equal."""
        pixels = seen_anew(item["pixel_values"], self.options, processor.image_processor, rng)
        return {**item, "pixel_values": pixels, "whole": np.array(identity(item["pixel_values"]))}

    def collate(self, items: Sequence[Features]) -> Batch:
        """``input_ids`` and ``attention_mask`` ``(rows, time) int64``, ``pixel_values (rows, channels, height, width)
        float32``; ``identities (rows, 2) int64``, equal for equal texts and equal images.
        """
        inputs, lengths = padded(items)
        inputs["pixel_values"] = torch.from_numpy(np.stack([item["pixel_values"] for item in items]))
        whole = [item["whole"] if "whole" in item else identity(item["pixel_values"]) for item in items]
        pairs = [(identity(item["input_ids"]), int(image)) for item, image in zip(items, whole, strict=True)]
        inputs["identities"] = torch.tensor(pairs, dtype=torch.int64)
        return Batch(inputs, len(items), sum(lengths), lengths)

    def embed(self, model: nn.Module, batch: Batch, ctx: Context) -> Mapping[str, Tensor]:
        """``text`` and ``image`` ``(rows, dim) float32`` of length 1; ``scale (rows,) float32``, the model's own, by
        which similarities are multiplied; ``identities``.

        Raises:
            UserError: the model does not embed both, or has no temperature.
        """
        base = base_model(model)
        if not isinstance(scale := getattr(base, "logit_scale", None), Tensor):
            raise _no_towers(base)
        outputs = outputs_of(model, batch, pixel_values=batch.inputs["pixel_values"])
        if getattr(outputs, "text_embeds", None) is None or getattr(outputs, "image_embeds", None) is None:
            raise _no_towers(base)
        return {
            "text": outputs.text_embeds.float(),
            "image": outputs.image_embeds.float(),
            "scale": scale.float().exp().expand(len(batch.inputs["input_ids"])),
            "identities": batch.inputs["identities"],
        }

    def compare(self, seen: Mapping[str, Tensor], ctx: Context) -> Tensor:
        """The mean of both directions' InfoNCE (Radford et al. 2021, figure 3)."""
        similarities = seen["scale"].mean() * (seen["text"] @ seen["image"].T)
        same = alike(seen["identities"])
        return (infonce(similarities, same) + infonce(similarities.T, same)) / 2

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        """The texts' embeddings beside the images'."""
        seen = self.embed(model, batch, ctx)
        return Predictions("embeddings", seen["text"], seen["image"], identities=batch.inputs["identities"])


def _no_towers(base: Any) -> UserError:
    return UserError(
        f"{type(base).__name__} does not embed texts and images by a temperature of its own",
        "choose a model such as openai/clip-vit-base-patch32",
    )
