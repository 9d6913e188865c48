"""Encoded texts for the tests of token objectives, and their loss by the textbook."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ftk.testing import toy_context, toy_model, toy_tokenizer
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions

TOKENIZER = toy_tokenizer()
TEXTS = ["The sea is wide.", "Salt.", "Birds know the way home, and the way back as well."]


def objective(**options):
    return CausalLM(CausalLMOptions(**options))


def encoded(texts=TEXTS, **options):
    part = objective(**options)
    return part, [part.encode({"text": text}, TOKENIZER) for text in texts]


def brute_force(model, item):
    """The summed loss of one unpadded row, by the textbook."""
    ids = torch.tensor(item["input_ids"][None].astype(np.int64))
    labels = torch.tensor(item["labels"].astype(np.int64))
    return cross_entropy(model(ids).logits[0, :-1].float(), labels[1:], reduction="sum", ignore_index=-100)


CTX = toy_context(toy_model(), objective())
