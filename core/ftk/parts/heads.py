"""One body under several heads: a model takes the live model's body in the place of its own, and keeps the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ftk.errors import UserError
from ftk.parts.model import Head


@dataclass(frozen=True)
class Common:
    """What all bodies have in common, as paths from the body on.

    Attributes:
        modules: that are the same in all, whole.
        opened: that are not, so that their parts are looked at one by one.
        tensors: of the opened ones.
    """

    modules: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """Whether a weight of this name is in it."""
        return name in self.tensors or any(path == "" or name.startswith(f"{path}.") for path in self.modules)


class Heads:
    """The models of a run's heads, each a complete model, over one body: that of the live one, which is trained.

    The body is what all of them have: the pooler of a classifier whose neighbour has none is the classifier's own.
    Modules of the body are the same objects in every model, so that an adapter in one is in all. A weight of a head
    that is tied to the body is tied to the live body. What is a model's own asks for gradients in the live one alone.

    Args:
        models: a model for each head, without an adaptation; those that are not live take over the live one's body.
        live: the head of the model that is trained.
        processor: feeds all of them.
        others: heads that are trained beside the live one.
        body: gives the part of a model that heads share; see :meth:`ftk.parts.ModelSource.body`.

    Attributes:
        beside: what only the models of the heads that are trained beside the live one have, by the name that each
            weight has beyond the stage.

    Raises:
        UserError: the models have not one body, or nothing of a head with labels is its own.
    """

    def __init__(
        self,
        models: Mapping[Head, Any],
        live: Head,
        processor: Any,
        body: Callable[[Any], nn.Module],
        others: Iterable[Head] = (),
    ) -> None:
        self.models = dict(models)
        self.live = live
        self.processor = processor
        self._body = body
        self._links: list[tuple[nn.Module, str, str]] = []
        self._others = [head for head in dict.fromkeys(others) if head != live]
        if len(self.models) > 1:
            self._join()
        self.beside = {_own_name(head, name): p for head in self._others for name, p in self.own(head).items()}

    @property
    def model(self) -> Any:
        """The live model."""
        return self.models[self.live]

    def following(self, model: Any) -> Heads:
        """The same over what became of the live model: with an adaptation attached, or merged and plain again.

        Raises:
            UserError: the adaptation acts on a module that the other heads' models do not share.
        """
        following = Heads.__new__(Heads)
        following.__dict__.update(self.__dict__, models={**self.models, self.live: model})
        for owner, name, path in self._links:
            owner._modules[name] = model.get_submodule(path)
        for path in self._common.opened if self._links else ():
            module = model.get_submodule(f"{self._prefix}{path}".rstrip("."))
            if module._forward_hooks or module._forward_pre_hooks:
                raise UserError(
                    f"the adaptation acts on a {type(module).__name__} as a whole, and the heads of this run "
                    f"({', '.join(head.kind for head in self.models)}) share but its parts",
                    "choose one that acts on the layers, such as lora, or give every task the same head",
                )
        return following

    def turned(self, head: Head, beside: Iterable[Head] = ()) -> Heads:
        """The same with another head's model as the live one, and others beside it; no adaptation may be attached."""
        if head == self.live and not self._others and set(beside) <= {head}:
            return self
        if hasattr(self.model, "name_or_path"):
            self.models[head].name_or_path = self.model.name_or_path  # where the body lies; an adapter tells of it
        return Heads(self.models, head, self.processor, self._body, beside)

    def over(self, models: Mapping[Head, Any]) -> Heads:
        """The same of other models: copies, on another device or without weights."""
        return Heads(models, self.live, self.processor, self._body, self._others)

    def common_name(self, name: str) -> str:
        """What a weight of the live model, of this name in it, is called whatever head is live.

        In a run of one head that is its name. Else a weight of the body is called by its path from the body on, and a
        weight of a head's own like that of no other head.
        """
        if len(self.models) == 1 or name in self.beside:
            return name
        inner = name.removeprefix(self._prefix)
        if name.startswith(self._prefix) and self._common.has(inner):
            return inner
        return _own_name(self.live, name)

    def former_names(self, names: Iterable[str], first: Head) -> dict[str, str]:
        """What :meth:`common_name` said while the run had one head, or heads fewer labels; with what it says now.

        Args:
            names: of the live model's weights.
            first: the one head that the run had.
        """
        found: dict[str, str] = {}
        if len(self.models) == 1:
            return found
        own = {head: list(self.own(head)) for head in self.models if head != self.live}
        own[self.live] = []
        for name in names:
            if (now := self.common_name(name)) == _own_name(self.live, name):
                own[self.live].append(name)
            elif name not in self.beside:
                found[name] = now
        for head, its in own.items():
            older = [replace(head, labels=head.labels[:count]) for count in range(1, len(head.labels))]
            for name in its:
                former = [_own_name(each, name) for each in older if each not in self.models]
                found |= dict.fromkeys([*former, *([name] if head == first else [])], _own_name(head, name))
        return found

    def own(self, head: Head) -> dict[str, nn.Parameter]:
        """What only the model of a head that is not the live one has, by the names in it."""
        live = {id(parameter) for parameter in self.model.parameters()}
        return {name: p for name, p in self.models[head].named_parameters() if id(p) not in live}

    def _join(self) -> None:
        bodies = {head: self._body(model) for head, model in self.models.items()}
        source = bodies[self.live]
        self._common = Common()
        whole = all(bodies[head] is not model for head, model in self.models.items())
        _compare(list(bodies.values()), "", self._common, whole)
        path = next(path for path, module in self.model.named_modules() if module is source)
        self._prefix = f"{path}." if path else ""
        for head, model in self.models.items():
            if head != self.live:
                self._take_over(model, bodies[head], source)
        shared = {id(parameter) for name, parameter in source.named_parameters() if self._common.has(name)}
        for head, model in self.models.items():
            own = [parameter for parameter in model.parameters() if id(parameter) not in shared]
            if head.labels and not own:
                raise UserError(
                    f"the labels {', '.join(head.labels)} would be learned over another task's: nothing of the model "
                    f"for {head.kind} is a head's own",
                    "the model source must tell in its method `body` which part of a model heads share",
                )
            for parameter in own:
                parameter.requires_grad_(head == self.live and parameter.is_floating_point())

    def _take_over(self, model: nn.Module, body: nn.Module, source: nn.Module) -> None:
        """Put what is common in ``source`` in the place of the same in ``body``, which is of ``model``."""
        places: dict[int, list[tuple[nn.Module, str]]] = {}
        for owner in model.modules():
            for name, child in owner._modules.items():
                places.setdefault(id(child), []).append((owner, name))
        replaced: dict[int, nn.Parameter] = {}
        for path in self._common.modules:
            old, new = body.get_submodule(path), source.get_submodule(path)
            fresh = dict(new.named_parameters(remove_duplicate=False))
            replaced |= {id(p): fresh[name] for name, p in old.named_parameters(remove_duplicate=False)}
            for owner, name in places[id(old)]:
                owner._modules[name] = new
                self._links.append((owner, name, f"{self._prefix}{path}".rstrip(".")))
        for path in self._common.tensors:
            where, _, name = path.rpartition(".")
            owner, giver = body.get_submodule(where), source.get_submodule(where)
            if name in owner._buffers:
                owner._buffers[name] = giver._buffers[name]
            else:
                replaced[id(owner._parameters[name])] = giver.get_parameter(name)
        for path in self._common.opened:
            owner, giver = body.get_submodule(path), source.get_submodule(path)
            if owner is not model and hasattr(owner, "config"):
                owner.config = giver.config  # that of the layers in it, which say by it how they compute attention
        for module in model.modules():
            for name, parameter in module._parameters.items():
                module._parameters[name] = replaced.get(id(parameter), parameter)


def _own_name(head: Head, name: str) -> str:
    """What a weight of a head's own is called beyond a stage."""
    told = "\x1f".join((*head.labels, head.problem or "", *([head.name] if head.name else [])))
    return f"{head.kind}:{hashlib.sha256(told.encode()).hexdigest()[:8]}:{name}"


def _compare(bodies: Sequence[nn.Module], path: str, common: Common, whole: bool = True) -> None:
    """Write down what modules at one place of several models have in common."""
    first = bodies[0]
    if whole and all(_same(first, other) for other in bodies[1:]):
        common.modules.append(path)
        return
    if not first._modules and any(True for _ in first.parameters()):
        raise _unlike(path)
    common.opened.append(path)
    for store in ("_parameters", "_buffers"):
        for name in getattr(first, store):
            tensors = [getattr(body, store).get(name) for body in bodies]
            if all(tensor is not None for tensor in tensors):
                if len({tensor.shape for tensor in tensors}) > 1:
                    raise _unlike(_joined(path, name))
                common.tensors.append(_joined(path, name))
    for name in first._modules:
        children = [child for body in bodies if (child := body._modules.get(name)) is not None]
        if len(children) == len(bodies):
            _compare(children, _joined(path, name), common)


def _same(one: nn.Module | None, other: nn.Module | None) -> bool:
    """Whether two modules are of one make: class, names and shapes, all the way down."""
    if one is other or one is None or other is None:
        return one is other
    return (
        (type(one).__module__, type(one).__qualname__) == (type(other).__module__, type(other).__qualname__)
        and _shapes(one) == _shapes(other)
        and one._modules.keys() == other._modules.keys()
        and all(_same(child, other._modules[name]) for name, child in one._modules.items())
    )


def _shapes(module: nn.Module) -> dict[str, Any]:
    own = {**module._parameters, **module._buffers}
    return {name: None if tensor is None else tensor.shape for name, tensor in own.items()}


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _unlike(path: str) -> UserError:
    return UserError(
        f"the models for the heads of this run have not one body: {path} differs between them",
        "the model source must tell in its method `body` which part of a model heads share",
    )
