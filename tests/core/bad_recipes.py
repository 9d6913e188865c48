"""Recipes that are written wrongly, each with what must be said of it; add a case, and the test holds it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.core.lab import GOOD, PIPELINE


@dataclass(frozen=True)
class Bad:
    """One wrong recipe.

    Attributes:
        text: the recipe.
        said: for each problem, in any order, texts that its path, reason and hint hold, joined by ``|``.
        settings: ``--set`` arguments.
        without: ``--without`` arguments.
    """

    text: str
    said: tuple[str, ...]
    settings: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def good(*changes: tuple[str, str]) -> str:
    """The recipe of one stage with texts replaced."""
    return _changed(GOOD, changes)


def pipeline(*changes: tuple[str, str]) -> str:
    """The recipe of two stages with texts replaced."""
    return _changed(PIPELINE, changes)


def _changed(text: str, changes: tuple[tuple[str, str], ...]) -> str:
    for old, new in changes:
        assert text.count(old) >= 1, f"{old!r} is not in the recipe"
        text = text.replace(old, new, 1)
    return text


ANCHOR = '[[mitigation]]\nuse = "anchor"'

BAD_RECIPES = {
    # TOML
    "no value": Bad("name = \n", ("line 1, column 8|is not TOML",)),
    "text without quotes": Bad("name = trial\n", ("line 1, column 8|is not TOML|quotes",)),
    "unclosed table": Bad(good(("[model]", "[model")), ("line 4|is not TOML",)),
    "key twice": Bad(good(("seed = 1", "seed = 1\nseed = 2")), ("line 4|is not TOML|overwrite",)),
    "endless number": Bad(f"seed = {'9' * 5000}\n", ("is not TOML",)),
    # keys
    "empty": Bad(
        "",
        (
            "name|is missing",
            "model|is missing|tiny",
            "objective|is missing|answers",
            "adaptation|is missing|[adaptation]",
            "data.train|is missing|rows",
        ),
    ),
    "unknown key at the top": Bad(
        good(("[training]", "[trainning]")), ("trainning|unknown key|did you mean `training`?",)
    ),
    "plural of a key": Bad(
        good((ANCHOR, '[[mitigations]]\nuse = "anchor"')),
        ("mitigations|unknown key|did you mean `mitigation`?",),
    ),
    "unknown option": Bad(good(("rank = 8", "rnak = 8")), ("adaptation.rnak|unknown key|did you mean `rank`?",)),
    "unknown key in training": Bad(
        good(("steps = 10", "step = 10")), ("training.step|unknown key|did you mean `steps`?",)
    ),
    "unknown key in data": Bad(
        good(("retain_test", "retained_test")),
        (
            "data.retained_test|unknown key|did you mean `retain_test`?",
            "evaluator.keywords|there are no test rows of data.retain",
        ),
    ),
    "unknown key in a stage": Bad(
        pipeline(('name = "second"', 'name = "second"\ntrianing = {}')),
        ("stage.second.trianing|unknown key|did you mean `training`?",),
    ),
    "model in a stage": Bad(
        pipeline(('name = "second"', 'name = "second"\nmodel = { use = "tiny" }')),
        ("stage.second.model|unknown key|outside the stages",),
    ),
    "retain in a stage": Bad(
        pipeline(
            (
                'train = { use = "rows", path = "second.jsonl" }',
                'train = { use = "rows", path = "s" }\nretain = { use = "rows", path = "r" }',
            )
        ),
        ("stage.second.data.retain|unknown key|outside the stages",),
    ),
    # types and ranges
    "text for a whole number": Bad(
        good(("rank = 8", 'rank = "ten"')), ("adaptation.rank|must be a whole number, got 'ten'",)
    ),
    "digits as text": Bad(good(("rank = 8", 'rank = "8"')), ("adaptation.rank|must be a whole number, got '8'",)),
    "boolean for a number": Bad(
        good(("rank = 8", "rank = true")), ("adaptation.rank|must be a whole number, got true",)
    ),
    "fraction for a whole number": Bad(
        good(("rank = 8", "rank = 8.5")), ("adaptation.rank|must be a whole number, got 8.5",)
    ),
    "number for a boolean": Bad(good(("rank = 8", "dora = 1")), ("adaptation.dora|must be true or false, got 1",)),
    "number out of range": Bad(good(("rank = 8", "rank = 0")), ("adaptation.rank|must be above 0, got 0",)),
    "number too large": Bad(
        good(('use = "tiny"', 'use = "tiny"\nwidth = 65')), ("model.width|must be at most 64, got 65",)
    ),
    "infinite": Bad(good(("steps = 10", "learning_rate = inf")), ("training.learning_rate|finite number, got inf",)),
    "not a number": Bad(good(("steps = 10", "learning_rate = nan")), ("training.learning_rate|got nan",)),
    "no such choice": Bad(
        good(('use = "tiny"', 'use = "tiny"\ndtype = "float23"')),
        ("model.dtype|must be 'float32' or 'bfloat16', got 'float23'|did you mean `float32`?",),
    ),
    "number for text or list": Bad(
        good((ANCHOR, f"{ANCHOR}\nlayers = 3")), ("mitigation.anchor.layers|must be text or a list, got 3",)
    ),
    "number in a list of text": Bad(
        good(('path = "train.jsonl"', 'path = "train.jsonl", columns = ["a", 2]')),
        ("data.train.columns.2|must be text, got 2",),
    ),
    "text in a list of numbers": Bad(
        good(('use = "keywords"', 'use = "nats"\nquantiles = ["0.5"]')),
        ("evaluator.nats.quantiles.1|must be a number, got '0.5'",),
    ),
    "empty list": Bad(
        good(('use = "keywords"', 'use = "nats"\nquantiles = []')),
        ("evaluator.nats.quantiles|must not be empty",),
    ),
    "date for text": Bad(
        good(('path = "train.jsonl"', "path = 2020-01-01")), ("data.train.path|must be text, got 2020-01-01",)
    ),
    "required option missing": Bad(
        good(('{ use = "rows", path = "train.jsonl" }', '{ use = "rows" }')),
        ("data.train.path|is missing|The file with the rows.",),
    ),
    "options that contradict": Bad(
        good((ANCHOR, '[[mitigation]]\nuse = "blend"\nlow = 2')),
        ("mitigation.blend|`low` must not be above `high`",),
    ),
    "both lengths": Bad(
        good(("steps = 10", "steps = 10\nepochs = 1")), ("training|give `epochs` or `steps`, not both",)
    ),
    "early stopping without evaluations": Bad(
        good(("steps = 10", "steps = 10\nearly_stopping = { patience = 2 }")),
        ("training|`early_stopping` goes by evaluations: write evaluate_every",),
    ),
    "the best without evaluations": Bad(
        good(("steps = 10", 'steps = 10\nkeep = "best"')),
        ('training|`keep = "best"` goes by evaluations: write evaluate_every',),
    ),
    "nothing goes by the best": Bad(
        good(("steps = 10", 'steps = 10\nevaluate_every = 5\nbest_by = "nats"')),
        ('training|`best_by` tells early_stopping and keep = "best" what is best',),
    ),
    "a metric that no evaluator measures": Bad(
        good(
            ("steps = 10", 'steps = 10\nevaluate_every = 5\nkeep = "best"\nbest_by = "mine.nats_0.55"'),
            ('path = "train.jsonl"', 'path = "train.jsonl", fraction = 0.1'),
            ('use = "keywords"', 'use = "nats"\nname = "mine"\nquantiles = [0.5, 0.9]'),
        ),
        ("training.best_by|no evaluator measures `mine.nats_0.55`|did you mean `mine.nats_0.5`?",),
    ),
    "no patience": Bad(
        good(("steps = 10", "steps = 10\nevaluate_every = 5\nearly_stopping = { patience = 0 }")),
        ("training.early_stopping.patience|must be above 0, got 0",),
    ),
    "evaluations without validation data": Bad(
        good(("steps = 10", "steps = 10\nevaluate_every = 5")),
        ("training.evaluate_every|measures on validation data, and there is none|data.validation",),
    ),
    "evaluations without evaluators": Bad(
        pipeline(("epochs = 2", "epochs = 2\nevaluate_every = 5")),
        ("training.evaluate_every|measures with evaluators, and there is none (in stage first)|[[evaluator]]",),
    ),
    "retention that is not measured": Bad(
        good(
            ("steps = 10", 'steps = 10\nevaluate_every = 5\nkeep = "best"\nretention_weight = 1'),
            ('path = "train.jsonl"', 'path = "train.jsonl", fraction = 0.1'),
        ),
        ("training.retention_weight|weighs earlier tasks, and none is there to measure|data.retain_validation",),
    ),
    "seed too large": Bad(good(("seed = 1", "seed = 4294967296")), ("seed|whole number from 0 to 4294967295",)),
    "seed of text": Bad(good(("seed = 1", 'seed = "1"')), ("seed|whole number|got '1'",)),
    "overlap": Bad(
        good(("[data]", '[data]\noverlap = "wanr"')),
        ("data.overlap|must be 'warn', 'allow' or 'error', got 'wanr'",),
    ),
    # names
    "name with a slash": Bad(good(('"trial"', '"a/b"')), ("name|'a/b' cannot be used|folder",)),
    "name of dots": Bad(good(('"trial"', '".."')), ("name|'..' cannot be used",)),
    "name of a number": Bad(good(('"trial"', "7")), ("name|must be text, got 7",)),
    "single stage named retain": Bad(good(('"trial"', '"retain"')), ("name|`retain` is the task of data.retain",)),
    "stage named retain": Bad(pipeline(('"second"', '"retain"')), ("stage.retain.name|`retain` is the task",)),
    "stages of one name": Bad(pipeline(('"second"', '"first"')), ("stage.2.name|two stages have the name `first`",)),
    "stage without a name": Bad(pipeline(('name = "second"\n', "")), ("stage.2.name|is missing",)),
    "parts of one name": Bad(
        good((ANCHOR, f"{ANCHOR}\n{ANCHOR}\nstrength = 2")),
        ("mitigation.2|two mitigations have the name `anchor`|name = ",),
    ),
    "part with a bad name": Bad(good((ANCHOR, f'{ANCHOR}\nname = "a b"')), ("mitigation.1.name|'a b' cannot be used",)),
    # shapes
    "text for a part": Bad(
        good(('[model]\nuse = "tiny"', 'model = "tiny"')),
        ("model|must be a table, got 'tiny'|model = { use = \"tiny\" }",),
    ),
    "path for a data set": Bad(
        good(('{ use = "rows", path = "test.jsonl" }', '"test.jsonl"')),
        ("data.test|must be a table, got 'test.jsonl'|path = \"test.jsonl\"",),
    ),
    "text in a list of parts": Bad(
        good(
            ("seed = 1", 'seed = 1\nmitigation = ["mix"]'),
            (ANCHOR, ""),
            ('[[mitigation]]\nuse = "mix"\nshare = 0.2', ""),
        ),
        ("mitigation.1|must be a table, got 'mix'|write { use = \"mix\" }",),
    ),
    "lists in lists": Bad(
        good(
            ("seed = 1", "seed = 1\nmitigation = [[3]]"),
            (ANCHOR, ""),
            ('[[mitigation]]\nuse = "mix"\nshare = 0.2', ""),
        ),
        ("mitigation.1|must be a table, got [3]",),
    ),
    "single brackets": Bad(
        good(("[[evaluator]]", "[evaluator]")), ("evaluator|must be a list of tables|[[evaluator]]",)
    ),
    "double brackets": Bad(good(("[adaptation]", "[[adaptation]]")), ("adaptation|must be a table|[adaptation]",)),
    "stage in single brackets": Bad(good(("[training]", "[stage]")), ("stage|must be a list of tables|[[stage]]",)),
    "no stage": Bad("stage = []\n" + GOOD, ("stage|is empty",)),
    "data of text": Bad(
        good(("seed = 1", 'seed = 1\ndata = "x"'), ("[data]", "[data_]")),
        ("data|must be a table", "data_|unknown key", "data.train|is missing"),
    ),
    "training of text": Bad(
        good(("seed = 1", 'seed = 1\ntraining = "fast"'), ("[training]\nsteps = 10", "")),
        ("training|must be a table, got 'fast'",),
    ),
    "transform of a table": Bad(
        good(('path = "train.jsonl"', 'path = "t", transform = { use = "lower" }')),
        ("data.train.transform|must be a list of tables",),
    ),
}
