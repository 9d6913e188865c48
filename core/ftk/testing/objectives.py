"""The contract of objectives: encoding, batches, losses that are sums, rows that do not see each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftk.errors import UserError
from ftk.parts import Batch, ComparingObjective, Features, Objective, lengths_of
from ftk.testing.drawing import augmented_rows_go_with_others, varies_by_its_generator_alone
from ftk.testing.subject import Subject, bearing, hold, hold_equal


def encodes_rows_as_arrays(subject: Subject) -> None:
    """`encode` gives numpy arrays of numbers by name, the same each time; `input_ids` are int32 and 1-D."""
    objective, processor = subject.build(), subject.processor()
    types: dict[str, np.dtype] = {}
    for row in subject.rows:
        features, again = objective.encode(row, processor), objective.encode(row, processor)
        hold(features, "encode returned no features")
        for name, array in features.items():
            hold(
                isinstance(array, np.ndarray) and array.ndim,
                f"{name} is no numpy array of one dimension at least: {array!r:.80}",
            )
            hold(array.size and array.dtype.kind in "iuf", f"{name} is empty or of type {array.dtype}")
            hold(types.setdefault(name, array.dtype) == array.dtype, f"{name} is of one type here and of another there")
            hold(np.array_equal(array, again[name]), f"{name} differs when the row is encoded again")
        ids = features.get("input_ids")
        hold(
            ids is None or (ids.dtype == np.int32 and ids.ndim == 1),
            f"input_ids are {ids.dtype if ids is not None else ''}, not 1-D int32",
        )


def tells_the_texts_of_a_row(subject: Subject) -> None:
    """`texts` gives the plain texts of a row: tokenizers learn from them, equal rows are found by them."""
    objective = subject.build()
    for row in subject.rows:
        texts = list(objective.texts(row))
        hold(all(isinstance(text, str) for text in texts), f"not all of these are texts: {texts!r:.120}")


def a_bad_row_is_a_user_error(subject: Subject) -> None:
    """A row without the columns it needs, or with nothing in them, raises `ftk.UserError`."""
    objective, processor = subject.build(), subject.processor()
    for row in ({}, dict.fromkeys(subject.rows[0])):
        try:
            objective.encode(row, processor)
        except UserError:
            continue
        except Exception as error:
            raise AssertionError(f"the row {row} raises {type(error).__name__}: {error}") from error
        raise AssertionError(f"the row {row} was encoded")


def a_batch_says_what_it_holds(subject: Subject) -> None:
    """`collate` gives tensors whose first dimension is the rows, and counts targets and tokens."""
    objective = subject.build()
    items = items_of(subject, objective)
    batch = objective.collate(items)
    for name, tensor in batch.inputs.items():
        hold(isinstance(tensor, Tensor) and tensor.ndim >= 1, f"{name} is no tensor with rows: {tensor!r:.80}")
        hold(len(tensor) == len(items), f"{name} has {len(tensor)} rows, not {len(items)}")
    singles = [objective.collate([item]) for item in items]
    hold(batch.count == sum(single.count for single in singles), "count is not the sum of the rows' counts")
    hold(batch.tokens == sum(single.tokens for single in singles), "tokens is not the sum of the rows' tokens")
    hold(all(single.count > 0 for single in singles), "a row has no target; `encode` must refuse it")


def a_loss_is_the_sum_of_its_rows(subject: Subject) -> None:
    """The loss of a batch is the sum of its rows': padding is inert, and rows do not influence each other."""
    objective = subject.build()
    if isinstance(objective, ComparingObjective):
        return  # rows do, and `a_step_does_not_depend_on_its_cut` says how
    items = items_of(subject, objective)
    singles = [loss_of(subject, objective, [item]) for item in items]
    for order in (items, items[::-1]):
        hold_close(loss_of(subject, objective, order), torch.stack(singles).sum(), "a batch and its rows one by one")


def encodes_a_batch_as_its_rows(subject: Subject) -> None:
    """`encode_batch` gives what `encode` gives of each row, in their order."""
    objective, processor = subject.build(), subject.processor()
    for rows in (list(subject.rows), list(subject.rows)[::-1], list(subject.rows)[:1]):
        batch = objective.encode_batch(rows, processor)
        hold(len(batch) == len(rows), f"{len(batch)} rows come of {len(rows)}")
        for row, features in zip(rows, batch, strict=True):
            alone = objective.encode(row, processor)
            same = features.keys() == alone.keys() and all(
                np.array_equal(features[name], alone[name]) and features[name].dtype == alone[name].dtype
                for name in alone
            )
            hold(same, f"the row {row!r:.80} is encoded in another way than alone")


def packing_keeps_rows_apart(subject: Subject) -> None:
    """Cut and joined as `packing` says, rows keep their loss: they do not see each other, and keep their targets."""
    objective = subject.build()
    packing, examples = objective.packing(), subject.examples(objective)
    if packing is None:
        return
    items, whole = examples.items, int(lengths_of(examples.encoded).max())
    uncut = packing.length - packing.added
    hold(max(lengths_of(items)) <= packing.length, f"an item has more than {packing.length} positions")
    hold(all(len(items[index]) for index in range(len(items))), "an item has no features")
    if whole <= uncut:  # otherwise a long row was cut, and its windows do not see what was before them
        told = objective.collate(items).count, objective.collate(examples.pieces).count
        hold(told[0] == told[1], f"the items have {told[0]} targets, their rows {told[1]}")
        hold_close(
            loss_of(subject, objective, items), loss_of(subject, objective, examples.pieces), "packed and unpacked rows"
        )


def a_loss_has_a_graph(subject: Subject) -> None:
    """The loss is a finite float32 scalar that reaches the weights; its count is the batch's."""
    objective = subject.build()
    model = subject.model()
    batch = objective.collate(items_of(subject, objective))
    loss = objective.loss(model, batch, subject.context(model, objective))
    hold(
        loss.total.shape == () and loss.total.dtype == torch.float32,
        f"it is {loss.total.dtype} {loss.total.shape}",
    )
    hold(torch.isfinite(loss.total), f"it is {loss.total.item()}")
    hold(loss.count == batch.count, f"its count is {loss.count}, the batch's {batch.count}")
    torch.autograd.backward(loss.total)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    hold(
        gradients and all(torch.isfinite(g).all() for g in gradients),
        "no gradient, or one that is not finite",
    )
    hold(any(g.abs().sum() > 0 for g in gradients), "all gradients are zero")


def a_loss_leaves_the_model_alone(subject: Subject) -> None:
    """Computing a loss changes neither the model's mode nor its hooks, flags or weights."""
    objective = subject.build()
    model = subject.model()
    before = {**bearing(model), **model.state_dict()}
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loss_of(subject, objective, items_of(subject, objective), model)
    hold_equal({**before, **weights}, {**bearing(model), **model.state_dict()}, "changed by the loss")


def token_loss_is_cross_entropy(subject: Subject) -> None:
    """`token-loss`: the loss is the summed negative log-likelihood of `labels`, each at its own token.

    A causal model predicts a label from the tokens before it, another at the label's own place.
    """
    if "token-loss" not in subject.spec.provides():
        return
    objective = subject.build()
    model = subject.model()
    batch = objective.collate(items_of(subject, objective))
    ids, labels = batch.inputs["input_ids"], batch.inputs["labels"]
    read = {name: batch.inputs[name] for name in ("input_ids", "attention_mask") if name in batch.inputs}
    shift = int(objective.head.kind == "causal_lm")
    if shift:
        hold(torch.equal(ids[labels != -100], labels[labels != -100]), "a label does not stand at its own token")
    elif objective.head.kind == "seq2seq_lm":
        read["labels"] = labels  # from which the model itself makes what its decoder reads
    with torch.no_grad():
        logits = model(**read).logits.float()
    expected = torch.nn.functional.cross_entropy(
        logits[:, : labels.shape[1] - shift].flatten(0, 1), labels[:, shift:].flatten(), reduction="sum"
    )
    hold(batch.count == int((labels[:, shift:] != -100).sum()), "count is not the number of labels after the shift")
    hold_close(loss_of(subject, objective, items_of(subject, objective), model), expected, "the loss and cross entropy")


def chunks_change_nothing(subject: Subject) -> None:
    """`loss-chunks`: the loss and its gradients are the same for every ``ctx.loss_chunks``."""
    if "loss-chunks" not in subject.spec.provides():
        return
    objective, model = subject.build(), subject.model()
    batch = objective.collate(items_of(subject, objective))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    totals, norms = [], []
    for chunks in (1, 3):
        loss = objective.loss(model, batch, subject.context(model, objective, loss_chunks=chunks))
        gradients = torch.autograd.grad(loss.total, weights, allow_unused=True)
        totals.append(loss.total.detach())
        norms.append(torch.stack([gradient.norm() for gradient in gradients if gradient is not None]))
    hold_close(totals[0], totals[1], "the loss at once and in chunks")
    hold(torch.allclose(norms[0], norms[1], rtol=1e-3, atol=1e-4), "the gradients at once and in chunks differ")


def smoothing_is_for_training(subject: Subject) -> None:
    """`label-smoothing`: ``ctx.label_smoothing`` changes the loss of a model in training mode, and no other."""
    if "label-smoothing" not in subject.spec.provides():
        return
    objective, model = subject.build(), subject.model()
    batch = objective.collate(items_of(subject, objective))
    contexts = [subject.context(model, objective, label_smoothing=share) for share in (0.0, 0.5)]
    with torch.no_grad():
        plain, same = (objective.loss(model.eval(), batch, ctx).total for ctx in contexts)
        trained, smoothed = (objective.loss(model.train(), batch, ctx).total for ctx in contexts)
    hold_close(plain, same, "the loss in `eval` mode, without smoothing and with it")
    changed = not torch.allclose(trained, smoothed, rtol=1e-6, atol=0)
    hold(changed, "in training mode the loss is the same without smoothing and with it")


def a_prompt_begins_its_row(subject: Subject) -> None:
    """`prompts`: `prompt` is the beginning of the encoded row, without its answer; `answer` is a text."""
    if "prompts" not in subject.spec.provides():
        return
    objective, processor = subject.build(), subject.processor()
    for row in subject.rows:
        prompt, ids = objective.prompt(row, processor), objective.encode(row, processor)["input_ids"].tolist()
        hold(isinstance(prompt, list) and prompt, f"the prompt is {prompt!r:.80}")
        hold(ids[: len(prompt)] == prompt, "the encoded row does not begin with the prompt")
        hold(len(prompt) < len(ids), "the prompt is the whole row and leaves nothing to write")
        answer = objective.answer(row)
        hold(isinstance(answer, str) and answer.strip(), f"the answer is {answer!r}")


def drawn_targets_are_a_new_batch(subject: Subject) -> None:
    """`target-sampling`: `draw_targets` depends on its generator alone and leaves its batch as it is."""
    if "target-sampling" not in subject.spec.provides():
        return
    objective = subject.build()
    model = subject.model()
    batch = objective.collate(items_of(subject, objective))
    before = {name: tensor.clone() for name, tensor in batch.inputs.items()}
    one, same, other = (_draw(objective, model, batch, seed) for seed in (1, 1, 2))
    hold_equal(before, batch.inputs, "changed in the batch that was given")
    hold_equal(one.inputs, same.inputs, "two draws of one seed differ")
    differ = [name for name in one.inputs if not torch.equal(one.inputs[name], other.inputs[name])]
    hold(differ, "draws of two seeds are the same: the targets are not drawn")
    hold(one.count == batch.count, f"the drawn batch counts {one.count} targets, not {batch.count}")


def listed_targets_are_all(subject: Subject) -> None:
    """`target-listing`: probabilities of `all_targets` sum to 1 for each row, and each target is another loss."""
    if "target-listing" not in subject.spec.provides():
        return
    objective, model = subject.build(), subject.model()
    batch = objective.collate(items_of(subject, objective))
    listed, ctx = objective.all_targets(model, batch), subject.context(model, objective)
    rows = len(next(iter(batch.inputs.values())))
    total = torch.stack([chance for chance, _ in listed]).sum(0)
    hold(tuple(total.shape) == (rows,), f"probabilities are of shape {tuple(total.shape)}, not one for each row")
    hold(torch.allclose(total, torch.ones(rows), atol=1e-4), "the probabilities of a row do not sum to 1")
    with torch.no_grad():
        losses = {float(objective.loss(model, each, ctx).total) for _, each in listed}
    hold(len(losses) == len(listed), "two of the targets are the same")


def items_of(subject: Subject, objective: Objective) -> Sequence[Features]:
    return subject.examples(objective).pieces


def loss_of(subject: Subject, objective: Objective, items: Sequence[Features], model: Any = None) -> Tensor:
    chosen = model or subject.model()
    with torch.no_grad():
        return objective.loss(chosen, objective.collate(items), subject.context(chosen, objective)).total


def _draw(objective: Objective, model: torch.nn.Module, batch: Batch, seed: int) -> Batch:
    return objective.draw_targets(model, batch, torch.Generator().manual_seed(seed))


def hold_close(one: Tensor, other: Tensor, what: str) -> None:
    close = torch.allclose(one, other, rtol=1e-4, atol=1e-4)
    hold(close, f"{what}: {float(one):.6g} and {float(other):.6g} nats")


CLAUSES = (
    encodes_rows_as_arrays,
    encodes_a_batch_as_its_rows,
    tells_the_texts_of_a_row,
    a_bad_row_is_a_user_error,
    a_batch_says_what_it_holds,
    a_loss_is_the_sum_of_its_rows,
    varies_by_its_generator_alone,
    augmented_rows_go_with_others,
    packing_keeps_rows_apart,
    a_loss_has_a_graph,
    a_loss_leaves_the_model_alone,
    token_loss_is_cross_entropy,
    chunks_change_nothing,
    smoothing_is_for_training,
    a_prompt_begins_its_row,
    drawn_targets_are_a_new_batch,
    listed_targets_are_all,
)
