"""A-GEM keeps ftk's contract and its own promise: no step goes against the memory's gradient."""

import pytest
import torch
from ftk_agem.agem import Agem
from ftk_agem.options import AgemOptions

from ftk.parts import Gradients, Task
from ftk.testing import Subject, check_variant, toy_context, toy_model, toy_rows, toy_task

OBJECTIVE = Subject("objective", "instruction").build()


def test_it_keeps_the_contract() -> None:
    check_variant("mitigation", "agem", {"memory": 3, "rows_per_step": 3})


def test_a_gradient_against_the_memory_loses_just_the_part_that_is() -> None:
    model, agem, task = _remembering(AgemOptions(memory=8, rows_per_step=8))
    reference = _gradient_on(model, task)
    sideways = torch.randn(len(reference), generator=torch.Generator().manual_seed(1))
    sideways -= reference * (sideways @ reference) / (reference @ reference)
    gradients = _set_gradients(model, sideways - 0.5 * reference)

    agem.edit_gradients(gradients, _context(model, task))

    edited = torch.cat([gradients[name].flatten() for name in gradients])
    torch.testing.assert_close(edited, sideways, rtol=1e-3, atol=1e-4)
    assert agem.report() == {"rows": {"earlier": 8}, "projected": 1.0}


def test_a_gradient_that_agrees_with_the_memory_passes_unchanged() -> None:
    model, agem, task = _remembering(AgemOptions(memory=8, rows_per_step=8))
    given = 0.1 * _gradient_on(model, task)
    gradients = _set_gradients(model, given)

    agem.edit_gradients(gradients, _context(model, task))

    assert torch.equal(torch.cat([gradients[name].flatten() for name in gradients]), given)
    assert agem.report()["projected"] == 0.0


def test_the_result_does_not_depend_on_the_micro_batch_size() -> None:
    edited = []
    for size in (1, 8):
        model, agem, task = _remembering(AgemOptions(memory=8, rows_per_step=5))
        gradients = _set_gradients(model, -_gradient_on(model, task))
        agem.edit_gradients(gradients, _context(model, task, micro_batch_size=size))
        edited.append(torch.cat([gradients[name].flatten() for name in gradients]))
    torch.testing.assert_close(edited[0], edited[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("memory", "kept"), [(3, 3), (100, 8)])
def test_memory_limits_the_rows_that_are_kept(memory: int, kept: int) -> None:
    _, agem, _ = _remembering(AgemOptions(memory=memory))
    assert agem.report()["rows"] == {"earlier": kept}


def test_rows_per_step_limits_the_rows_that_are_drawn() -> None:
    model, agem, task = _remembering(AgemOptions(memory=8, rows_per_step=5))
    ctx = _context(model, task, micro_batch_size=2)
    assert [len(batch.inputs["labels"]) for _, batch in agem._draw(ctx)] == [2, 2, 1]


def _remembering(options: AgemOptions) -> tuple[torch.nn.Module, Agem, Task]:
    """A model, and A-GEM that remembers one earlier task of eight rows."""
    model, task = toy_model(), toy_task(list(toy_rows(8)), OBJECTIVE, "earlier")
    agem = Agem(options)
    agem.remember(task, _context(model, task))
    agem.begin(_context(model, task))
    return model, agem, task


def _context(model, task, **changes):
    return toy_context(model, OBJECTIVE, task=task, earlier=[task], **changes)


def _gradient_on(model: torch.nn.Module, task: Task) -> torch.Tensor:
    """The gradient of the loss on all rows of a task, flat, by plain autograd."""
    batch = OBJECTIVE.collate(task.train.encoded)
    OBJECTIVE.loss(model, batch, _context(model, task)).total.backward()
    flat = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return flat


def _set_gradients(model: torch.nn.Module, flat: torch.Tensor) -> Gradients:
    start = 0
    for parameter in model.parameters():
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter).clone()
        start += parameter.numel()
    return Gradients(model)
