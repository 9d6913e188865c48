"""The contracts between the core and the plugins: everything that a part needs is imported from here."""

from ftk.parts.adaptation import Adaptation, Rewrite, rewrite_weight
from ftk.parts.attention import attention_by
from ftk.parts.comparing import ComparingObjective
from ftk.parts.computed import ComputedDrift
from ftk.parts.context import Context
from ftk.parts.dataset import DataMix, DatasetSource, Transform
from ftk.parts.drift import CHUNK_ELEMENTS, Drift, Product, own_rows
from ftk.parts.effects import Effect, Tally
from ftk.parts.evaluator import Evaluator, Metric, Note, Resampling
from ftk.parts.examples import Examples, Task
from ftk.parts.gradients import Gradients
from ftk.parts.joint import JointObjective
from ftk.parts.merging import Depths, MergeMethod, MergePiece, MergeWeight, WeightedSum, weighted_sum
from ftk.parts.mitigation import Course, Fill, Importance, Knob, Mitigation, Source
from ftk.parts.model import Head, Loaded, ModelSource
from ftk.parts.modes import evaluated
from ftk.parts.objective import Batch, Loss, Objective
from ftk.parts.packing import Packing
from ftk.parts.part import Features, Part, Row, Split, State
from ftk.parts.predicting import Predictions, predictions
from ftk.parts.seeding import derive_seed
from ftk.parts.sharing import add_up, batches_of_process, gathered, tested
from ftk.parts.starting import StartingModel
from ftk.parts.views import lengths_of
from ftk.parts.weights import WeightKind, weight_kinds

__all__ = [
    "CHUNK_ELEMENTS",
    "Adaptation",
    "Batch",
    "ComparingObjective",
    "ComputedDrift",
    "Context",
    "Course",
    "DataMix",
    "DatasetSource",
    "Depths",
    "Drift",
    "Effect",
    "Evaluator",
    "Examples",
    "Features",
    "Fill",
    "Gradients",
    "Head",
    "Importance",
    "JointObjective",
    "Knob",
    "Loaded",
    "Loss",
    "MergeMethod",
    "MergePiece",
    "MergeWeight",
    "Metric",
    "Mitigation",
    "ModelSource",
    "Note",
    "Objective",
    "Packing",
    "Part",
    "Predictions",
    "Product",
    "Resampling",
    "Rewrite",
    "Row",
    "Source",
    "Split",
    "StartingModel",
    "State",
    "Tally",
    "Task",
    "Transform",
    "WeightKind",
    "WeightedSum",
    "add_up",
    "attention_by",
    "batches_of_process",
    "derive_seed",
    "evaluated",
    "gathered",
    "lengths_of",
    "own_rows",
    "predictions",
    "rewrite_weight",
    "tested",
    "weight_kinds",
    "weighted_sum",
]
