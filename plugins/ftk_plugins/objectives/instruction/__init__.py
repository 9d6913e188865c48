"""The variant `instruction`: learn the answers to instructions, prompts or chat turns."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="instruction",
            summary="Learn the answers of Alpaca rows, of prompts with completions, or of chat messages.",
            options="ftk_plugins.objectives.instruction.options:InstructionOptions",
            build="ftk_plugins.objectives.instruction.instruction:Instruction",
            provides=(
                "prompts",
                "next-token",
                "token-loss",
                "target-sampling",
                "target-logits",
                "loss-chunks",
                "label-smoothing",
            ),
            paper="Wei et al. 2022, Finetuned Language Models Are Zero-Shot Learners, "
            "https://arxiv.org/abs/2109.01652; rows: Taori et al. 2023, Stanford Alpaca",
        )
    ]
