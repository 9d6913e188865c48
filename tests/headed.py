"""Small objectives with different heads, and recipes whose stages change the head; for tests of the core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import nn

from ftk import Options
from ftk.parts import Batch, Context, Features, Head, Loss, Objective, Row

PLUGIN = """
from ftk import Variant, hookimpl

@hookimpl
def ftk_objectives():
    def variant(name):
        kind = name.title()
        return Variant(name=name, summary="Toy.", options=f"tests.headed:{kind}Options", build=f"tests.headed:{kind}",
                       provides=("token-loss",))
    return [variant("cloze"), variant("kinds")]
"""


class ClozeOptions(Options):
    """None."""


class KindsOptions(Options):
    labels: tuple[str, ...] = Field(default=("short", "long"), description="Classes.")


class _Read(Objective):
    """What both have in common: the tokens of ``instruction`` and ``output``, padded."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def texts(self, row: Row) -> Iterator[str]:
        yield f"{row['instruction']} {row['output']}"

    def encode(self, row: Row, processor: Any) -> Features:
        return {"input_ids": np.array(processor(next(self.texts(row)))["input_ids"], np.int32)}

    def collate(self, items: Sequence[Features]) -> Batch:
        lengths = [len(item["input_ids"]) for item in items]
        ids = torch.zeros(len(items), max(lengths), dtype=torch.long)
        for row, item in zip(ids, items, strict=True):
            row[: len(item["input_ids"])] = torch.from_numpy(item["input_ids"].astype(np.int64))
        mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        return Batch({**inputs, **self.targets(inputs, items)}, self.count(lengths), sum(lengths), lengths)


class Cloze(_Read):
    """Every third token is hidden and predicted."""

    @property
    def head(self) -> Head:
        return Head("masked_lm")

    def count(self, lengths: list[int]) -> int:
        return sum(-(-length // 3) for length in lengths)

    def targets(self, inputs: dict[str, torch.Tensor], items: Sequence[Features]) -> dict[str, torch.Tensor]:
        ids = inputs["input_ids"]
        hidden = (torch.arange(ids.shape[1]) % 3 == 0) & inputs["attention_mask"].bool()
        return {"labels": ids.masked_fill(~hidden, -100), "input_ids": ids.masked_fill(hidden, 1)}

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        asked = batch.inputs
        logits = model(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"]).logits
        total = nn.functional.cross_entropy(logits.float().flatten(0, 1), asked["labels"].flatten(), reduction="sum")
        return Loss(total, batch.count)


class Kinds(_Read):
    """The class of a row follows from its length."""

    @property
    def head(self) -> Head:
        return Head("sequence_classification", self.options.labels)

    def count(self, lengths: list[int]) -> int:
        return len(lengths)

    def encode(self, row: Row, processor: Any) -> Features:
        kind = len(row["output"]) % len(self.options.labels)
        return {**super().encode(row, processor), "kind": np.array([kind], np.int32)}

    def targets(self, inputs: dict[str, torch.Tensor], items: Sequence[Features]) -> dict[str, torch.Tensor]:
        return {"labels": torch.tensor([int(item["kind"][0]) for item in items])}

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        asked = batch.inputs
        logits = model(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"]).logits
        return Loss(nn.functional.cross_entropy(logits.float(), asked["labels"], reduction="sum"), batch.count)


def facts(relation: str, limit: int) -> str:
    """A data set of a few rows."""
    chosen = f'languages = "en", templates_per_fact = 1, relations = "{relation}", limit = {limit}'
    return f'{{ use = "world_facts", {chosen} }}'


def stage(name: str, objective: str, relation: str, more: str = "") -> str:
    """A stage's table."""
    return f"""
[[stage]]
name = "{name}"
objective = {objective}
{more}
[stage.data]
train = {facts(relation, 8)}
test = {facts(relation, 4)}
"""


def headed(*stages: str, architecture: str = "bert", adaptation: str = '{ use = "full" }', more: str = "") -> str:
    """A recipe of these stages over a tiny model."""
    tied = "" if architecture == "bert" else "tie_embeddings = true\n"
    return f"""
name = "headed"
seed = 3
adaptation = {adaptation}
[model]
use = "scratch"
architecture = "{architecture}"
hidden_size = 16
layers = 1
heads = 2
vocabulary_size = 300
{tied}[training]
steps = 4
batch_size = 4
learning_rate = 3e-3
checkpoint_every = 2
log_every = 1
precision = "fp32"
[data]
overlap = "allow"
[[evaluator]]
use = "perplexity"
{more}
{"".join(stages)}
"""
