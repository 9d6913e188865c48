"""What a variant of each kind builds."""

from __future__ import annotations

from ftk.parts.adaptation import Adaptation
from ftk.parts.dataset import DatasetSource, Transform
from ftk.parts.evaluator import Evaluator
from ftk.parts.merging import MergeMethod
from ftk.parts.mitigation import Mitigation
from ftk.parts.model import ModelSource
from ftk.parts.objective import Objective
from ftk.parts.part import Part

PART_OF_KIND: dict[str, type[Part]] = {
    "model": ModelSource,
    "dataset": DatasetSource,
    "transform": Transform,
    "objective": Objective,
    "adaptation": Adaptation,
    "mitigation": Mitigation,
    "evaluator": Evaluator,
    "merge": MergeMethod,
}
"""The base class of the parts of each kind."""
