"""Objectives made of others: several tasks in one stage, each with its own rows, head and loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from ftk.parts.part import Part


class JointObjective(Part):
    """An objective made of others: the core trains each on its rows, and it says how much each one's loss weighs.

    Its options give the tables of these others with `Options.objectives`. The loss of a step is ``Σ n/N · w · L`` over
    its members: ``L`` the mean loss over a member's targets in the step, ``w`` its weight, ``n`` of the step's ``N``
    rows its own. Rows of mitigations count as those of a member of weight 1. Its state is kept in the stage's
    checkpoints.
    """

    @abstractmethod
    def weights(self) -> Mapping[str, float]:
        """What each member's loss is multiplied by in the next step, by its name."""

    def learn(self, losses: Mapping[str, float], shares: Mapping[str, float]) -> None:
        """After each step, if this is overridden, the same in every process.

        Args:
            losses: the mean loss over the targets of each member that had rows in the step, in nats.
            shares: how many of the step's rows were each one's, as a share of all.
        """

    def report(self) -> dict[str, Any]:
        """What it says of itself in ``report.json``: JSON values by name."""
        return {}
