"""What a stage of training is to the trainer: the modules that it trains and their losses.

The trainer owns the loop, the optimisers, the averages of weights and the checkpoints; a stage owns the data, the models
and the losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class OptimiserSettings:
    """Settings of one AdamW optimiser. The defaults are those of LongLive 2.0; a clip of 0 turns clipping off.

    The learning rate rises linearly over `warmup` updates to `lr`; then it falls along a cosine to `final_scale` times
    `lr` at the last update.
    """

    lr: float
    betas: tuple[float, float] = (0.0, 0.999)
    weight_decay: float = 0.0
    eps: float = 1e-8
    clip: float = 10.0
    every: int = 1
    ema_decay: float | None = None
    ema_start: int = 0
    warmup: int = 0
    final_scale: float = 1.0


@dataclass(frozen=True)
class Trained:
    """What one optimiser updates: the parameters of `module` that require gradients.

    name: "model", "generator" or "critic", for example; unique within a stage.
    """

    name: str
    module: nn.Module
    optimiser: OptimiserSettings


@dataclass(frozen=True)
class Loss:
    """The loss of one part of a batch.

    value: a scalar with a graph. figures: what the log shows beside the loss. batch: names the batch, for the error
    that a NaN raises.
    """

    value: Tensor
    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    batch: str = ""


class Stage(Protocol):
    """One kind of training. A loss depends on (seed, step, part) and on the state only, so that a run resumes exactly.

    name: "ar", "dmd" or "vae", for example; a checkpoint of another stage is refused by this name. trained: updated in
    this order in each step.
    """

    @property
    def name(self) -> str: ...

    @property
    def trained(self) -> tuple[Trained, ...]: ...

    def loss(self, name: str, step: int, part: int, /) -> Loss:
        """Returns the loss of `Trained` `name`; `part` is the index of the gradient-accumulation part."""
        ...

    def validation_loss(self, step: int, /) -> dict[str, float]:
        """Returns losses on held-out data by name: empty if there is none."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Returns what the stage has learnt or stored besides weights, such as error buffers: nested dictionaries of
        tensors and numbers."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:  # noqa: ANN401
        """Restores what `state_dict` returned."""
        ...
