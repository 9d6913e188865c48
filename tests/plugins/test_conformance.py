"""Every variant that comes with ftk keeps the contract of its kind, under these choices of options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import OWN_DISTRIBUTION
from ftk.testing import Case, Subject, clauses, toy_model, toy_rows, toy_tokenizer
from tests.plugins.objectives import captions, classes, pictures, retrieval, tagging

Options = Mapping[str, Any]
FALLING = {"start": 0.4, "end": 0.1}
SMALL = {"hidden_size": 32, "layers": 1, "heads": 4}

CHOICES: dict[tuple[str, str], dict[str, Options | Callable[[Path], Options]]] = {
    ("model", "pretrained"): {"folder": lambda folder: {"path": str(folder / "model")}},
    ("model", "scratch"): {"llama": SMALL, "gpt2": {**SMALL, "architecture": "gpt2"}},
    ("dataset", "files"): {
        "whole": lambda folder: {"path": str(folder / "rows.jsonl")},
        "divided": lambda folder: {
            "path": str(folder / "rows.jsonl"), "validation_fraction": 0.25, "test_fraction": 0.25,
        },
    },
    ("dataset", "hub"): {
        "divided": lambda folder: {"path": str(folder / "data"), "test_fraction": 0.25},
    },
    ("dataset", "drawn_shapes"): {
        "one": {"limit": 9, "pixels": 16, "test_fraction": 0.25}, "two": {"scene": "two", "limit": 5},
    },
    ("dataset", "images"): {
        "classes": lambda folder: {"path": str(folder / "pictures")},
        "captions": lambda folder: {"path": str(folder), "captions": "told.csv", "test_fraction": 0.25},
    },
    ("dataset", "mixture"): {
        "weighed": lambda folder: {
            "parts": {
                "rows": {"use": "files", "path": str(folder / "rows.jsonl"), "weight": 2, "test_fraction": 0.25},
                "again": {"use": "files", "path": str(folder / "rows.jsonl"), "weight": 1, "test_fraction": 0.25},
            },
            "when_out": "repeat",
        },
    },
    ("dataset", "self_synthesis"): {
        "texts": {"rows": 4, "max_new_tokens": 5, "batch_size": 3, "top_k": 9},
        "begun": {"rows": 3, "max_new_tokens": 4, "prompts": ["a", "b"], "drop_lowest": 0.3, "temperature": 0.5},
    },
    ("dataset", "world_facts"): {"held_out": {"relations": ["capital"], "templates": "held_out", "limit": 9}},
    ("transform", "augment"): {"texts": {"columns": ["instruction"], "synonyms": {"plus": ["and"]}}},
    ("transform", "clean"): {"html": {"html": "strip", "unicode": "NFKC", "whitespace": "collapse"}},
    ("transform", "map_columns"): {"all": {"rename": {"answer": "output"}, "constants": {"n": 1}, "drop": ["input"]}},
    ("transform", "template"): {"question": {"template": "{{ instruction }} {{ output }}", "column": "question"}},
    ("transform", "deduplicate"): {"exact": {"columns": ["input"]}, "near": {"method": "near", "threshold": 0.3}},
    ("transform", "split_long"): {"words": {"size": 3, "overlap": 1}},
    ("transform", "decontaminate"): {"few_words": {"ngram": 4, "common": 2, "columns": ["text"]}},
    ("transform", "filter"): {
        "limits": {"min_words": 3, "max_symbol_share": 0.2, "scripts": ["Latin"]},
        "rules": {"rules": ["gopher_repetition"]},
    },
    ("transform", "few_shot"): {
        "one": {"column": "output", "per_class": 1},
        "none_left_out": {"column": "input", "per_class": 20, "scarce": "keep"},
    },
    ("model", "mlp"): {"grey": {"image_size": 8, "hidden_size": 5}, "linear": {"layers": 0, "colours": True}},
    ("transform", "select"): {"one": {"column": "output", "values": [next(iter(toy_rows()))["output"]]}},
    ("transform", "permute_pixels"): {"one": {"seed": 1}},
    ("objective", "causal_lm"): {"plain": {}, "packed": {"packing": True, "append_eos": False}},
    ("objective", "denoising"): {
        "spans": {"density": 0.3}, "infilling": {"scheme": "infilling", "permute_sentences": True},
    },
    ("objective", "multitask"): {
        "fixed": {"tasks": {"words": {"use": "masked_lm", "weight": 0.5}, "texts": {"use": "causal_lm"}}},
        "uncertainty": {
            "tasks": {"words": {"use": "masked_lm"}, "texts": {"use": "causal_lm"}}, "weighting": "uncertainty",
        },
    },
    ("objective", "masked_lm"): {"plain": {}, "packed": {"packing": True, "whole_words": True, "probability": 0.4}},
    ("objective", "instruction"): {
        "alpaca": {}, "template": {"template": "Q: {instruction}\nA: ", "loss_on": "all"},
    },
    ("objective", "image_classification"): {"plain": {}, "mixed": {"mixup": 0.4, "cutmix": 1.0, "crop": 0.5}},
    ("objective", "image_text_contrastive"): {"plain": {}, "anew": {"flip": 0.5, "crop": 0.5, "jitter": 0.4}},
    ("objective", "token_classification"): {"first": {}, "all": {"label_all": True, "class_weights": "balanced"}},
    ("objective", "classification"): {**classes.KINDS, "named": {"labels": ["good", "even", "bad"]}},
    ("objective", "contrastive"): retrieval.KINDS,
    ("evaluator", "recall_at_k"): {"both": {"ks": [1, 2], "directions": ["forward", "backward"]}},
    ("evaluator", "multiple_choice"): {
        "texts": {"length": "tokens"}, "letters": {"scored": "letter", "shots": 1, "shots_separator": " "},
    },
    ("evaluator", "lm_eval"): {
        "quiz": lambda folder: {"tasks": ["quiz"], "folder": str(folder / "tasks"), "shots": 1},
    },
    ("evaluator", "f1"): {"all": {"averages": ["macro", "micro", "weighted"]}},
    ("evaluator", "probe"): {"both": {"measures": ["accuracy", "loss"], "penalty": 3.0}},
    ("evaluator", "regression_error"): {"all": {"measures": ["mae", "rmse", "r2", "pearson", "spearman"]}},
    ("objective", "preference"): {"dpo": {"chosen_weight": 0.5}, "ipo": {"method": "ipo", "label_noise": 0.1}},
    ("objective", "distillation"): {
        "tokens": lambda folder: {"teacher": str(folder / "model"), "of": {"use": "instruction"}},
        "labels": lambda folder: {
            "teacher": str(folder / "labels"), "of": {"use": "classification"}, "divergence": "reverse_kl",
        },
    },
    ("adaptation", "full"): {"all": {}, "frozen": {"freeze": ["*embed*"], "start_copy": "cpu"}},
    ("adaptation", "head"): {"norm": {"also": ["model.norm.weight", "*.1.mlp.*"]}},
    ("adaptation", "partial"): {"last": {"blocks": 1}, "none": {"blocks": 0, "also": ["*.0.mlp.*"]}},
    ("adaptation", "layerwise_lr"): {"half": {"decay": 0.5, "start_copy": "cpu"}},
    ("adaptation", "progressive"): {"even": {}, "paced": {"thaw_every": 1, "first_blocks": 1, "decay": 0.9}},
    ("adaptation", "bottleneck"): {
        "houlsby": {"size": 4},
        "pfeiffer": {
            "size": 3, "style": "pfeiffer", "activation": "relu", "scale": 2.0, "modules_to_save": ["norm"],
        },
    },
    ("adaptation", "prompt"): {"few": {"tokens": 3}, "random": {"tokens": 2, "init": "random"}},
    ("adaptation", "prefix"): {
        "few": {"tokens": 3}, "projected": {"tokens": 2, "init": "random", "projection": 8},
    },
    ("adaptation", "lora"): {
        "kaiming": {"rank": 4},
        "gaussian": {"rank": 4, "init": "gaussian", "rslora": True, "b_lr_ratio": 16.0},
        "pissa": {"rank": 4, "init": "pissa"},
        "milora": {"rank": 4, "init": "milora", "rslora": True},
        "beside_whole": {"rank": 4, "targets": ["q_proj"], "modules_to_save": ["embed_tokens", "mlp"]},
        "new_tokens": {"rank": 4, "new_tokens": True},
    },
    ("adaptation", "adalora"): {
        "cut": {"rank": 2, "every": 1},
        "beside_whole": {"rank": 1, "modules_to_save": ["o_proj"], "orthogonality": 0.0},
    },
    ("adaptation", "dora"): {
        "all_linear": {"rank": 4},
        "beside_whole": {"rank": 4, "rslora": True, "targets": ["q_proj", "mlp.*"], "modules_to_save": ["o_proj"]},
    },
    ("adaptation", "peft"): {
        "asked": {"method": "oft", "targets": ["mlp.*"], "modules_to_save": ["o_proj"]},
        "shared": {"method": "vera", "config": {"r": 8}},
    },
    ("adaptation", "ia3"): {"known": {}, "named": {"targets": "all-linear", "feedforward": ["o_proj", "down_proj"]}},
    ("mitigation", "ewc"): {
        "anchors": {"strength": 1.0, "gamma": 0.9, "anchors": "separate", "fisher": "factored"},
        "held": {"labels": "sample", "allowed_loss": 0.05, "fisher": "kfac", "dtype": "bfloat16"},
    },
    ("mitigation", "freeze_important"): {"mas": {"by": "mas", "scope": "all"}},
    ("mitigation", "mas"): {"online": {"gamma": 0.9, "strength": 1.0}},
    ("mitigation", "l2sp"): {"run": {"anchor": "run", "every": 2}},
    ("mitigation", "budget"): {"often": {"every": 2, "retention_floor": 1.0, "trials": 2}},
    ("mitigation", "agem"): {"each": {"buffer_size": 3, "constraint": "each"}},
    ("mitigation", "gpm"): {"few": {"samples": 3, "threshold": 0.9}},
    ("mitigation", "pcgrad"): {"all": {}, "tensor": {"scope": "tensor"}},
    ("mitigation", "distill"): {"new": {}, "both": {"rows": "both", "share": 0.3, "teacher": "cached", "top_k": 9}},
    ("mitigation", "synaptic_intelligence"): {"raw": {"normalise": False, "gamma": 0.9, "strength": 1.0}},
    ("mitigation", "der"): {"few": {"memory": 3, "top_k": 9, "share": 0.3}},
    ("mitigation", "replay"): {"even": {"share": 0.3}, "few": {"memory": 3, "choice": "herding", "share": FALLING}},
    ("merge", "dare"): {"added": {"density": 0.5}, "elected": {"density": 0.5, "then": "ties"}},
    ("mitigation", "interpolation"): {
        "half": {"alpha": 0.5}, "validation": {"alpha": "validation", "alphas": [0.0, 0.5, 1.0]},
        "moving": {"method": "ties", "trained_weights": "ema"}, "fisher": {"method": "fisher", "samples": 4},
    },
}  # fmt: skip
"""Options by variant. A variant that is not named here is checked with its defaults."""


def toys_for(head: str) -> Mapping[str, Any]:
    """ftk's toy model with this kind of head, and its tokenizer."""
    return {"model": partial(toy_model, head=head), "processor": partial(toy_tokenizer, head)}


def labelled(kind: str) -> Mapping[str, Any]:
    """Rows with labels or numbers, and a model that tells them."""
    return {
        "rows": classes.ROWS, "processor": classes.tokenizer,
        "model": partial(classes.bert, 2 if kind == "regression" else 3),
        "beside": {"objective": {"use": "classification", **classes.KINDS[kind]}},
    }  # fmt: skip


PAIRED: Mapping[str, Any] = {
    "rows": retrieval.ROWS, "processor": classes.tokenizer, "model": retrieval.bert,
    "beside": {"objective": {"use": "contrastive"}},
}  # fmt: skip
"""Rows of texts that belong together, and a model that embeds them."""

QUIZ = [
    {**row, "question": row["instruction"], "choices": [str(2 * n), "no", "many"][::sign], "answer": 1 - sign}
    for n, row in enumerate(toy_rows(8))
    for sign in [(-1) ** n]
]
"""Rows that an objective learns, and that ask a question."""


def with_new_tokens() -> Any:
    """The toy model as if the letters e, f and g were new to it."""
    model = toy_model()
    model.new_token_ids = (71, 72, 73)
    return model


AROUND: dict[tuple[str, str], Callable[[str], Mapping[str, Any]]] = {
    ("model", "mlp"): lambda choice: {
        "rows": pictures.ROWS, "processor": pictures.processor, "model": pictures.vit,
        "beside": {"objective": {"use": "image_classification", "labels": ["bar", "cup", "dot"]}},
    },
    ("transform", "permute_pixels"): lambda choice: {"rows": pictures.ROWS},
    ("adaptation", "lora"): lambda choice: {"model": with_new_tokens} if choice == "new_tokens" else {},
    ("objective", "image_classification"): lambda choice: {
        "rows": pictures.ROWS, "processor": pictures.processor, "model": pictures.vit,
    },
    ("objective", "classification"): lambda choice: labelled("regression" if choice == "regression" else "single"),
    ("objective", "distillation"): lambda choice: {} if choice == "tokens" else labelled("single"),
    ("objective", "token_classification"): lambda choice: {
        "rows": tagging.ROWS, "processor": tagging.tokenizer, "model": tagging.bert,
    },
    ("objective", "masked_lm"): lambda choice: toys_for("masked_lm"),
    ("mitigation", "pcgrad"): lambda choice: {"beside": {"objective": {"use": "causal_lm"}}},
    **dict.fromkeys([("evaluator", name) for name in ("accuracy", "f1", "probe")], lambda choice: labelled("single")),
    ("objective", "contrastive"): lambda choice: PAIRED,
    ("objective", "image_text_contrastive"): lambda choice: {
        "rows": captions.ROWS, "processor": captions.processor, "model": captions.clip,
    },
    ("evaluator", "recall_at_k"): lambda choice: PAIRED,
    ("evaluator", "multiple_choice"): lambda choice: {"rows": QUIZ},
    ("evaluator", "regression_error"): lambda choice: labelled("regression"),
    ("objective", "denoising"): lambda choice: {
        **toys_for("seq2seq_lm"),
        "processor": partial(toy_tokenizer, "masked_lm" if choice == "infilling" else "seq2seq_lm"),
    },
}  # fmt: skip
"""What stands around a variant where the toys do not fit it, by choice."""

CASES = {
    f"{entry.kind}-{entry.variant.name}-{choice}-{clause.__name__}": (
        entry.kind, entry.variant.name, choice, clause,
    )
    for entry in load_registry(third_party=False).entries()
    if entry.distribution == OWN_DISTRIBUTION
    for choice in CHOICES.get((entry.kind, entry.variant.name), {"defaults": {}})
    for clause in clauses(entry.kind, of_others=entry.variant.name == "multitask")
}  # fmt: skip


@pytest.fixture(scope="session")
def subject_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Subject]:
    """A variant under one of its choices, with a model and rows on disk for those that read them."""
    folder = tmp_path_factory.mktemp("conformance")
    toy_model().save_pretrained(folder / "model")
    toy_tokenizer().save_pretrained(folder / "model")
    classes.bert(hidden_size=24).save_pretrained(folder / "labels")  # type: ignore[operator]
    classes.tokenizer().save_pretrained(folder / "labels")
    lines = "".join(f"{json.dumps(row)}\n" for row in toy_rows(16))
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    (folder / "data").mkdir()
    (folder / "data" / "train.jsonl").write_text(lines, encoding="utf-8")

    (folder / "tasks").mkdir()
    asked = "".join(f"{json.dumps(row)}\n" for row in QUIZ)
    (folder / "tasks" / "quiz.jsonl").write_text(asked, encoding="utf-8")
    (folder / "tasks" / "quiz.yaml").write_text(
        f"task: quiz\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/tasks/quiz.jsonl}}}}\n"
        "test_split: test\nfewshot_split: test\noutput_type: multiple_choice\ndoc_to_text: question\n"
        "doc_to_choice: choices\ndoc_to_target: answer\nmetric_list: [{metric: acc}, {metric: brier_score}]\n",
        encoding="utf-8",
    )
    for n in range(4):
        (folder / "pictures" / f"{n % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 3), n).save(folder / "pictures" / f"{n % 2}" / f"{n}.png")
    told = "".join(f"pictures/{n % 2}/{n}.png,{n}\n" for n in range(4))
    (folder / "told.csv").write_text(f"file,text\n{told}", encoding="utf-8")

    @cache
    def subject(kind: str, use: str, choice: str) -> Subject:
        chosen = CHOICES.get((kind, use), {}).get(choice, {})
        around = AROUND.get((kind, use), lambda choice: {})(choice)
        return Subject(kind, use, chosen(folder) if callable(chosen) else chosen, **around)

    return subject


@pytest.mark.parametrize(("kind", "use", "choice", "clause"), CASES.values(), ids=CASES)
def test_it_keeps_the_contract(
    subject_of: Callable[[str, str, str], Subject],
    kind: str,
    use: str,
    choice: str,
    clause: Callable[[Subject], None],
) -> None:
    if use == "lm_eval":
        pytest.importorskip("lm_eval", reason='needs pip install "finetune-toolkit[lm-eval]"')
    Case(subject_of(kind, use, choice), clause).check()


def test_every_choice_is_of_a_variant_that_exists() -> None:
    names = {(entry.kind, entry.variant.name) for entry in load_registry(third_party=False).entries()}
    assert set(CHOICES) <= names
