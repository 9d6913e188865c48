"""A kit for plugin authors: toy models and data, contexts, and the conformance suite that every variant passes."""

from ftk.testing.toys import toy_context, toy_examples, toy_model, toy_rows, toy_task, toy_tokenizer

__all__ = ["toy_context", "toy_examples", "toy_model", "toy_rows", "toy_task", "toy_tokenizer"]
