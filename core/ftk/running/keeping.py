"""What a run tells of its stages to whoever keeps them for other runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftk.running.pipeline import Run


class StageKeeper:
    """Knows stages that other runs have trained; this one knows none."""

    def place(self, run: Run) -> None:
        """Put into the folder of ``run``, which has read its rows, the stages that are known; its first ones."""

    def keep(self, run: Run, number: int) -> None:
        """Take note of a stage that ``run`` has finished; 0 is the starting model, measured."""

    def close(self) -> None:
        """The run has ended, finished or not."""
