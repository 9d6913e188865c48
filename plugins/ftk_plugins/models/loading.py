"""What the model sources share: reading a model and what feeds it with Transformers."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from ftk import UserError
from ftk.parts import Head, Loaded
from ftk_plugins.models.calls import explained, quiet, seeded, shortened
from ftk_plugins.models.common import ModelOptions
from ftk_plugins.models.growing import keep_rows, shorter
from ftk_plugins.models.heads import auto_class, set_labels
from ftk_plugins.models.tokenizers import fit_tokenizer, tokenizer_of

logger = logging.getLogger("ftk.models")


def load_model(
    path: str,
    head: Head,
    *,
    dtype: str,
    attention: str,
    seed: int | None,
    gguf_file: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    complete: bool = False,
    quantization: Any | None = None,
    grows: bool = False,
) -> Any:
    """Read a model that ``save_pretrained`` wrote, or a GGUF file, onto the CPU, in ``eval`` mode.

    Weights that the checkpoint lacks (a new head) are drawn from ``seed`` alone and named in a warning; the
    global random state is left as it was. The model can be saved with ``save_pretrained``.

    Args:
        path: a folder or a hub id.
        head: the head it must have.
        dtype: ``auto`` (as saved) or a name in ``torch``.
        attention: ``auto`` or an implementation that Transformers knows.
        seed: of newly drawn weights.
        gguf_file: a GGUF file in the folder or repository, unpacked into plain weights.
        revision: on the hub.
        trust_remote_code: whether code of the repository may run.
        complete: refuse a checkpoint that lacks weights.
        quantization: how Transformers is to hold the weights of linear layers in fewer bits, on the device that it
            makes them on; None: whole.
        grows: whether, where the head has more labels than the folder ``path`` has rows for, these rows stay.

    Raises:
        UserError: it cannot be found, read, or given this head.
    """
    origin = _origin(gguf_file, revision, trust_remote_code)
    name = f"{path}/{gguf_file}" if gguf_file else path
    with quiet(), explained(name, path, attention):
        config, builder = _configured(path, head, name, origin)
        arguments: dict[str, Any] = {"use_safetensors": True} if gguf_file is None else {}
        if quantization is not None:
            arguments["quantization_config"] = quantization
        if gguf_file is not None:
            # Unpacking is what makes the weights trainable; it also takes off the mark of quantization,
            # with which Transformers would refuse to save the model.
            arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)
        if attention != "auto":
            arguments["attn_implementation"] = attention
        with seeded(seed):
            model, report = builder.from_pretrained(
                path, config=config, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True,
                **origin, **arguments,
            )  # fmt: skip
        if gguf_file is not None:
            model.name_or_path = name  # an adapter says what it stands on, and the folder alone may hold several files
        _refuse_adapter(model, name)
        grown = keep_rows(model, shorter(Path(path), report["mismatched_keys"])) if grows else ()
        model.fresh_weights = _tell_new_weights(model, report, head, name, complete, grown)
        _make_savable(model)
    return model.eval()


def outline_model(
    path: str,
    head: Head,
    *,
    dtype: str,
    attention: str,
    gguf_file: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """The modules that :func:`load_model` would fill, on the device ``meta``: the configuration alone is read.

    Raises:
        UserError: the configuration cannot be found, read, or given this head.
    """
    origin = _origin(gguf_file, revision, trust_remote_code)
    name = f"{path}/{gguf_file}" if gguf_file else path
    with quiet(), explained(name, path, attention):
        config, builder = _configured(path, head, name, origin)
        saved = getattr(config, "dtype", None) if gguf_file is None else None
        arguments: dict[str, Any] = {"dtype": saved or torch.float32 if dtype == "auto" else getattr(torch, dtype)}
        if attention != "auto":
            arguments["attn_implementation"] = attention
        if trust_remote_code:
            arguments["trust_remote_code"] = True
        with torch.device("meta"):
            return builder.from_config(config, **arguments).eval()


def _configured(path: str, head: Head, name: str, origin: dict[str, Any]) -> tuple[Any, Any]:
    """The configuration with the head's labels, and the class that builds the model."""
    config = transformers.AutoConfig.from_pretrained(path, **origin)
    if getattr(config, "quantization_config", None) is not None:
        raise UserError(
            f"{name}: its weights are quantized; they cannot be trained as they are",
            "use the original in full precision, or a GGUF file, which is unpacked on loading",
        )
    builder = auto_class(config, head, name)
    set_labels(config, head, name)
    return config, builder


def load_processor(
    path: str,
    head: Head,
    *,
    gguf_file: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Read the tokenizer, image processor or joint processor that feeds a model with this head.

    Raises:
        UserError: it cannot be found or read, or has no token that could fill up short rows.
    """
    path = os.path.expanduser(path)
    if head.kind == "image_classification":
        reader = "AutoImageProcessor"
    elif head.kind == "encoder" and gguf_file is None:
        reader = "AutoProcessor"
    else:
        reader = "AutoTokenizer"
    with quiet(), explained(f"{path}, its tokenizer or processor", path):
        processor = getattr(transformers, reader).from_pretrained(
            path, **_origin(gguf_file, revision, trust_remote_code)
        )
    tokenizer = tokenizer_of(processor)
    if tokenizer is not None:
        for where in ("is_local", "local_files_only"):
            # They would be saved with it, and tell a tokenizer read back from a stage's folder from one just made.
            tokenizer.init_kwargs.pop(where, None)
    if tokenizer is not None and tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError(
                f"{path}: the tokenizer has neither a padding token nor an end token",
                'name another one: `tokenizer = "…"` in [model]',
            )
        # Padding is masked wherever it stands, so which token fills it up does not matter to the model.
        tokenizer.pad_token = tokenizer.eos_token
        logger.info("%s: the tokenizer has no padding token; its end token %s is used", path, tokenizer.eos_token)
    return processor


def load_saved(folder: Path, head: Head, options: ModelOptions, trust_remote_code: bool = False) -> Loaded:
    """Read the model and processor that a stage saved, bit for bit, in the type they were saved in.

    Labels that the head has beyond those of the saved model get rows that are drawn.
    """
    model = load_model(
        str(folder),
        head,
        dtype="auto",
        attention=options.attention,
        seed=options.seed,
        trust_remote_code=trust_remote_code,
        grows=True,
    )
    processor = load_processor(str(folder), head, trust_remote_code=trust_remote_code)
    fit_tokenizer(model, processor, chosen=False, name=str(folder))
    return Loaded(model, processor)


def _origin(gguf_file: str | None, revision: str | None, trust_remote_code: bool) -> dict[str, Any]:
    origin: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    return origin if gguf_file is None else {**origin, "gguf_file": gguf_file}


def _refuse_adapter(model: Any, name: str) -> None:
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UserError(
            f"{name}: it holds an adapter, not a model",
            "merge the adapter into its model first (`merge_and_unload` of peft) and save that",
        )


def _tell_new_weights(
    model: Any, report: dict[str, Any], head: Head, name: str, complete: bool, grown: Sequence[str]
) -> tuple[str, ...]:
    """Name the weights that were drawn anew, and return their names; those that have but ``grown`` are not.

    Any is an error where all must be there, as a misfit outside the head.
    """
    trunk = f"{model.base_model_prefix}."
    misfits = {key: (tuple(found), tuple(needed)) for key, found, needed in report["mismatched_keys"]}
    for key, (found, needed) in sorted(misfits.items()):
        if "classification" not in head.kind or key.startswith(trunk):
            raise UserError(
                f"{name}: `{key}` has the shape {found}, the configuration says {needed}",
                "the weights and config.json do not belong together; fetch both again",
            )
    new = sorted((set(report["missing_keys"]) | set(misfits)) - set(grown))
    if new and complete:
        raise UserError(f"{name}: it was not trained for {head.kind}, and lacks {', '.join(new)}", "name one that was")
    if new:
        logger.warning("%s: not in the checkpoint, newly drawn and in need of training: %s", name, ", ".join(new))
    if report["unexpected_keys"]:
        unused = ", ".join(sorted(report["unexpected_keys"]))
        logger.info("%s: in the checkpoint, but of no use for %s: %s", name, head.kind, unused)
    return tuple(new)


def _make_savable(model: Any) -> None:
    """Mend a published generation configuration that Transformers would refuse to save after the training."""
    generation = getattr(model, "generation_config", None)
    if generation is None or not model.can_generate():
        return
    try:
        generation.validate(strict=True)
    except ValueError as error:
        # The common fault is a temperature beside `do_sample = false`: it was meant for sampling.
        generation.do_sample = True
        try:
            generation.validate(strict=True)
        except ValueError:
            model.generation_config = transformers.GenerationConfig.from_model_config(model.config)
        logger.warning("the model's generation configuration was mended: %s", shortened(" ".join(str(error).split())))
