"""The contract of every kind: its declaration, its options, its building and its state."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from ftk.disk.bundles import Bundler, read_bundle
from ftk.parts import Part, State
from ftk.recipe.checking import GIVEN_BY_CORE
from ftk.recipe.supplied import FROM_DATA
from ftk.recipe.tested import TESTED
from ftk.testing.subject import Subject, hold, hold_equal

HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate", "numpy", "pandas")
"""What listing plugins and checking a recipe must not import."""

_LIST_AND_CHECK = """
import json, logging, os, sys
before = dict(os.environ), os.getcwd(), list(logging.root.handlers)
from ftk.plugin.discovery import load_registry
load_registry().find(sys.argv[1], sys.argv[2]).options_class()
after = dict(os.environ), os.getcwd(), list(logging.root.handlers)
names = "os.environ", "the current directory", "the root logger"
changed = [name for name, one, other in zip(names, before, after) if one != other]
heavy = [name for name in sys.argv[3:] if name in sys.modules]
sys.stdout = sys.__stdout__
print(json.dumps({"heavy": heavy, "changed": changed}))
"""


def is_listed_once_and_works(subject: Subject) -> None:
    """The plugin loads, and its variant stands in `ftk list-plugins` under its name."""
    entry = subject.entry
    broken = [info for info in subject.registry.broken() if info.distribution == entry.distribution]
    hold(not broken, "; ".join(f"{info.name}: {info.reason}" for info in broken))
    hold(entry.status == "ok" or "/" in subject.use, entry.reason)
    summary = entry.variant.summary
    hold(len(summary) <= 120, f"its summary has {len(summary)} characters; one line has room for 120")


def needs_what_can_be_given(subject: Subject) -> None:
    """Every capability that it needs is provided by the recipe's data or by a variant that is installed."""
    _hold_known(subject, subject.spec.needs())


def withholds_what_could_be_given(subject: Subject) -> None:
    """Every capability that `Options.withheld` names is provided by the variant itself, or by another part."""
    _hold_known(subject, subject.spec.options.withheld())


def _hold_known(subject: Subject, names: Iterable[str]) -> None:
    given = {*GIVEN_BY_CORE, TESTED, *FROM_DATA}
    given |= {name for entry in subject.registry.entries() for name in entry.variant.provides}
    unknown = set(names) - given
    hold(not unknown, f"nothing provides {', '.join(sorted(unknown))}; known here: {', '.join(sorted(given))}")


def lists_and_checks_without_heavy_imports(subject: Subject) -> None:
    """Loading the plugin and its options imports nothing heavy, prints nothing and changes nothing."""
    done = _alone(subject.kind, subject.use)
    hold(done.returncode == 0, f"it fails in a process of its own: {done.stderr.strip()[-600:]}")
    *printed, last = done.stdout.strip().splitlines()
    told = json.loads(last)
    hold(
        not told["heavy"],
        f"imports {', '.join(told['heavy'])}; import those in the module that `build` names",
    )
    hold(not told["changed"], f"importing it changes {', '.join(told['changed'])}")
    hold(not printed and not done.stderr, f"importing it prints {(done.stdout + done.stderr).strip()[:200]!r}")


def options_are_described_and_strict(subject: Subject) -> None:
    """Options are frozen, refuse unknown keys, and describe every field."""
    model = subject.entry.options_class()
    config = model.model_config
    hold(config.get("extra") == "forbid", 'its options must keep extra="forbid", so that no key is ignored')
    hold(config.get("frozen"), "its options must stay frozen")
    bare = [name for name, field in model.model_fields.items() if not (field.description or "").strip()]
    hold(not bare, f"without a description: {', '.join(bare)}; write Field(description=...)")


def options_survive_json(subject: Subject) -> None:
    """Options written as JSON and read back are equal: a run's folder keeps them so."""
    options = subject.spec.options
    again = type(options).model_validate_json(options.model_dump_json())
    hold(again == options, f"{options!r} came back as {again!r}")
    share = options.data_share()
    hold(0 <= share < 1, f"data_share() is {share}; a share of the mix is at least 0 and below 1")


def builds_its_kind(subject: Subject) -> None:
    """`build(options)` returns a new part of the right kind each time."""
    one, other = subject.build(), subject.build()
    hold(one is not other, "two builds gave one and the same object")


def fresh_state_is_plain(subject: Subject) -> None:
    """`state_dict` holds tensors and JSON values by name, also before anything was called."""
    if subject.kind != "adaptation":  # an adaptation has a state once it is attached
        hold_plain(subject.build().state_dict())


def unknown_state_is_refused(subject: Subject) -> None:
    """`load_state_dict` raises `ValueError` for a state that it does not know."""
    if subject.kind != "adaptation":
        hold_refused(subject.build())


@cache
def _alone(kind: str, use: str) -> subprocess.CompletedProcess[str]:
    """List and check in a process of its own, once for all choices of options."""
    command = [sys.executable, "-c", _LIST_AND_CHECK, kind, use, *HEAVY]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def hold_plain(state: State) -> None:
    """Raise ``AssertionError`` unless a state holds tensors and JSON values by name, nothing else."""
    for name, value in state.items():
        hold(isinstance(name, str), f"the key {name!r} is no text")
        if isinstance(value, Tensor):
            continue
        try:
            same = json.loads(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError):
            same = False
        hold(same, f"{name} is {value!r:.80}, neither a tensor nor a value that JSON gives back the same")


def hold_refused(part: Part) -> None:
    """Raise ``AssertionError`` unless the part refuses a strange state."""
    try:
        part.load_state_dict({"no such key": "unknown"})
    except ValueError:
        return
    except Exception as error:
        raise AssertionError(f"raises {type(error).__name__} ({error}), not ValueError") from error
    raise AssertionError('it took {"no such key": "unknown"} without a word')


def through_disk(states: Mapping[str, State]) -> dict[str, State]:
    """States written as a checkpoint and read back."""
    for state in states.values():
        hold_plain(state)
    with tempfile.TemporaryDirectory() as folder:
        Bundler().take(Path(folder) / "bundle", states, copy=False).write()
        return read_bundle(Path(folder) / "bundle")[0]


def hold_same_state(before: State, after: State, what: str) -> None:
    """Raise ``AssertionError`` unless two states are equal, tensors bit for bit."""
    hold_equal(before, after, what)


def json_value(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value, allow_nan=False))


CLAUSES = (
    is_listed_once_and_works,
    needs_what_can_be_given,
    withholds_what_could_be_given,
    lists_and_checks_without_heavy_imports,
    options_are_described_and_strict,
    options_survive_json,
    builds_its_kind,
    fresh_state_is_plain,
    unknown_state_is_refused,
)
