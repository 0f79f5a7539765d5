"""What a stage of training is to the trainer: the modules that it trains and their losses.

The trainer owns the loop, the optimisers, the averages of weights and the checkpoints; a stage owns the data, the
models and the losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from torch import Tensor, nn

from .toml_settings import Setting, check_ranges


@dataclass(frozen=True)
class OptimiserSettings:
    """Settings of AdamW, or of Muon and AdamW; the defaults are those of LongLive 2.0.

    lr: learning rate of AdamW. muon_lr: learning rate of Muon, which then updates the weights of two or more
    dimensions and leaves the others to AdamW; not set is AdamW alone. betas: decay of AdamW's first and second moment.
    weight_decay: decoupled from the gradient. eps: added to AdamW's denominator. clip: largest global norm of the
    gradient; a larger one is scaled down to it; not set is no limit. every: updates on steps that are multiples of this
    number, step 0 included. ema_decay: keeps an average of the weights, average = decay * average + (1 - decay) *
    weights; 0 or not set is none. ema_start: first step, from 0, that updates the average. warmup: steps in which
    the learning rates rise linearly. final_scale: the learning rates fall along a cosine to this share; 1 is constant.
    horizon: steps of the cosine; not set is all steps of the run. offload: AdamW's moments are in host memory and its
    update runs there, which takes less of the card. Raises ValueError for a value out of range.
    """

    lr: Annotated[float, Setting(above=0, at_most=1, example=1e-5)]
    muon_lr: Annotated[float | None, Setting(above=0, at_most=1, example=0.02)] = None
    betas: Annotated[tuple[float, float], Setting(at_least=0, below=1)] = (0.0, 0.999)
    weight_decay: Annotated[float, Setting(at_least=0, at_most=1)] = 0.0
    eps: Annotated[float, Setting(above=0, at_most=1)] = 1e-8
    clip: Annotated[float | None, Setting(above=0, example=10.0)] = 10.0
    every: Annotated[int, Setting(at_least=1)] = 1
    ema_decay: Annotated[float | None, Setting(at_least=0, below=1, example=0.99)] = None
    ema_start: Annotated[int, Setting(at_least=0)] = 0
    warmup: Annotated[int, Setting(at_least=0)] = 0
    final_scale: Annotated[float, Setting(at_least=0, at_most=1)] = 1.0
    horizon: Annotated[int | None, Setting(at_least=1, example=1000)] = None
    offload: bool = False

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def max_norm(self) -> float:
        """`clip`, or infinity without a limit."""
        return math.inf if self.clip is None else self.clip


@dataclass(frozen=True)
class Origin:
    """What a run starts from or learns from, such as a base model or data: the same one is needed to resume it.

    name: for messages. digest: of its content, so that it may be moved and renamed.
    """

    name: str
    digest: str


@dataclass(frozen=True)
class Trained:
    """What is updated together: the parameters of `module` that require gradients.

    name: "model", "generator" or "critic", for example; unique within a stage.
    """

    name: str
    module: nn.Module
    optimiser: OptimiserSettings


@dataclass(frozen=True)
class Loss:
    """The loss of one part of a batch.

    value: a scalar with a graph. figures: what the log shows beside the loss. batch: names the batch, for the error
    that a NaN raises. kind: the log's name for the value; it is the same for all parts of a step.
    """

    value: Tensor
    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    batch: str = ""
    kind: str = "loss"


class Stage(Protocol):
    """One kind of training. A loss depends on (seed, step, part) and on the state only, so that a run resumes exactly.

    name: "ar", "dmd" or "vae images", for example; a checkpoint of another stage is refused by this name. trained:
    updated in this order in each step. origins: by role, such as "base" or "data"; a checkpoint of others is refused.
    """

    @property
    def name(self) -> str: ...

    @property
    def trained(self) -> tuple[Trained, ...]: ...

    @property
    def origins(self) -> Mapping[str, Origin]: ...

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
