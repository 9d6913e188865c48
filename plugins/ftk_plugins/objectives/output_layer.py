"""Takes the hidden states before a model's output layer out of an ordinary forward pass, in place of its logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .chunked import Curve

LARGE = 1e30
"""A value at which any cap on logits is reached."""


class Unsuitable(Exception):
    """The logits of this model cannot be made outside its forward pass; says why."""


class Tap:
    """A model's output layer while it hands its input over instead of multiplying it.

    The model runs as always, so that whatever is wrapped around it sees an ordinary forward pass; its logits are
    then an empty stand-in. What it does to them after the output layer was found out by a trial.

    Attributes:
        layer: the output layer.
        curve: what the model does to the layer's output.
        hidden: the input of the layer's last call, with its graph.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self.curve = Curve()
        self.hidden: Tensor | None = None
        self.calls = 0
        self._stand_in: Tensor | None = None
        # One object for all calls, so that a compiled model knows it again.
        self._forward = self._take

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Within it the layer hands its input over."""
        self.layer.forward = self._forward  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            del self.layer.forward

    def take(self) -> Tensor:
        """The hidden states of the pass just made; they are not kept here."""
        hidden, self.hidden = self.hidden, None
        assert hidden is not None
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """The logits of hidden states as the model itself gives them, with their graph."""
        scores: Tensor = self.layer(hidden)
        return self.curve(scores)

    def find_curve(self, forward: Callable[[], Tensor]) -> None:
        """See what a forward pass makes of known values in the place of logits.

        Args:
            forward: a pass of one position through the output layer, and the logits that the model gives.

        Raises:
            Unsuitable: the model does more to its logits than to scale and to cap them.
        """
        vocab = self.layer.weight.shape[0]
        small = torch.linspace(-3, 3, vocab) + 0.01  # none of them is zero, whose scale would not show
        large = torch.full_like(small, LARGE)
        given = torch.stack([small, large]).to(self.layer.weight.device)[None]
        self.calls, self._stand_in = 0, given
        try:
            with self.opened():
                found = forward()
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise Unsuitable(f"its forward pass does not go on with other values than its own ({error})") from error
        finally:
            self._stand_in = None
        hidden = self.hidden
        self.hidden = None
        if self.calls != 1 or hidden is None or hidden.shape[:-1] != (1, 1) or found.shape != given.shape:
            raise Unsuitable("its output layer's calls are not known")
        self.curve = _fitted(given, found.to(given.dtype))

    def _take(self, hidden: Tensor) -> Tensor:
        self.hidden = hidden
        if self._stand_in is not None:
            self.calls += 1
            return self._stand_in.clone()  # a model may change its logits in place
        return hidden.new_zeros((*hidden.shape[:-2], 0, self.layer.weight.shape[0]))


_TAPS: WeakKeyDictionary[nn.Module, tuple[nn.Module | None, Tap | None, str]] = WeakKeyDictionary()
"""By model: its output layer when it was looked at, and the tap on it or the reason why there is none."""


def output_layer(base: Any) -> Any:
    """The layer that makes a model's logits; None where the model tells of none."""
    return base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None


def is_watched(*modules: nn.Module | None) -> bool:
    """Whether somebody listens to the calls of one of these, who must then see the real ones; so does FSDP."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for module in modules if module is not None for kind in kinds)


def tap_of(base: Any, forward: Callable[[], Tensor]) -> Tap:
    """The tap on the output layer of a model, found at the first call and kept.

    Args:
        base: the model, under any wrapper and adapter.
        forward: as for :meth:`Tap.find_curve`; runs without a graph, and changes no random state.

    Raises:
        Unsuitable: the logits of this model cannot be made outside its forward pass.
    """
    layer = output_layer(base)
    known = _TAPS.get(base)
    if known is None or known[0] is not layer:
        known = _TAPS[base] = (layer, *_tried(layer, forward))
    _, tap, reason = known
    if tap is None:
        raise Unsuitable(reason)
    return tap


def _tried(layer: Any, forward: Callable[[], Tensor]) -> tuple[Tap | None, str]:
    try:
        _check(layer)
        tap = Tap(layer)
        device = layer.weight.device
        with torch.no_grad(), torch.random.fork_rng([device] if device.type != "cpu" else [], device_type=device.type):
            tap.find_curve(forward)
    except Unsuitable as reason:
        return None, str(reason)
    return tap, ""


def _check(layer: Any) -> None:
    """Raise unless the layer is a plain matrix product; an adapter on it, or a sharded weight, is none."""
    if layer is None:
        raise Unsuitable("it tells of no output layer")
    if type(layer).forward is not nn.Linear.forward or "forward" in layer.__dict__:
        raise Unsuitable(f"its output layer is a {type(layer).__name__}")
    tensors = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    if any(is_traceable_wrapper_subclass(tensor) or not tensor.is_floating_point() for tensor in tensors):
        raise Unsuitable("its output layer's weight is not a plain tensor")


def _fitted(given: Tensor, found: Tensor) -> Curve:
    """The curve through these values; each is looked at by itself, so that an exception for a token is seen."""
    if not torch.isfinite(found).all():
        raise Unsuitable("it leaves tokens out of its logits")
    x, y, end = float(given[0, 0, 0]), float(found[0, 0, 0]), float(found[0, 1, 0])
    cap = end if 0 < end < LARGE / 1e10 else None
    scale = y / x if cap is None else cap * float(torch.atanh(found[0, 0, 0] / cap)) / x
    if abs(scale - 1) < 1e-6:
        scale = 1.0
    curve = Curve(scale, cap)
    if not torch.allclose(curve(given), found, rtol=1e-5, atol=1e-6):
        raise Unsuitable("it does more to its logits than to scale and to cap them")
    return curve
