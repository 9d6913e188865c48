"""The options of the objective `distillation`: the teacher, the divergence, and what the student learns beside it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftk import Options, Variant
from ftk_plugins.objectives import (
    causal_lm,
    classification,
    denoising,
    image_classification,
    instruction,
    masked_lm,
    token_classification,
)
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions
from ftk_plugins.objectives.classification.options import ClassificationOptions
from ftk_plugins.objectives.denoising.options import DenoisingOptions
from ftk_plugins.objectives.distillation import PROVIDES
from ftk_plugins.objectives.image_classification.options import ImageClassificationOptions
from ftk_plugins.objectives.instruction.options import InstructionOptions
from ftk_plugins.objectives.masked_lm.options import MaskedLMOptions
from ftk_plugins.objectives.token_classification.options import TokenClassificationOptions

_INSIDE = (
    causal_lm, instruction, masked_lm, denoising, classification, token_classification, image_classification,
)  # fmt: skip

VARIANTS: dict[str, Variant] = {variant.name: variant for module in _INSIDE for variant in module.ftk_objectives()}
"""The objectives that can be distilled, by name."""

_USE = Field(description="The objective's name.")


class OfCausalLM(CausalLMOptions):
    """`causal_lm`, as `of` names it."""

    use: Literal["causal_lm"] = _USE


class OfInstruction(InstructionOptions):
    """`instruction`, as `of` names it."""

    use: Literal["instruction"] = _USE


class OfMaskedLM(MaskedLMOptions):
    """`masked_lm`, as `of` names it."""

    use: Literal["masked_lm"] = _USE


class OfDenoising(DenoisingOptions):
    """`denoising`, as `of` names it."""

    use: Literal["denoising"] = _USE


class OfClassification(ClassificationOptions):
    """`classification`, as `of` names it."""

    use: Literal["classification"] = _USE

    @model_validator(mode="after")
    def _classes(self) -> OfClassification:
        if self.kind == "regression":
            raise ValueError('what is distilled are the probabilities of labels, and kind = "regression" has none')
        return self


class OfTokenClassification(TokenClassificationOptions):
    """`token_classification`, as `of` names it."""

    use: Literal["token_classification"] = _USE


class OfImageClassification(ImageClassificationOptions):
    """`image_classification`, as `of` names it."""

    use: Literal["image_classification"] = _USE


def _table(value: Any) -> Any:
    if not isinstance(value, dict | Options) or (isinstance(value, dict) and "use" not in value):
        name = value if isinstance(value, str) else "causal_lm"
        raise ValueError(f'write a table that names the objective, with its options: of = {{ use = "{name}" }}')
    return value


Of = Annotated[
    OfCausalLM
    | OfInstruction
    | OfMaskedLM
    | OfDenoising
    | OfClassification
    | OfTokenClassification
    | OfImageClassification,
    Field(discriminator="use"),
]


class DistillationOptions(Options):
    """What a recipe may say about `distillation`."""

    teacher: str = Field(
        min_length=1,
        examples=["runs/teacher/model"],
        description="Hub id of the teacher, its folder (as `model/` of a run), or a `.gguf` file.",
    )
    of: Annotated[Of, BeforeValidator(_table)] = Field(
        examples=[{"use": "causal_lm"}],
        description="The objective that reads the rows and says what is right: a table with its `use` and its options.",
    )
    weight: float = Field(
        default=0.5, gt=0, le=1, description="Share of the teacher's part in the loss; the rest is that of `of`."
    )
    temperature: float = Field(
        default=2.0, gt=0, description="Divides the logits of both before the softmax; the higher, the flatter."
    )
    divergence: Literal["forward_kl", "reverse_kl", "jensen_shannon"] = Field(
        default="forward_kl",
        description="forward_kl: the student covers all that the teacher holds possible; reverse_kl: it keeps to what "
        "the teacher holds likely; jensen_shannon: between the two.",
    )
    teacher_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Type that the teacher's weights are held in; auto: as they were saved."
    )
    teacher_revision: str | None = Field(
        default=None, min_length=1, description="Branch, tag or commit of the teacher on the hub."
    )

    def withheld(self) -> tuple[str, ...]:
        given = set(VARIANTS[self.of.use].provides) - set(self.of.withheld())
        return tuple(name for name in PROVIDES if name not in given)
