"""Prompt tuning: learned embeddings before the text of a decoder."""

from __future__ import annotations

from typing import Any

import torch
from peft import PromptLearningConfig, PromptTuningConfig, TaskType
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ftk import UserError
from ftk.parts import Context
from ftk_plugins.adaptations.prompt.options import PromptOptions
from ftk_plugins.adaptations.virtual import VirtualTokens, arguments_of, cached_tokens, sampled_tokens


class PromptTuning(VirtualTokens):
    """Puts ``tokens`` learned embeddings before every row (Lester et al. 2021, section 2), and cuts them off behind
    the trunk.

    With a cache they are put in once, where it begins; attention masks and positions are shifted in every pass.
    """

    name = "prompt"

    def __init__(self, options: PromptOptions) -> None:
        super().__init__(options.tokens)
        self.init = options.init
        self._cut = 0

    @torch.no_grad()
    def make(self, model: Any) -> nn.Module:
        weight: Tensor = model.get_input_embeddings().weight
        if self.init == "vocabulary":
            start = weight[sampled_tokens(model, self.tokens)].float()
        else:
            start = torch.randn(self.tokens, weight.shape[1]).to(weight.device) * weight.float().std()
        return nn.ParameterDict({"embeddings": nn.Parameter(start)})

    def before_step(self, ctx: Context) -> bool:
        """Refuse an objective that packs rows; what mitigations mix in is looked at when it comes.

        Raises:
            UserError: it does.
        """
        packing = ctx.objective.packing()
        if packing is not None and packing.joined:
            raise _packed()
        return False

    def hook(self, model: Any, learned: nn.Module) -> list[RemovableHandle]:
        def before(trunk: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            self._cut = 0
            return ((), self._with_prompt(model, trunk, arguments_of(trunk, args, kwargs))) if self.active else None

        return [
            model.base_model.register_forward_pre_hook(before, with_kwargs=True),
            model.base_model.register_forward_hook(lambda trunk, args, output: self._without_prompt(output)),
        ]

    def exported(self, model: Any, learned: nn.Module) -> tuple[PromptLearningConfig, Tensor]:
        config = model.config.get_text_config()
        settings = PromptTuningConfig(
            task_type=TaskType.CAUSAL_LM, num_virtual_tokens=self.tokens, num_layers=config.num_hidden_layers,
            token_dim=learned.get_parameter("embeddings").shape[1], num_attention_heads=config.num_attention_heads,
            num_transformer_submodules=1,
        )  # fmt: skip
        return settings, learned.get_parameter("embeddings")

    def _with_prompt(self, model: Any, trunk: nn.Module, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a pass with the prompt in front, or of one that goes on behind it."""
        mask, places = given.get("attention_mask"), given.get("position_ids")
        embeddings = given.pop("inputs_embeds", None)
        ids = given.pop("input_ids", None)
        if embeddings is None:
            embeddings = model.get_input_embeddings()(ids)
        rows, device = embeddings.shape[0], embeddings.device
        begins = cached_tokens(given) == 0
        self.check_room(cached_tokens(given) + embeddings.shape[1] - (0 if begins else self.tokens))
        if mask is None and begins and places is not None and bool((places.diff() != 1).any()):
            raise _packed()
        if begins:
            prompt = self._learned.get_parameter("embeddings").to(embeddings)
            embeddings = torch.cat([prompt.expand(rows, -1, -1), embeddings], dim=1)
            self._cut = self.tokens
        if mask is not None:
            if mask.ndim != 2:
                raise UserError(
                    "adaptation `prompt`: it is handed a mask of another kind than which tokens are padding",
                    "Use the adaptation `prefix` or `lora`.",
                )
            given["attention_mask"] = torch.cat([mask.new_ones(rows, self.tokens), mask], dim=1)
        for name in ("position_ids", "cache_position"):
            if given.get(name) is not None:
                shifted = given[name] + self.tokens
                first = torch.arange(self.tokens, device=device).expand(*shifted.shape[:-1], -1)
                given[name] = torch.cat([first, shifted], dim=-1) if begins else shifted
        return {**given, "inputs_embeds": embeddings}

    def _without_prompt(self, output: Any) -> Any:
        """What the trunk gave at the text's own tokens."""
        if self._cut:
            output.last_hidden_state = output.last_hidden_state[:, self._cut :]
            if getattr(output, "hidden_states", None) is not None:
                output.hidden_states = tuple(states[:, self._cut :] for states in output.hidden_states)
        return output


def _packed() -> UserError:
    return UserError(
        "adaptation `prompt`: rows are packed, and a prompt can stand before the first of them alone",
        "Set `packing = false` in the objective, or use the adaptation `prefix`.",
    )
