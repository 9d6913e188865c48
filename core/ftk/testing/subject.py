"""The variant that the conformance suite looks at, with everything it needs around it to be called."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn

from ftk.data.objectives import complete
from ftk.errors import RecipeError
from ftk.parts import (
    Adaptation,
    Context,
    DataMix,
    Evaluator,
    Examples,
    Gradients,
    JointObjective,
    Objective,
    Row,
    Task,
)
from ftk.parts.kinds import PART_OF_KIND
from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import OWN_DISTRIBUTION, Entry, Registry
from ftk.recipe.building import build
from ftk.recipe.levels import Reader
from ftk.recipe.specs import PartSpec
from ftk.testing.toys import toy_context, toy_examples, toy_model, toy_rows, toy_task, toy_tokenizer

COMPANIONS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "objective": ({"use": "instruction"}, {"use": "causal_lm"}, {"use": "preference"}),
    "adaptation": ({"use": "full"}, {"use": "lora", "rank": 4}),
    "evaluator": ({"use": "perplexity"},),
}
"""What stands beside the variant where its author names nothing: ftk's own parts."""


def hold(condition: object, found: str) -> None:
    """Raise ``AssertionError(found)`` unless ``condition``; as ``assert``, but also under ``python -O``."""
    if not condition:
        raise AssertionError(found)


@dataclass(frozen=True)
class Subject:
    """One variant under one choice of options.

    Attributes:
        kind: one of :data:`ftk.plugin.variant.KINDS`.
        use: its name, as a recipe writes it.
        options: its options, as a recipe writes them.
        beside: for each kind, the table of the part that stands beside it in a recipe.
        rows: what the data hold; at least four rows that the objective reads.
        model: makes the starting model, the same each time.
        processor: makes its tokenizer.
        registry: the plugins that are installed.
    """

    kind: str
    use: str
    options: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rows: Sequence[Row] = field(default_factory=lambda: tuple(toy_rows()))
    model: Callable[[], Any] = toy_model
    processor: Callable[[], Any] = toy_tokenizer
    registry: Registry = field(default_factory=load_registry)

    @cached_property
    def entry(self) -> Entry:
        """Who offers the variant."""
        return self.registry.find(self.kind, self.use)

    @cached_property
    def spec(self) -> PartSpec:
        """The variant with its options, read as a recipe reads them."""
        return self._read(self.kind, {"use": self.use, **self.options})

    def build(self) -> Any:
        """A new part."""
        made_of_others: dict[str, type] = {"dataset": DataMix, "objective": JointObjective}
        whole = PART_OF_KIND[self.kind]
        return build(self.spec, made_of_others.get(self.kind, whole) if self.spec.parts else whole)

    def companions(self, kind: str) -> list[PartSpec]:
        """The parts of ``kind`` that can stand beside the variant: those that give what it needs."""
        if kind == self.kind:
            return [self.spec]
        if kind in self.beside:
            return [self._read(kind, self.beside[kind])]
        offered = {name for entry in self.registry.entries(kind) for name in entry.variant.provides}
        needed = set(self.spec.needs()) & offered
        tables = [{**table, "use": f"{OWN_DISTRIBUTION}/{table['use']}"} for table in COMPANIONS[kind]]
        fitting = [spec for spec in (self._read(kind, table) for table in tables) if needed <= spec.provides()]
        hold(
            fitting,
            f"no {kind} of ftk's own provides {', '.join(sorted(needed))}: name one in `beside`",
        )
        return fitting

    def companion(self, kind: str) -> Any:
        """A new part of the first :meth:`companions` of ``kind``."""
        return build(self.companions(kind)[0], PART_OF_KIND[kind])

    def examples(self, objective: Objective, rows: Sequence[Row] | None = None) -> Examples:
        """The rows under an objective."""
        return toy_examples(self.rows if rows is None else rows, objective, self.processor())

    def task(self, name: str, objective: Objective, rows: Sequence[Row] | None = None) -> Task:
        """A task of the rows, measured by the evaluator beside it."""
        evaluators = (cast(Evaluator, self.companion("evaluator")),)
        return toy_task(self.rows if rows is None else rows, objective, name, evaluators, self.processor())

    def context(self, model: nn.Module, objective: Objective, **changes: Any) -> Context:
        """A context for one call, on the CPU in float32."""
        return toy_context(model, objective, **{"processor": self.processor(), **changes})

    @cached_property
    def practised(self) -> dict[str, Tensor]:
        """The weights of a model that has learned every second row, so that it is right only sometimes."""
        objective = self.companion("objective")
        model = self.model()
        train(
            model,
            model.parameters(),
            objective,
            self.context(model, objective),
            self._items(objective)[::2],
            40,
        )
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def _items(self, objective: Objective) -> Sequence[Any]:
        return self.examples(objective).pieces

    def _read(self, kind: str, table: Mapping[str, Any]) -> PartSpec:
        reader = Reader(self.registry)
        spec = reader.part(kind, dict(table), kind)
        if spec is None:
            raise RecipeError(f"{kind} `{table.get('use')}`", reader.problems)
        if kind == "objective" and not spec.parts:
            rows = Dataset.from_list([dict(row) for row in self.rows])
            return complete(spec, build(spec, Objective), rows, "toy")
        return spec


def attached(spec: PartSpec, model: Any) -> tuple[Adaptation, nn.Module]:
    """A new adaptation attached to ``model``; its random start is the same each time."""
    adaptation = build(spec, Adaptation)
    with seeded(0):
        return adaptation, adaptation.attach(model)


def train(
    model: nn.Module, parameters: Any, objective: Objective, ctx: Context, items: Sequence[Any], steps: int
) -> None:
    """Take a few plain optimizer steps on ``items``; leaves the model in ``eval`` mode and no gradients.

    The adaptation of ``ctx`` acts on each step as in a stage.
    """
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    model.train()
    for step in range(steps):
        batch = objective.collate(items)
        with seeded(step):
            torch.autograd.backward(objective.loss(model, batch, ctx).total / batch.count)
        if ctx.adaptation is not None:
            with torch.no_grad():
                ctx.adaptation.edit_gradients(Gradients(model), ctx)
        optimizer.step()
        if ctx.adaptation is not None:
            with torch.no_grad():
                ctx.adaptation.after_step(ctx)
        optimizer.zero_grad()
    model.eval()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it the global generators of Python, numpy and torch start from ``seed``."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and buffers by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def bearing(model: nn.Module) -> dict[str, object]:
    """How a model stands, apart from its weights' values: what a part must leave as it found it."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    found: dict[str, object] = {"gradients enabled": torch.is_grad_enabled()}
    for name, module in model.named_modules():
        found[f"{name or 'the model'}: training mode"] = module.training
        found[f"{name or 'the model'}: hooks"] = sum(len(getattr(module, kind)) for kind in hooks)
    for name, parameter in model.named_parameters():
        found[f"{name}: requires_grad, dtype, shape"] = (
            parameter.requires_grad,
            parameter.dtype,
            parameter.shape,
        )
    return found


def hold_equal(before: Mapping[str, object], after: Mapping[str, object], what: str) -> None:
    """Raise ``AssertionError`` naming the keys whose values, tensors or others, are not exactly the same."""
    differ = [key for key in {**before, **after} if not _same(before.get(key), after.get(key))]
    hold(not differ, f"{what}: {', '.join(differ[:4])}{' ...' if len(differ) > 4 else ''}")


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    return type(one) is type(other) and one == other
