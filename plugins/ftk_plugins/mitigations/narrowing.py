"""How much more than in the end a stage may lose on its way: a range that narrows while the learning rate falls.

While the learning rate is high the weights tremble, and that alone costs the old tasks something that no strength
takes away: a higher one makes the pull stiff, and the trembling worse. What counts is where the stage ends.
"""

from __future__ import annotations

AT_FIRST, SETTLED = 10.0, 0.75
"""How many times what may be lost in the end a stage may have lost at its beginning, and the share of its steps after
which it may no more.
"""


def leeway(done: float) -> float:
    """How many times what may be lost in the end may be lost where this share of the steps is done: 10 to 1."""
    return float(AT_FIRST ** max(0.0, 1 - done / SETTLED))
