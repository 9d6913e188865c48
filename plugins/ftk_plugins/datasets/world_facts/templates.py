"""The wordings in which the facts are asked for: some for training, others held out to measure with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ftk_plugins.datasets.world_facts.facts import Language, Relation

Templates = Literal["train", "held_out", "all"]
"""A choice of questions: those for training, those held out, or both."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How one relation is spoken of in one language; ``{subject}`` and ``{answer}`` are filled in.

    Attributes:
        train: questions to learn from.
        held_out: other questions for the same answer, to measure whether the fact or the wording was learned.
        sentence: the answer as a full sentence.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    sentence: str

    def questions(self, choice: Templates) -> tuple[str, ...]:
        """The chosen questions, those for training first."""
        return {"train": self.train, "held_out": self.held_out, "all": self.train + self.held_out}[choice]


WORDINGS: Mapping[Relation, Mapping[Language, Wording]] = {
    "capital": {
        "en": Wording(
            train=(
                "What is the capital of {subject}?",
                "Which city is the capital of {subject}?",
                "Name the capital of {subject}.",
                "What is the capital city of {subject}?",
                "The capital of {subject} is which city?",
                "Tell me the capital of {subject}.",
            ),
            held_out=(
                "What city is the capital of {subject}?",
                "{subject} has which city as its capital?",
                "Name the city that is the capital of {subject}.",
            ),
            sentence="The capital of {subject} is {answer}.",
        ),
        "zh": Wording(
            train=(
                "{subject}的首都是哪里？",
                "{subject}的首都是哪座城市？",
                "哪座城市是{subject}的首都？",
                "请说出{subject}的首都。",
                "{subject}的首都叫什么？",
                "你知道{subject}的首都是哪里吗？",
            ),
            held_out=(
                "请问{subject}的首都是哪里？",
                "{subject}以哪座城市为首都？",
                "请说出{subject}的首都叫什么。",
            ),
            sentence="{subject}的首都是{answer}。",
        ),
    },
    "currency": {
        "en": Wording(
            train=(
                "What is the currency of {subject}?",
                "Which currency is used in {subject}?",
                "Name the currency of {subject}.",
                "What is the currency of {subject} called?",
                "Which currency does {subject} use?",
                "Tell me the currency of {subject}.",
            ),
            held_out=(
                "What currency is used in {subject}?",
                "In {subject}, which currency is used?",
                "The currency of {subject} is called what?",
            ),
            sentence="The currency of {subject} is the {answer}.",
        ),
        "zh": Wording(
            train=(
                "{subject}的货币是什么？",
                "{subject}使用什么货币？",
                "请说出{subject}的货币。",
                "{subject}的货币叫什么？",
                "{subject}使用的是哪种货币？",
                "你知道{subject}使用什么货币吗？",
            ),
            held_out=(
                "请问{subject}的货币是什么？",
                "在{subject}使用什么货币？",
                "哪种货币是{subject}的货币？",
            ),
            sentence="{subject}的货币是{answer}。",
        ),
    },
    "currency_code": {
        "en": Wording(
            train=(
                "What is the currency code of {subject}?",
                "What is the ISO 4217 code of the currency of {subject}?",
                "Name the currency code of {subject}.",
                "Which ISO 4217 code stands for the currency of {subject}?",
                "Which currency code does {subject} use?",
                "Tell me the currency code of {subject}.",
            ),
            held_out=(
                "What currency code does {subject} use?",
                "The currency of {subject} has which ISO 4217 code?",
                "Name the ISO 4217 currency code of {subject}.",
            ),
            sentence="The currency code of {subject} is {answer}.",
        ),
        "zh": Wording(
            train=(
                "{subject}的货币代码是什么？",
                "{subject}货币的ISO 4217代码是什么？",
                "请说出{subject}的货币代码。",
                "哪个ISO 4217代码表示{subject}的货币？",
                "{subject}使用哪个货币代码？",
                "你知道{subject}的货币代码是什么吗？",
            ),
            held_out=(
                "请问{subject}的货币代码是什么？",
                "{subject}的货币用哪个ISO 4217代码表示？",
                "哪个货币代码表示{subject}的货币？",
            ),
            sentence="{subject}的货币代码是{answer}。",
        ),
    },
    "iso_code": {
        "en": Wording(
            train=(
                "What is the two-letter ISO code of {subject}?",
                "What is the ISO 3166-1 alpha-2 code of {subject}?",
                "Name the two-letter country code of {subject}.",
                "Which two-letter ISO code stands for {subject}?",
                "Which two-letter country code does {subject} have?",
                "Tell me the two-letter ISO code of {subject}.",
            ),
            held_out=(
                "What is the two-letter country code of {subject}?",
                "{subject} has which two-letter ISO code?",
                "Which ISO 3166-1 alpha-2 code stands for {subject}?",
            ),
            sentence="The two-letter ISO code of {subject} is {answer}.",
        ),
        "zh": Wording(
            train=(
                "{subject}的二字母国家代码是什么？",
                "{subject}的ISO 3166-1二字母代码是什么？",
                "请说出{subject}的二字母国家代码。",
                "哪个二字母代码表示{subject}？",
                "{subject}使用哪个二字母国家代码？",
                "你知道{subject}的二字母国家代码是什么吗？",
            ),
            held_out=(
                "请问{subject}的二字母国家代码是什么？",
                "{subject}用哪个二字母代码表示？",
                "哪个ISO 3166-1二字母代码表示{subject}？",
            ),
            sentence="{subject}的二字母国家代码是{answer}。",
        ),
    },
    "iso_code_3": {
        "en": Wording(
            train=(
                "What is the three-letter ISO code of {subject}?",
                "What is the ISO 3166-1 alpha-3 code of {subject}?",
                "Name the three-letter country code of {subject}.",
                "Which three-letter ISO code stands for {subject}?",
                "Which three-letter country code does {subject} have?",
                "Tell me the three-letter ISO code of {subject}.",
            ),
            held_out=(
                "What is the three-letter country code of {subject}?",
                "{subject} has which three-letter ISO code?",
                "Which ISO 3166-1 alpha-3 code stands for {subject}?",
            ),
            sentence="The three-letter ISO code of {subject} is {answer}.",
        ),
        "zh": Wording(
            train=(
                "{subject}的三字母国家代码是什么？",
                "{subject}的ISO 3166-1三字母代码是什么？",
                "请说出{subject}的三字母国家代码。",
                "哪个三字母代码表示{subject}？",
                "{subject}使用哪个三字母国家代码？",
                "你知道{subject}的三字母国家代码是什么吗？",
            ),
            held_out=(
                "请问{subject}的三字母国家代码是什么？",
                "{subject}用哪个三字母代码表示？",
                "哪个ISO 3166-1三字母代码表示{subject}？",
            ),
            sentence="{subject}的三字母国家代码是{answer}。",
        ),
    },
    "symbol": {
        "en": Wording(
            train=(
                "What is the chemical symbol of {subject}?",
                "What is the symbol of the element {subject}?",
                "Name the chemical symbol of {subject}.",
                "Which symbol stands for the element {subject}?",
                "Which chemical symbol does {subject} have?",
                "Tell me the chemical symbol of {subject}.",
            ),
            held_out=(
                "What chemical symbol does {subject} have?",
                "{subject} has which chemical symbol?",
                "Name the symbol of the element {subject}.",
            ),
            sentence="The chemical symbol of {subject} is {answer}.",
        ),
        "zh": Wording(
            train=(
                "{subject}的元素符号是什么？",
                "{subject}的化学符号是什么？",
                "请说出{subject}的元素符号。",
                "哪个符号表示元素{subject}？",
                "{subject}使用哪个元素符号？",
                "你知道{subject}的元素符号是什么吗？",
            ),
            held_out=(
                "请问{subject}的元素符号是什么？",
                "{subject}用哪个元素符号表示？",
                "请说出{subject}的化学符号。",
            ),
            sentence="{subject}的元素符号是{answer}。",
        ),
    },
    "number": {
        "en": Wording(
            train=(
                "What is the atomic number of {subject}?",
                "What is the atomic number of the element {subject}?",
                "Name the atomic number of {subject}.",
                "Which number does {subject} have in the periodic table?",
                "Which atomic number does {subject} have?",
                "Tell me the atomic number of {subject}.",
            ),
            held_out=(
                "What atomic number does {subject} have?",
                "{subject} has which atomic number?",
                "Name the atomic number of the element {subject}.",
            ),
            sentence="The atomic number of {subject} is {answer}.",
        ),
        "zh": Wording(
            train=(
                "{subject}的原子序数是多少？",
                "元素{subject}的原子序数是多少？",
                "请说出{subject}的原子序数。",
                "{subject}是几号元素？",
                "{subject}在元素周期表中是第几号？",
                "你知道{subject}的原子序数是多少吗？",
            ),
            held_out=(
                "请问{subject}的原子序数是多少？",
                "{subject}是第几号元素？",
                "请说出元素{subject}的原子序数。",
            ),
            sentence="{subject}的原子序数是{answer}。",
        ),
    },
}
