"""ftk doctor, and what a terminal is shown."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.text import Text

import ftk
from ftk.report.console import SafeConsole
from tests.core.command import ftk_
from tests.core.conftest import Add


def test_doctor_is_healthy_and_names_devices() -> None:
    result = ftk_("doctor", "--no-third-party", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0, told
    assert told["healthy"] is True
    assert told["ftk"] == ftk.__version__
    assert told["devices"][-1]["name"].startswith("CPU")
    assert {"torch", "pluggy"} <= {package["name"] for package in told["packages"]}
    assert told["memory_bytes"] > 2**28


def test_doctor_tells_the_cache_and_empties_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "kept"))
    (tmp_path / "kept" / "0123").mkdir(parents=True)
    (tmp_path / "kept" / "0123" / "0.values").write_bytes(b"x" * 1000)
    cache = json.loads(ftk_("doctor", "--no-third-party", "--json").stdout)["cache"]
    assert cache == {"folder": str(tmp_path / "kept"), "bytes": 1000}
    result = ftk_("doctor", "--no-third-party", "--empty-cache")
    assert "0.00 GiB of rows and stages in" in result.output
    assert list((tmp_path / "kept").iterdir()) == []


def test_doctor_fails_where_a_plugin_is_broken(add_plugin: Add) -> None:
    add_plugin("ftk-mega", {"ftk_mega.py": "import nowhere"}, {"mega": "ftk_mega"})
    result = ftk_("doctor")
    assert result.exit_code == 1
    assert "broken  mega (ftk-mega 1.0)\n    ModuleNotFoundError: No module named 'nowhere'" in result.stdout
    assert result.stdout.endswith("something is broken, see above\n")


def test_doctor_fails_where_a_requirement_is_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "peft" else real(name))
    result = ftk_("doctor", "--no-third-party")
    assert result.exit_code == 1
    assert re.search(r'peft +0\.1 +>=\S+ +pip install "peft>=', result.stdout)


def test_control_characters_reach_no_terminal_and_stay_in_json(tmp_path: Path, add_plugin: Add) -> None:
    """From recipes, rows' names and plugins' summaries: shown as text in errors and tables, as they are in JSON."""
    source = """
from ftk import Variant, hookimpl
@hookimpl
def ftk_objectives():
    return [Variant(name="gong", summary="Rings\\x1b]0;bell\\x07 and \\u202eback.", options="a:B", build="a:B")]
"""
    add_plugin("ftk-gong", {"ftk_gong.py": source}, {"gong": "ftk_gong"})
    (tmp_path / "r.toml").write_text('name = "r"\nmodel = { use = "\\u001b[31mred\\u009b2J" }\n', encoding="utf-8")

    listed, refused = ftk_("list-plugins", "objective"), ftk_("check", str(tmp_path / "r.toml"))
    as_json = ftk_("list-plugins", "objective", "--json")

    assert refused.exit_code == 2
    for text in (listed.output, refused.output):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "Rings\\x1b]0;bell" in listed.output
    assert "\\u202eback" in listed.output
    assert "`\\x1b[31mred\\x9b2J`" in refused.stderr
    assert "\u202eback." in next(v["summary"] for v in json.loads(as_json.output)["variants"] if v["name"] == "gong")


def test_a_console_keeps_its_own_colours() -> None:
    out = io.StringIO()
    console = SafeConsole(file=out, force_terminal=True, width=60, color_system="standard")
    console.print("[red]warm[/]", Text("c\x1b[5mold\x00"), "tab\tand\nline")
    assert "\x1b[31mwarm" in out.getvalue()
    assert "c\\x1b[5mold\\x00" in out.getvalue()
    assert out.getvalue().count("\n") == 2
