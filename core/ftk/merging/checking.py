"""Holds the models of a merge against each other before anything is merged: every problem in one go."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.errors import Problem, RecipeError, UserError
from ftk.merging.adapters import LowRank, adapted
from ftk.merging.folders import FLOATING, Folder, Stored, open_folder, read_header
from ftk.merging.request import MergeRequest
from ftk.parts import MergeMethod

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
HEADS = ("lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight")
"""Output layers of which a model that ties them to its embedding may hold a copy all the same."""
TELLING = 3
"""How many names of one kind a problem tells."""
_SAME = ("model_type", "architectures")
_OF_NO_MATTER = {
    "_name_or_path", "torch_dtype", "dtype", "transformers_version", "use_cache", "name_or_path", "model_type",
    "architectures",
}  # fmt: skip


@dataclass(frozen=True)
class Merged:
    """One weight of the result.

    Attributes:
        name: in the base, or the first model.
        dtype: as what it is written, in the words of safetensors.
        base: the base's, or of models without one the first's; it gives shape and type.
        models: each model's.
        importances: for each model that of every entry, where the method asks.
    """

    name: str
    dtype: str
    base: Stored
    models: tuple[Stored | LowRank, ...]
    importances: tuple[Stored, ...] = ()

    @property
    def copied(self) -> bool:
        """Whether nothing is to be merged: no number with a fraction, or no model that changes the base's."""
        return self.base.dtype not in FLOATING or all(model is self.base for model in self.models)


@dataclass(frozen=True)
class MergePlan:
    """A merge that can be made.

    Attributes:
        request: what was asked.
        method: what merges.
        folders: of the models.
        base: of the base; None where none was named.
        weights: what is written, in the order in which the base's lie on the disk.
        notes: what a user may want to know.
    """

    request: MergeRequest
    method: MergeMethod
    folders: tuple[Folder, ...]
    base: Folder | None
    weights: tuple[Merged, ...]
    notes: tuple[str, ...]

    @property
    def reference(self) -> Folder:
        """Whose config, tokenizer and other files the result has."""
        return self.folders[0] if self.base is None else self.base


def plan_merge(request: MergeRequest, method: MergeMethod) -> MergePlan:
    """Read the headers of all models and hold them against each other.

    Raises:
        RecipeError: everything that is wrong.
    """
    problems = list(_unfit(request, method))
    base = _opened(request.options.base, "base", problems)
    folders = [_opened(model.path, f"models.{n}", problems) for n, model in enumerate(request.models, start=1)]
    found = [folder for folder in folders if folder is not None]
    if not _check_kinds(request, base, found, problems) or len(found) < len(folders):
        raise RecipeError(request.source, problems)
    reference = base or found[0]
    others = [folder for folder in found if folder is not reference and not folder.is_adapter]
    notes = [note for folder in others for note in _held(reference, folder, problems)]
    views = [_view(folder, reference, problems) for folder in found]
    importances = [_importances(model.importances, n, problems) for n, model in enumerate(request.models, start=1)]
    weights = []
    for name, stored in _named(reference).items():
        models = [view.get(name) for view in views]
        if any(model is None for model in models):
            continue  # told by _view
        dtype = DTYPES.get(request.options.dtype, stored.dtype) if stored.dtype in FLOATING else stored.dtype
        given = [table.get(name) for table in importances] if method.importances and stored.dtype in FLOATING else []
        for n, one in enumerate(given, start=1):
            if one is None or one.shape != stored.shape:
                problems.append(Problem(f"models.{n}.importances", f"has none of {name}, or of another shape"))
        weights.append(Merged(name, dtype, stored, tuple(filter(None, models)), tuple(filter(None, given))))
    if problems:
        raise RecipeError(request.source, _shortened(problems))
    return MergePlan(request, method, tuple(found), base, tuple(weights), tuple(notes))


def _unfit(request: MergeRequest, method: MergeMethod) -> Iterator[Problem]:
    """What the method cannot do with what was asked."""
    name, count, options = request.method.variant.name, len(request.models), request.options
    if method.vectors and options.base is None:
        yield Problem(
            "base", f"`{name}` merges what models are more than a base, and there is none", "name it: --base FOLDER"
        )
    if not method.fewest <= count <= (method.most or count):
        most = f" to {method.most}" if method.most and method.most != method.fewest else ""
        yield Problem("models", f"`{name}` merges {method.fewest}{most} models, here are {count}")
    weights = [model.weight for model in request.models if model.weight is not None]
    if weights and not method.shared:
        yield Problem("models", f"`{name}` weighs the models by itself", "leave the weights out")
    if weights and method.shared and not method.vectors and sum(weights) <= 0:
        yield Problem("models", f"the weights sum to {sum(weights):g}, and an average needs a sum above 0")
    given = [model.importances is not None for model in request.models]
    if method.importances and not all(given):
        yield Problem(
            "models",
            f"`{name}` needs to know how important each entry is",
            "name a file for each model: --importances A,B",
        )
    if any(given) and not method.importances:
        yield Problem("models", f"`{name}` does not look at importances", "leave them out")
    out = Path(options.out).expanduser()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        yield Problem("out", f"{options.out} is there already", "name another folder, or delete it")
    elif not out.absolute().parent.is_dir():
        yield Problem("out", f"there is no folder {out.absolute().parent}", "make it first")


def _opened(path: str | None, place: str, problems: list[Problem]) -> Folder | None:
    if path is None:
        return None
    try:
        return open_folder(path)
    except UserError as error:
        problems.append(Problem(place, error.message, error.hint))
        return None


def _check_kinds(request: MergeRequest, base: Folder | None, found: list[Folder], problems: list[Problem]) -> bool:
    """What each folder is; False where they cannot be held against each other."""
    for folder in (*found, *((base,) if base else ())):
        if "quantization_config" in folder.config:
            hint = "load it in 16 or 32 bits and save that"
            problems.append(Problem(folder.given, "is stored in few bits, which cannot be merged", hint))
        few = [name for name, stored in folder.tensors.items() if stored.dtype.startswith("F8")]
        if few:
            problems.append(Problem(folder.given, f"{_told(few)} in 8 bits cannot be merged", "save it in 16 bits"))
    adapters = [folder for folder in found if folder.is_adapter]
    if request.options.adapter_rank is not None and len(adapters) < len(found):
        problems.append(Problem("adapter_rank", "a model's change has no low rank", "of adapters alone one is made"))
    if adapters and request.options.base is None:
        told = adapters[0].config.get("base_model_name_or_path")
        hint = f"{adapters[0].given} names {told}" if told else "name the model that they belong on: --base FOLDER"
        problems.append(Problem("base", "is missing: adapters are merged on their base", hint))
        return False
    if base is not None and base.is_adapter:
        problems.append(Problem("base", f"{base.given} is an adapter", "name the model that it belongs on"))
        return False
    return base is not None or request.options.base is None


def _held(reference: Folder, folder: Folder, problems: list[Problem]) -> Iterator[str]:
    """Problems and notes of two models' configs and vocabularies."""
    for key in _SAME:
        one, other = reference.config.get(key), folder.config.get(key)
        if one != other:
            problems.append(Problem(folder.given, f"its {key} is {other}, that of {reference.given} {one}"))
    keys = sorted({*reference.config, *folder.config} - _OF_NO_MATTER)
    differ = [key for key in keys if reference.config.get(key) != folder.config.get(key)]
    if differ:
        yield f"{folder.given}: other settings than {reference.given}, whose are kept: {_told(differ)}"
    vocabularies = [_vocabulary(each.path) for each in (reference, folder)]
    if None not in vocabularies and vocabularies[0] != vocabularies[1]:
        one, other = (set((vocabulary or {}).items()) for vocabulary in vocabularies)
        told = _told(sorted(str(token) for token, _ in one ^ other))
        reason = f"its vocabulary is not that of {reference.given}: {told}"
        problems.append(Problem(folder.given, reason, "rows of an embedding are merged by their numbers"))


def _vocabulary(path: Path) -> dict[str, int] | None:
    """Every token's number; None where the folder does not tell in ``tokenizer.json``."""
    try:
        table = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = table["model"]["vocab"]
        if isinstance(vocabulary, list):  # of a unigram model: tokens with their scores, in order
            vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
        return {**vocabulary, **{added["content"]: added["id"] for added in table.get("added_tokens", [])}}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _named(folder: Folder) -> Mapping[str, Stored]:
    """A model's weights without copies of what is tied."""
    tied = folder.config.get("tie_word_embeddings", False)
    return {name: stored for name, stored in folder.tensors.items() if not (tied and name in HEADS)}


def _view(folder: Folder, reference: Folder, problems: list[Problem]) -> Mapping[str, Stored | LowRank]:
    """A model's weights by the reference's names."""
    if folder.is_adapter:
        changed, found = adapted(folder, reference)
        problems += found
        return {**_named(reference), **changed}
    own, its = _named(folder), _named(reference)
    if own.keys() ^ its.keys() <= set(HEADS) and own.keys() != its.keys():
        ties = "one ties its output layer to its embedding, the other does not"
        problems.append(Problem(folder.given, f"holds other weights than {reference.given}: {ties}"))
        return own
    for names, what in ((its.keys() - own.keys(), "lacks"), (own.keys() - its.keys(), "has, and it alone,")):
        if names:
            problems.append(Problem(folder.given, f"beside {reference.given} it {what} {_told(sorted(names))}"))
    differ = [name for name in own.keys() & its.keys() if own[name].shape != its[name].shape]
    for name in sorted(differ):
        shapes = (" × ".join(map(str, each.shape)) or "a scalar" for each in (own[name], its[name]))
        problems.append(Problem(folder.given, f"{name} is {next(shapes)}, in {reference.given} {next(shapes)}"))
    kinds = [n for n in own.keys() & its.keys() if (own[n].dtype in FLOATING) != (its[n].dtype in FLOATING)]
    if kinds:
        problems.append(
            Problem(folder.given, f"whole numbers here and others in {reference.given}: {_told(sorted(kinds))}")
        )
    whole = [n for n in own.keys() & its.keys() if its[n].dtype not in FLOATING and n not in (*differ, *kinds)]
    unlike = [name for name in whole if _content(own[name]) != _content(its[name])]
    if unlike:
        told = f"whole numbers that are not those of {reference.given}: {_told(sorted(unlike))}"
        problems.append(Problem(folder.given, told, "there is no mean of them"))
    return own


def _importances(path: str | None, number: int, problems: list[Problem]) -> Mapping[str, Stored]:
    if path is None:
        return {}
    try:
        return read_header(Path(path).expanduser())
    except UserError as error:
        problems.append(Problem(f"models.{number}.importances", error.message, error.hint))
        return {}


def _content(stored: Stored) -> bytes:
    with stored.file.open("rb") as file:
        file.seek(stored.offset)
        return file.read(stored.bytes)


def _told(names: Sequence[str]) -> str:
    more = f" and {len(names) - TELLING} more" if len(names) > TELLING else ""
    return f"{', '.join(names[:TELLING])}{more}"


def _shortened(problems: Iterable[Problem]) -> list[Problem]:
    """The problems, with many of one place told as one."""
    kept: dict[str, list[Problem]] = {}
    for problem in problems:
        kept.setdefault(problem.path, []).append(problem)
    told = []
    for path, those in kept.items():
        told += those[: 2 * TELLING]
        if len(those) > 2 * TELLING:
            told.append(Problem(path, f"and {len(those) - 2 * TELLING} more of this kind"))
    return told


def described(config: Mapping[str, Any]) -> str:
    """A model's class, or its type."""
    return ", ".join(config.get("architectures") or ()) or str(config.get("model_type", "a model"))
