"""Parts that each break one clause of the contract, so that tests can see the conformance suite find it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch
from datasets import Dataset

from ftk.parts import DatasetSource, Evaluator, Loaded, Metric, Note, Tally, Transform
from ftk.plugin.options import Options
from ftk_plugins.models.scratch.scratch import Scratch
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.instruction.instruction import Instruction


class MeanLoss(Instruction):
    def loss(self, model, batch, ctx):
        found = super().loss(model, batch, ctx)
        return replace(found, total=found.total / found.count)


class PaddingIsATarget(Instruction):
    def collate(self, items):
        batch = super().collate(items)
        batch.inputs["labels"].masked_fill_(batch.inputs["input_ids"] == 0, 0)
        return replace(batch, count=int((batch.inputs["labels"][:, 1:] != -100).sum()))


class ShiftedLabels(Instruction):
    def collate(self, items):
        batch = super().collate(items)
        labels = torch.full_like(batch.inputs["labels"], -100)
        labels[:, :-1] = batch.inputs["labels"][:, 1:]
        return replace(batch, inputs={**batch.inputs, "labels": labels})


class KeyErrors(Instruction):
    def encode(self, row, processor):
        row["instruction"].strip()
        return super().encode(row, processor)


class WholePrompt(Instruction):
    def prompt(self, row, processor):
        return super().encode(row, processor)["input_ids"].tolist()


class NoGraph(Instruction):
    def loss(self, model, batch, ctx):
        found = super().loss(model, batch, ctx)
        return replace(found, total=found.total.detach())


class FreezesInLoss(Instruction):
    def loss(self, model, batch, ctx):
        found = super().loss(model, batch, ctx)
        model.train()
        return found


class DropsAChunk(Instruction):
    def loss(self, model, batch, ctx):
        found = super().loss(model, batch, ctx)
        return replace(found, total=found.total / (ctx.loss_chunks or 1))


class DetachesChunks(Instruction):
    def loss(self, model, batch, ctx):
        found = super().loss(model, batch, ctx)
        total = found.total if ctx.loss_chunks == 1 else found.total.detach() + found.total * 0
        return replace(found, total=total)


class SmoothsWhatIsMeasured(Instruction):
    def loss(self, model, batch, ctx):
        found = super().loss(model, batch, ctx)
        return replace(found, total=found.total + ctx.label_smoothing)


class NeverSmooths(Instruction):
    def loss(self, model, batch, ctx):
        return super().loss(model, batch, replace(ctx, label_smoothing=0.0))


class DrawsInPlace(Instruction):
    def draw_targets(self, model, batch, generator):
        drawn = super().draw_targets(model, batch, generator)
        batch.inputs["labels"].copy_(drawn.inputs["labels"])
        return batch


class HalfOfTheTargets(Instruction):
    def all_targets(self, model, batch):
        return [(torch.full((len(batch.inputs["labels"]),), 0.5), batch)]


class PacksInOneRow(CausalLM):
    def join(self, pieces):
        return {name: array for name, array in super().join(pieces).items() if name != "position_ids"}


class VariesInPlace(CausalLM):
    def vary(self, item, processor, rng):
        item["input_ids"][:] = rng.integers(3, 200, len(item["input_ids"]))
        return item


class VariesByItself(CausalLM):
    def vary(self, item, processor, rng):
        return {**item, "input_ids": item["input_ids"] + random.randrange(1000)}


class AugmentsWhatItDraws(CausalLM):
    def augment(self, item, draw, processor, rng):
        other = draw()
        other["input_ids"][:] = item["input_ids"][0]
        return item


class AugmentsTargetsAway(CausalLM):
    def augment(self, item, draw, processor, rng):
        return {**item, "labels": np.where(rng.random(len(item["labels"])) < 0.5, -100, item["labels"])}


class MeanOfBatches(Evaluator):
    def __init__(self, options):
        pass

    def measure(self, model, task, ctx):
        items, size, means = task.test.encoded, ctx.micro_batch_size, []
        for start in range(0, len(items), size):
            batch = task.objective.collate(items[start : start + size])
            means.append(float(task.objective.loss(model, batch, ctx).total) / batch.count)
        return [Metric("loss", sum(means) / len(means), higher_is_better=False)]


class Guesses(MeanOfBatches):
    def measure(self, model, task, ctx):
        return [Metric("loss", float(torch.rand(())), higher_is_better=False)]


class NoNumber(MeanOfBatches):
    def measure(self, model, task, ctx):
        return [Metric("loss", float("nan"), higher_is_better=False)]


class OtherName(MeanOfBatches):
    def measure(self, model, task, ctx):
        return [Metric("nats", 1.0, higher_is_better=False)]


class NotesATensor(MeanOfBatches):
    def notes(self, model, task, ctx):
        return [Note("seen", {"values": torch.ones(2)})]


class ModeLeft(MeanOfBatches):
    def measure(self, model, task, ctx):
        metrics = super().measure(model, task, replace(ctx, micro_batch_size=64))
        model.get_submodule("model").train()
        return metrics


class RandomWeights(Scratch):
    def load(self, head, corpus):
        loaded = super().load(head, corpus)
        with torch.no_grad():
            next(loaded.model.parameters()).add_(torch.randn(()))
        return loaded


class IgnoresTheFolder(Scratch):
    def load_folder(self, folder, head):
        saved = super().load_folder(folder, head)
        with torch.no_grad():
            next(saved.model.parameters()).mul_(0.5)
        return Loaded(saved.model, saved.processor)


class DrawsTheHeadAnew(Scratch):
    def load_folder(self, folder, head):
        loaded = super().load_folder(folder, head)
        with torch.no_grad():
            list(loaded.model.parameters())[-1].normal_()
        return loaded


class AnotherEachTime(Scratch):
    def identity(self):
        return str(random.random())


class BodyWithoutWeights(Scratch):
    def body(self, model):
        return next(module for module in model.modules() if not any(True for _ in module.parameters()))


class OutlinesAnother(Scratch):
    def outline(self, head, corpus):
        other = Scratch(self.options.model_copy(update={"layers": self.options.layers + 1}))
        return other.outline(head, corpus)


class Unordered(DatasetSource):
    def __init__(self, options):
        self.seed = random.random()

    def rows(self, split):
        return Dataset.from_list([{"text": str(self.seed)}])


class SameSplits(DatasetSource):
    def __init__(self, options):
        pass

    def splits(self):
        return ("train", "test")

    def rows(self, split):
        return Dataset.from_list([{"text": "the same"}])


class Nothing(SameSplits):
    def rows(self, split):
        return Dataset.from_list([{"text": "one"}]).select([])


class TellsOnAndOn(SameSplits):
    def __init__(self, options):
        self.tally = Tally()

    def rows(self, split):
        self.tally.dropped("empty")
        return super().rows(split)

    def effects(self):
        return self.tally.effects()


class Shuffles(Transform):
    def __init__(self, options):
        pass

    def apply(self, dataset):
        return dataset.select(torch.randperm(len(dataset)).tolist())


class ForgetsRows(Transform):
    def __init__(self, options):
        self.tally = Tally()

    def apply(self, dataset):
        self.tally.dropped("shorter", rows=1)
        return dataset.select(range(len(dataset) - 2))

    def effects(self):
        return self.tally.effects()


class NoOptions(Options):
    """Nothing to choose."""


class LossOptions(Options):
    """Nothing to choose, and a metric."""

    def metrics(self):
        return ("loss",)


class GroundingOptions(Options):
    def withheld(self):
        return ("flying",)


class WithoutDrift(Options):
    def withheld(self):
        return ("weight-drift",)


class BareOptions(Options):
    size: int = 3


class LooseOptions(Options):
    model_config = {"extra": "ignore"}
