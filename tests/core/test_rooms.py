"""Which room may know which: read from the imports of the code itself, those inside functions too."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import ftk
import ftk.parts
import ftk.testing
from tests.core.test_docs import table_of

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "ftk"
HOOKS_PAGE = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")

MAY_KNOW = {
    "front": {"plugin"},
    "plugin": {"front"},
    "recipe": {"front", "plugin"},
    "parts": {"front"},
    "report": {"front", "recipe", "parts"},
    "data": {"front", "recipe", "parts"},
    "processes": {"front", "parts"},
    "disk": {"front", "parts"},
    "merging": {"front", "plugin", "recipe", "parts"},
    "pictures": {"front", "plugin", "report"},
    "running": {"front", "plugin", "recipe", "parts", "data", "report", "pictures", "processes", "disk"},
    "planning": {"front", "plugin", "recipe", "parts", "data", "processes", "running"},
    "comparing": {"front", "plugin", "recipe", "parts", "data", "report", "pictures", "processes", "disk", "running"},
    "testing": {"front", "plugin", "recipe", "parts", "data", "report", "processes", "disk", "running"},
    "cli": {
        "front",
        "plugin",
        "recipe",
        "parts",
        "data",
        "report",
        "pictures",
        "processes",
        "disk",
        "running",
        "planning",
        "comparing",
        "merging",
    },
}
"""For each room of the core the other rooms that it may import from; ``front`` is the files beside the rooms."""

SURFACE = {"ftk", "ftk.parts", "ftk.testing"}
"""What a plugin may import."""


def modules() -> Iterator[tuple[str, Path]]:
    """The core's modules by name."""
    for path in sorted(CORE.rglob("*.py")):
        parts = ("ftk", *path.relative_to(CORE).with_suffix("").parts)
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (CORE / parts[1]).is_dir() else "front"


def imports_of(path: Path, only_running: bool = False) -> Iterator[str]:
    """What a file imports of ftk, wherever in it; with ``only_running`` without what a type checker alone reads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if only_running and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(inner for child in node.body for inner in ast.walk(child))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "ftk")
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "ftk":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


@pytest.mark.parametrize("name", MODULES)
def test_a_room_knows_only_the_rooms_below_it(name: str) -> None:
    room = room_of(name)
    # The front door opens the run on demand (`ftk.run`), and that is all it knows of it.
    allowed = MAY_KNOW[room] | {room} | ({"running"} if name == "ftk" else set())
    if name == "ftk.__main__":
        allowed = {"cli"}
    known = {found: room_of(found) for found in imports_of(MODULES[name])}
    assert {found for found, its in known.items() if its not in allowed} == set()


def test_no_import_goes_round_in_a_circle_not_even_a_lazy_one() -> None:
    edges = {name: set(imports_of(path, only_running=True)) for name, path in MODULES.items()}
    left = dict(edges)
    while free := [name for name, known in left.items() if not known & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


def test_no_file_outgrows_a_reader_and_the_run_stays_in_hand() -> None:
    paths = [path for folder in ("core", "plugins", "tests", "docs") for path in (ROOT / folder).rglob("*.py")]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > 300} == {}
    assert sum(count for path, count in lines.items() if path.parent == CORE / "running") <= 2500


def test_no_two_test_files_share_a_name() -> None:
    """They could not be collected in one run."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("folder", ["plugins/ftk_plugins", "docs/example-plugin", "docs/example-digits"])
def test_plugins_import_the_surface_and_nothing_deeper(folder: str) -> None:
    deeper = {
        f"{path.relative_to(ROOT)}: {found}"
        for path in (ROOT / folder).rglob("*.py")
        for found in imports_of(path)
        if found not in SURFACE
    }
    assert deeper == set()


@pytest.mark.parametrize("module", [ftk, ftk.parts, ftk.testing], ids=lambda module: module.__name__)
def test_the_surface_stands_in_the_docs(module: object) -> None:
    told = table_of(HOOKS_PAGE, "import from", "names")
    written = set(re.findall(r"`(\w+)`", told[module.__name__][0]))  # type: ignore[attr-defined]
    assert written == set(module.__all__)  # type: ignore[attr-defined]
