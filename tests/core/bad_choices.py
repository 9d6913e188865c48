"""Recipes that choose wrongly: variants, needs, merged tables, ``--set``, ``--without``."""

from __future__ import annotations

from tests.core.bad_recipes import ANCHOR, Bad, good, pipeline
from tests.core.lab import GOOD, PIPELINE

BAD_CHOICES = {
    # variants
    "no use": Bad(good(('use = "adapter"\n', "")), ("adaptation.use|is missing|adapter",)),
    "use of a number": Bad(good(('use = "adapter"', "use = 3")), ("adaptation.use|must be text, got 3",)),
    "unknown variant": Bad(
        good(('"adapter"', '"adaptor"')), ("adaptation.use|unknown adaptation|did you mean `adapter`?",)
    ),
    "unknown transform": Bad(
        good(('path = "train.jsonl"', 'path = "t", transform = [{ use = "lowre" }]')),
        ("data.train.transform.1.use|unknown transform|did you mean `lower`?",),
    ),
    "another kind": Bad(
        good(('"adapter"\nrank = 8', '"anchor"')),
        ("adaptation.use|`anchor` is a mitigation, not an adaptation|adapter",),
    ),
    "another distribution": Bad(
        good(('"adapter"', '"ftk-mega/adapter"')),
        ("adaptation.use|ftk-mega offers no adaptation `adapter`|ftk-lab/adapter",),
    ),
    "options that do not import": Bad(
        good(('"anchor"', '"fragile"')),
        ("mitigation.fragile.use|ftk-lab 2.0 is broken|the lab is closed|pip",),
    ),
    "options that are none": Bad(
        good(('"anchor"', '"strange"')), ("mitigation.strange.use|no subclass of ftk.Options",)
    ),
    "options with a reserved key": Bad(good(('"anchor"', '"greedy"')), ("mitigation.greedy.use|declare `name`",)),
    "options that raise": Bad(
        good((ANCHOR, '[[mitigation]]\nuse = "stubborn"\ntable = "z"')),
        ("mitigation.stubborn|`ftk-lab/stubborn` failed: KeyError|mistake of the plugin",),
    ),
    # needs
    "adaptation without drift": Bad(
        good(('"adapter"\nrank = 8', '"infix"')),
        (
            "mitigation.anchor|`anchor` needs weight-drift, which adaptation `infix` does not "
            "provide|adaptations that do: |adapter|, whole",
        ),
    ),
    "options that withhold": Bad(
        good(("rank = 8", "dora = true")),
        ("mitigation.anchor|adaptation `adapter` with these options does not provide",),
    ),
    "objective without prompts": Bad(
        good(('"answers"', '"words"')),
        ("evaluator.keywords|`keywords` needs prompts, which objective `words`",),
    ),
    "nobody provides": Bad(
        good(('"anchor"', '"lunar"')), ("mitigation.lunar|needs moonlight, which nothing installed",)
    ),
    "nothing earlier": Bad(
        good(
            ('retain = { use = "rows", path = "old.jsonl" }\n', ""),
            ('retain_test = { use = "rows", path = "old-test.jsonl" }\n', ""),
        ),
        (
            "mitigation.anchor|needs earlier-data|add data.retain",
            "mitigation.mix|needs earlier-data|add data.retain",
        ),
    ),
    "nothing earlier in a stage's own": Bad(
        pipeline(('name = "first"', 'name = "first"\nmitigation = [{ use = "mix" }]')),
        ("stage.first.mitigation.mix|needs earlier-data|add data.retain",),
    ),
    "no validation data": Bad(
        good((ANCHOR, '[[mitigation]]\nuse = "blend"\nalpha = "validation"')),
        (
            "mitigation.blend|needs validation-data|add data.validation",
            "mitigation.blend|needs retain-validation-data|add data.retain_validation",
        ),
    ),
    "evaluators without test data": Bad(
        good(('test = { use = "rows", path = "test.jsonl" }\n', "")),
        ("evaluator.keywords|`keywords`: there are no test rows to measure on|add data.test, or a",),
    ),
    "evaluators without retained test data": Bad(
        good(('retain_test = { use = "rows", path = "old-test.jsonl" }\n', "")),
        ("evaluator.keywords|no test rows of data.retain to measure on|add data.retain_test, or a",),
    ),
    "evaluators without test data in one stage": Bad(
        pipeline(('test = { use = "rows", path = "second-test.jsonl" }\n', "")),
        ("stage.second.evaluator.keywords|there are no test rows to measure on",),
    ),
    "test of nothing retained": Bad(
        good(
            ('retain = { use = "rows", path = "old.jsonl" }\n', ""),
            ('"anchor"', '"blend"'),
            ('"mix"\nshare = 0.2', '"blend"\nname = "again"'),
        ),
        ("data.retain_test|stands alone, without data.retain|data.probes",),
    ),
    "shares that fill everything": Bad(
        good(("share = 0.2", 'share = 0.5\n[[mitigation]]\nuse = "mix"\nname = "more"\nshare = 0.5')),
        ("mitigation.mix|fill 1 of the training data (0.5 of `mix` + 0.5 of `more`)|at most 0.99",),
    ),
    "a share of nearly everything": Bad(
        good(("share = 0.2", "share = 0.99999999999")),
        ("mitigation.mix|fill 1 of the training data|at most 0.99",),
    ),
    "training that no choice heeds": Bad(
        good(("steps = 10", "steps = 10\nloss_chunks = 2\nlabel_smoothing = 0.1")),
        (
            "training.loss_chunks|needs loss-chunks, which",
            "training.label_smoothing|needs label-smoothing, which",
        ),
    ),
    "needs of one stage": Bad(
        pipeline(('{ use = "adapter", rank = 2 }', '{ use = "infix" }')),
        ("mitigation.anchor|adaptation `infix` does not provide (in stage second)",),
    ),
    "an adaptation that does not merge, before the last stage": Bad(
        pipeline(('"whole"', '"infix"'), ('[[mitigation]]\nuse = "anchor"\n', "")),
        (
            "adaptation|what `infix` learns stays beside the model and cannot be merged into it, so stage `second` "
            "would start without it|use it in the last stage only; adaptations that merge: |adapter|, whole",
        ),
    ),
    # merging
    "stage part without a default": Bad(
        pipeline(('[adaptation]\nuse = "whole"\n', ""), ('{ use = "adapter", rank = 2 }', "{ rank = 2 }")),
        ("stage.first.adaptation|is missing", "stage.second.adaptation.use|is missing"),
    ),
    "wrong option merged in": Bad(
        pipeline(('"whole"', '"adapter"'), ('{ use = "adapter", rank = 2 }', "{ rnak = 2 }")),
        ("stage.second.adaptation.rnak|unknown key|did you mean `rank`?",),
    ),
    "default option wrong for what is merged in": Bad(
        pipeline(
            ('"whole"', '"adapter"\nrank = 3\nscale = 250.0'),
            ('{ use = "adapter", rank = 2 }', "{ rank = 2 }"),
        ),
        ("stage.second.adaptation.scale|is more than a hundred times the rank",),
    ),
    "default broken, stage merges": Bad(
        pipeline(('"whole"', '"hole"'), ('{ use = "adapter", rank = 2 }', "{ rank = 2 }")),
        ("adaptation.use|unknown adaptation `hole`|did you mean `whole`?",),
    ),
    "default and own both wrong": Bad(
        pipeline(('"whole"', '"adapter"\nrank = -1'), ('{ use = "adapter", rank = 2 }', "{ scale = -2 }")),
        ("adaptation.rank|above 0, got -1", "stage.second.adaptation.scale|above 0, got -2"),
    ),
    "training merged": Bad(
        pipeline(("batch_size = 4", "batch_size = 0"), ("{ steps = 7 }", "{ steps = -7 }")),
        ("training.batch_size|above 0, got 0", "stage.second.training.steps|above 0, got -7"),
    ),
    "many at once": Bad(
        good(
            ("seed = 1", "seed = -1"),
            ("rank = 8", 'rank = "x"\nrnk = 2'),
            ('"mix"', '"mxi"'),
            ("steps = 10", "steps = 0"),
        ),
        (
            "seed|got -1",
            "adaptation.rank|got 'x'",
            "adaptation.rnk|did you mean `rank`?",
            "mitigation.mxi.use|did you mean `mix`?",
            "training.steps|above 0",
        ),
    ),
    # --set and --without
    "setting without a value": Bad(GOOD, ("--set training.steps|has no `=`",), ("training.steps",)),
    "setting without a path": Bad(GOOD, ("--set a b=1|is no path",), ("a b=1",)),
    "setting of an unknown key": Bad(
        GOOD, ("a recipe has no key `trainig`|did you mean `training`?",), ("trainig.steps=1",)
    ),
    "setting of an unknown part": Bad(
        GOOD, ("`mitigation` has no `anchr`|did you mean `anchor`?",), ("mitigation.anchr.strength=1",)
    ),
    "setting past the end": Bad(GOOD, ("`evaluator` has no `2`|keywords",), ("evaluator.2.x=1",)),
    "setting of an unknown stage": Bad(
        PIPELINE, ("`stage` has no `secnd`|did you mean `second`?",), ("stage.secnd.training.steps=1",)
    ),
    "setting in an unknown table of a stage": Bad(
        PIPELINE, ("a stage has no key `adaption`|did you mean `adaptation`?",), ("stage.2.adaption.rank=1",)
    ),
    "setting inside a value": Bad(GOOD, ("`seed` is a value",), ("seed.x=1",)),
    "setting of an unknown option": Bad(GOOD, ("adaptation.rnak|did you mean `rank`?",), ("adaptation.rnak=1",)),
    "setting of a wrong type": Bad(
        GOOD, ("adaptation.rank|must be a whole number, got 'many'",), ("adaptation.rank=many",)
    ),
    "settings in numbers": Bad(
        GOOD, ("a recipe has no key `x`", "`mitigation` has no `y`"), ("x.y=1", "mitigation.y.z=1")
    ),
    "without a name that is not there": Bad(GOOD, ("--without ancor|did you mean `anchor`?",), (), ("ancor",)),
    "without anything there": Bad(
        good((ANCHOR, ""), ('[[mitigation]]\nuse = "mix"\nshare = 0.2', "")),
        ("--without mix|the recipe has no mitigation",),
        (),
        ("mix",),
    ),
}
