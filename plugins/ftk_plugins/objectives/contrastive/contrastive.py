"""The objective `contrastive`: each anchor finds its positive among the texts of all rows of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Batch, ComparingObjective, Context, Features, Head, Predictions, Row
from ftk_plugins.objectives.contrastive.options import ContrastiveOptions
from ftk_plugins.objectives.infonce import alike, identities, infonce
from ftk_plugins.objectives.pooling import pooled
from ftk_plugins.objectives.sentences import encode_texts, outputs_of, padded
from ftk_plugins.objectives.tokens import columns_of, required_text, text_of, texts_in


class Contrastive(ComparingObjective):
    """One row, one target: the positive of its anchor, among the positives and hard negatives of all rows."""

    def __init__(self, options: ContrastiveOptions) -> None:
        self.options = options

    @property
    def head(self) -> Head:
        return Head("encoder")

    def texts(self, row: Row) -> Iterator[str]:
        columns = [self.options.anchor]
        if self.options.kind != "dropout":
            columns.append(self.options.positive)
        yield from texts_in(text_of(row, column) for column in columns)
        if self.options.kind == "triplets":
            yield from texts_in(iter(_several(row.get(self.options.negative), self.options.negative)))

    def encode(self, row: Row, processor: Any) -> Features:
        """``input_ids`` ``(time,) int32``: anchor, positive and negatives one after the other; ``ends`` of each
        ``(texts,) int32``.
        """
        return self.encode_batch([row], processor)[0]

    def encode_batch(self, rows: Sequence[Row], processor: Any) -> list[Features]:
        texts = [self._texts_of(row) for row in rows]
        flat = encode_texts(processor, [text for its in texts for text in its], None, self.options.max_length)
        encoded, start = [], 0
        for its in texts:
            ids = [features["input_ids"] for features in flat[start : start + len(its)]]
            encoded.append(
                {"input_ids": np.concatenate(ids), "ends": np.cumsum([len(each) for each in ids], dtype=np.int32)}
            )
            start += len(its)
        return encoded

    def collate(self, items: Sequence[Features]) -> Batch:
        """``token_ids`` and ``attention_mask`` ``(rows, texts, time) int64``, of a text that a row lacks all 0;
        ``identities`` ``(rows, 2) int64``, equal for equal anchors and equal positives.
        """
        parted = [np.split(item["input_ids"], item["ends"][:-1]) for item in items]
        most = {"dropout": 1, "pairs": 2, "triplets": 2 + self.options.negatives}[self.options.kind]
        nothing = {"input_ids": np.empty(0, np.int32)}
        flat, _ = padded([
            {"input_ids": texts[number]} if number < len(texts) else nothing
            for texts in parted for number in range(most)
        ])  # fmt: skip
        shape = (len(items), most, -1)
        inputs = {
            "token_ids": flat["input_ids"].view(shape),
            "attention_mask": flat["attention_mask"].view(shape),
            "identities": identities([(texts[0], texts[min(1, len(texts) - 1)]) for texts in parted]),
        }
        return Batch(inputs, len(items), sum(len(item["input_ids"]) for item in items))

    def embed(self, model: nn.Module, batch: Batch, ctx: Context) -> Mapping[str, Tensor]:
        """``embeddings`` ``(rows, texts, dim) float32``: anchor, positive, negatives; ``present`` ``(rows, texts)
        int64``; ``identities``.

        Raises:
            UserError: two dropout views would be the same, because the model drops nothing out.
        """
        views = 2 if self.options.kind == "dropout" else 1
        if views > 1 and model.training and not _drops_out(model):
            raise UserError(
                "the two dropout views of a text would be the same: the model drops nothing out",
                "set training.dropout = 0.1",
            )
        embeddings, present = self._embeddings(model, batch, views)
        return {"embeddings": embeddings, "present": present.long(), "identities": batch.inputs["identities"]}

    def compare(self, seen: Mapping[str, Tensor], ctx: Context) -> Tensor:
        """InfoNCE of each anchor among all positives and hard negatives; symmetric: the mean of both directions."""
        anchors, positives, negatives = seen["embeddings"].tensor_split([1, 2], dim=1)
        similarities = anchors[:, 0] @ positives[:, 0].T / self.options.temperature
        same = alike(seen["identities"])
        hard = (anchors[:, 0] @ negatives.flatten(0, 1).T) / self.options.temperature
        hard = hard.masked_fill(seen["present"][:, 2:].flatten() == 0, -torch.inf)
        losses = infonce(similarities, same, hard)
        return (losses + infonce(similarities.T, same)) / 2 if self.options.symmetric else losses

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        """The anchors' embeddings beside the positives'."""
        embeddings, _ = self._embeddings(model, batch, 1)
        last = min(1, embeddings.shape[1] - 1)
        found = batch.inputs["identities"]
        return Predictions("embeddings", embeddings[:, 0], embeddings[:, last], identities=found)

    def _embeddings(self, model: nn.Module, batch: Batch, views: int) -> tuple[Tensor, Tensor]:
        """``(rows, texts · views, dim) float32``, 0 where a row has no such text, and where it has one."""
        ids, mask = batch.inputs["token_ids"], batch.inputs["attention_mask"]
        present = mask.any(2)
        places = present.flatten().nonzero()[:, 0].repeat(views)
        inputs = {"input_ids": ids.flatten(0, 1)[places], "attention_mask": mask.flatten(0, 1)[places]}
        found = pooled(outputs_of(model, Batch(inputs, 0, 0)), inputs["attention_mask"], self.options.pooling)
        if self.options.normalise:
            found = F.normalize(found, dim=-1)
        if views > 1:
            return found.view(views, len(ids), -1).transpose(0, 1), present.repeat(1, views)
        whole = found.new_zeros((present.numel(), found.shape[1])).index_copy(0, places, found)
        return whole.view(*present.shape, -1), present

    def _texts_of(self, row: Row) -> list[str]:
        options = self.options
        texts = [required_text(row, options.anchor, "anchor")]
        if options.kind != "dropout":
            texts.append(required_text(row, options.positive, "positive"))
        if options.kind == "triplets":
            negatives = _several(row.get(options.negative), options.negative)
            if not negatives or not all(text.strip() for text in negatives):
                raise UserError(
                    f"there is no text in column `{options.negative}`; the row has {columns_of(row)}",
                    "name the column with the objective's `negative`, or map it with the data set's `columns`",
                )
            texts += negatives[: self.options.negatives]
        return texts


def _drops_out(model: nn.Module) -> bool:
    """Whether any module has a probability of dropout above 0, as its own or handed on to attention."""
    return any(
        isinstance(value, float) and value > 0
        for module in model.modules()
        for name, value in vars(module).items()
        if "drop" in name or (name == "p" and isinstance(module, nn.Dropout))
    )


def _several(value: Any, column: str) -> list[str]:
    """The texts of a column that holds one or a list of them."""
    values = value if isinstance(value, list) else [value]
    texts = [text_of({column: each}, column) for each in values]
    return [text for text in texts if text is not None]
