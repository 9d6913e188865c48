"""A copy without weights has the shapes of its model, and setting a stage up on it leaves no trace."""

from __future__ import annotations

import random

import numpy as np
import torch

from ftk.running.rehearsal import copy_with, undisturbed_draws
from ftk.testing import toy_model


def test_a_copy_without_weights_is_of_the_same_make() -> None:
    model = toy_model()
    copy = copy_with(model, lambda tensor: torch.empty_like(tensor, device="meta"))
    there = {name: (p.shape, p.dtype, p.requires_grad) for name, p in model.named_parameters(remove_duplicate=False)}
    here = {name: (p.shape, p.dtype, p.requires_grad) for name, p in copy.named_parameters(remove_duplicate=False)}
    assert here == there
    assert {tensor.device.type for tensor in (*copy.parameters(), *copy.buffers())} == {"meta"}
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"cpu"}
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (copy.get_output_embeddings().weight is copy.get_input_embeddings().weight) == tied


def test_a_rehearsal_draws_from_no_generator_of_the_run() -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    first = drawn()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    with undisturbed_draws():
        drawn()
        torch.manual_seed(5)
    assert drawn() == first
