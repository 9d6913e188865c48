"""The command: what each verb prints, its exit codes, its speed, and that nothing heavy is imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ftk
from ftk.cli import VERBS
from ftk.cli.show import example, option_rows
from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import RESERVED_KEYS, Entry, Registry
from ftk.plugin.variant import KINDS
from ftk.recipe.complaints import validate
from ftk.recipe.reading import load_recipe
from tests.core.command import ftk_
from tests.core.conftest import Add
from tests.core.lab import GOOD, PIPELINE

HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy")
BUILT_IN = load_registry(third_party=False).entries()


@pytest.fixture
def recipe(tmp_path: Path, lab: Registry) -> str:
    """The path of a recipe without a mistake."""
    path = tmp_path / "trial.toml"
    path.write_text(GOOD)
    return str(path)


def test_help_names_every_verb_and_imports_none() -> None:
    result = ftk_("--help")
    assert result.exit_code == 0
    for name, (_, text) in VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    result = ftk_(verb, "--help")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Usage: ftk {verb}")


def test_the_version() -> None:
    assert ftk_("--version").stdout == f"ftk {ftk.__version__}\n"


def test_a_misspelt_verb_helps() -> None:
    result = ftk_("chekc")
    assert result.exit_code == 2
    assert "there is no command `chekc`; did you mean `check`?" in result.stderr


def test_list_plugins_is_one_line_a_variant_in_a_pipe(lab: Registry) -> None:
    lines = ftk_("list-plugins").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[e.kind, e.variant.name] for e in lab.entries()]
    [line] = [line for line in lines if " adapter " in line]
    assert re.fullmatch(r"adaptation +adapter +ftk-lab 2.0 +ok +The adapter of the lab\.", line)


@pytest.mark.parametrize("kind", ["mitigation", "mitigations"])
def test_list_plugins_of_one_kind(kind: str, lab: Registry) -> None:
    lines = ftk_("list-plugins", kind).stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"mitigation"}
    assert len(lines) == len(lab.entries("mitigation"))


def test_list_plugins_of_no_kind() -> None:
    result = ftk_("list-plugins", "mitigatoin")
    assert result.exit_code == 2
    assert "did you mean `mitigation`?" in result.stderr


def test_list_plugins_as_json(add_plugin: Add) -> None:
    add_plugin("ftk-mega", {"ftk_mega.py": "print('loud')\nraise ValueError('no')"}, {"mega": "ftk_mega"})
    told = json.loads(ftk_("list-plugins", "--json").stdout)
    [ewc] = [variant for variant in told["variants"] if variant["name"] == "ewc"]
    assert (ewc["kind"], ewc["distribution"], ewc["status"]) == ("mitigation", "finetune-toolkit", "ok")
    assert "weight-drift" in ewc["needs"]
    [broken] = [plugin for plugin in told["plugins"] if plugin["status"] == "broken"]
    assert broken["reason"] == "ValueError: no (site/ftk_mega.py, line 2)"
    assert "pip uninstall ftk-mega" in broken["mend"]


@pytest.mark.parametrize("arguments", [("--no-third-party", "list-plugins"), ("list-plugins", "--no-third-party")])
def test_third_party_plugins_are_turned_off_before_and_after_the_verb(
    arguments: tuple[str, ...], lab: Registry
) -> None:
    result = ftk_(*arguments)
    assert "of the lab" not in result.stdout
    assert "disabled  lab (ftk-lab 2.0)\n    turned off by --no-third-party\n" in result.stdout


def test_check_tells_what_a_recipe_will_do(recipe: str) -> None:
    result = ftk_("check", recipe, "--set", "adaptation.rank=2", "--without", "mix")
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0].startswith("trial  1 stage, seed 1, ")
    assert "adaptation  adapter rank=2" in lines
    assert "train       rows path='train.jsonl'" in lines
    assert "mitigation  anchor" in lines
    assert "mitigation  mix share=0.2" not in lines
    assert lines[-1] == "the recipe is right"


def test_check_tells_of_stages_and_notes(tmp_path: Path, lab: Registry) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(PIPELINE)
    output = ftk_("check", str(path)).stdout
    assert "stage 1: first" in output
    assert "stage 2: second" in output
    assert "note: stage first: `anchor` left out" in output


def test_check_as_json(recipe: str, lab: Registry) -> None:
    told = json.loads(ftk_("check", recipe, "--json").stdout)
    loaded = load_recipe(recipe, registry=lab)
    assert (told["ok"], told["sha256"], told["recipe"]) == (True, loaded.sha256, loaded.resolved())

    result = ftk_("check", recipe, "--json", "--set", "adaptation.rnk=2", "--set", "seed=-1")
    assert result.exit_code == 2
    assert result.stderr == ""
    told = json.loads(result.stdout)
    assert told["ok"] is False
    assert [(problem["path"], problem["hint"]) for problem in told["problems"]] == [
        ("seed", ""), ("adaptation.rnk", "did you mean `rank`?"),
    ]  # fmt: skip


def test_show_tells_options_needs_and_source(lab: Registry) -> None:
    output = ftk_("show", "anchor").stdout
    assert output.startswith("anchor  mitigation, from ftk-lab 2.0\nThe anchor of the lab.\n")
    assert re.search(r"^needs +weight-drift, earlier-data$", output, re.MULTILINE)
    assert re.search(r"^source +A. Nchor 2024$", output, re.MULTILINE)
    assert re.search(r"^strength +number >= 0 +0.5 +Weight of the penalty.$", output, re.MULTILINE)
    assert re.search(r'^layers +text, one or a list +"all" +Which layers.$', output, re.MULTILINE)
    assert output.endswith('[[mitigation]]\nuse = "anchor"\nstrength = 0.5\nlayers = "all"\n')


@pytest.mark.parametrize("name", ["adapter", "adaptation/adapter", "ftk-lab/adapter", "adaptation/ftk_lab/adapter"])
def test_show_takes_a_kind_and_a_distribution(name: str, lab: Registry) -> None:
    assert ftk_("show", name).stdout.startswith("adapter  adaptation, from ftk-lab 2.0")


def test_show_of_several_and_of_none(lab: Registry, add_plugin: Add) -> None:
    code = """
from ftk import Variant, hookimpl
@hookimpl
def ftk_objectives(): return [Variant(name="adapter", summary="One.", options="a:B", build="a:B")]
"""
    add_plugin("ftk-two", {"ftk_two.py": code}, {"two": "ftk_two"})
    several, none = ftk_("show", "adapter"), ftk_("show", "adpter")
    assert (several.exit_code, none.exit_code) == (2, 2)
    assert "objective/ftk-two/adapter, adaptation/ftk-lab/adapter" in several.stderr
    assert "did you mean `adapter`?" in none.stderr


def test_show_of_options_that_do_not_import(lab: Registry) -> None:
    result = ftk_("show", "fragile")
    assert result.exit_code == 2
    assert "the lab is closed" in result.stderr
    assert "pip uninstall ftk-lab" in result.stderr


def test_show_as_json(lab: Registry) -> None:
    told = json.loads(ftk_("show", "adapter", "--json").stdout)
    assert told["options"][0] == {
        "name": "rank", "type": "whole number > 0", "default": "4", "meaning": "Rank of the update.",
    }  # fmt: skip
    assert tomllib.loads(told["example"])["adaptation"]["use"] == "adapter"


@pytest.mark.parametrize("entry", BUILT_IN, ids=lambda entry: entry.variant.name)
def test_the_example_of_every_variant_is_valid(entry: Entry) -> None:
    if entry.variant.name == "lm_eval":
        pytest.importorskip("lm_eval", reason='needs pip install "finetune-toolkit[lm-eval]"')
    options = entry.options_class()
    table = tomllib.loads(example(entry, options))
    if entry.kind in ("dataset", "transform"):
        table = table["data"]["train"] if entry.kind == "dataset" else table["data"]["train"]["transform"][0]
    else:
        table = table["method" if entry.kind == "merge" else entry.kind]
        table = table[0] if isinstance(table, list) else table
    given = {key: value for key, value in table.items() if key not in RESERVED_KEYS[entry.kind]}
    made, problems = validate(options, given, "example")
    assert problems == []
    assert made is not None
    assert table["use"] == entry.variant.name


@pytest.mark.parametrize("entry", BUILT_IN, ids=lambda entry: entry.variant.name)
def test_every_option_of_every_variant_is_described(entry: Entry) -> None:
    for name, kind, _, meaning in option_rows(entry.options_class()):
        assert meaning.strip(), f"{entry.variant.name}.{name} has no description"
        assert "any value" not in kind, f"{entry.variant.name}.{name} has no type that a reader knows"


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_verbs_that_read_import_nothing_heavy_and_are_quick(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        'name = "r"\nmodel = { use = "scratch" }\nobjective = { use = "instruction" }\n'
        'adaptation = { use = "lora" }\n'
        'mitigation = [{ use = "interpolation" }]\nevaluator = [{ use = "exact_match" }]\n'
        'data.train = { use = "files", path = "x.jsonl", test_fraction = 0.1 }\n'
    )
    code = f"""
import contextlib, io, sys, time
from ftk.cli import cli
commands = ["--help"], ["merge", "--help"], ["list-plugins"], ["show", "lora"], ["check", sys.argv[1]], ["schema"]
for arguments in commands:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            cli(["--no-third-party", *arguments])
        except SystemExit as end:
            assert not end.code, (arguments, out.getvalue())
    found = [name for name in {HEAVY!r} if name in sys.modules]
    assert not found, (arguments, found)
print(time.process_time())
"""
    done = python(code, str(tmp_path / "r.toml"))
    assert done.returncode == 0, done.stderr
    # Processor time, since the clock on the wall also counts what else the machine does.
    assert float(done.stdout) < 0.9


def test_list_plugins_takes_little_processor_time() -> None:
    code = "from ftk.cli import cli; cli(['--no-third-party', 'list-plugins'], standalone_mode=False)"
    done = python(f"{code}; import sys, time; print(time.process_time(), file=sys.stderr)")
    assert done.returncode == 0, done.stderr
    assert float(done.stderr.splitlines()[-1]) < 0.35


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -c 'from ftk.cli import main; main()' schema | head -n 1",
        shell=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr


def test_kinds_are_told_in_the_help_of_list_plugins() -> None:
    told = " ".join(ftk_("list-plugins", "--help").stdout.split())
    assert all(kind in told for kind in KINDS)
