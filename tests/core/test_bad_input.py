"""Whatever is wrong with a recipe or a plugin is told in one message, all at once, without a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ftk.cli import cli
from ftk.errors import RecipeError, UserError
from ftk.plugin.registry import Registry
from ftk.recipe.reading import load_recipe
from tests.core.bad_choices import BAD_CHOICES
from tests.core.bad_divided import BAD_DIVIDED
from tests.core.bad_recipes import BAD_RECIPES, Bad
from tests.core.bad_training import BAD_TRAINING
from tests.core.conftest import Add
from tests.core.lab import GOOD, PIPELINE

BAD = BAD_RECIPES | BAD_CHOICES | BAD_TRAINING | BAD_DIVIDED


@pytest.mark.parametrize("text", [GOOD, PIPELINE], ids=["one stage", "pipeline"])
def test_the_recipes_without_a_mistake_are_accepted(text: str, lab: Registry, tmp_path: Path) -> None:
    assert load_recipe(_written(tmp_path, text), registry=lab).stages


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_recipe_is_told_of(bad: Bad, lab: Registry, tmp_path: Path) -> None:
    path = _written(tmp_path, bad.text)

    with pytest.raises(UserError) as raised:
        load_recipe(path, overrides=bad.settings, without=bad.without, registry=lab)

    error = raised.value
    assert error.exit_code == 2
    problems = (
        [f"{problem.path}: {problem.reason}\n{problem.hint}" for problem in error.problems]
        if isinstance(error, RecipeError)
        else [str(error)]
    )
    assert len(problems) == len(bad.said), "\n".join(problems)
    for said in bad.said:
        assert any(all(text in problem for text in said.split("|")) for problem in problems), (said, problems)


@pytest.mark.parametrize("name", ["many at once", "options that do not import", "no value", "setting inside a value"])
def test_the_command_tells_it_as_text(name: str, lab: Registry, tmp_path: Path) -> None:
    bad = BAD[name]
    path = _written(tmp_path, bad.text)

    result = CliRunner().invoke(cli, ["check", str(path), *(f"--set={setting}" for setting in bad.settings)])

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {path}: {len(bad.said)} problem")
    assert "Traceback" not in result.output
    for said in bad.said:
        assert all(text in result.stderr for text in said.split("|"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b"name = '\xff'", "is not UTF-8 text (byte 8)"),
        ("folder", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read(content: bytes | str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()

    result = CliRunner().invoke(cli, ["check", str(path)])

    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_misspelt_file_name_helps(tmp_path: Path) -> None:
    _written(tmp_path, GOOD)
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "recpie.toml")])
    assert "did you mean `recipe.toml`?" in result.stderr


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "ModuleNotFoundError: No module named 'ftk_mega'"),
        ({"ftk_mega.py": "import nowhere_at_all"}, "No module named 'nowhere_at_all'"),
        ({"ftk_mega.py": "x = 1 +"}, "SyntaxError"),
        ({"ftk_mega.py": "raise SystemExit(3)"}, "SystemExit: 3"),
        ({"ftk_mega.py": "1 / 0"}, "ZeroDivisionError: division by zero (site/ftk_mega.py, line 1)"),
        ({"ftk_mega.py": ""}, "it implements no hook and lists no PLUGINS"),
        ({"ftk_mega.py": "PLUGINS = 'ftk_mega.mega'"}, "PLUGINS must be a tuple of module names"),
        ({"ftk_mega.py": "PLUGINS = ('ftk_mega.mega',)"}, "No module named 'ftk_mega.mega'"),
    ],
)
def test_a_plugin_that_does_not_load_is_named_where_a_recipe_wants_it(
    files: dict[str, str], reason: str, add_plugin: Add, tmp_path: Path
) -> None:
    add_plugin("ftk-mega", files, {"mega": "ftk_mega"})
    path = _written(tmp_path, 'name = "x"\n[model]\nuse = "mega"\n')

    listed = CliRunner().invoke(cli, ["list-plugins"])
    checked = CliRunner().invoke(cli, ["check", str(path)])

    assert listed.exit_code == 0
    assert reason in listed.stdout
    assert "pip uninstall ftk-mega" in listed.stdout
    assert checked.exit_code == 2
    assert "model.use: `mega` cannot be used: plugin" in checked.stderr
    assert reason in checked.stderr
    assert "pip uninstall ftk-mega" in checked.stderr
    assert "Traceback" not in listed.output + checked.output


def _written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path
