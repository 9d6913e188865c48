"""The made-up distribution ``ftk-lab``: variants of every kind, some of them broken, that import no torch."""

from __future__ import annotations

_PLUGIN = """
from ftk import Variant, hookimpl

def variant(name, options, build="parts:Clean", **facts):
    return Variant(name=name, summary=f"The {name} of the lab.", options=f"ftk_lab.{options}",
                   build=f"ftk_lab.{build}", **facts)

@hookimpl
def ftk_models():
    return [variant("tiny", "options:Tiny")]

@hookimpl
def ftk_datasets():
    return [variant("rows", "options:Rows", provides=("validation-data",))]

@hookimpl
def ftk_transforms():
    return [variant("lower", "options:Clean"), variant("unlike", "options:Nothing", "parts:Unlike"),
            variant("explosive", "options:Nothing", "parts:explode"),
            variant("unfinished", "options:Nothing", "nowhere:Part")]

@hookimpl
def ftk_objectives():
    return [variant("words", "options:Nothing", provides=("token-loss",)),
            variant("answers", "options:Nothing", provides=("token-loss", "prompts"))]

@hookimpl
def ftk_adaptations():
    return [variant("whole", "options:Nothing", provides=("merge", "weight-drift", "sharding")),
            variant("adapter", "options:Adapter", provides=("merge", "weight-drift")),
            variant("infix", "options:Nothing")]

@hookimpl
def ftk_mitigations():
    return [variant("anchor", "options:Anchor", needs=("weight-drift", "earlier-data"),
                    paper="A. Nchor 2024"),
            variant("mix", "options:Mix", needs=("earlier-data",)),
            variant("blend", "options:Blend"),
            variant("lunar", "options:Nothing", needs=("moonlight",)),
            variant("fragile", "fragile:Options"), variant("strange", "options:NoOptions"),
            variant("greedy", "options:Greedy"), variant("stubborn", "options:Stubborn")]

@hookimpl
def ftk_evaluators():
    return [variant("keywords", "options:Nothing", needs=("prompts",)),
            variant("nats", "options:Nats", needs=("token-loss",))]
"""

_OPTIONS = """
from typing import Literal
from pydantic import Field, field_validator, model_validator
from ftk.plugin.options import Options

class Nothing(Options):
    pass

class Tiny(Options):
    width: int = Field(default=8, gt=0, le=64, description="Channels.")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Type of the weights.")

class Rows(Options):
    path: str = Field(description="The file with the rows.")
    columns: tuple[str, ...] = Field(default=(), description="Columns to read; empty: all.")
    fraction: float = Field(default=0.0, ge=0, lt=1, description="Rows kept back for validation.")
    def withheld(self):
        return () if self.fraction else ("validation-data",)

class Clean(Options):
    lower: bool = Field(default=False, description="Lower the case.")

class Adapter(Options):
    rank: int = Field(default=4, gt=0, description="Rank of the update.")
    scale: float | None = Field(default=None, gt=0, description="Scale of the update.")
    dora: bool = Field(default=False, description="Learn magnitudes too, which leaves no additive drift.")
    @field_validator("scale")
    @classmethod
    def _modest(cls, scale, info):
        if scale and scale > 100 * info.data.get("rank", 0):
            raise ValueError("is more than a hundred times the rank")
        return scale
    def withheld(self):
        return ("weight-drift",) if self.dora else ()

class Anchor(Options):
    strength: float = Field(default=0.5, ge=0, description="Weight of the penalty.")
    layers: str | list[str] = Field(default="all", description="Which layers.")

class Mix(Options):
    share: float = Field(default=0.1, gt=0, lt=1, description="Share of the final mix.")
    def data_share(self):
        return self.share

class Blend(Options):
    alpha: float | Literal["validation"] = Field(default=0.5, description="How far to go.")
    low: float = Field(default=0.0, description="Least.")
    high: float = Field(default=1.0, description="Most.")
    @model_validator(mode="after")
    def _ordered(self):
        if self.low > self.high:
            raise ValueError("`low` must not be above `high`")
        return self
    def more_needs(self):
        return ("validation-data", "retain-validation-data") if self.alpha == "validation" else ()

class Nats(Options):
    prompt_words: int = Field(default=3, description="How many.")
    quantiles: tuple[float, ...] = Field(default=(0.5,), min_length=1, description="Which quantiles.")
    def metrics(self):
        return tuple(f"nats_{quantile:g}" for quantile in self.quantiles)

class NoOptions:
    pass

class Greedy(Options):
    name: str = Field(default="x", description="A key that is the recipe's.")

class Stubborn(Options):
    table: str = Field(default="a", description="A key into a table.")
    @field_validator("table")
    @classmethod
    def _known(cls, table):
        return {"a": "b"}[table]
"""

_PARTS = """
from ftk.parts import Transform

class Clean(Transform):
    def __init__(self, options):
        self.options = options
    def apply(self, dataset):
        return dataset

class Unlike:
    def __init__(self, options):
        pass

def explode(options):
    raise ZeroDivisionError("no rows\\nto divide by")
"""

LAB_FILES = {
    "ftk_lab/__init__.py": _PLUGIN,
    "ftk_lab/options.py": _OPTIONS,
    "ftk_lab/parts.py": _PARTS,
    "ftk_lab/fragile.py": "raise RuntimeError('the lab is closed')\n",
}

GOOD = """
name = "trial"
seed = 1
[model]
use = "tiny"
[objective]
use = "answers"
[adaptation]
use = "adapter"
rank = 8
[data]
train = { use = "rows", path = "train.jsonl" }
test = { use = "rows", path = "test.jsonl" }
retain = { use = "rows", path = "old.jsonl" }
retain_test = { use = "rows", path = "old-test.jsonl" }
[[mitigation]]
use = "anchor"
[[mitigation]]
use = "mix"
share = 0.2
[[evaluator]]
use = "keywords"
[training]
steps = 10
"""
"""A recipe of one stage without a mistake."""

PIPELINE = """
name = "pipeline"
[model]
use = "tiny"
[objective]
use = "words"
[adaptation]
use = "whole"
[[mitigation]]
use = "anchor"
[training]
epochs = 2
batch_size = 4
[data]
validation = { use = "rows", path = "validation.jsonl" }
overlap = "allow"
[[stage]]
name = "first"
[stage.data]
train = { use = "rows", path = "first.jsonl" }
[[stage]]
name = "second"
adaptation = { use = "adapter", rank = 2 }
objective = { use = "answers" }
evaluator = [{ use = "keywords" }]
training = { steps = 7 }
[stage.data]
train = { use = "rows", path = "second.jsonl" }
test = { use = "rows", path = "second-test.jsonl" }
"""
"""A recipe of two stages without a mistake."""
