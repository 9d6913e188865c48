"""The page of `ftk merge` says what the code does, and the method that the manual shows works as a plugin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from ftk.merging.request import MergeOptions, ModelOptions
from ftk.testing import Subject
from ftk.testing.merges import CLAUSES
from tests.core.merging_lab import merge, save_model, weights
from tests.core.test_docs import DOCS, HOOKS_PAGE, fences, tables

PAGE = (DOCS / "merging.md").read_text(encoding="utf-8")
PLUGIN = """
from ftk import Options, Variant, hookimpl


class MagMaxOptions(Options):
    pass


@hookimpl
def ftk_merges():
    return [
        Variant(name="magmax", summary="The largest.", options="ftk_magmax:MagMaxOptions", build="ftk_magmax_it:MagMax")
    ]
"""


def test_every_key_of_a_merge_stands_on_its_page() -> None:
    whole, model = (rows for head, rows in tables(PAGE) if head[0] == "key")
    for rows, options in ((whole, MergeOptions), (model, ModelOptions)):
        told = {row[0].strip("`"): row[1].strip("`") for row in rows}
        assert set(told) - {"models", "method"} == set(options.model_fields)
        for key, field in options.model_fields.items():
            default = field.get_default()
            written = "required" if field.is_required() else "unset" if default is None else json.dumps(default)
            assert told[key] == written, key


def test_the_method_of_the_manual_merges(add_plugin: Callable[..., None], tmp_path: Path) -> None:
    [code] = [text for _, text in fences(HOOKS_PAGE, "python") if "class MagMax" in text]
    files = {"ftk_magmax.py": PLUGIN, "ftk_magmax_it.py": code}
    add_plugin("ftk-magmax", files, {"magmax": "ftk_magmax"})
    for clause in CLAUSES:
        clause(Subject("merge", "magmax"))
    a, b, c = (save_model(tmp_path / name, seed) for seed, name in enumerate("abc"))
    out = tmp_path / "m"
    result = merge(tmp_path / "a", tmp_path / "b", "--base", tmp_path / "c", "--method", "magmax", "--out", out)
    assert result.exit_code == 0, result.output
    for name, tensor in weights(out).items():
        one, other = a[name] - c[name], b[name] - c[name]
        torch.testing.assert_close(tensor, c[name] + torch.where(other.abs() > one.abs(), other, one))
