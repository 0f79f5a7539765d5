"""The stage that trains a LoRA by teacher forcing: the stage of autoregressive training with a frozen base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..model import CausalWan
from .ar import ar_step
from .ar_inputs import ar_inputs, random_draws
from .ar_settings import ARSettings
from .ar_stage import ARSource, ARStage
from .lora import AdaptedModel, LoraCard, LoraSettings, add_adapter, load_adapter
from .stage import Loss, OptimiserSettings, Origin

ADAPTER = "lora"
_PRIOR = 11  # its stream of random numbers; see `ARStage`


@dataclass(frozen=True, slots=True)
class Prior:
    """Batches whose prompts the base knows already, and the weight of their loss."""

    source: ARSource
    weight: float = 1.0


class LoraStage(ARStage):
    """Stage of the trainer for a LoRA. See `ARStage`.

    model: the base, which is frozen and gets the adapter; its layers may be quantised. start: a LoRA file to train
    further. rope_offset: of the batches of `train`, for the LoRA's card. prior: every second step learns from it, so
    that the LoRA leaves as it is what the base knows: prior preservation after DreamBooth (arXiv 2208.12242), with the
    flow of the base as the target, as in learning without forgetting (arXiv 1606.09282).

    Raises CheckpointError for a LoRA of another rank or alpha, before any work.
    """

    name = "lora"

    def __init__(
        self,
        model: CausalWan,
        train: ARSource,
        settings: ARSettings,
        lora: LoraSettings,
        optimiser: OptimiserSettings,
        seed: int,
        *,
        rope_offset: float = 0.0,
        start: Path | str | None = None,
        prior: Prior | None = None,
        origins: Mapping[str, Origin] | None = None,
    ) -> None:
        self.lora, self.rope_offset, self.prior = lora, rope_offset, prior
        self.weights = add_adapter(model, ADAPTER, lora, seed)
        if start is not None:
            load_adapter(model, ADAPTER, start)
        super().__init__(model, train, settings, optimiser, seed, module=self.weights, origins=origins)

    def loss(self, name: str, step: int, part: int, /) -> Loss:
        """Returns the loss of a batch of clips, or in every second step that of a batch of the prior.

        So the activations of only one of them are in memory. See `Stage.loss`.
        """
        if self.prior is None or step % 2 == 0:
            return super().loss(name, step, part)
        return self._prior_loss(self.prior, step, part)

    def card(self, steps: int, base: str, data: str) -> LoraCard:
        """What the file of the LoRA says after so many steps of the trainer. data: name of the data set."""
        return LoraCard(base, data, steps, 0, self.rope_offset)

    def _prior_loss(self, prior: Prior, step: int, part: int) -> Loss:
        """The loss whose target is the flow of the base, in the same noise and with the same clean history."""
        numpy_rng, _, generator = self._random(_PRIOR, step, part)
        batch = prior.source.batch(numpy_rng)
        draws = random_draws(batch, self.settings, self.table, generator)
        inputs = ar_inputs(batch, draws, self.settings, self.table)
        try:
            base = AdaptedModel(self.model, None).activate()
            with torch.no_grad():
                target = ar_step(base, batch, inputs, self.settings).flow
        finally:
            adapted = AdaptedModel(self.model, ADAPTER).activate()
        distance = ar_step(adapted, batch, replace(inputs, target=target), self.settings).loss
        return Loss(prior.weight * distance, batch=batch.name, kind="prior.loss")
