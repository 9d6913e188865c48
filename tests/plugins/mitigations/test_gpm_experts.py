"""`gpm` in a mixture of experts: what a layer was given counts on whichever row it was given it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ftk.testing import toy_context, toy_model, toy_task, toy_tokenizer
from tests.core.loops import build
from tests.plugins.mitigations.test_gpm import OBJECTIVE, adapted, trained


class Experts(nn.Module):
    """A position goes to the network whose channel of its input is the largest; one without positions is not called."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(64, 64, bias=False) for name in ("gate", "up")}) for _ in range(count)
        )

    def forward(self, states: Tensor) -> Tensor:
        chosen, out = states[..., : len(self.experts)].argmax(-1), torch.zeros_like(states)
        for number, expert in enumerate(self.experts):
            if (own := chosen == number).any():
                given = states[own]
                out[own] = expert["gate"](given).tanh() * expert["up"](given)
        return out


def mixture(routes: dict[str, int]) -> nn.Module:
    """A model in which the token alone tells the expert: these by number, all others the first."""
    model = toy_model(hidden_size=64, num_hidden_layers=1, tie_word_embeddings=False)
    tokenizer = toy_tokenizer()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        table = model.model.embed_tokens.weight
        table[:, :4] = 0
        table[:, 0] = 0.2
        for token, number in routes.items():
            table[tokenizer.convert_tokens_to_ids(token), :4] = 0.2 * torch.eye(4)[number]
        model.model.layers[0].mlp = Experts(4)
    return model


def test_an_expert_that_the_first_row_passes_over_is_held_by_the_rows_that_reach_it() -> None:
    """Whichever row comes first, the second or the third expert is not in it; the fourth is in none."""
    old = toy_task([{"text": "aaa"}, {"text": "bbb"}], OBJECTIVE, "old")
    new = toy_task([{"text": "cdz"}, {"text": "dcz"}], OBJECTIVE, "new")
    part, model = adapted("full", mixture({"a": 1, "b": 2, "c": 1, "d": 2, "z": 3}))
    ctx = toy_context(model, OBJECTIVE, part, new, [old])
    gpm = build("mitigation", "gpm", threshold=1.0)
    gpm.remember(old, ctx)
    gpm.begin(ctx)
    state, experts = gpm.state_dict(), "model.layers.0.mlp.experts"
    for number, directions in ((1, 1), (2, 1), (3, None)):
        sites = {state["basis_of"].get(f"{experts}.{number}.{name}.weight") for name in ("gate", "up")}
        assert len(sites) == 1
        found = state.get(f"basis/{sites.pop()}")
        assert (None if found is None else found.shape[1]) == directions
    items = [torch.tensor(item["input_ids"])[None] for item in old.train.items]
    with torch.no_grad():
        before = [model(input_ids=ids).logits[:, :-1] for ids in items]
    trained(gpm, ctx, new, weight_decay=0.1)
    with torch.no_grad():
        after = [model(input_ids=ids).logits[:, :-1] for ids in items]
    assert max(float((one - other).abs().max()) for one, other in zip(before, after, strict=True)) < 1e-3
    for number in (1, 2, 3):
        drift = part.drift()[f"{experts}.{number}.up.weight"].rows(0, 64)
        assert float(drift.abs().max()) > 0.01, "each learns what is new to it"
