"""Training of the embedded transformer and its text encoder by teacher forcing.

The first stages train single blocks with complete captions. The later stages train whole films: each block attends to
the clean blocks that the KV cache with sinks would hold, and captions of later shots omit the hero's appearance.
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
from .checkpoint import Checkpoint
from .films import FILM_BLOCKS, Films
from .optim import Average
from .schedule import TimestepTable, add_noise
from .teacher_forcing import teacher_forced_flow
from .vae import cosine
from .world import WorldFilm

SHOT_OFFSET = 8.0
PERIOD_FRAMES = 24  # latent frames in one period of the world; every pixel repeats after this time
HERO_WEIGHT = 6.0
CONTEXT_NOISE = 0.15
TABLE = TimestepTable.shifted(5.0)
SAMPLED = torch.tensor(unipc(4).sigmas[:-1])


@dataclass(frozen=True)
class DiTStage:
    """Stage of the curriculum: `steps` updates on `batch` films of up to `blocks` blocks at `copies` noise levels.

    The learning rate decreases from `lr` along a cosine that would end after `horizon` steps. The average of weights
    starts after `skip` steps. opening: share of noise levels at the sampler's first step. at_start: share of single
    blocks that start a shot. named_later: share of later shots whose caption names the hero. early_cut: whether to use
    only films with a cut in their first three blocks.
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


# A four-step sampler decides the hero's shape in its first step, from text alone; at lower noise the sample already
# shows a shape. Hence shapes are learnt from the noise level of the first step only (`opening`).
STAGES = (
    DiTStage("single", 1, batch=8, copies=2, steps=1100, horizon=3200, lr=1.5e-3, final_scale=0.5, at_start=0.8),
    DiTStage("openings", 1, batch=8, copies=2, steps=1900, horizon=1900, lr=1.5e-3, final_scale=0.4, opening=0.45),
    DiTStage("films", FILM_BLOCKS, batch=2, copies=2, steps=900, horizon=1800, lr=8e-4, final_scale=0.02, opening=0.3),
    DiTStage(
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
    """Training data of one step.

    clean: latents `[B, C, F, h, w]`. hero: coverage `[B, F, h, w]`. captions: per film and block. positions: RoPE
    positions `[B, F]`. history: earlier blocks that each block attends to.
    """

    clean: Tensor
    hero: Tensor
    captions: tuple[tuple[str, ...], ...]
    positions: Tensor
    history: tuple[tuple[int, ...], ...]


def single_batch(data: Films, stage: DiTStage, rng: np.random.Generator) -> Batch:
    """Sample a batch of single blocks without history, with captions that name the hero."""
    rows = rng.integers(len(data), size=stage.batch)
    starts = rng.random(stage.batch) < stage.at_start
    clean, hero, texts, positions = [], [], [], []
    for row, at_start in zip(rows, starts, strict=True):
        shots = data.shots[row].tolist()
        heads = [b for b in range(FILM_BLOCKS) if b == 0 or shots[b] != shots[b - 1]]
        block = int(rng.choice(heads if at_start else range(FILM_BLOCKS)))
        frames = slice(BLOCK_FRAMES * block, BLOCK_FRAMES * (block + 1))
        clean.append(data.latents[row, :, frames].float())
        hero.append(data.hero[row, frames].float())
        text = _caption(data.films[row], shots[block], named=True, rng=rng)
        texts.append((CUT_PREFIX + text if block and block in heads else text,))
        positions.append(torch.arange(frames.start, frames.stop) + SHOT_OFFSET * shots[block])
    return Batch(torch.stack(clean), torch.stack(hero), tuple(texts), torch.stack(positions).float(), ((),))


def film_batch(data: Films, stage: DiTStage, rng: np.random.Generator) -> Batch:
    """Sample a batch of films from their first block; all have the same cuts, so that they share one history."""
    usable = (data.shots[:, 2] > 0).nonzero()[:, 0] if stage.early_cut else torch.arange(len(data))
    pattern = data.shots[usable[int(rng.integers(len(usable)))]]
    same = (data.shots == pattern).all(1).nonzero()[:, 0].numpy()
    rows = rng.choice(same, size=stage.batch)
    shots = pattern.tolist()
    blocks = int(rng.integers(3, stage.blocks + 1))
    texts = tuple(_film_captions(data.films[row], shots[:blocks], stage.named_later, rng) for row in rows)
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
    """RoPE position of each frame `[F]`; a random jump by whole periods simulates a later part of a long film."""
    positions = torch.arange(BLOCK_FRAMES * len(shots), dtype=torch.float32)
    positions += SHOT_OFFSET * torch.tensor(shots).repeat_interleave(BLOCK_FRAMES)
    if rng.random() < 0.6:
        for _ in range(int(rng.integers(1, 3))):
            block = int(rng.integers(1, len(shots)))
            positions[BLOCK_FRAMES * block :] += PERIOD_FRAMES * int(rng.integers(1, 8))
    return positions


def _history(shots: list[int], rng: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    """Blocks that each block attends to: those that a KV cache with sinks and a random window would hold."""
    window = Window(int(rng.choice([3, 4, 4, 4])), sinks=1, shot_sink=True)
    seen: list[tuple[int, ...]] = []
    for block, shot in enumerate(shots):
        window.begin(block)
        seen.append(window.attended()[:-1])
        window.end(cut=block > 0 and shot != shots[block - 1])
    return tuple(seen)


def noise_levels(shape: tuple[int, int, int], opening: float, rng: np.random.Generator) -> Tensor:
    """Sample sigma per film, copy and block, `[B, M, blocks]`.

    Half of the values come from the training table and half from the sampler's steps; then a share `opening` of all is
    set to the sampler's first step.
    """
    table = TABLE.sigmas[torch.from_numpy(rng.integers(len(TABLE.sigmas), size=shape))]
    visited = SAMPLED[torch.from_numpy(rng.integers(len(SAMPLED), size=shape))]
    levels = torch.where(torch.from_numpy(rng.random(shape) < 0.5), table, visited)
    if opening:
        levels[torch.from_numpy(rng.random(shape) < opening)] = SAMPLED[0]
    return levels


def flow_loss(mini: Mini, batch: Batch, stage: DiTStage, rng: np.random.Generator) -> Tensor:
    """Mean squared error of the predicted flow, noise − clean, with a larger weight for the hero."""
    B, copies, blocks = len(batch.clean), stage.copies, batch.clean.shape[2] // BLOCK_FRAMES
    noise_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
    sigma = noise_levels((B, copies, blocks), stage.opening, rng).repeat_interleave(BLOCK_FRAMES, dim=-1)
    clean = batch.clean[:, None].expand(-1, copies, -1, -1, -1, -1)
    noise = torch.randn(clean.shape, generator=noise_rng)
    noisy = add_noise(clean, noise, sigma[:, :, None, :, None, None])
    # Generated blocks are never exactly clean, so that noise on the history in training reduces drift in long films.
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
    data: Films,
    folder: Path,
    seed: int,
    log: Callable[[str], None],
    stages: tuple[DiTStage, ...] = STAGES,
    every: int = 100,
) -> None:
    """Run the curriculum, resuming from the checkpoints in `folder`, and load the averaged weights into `mini`."""
    both = nn.ModuleList([mini.model, mini.text]).requires_grad_(True)
    for number, stage in enumerate(stages):
        optimiser = torch.optim.AdamW(both.parameters(), lr=stage.lr, betas=(0.9, 0.99), weight_decay=0.01)
        average = Average(both, 0.995)
        checkpoint = Checkpoint(folder / f"dit_{stage.name}.pt", every)
        first = checkpoint.restore(both, optimiser, average)
        sample_batch = single_batch if stage.blocks == 1 else film_batch
        smooth = 0.0
        for step in range(first, stage.steps):
            rng = np.random.default_rng((seed, 2 + number, step))
            loss = flow_loss(mini, sample_batch(data, stage, rng), stage, rng)
            loss.backward()
            nn.utils.clip_grad_norm_(both.parameters(), 1.0)
            for group in optimiser.param_groups:
                group["lr"] = stage.lr * cosine(step, stage.horizon, stage.final_scale)
            optimiser.step()
            optimiser.zero_grad()
            if step > stage.skip:
                average.update(both)
            elif step == stage.skip:
                average = Average(both, 0.995)
            smooth = loss.item() if step == first else 0.98 * smooth + 0.02 * loss.item()
            checkpoint.save(step + 1, both, optimiser, average, last=step + 1 == stage.steps)
            if (step + 1) % 50 == 0:
                log(f"dit {stage.name} {step + 1}/{stage.steps} loss {smooth:.4f}")
        both.load_state_dict(average.weights)
    both.requires_grad_(False)
