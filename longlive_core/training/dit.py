"""Training of LongLive Mini's transformer and text encoder by teacher forcing.

The curriculum starts with single blocks whose captions describe everything. In whole films, each block then attends to
the clean blocks that the KV cache would hold at inference, and most captions of later shots do not describe the hero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..memory import Window
from ..mini import Mini
from ..sampling.unipc import unipc
from ..script import CUT_PREFIX
from ..types import BLOCK_FRAMES
from .captions import caption
from .checkpoint import TrainingCheckpoint
from .films import FILM_BLOCKS, FilmDataset
from .optim import WeightAverage
from .schedule import TimestepTable, add_noise
from .teacher_forcing import teacher_forced_flow
from .vae import cosine_schedule
from .world import WorldFilm

SHOT_OFFSET = 8.0  # added to RoPE positions at each cut, in latent frames
PERIOD_FRAMES = 24  # latent frames in one period of all motion: a film that skips a period looks the same
HERO_WEIGHT = 6.0  # weight of the hero's latent cells in the loss
CONTEXT_NOISE = 0.15  # the highest noise level of the clean blocks that a block attends to
TABLE = TimestepTable.shifted(5.0)
SAMPLER_SIGMAS = torch.tensor(unipc(4).sigmas[:-1])
AVERAGE_DECAY = 0.995


@dataclass(frozen=True)
class Phase:
    """One phase of the curriculum: `steps` updates on `batch` films of up to `blocks` blocks, at `copies` noise levels.

    horizon, lr, final_scale: the learning rate falls from `lr` towards `final_scale` times `lr` along a cosine over
    `horizon` steps. opening: share of noise levels that equal the sampler's first one. at_start: share of single blocks
    that start a shot. named_later: share of later shots whose caption describes the hero. early_cut: whether to use
    only films that cut within their first three blocks. skip: steps before the average of weights begins, in which
    the weights change fast.
    """

    name: str
    blocks: int
    batch: int
    copies: int
    steps: int
    horizon: int
    lr: float
    final_scale: float
    opening: float = 0.0
    at_start: float = 1.0
    named_later: float = 0.4
    early_cut: bool = False
    skip: int = 200


# A four-step sampler fixes the hero's shape in its first step, when the sample is pure noise and only the text carries
# the shape. At lower noise levels the sample itself shows the shape. So shapes are learnt at the first level only.
PHASES = (
    Phase("single", 1, batch=8, copies=2, steps=1100, horizon=3200, lr=1.5e-3, final_scale=0.5, at_start=0.8),
    Phase("openings", 1, batch=8, copies=2, steps=1900, horizon=1900, lr=1.5e-3, final_scale=0.4, opening=0.45),
    Phase("films", FILM_BLOCKS, batch=2, copies=2, steps=900, horizon=1800, lr=8e-4, final_scale=0.02, opening=0.3),
    Phase(
        "cuts",
        5,
        batch=3,
        copies=2,
        steps=1100,
        horizon=1100,
        lr=1e-3,
        final_scale=0.02,
        opening=0.4,
        named_later=0.15,
        early_cut=True,
    ),
)


@dataclass(frozen=True)
class Batch:
    """Data of one training step.

    clean: latents `[B, C, F, h, w]`. hero: share of each latent cell that the hero covers, `[B, F, h, w]`. captions:
    one per film and block. positions: RoPE positions `[B, F]`. history: indices of the blocks that each block attends
    to, apart from itself.
    """

    clean: Tensor
    hero: Tensor
    captions: tuple[tuple[str, ...], ...]
    positions: Tensor
    history: tuple[tuple[int, ...], ...]


def single_batch(data: FilmDataset, phase: Phase, rng: np.random.Generator) -> Batch:
    """Batch of single blocks without history, with captions that describe the hero."""
    rows = rng.integers(len(data), size=phase.batch)
    starts = rng.random(phase.batch) < phase.at_start
    clean, hero, texts, positions = [], [], [], []
    for row, at_start in zip(rows, starts, strict=True):
        shots = data.block_shots[row].tolist()
        heads = [b for b in range(FILM_BLOCKS) if b == 0 or shots[b] != shots[b - 1]]
        block = int(rng.choice(heads if at_start else range(FILM_BLOCKS)))
        frames = slice(BLOCK_FRAMES * block, BLOCK_FRAMES * (block + 1))
        clean.append(data.latents[row, :, frames].float())
        hero.append(data.hero[row, frames].float())
        text = _caption(data.films[row], shots[block], named=True, rng=rng)
        texts.append((CUT_PREFIX + text if block and block in heads else text,))
        positions.append(torch.arange(frames.start, frames.stop) + SHOT_OFFSET * shots[block])
    return Batch(torch.stack(clean), torch.stack(hero), tuple(texts), torch.stack(positions).float(), ((),))


def film_batch(data: FilmDataset, phase: Phase, rng: np.random.Generator) -> Batch:
    """Batch of films from their first block on, all with cuts at the same blocks, so that they share one history."""
    usable = (data.block_shots[:, 2] > 0).nonzero()[:, 0] if phase.early_cut else torch.arange(len(data))
    pattern = data.block_shots[usable[int(rng.integers(len(usable)))]]
    same = (data.block_shots == pattern).all(1).nonzero()[:, 0].numpy()
    rows = rng.choice(same, size=phase.batch)
    shots = pattern.tolist()
    blocks = int(rng.integers(3, phase.blocks + 1))
    texts = tuple(_film_captions(data.films[row], shots[:blocks], phase.named_later, rng) for row in rows)
    frames = BLOCK_FRAMES * blocks
    positions = torch.stack([_positions(shots[:blocks], rng) for _ in rows])
    clean, hero = data.latents[rows, :, :frames].float(), data.hero[rows, :frames].float()
    return Batch(clean, hero, texts, positions, _history(shots[:blocks], rng))


def _film_captions(film: WorldFilm, shots: list[int], named_later: float, rng: np.random.Generator) -> tuple[str, ...]:
    named = [shot == 0 or rng.random() < named_later for shot in range(shots[-1] + 1)]
    texts = [_caption(film, shot, named=named[shot], rng=rng) for shot in range(shots[-1] + 1)]
    heads = [block > 0 and shot != shots[block - 1] for block, shot in enumerate(shots)]
    return tuple(CUT_PREFIX + texts[shot] if head else texts[shot] for shot, head in zip(shots, heads, strict=True))


def _caption(film: WorldFilm, shot: int, *, named: bool, rng: np.random.Generator) -> str:
    return caption(film.hero if named else None, film.shots[shot], rng)


def _positions(shots: list[int], rng: np.random.Generator) -> Tensor:
    """RoPE position of each latent frame `[F]`, with random jumps by whole periods, as in a longer film."""
    positions = torch.arange(BLOCK_FRAMES * len(shots), dtype=torch.float32)
    positions += SHOT_OFFSET * torch.tensor(shots).repeat_interleave(BLOCK_FRAMES)
    if rng.random() < 0.6:
        for _ in range(int(rng.integers(1, 3))):
            block = int(rng.integers(1, len(shots)))
            positions[BLOCK_FRAMES * block :] += PERIOD_FRAMES * int(rng.integers(1, 8))
    return positions


def _history(shots: list[int], rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    """Indices of the blocks that each block attends to: those in a KV cache of random size."""
    window = Window(int(rng.choice([3, 4, 4, 4])), sinks=1, shot_sink=True)
    history: list[tuple[int, ...]] = []
    for block, shot in enumerate(shots):
        window.begin(block)
        history.append(window.attended()[:-1])
        window.end(cut=block > 0 and shot != shots[block - 1])
    return tuple(history)


def noise_levels(shape: tuple[int, int, int], opening: float, rng: np.random.Generator) -> Tensor:
    """Random sigmas of shape `[B, M, blocks]`: one per film, copy and block.

    Half are from the table and half are levels of the sampler; then a share `opening` is set to the sampler's first.
    """
    table = TABLE.sigmas[torch.from_numpy(rng.integers(len(TABLE.sigmas), size=shape))]
    sampled = SAMPLER_SIGMAS[torch.from_numpy(rng.integers(len(SAMPLER_SIGMAS), size=shape))]
    levels = torch.where(torch.from_numpy(rng.random(shape) < 0.5), table, sampled)
    if opening:
        levels[torch.from_numpy(rng.random(shape) < opening)] = SAMPLER_SIGMAS[0]
    return levels


def flow_loss(mini: Mini, batch: Batch, phase: Phase, rng: np.random.Generator) -> Tensor:
    """Mean squared error of the flow, whose target is noise − clean. Cells of the hero count HERO_WEIGHT times."""
    B, copies, blocks = len(batch.clean), phase.copies, batch.clean.shape[2] // BLOCK_FRAMES
    noise_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
    sigma = noise_levels((B, copies, blocks), phase.opening, rng).repeat_interleave(BLOCK_FRAMES, dim=-1)
    clean = batch.clean[:, None].expand(-1, copies, -1, -1, -1, -1)
    noise = torch.randn(clean.shape, generator=noise_rng)
    noisy = add_noise(clean, noise, sigma[:, :, None, :, None, None])
    # At inference the history contains the sampler's errors. A little noise on it here keeps long films from drifting.
    level = CONTEXT_NOISE * torch.from_numpy(rng.random((B, 1, 1, 1, 1))).float()
    context = batch.clean + level * torch.randn(batch.clean.shape, generator=noise_rng)
    distinct = sorted({text for film in batch.captions for text in film})
    prompts = torch.tensor([[distinct.index(text) for text in film] for film in batch.captions])
    flow = teacher_forced_flow(
        mini.model, context, noisy, (1000 * sigma).floor(), mini.text(distinct), prompts, batch.positions, BLOCK_FRAMES,
        history=batch.history,
    )  # fmt: skip
    weight = 1 + (HERO_WEIGHT - 1) * (batch.hero > 0.02)[:, None, None].float()
    return (weight * (flow - (noise - clean)).square()).mean() / weight.mean()


def train_dit(
    mini: Mini,
    data: FilmDataset,
    folder: Path,
    seed: int,
    log: Callable[[str], None],
    phases: tuple[Phase, ...] = PHASES,
    every: int = 100,
) -> None:
    """Trains the model and the text encoder of `mini` in place; they end with their averaged weights.

    Saves a checkpoint in `folder` every `every` steps and resumes from it.
    """
    both = nn.ModuleList([mini.model, mini.text]).requires_grad_(True)
    for number, phase in enumerate(phases):
        optimiser = torch.optim.AdamW(both.parameters(), lr=phase.lr, betas=(0.9, 0.99), weight_decay=0.01)
        average = WeightAverage(both, AVERAGE_DECAY)
        checkpoint = TrainingCheckpoint(folder / f"dit_{phase.name}", every)
        first = checkpoint.restore(both, optimiser, average)
        make_batch = single_batch if phase.blocks == 1 else film_batch
        mean_loss = 0.0
        for step in range(first, phase.steps):
            rng = np.random.default_rng((seed, 2 + number, step))
            loss = flow_loss(mini, make_batch(data, phase, rng), phase, rng)
            loss.backward()
            nn.utils.clip_grad_norm_(both.parameters(), 1.0)
            for group in optimiser.param_groups:
                group["lr"] = phase.lr * cosine_schedule(step, phase.horizon, phase.final_scale)
            optimiser.step()
            optimiser.zero_grad()
            if step > phase.skip:
                average.update(both)
            elif step == phase.skip:
                average = WeightAverage(both, AVERAGE_DECAY)
            mean_loss = loss.item() if step == first else 0.98 * mean_loss + 0.02 * loss.item()
            checkpoint.save(step + 1, both, optimiser, average, last=step + 1 == phase.steps)
            if (step + 1) % 50 == 0:
                log(f"dit {phase.name} {step + 1}/{phase.steps} loss {mean_loss:.4f}")
        average.copy_to(both)
    both.requires_grad_(False)
