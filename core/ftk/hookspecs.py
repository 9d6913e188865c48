"""The whole extension surface of ftk on one page; these docstrings are the manual.

A plugin is a module (or object) behind an entry point of the group ``ftk``. It implements any of the hooks
below with ``@ftk.hookimpl``. Every hook is additive: each plugin's answer counts, and the recipe chooses.
A plugin that keeps its variants in several modules names them in a tuple ``PLUGINS``; each is loaded on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

from ftk.plugin.variant import Variant

if TYPE_CHECKING:
    from ftk.events import RunEvent

HOOK_VERSION = 3
"""The number of this surface, of `ftk.parts` and of `ftk.testing`; it grows when a plugin must change with them.

A plugin says which it was written for with ``FTK_HOOK_VERSION = 3`` in the module behind its entry point.
"""

hookspec = pluggy.HookspecMarker("ftk")
hookimpl = pluggy.HookimplMarker("ftk")


@hookspec
def ftk_models() -> list[Variant]:
    """Offer model sources: where the starting model comes from (``[model] use = ...``).

    Called once, when plugins are listed or a recipe is read. ``build(options)`` returns a
    :class:`ftk.parts.ModelSource`.
    """


@hookspec
def ftk_datasets() -> list[Variant]:
    """Offer data sources (``train = { use = ... }`` and the other keys of ``[data]``).

    Called once, when plugins are listed or a recipe is read. ``build(options)`` returns a
    :class:`ftk.parts.DatasetSource`, or a :class:`ftk.parts.DataMix` of others.
    """


@hookspec
def ftk_transforms() -> list[Variant]:
    """Offer row transforms: cleaning, augmentation (``transform = [{ use = ... }]`` beside a data source's ``use``).

    Called once, when plugins are listed or a recipe is read. ``build(options)`` returns a
    :class:`ftk.parts.Transform`.
    """


@hookspec
def ftk_objectives() -> list[Variant]:
    """Offer objectives: how a row becomes a batch and a batch a loss (``[objective] use = ...``).

    Called once, when plugins are listed or a recipe is read. ``build(options)`` returns a
    :class:`ftk.parts.Objective`.
    """


@hookspec
def ftk_adaptations() -> list[Variant]:
    """Offer adaptation methods: which weights are trained, and how (``[adaptation] use = ...``).

    Called once, when plugins are listed or a recipe is read. ``build(options)`` returns an
    :class:`ftk.parts.Adaptation`.
    """


@hookspec
def ftk_mitigations() -> list[Variant]:
    """Offer forgetting mitigations (``[[mitigation]] use = ...``; any number, composed in recipe order).

    Called once, when plugins are listed or a recipe is read. ``build(options)`` returns a
    :class:`ftk.parts.Mitigation`. For example::

        @ftk.hookimpl
        def ftk_mitigations():
            return [Variant(name="l1_anchor", summary="L1 penalty on the drift.", needs=("weight-drift",),
                            options="ftk_l1.options:L1Options", build="ftk_l1.l1:L1Anchor")]
    """


@hookspec
def ftk_evaluators() -> list[Variant]:
    """Offer evaluators: what is measured before, between and after stages (``[[evaluator]] use = ...``).

    Called once, when plugins are listed or a recipe is read. ``build(options)`` returns an
    :class:`ftk.parts.Evaluator`.
    """


@hookspec
def ftk_merges() -> list[Variant]:
    """Offer methods of merging (``ftk merge --method ...``, and ``method = ...`` of the mitigation ``interpolation``).

    Called once, when plugins are listed or a recipe is read. ``build(options)`` returns a
    :class:`ftk.parts.MergeMethod`. ``needs`` name what it asks of the adaptation in a stage: ``layer-scale`` of a
    :class:`ftk.parts.WeightedSum`, ``weight-set`` of any other.
    """


@hookspec
def ftk_run_event(event: RunEvent) -> None:
    """Observe a run: progress displays, trackers. Called on the main process for every event of a run.

    ``event`` is read-only; see :mod:`ftk.events` for the kinds and what each carries. An observer's errors are
    logged and never stop the run. For example::

        @ftk.hookimpl
        def ftk_run_event(event):
            if event.kind == "step":
                print(event.data["step"], event.data["loss"])
    """


HOOK_OF_KIND = {
    "model": "ftk_models",
    "dataset": "ftk_datasets",
    "transform": "ftk_transforms",
    "objective": "ftk_objectives",
    "adaptation": "ftk_adaptations",
    "mitigation": "ftk_mitigations",
    "evaluator": "ftk_evaluators",
    "merge": "ftk_merges",
}
"""Which hook offers the variants of each kind."""
