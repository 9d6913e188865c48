"""Loading the models of a run into its processes: one for each head, from the source or from what stages left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from ftk.errors import UserError
from ftk.events import Events
from ftk.parts import Head, Loaded, ModelSource, derive_seed
from ftk.parts.heads import Heads
from ftk.processes.placing import Placement
from ftk.processes.sharding import in_turns, shard

ALIGNMENT = 64
"""Bytes; where torch puts a new tensor on a CPU."""


@dataclass(frozen=True)
class Loading:
    """Where models come from and go to.

    Attributes:
        source: of the starting model.
        seed: of what is drawn; the recipe's.
        corpus: the texts of all training rows.
        accelerator: knows the device.
        mesh: the processes that a model is divided among; None: each has it whole.
        placement: where its layers lie, on several devices or off them; None: all on the accelerator's.
        precision: what a divided model computes in.
        events: tells the observers.
    """

    source: ModelSource
    seed: int
    corpus: Callable[[], Iterator[str]]
    accelerator: Accelerator
    mesh: DeviceMesh | None
    placement: Placement | None
    precision: str
    events: Events

    def load(self, places: Mapping[Head, Path | None], live: Head, *, outline: bool = False) -> Heads:
        """The models of all heads over the body of the live one, or their outlines, without weights.

        Args:
            places: where the last stage that trained a head left its model; None: the source gives it, the same however
                often the run is resumed.
            live: the head whose model is trained next, or was last.
            outline: give outlines.

        Raises:
            UserError: the model is to be divided or placed, and there are several heads or, to be placed, processes.
        """
        option = "training.sharding" if self.mesh is not None else "training.device_map"
        if (self.mesh is not None or self.placement is not None) and len(places) > 1:
            raise UserError(
                f"{option}: the tasks of this run have several heads ({', '.join(h.kind for h in places)}), "
                "and a task is measured through its own head only where one device holds the whole model",
                f"leave out {option}",
            )
        if self.placement is not None and self.accelerator.num_processes > 1:
            raise UserError(
                f"{option}: it divides a model among the devices of one process, and this run has "
                f"{self.accelerator.num_processes}",
                'start it as one process, or write training.sharding = "full" in its place',
            )
        if self.mesh is not None:
            loaded = {live: in_turns(self.accelerator, lambda: self._divided(self._load(live, places[live], outline)))}
        else:
            loaded = {head: self._load(head, places[head], outline) for head in dict.fromkeys([live, *places])}
        models = {head: each.model for head, each in loaded.items()}
        if self.placement is not None and not outline:
            told = self.placement.place(models[live], self.accelerator.device)
            self.events("phase", text=f"the model's weights lie: {told}")
        elif self.mesh is None and not outline:
            models = {head: model.to(self.accelerator.device) for head, model in models.items()}
        heads = Heads(models, live, loaded[live].processor, self.source.body)
        if not outline:
            self._draw_apart(heads, [head for head, place in places.items() if place is None and head != live])
        return heads

    @torch.no_grad()
    def _draw_apart(self, heads: Heads, new: Iterable[Head]) -> None:
        """Shuffle the newly drawn weights of heads that the source gave beside the live one, each in its own order.

        A source draws every head from the same seed. Tasks whose heads begin alike pull the body the same way, and each
        undoes what the one before has learned.
        """
        for head in new:
            drawn = set(getattr(heads.models[head], "fresh_weights", ()))
            generator = torch.Generator().manual_seed(derive_seed(self.seed, *astuple(head)))
            for name, parameter in heads.own(head).items():
                if name in drawn:
                    order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                    parameter.copy_(parameter.flatten()[order].view_as(parameter))

    def _load(self, head: Head, place: Path | None, outline: bool) -> Loaded:
        stage = (
            next((path.parent.name for path in (place, *place.parents) if path.name == "model"), "") if place else ""
        )
        self.events("phase", text=f"loading the model that stage {stage} left" if place else "loading the model")
        set_seed(self.seed)  # before every load: a new head is drawn the same whenever the run resumes
        if place:
            loaded = self.source.load_folder(place, head)
        else:
            loaded = (self.source.outline if outline else self.source.load)(head, self.corpus)
        _align(loaded.model)
        return loaded

    def _divided(self, loaded: Loaded) -> Loaded:
        assert self.mesh is not None
        shard(loaded.model, self.mesh, self.precision)
        return loaded


def _align(model: nn.Module) -> None:
    """Move what a file left at odd addresses: products would round unlike those of a run that was not resumed."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()
