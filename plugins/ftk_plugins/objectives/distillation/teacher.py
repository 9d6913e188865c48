"""The teacher of a distillation: loaded, frozen, and held against the student."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from ftk import UserError
from ftk.parts import Head
from ftk_plugins.models.calls import explained, quiet
from ftk_plugins.models.loading import load_model, load_processor, outline_model
from ftk_plugins.models.pretrained.places import Place, find_place, fingerprint
from ftk_plugins.objectives.distillation.options import DistillationOptions
from ftk_plugins.objectives.pictures import pixels_of


def load_teacher(options: DistillationOptions, head: Head, processor: Any) -> nn.Module:
    """The teacher on the CPU, in ``eval`` mode, without gradients.

    Raises:
        UserError: it cannot be found or read, lacks the head, or has other labels or tokens than the student.
    """
    with _named():
        place = _checked(options, head, processor)
        model: nn.Module = load_model(head=head, seed=0, complete=True, **_arguments(options, place))
        return model.requires_grad_(False)


def outline_teacher(options: DistillationOptions, head: Head, processor: Any, student: nn.Module) -> nn.Module:
    """The teacher without its weights, where the student has none: its tensors lie where the student's do.

    Raises:
        UserError: as :func:`load_teacher`, as far as the configuration and the tokenizer tell.
    """
    with _named():
        place = _checked(options, head, processor)
        model: Any = outline_model(head=head, **_arguments(options, place))
    device = next(student.parameters()).device
    model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device))
    model.tie_weights()
    outline: nn.Module = model.requires_grad_(False)
    return outline


def hash_of(options: DistillationOptions) -> str:
    """A hash of what lies in the teacher's folder; "" where it is on the hub.

    Raises:
        UserError: there is neither a folder nor a name on the hub.
    """
    with _named():
        place = find_place(options.teacher, None, revision=options.teacher_revision)
    return fingerprint(place.path, place.gguf_file) if Path(place.path).is_dir() else ""


def _checked(options: DistillationOptions, head: Head, processor: Any) -> Place:
    """Where the teacher is; it is held against what the student reads and tells."""
    place = find_place(options.teacher, None, revision=options.teacher_revision)
    origin: dict[str, Any] = {"gguf_file": place.gguf_file, "revision": options.teacher_revision}
    if head.labels:
        with quiet(), explained(options.teacher, place.path):
            config = transformers.AutoConfig.from_pretrained(
                place.path, **{key: value for key, value in origin.items() if value}
            )
        _hold_labels(config, head, options.teacher)
    hold = _hold_pixels if head.kind == "image_classification" else _hold_tokens
    hold(load_processor(place.path, head, **origin), processor, options.teacher)
    return place


def _arguments(options: DistillationOptions, place: Place) -> dict[str, Any]:
    return {
        "path": place.path, "gguf_file": place.gguf_file, "dtype": options.teacher_dtype, "attention": "auto",
        "revision": options.teacher_revision,
    }  # fmt: skip


def _hold_labels(config: Any, head: Head, name: str) -> None:
    """Refuse a teacher whose outputs stand for other labels, or for the same in another order."""
    known = [str(label) for _, label in sorted((config.id2label or {}).items())]
    unnamed = known == [f"LABEL_{number}" for number in range(len(head.labels))]
    if known != list(head.labels) and not unnamed:
        raise UserError(
            f"{name} tells the labels {', '.join(known)}, in this order; the student learns {', '.join(head.labels)}",
            "name the student's in the teacher's order: `labels` beside `use` in [objective.of]"
            if len(known) == len(head.labels)
            else "choose a teacher that was trained on the student's labels",
        )


def _hold_tokens(teacher: Any, student: Any, name: str) -> None:
    """Refuse a teacher to whom the student's token ids mean something else."""
    known, needed = teacher.get_vocab(), student.get_vocab()
    other = next((token for token, number in needed.items() if known.get(token) != number), None)
    if other is None:
        return
    told = f"which is {known[other]} there and {needed[other]} here" if other in known else "which is unknown there"
    raise UserError(
        f"{name} has another vocabulary than the student: {len(known)} tokens of {type(teacher).__name__}, here "
        f"{len(needed)} of {type(student).__name__}; they differ in {other!r}, {told}",
        "choose a teacher and a student with the same tokenizer, as two sizes of one family",
    )


def _hold_pixels(teacher: Any, student: Any, name: str) -> None:
    """Refuse a teacher whose images are of another size or scale than the student's, which both are given."""
    picture = {"": np.random.default_rng(0).integers(0, 256, (23, 31, 3))}
    one, other = (pixels_of([picture], "", processor)[0] for processor in (teacher, student))
    if one.shape != other.shape or not np.allclose(one, other, atol=1e-3):
        raise UserError(
            f"{name} sees images in another way than the student: {' by '.join(map(str, one.shape[1:]))} where that "
            f"sees {' by '.join(map(str, other.shape[1:]))}, or on another scale of brightness",
            "give both one image processor: `tokenizer` in [model] names the student's",
        )


@contextmanager
def _named() -> Iterator[None]:
    """What is wrong within it is wrong with the teacher."""
    try:
        yield
    except UserError as error:
        raise UserError(f"the teacher: {error.message.removeprefix('model.path: ')}", error.hint) from error
