"""Turning the friendly sizes of `scratch` into the configuration of any architecture."""

from __future__ import annotations

import dataclasses
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError

from ftk import UserError, did_you_mean
from ftk_plugins.models.calls import quiet
from ftk_plugins.models.scratch.options import ScratchOptions

NAMES = {
    "hidden_size": ("hidden_size",),
    "layers": ("num_hidden_layers", "decoder_layers", "num_decoder_layers"),
    "heads": ("num_attention_heads", "decoder_attention_heads"),
    "kv_heads": ("num_key_value_heads",),
    "intermediate_size": (
        "intermediate_size", "n_inner", "d_ff", "ffn_dim", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim",
    ),
    "max_length": ("max_position_embeddings",),
    "tie_embeddings": ("tie_word_embeddings",),
}  # fmt: skip
"""Under which names architectures keep each size, before ``attribute_map``; all that exist are set."""

TWO_TOWERS = "clip"
"""The architecture that reads texts and images."""
TOWERS = {"text_config": transformers.CLIPTextConfig, "vision_config": transformers.CLIPVisionConfig}

OF_TEXT = {"chat_template", "max_length", "special_tokens", "tie_embeddings", "tokenizer", "vocabulary_size"}

OF_THE_RUN = {
    "transformers_version", "architectures", "dtype", "return_dict", "output_hidden_states",
    "output_attentions", "id2label", "label2id", "problem_type", "num_labels",
}  # fmt: skip


def make_config(options: ScratchOptions, vocabulary: int, tokenizer: Any | None) -> Any:
    """The configuration of ``options.architecture`` in these sizes.

    Args:
        options: the sizes.
        vocabulary: rows of the embedding.
        tokenizer: whose special tokens the model must know; None while there is none yet.

    Raises:
        UserError: an unknown architecture, a key that it does not have, or sizes that do not fit together.
    """
    kind = _architecture(options.architecture)
    fields = _fields(kind)
    values = {**_sizes(options, kind, fields), "vocab_size": vocabulary, **_token_ids(kind, tokenizer)}
    given = _given(options, kind, fields, options.config)
    return _build(kind, {**values, **given}, options.architecture)


def make_image_config(options: ScratchOptions) -> Any:
    """The configuration of an image architecture in these sizes; of how large images are, the table ``config`` tells.

    Raises:
        UserError: as :func:`make_config`; the architecture reads no images; or an option shapes a model of text.
    """
    kind = _known(options.architecture)
    fields = _fields(kind)
    if "image_size" not in fields or "vocab_size" in fields:
        raise UserError(f"model.architecture: `{options.architecture}` is no plain image model", 'for example: "vit"')
    if of_text := sorted(OF_TEXT & options.model_fields_set):
        raise UserError(f"model.{of_text[0]}: it is of models of text, and the objective learns images", "leave it out")
    values = _sizes(options, kind, fields - {"tie_word_embeddings"})
    return _with_squares(
        _build(kind, {**values, **_given(options, kind, fields, options.config)}, options.architecture)
    )


def make_towers_config(options: ScratchOptions, vocabulary: int, tokenizer: Any | None) -> Any:
    """The configuration of CLIP, with both towers in these sizes; ``config`` has a table for each of them.

    Args:
        options: the sizes.
        vocabulary: rows of the embedding of texts.
        tokenizer: as for :func:`make_config`.

    Raises:
        UserError: as :func:`make_config`.
    """
    kind, name = _known(options.architecture), options.architecture
    whole = {key: value for key, value in options.config.items() if key not in TOWERS}
    values = _given(options, kind, {"projection_dim", "logit_scale_init_value", "initializer_factor"}, whole)
    width = values.get("projection_dim", kind().projection_dim)
    for tower, part in TOWERS.items():
        place, table = f"model.config.{tower}", options.config.get(tower, {})
        if not isinstance(table, dict):
            raise UserError(f"{place}: it is the table of a tower's configuration", "write { … }")
        if "projection_dim" in table:
            raise UserError(f"{place}.projection_dim: it is that of both towers", "give it in `config` itself")
        fields = _fields(part) - {"tie_word_embeddings"}
        sizes = {**_sizes(options, part, fields), "projection_dim": width}
        if tower == "text_config":
            sizes |= {"vocab_size": vocabulary, **_token_ids(part, tokenizer)}
        values[tower] = {**sizes, **_given(options, part, fields, table, place)}
    config = _build(kind, values, name)
    _with_squares(config.vision_config)
    return config


def _with_squares(config: Any) -> Any:
    """The same, of images as high as wide."""
    if not isinstance(config.image_size, int):
        raise UserError(f"model.config: image_size = {config.image_size} is no whole number", "give an image's height")
    return config


def _fields(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)} | set(kind.attribute_map)


def _known(name: str) -> Any:
    known = transformers.CONFIG_MAPPING
    if name not in known:
        raise UserError(f"model.architecture: Transformers knows no `{name}`", _near(name, known.keys()))
    return known[name]


def _architecture(name: str) -> Any:
    """The configuration class of a text architecture."""
    known, kind = transformers.CONFIG_MAPPING, _known(name)
    if "vocab_size" not in {field.name for field in dataclasses.fields(kind)}:
        inner = sorted(text for text in (f"{name}_text", f"{name}_text_model") if text in known)
        hint = f"its text model is `{inner[0]}`" if inner else "choose a text model such as llama"
        raise UserError(f"model.architecture: `{name}` is no plain text model", hint)
    return kind


def _sizes(options: ScratchOptions, kind: Any, fields: set[str]) -> dict[str, Any]:
    """The friendly sizes under the architecture's own names."""
    width, heads = options.hidden_size, options.heads
    wanted = {
        "hidden_size": width,
        "layers": options.layers,
        "heads": heads,
        "kv_heads": options.kv_heads or heads,
        "intermediate_size": options.intermediate_size or 4 * width,
        "max_length": options.max_length,
        "tie_embeddings": options.tie_embeddings,
    }
    values: dict[str, Any] = {}
    for option, value in wanted.items():
        present = dict.fromkeys(kind.attribute_map.get(name, name) for name in NAMES[option] if name in fields)
        required = option in ("hidden_size", "layers")
        # Relative positions have no length; `max_length` then bounds the tokenizer alone.
        chosen = option in options.model_fields_set and option != "max_length"
        if not present and (required or chosen):
            raise UserError(
                f"model.{option}: `{options.architecture}` has no such size",
                "leave it out" if not required else "choose an architecture such as llama",
            )
        values.update(dict.fromkeys(present, value))
    if "head_dim" in fields:
        values[kind.attribute_map.get("head_dim", "head_dim")] = width // heads
        if "rope_parameters" in fields and width // heads % 2:
            raise UserError(
                f"model.heads: {heads} heads of a hidden size of {width} are {width // heads} channels wide; "
                f"the rotary positions of `{options.architecture}` need an even width",
                "change `heads` or `hidden_size`",
            )
    return values


def _token_ids(kind: Any, tokenizer: Any | None) -> dict[str, int | None]:
    """The id of every special token the architecture knows of; None for those that the tokenizer lacks."""
    if tokenizer is None:
        return {}  # the architecture's own, some of which must be numbers
    names = {field.name for field in dataclasses.fields(kind) if field.name.endswith("_token_id")}
    ids = {name: getattr(tokenizer, name, None) for name in names | {"pad_token_id", "bos_token_id", "eos_token_id"}}
    if "decoder_start_token_id" in names or kind.is_encoder_decoder:
        ids["decoder_start_token_id"] = ids["pad_token_id"]
    if "forced_eos_token_id" in names:
        ids["forced_eos_token_id"] = ids["eos_token_id"]
    return ids


def _given(
    options: ScratchOptions, kind: Any, fields: set[str], table: dict[str, Any], place: str = "model.config"
) -> dict[str, Any]:
    """The ``config`` table, or one of a tower in it, under the architecture's own names, checked."""
    option_of = {
        kind.attribute_map.get(name, name): option
        for option, names in NAMES.items()
        for name in names
        if name in fields
    }
    given = {}
    for name, value in table.items():
        own = kind.attribute_map.get(name, name)
        if name in OF_THE_RUN or own == "vocab_size" or own.endswith("_token_id"):
            source = "the run" if name in OF_THE_RUN else "the tokenizer"
            raise UserError(f"{place}.{name}: {source} decides it", "leave it out")
        if name not in fields:
            raise UserError(
                f"{place}.{name}: `{options.architecture}` has no such key",
                did_you_mean(name, fields - OF_THE_RUN),
            )
        if option_of.get(own) in options.model_fields_set:
            raise UserError(f"{place}.{name}: `{option_of[own]}` sets it already", "give one of the two")
        given[own] = value
    return given


def _build(kind: Any, values: dict[str, Any], architecture: str) -> Any:
    try:
        with quiet():
            return kind(**values)
    except (StrictDataclassError, ValueError, TypeError, KeyError, ArithmeticError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"model.config: `{architecture}` refuses these sizes: {reason}", "change them") from error


def _near(name: str, known: Any) -> str:
    """The nearest name; a few well-known ones rather than all of several hundred."""
    near = did_you_mean(name, known)
    return near if near.startswith("did you mean") else "for example: llama, gpt2, qwen3, mistral, bert, t5"
