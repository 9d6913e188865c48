"""To the first step of a recipe in a process of its own, against one that only tokenizes the same rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.bench.made_up import QUESTION, write_model, write_recipe
from tests.bench.pairs import Measured, divided


@dataclass(frozen=True)
class Contest:
    """A recipe, and the cache that its runs share."""

    recipe: Path
    cache: Path

    @classmethod
    def over(cls, folder: Path, rows: Path, objective: dict[str, Any]) -> Contest:
        """Made in ``folder`` over these rows."""
        folder.mkdir(exist_ok=True)
        return cls(write_recipe(folder, rows, write_model(folder / "model", rows), objective), folder / "cache")

    def first(self) -> dict[str, Any]:
        """What a run finds that has no cache."""
        shutil.rmtree(self.cache, ignore_errors=True)
        return self.later()

    def later(self) -> dict[str, Any]:
        """What a run finds with the cache as it is."""
        return self._in_a_process("first_step")

    def tokenized(self) -> float:
        """Seconds of ``datasets.map`` alone."""
        seconds: float = self._in_a_process("tokenize")["seconds"]
        return seconds

    def _in_a_process(self, what: str) -> dict[str, Any]:
        environment = {
            **os.environ, "FTK_CACHE": str(self.cache), "HF_DATASETS_CACHE": str(self.recipe.parent / "datasets"),
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.bench.first_step", what, str(self.recipe)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def first_runs(contest: Contest, pairs: int) -> Measured:
    """Runs without a cache, each against ``datasets.map``."""
    alone, runs = [], []
    for _ in range(pairs):
        alone.append(contest.tokenized())
        runs.append(contest.first())
    return _measured(runs, alone)


def later_runs(contest: Contest, pairs: int) -> Measured:
    """Runs that find the cache of one that does not count, all against one ``datasets.map``."""
    contest.first()
    alone = contest.tokenized()
    return _measured([contest.later() for _ in range(pairs)], [alone] * pairs)


def _measured(runs: list[dict[str, Any]], alone: list[float]) -> Measured:
    facts = {"seconds": runs[-1]["seconds"], "datasets_map_seconds": alone[-1], "phases": runs[-1]["phases"]}
    return Measured(divided([run["seconds"] for run in runs], alone), torch.device("cpu"), facts)


def first_step(path: Path) -> dict[str, Any]:
    """Seconds from the start of a run to the end of its first step, when each phase began, and what is in memory."""
    from ftk.events import RunEvent
    from ftk.recipe.reading import recipe_from_table
    from ftk.running.runner import run

    phases: dict[str, float] = {}

    def note(event: RunEvent) -> None:
        seconds = time.perf_counter() - started
        if event.kind == "phase":
            phases.setdefault(event.data["text"], round(seconds, 2))
        if event.kind == "step":
            print(json.dumps({"seconds": seconds, "phases": phases, **in_memory()}), flush=True)
            os._exit(0)

    recipe = recipe_from_table(json.loads(path.read_text()), "bench", "")
    started = time.perf_counter()
    run(recipe, output=path.parent / "run", fresh=True, observers=[note])
    raise RuntimeError("the run took no step")


def tokenize(path: Path) -> dict[str, Any]:
    """Seconds of ``datasets.map(batched=True)`` over the texts of the same rows, with a worker for each core.

    What it makes is what ftk makes: the ids of prompt and answer, and labels. Neither reading the rows nor loading
    the tokenizer counts.
    """
    import datasets
    from transformers import AutoTokenizer

    given = json.loads(path.read_text())
    tokenizer = AutoTokenizer.from_pretrained(given["model"]["path"])
    rows = datasets.load_dataset("json", data_files=given["data"]["train"]["path"], split="train")
    datasets.disable_caching()

    def encode(batch: dict[str, list[str]]) -> dict[str, Any]:
        if "text" in batch:
            ids = tokenizer(batch["text"], return_attention_mask=False)["input_ids"]
            return {"input_ids": ids, "labels": ids}
        texts = [QUESTION.format(instruction=text) for text in batch["instruction"]]
        prompts = tokenizer(texts, return_attention_mask=False)["input_ids"]
        answers = tokenizer(batch["output"], return_attention_mask=False)["input_ids"]
        pairs = list(zip(prompts, answers, strict=True))
        return {
            "input_ids": [prompt + answer for prompt, answer in pairs],
            "labels": [[-100] * len(prompt) + answer for prompt, answer in pairs],
        }

    workers = len(os.sched_getaffinity(0))
    started = time.perf_counter()
    rows.map(encode, batched=True, num_proc=workers if workers > 1 else None, remove_columns=rows.column_names)
    return {"seconds": time.perf_counter() - started}


def in_memory() -> dict[str, int]:
    """Bytes of this process that are in memory, and of these what is not mapped from a file."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kinds = {"resident_bytes": "VmRSS", "anonymous_bytes": "RssAnon"}
    return {name: int(told[kind].split()[0]) * 1024 for name, kind in kinds.items()}


WORK: dict[str, Callable[[Path], dict[str, Any]]] = {"first_step": first_step, "tokenize": tokenize}

if __name__ == "__main__":
    print(json.dumps(WORK[sys.argv[1]](Path(sys.argv[2]))))
