"""Collects per-sample weight gradients from one batched backward pass, by hooks on the layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from .sites import Dense, Part, Rule, is_elementwise, rule_for
from .sums import Sums


class NotPerSample(Exception):
    """The gradients of this model cannot be told apart by sample from outside; says where."""


@dataclass
class _Ledger:
    """One weight in one batch: what its layers' calls have given so far, and how many are still to come."""

    open_calls: int = 0
    parts: list[Part] = field(default_factory=list)


class Collector:
    """A context in which backward passes add each sample's gradient to ``sums``.

    No parameter needs ``requires_grad``. Each layer keeps its input until the gradient of its output arrives,
    as autograd itself would; a weight that several layers share is squared when the last of them is heard.

    Args:
        model: what the batches go through.
        weights: the weights by name, found in the model by identity.
        sums: what takes the gradients in, by the same names.

    Raises:
        NotPerSample: a weight belongs to a layer that :mod:`.sites` has no rule for.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor], sums: Mapping[str, Sums]) -> None:
        self.sums = sums
        self._ledgers = {name: _Ledger() for name in weights}
        self._batch = 0
        self._factors: Tensor | None = None
        self._stack = ExitStack()
        self._plain: dict[nn.Module, nn.Parameter] = {}
        self._tried: set[nn.Module] = set()
        self._rules: dict[nn.Module, dict[str, Rule]] = {}
        self._elementwise: dict[nn.Module, str] = {}
        names = {id(weight): name for name, weight in weights.items()}
        for path, module in model.named_modules():
            for key, parameter in module._parameters.items():
                if id(parameter) in names:
                    self._place(path, module, key, names[id(parameter)])
        placed = {name for rules in self._rules.values() for name in rules} | set(self._elementwise.values())
        for name in weights:
            if name not in placed:
                raise NotPerSample(f"no layer owns {name}")

    def _place(self, path: str, module: nn.Module, key: str, name: str) -> None:
        rule = rule_for(module, key)
        if rule is not None:
            self._rules.setdefault(module, {})[name] = rule
        elif key == "weight" and is_elementwise(module):
            self._elementwise[module] = name
        else:
            raise NotPerSample(f"{path} is a {type(module).__name__}")

    def __enter__(self) -> Collector:
        for module, rules in self._rules.items():
            self._stack.callback(module.register_forward_hook(partial(self._after, rules)).remove)
        for module in self._elementwise:
            before = module.register_forward_pre_hook(self._before_elementwise, with_kwargs=True)
            after = module.register_forward_hook(self._after_elementwise)
            self._stack.callback(before.remove)
            self._stack.callback(after.remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for module, weight in self._plain.items():
            module._parameters["weight"] = weight
        self._plain.clear()

    def add(self, loss: Callable[[], Tensor], batch: int, factors: Tensor | None = None) -> None:
        """Run ``loss``, the sum of ``batch`` rows' losses, and its backward pass, and take in the rows' gradients.

        Args:
            loss: as above.
            batch: the number of rows.
            factors: ``(batch,)``, what each row's gradient is multiplied by; None: 1.

        Raises:
            NotPerSample: a layer was handed something whose first dimension is not the batch.
        """
        self._batch, self._factors = batch, factors
        for ledger in self._ledgers.values():
            ledger.open_calls, ledger.parts = 0, []
        with torch.enable_grad():
            total = loss()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
        for name, ledger in self._ledgers.items():
            if ledger.open_calls:  # a call whose output the loss does not depend on
                self._close(name, ledger)

    def _close(self, name: str, ledger: _Ledger) -> None:
        if ledger.parts:
            try:
                self.sums[name].add(ledger.parts)
            except TypeError as error:
                raise NotPerSample(f"{name}: {error}") from error
        ledger.open_calls, ledger.parts = 0, []

    def _heard(self, gradient: Tensor) -> Tensor:
        """A gradient with the rows first, each multiplied by its factor."""
        gradient = gradient.detach()
        return gradient if self._factors is None else gradient * self._factors.view(-1, *[1] * (gradient.ndim - 1))

    def _arrived(self, name: str, part: Part) -> None:
        ledger = self._ledgers[name]
        ledger.parts.append(part)
        ledger.open_calls -= 1
        if ledger.open_calls == 0:
            self._close(name, ledger)

    def _after(self, rules: Mapping[str, Rule], module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Forward hook: keep the input, wait for the gradient of the output."""
        if not args or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
            raise NotPerSample(f"a {type(module).__name__} was called in a form that is not known")
        inputs = args[0].detach()
        if isinstance(module, nn.Embedding) and inputs.shape[0] == 1 < self._batch:
            # Positions that hold for every row: each row gets its own, so that gradients stay apart.
            inputs = inputs.expand(self._batch, *inputs.shape[1:])
            output = output.expand(self._batch, *output.shape[1:])
        if output.ndim < 2 or inputs.shape[0] != self._batch or output.shape[0] != self._batch:
            raise NotPerSample(f"a {type(module).__name__} sees rows that are folded together")
        # What comes before the first covered layer has no graph: it starts here, behind a clone that may be
        # changed in place.
        watched = output if output.requires_grad else output.detach().requires_grad_()
        version = inputs._version

        def hear(gradient: Tensor) -> None:
            if inputs._version != version:
                raise NotPerSample(f"the input of a {type(module).__name__} was changed in place")
            for name, rule in rules.items():
                self._arrived(name, rule(module, inputs, self._heard(gradient)))

        watched.register_hook(hear)
        for name in rules:
            self._ledgers[name].open_calls += 1
        return output if watched is output else watched.clone()

    def _before_elementwise(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook: give every sample its own copy of the weight, and watch the copies."""
        weight = module._parameters["weight"]
        assert weight is not None
        values = args[0] if args else None
        if not isinstance(values, Tensor) or values.ndim < 2 or values.shape[0] != self._batch:
            raise NotPerSample(f"a {type(module).__name__} sees rows that are folded together")
        shape = (self._batch, *[1] * (values.ndim - 2), weight.numel())
        copies = weight.detach().expand(shape).clone()
        self._plain[module] = weight
        if module not in self._tried:
            self._try_copies(module, copies, args, kwargs)
        copies.requires_grad_()
        name = self._elementwise[module]

        def hear(gradient: Tensor) -> None:
            self._arrived(name, Dense(self._heard(gradient).float().flatten(1)))

        copies.register_hook(hear)  # type: ignore[no-untyped-call]
        self._ledgers[name].open_calls += 1
        module._parameters["weight"] = copies  # type: ignore[assignment]  # a tensor in a parameter's place

    def _try_copies(self, module: nn.Module, copies: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise unless the layer computes with the copies exactly what it computes with its weight."""
        with torch.no_grad():
            expected = module.forward(*args, **kwargs)
            module._parameters["weight"] = copies  # type: ignore[assignment]
            try:
                same = torch.equal(expected, module.forward(*args, **kwargs))
            except (RuntimeError, TypeError):
                same = False
            finally:
                module._parameters["weight"] = self._plain[module]
        if not same:
            raise NotPerSample(f"a {type(module).__name__} does not work with a weight for each row")
        self._tried.add(module)

    def _after_elementwise(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if module in self._plain:
            module._parameters["weight"] = self._plain.pop(module)
