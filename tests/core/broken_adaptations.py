"""Adaptations that each break one clause of the contract."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from ftk.parts import Product
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.own_weights import OwnDrift


class HidesADrift(FullTuning):
    def drift(self):
        return dict(list(super().drift().items())[1:])


class StaleStart(FullTuning):
    def drift(self):
        drifts = super().drift()
        return {name: OwnDrift(drift.weight, self._start[name] + 1) for name, drift in drifts.items()}


class DoublePull(FullTuning):
    def drift(self):
        class Doubled(OwnDrift):
            def pull_back(self, start, stop, gradient):
                super().pull_back(start, stop, 2 * gradient)

        return {name: Doubled(drift.weight, self._start[name]) for name, drift in super().drift().items()}


class TwiceItsProducts(FullTuning):
    def drift(self):
        class Twice(OwnDrift):
            def products(self):
                rows = self.rows(0, self.shape[0])
                return [Product(rows, torch.eye(self.shape[1]), 2.0, None, None)] if rows.ndim == 2 else []

        return {name: Twice(drift.weight, self._start[name]) for name, drift in super().drift().items()}


class OverwritingPull(FullTuning):
    def drift(self):
        class Overwriting(OwnDrift):
            def pull_back(self, start, stop, gradient):
                if self._parameter.grad is not None:
                    self._parameter.grad[start:stop] = 0
                super().pull_back(start, stop, gradient)

        return {name: Overwriting(drift.weight, self._start[name]) for name, drift in super().drift().items()}


class NoReference(FullTuning):
    @contextmanager
    def reference(self):
        yield


class RelativeScale(FullTuning):
    def scale(self, alpha):
        self._end = {}
        super().scale(alpha)


class ForgottenGroup(FullTuning):
    def param_groups(self, model, lr):
        return super().param_groups(model, lr)[:1]


class ThawsInSilence(FullTuning):
    def before_step(self, ctx):
        ctx.model.get_parameter("model.norm.weight").requires_grad_(ctx.step % 2 == 0)
        return False


class NeverThaws(FullTuning):
    def attach(self, model):
        super().attach(model).get_parameter("model.norm.weight").requires_grad_(False)
        return model


class CountsItsSteps(FullTuning):
    """What it trains depends on how often it was called."""

    calls = 0

    def before_step(self, ctx):
        self.calls += 1
        norm = ctx.model.get_parameter("model.norm.weight")
        before = norm.requires_grad
        norm.requires_grad_(self.calls < 5)
        return norm.requires_grad != before


class MergesToTheStart(FullTuning):
    def merge(self):
        self.scale(0.0)
        return super().merge()


class RoundedState(FullTuning):
    def state_dict(self):
        return {name: tensor.bfloat16().float() for name, tensor in super().state_dict().items()}


class MergesToNothing(FullTuning):
    def merge(self):
        return torch.nn.Sequential(super().merge())


class ExportsPickles(FullTuning):
    def export(self, directory):
        (directory / "adapter.bin").write_bytes(b"")


class ChangesTheFunction(FullTuning):
    @torch.no_grad()
    def attach(self, model):
        next(model.parameters()).mul_(2)
        return super().attach(model)
