"""What ``[training]`` changes about a model while a stage trains it, and how the model is given back unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ftk.errors import UserError
from ftk.parts import Batch, Context, attention_by
from ftk.plugin.registry import one_line
from ftk.recipe.training import Training

BACKEND = "inductor"
"""What ``compile`` hands the model's graphs to."""


class Switches:
    """Sets what the options ask for on the model that a stage trains.

    Args:
        options: the stage's ``[training]``.
        ctx: the stage's context; its model, with the adaptation attached, is changed until :meth:`release`.
        own: the modules that the models had before; what an adaptation added (the dropout of LoRA) is left alone.

    Raises:
        UserError: an option cannot act on this model or this device; the model is as it was.
    """

    def __init__(self, options: Training, ctx: Context, own: Sequence[nn.Module]) -> None:
        self.options = options
        self._noise: Noise | None = None
        with ExitStack() as stack:
            if options.attention != "auto":
                _set_attention(stack, options.attention, ctx)
            if options.dropout is not None:
                _set_dropout(stack, options.dropout, ctx, own)
            if options.gradient_checkpointing:
                _set_checkpointing(stack, ctx.model)
            if options.neftune_noise is not None:
                embedding = _embedding(ctx.model)
                self._noise = Noise(options.neftune_noise, embedding)
                stack.callback(embedding.register_forward_hook(self._noise.add).remove)
            if options.compile:
                _try_compiler(ctx.device)
                stack.callback(torch.compiler.reset)
            self._stack = stack.pop_all()

    def compiled(self, model: nn.Module) -> nn.Module:
        """The model as training calls it; whoever calls the plain one runs the same weights without a compiler."""
        if not self.options.compile:
            return model
        return cast(nn.Module, torch.compile(model, backend=BACKEND, dynamic=True))

    def around(self, batch: Batch) -> AbstractContextManager[None]:
        """Within it runs the forward pass that trains on ``batch``, and no other: not a reference's, not a score's."""
        return nullcontext() if self._noise is None else self._noise.on(batch)

    def release(self) -> None:
        """Give the model back as it was."""
        self._stack.close()


class Noise:
    """A hook on the input embedding that adds uniform noise (NEFTune, Jain et al. 2023, algorithm 1).

    A position of a row of ``L`` tokens and ``d`` channels gets noise from ±``alpha / sqrt(L·d)``; each of the rows that
    were packed into one counts by itself, and padding gets none. It is drawn from torch's global generator, which is
    seeded for every step.
    """

    def __init__(self, alpha: float, embedding: nn.Embedding) -> None:
        self.alpha = alpha
        self.embedding = embedding
        self._drawn: Tensor | None = None
        self._added = False

    @contextmanager
    def on(self, batch: Batch) -> Iterator[None]:
        """Within it the embedding of this batch is noisy.

        Raises:
            UserError: the batch has no ``input_ids``, or the model has not embedded them as they stand there.
        """
        if "input_ids" not in batch.inputs:
            raise _unheard()
        self._added = False
        lengths, weight = row_lengths(batch)[..., None], self.embedding.weight
        scale = self.alpha / (lengths * weight.shape[1]).clamp(min=1).sqrt() * (lengths > 0)
        uniform = torch.empty(*lengths.shape[:-1], weight.shape[1], device=lengths.device).uniform_(-1, 1)
        self._drawn = uniform.mul_(scale).to(weight.dtype)
        try:
            yield
        finally:
            self._drawn = None
        if not self._added:
            raise _unheard()

    def add(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """The hook. Drawing is not its business, so that a compiler sees nothing but a sum."""
        drawn = self._drawn
        if drawn is None or drawn.numel() != output.numel():
            return output
        self._added = True
        return output + drawn.view(output.shape).to(output.device)


def row_lengths(batch: Batch) -> Tensor:
    """For each position, how many tokens its row has, ``(rows, time) float32``; 0 where padding is."""
    ids, places = batch.inputs["input_ids"], batch.inputs.get("position_ids")
    if places is None and batch.lengths is None:
        return torch.full(ids.shape, ids.shape[1], dtype=torch.float32, device=ids.device)
    if batch.lengths is None:
        kept = torch.ones_like(ids, dtype=torch.bool)
    else:
        ends = torch.tensor(batch.lengths, device=ids.device)
        kept = torch.arange(ids.shape[1], device=ids.device) < ends[:, None]
    starts = torch.zeros_like(kept) if places is None else places == 0
    starts[:, 0] = True
    rows = starts.flatten().cumsum(0) - 1  # a row begins where positions restart; padding is cut off by `kept`
    counts = torch.bincount(rows, weights=kept.flatten().float())
    return (counts[rows].view(ids.shape) * kept).float()


def _set_attention(stack: ExitStack, wanted: str, ctx: Context) -> None:
    model: Any = ctx.model
    if "flash" in wanted and (ctx.device.type != "cuda" or ctx.precision == "fp32"):
        why = "this run computes in fp32" if ctx.device.type == "cuda" else f"this run is on {ctx.device.type}"
        raise UserError(
            f'training.attention = "{wanted}" needs a CUDA device and bf16 or fp16, and {why}',
            'write attention = "sdpa"',
        )
    if not hasattr(model, "set_attn_implementation"):
        raise _cannot(model, "choose how it computes attention", "attention")
    try:
        for each in ctx.all_models():
            stack.enter_context(attention_by(each, wanted))
    except (ImportError, ValueError) as error:
        raise UserError(f'training.attention = "{wanted}": {one_line(error)}', 'write attention = "auto"') from error
    if model.config._attn_implementation != wanted:
        raise _cannot(model, f"compute attention by {wanted}", "attention")


def _set_dropout(stack: ExitStack, share: float, ctx: Context, own: Sequence[nn.Module]) -> None:
    """Every dropout module, and every number that a module, or the configuration, keeps under such a name."""
    places: list[tuple[Any, str]] = []
    for module in own:
        names = ["p"] if isinstance(module, _DropoutNd) else _dropouts(module)
        places += [(module, name) for name in names]
    if not places:
        raise _cannot(ctx.model, "drop anything out", "dropout")
    configs = _configs(nn.ModuleList(ctx.all_models()))
    for owner, name in [*places, *((config, name) for config in configs for name in _dropouts(config))]:
        stack.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, share)


def _dropouts(owner: Any) -> list[str]:
    """The names under which a module or a configuration keeps a probability of dropout."""
    numbers = [name for name, value in vars(owner).items() if type(value) in (int, float)]
    return [name for name in numbers if "dropout" in name or name.endswith("pdrop")]


def _configs(model: nn.Module) -> list[Any]:
    """The configurations of the models in ``model``, each once."""
    found = [module.config for module in model.modules() if hasattr(module, "config")]
    return list({id(config): config for config in found}.values())


def _set_checkpointing(stack: ExitStack, model: Any) -> None:
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise _cannot(
            model, "recompute its activations", "gradient_checkpointing", "a smaller micro_batch_size saves memory too"
        )
    # transformers renamed the pair in 5.23.
    name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{name}_checkpointing_enable")({"use_reentrant": False})
    # What it hangs on the embedding under an adapter is needed for re-entering alone, and stops a compiler.
    model.disable_input_require_grads()
    stack.callback(getattr(model, f"{name}_checkpointing_disable"))


def _embedding(model: Any) -> nn.Embedding:
    try:
        found = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        found = None
    if not isinstance(found, nn.Embedding):
        raise _cannot(model, "be given noise, for it has no embedding of tokens", "neftune_noise")
    return found


def _try_compiler(device: torch.device) -> None:
    """Compile and run next to nothing, so that a compiler that is missing is told of before the work begins."""
    trial = cast(Callable[[Tensor], Tensor], torch.compile(partial(torch.add, 1), backend=BACKEND))
    try:
        trial(torch.ones(2, device=device))
    except Exception as error:
        raise UserError(
            f"training.compile: torch cannot compile for {device.type} here: {one_line(error)}",
            "install a C++ compiler (on Debian: apt install g++), or leave out training.compile",
        ) from error


def _unheard() -> UserError:
    return UserError(
        "training.neftune_noise: the model does not embed the tokens of this objective's rows as they stand in a batch",
        "leave out training.neftune_noise",
    )


def _cannot(model: nn.Module, what: str, option: str, more: str = "") -> UserError:
    return UserError(
        f"training.{option}: a {type(model).__name__} cannot {what}",
        f"leave out training.{option}{f'; {more}' if more else ''}",
    )
