"""Which Transformers class carries the head that an objective needs, and the labels of that head."""

from __future__ import annotations

import logging
from typing import Any

import transformers

from ftk import UserError
from ftk.parts import Head

logger = logging.getLogger("ftk.models")

AUTO_CLASSES = {
    "causal_lm": "AutoModelForCausalLM",
    "masked_lm": "AutoModelForMaskedLM",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "encoder": "AutoModel",
    "image_classification": "AutoModelForImageClassification",
}
"""Which Transformers class builds a model with which kind of head."""


def auto_class(config: Any, head: Head, name: str) -> Any:
    """The Transformers class that builds ``config``'s architecture with this head.

    Raises:
        UserError: the architecture has no such head, or would see the tokens that it has to predict.
    """
    if head.kind not in AUTO_CLASSES:
        raise UserError(
            f"{name}: the objective needs a head `{head.kind}`, which no model of Transformers has",
            "choose the model source that the objective is made for",
        )
    wanted = AUTO_CLASSES[head.kind]
    if head.kind == "encoder" and getattr(config, "is_encoder_decoder", False):
        wanted = "AutoModelForTextEncoding"
    builder = getattr(transformers, wanted)
    remote = getattr(config, "auto_map", None) or {}
    if type(config) not in builder._model_mapping and wanted not in remote:
        heads = [
            kind for kind, other in AUTO_CLASSES.items() if type(config) in getattr(transformers, other)._model_mapping
        ]
        raise UserError(
            f"{name}: the objective needs a head for {head.kind}, which `{config.model_type}` does not have",
            f"it has: {', '.join(heads)}" if heads else "choose another model",
        )
    masked = type(config) in transformers.AutoModelForMaskedLM._model_mapping
    decoder = getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", True)
    if head.kind == "causal_lm" and masked and not decoder:
        raise UserError(
            f"{name}: `{config.model_type}` reads in both directions; as a causal language model it would "
            "see the tokens that it has to predict",
            "choose a decoder such as llama, or the objective masked_lm",
        )
    return builder


def set_labels(config: Any, head: Head, name: str) -> None:
    """Write the head's labels, and what they are, into ``config``; without labels the model's own stay."""
    if not head.labels:
        return
    known = [label for _, label in sorted((config.id2label or {}).items())]
    if known != list(head.labels) and sorted(map(str, known)) == sorted(head.labels):
        logger.warning(
            "%s: its head has the same labels in the order %s, the data in %s", name, known, list(head.labels)
        )
    config.num_labels = len(head.labels)
    config.problem_type = head.problem
    config.id2label = dict(enumerate(head.labels))
    config.label2id = {label: index for index, label in enumerate(head.labels)}
