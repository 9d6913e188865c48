"""The base of every variant's options: a frozen pydantic model that refuses unknown keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """What a recipe may say about one variant.

    Subclass it with one annotated field per option. Every field carries a description (with its unit, where it
    has one) and a default from the literature, or none where the user must choose::

        class AgemOptions(Options):
            memory: int = Field(default=256, gt=0, description="Rows kept of each earlier task.")

    The methods below answer questions whose answer depends on the options chosen; ``ftk check`` asks them
    before anything heavy is imported.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, protected_namespaces=()
    )

    def more_needs(self) -> tuple[str, ...]:
        """Capabilities that these options need on top of the variant's ``needs``."""
        return ()

    def withheld(self) -> tuple[str, ...]:
        """Capabilities of the variant's ``provides`` that these options take away, or of any other part's beside it."""
        return ()

    def metrics(self) -> tuple[str, ...]:
        """For an evaluator, the names of the metrics that it measures; empty where they are known only then."""
        return ()

    def earlier_tasks(self) -> tuple[str, ...]:
        """The names of tasks that the options speak of, each of which must come before the stage."""
        return ()

    def growing(self) -> tuple[str, ...]:
        """For an objective, the options whose lists a longer recipe may go on with where a run goes on with it."""
        return ()

    def turned(self) -> tuple[str, ...]:
        """The names of mitigations that the options speak of; each must stand beside it and have a strength."""
        return ()

    def data_share(self) -> float:
        """The share of the final training mix, 0 to 1, that this part fills with rows of its own.

        Where it changes over the stage: the constant one that mixes in as many rows.
        """
        return 0.0

    def data_sets(self) -> Mapping[str, Mapping[str, Any]]:
        """The tables of data sets, as a recipe writes them, that stand among the options of a data set or an evaluator.

        Of a data set made of others they stand by name under the option ``parts``: see `ftk.parts.DataMix`. Of an
        evaluator each stands under the option of its name: see `ftk.parts.Evaluator.take`. The core checks each like
        a table of its own, reads it and hands its rows on.
        """
        return {}

    def merges(self) -> Mapping[str, Mapping[str, Any]]:
        """For a mitigation, the tables of methods of merging that stand among its options, by the option's name.

        The core checks each like a table of its own, and hands on what it builds: see `ftk.parts.Mitigation.take`. What
        such a method needs the mitigation needs, and it provides no more than the method does.
        """
        return {}

    def objectives(self) -> Mapping[str, Mapping[str, Any]]:
        """For an objective made of others, their tables by name, as a recipe writes them under the option ``tasks``.

        The core checks each like a table of its own and makes a task of it: see `ftk.parts.JointObjective`.
        """
        return {}
