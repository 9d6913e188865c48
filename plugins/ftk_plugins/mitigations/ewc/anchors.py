"""An anchor for each task: a pull to where each was learned, in the memory of two weights whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ftk.parts import Drift, State, own_rows
from ftk_plugins.mitigations.pieces import Piece

LEAN, START = "lean/", "start/"
"""What the names of both tensors of a weight begin with in the state."""


class Anchors:
    """The linear term of ``½ · Σ_k F_k · (W − W_k)²`` around where the stage starts.

    With ``W = W_start + drift`` the gradient is ``(Σ F_k) · drift + Σ F_k · (W_start − W_k)``. The second sum, the
    *lean*, is all that the anchors ``W_k`` do. A task that is added is anchored at the start and leans nowhere; from
    one stage to the next the start moves by ``Δ``, and the lean grows by ``(Σ F_k) · Δ``. Training moves it, a merge in
    the model's precision, or interpolation: so a copy of the last start is kept beside the lean.

    Args:
        dtype: of the lean of a matrix; the copy of the start is in the weight's own.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._leans: dict[str, Tensor] = {}
        self._starts: dict[str, Tensor] = {}
        self._stage = 0

    def rebase(self, stage: int, drifts: Mapping[str, Drift], times: Callable[[str, Tensor], Tensor | None]) -> None:
        """A stage begins, nothing has drifted: take in how far its start is from that of the last one.

        Args:
            stage: its number; a second call for one does nothing.
            drifts: by common name.
            times: from a weight's name and the rows of a displacement that this process holds to F times it; None
                where nothing is known of the weight.
        """
        if stage == self._stage:
            return
        self._stage = stage
        for name, drift in drifts.items():
            weight = drift.weight.detach()
            if name in self._starts:
                start = own_rows(self._starts[name])[0].to(weight.device)
                lean = times(name, own_rows(weight)[0].float() - start.float())
                if lean is not None:
                    self._add(name, weight, lean)
            self._starts[name] = weight.clone()

    def fade(self, gamma: float) -> None:
        """What was remembered so far counts ``gamma`` times as much from now on."""
        for lean in self._leans.values():
            own_rows(lean)[0].mul_(gamma)

    def pieces(self, drifts: Mapping[str, Drift], limit: int) -> list[Piece]:
        """What to pull at."""
        pieces: list[Piece] = []
        for name, drift in drifts.items():
            if name in self._leans:
                self._leans[name] = self._leans[name].to(drift.weight.device)
                own, first = own_rows(self._leans[name])
                own = own if own.ndim else own.view(1)
                pieces += [Lean(drift, own[i - first : j - first], i, j) for i, j in drift.chunks(limit)]
        return pieces

    def state_dict(self) -> State:
        return {
            **{LEAN + name: lean for name, lean in self._leans.items()},
            **{START + name: start for name, start in self._starts.items()},
        }

    def take(self, state: State) -> State:
        """Load what is its own of a state, and give back the rest."""
        self._leans = {key.removeprefix(LEAN): value for key, value in state.items() if key.startswith(LEAN)}
        self._starts = {key.removeprefix(START): value for key, value in state.items() if key.startswith(START)}
        return {key: value for key, value in state.items() if not key.startswith((LEAN, START))}

    def _add(self, name: str, weight: Tensor, lean: Tensor) -> None:
        dtype = self._dtype if weight.ndim > 1 else torch.float32
        known = self._leans.get(name)
        total = torch.zeros_like(weight, dtype=dtype) if known is None else known.to(weight.device)
        own_rows(total)[0].add_(lean)
        self._leans[name] = total


@dataclass(frozen=True, slots=True)
class Lean(Piece):
    """Some rows of a weight that are pulled the same way wherever they are."""

    drift: Drift
    lean: Tensor
    start: int
    stop: int

    def pull(self, strength: float) -> None:
        self.drift.pull_back(self.start, self.stop, self.lean.float() * strength)

    def cost(self) -> Tensor:
        """``Σ lean · drift``: by how much the penalty has grown since the stage began, beside the quadratic form."""
        return (self.drift.rows(self.start, self.stop) * self.lean).sum()
