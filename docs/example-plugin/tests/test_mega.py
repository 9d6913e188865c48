"""MEGA keeps ftk's contract and its own formula: old and new weigh as their losses do."""

import pytest
import torch
from ftk_mega.mega import Mega
from ftk_mega.options import MegaOptions

from ftk.parts import Gradients, Loss, Task
from ftk.testing import Subject, check_variant, toy_context, toy_model, toy_rows, toy_task

OBJECTIVE = Subject("objective", "instruction").build()


def test_it_keeps_the_contract() -> None:
    check_variant("mitigation", "mega", {"memory": 3, "rows_per_step": 3})


@pytest.mark.parametrize("new", [2.0, 0.5])
def test_the_memorys_gradient_weighs_as_its_loss_over_the_steps(new: float) -> None:
    model, mega, task = _remembering(MegaOptions(memory=8, rows_per_step=8))
    old, reference = _on(model, task)
    given = torch.randn(len(reference), generator=torch.Generator().manual_seed(1))
    gradients = _set_gradients(model, given)
    _step(mega, model, task, gradients, new)
    edited = torch.cat([gradients[name].flatten() for name in gradients])
    torch.testing.assert_close(edited, given + old / new * reference, rtol=1e-3, atol=1e-5)
    assert mega.report() == {"rows": {"earlier": 8}, "weight": pytest.approx(old / new, abs=1e-3)}


@pytest.mark.parametrize(("learned", "alone"), [(0.1, True), (0.01, False)])
def test_a_step_with_nothing_to_learn_serves_the_memory_alone(learned: float, alone: bool) -> None:
    model, mega, task = _remembering(MegaOptions(memory=8, rows_per_step=8, learned=learned))
    _, reference = _on(model, task)
    gradients = _set_gradients(model, torch.ones_like(reference))
    _step(mega, model, task, gradients, new=0.05)
    edited = torch.cat([gradients[name].flatten() for name in gradients])
    assert torch.allclose(edited, reference, rtol=1e-3, atol=1e-5) == alone


def test_the_result_does_not_depend_on_the_micro_batch_size() -> None:
    edited = []
    for size in (1, 8):
        model, mega, task = _remembering(MegaOptions(memory=8, rows_per_step=5))
        gradients = _set_gradients(model, torch.zeros(sum(p.numel() for p in model.parameters())))
        _step(mega, model, task, gradients, 1.0, micro_batch_size=size)
        edited.append(torch.cat([gradients[name].flatten() for name in gradients]))
    torch.testing.assert_close(edited[0], edited[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("memory", "kept"), [(3, 3), (100, 8)])
def test_memory_limits_the_rows_that_are_kept(memory: int, kept: int) -> None:
    _, mega, _ = _remembering(MegaOptions(memory=memory))
    assert mega.report()["rows"] == {"earlier": kept}


def test_rows_per_step_limits_the_rows_that_are_drawn() -> None:
    model, mega, task = _remembering(MegaOptions(memory=8, rows_per_step=5))
    ctx = _context(model, task, micro_batch_size=2)
    assert [len(batch.inputs["labels"]) for _, batch in mega._draw(ctx)] == [2, 2, 1]


def _remembering(options: MegaOptions) -> tuple[torch.nn.Module, Mega, Task]:
    """A model, and MEGA that remembers one earlier task of eight rows."""
    model, task = toy_model(), toy_task(list(toy_rows(8)), OBJECTIVE, "earlier")
    mega = Mega(options)
    mega.remember(task, _context(model, task))
    mega.begin(_context(model, task))
    return model, mega, task


def _context(model, task, **changes):
    return toy_context(model, OBJECTIVE, task=task, earlier=[task], **changes)


def _step(mega, model, task, gradients, new: float, **changes) -> None:
    """A step whose rows have this mean loss, told in two micro-batches."""
    batch = OBJECTIVE.collate(task.train.encoded)
    for share in (0.25, 0.75):
        part = Loss(torch.tensor(2 * share * new * batch.count), batch.count)
        assert mega.penalty(batch, part, _context(model, task)) is None
    mega.edit_gradients(gradients, _context(model, task, **changes))


def _on(model: torch.nn.Module, task: Task) -> tuple[float, torch.Tensor]:
    """The mean loss on all rows of a task and its gradient, flat, by plain autograd."""
    batch = OBJECTIVE.collate(task.train.encoded)
    loss = OBJECTIVE.loss(model, batch, _context(model, task)).total / batch.count
    loss.backward()
    flat = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return loss.item(), flat


def _set_gradients(model: torch.nn.Module, flat: torch.Tensor) -> Gradients:
    start = 0
    for parameter in model.parameters():
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter).clone()
        start += parameter.numel()
    return Gradients(model)
