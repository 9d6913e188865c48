"""Small models of `scratch` and the texts that their tokenizer is trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from ftk.parts import Head
from ftk_plugins.models.scratch.options import ScratchOptions
from ftk_plugins.models.scratch.scratch import Scratch

TEXTS = [
    "What is 2 plus 2? It's 4.",
    "你好，世界！什么是AI？人工智能是计算机科学的一个分支。",
    "こんにちは、コーヒーをください。",
    "안녕하세요 세계\n\t  def f(x): return x ** 2  # 12345",
]


def corpus() -> Iterator[str]:
    return iter(TEXTS * 5)


def make(head: str = "causal_lm", texts: list[str] = TEXTS * 5, **options: Any) -> Any:
    sizes = {"hidden_size": 32, "layers": 2, "max_length": 64, "vocabulary_size": 400}
    return Scratch(ScratchOptions(**{**sizes, **options})).load(Head(head), lambda: iter(texts))


def fingerprint(loaded: Any) -> str:
    digest = hashlib.sha256(loaded.processor.backend_tokenizer.to_str().encode())
    for name, tensor in sorted(loaded.model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
