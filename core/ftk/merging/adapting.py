"""A merge of adapters written as an adapter again: the best one of a rank, weight by weight."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftk.merging.adapters import PREFIX, LowRank
from ftk.merging.checking import Merged, MergePlan
from ftk.merging.combining import Combiner
from ftk.merging.folders import ADAPTER_CONFIG
from ftk.merging.writing import Entry, TensorFiles

SPARE, ROUNDS = 16, 8
"""How many directions more than asked, and how many powers, the iteration for singular vectors takes."""


class AdapterWriter:
    """Writes ``s·B·A`` nearest to what the merge changes of each weight, with ``s = 1``.

    Args:
        plan: of adapters alone.
        combiner: merges.

    Attributes:
        errors: by weight the Frobenius norm of what is left out, as a share of that of the change.
    """

    def __init__(self, plan: MergePlan, combiner: Combiner) -> None:
        self._plan, self._combiner = plan, combiner
        self.errors: dict[str, float] = {}
        rank = plan.request.options.adapter_rank
        assert rank is not None
        self._rank = rank

    def write(self, folder: Path, told: Callable[[str, int, int], None]) -> int:
        """Write the adapter's two files; returns the bytes of its weights."""
        changed = [weight for weight in self._plan.weights if not weight.copied]
        entries: list[Entry] = []
        sources: dict[str, tuple[Merged, str]] = {}
        for weight in changed:
            module = PREFIX + weight.name.removesuffix(".weight")
            if any(isinstance(model, LowRank) for model in weight.models):
                out, inner = _linear(weight)
                entries.append(Entry(f"{module}.lora_A.weight", "F32", (self._rank, inner)))
                entries.append(Entry(f"{module}.lora_B.weight", "F32", (out, self._rank)))
                sources |= {entries[-2].name: (weight, "A"), entries[-1].name: (weight, "B")}
            else:
                entries.append(Entry(PREFIX + weight.name, weight.dtype, weight.base.shape))
                sources[entries[-1].name] = (weight, "whole")
        files, done = TensorFiles(folder, entries, "adapter_model", shard_bytes=2**62), 0
        factors: dict[str, Tensor] = {}

        def chunks(entry: Entry) -> Iterator[np.ndarray[Any, Any]]:
            nonlocal done, factors
            weight, what = sources[entry.name]
            told(weight.name, done, files.total)
            if what == "whole":
                yield from self._combiner.chunks(weight)
            else:
                if what == "A":
                    factors = dict(zip("AB", self._nearest(weight), strict=True))
                yield factors[what].contiguous().view(-1).view(torch.uint8).numpy()
            done += entry.bytes

        files.write(chunks)
        self._write_config(folder, changed)
        return files.total

    def _nearest(self, weight: Merged) -> tuple[Tensor, Tensor]:
        """A and B; what is left out is told in :attr:`errors`."""
        change = torch.cat(list(self._combiner.changes(weight)))
        if _transposed(weight):
            change = change.T
        size, rank = change.norm().item(), min(self._rank, *change.shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u, s, v = torch.svd_lowrank(change, min(rank + SPARE, *change.shape), ROUNDS)
        root = s[:rank].sqrt()
        a, b = torch.zeros(self._rank, change.shape[1]), torch.zeros(change.shape[0], self._rank)
        a[:rank], b[:, :rank] = (v[:, :rank] * root).T, u[:, :rank] * root
        self.errors[weight.name] = (change - b @ a).norm().item() / size if size else 0.0
        return a, b

    def _write_config(self, folder: Path, changed: list[Merged]) -> None:
        config = dict(self._plan.folders[0].config)
        low = [weight for weight in changed if any(isinstance(model, LowRank) for model in weight.models)]
        whole = sorted({weight.name.rpartition(".")[0] for weight in changed if weight not in low})
        config |= {
            "r": self._rank, "lora_alpha": self._rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {},
            "target_modules": sorted(weight.name.removesuffix(".weight") for weight in low),
            "modules_to_save": whole or None, "inference_mode": True, "init_lora_weights": True,
            "base_model_name_or_path": str(self._plan.reference.path),
        }  # fmt: skip
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _transposed(weight: Merged) -> bool:
    return any(isinstance(model, LowRank) and model.transposed for model in weight.models)


def _linear(weight: Merged) -> tuple[int, int]:
    """How many outputs and inputs the layer has."""
    first, second = weight.base.shape
    return (second, first) if _transposed(weight) else (first, second)
