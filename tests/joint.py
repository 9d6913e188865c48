"""Recipes of a stage that teaches several tasks, which run in about a second."""

from __future__ import annotations

FACTS = 'use = "world_facts", templates_per_fact = 1'
PARTS = {
    "words": 'languages = "en", relations = "capital"',
    "topic": 'languages = "en", relations = ["symbol", "number"]',
    "tongue": 'languages = ["en", "zh"], relations = "symbol"',
}
"""Rows of texts, of texts with the column ``relation``, and with the column ``language``."""

TASKS = {
    "words": 'use = "masked_lm"',
    "topic": 'use = "classification", label = "relation"',
    "tongue": 'use = "classification", label = "language"',
}


def mixed(limit: int, options: str = "", parts: dict[str, str] = PARTS) -> str:
    """A mixture's table, with so many subjects a part."""
    tables = ", ".join(f"{name} = {{ {FACTS}, {part}, limit = {limit} }}" for name, part in parts.items())
    return f'{{ use = "mixture", {options}parts = {{ {tables} }} }}'


def joint(
    more: str = "", adaptation: str = '{ use = "full" }', options: str = "", tasks: dict[str, str] = TASKS
) -> str:
    """A recipe of one stage, ``joint``; ``more`` stands behind it."""
    members = ", ".join(f"{name} = {{ {table} }}" for name, table in tasks.items())
    return f"""
name = "joint"
seed = 5
adaptation = {adaptation}
[model]
use = "scratch"
architecture = "bert"
hidden_size = 16
layers = 1
heads = 2
vocabulary_size = 300
[training]
steps = 5
batch_size = 6
micro_batch_size = 2
learning_rate = 0.05
optimizer = "sgd"
checkpoint_every = 2
log_every = 1
dropout = 0.0
precision = "fp32"
[data]
overlap = "allow"
[[stage]]
name = "joint"
objective = {{ use = "multitask", {options}tasks = {{ {members} }} }}
evaluator = [{{ use = "perplexity" }}, {{ use = "accuracy" }}]
[stage.data]
train = {mixed(6)}
test = {mixed(4)}
{more}
"""


AFTER = f"""
[[stage]]
name = "after"
objective = {{ use = "classification", label = "relation" }}
evaluator = [{{ use = "accuracy" }}]
mitigation = [{{ use = "ewc", samples = 4 }}, {{ use = "replay", share = 0.5, by = "task" }}, {{ use = "pcgrad" }},
    {{ use = "agem", rows_per_step = 6, constraint = "each" }}]
[stage.data]
train = {{ {FACTS}, languages = "en", relations = ["iso_code", "capital"], limit = 6 }}
test = {{ {FACTS}, languages = "en", relations = ["iso_code", "capital"], limit = 4 }}
"""
"""A stage of another task, guarded in all ways."""
