"""The docs say what the code does: hooks, events, options, recipes, links and the tutorial's listings."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from ftk import hookspecs
from ftk.cli.show import option_rows
from ftk.events import EVENT_KINDS
from ftk.hookspecs import HOOK_OF_KIND
from ftk.merging.request import read_request
from ftk.parts.kinds import PART_OF_KIND
from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import Entry, Registry
from ftk.plugin.variant import Variant
from ftk.recipe.checking import GIVEN_BY_CORE
from ftk.recipe.overrides import TOP_KEYS
from ftk.recipe.reading import load_recipe, recipe_from_table
from ftk.recipe.supplied import FROM_DATA
from ftk.recipe.tested import TESTED

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLE, DIGITS = DOCS / "example-plugin", DOCS / "example-digits"
PAGES = sorted(path for path in (*DOCS.rglob("*.md"), ROOT / "README.md") if path.is_file())
BUILTIN = load_registry(third_party=False).entries()
HOOKS = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("ftk_")}
HOOKS_PAGE = (DOCS / "hooks.md").read_text(encoding="utf-8")

ROLES = ("train", "test", "validation", "retain", "retain_test", "retain_validation")
MINIMAL: dict[str, Any] = {
    "name": "docs",
    "model": {"use": "scratch"},
    "objective": {"use": "instruction"},
    "adaptation": {"use": "lora"},
    "data": {role: {"use": "world_facts"} for role in ROLES},
}
"""What completes a fragment of a recipe."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fences(text: str, language: str) -> Iterator[tuple[int, str]]:
    """The fenced blocks of one language, each with the number of its first line."""
    for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, match.start()) + 1, match[1]


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The tables of a page: the head's cells, and each row's."""
    for block in re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE):
        head, _, *rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])] for line in block.strip().splitlines()
        ]
        yield head, rows


def table_of(text: str, *head: str) -> dict[str, list[str]]:
    """The only table with this head: the cells of each row by its first, that without its backticks."""
    (rows,) = [rows for found, rows in tables(text) if found[: len(head)] == list(head)]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_every_hook_stands_in_the_docs_with_its_signature() -> None:
    for name, spec in HOOKS.items():
        signature = str(inspect.signature(spec)).replace("'", "")
        assert f"{name}{signature}" in HOOKS_PAGE


def test_no_hook_stands_in_the_docs_that_does_not_exist() -> None:
    for page in PAGES:
        written = set(re.findall(r"\bftk_[a-z_]+(?=\()", page.read_text(encoding="utf-8")))
        assert written <= set(HOOKS), named(page)


def test_the_hook_of_each_kind_and_what_it_builds_stand_in_the_docs() -> None:
    rows = table_of(HOOKS_PAGE, "hook", "kind")
    told = {row[0]: (hook.partition("(")[0], row[2].strip("`")) for hook, row in rows.items()}
    assert told == {kind: (HOOK_OF_KIND[kind], f"ftk.parts.{PART_OF_KIND[kind].__name__}") for kind in HOOK_OF_KIND}


def test_every_hook_is_used_by_a_test() -> None:
    used = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)
    )
    assert [name for name in HOOKS if f"def {name}(" not in used and f'"{name}"' not in used] == []


def test_the_fields_of_a_variant_stand_in_the_docs() -> None:
    assert list(table_of(HOOKS_PAGE, "field", "meaning")) == [field.name for field in dataclasses.fields(Variant)]


def test_every_event_stands_in_the_docs() -> None:
    assert table_of(HOOKS_PAGE, "kind", "`data`") == {kind: [text] for kind, text in EVENT_KINDS.items()}


def test_every_capability_stands_in_the_docs_with_those_that_give_it() -> None:
    core = (*GIVEN_BY_CORE, TESTED, *FROM_DATA)
    given: dict[str, set[str]] = {name: set() for name in core}
    for entry in BUILTIN:
        for name in entry.variant.provides:
            given.setdefault(name, set()).add(entry.variant.name)
    needed = {name for entry in BUILTIN for name in entry.variant.needs}
    rows, variants = table_of(HOOKS_PAGE, "capability", "given by"), {entry.variant.name for entry in BUILTIN}
    assert set(rows) == set(given) >= needed
    for name, (givers, _) in rows.items():
        assert set(re.findall(r"`(\w+)`", givers)) & variants == given[name], name


def test_the_readme_names_every_variant_by_its_kind() -> None:
    rows = table_of((ROOT / "README.md").read_text(encoding="utf-8"), "kind", "variants")
    told = {kind: set(re.findall(r"`(\w+)`", cells[0])) for kind, cells in rows.items()}
    given: dict[str, set[str]] = {}
    for entry in BUILTIN:
        given.setdefault(entry.kind, set()).add(entry.variant.name)
    missing = {kind: names - told.get(kind, set()) for kind, names in given.items() if names - told.get(kind, set())}
    assert not missing, "name it in the table `What there is`"
    assert told == given


@pytest.mark.parametrize(
    "entry",
    [it for it in BUILTIN if "weight-drift" in it.variant.provides],
    ids=lambda entry: entry.variant.name,
)
def test_the_page_of_an_adaptation_with_drift_names_all_that_it_provides(entry: Entry) -> None:
    page = (DOCS / "variants" / "adaptations" / f"{entry.variant.name}.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"^Provides ((?:`[a-z-]+`(?:, | and )?)+)", page, re.MULTILINE)
    assert set(re.findall(r"`([a-z-]+)`", told)) == set(entry.variant.provides)


def test_every_recipe_is_told_of() -> None:
    page = (DOCS / "first-run.md").read_text(encoding="utf-8")
    missing = [path.name for path in (ROOT / "recipes").glob("*.toml") if f"(../recipes/{path.name})" not in page]
    assert not missing, "say in a line of docs/first-run.md what it shows"


@pytest.mark.parametrize("entry", BUILTIN, ids=lambda entry: f"{entry.kind}-{entry.variant.name}")
def test_every_option_of_a_variant_stands_on_its_page(entry: Entry) -> None:
    page = DOCS / "variants" / f"{entry.kind}s" / f"{entry.variant.name}.md"
    assert page.is_file(), f"write {named(page)}"
    fields = entry.options_class().model_fields
    rows = table_of(page.read_text(encoding="utf-8"), "option", "type", "default", "meaning") if fields else {}
    assert set(rows) == set(fields)
    shown = {name: kind for name, kind, _, _ in option_rows(entry.options_class())}
    for name, field in fields.items():
        if set(re.findall(r"[a-z]+", shown[name])) <= {"whole", "number", "true", "or", "false"}:
            assert rows[name][0] == shown[name], f"{name}: `ftk show` says {shown[name]}"
        written = rows[name][1].strip("`")
        if field.is_required():
            assert written == "required", name
            continue
        default = field.get_default(call_default_factory=True)
        assert default is not PydanticUndefined
        if default is None:
            assert written == "unset", name
        else:
            assert tomllib.loads(f"value = {written}")["value"] == json.loads(json.dumps(default)), name


def test_no_page_is_of_a_variant_that_does_not_exist() -> None:
    pages = {
        path.relative_to(DOCS / "variants").with_suffix("").as_posix() for path in (DOCS / "variants").rglob("*.md")
    }
    assert pages - {f"{entry.kind}s/{entry.variant.name}" for entry in BUILTIN} == set()


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The examples can be imported, and are forgotten afterwards: other tests have an ``ftk_mega`` of their own."""
    for folder in (EXAMPLE, DIGITS):
        monkeypatch.syspath_prepend(str(folder))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ftk_mega", "ftk_digits")]:
        del sys.modules[name]


@pytest.fixture
def registry(example: None) -> Registry:
    """ftk's own variants, and the examples' as if they were installed."""
    mega, digits = (importlib.import_module(name) for name in ("ftk_mega", "ftk_digits"))
    offered = {
        "mitigation": mega.ftk_mitigations(), "dataset": digits.ftk_datasets(), "model": digits.ftk_models(),
        "objective": digits.ftk_objectives(),
    }  # fmt: skip
    entries = [Entry(kind, variant, "example", "0.1.0", "it") for kind, found in offered.items() for variant in found]
    return Registry((), (*BUILTIN, *entries))


FRAGMENTS = [
    pytest.param(page, text, id=f"{named(page)}:{line}")
    for page in PAGES
    for line, text in fences(page.read_text(encoding="utf-8"), "toml")
]


@pytest.mark.parametrize(("page", "text"), FRAGMENTS)
def test_every_fragment_of_a_recipe_is_right(page: Path, text: str, registry: Registry) -> None:
    table = tomllib.loads(text)
    if set(table) <= {"build-system", "project", "tool"}:
        return
    if "models" in table:
        read_request({"out": "merged", **table}, named(page), registry)
        return
    skip_without_packages(text)
    recipe_from_table(completed(table), named(page), text, registry=registry)


def skip_without_packages(text: str) -> None:
    """Skip the test where a recipe needs a package that is not installed, which `ftk check` would tell."""
    if 'use = "lm_eval"' in text:
        pytest.importorskip("lm_eval", reason='needs pip install "finetune-toolkit[lm-eval]"')
    if 'quantization = "nf4"' in text and find_spec("bitsandbytes") is None:
        pytest.skip("needs pip install bitsandbytes")


def completed(fragment: Mapping[str, Any]) -> dict[str, Any]:
    """A fragment with what it lacks of a recipe; keys of ``[data]`` may stand without their head."""
    if not set(fragment) & set(TOP_KEYS):
        fragment = {"data": dict(fragment)}
    table = {**MINIMAL, **fragment}
    if "name" not in fragment or "data" in fragment:
        table["data"] = {**MINIMAL["data"], **fragment.get("data", {})}
    return table


@pytest.mark.parametrize(
    "path", sorted((*ROOT.glob("recipes/*.toml"), EXAMPLE / "recipe.toml", DIGITS / "recipe.toml")), ids=named
)
def test_every_recipe_is_right(path: Path, registry: Registry) -> None:
    skip_without_packages(path.read_text(encoding="utf-8"))
    assert load_recipe(path, registry=registry).notes == ()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), f"{named(page)} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{named(page)} links to {target}#{anchor}"


LISTINGS = re.findall(
    r"^`([\w./-]+)`\n\n```\w*\n(.*?)^```",
    (DOCS / "write-a-plugin.md").read_text(encoding="utf-8"),
    re.DOTALL | re.MULTILINE,
)


def test_the_tutorial_shows_the_whole_example() -> None:
    shown = {path for path, _ in LISTINGS}
    assert shown == {"pyproject.toml", "ftk_mega/__init__.py", "ftk_mega/options.py", "ftk_mega/mega.py"}
    methods = re.findall(r"    def (\w+)", (EXAMPLE / "ftk_mega/mega.py").read_text(encoding="utf-8"))
    assert all(any(f"def {method}(" in text for _, text in LISTINGS) for method in methods)


@pytest.mark.parametrize(("path", "text"), LISTINGS, ids=[f"{path}-{n}" for n, (path, _) in enumerate(LISTINGS)])
def test_a_listing_of_the_tutorial_is_what_the_example_says(path: str, text: str) -> None:
    assert squeezed(text) in squeezed((EXAMPLE / path).read_text(encoding="utf-8"))


def squeezed(code: str) -> str:
    """Code without what a formatter may change: white space, and a comma before a closing bracket."""
    return re.sub(r",(?=[)\]}])", "", "".join(code.split()))


def test_the_commands_of_the_tutorial_and_its_check_are_those_of_the_example() -> None:
    tutorial = (DOCS / "write-a-plugin.md").read_text(encoding="utf-8")
    call = 'check_variant("mitigation", "mega", {"memory": 3, "rows_per_step": 3})'
    assert call in tutorial
    assert call in (EXAMPLE / "tests/test_mega.py").read_text(encoding="utf-8")


def test_the_options_of_the_examples_stand_in_their_readmes(example: None) -> None:
    for folder, module in ((EXAMPLE, "ftk_mega"), (DIGITS, "ftk_digits")):
        options = vars(importlib.import_module(f"{module}.options")).values()
        made = [each for each in options if isinstance(each, type) and each.__module__ == f"{module}.options"]
        fields = {name: field.default for each in made for name, field in each.model_fields.items()}
        told = tables((folder / "README.md").read_text(encoding="utf-8"))
        rows = {row[0].strip("`"): row[2].strip("`") for head, found in told if head[0] == "option" for row in found}
        assert rows == {name: str(default) for name, default in fields.items()}
