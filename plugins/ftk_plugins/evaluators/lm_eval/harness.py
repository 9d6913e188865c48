"""The parts of lm-evaluation-harness that are used, imported and called without a trace of it in the process."""

from __future__ import annotations

import io
import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "shots": 1234}
"""Those of the harness's own command, so that scores are the same."""


@contextmanager
def quiet() -> Iterator[None]:
    """Within it the harness says nothing; environment variables are then what they were."""
    environment, logger = dict(os.environ), logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    os.environ["DISABLE_MULTIPROC"] = "1"  # its standard errors would else come from processes forked from this one
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


with quiet():
    import lm_eval.api.task
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager


@contextmanager
def seeded(device: torch.device) -> Iterator[None]:
    """Within it random numbers begin where those of the harness do; the run does not see that any were drawn."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        random.seed(SEEDS["random"])
        np.random.seed(SEEDS["numpy"])
        torch.manual_seed(SEEDS["torch"])
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@lru_cache(maxsize=4)
def task_manager(folder: str | None, builtin: bool) -> Any:
    """What knows the tasks of a folder, and those of the harness, whose files take some seconds to read."""
    return TaskManager(include_path=folder, include_defaults=builtin)


class LiveModel(HFLM):  # type: ignore[misc]
    """The harness's model over one that is there already, with its adapters, in the precision of the run.

    Args:
        model: the live one, in ``eval`` mode.
        tokenizer: its tokenizer, of which a copy is used.
        batch_size: requests in one pass.
        precision: what it computes in; None: float32.
        check_interrupt: called before every pass.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch_size: int,
        precision: torch.dtype | None,
        check_interrupt: Callable[[], None],
    ) -> None:
        self._check_interrupt = check_interrupt
        # The harness ties weights anew, which would undo what an adaptation or a division among processes has done.
        object.__setattr__(model, "tie_weights", lambda *_, **__: None)
        try:
            super().__init__(
                pretrained=model, backend="causal", tokenizer=deepcopy(tokenizer), batch_size=batch_size,
                mixed_precision_dtype=precision,
            )  # fmt: skip
        finally:
            object.__delattr__(model, "tie_weights")

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return super().generate_until(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None) -> Any:
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def _model_call(self, *args: Any, **kwargs: Any) -> Any:
        self._check_interrupt()
        return super()._model_call(*args, **kwargs)

    def _model_generate(self, *args: Any, **kwargs: Any) -> Any:
        self._check_interrupt()
        return super()._model_generate(*args, **kwargs)


def measured(model: LiveModel, tasks: dict[str, Any], groups: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What the harness measures of some tasks, and of groups of them.

    Args:
        model: the live one.
        tasks: by name; each is asked with the examples that its seed draws.
        groups: by name.
        options: of the harness's ``evaluate``.
    """
    for task in tasks.values():
        task.set_fewshot_seed(seed=SEEDS["shots"])
    bar = lm_eval.api.task.tqdm
    lm_eval.api.task.tqdm = lambda items, **_: items
    try:
        found: dict[str, Any] = evaluate(
            lm=model, task_dict={"tasks": tasks, "groups": groups}, bootstrap_iters=1000, log_samples=False, **options
        )
    finally:
        lm_eval.api.task.tqdm = bar
    return found
