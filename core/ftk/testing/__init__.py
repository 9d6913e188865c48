"""A kit for plugin authors: toy models and data, contexts, and the suite that every variant passes."""

from ftk.testing.conformance import Case, check_variant, clauses, conformance_cases
from ftk.testing.subject import Subject
from ftk.testing.toys import toy_context, toy_examples, toy_model, toy_rows, toy_task, toy_tokenizer

__all__ = [
    "Case", "Subject", "check_variant", "clauses", "conformance_cases", "toy_context", "toy_examples",
    "toy_model", "toy_rows", "toy_task", "toy_tokenizer",
]  # fmt: skip
