"""The tokenizer in what feeds a model: its chat template, its padding token, and whether the model has its tokens."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import transformers

from ftk import UserError

logger = logging.getLogger("ftk.models")


def tokenizer_of(processor: Any) -> Any | None:
    """The tokenizer that ``processor`` is or holds; None for one that reads no text."""
    tokenizer = getattr(processor, "tokenizer", processor)
    return tokenizer if isinstance(tokenizer, transformers.PreTrainedTokenizerBase) else None


def set_chat_template(processor: Any, chat_template: str) -> None:
    """Give the tokenizer this chat template: Jinja text, or the path of a file that holds it.

    Raises:
        UserError: there is no such file, no tokenizer, or the text is not a template.
    """
    from jinja2 import TemplateSyntaxError

    tokenizer = tokenizer_of(processor)
    if tokenizer is None:
        raise UserError("model.chat_template: the model reads no text", "leave it out")
    if "{" not in chat_template:
        file = Path(chat_template).expanduser()
        if not file.is_file():
            raise UserError(
                f"model.chat_template: no file {chat_template}",
                "give Jinja text, or the path of a file with it",
            )
        try:
            chat_template = file.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
            raise UserError(f"model.chat_template: {file} cannot be read: {reason}", "give UTF-8 text") from None
    tokenizer.chat_template = chat_template
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise UserError(f"model.chat_template, line {error.lineno}: {error.message}", "mend the template") from error
    except Exception:
        logger.debug("the chat template does not take a single question", exc_info=True)


def fit_tokenizer(model: Any, processor: Any, *, chosen: bool, name: str) -> None:
    """Tell the model the padding token, and see that it has an embedding for every token.

    Args:
        model: the model, changed in place.
        processor: what feeds it.
        chosen: whether the user chose the tokenizer; the model's own may hold tokens that no text uses.
        name: of the tokenizer, for messages.

    Raises:
        UserError: a chosen tokenizer has more tokens than the model has embeddings.
    """
    tokenizer = tokenizer_of(processor)
    if tokenizer is None:
        return
    config = model.config.get_text_config()
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
    needed, rows = vocabulary_rows(tokenizer), _embedding_rows(model)
    if needed > rows:
        message = f"{name}: the tokenizer has {needed} tokens, the model has embeddings for {rows}"
        if chosen:
            raise UserError(message, "choose the tokenizer that the model was trained with")
        logger.warning("%s; a text with one of the others would fail", message)


def vocabulary_rows(tokenizer: Any) -> int:
    """How many rows an embedding needs so that every token id of ``tokenizer`` has one."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _embedding_rows(model: Any) -> int:
    """How many tokens the model has embeddings for."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except NotImplementedError:  # of two towers, neither of which is the model's own for transformers
        return int(model.config.get_text_config().vocab_size)
