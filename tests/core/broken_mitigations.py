"""Mitigations that each break one clause of the contract."""

from __future__ import annotations

import random

from ftk.parts import Knob, Mitigation, Source


class Idle(Mitigation):
    def __init__(self, options):
        self.options = options


class GlobalRandomness(Idle):
    def edit_gradients(self, gradients, ctx):
        for name in gradients:
            gradients[name].mul_(random.choice((0.0, 1.0)))


class Forgetful(Idle):
    """Counts its steps, and does not count them in its state."""

    steps = 0

    def edit_gradients(self, gradients, ctx):
        self.steps += 1
        for name in gradients:
            gradients[name].add_(float(self.steps))


class IdleKnob(Idle):
    """Has a knob of which nothing depends, and does not say so."""

    knob = Knob(1.0)

    def edit_gradients(self, gradients, ctx):
        pass


class OneTaskOnly(Idle):
    def begin(self, ctx):
        (self.earlier,) = ctx.earlier


class RehearsesLess(Idle):
    """Keeps a number for each weight, and for each bias alone when it rehearses."""

    kept: dict = {}

    def remember(self, task, ctx):
        self.kept = {name: weight.detach().clone() for name, weight in ctx.model.named_parameters()}

    def rehearse(self, task, ctx):
        self.remember(task, ctx)
        self.kept = {name: weight for name, weight in self.kept.items() if weight.ndim == 1}

    def state_dict(self):
        return self.kept

    def load_state_dict(self, state):
        self.kept = state


class RemembersInMemory(Idle):
    """What it remembers is not in its state."""

    rows = 0

    def remember(self, task, ctx):
        self.rows = len(task.train)

    def edit_gradients(self, gradients, ctx):
        for name in gradients:
            gradients[name].add_(float(self.rows))


class LeavesAHook(Idle):
    def begin(self, ctx):
        ctx.model.register_forward_hook(lambda module, args, output: None)


class Freezes(Idle):
    def finish(self, ctx):
        next(p for p in ctx.model.parameters() if p.requires_grad).requires_grad_(False)


class OtherShare(Idle):
    def sources(self, ctx):
        return [Source("s", ctx.earlier[0].train.items, 0.5, ctx.objective)]


class MeanPenalty(Idle):
    def penalty(self, batch, loss, ctx):
        return loss.total / loss.count


class BreaksGradients(Idle):
    def edit_gradients(self, gradients, ctx):
        for name in gradients:
            gradients[name].div_(0.0)


class EditsWhatItReads(Idle):
    def read_gradients(self, gradients, ctx):
        for name in gradients:
            gradients[name].mul_(2.0)


class MovesWeights(Idle):
    def edit_gradients(self, gradients, ctx):
        next(iter(gradients.parameters().values())).add_(1.0)


class SetState(Idle):
    def finish(self, ctx):
        self.seen = {1, 2}

    def state_dict(self):
        return {"seen": getattr(self, "seen", None)}

    def load_state_dict(self, state):
        if state.keys() != {"seen"}:
            raise ValueError("unknown")


class TakesAnything(Idle):
    def begin(self, ctx):
        pass

    def load_state_dict(self, state):
        pass
