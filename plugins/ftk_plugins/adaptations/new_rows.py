"""Trains the rows that new tokens have in a model's embedding and output layer, and no other row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from ftk import UserError
from ftk.parts import CHUNK_ELEMENTS, Adaptation, Drift, State
from ftk_plugins.adaptations.named import take_back

NAME = "new_rows"
"""Under which the trained rows stand in the module that owns their table."""


class NewRows(Adaptation):
    """The rows are parameters of their own, in float32; the tables are not touched before :meth:`merge`.

    Wherever a table is used, what it gives of a new token is replaced: its vector in the embedding, its logit in the
    output layer. So neither a gradient nor an optimizer state of a whole table is ever made. Tables that are tied are
    one, with one set of rows. The entries of an output layer's bias stay as they are.

    Args:
        owner: the adaptation beside which this stands, for messages.
        taken: the names of modules that are adapted or trained in another way.
    """

    def __init__(self, owner: str, taken: Collection[str]) -> None:
        self._owner, self._taken = owner, taken
        self._tables: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        self._homes: dict[str, nn.Module] = {}
        self._hooks: list[Any] = []
        self._shares: dict[int, float] = {}
        self._off = False

    def attach(self, model: Any) -> nn.Module:
        """Make the rows, and have every module that uses a table use them.

        Raises:
            UserError: the model has no new tokens, its embedding does more than to look up, or a table is trained in
                another way.
        """
        ids = getattr(model, "new_token_ids", ())
        if not ids:
            raise UserError(
                f"adaptation `{self._owner}`: the model has no new tokens", "Name them in [model]: `new_tokens`."
            )
        self._first, self._stop, self._off, self._shares = ids[0], ids[-1] + 1, False, {}
        output = model.get_output_embeddings()
        tables = [model.get_input_embeddings().weight, *([output.weight] if output is not None else [])]
        for table in {id(table): table for table in tables}.values():
            self._take(model, table)
        module: nn.Module = model
        return module

    def _take(self, model: nn.Module, table: nn.Parameter) -> None:
        users = {name: module for name, module in model.named_modules() if module._parameters.get("weight") is table}
        home = next(iter(users))
        for name in users:
            if any(f"{name}.".startswith(f"{other}.") for other in self._taken):
                raise UserError(
                    f"adaptation.new_tokens: {name} is adapted or trained whole by another option",
                    "Leave it out of `targets` and `modules_to_save`, or leave `new_tokens` out.",
                )
        rows = nn.Parameter(table[self._first : self._stop].detach().float().clone())
        users[home].register_parameter(NAME, rows)
        self._tables[f"{home}.weight"], self._homes[home] = (table, rows), users[home]
        for name, module in users.items():
            if isinstance(module, nn.Embedding):
                if type(module).forward is not nn.Embedding.forward and not hasattr(module, "embed_scale"):
                    raise UserError(
                        f"adaptation.new_tokens: {name}, a {type(module).__name__}, does more than to look up vectors",
                        f'Train it whole: modules_to_save = ["{name}"].',
                    )
                hook = partial(self._look_up, table, rows)
            else:
                hook = partial(self._multiply, table, rows)
            self._hooks.append(module.register_forward_hook(hook, with_kwargs=True))

    def _effective(self, table: nn.Parameter, rows: nn.Parameter) -> Tensor:
        share = self._shares.get(id(table), 1.0)
        if share == 1:
            return rows
        start = table[self._first : self._stop].detach().float()
        return start + share * (rows - start)

    def _look_up(
        self, table: nn.Parameter, rows: nn.Parameter, module: Any, args: Any, kwargs: Any, output: Tensor
    ) -> Tensor:
        if self._off or self._shares.get(id(table)) == 0:
            return output
        ids = args[0] if args else kwargs["input"]
        inside = (ids >= self._first) & (ids < self._stop)
        own = embedding((ids - self._first).clamp(0, self._stop - self._first - 1), self._effective(table, rows))
        own = own.to(output.dtype) * getattr(module, "embed_scale", 1.0)
        return torch.where(inside[..., None], own.to(output.dtype), output)

    def _multiply(
        self, table: nn.Parameter, rows: nn.Parameter, module: Any, args: Any, kwargs: Any, output: Tensor
    ) -> Tensor:
        if self._off or self._shares.get(id(table)) == 0:
            return output
        hidden = args[0] if args else kwargs["input"]
        bias = None if module.bias is None else module.bias[self._first : self._stop].to(hidden.dtype)
        own = linear(hidden, self._effective(table, rows).to(hidden.dtype), bias)
        output[..., self._first : self._stop] = own
        return output

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """One group, which never decays, as no embedding does."""
        return [{"params": list(self.weights().values()), "lr": lr, "weight_decay": 0.0}]

    def weights(self) -> Mapping[str, nn.Parameter]:
        """The rows by name."""
        return {f"{name.removesuffix('.weight')}.{NAME}": rows for name, (_, rows) in self._tables.items()}

    def drift(self) -> Mapping[str, Drift]:
        return {
            name: RowsDrift(table, rows, self._first, self._shares.get(id(table), 1.0))
            for name, (table, rows) in self._tables.items()
        }

    @contextmanager
    def reference(self) -> Iterator[None]:
        before, self._off = self._off, True
        try:
            yield
        finally:
            self._off = before

    def scale_each(self, share: Callable[[str], float]) -> None:
        self._shares = {id(table): share(name) for name, (table, _) in self._tables.items()}

    def export(self, directory: Path) -> None:
        """Nothing of its own: whoever this stands beside writes it."""

    def peft_tensors(self) -> dict[str, Tensor]:
        """The rows as they act now, as PEFT names them in an adapter."""
        return {
            f"{name.removesuffix('.weight')}.token_adapter.trainable_tokens_delta": self._effective(table, rows)
            for name, (table, rows) in self._tables.items()
        }

    def peft_indices(self) -> dict[str, list[int]]:
        """The numbers of the new tokens by the module that has their rows, as PEFT's configs have them."""
        return {name: list(range(self._first, self._stop)) for name in self._homes}

    @torch.no_grad()
    def merge(self) -> None:
        """Write the rows into their tables, and leave the modules as they were."""
        for table, rows in self._tables.values():
            table[self._first : self._stop] = self._effective(table, rows).to(table.dtype)
        for hook in self._hooks:
            hook.remove()
        for module in self._homes.values():
            del module._parameters[NAME]
        self._tables, self._homes, self._hooks = {}, {}, []

    def state_dict(self) -> State:
        return {name: rows.detach() for name, rows in self.weights().items()}

    def load_state_dict(self, state: State) -> None:
        take_back(self.weights(), state)
        self._shares = {}


class RowsDrift(Drift):
    """Some rows of a table minus what they were; the others have not moved.

    Args:
        table: as it was.
        moved: its rows from ``first`` on, as they are now.
        first: the number of the first of them.
        share: of the drift, that counts.
    """

    def __init__(self, table: nn.Parameter, moved: nn.Parameter, first: int, share: float) -> None:
        self._table, self._moved, self._first, self._share = table, moved, first, share

    @property
    def weight(self) -> Tensor:
        return self._table

    def chunks(self, elements: int = CHUNK_ELEMENTS) -> Iterator[tuple[int, int]]:
        """Over the rows that can move alone."""
        last, step = self._first + len(self._moved), max(1, elements // self._table.shape[1])
        for start in range(self._first, last, step):
            yield start, min(start + step, last)

    @torch.no_grad()
    def rows(self, start: int, stop: int) -> Tensor:
        drift = torch.zeros((stop - start, *self.shape[1:]), dtype=torch.float32, device=self._table.device)
        low, high = self._within(start, stop)
        if low < high:
            now, was = self._moved[low - self._first : high - self._first], self._table[low:high]
            drift[low - start : high - start] = self._share * (now.float() - was.float())
        return drift

    @torch.no_grad()
    def pull_back(self, start: int, stop: int, gradient: Tensor) -> None:
        low, high = self._within(start, stop)
        if self._moved.grad is None:
            self._moved.grad = torch.zeros_like(self._moved)
        if low < high:
            pulled = self._share * gradient[low - start : high - start]
            self._moved.grad[low - self._first : high - self._first] += pulled

    def _within(self, start: int, stop: int) -> tuple[int, int]:
        return max(start, self._first), min(stop, self._first + len(self._moved))
