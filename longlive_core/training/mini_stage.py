"""The stage that trains LongLive Mini's transformer and text encoder, by teacher forcing with a counterfactual loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..mini import Mini
from ..model.nvfp4_products import NVFP4Settings
from ..model.nvfp4_training import train_in_nvfp4
from ..sampling.unipc import unipc
from ..types import BLOCK_FRAMES
from .cast_batches import cast_batch
from .counterfactual import counterfactual_loss
from .films import OTHER_FRAMES, EncodedFilm
from .mini_batches import Batch, film_batch, single_batch
from .schedule import TimestepTable, add_noise
from .stage import Loss, OptimiserSettings, Origin, Trained
from .teacher_forcing import teacher_forced_flow

HERO_WEIGHT = 6.0  # weight of the hero's latent cells in the loss of the flow
COUNTERFACTUAL_WEIGHT = 0.15
CONTEXT_NOISE = 0.15  # the highest noise level of the clean blocks that a block attends to
# Share of noise levels that equal the sampler's first, where the sample is pure noise and only text and memory tell
# the hero: single blocks, films.
OPENINGS = (0.45, 0.5)
PARTS = 2  # of a batch: part 0 holds single blocks, part 1 films
CAST_SHARES = (0.45, 0.35)  # share of batches of each part that hold films of several heroes instead, if there are any
# Share of batches of films of one hero in which blocks attend to the model's own predictions of earlier blocks, not to
# the true ones ("scheduled sampling"). Only the first block, the global sink, is true: the hero is taken from there.
OWN_CONTEXT = 0.5
TABLE = TimestepTable.shifted(5.0)
SAMPLER_SIGMAS = torch.tensor(unipc(4).sigmas[:-1])

Gates = Callable[[Mini], dict[str, float]]


@dataclass(frozen=True)
class MiniSettings:
    """Settings of the stage. singles: single blocks in a batch. film_blocks: see `film_batch`. nvfp4, kv_format: train
    for NVFP4, see `ARSettings`.

    The learning rate rises over `warmup` steps and falls along a cosine to almost 0 at the last step.
    """

    singles: int = 12
    film_blocks: int = 15
    lr: float = 1e-3
    warmup: int = 100
    ema_decay: float = 0.997
    seed: int = 0
    nvfp4: NVFP4Settings | None = None
    kv_format: str | None = None

    @property
    def optimiser(self) -> OptimiserSettings:
        """AdamW as it trained best in comparisons."""
        return OptimiserSettings(
            lr=self.lr,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            clip=1.0,
            ema_decay=self.ema_decay,
            ema_start=self.warmup,
            warmup=self.warmup,
            final_scale=0.003,
        )


class MiniStage:
    """Trains the transformer and the text encoder of `mini`, in place, on encoded films.

    metric: see `decoder_metric`. gates: measures the model on held-out films; none by default. casts: films of several
    heroes; none by default.
    """

    name = "mini"

    def __init__(
        self,
        mini: Mini,
        films: Sequence[EncodedFilm],
        metric: Tensor,
        settings: MiniSettings,
        gates: Gates | None = None,
        casts: Sequence[EncodedFilm] = (),
    ) -> None:
        self.mini, self.films, self.settings, self.gates, self.casts = mini, films, settings, gates, casts
        self.metric = metric.to(mini.model.device)
        self._noise = None if settings.nvfp4 is None else train_in_nvfp4(mini.model, settings.nvfp4)
        module = nn.ModuleList([mini.model, mini.text]).requires_grad_(True)
        self.trained = (Trained("model", module, settings.optimiser),)
        self.origins: Mapping[str, Origin] = {}  # `train_mini` keeps the start, and films name their VAE

    def loss(self, name: str, step: int, part: int, /) -> Loss:
        """See `Stage.loss`. Even parts hold single blocks, odd ones films."""
        del name  # there is one module
        rng = np.random.default_rng((self.settings.seed, 2, step, part))
        kind = ("singles", "films")[part % PARTS]
        if self.casts and rng.random() < CAST_SHARES[part % PARTS]:
            # Told apart in the log by the part that they replace.
            kind, batch = f"casts for {kind}", cast_batch(self.casts, self.settings.film_blocks, rng)
        elif kind == "films":
            batch = film_batch(self.films, self.settings.film_blocks, rng)
        else:
            batch = single_batch([*self.films, *self.casts], self.settings.singles, rng)
        if self._noise is not None:
            self._noise.restart(int(np.random.default_rng((self.settings.seed, 3, step, part)).integers(2**62)))
        kv_format = self.settings.kv_format
        own = kind == "films" and rng.random() < OWN_CONTEXT
        opening = OPENINGS[part % PARTS]
        flow, other = mini_loss(self.mini, batch, self.metric, opening, rng, kv_format, own_context=own)
        # The log shows means over all parts, of which one in PARTS is of this kind.
        figures = {f"{kind} flow": PARTS * flow.item(), f"{kind} counterfactual": PARTS * other.item()}
        return Loss(flow + COUNTERFACTUAL_WEIGHT * other, figures, f"{kind}: {batch.captions[0][0]}")

    def validation_loss(self, step: int, /) -> dict[str, float]:
        """Shares of frames with the right shape, see `gates.py`."""
        del step  # the held-out films are always the same
        return {} if self.gates is None else self.gates(self.mini)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the batches depend on seed, step and part only."""
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Does nothing."""


def mini_loss(
    mini: Mini,
    batch: Batch,
    metric: Tensor,
    opening: float,
    rng: np.random.Generator,
    kv_format: str | None = None,
    *,
    own_context: bool = False,
) -> tuple[Tensor, Tensor]:
    """Weighted squared error of the flow, whose target is noise − clean, and the counterfactual loss.

    The cells of the hero count HERO_WEIGHT times. The counterfactual loss is that of the first frames of each shot.
    metric: `[C, C]`. opening: see `noise_levels`. kv_format: see `teacher_forced_flow`. own_context: see OWN_CONTEXT.
    """
    device = mini.model.device
    clean, hero = batch.clean.to(device), batch.hero.to(device)
    B, blocks = len(clean), clean.shape[2] // BLOCK_FRAMES
    noise_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
    sigma = noise_levels((B, blocks), opening, rng).repeat_interleave(BLOCK_FRAMES, dim=-1).to(device)
    noise = torch.randn(batch.clean.shape, generator=noise_rng).to(device)
    level = CONTEXT_NOISE * torch.rand(B, 1, 1, 1, 1, generator=noise_rng)
    context = clean + (level * torch.randn(batch.clean.shape, generator=noise_rng)).to(device)
    levels = sigma[:, None, :, None, None]
    noisy = add_noise(clean, noise, levels)
    distinct = list(dict.fromkeys(text for film in batch.captions for text in film))
    prompts = torch.tensor([[distinct.index(text) for text in film] for film in batch.captions], device=device)
    text = mini.text(distinct)

    def flow_given(context: Tensor) -> Tensor:
        return teacher_forced_flow(
            mini.model, context, noisy[:, None], (1000 * sigma).floor()[:, None], text, prompts,
            batch.positions.to(device), BLOCK_FRAMES, history=batch.history, kv_format=kv_format,
        )[:, 0]  # fmt: skip

    if own_context:
        with torch.no_grad():
            made = noisy - levels * flow_given(context)
        context = torch.cat([context[:, :, :BLOCK_FRAMES], made[:, :, BLOCK_FRAMES:]], dim=2)
    flow = flow_given(context)
    weight = 1 + (HERO_WEIGHT - 1) * (hero > 0.02)[:, None].float()
    error = (weight * (flow - (noise - clean)).square()).mean() / weight.mean()
    first = [
        frame for block in batch.heads for frame in range(BLOCK_FRAMES * block, BLOCK_FRAMES * block + OTHER_FRAMES)
    ]
    predicted, true = (x[:, :, first].unflatten(2, (-1, OTHER_FRAMES)) for x in (noisy - levels * flow, clean))
    predicted, true = (x.transpose(1, 2).flatten(0, 1) for x in (predicted, true))
    return error, counterfactual_loss(predicted, true, batch.others.to(device).flatten(0, 1), metric)


def noise_levels(shape: tuple[int, int], opening: float, rng: np.random.Generator) -> Tensor:
    """Random sigmas of shape `[B, blocks]`: one per film and block.

    Half are from the table and half are levels of the sampler; then a share `opening` is set to the sampler's first.
    """
    table = TABLE.sigmas[torch.from_numpy(rng.integers(len(TABLE.sigmas), size=shape))]
    sampled = SAMPLER_SIGMAS[torch.from_numpy(rng.integers(len(SAMPLER_SIGMAS), size=shape))]
    levels = torch.where(torch.from_numpy(rng.random(shape) < 0.5), table, sampled)
    levels[torch.from_numpy(rng.random(shape) < opening)] = SAMPLER_SIGMAS[0]
    return levels
