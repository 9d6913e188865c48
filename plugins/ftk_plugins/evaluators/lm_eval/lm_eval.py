"""Tasks of lm-evaluation-harness, measured with the model as it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftk import UserError, did_you_mean
from ftk.parts import Context, Evaluator, Metric, Task
from ftk_plugins.evaluators.lm_eval.harness import LiveModel, measured, quiet, seeded, task_manager
from ftk_plugins.evaluators.lm_eval.options import LmEvalOptions

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Asked:
    """What one name of the recipe stands for: tasks, and groups of them, by name."""

    name: str
    tasks: Mapping[str, Any]
    groups: Mapping[str, Any]


class LmEval(Evaluator):
    """Measures tasks of the harness; their data sets are read when the evaluator is made."""

    def __init__(self, options: LmEvalOptions) -> None:
        """Find the tasks and read their data.

        Raises:
            UserError: there is no such task, its data cannot be read, or it cannot be asked so.
        """
        self.options = options
        if options.folder is not None and not Path(options.folder).is_dir():
            raise UserError(f"lm_eval: there is no folder `{options.folder}`", "mend the option `folder`")
        with quiet(), seeded(torch.device("cpu")):
            self._asked = [self._load(name) for name in options.tasks]

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``TASK/METRIC`` of every task, of a group what the harness makes of its tasks.

        Raises:
            UserError: a chat template is asked for, and there is none.
        """
        tokenizer = getattr(ctx.processor, "tokenizer", ctx.processor)
        if self.options.chat_template and not tokenizer.chat_template:
            raise UserError("lm_eval: the model has no chat template", "leave out `chat_template`")
        precision = PRECISIONS[ctx.precision]
        with quiet(), seeded(ctx.device):
            live = LiveModel(model, tokenizer, self.options.batch_size, precision, ctx.check_interrupt)
            found = measured(
                live,
                {name: each for one in self._asked for name, each in one.tasks.items()},
                {name: each for one in self._asked for name, each in one.groups.items()},
                limit=self.options.limit,
                apply_chat_template=self.options.chat_template,
                fewshot_as_multiturn=self.options.chat_template,
            )
        metrics = {metric.name: metric for one in self._asked for metric in _metrics(one, found)}
        return list(metrics.values())

    def _load(self, name: str) -> Asked:
        managers = [task_manager(self.options.folder, False)] if self.options.folder else []
        if not managers or name not in managers[0].all_tasks:
            managers.append(task_manager(self.options.folder, True))
        manager = managers[-1]
        if name not in manager.all_tasks:
            where = f", neither in `{self.options.folder}`" if self.options.folder else ""
            raise UserError(f"lm_eval: the harness has no task `{name}`{where}", did_you_mean(name, manager.all_tasks))
        try:
            found = manager.load(name)
        except Exception as error:  # a task may read its data in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"lm_eval: task `{name}` cannot be loaded: {reason:.300}",
                "its data must be in reach: in a file, in the cache of the hub, or on the hub",
            ) from error
        for each, task in found["tasks"].items():
            self._prepare(each, task)
        return Asked(name, found["tasks"], found.get("groups", {}))

    def _prepare(self, name: str, task: Any) -> None:
        """Set the number of examples, as the harness's command does; refuse what cannot be asked here."""
        if getattr(task, "UNSAFE_CODE", False):
            raise UserError(f"lm_eval: task `{name}` runs code that the model writes", "choose other tasks")
        if getattr(task, "MULTIMODAL", False):
            raise UserError(f"lm_eval: task `{name}` asks about images", "choose tasks of text alone")
        own, shots = task.get_config("num_fewshot"), self.options.shots
        if shots and own == 0:
            raise UserError(
                f"lm_eval: task `{name}` is asked without examples, and the harness keeps to that",
                "leave out `shots`, or measure it with an evaluator of its own",
            )
        if shots is not None or own is None:
            task.set_config(key="num_fewshot", value=shots or 0)


def _metrics(asked: Asked, found: Mapping[str, Any]) -> Iterator[Metric]:
    """The metrics of a task, or of a group; those of its tasks where the harness makes none of the whole."""
    whole = list(_metrics_of(asked.name, found, [name for name in asked.tasks if name != asked.name]))
    yield from whole
    for name in () if whole else asked.tasks:
        yield from _metrics_of(name, found)


def _metrics_of(name: str, found: Mapping[str, Any], parts: Sequence[str] = ()) -> Iterator[Metric]:
    """What the harness measured under a name: ``NAME/METRIC``, and ``NAME/METRIC/FILTER`` where answers are filtered.

    Args:
        name: of a task or a group.
        found: the harness's results.
        parts: the tasks of the group, whose values are told beside its own.
    """
    results = found["results"]
    own = results.get(name, {})
    for key, value in own.items():
        metric, _, way = key.partition(",")
        if not way or metric.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        error = own.get(f"{metric}_stderr,{way}")
        beside = {part: results[part][key] for part in parts if key in results.get(part, {})}
        told = {
            "stderr": float(error) if isinstance(error, int | float) else None,
            "rows": own.get("sample_len"),
            "shots": found["n-shot"].get(name),
            "version": found["versions"].get(name),
            "tasks": beside or None,
        }
        higher = found["higher_is_better"].get(name, {}).get(metric)
        yield Metric(
            f"{name}/{metric}" if way == "none" else f"{name}/{metric}/{way}",
            float(value),
            higher is not False,  # where the harness does not say
            {key: value for key, value in told.items() if value is not None},
        )
