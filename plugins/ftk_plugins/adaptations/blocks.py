"""Where a transformer's blocks are: how far each weight stands from the model's output."""

from __future__ import annotations

from torch import nn

from ftk import UserError
from ftk.parts import weight_kinds

LEAST = 10
"""A list of modules with less than this part of the largest list's weights is no stack of blocks."""


def stacks_of(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The stacks of blocks of a model by name: encoder and decoder, or text and image, each by itself.

    A stack is a list of modules that repeats one class, or a few of them, and does not stand within another.
    """
    found: dict[str, list[nn.Module]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and not any(name.startswith(f"{it}.") for it in found):
            blocks = [block for block in module.children() if next(block.children(), None) is not None]
            kinds = {type(block) for block in blocks}
            if blocks and len(blocks) == len(module) and (len(kinds) == 1 or 2 * len(kinds) <= len(blocks)):
                found[name] = blocks
    sizes = {name: sum(_size(block) for block in blocks) for name, blocks in found.items()}
    largest = max(sizes.values(), default=0)
    return {name: blocks for name, blocks in found.items() if sizes[name] and sizes[name] * LEAST >= largest}


def heights_of(model: nn.Module, adaptation: str) -> dict[nn.Parameter, int]:
    """How many blocks there are from each weight to the output, itself counted.

    0 for what stands behind the last block (norm, pooler, head), 1 for the last block, ``n`` for the first of ``n``,
    ``n + 1`` for what stands in front of them (embeddings). A weight outside of all blocks belongs to the stack that
    shares most of its name, and is in front where it comes before that stack. A tied weight stands at the lower end
    of its uses, so that an output layer tied to the embedding is an embedding.

    Args:
        model: the plain model.
        adaptation: the variant's name, for messages.

    Raises:
        UserError: the model has no blocks.
    """
    stacks = stacks_of(model)
    if not stacks:
        raise UserError(
            f"adaptation `{adaptation}`: {type(model).__name__} has no stack of blocks that could be counted",
            "Use the adaptation `full`, which chooses weights by their names.",
        )
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    first = {stack: next(place for place, name in enumerate(names) if name.startswith(f"{stack}.")) for stack in stacks}
    kinds = weight_kinds(model)
    heights: dict[nn.Parameter, int] = {}
    for place, (name, parameter) in enumerate(model.named_parameters(remove_duplicate=False)):
        near = max(_shared(name, stack) for stack in stacks)
        own = [stack for stack in stacks if _shared(name, stack) == near]
        inside = next((stack for stack in stacks if name.startswith(f"{stack}.")), None)
        if inside is not None:
            numbers = list(dict(model.get_submodule(inside).named_children()))
            height = len(numbers) - numbers.index(name.removeprefix(f"{inside}.").partition(".")[0])
        else:
            holder = name.rpartition(".")[0]
            in_front = all(place < first[stack] for stack in own)
            if not holder or any(stack.startswith(f"{holder}.") for stack in stacks):
                in_front = kinds[parameter] == "embedding"  # what a module holds itself is named before all within it
            height = max(len(stacks[stack]) for stack in own) + 1 if in_front else 0
        heights[parameter] = max(height, heights.get(parameter, 0))
    return heights


def _shared(name: str, other: str) -> int:
    """How many parts two names have in common from the left."""
    count = 0
    for one, two in zip(name.split("."), other.split("."), strict=False):
        if one != two:
            break
        count += 1
    return count


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
