"""The registry: isolation of plugins, conflicts, misspelt hooks, switches, and looking variants up."""

from __future__ import annotations

import time

import pytest

import ftk
from ftk.errors import UserError
from ftk.events import RunEvent
from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import PluginInfo, Registry
from tests.core.conftest import Add

VARIANT = """
from ftk import Variant, hookimpl

@hookimpl
def ftk_mitigations():
    return [Variant(name="{name}", summary="One.", options="ftk.plugin.options:Options", build="a:B")]
"""


def variant(name: str) -> str:
    """A module that offers one mitigation."""
    return VARIANT.format(name=name)


def info(registry: Registry, name: str) -> PluginInfo:
    """The plugin of this name."""
    [found] = [plugin for plugin in registry.plugins if plugin.name == name]
    return found


def test_a_third_party_plugin_is_found_with_its_distribution(add_plugin: Add) -> None:
    add_plugin("ftk-mega", {"ftk_mega.py": variant("mega")}, {"mega": "ftk_mega"}, version="1.2")

    entry = load_registry().find("mitigation", "mega")

    assert (entry.distribution, entry.version, entry.plugin, entry.status) == (
        "ftk-mega",
        "1.2",
        "mega",
        "ok",
    )
    assert entry.qualified == "ftk-mega/mega"


def test_each_of_several_modules_is_isolated(add_plugin: Add) -> None:
    files = {
        "ftk_two/__init__.py": "PLUGINS = ('ftk_two.bad', 'ftk_two.good')",
        "ftk_two/bad.py": "raise OSError('no such device')",
        "ftk_two/good.py": variant("good"),
    }
    add_plugin("ftk-two", files, {"two": "ftk_two"})

    registry = load_registry()

    assert info(registry, "two").status == "ok"
    assert info(registry, "ftk_two.bad").status == "broken"
    assert "OSError: no such device (ftk_two/bad.py, line 1)" in info(registry, "ftk_two.bad").reason
    assert registry.find("mitigation", "good").plugin == "ftk_two.good"
    assert registry.broken() == [info(registry, "ftk_two.bad")]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise KeyError('x')", "ftk_mitigations(): KeyError: 'x'"),
        ("raise SystemExit", "ftk_mitigations(): SystemExit"),
        ("return None", "must return a list of Variant, not None"),
        ("return {'a': 1}", "must return a list of Variant, not {'a': 1}"),
        ("return ['mega']", "must return a list of Variant, not ['mega']"),
        ("return [Variant('A B', 's', 'a:b', 'a:b')]", "ValueError: variant name 'A B'"),
    ],
)
def test_a_hook_that_fails_breaks_only_itself(body: str, reason: str, add_plugin: Add) -> None:
    hooks = f"""
from ftk import Variant, hookimpl
@hookimpl
def ftk_mitigations():
    {body}
@hookimpl
def ftk_evaluators():
    return [Variant(name="fine", summary="One.", options="a:B", build="a:B")]
"""
    add_plugin("ftk-bad", {"ftk_bad.py": hooks}, {"bad": "ftk_bad"})
    add_plugin("ftk-good", {"ftk_good.py": variant("good")}, {"good": "ftk_good"})

    registry = load_registry()

    assert info(registry, "bad").status == "broken"
    assert reason in info(registry, "bad").reason
    assert registry.find("evaluator", "fine").plugin == "bad"
    assert registry.find("mitigation", "good").plugin == "good"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "@hookimpl\ndef ftk_mitigation(): return []",
            "`ftk_mitigation` is no hook; did you mean `ftk_mitigations`?",
        ),
        ("def ftk_evaluatros(): return []", "`ftk_evaluatros` is no hook; did you mean `ftk_evaluators`?"),
        ("@hookimpl\ndef offer(): return []", "`offer` is no hook"),
        ("def ftk_mitigations(): return []", "`ftk_mitigations` is not marked with @ftk.hookimpl"),
        ("@hookimpl\ndef ftk_models(options): return []", "Argument(s) {'options'}"),
    ],
)
def test_hooks_that_are_none_are_reported(code: str, reason: str, add_plugin: Add) -> None:
    add_plugin("ftk-typo", {"ftk_typo.py": f"from ftk import hookimpl\n{code}\n"}, {"typo": "ftk_typo"})
    found = info(load_registry(), "typo")
    assert found.status == "broken"
    assert reason in found.reason


def test_a_plugin_for_another_version_of_the_hooks_is_told_so_and_not_used(add_plugin: Add) -> None:
    add_plugin("ftk-new", {"ftk_new.py": f"FTK_HOOK_VERSION = 99\n{variant('mega')}"}, {"new": "ftk_new"})
    registry = load_registry()
    found = info(registry, "new")
    assert (found.status, found.mend) == ("broken", "pip install --upgrade ftk-new, or pip uninstall ftk-new")
    assert found.reason == f"it was written for version 99 of the hooks, and this ftk has version {ftk.HOOK_VERSION}"
    assert "mega" not in {entry.variant.name for entry in registry.entries("mitigation")}


def test_functions_from_elsewhere_are_no_misspelt_hooks(add_plugin: Add) -> None:
    files = {
        "ftk_helpers.py": "def ftk_helper(): pass",
        "ftk_mega.py": variant("mega") + "\nfrom ftk_helpers import ftk_helper",
    }
    add_plugin("ftk-mega", files, {"mega": "ftk_mega"})
    assert info(load_registry(), "mega").status == "ok"


def test_two_providers_of_a_name_are_a_conflict_that_the_distribution_settles(add_plugin: Add) -> None:
    add_plugin("ftk-mega", {"ftk_mega.py": variant("mega")}, {"mega": "ftk_mega"})
    add_plugin("Other.Mega", {"other_mega.py": variant("mega")}, {"mega": "other_mega"})

    registry = load_registry()

    conflicts = [entry for entry in registry.entries("mitigation") if entry.variant.name == "mega"]
    assert [entry.status for entry in conflicts] == ["conflict", "conflict"]
    assert 'use = "ftk-mega/mega"' in " ".join(entry.reason for entry in conflicts)
    with pytest.raises(UserError, match=r"offered by Other\.Mega and by ftk-mega") as raised:
        registry.find("mitigation", "mega")
    assert 'write use = "Other.Mega/mega" or use = "ftk-mega/mega"' in raised.value.hint
    assert registry.find("mitigation", "ftk-mega/mega").distribution == "ftk-mega"
    assert registry.find("mitigation", "other_mega/mega").distribution == "Other.Mega"


def test_one_distribution_that_offers_a_name_twice_is_told_of(add_plugin: Add) -> None:
    files = {"ftk_a.py": variant("mega"), "ftk_b.py": variant("mega")}
    add_plugin("ftk-mega", files, {"a": "ftk_a", "b": "ftk_b"})
    with pytest.raises(UserError, match="ftk-mega offers mitigation `mega` twice"):
        load_registry().find("mitigation", "ftk-mega/mega")


def test_a_module_behind_two_entry_points_is_told_of(add_plugin: Add) -> None:
    add_plugin("ftk-mega", {"ftk_mega.py": variant("mega")}, {"a": "ftk_mega", "b": "ftk_mega"})
    registry = load_registry()
    assert registry.find("mitigation", "mega").plugin == "a"
    assert "already registered" in info(registry, "b").reason


def test_names_of_another_kind_and_near_names_help(lab: Registry) -> None:
    with pytest.raises(UserError, match="`anchor` is a mitigation, not an adaptation"):
        lab.find("adaptation", "anchor")
    with pytest.raises(UserError, match="did you mean `anchor`"):
        lab.find("mitigation", "anchro")


def test_an_unknown_name_tells_of_broken_plugins(add_plugin: Add) -> None:
    add_plugin("ftk-projections", {"ftk_projections.py": "import nowhere"}, {"projections": "ftk_projections"})
    with pytest.raises(UserError) as raised:
        load_registry().find("mitigation", "gradient_projection")
    assert "could not be loaded: projections" in raised.value.hint


@pytest.mark.parametrize("value", ["1", "all", "ftk-mega", "FTK_Mega", "projections", "other, ftk-mega"])
def test_a_variable_turns_plugins_off(value: str, add_plugin: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add_plugin("ftk-mega", {"ftk_mega.py": "raise AssertionError('loaded')"}, {"projections": "ftk_mega"})
    monkeypatch.setenv("FTK_DISABLE_PLUGINS", value)

    registry = load_registry()

    assert info(registry, "projections").status == "disabled"
    assert info(registry, "projections").reason == "turned off by FTK_DISABLE_PLUGINS"
    assert registry.find("mitigation", "ewc")
    with pytest.raises(UserError, match="is disabled: turned off by FTK_DISABLE_PLUGINS"):
        registry.find("mitigation", "mega")


@pytest.mark.parametrize("value", ["", "0", "ftk-other"])
def test_a_variable_that_names_others_turns_nothing_off(
    value: str, add_plugin: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_plugin("ftk-mega", {"ftk_mega.py": variant("mega")}, {"mega": "ftk_mega"})
    monkeypatch.setenv("FTK_DISABLE_PLUGINS", value)
    assert load_registry().find("mitigation", "mega")


def test_third_party_code_is_not_imported_when_it_is_turned_off(add_plugin: Add) -> None:
    add_plugin("ftk-mega", {"ftk_mega.py": "raise AssertionError('loaded')"}, {"mega": "ftk_mega"})
    registry = load_registry(third_party=False)
    assert info(registry, "mega").reason == "turned off by --no-third-party"
    assert registry.find("mitigation", "ewc").distribution == "finetune-toolkit"


def test_observers_take_events_with_and_without_the_argument(add_plugin: Add) -> None:
    code = """
from ftk import hookimpl
seen = []
class Both:
    @hookimpl
    def ftk_run_event(self, event):
        seen.append(event.kind)
both = Both()
@hookimpl
def ftk_run_event():
    seen.append("called")
"""
    add_plugin("ftk-watch", {"ftk_watch.py": code}, {"module": "ftk_watch", "object": "ftk_watch:both"})

    for observer in load_registry().observers():
        observer(RunEvent("step", {}))

    import ftk_watch

    assert sorted(ftk_watch.seen) == ["called", "step"]


def test_what_a_plugin_prints_does_not_reach_standard_output(
    add_plugin: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    add_plugin("ftk-loud", {"ftk_loud.py": "print('hello')" + variant("loud")}, {"loud": "ftk_loud"})
    load_registry()
    assert capsys.readouterr().out == ""


def test_five_hundred_variants_and_fifty_plugins_load_in_no_time(add_plugin: Add) -> None:
    for number in range(50):
        offers = ", ".join(
            f'Variant(name="v{number}_{index}", summary="One.", options="a:B", build="a:B")' for index in range(10)
        )
        code = f"from ftk import Variant, hookimpl\n@hookimpl\ndef ftk_mitigations(): return [{offers}]\n"
        add_plugin(f"ftk-many-{number}", {f"ftk_many_{number}.py": code}, {f"many{number}": f"ftk_many_{number}"})
    load_registry()  # compiles the modules

    started = time.process_time()
    registry = load_registry()
    elapsed = time.process_time() - started

    assert len([entry for entry in registry.entries("mitigation") if entry.variant.name.startswith("v")]) == 500
    assert elapsed < 0.5


def test_entries_are_in_the_order_of_kinds_and_names(lab: Registry) -> None:
    entries = lab.entries()
    kinds = [entry.kind for entry in entries]
    assert kinds == sorted(
        kinds,
        key=["model", "dataset", "transform", "objective", "adaptation", "mitigation", "evaluator", "merge"].index,
    )
    names = [entry.variant.name for entry in lab.entries("mitigation")]
    assert names == sorted(names)
    assert {"anchor", "mix", "ewc"} <= set(names)


def test_every_built_in_plugin_works() -> None:
    own = [plugin for plugin in load_registry().plugins if plugin.distribution == "finetune-toolkit"]
    assert [(plugin.name, plugin.reason) for plugin in own if plugin.status != "ok"] == []
