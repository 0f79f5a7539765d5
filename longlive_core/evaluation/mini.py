"""Evaluation of the embedded model: adherence to captions, identity, drift and seams, with and without memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from ..memory import MemoryConfig
from ..mini import LATENT_SIZE, Mini
from ..sampling.generate import generate
from ..training.world import render
from ..types import BLOCK_FRAMES, FPS, TIME_FACTOR
from .measures import Sample, judge_window, psnr
from .report import Report, Row, make_row
from .scripts import Case, minute_cases, short_cases
from .windows import Window, decode_windows, plan_windows

# Blocks between two windows of a shot; each window takes seven latent frames of decoding.
STRIDE: Final = 3
INTERVAL_SECONDS: Final = STRIDE * BLOCK_FRAMES * TIME_FACTOR / FPS

SINKS_ON: Final = "sinks on"
NO_SHOT_SINK: Final = "shot sink off"
NO_SINKS: Final = "all sinks off"
NO_MEMORY: Final = "memory off"
FEWER_STEPS: Final = "sinks on, 2 steps"


@dataclass(frozen=True)
class Mode:
    """Memory settings and steps to evaluate.

    memory: None generates every shot as a separate film. minutes: whether to evaluate films of one minute too.
    """

    name: str
    memory: MemoryConfig | None
    steps: int
    minutes: bool = True


def modes(steps: int) -> tuple[Mode, ...]:
    """Modes to evaluate, one per row of the table."""
    return (
        Mode(SINKS_ON, MemoryConfig(), steps),
        Mode(NO_SHOT_SINK, MemoryConfig(shot_sink=False), steps),
        Mode(NO_SINKS, MemoryConfig(sink=0, shot_sink=False), steps),
        Mode(NO_MEMORY, None, steps),
        Mode(FEWER_STEPS, MemoryConfig(), 2, minutes=False),
    )


def evaluate_mini(
    mini: Mini,
    *,
    scripts: int = 40,
    minute_films: int = 12,
    steps: int = 4,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
) -> Report:
    """Generate held-out films in every mode and evaluate them with the probe.

    scripts: number of short scripts of two or three shots. minute_films: number of films of one minute that name the
    hero in the first shot only. seed: of the noise; the scripts are fixed. Takes about seven minutes on two CPU cores.
    """
    return evaluate_cases(mini, short_cases(scripts, seed), minute_cases(minute_films, seed), steps, log)


def evaluate_cases(
    mini: Mini,
    short: Sequence[Case],
    minute: Sequence[Case],
    steps: int,
    log: Callable[[str], None] | None = None,
) -> Report:
    """Evaluate the given short scripts and scripts of one minute, as `evaluate_mini` does."""
    began = time.monotonic()
    rows: list[Row] = []
    for mode in modes(steps):
        since = time.monotonic()
        short_samples = [sample for case in short for sample in judge_film(mini, case, mode, every=STRIDE)]
        minute_samples = (
            [sample for case in minute for sample in judge_film(mini, case, mode, every=STRIDE)] if mode.minutes else []
        )
        rows.append(make_row(mode.name, mode.steps, short_samples, minute_samples, INTERVAL_SECONDS))
        if log is not None:
            log(f"{mode.name}: {len(short_samples) + len(minute_samples)} windows in {time.monotonic() - since:.0f} s")
    fidelity = vae_psnr(mini, short[:8])
    return Report(tuple(rows), len(short), len(minute), fidelity, time.monotonic() - began)


def judge_film(mini: Mini, case: Case, mode: Mode, every: int) -> Iterator[Sample]:
    """Generate a film and yield its samples, one per shot and interval of `every` blocks."""
    windows = plan_windows(case.plan(), every)
    if mode.memory is not None:
        yield from _judge_blocks(mini, case, windows, mode.memory, mode.steps)
        return
    for shot in range(len(case.blocks)):
        inside = [window for window in windows if window.shot == shot]
        own = [_in_own_film(window, case.first_block(shot)) for window in inside]
        samples = _judge_blocks(mini, case.alone(shot), own, MemoryConfig(), mode.steps)
        for window, sample in zip(inside, samples, strict=True):
            yield replace(sample, shot=shot, seconds=window.start / FPS)


def vae_psnr(mini: Mini, cases: Sequence[Case], frames: int = 33) -> float:
    """Mean PSNR in dB of encoding and decoding frames around the first cut of each film; NaN without films."""
    values: list[float] = []
    for case in cases:
        cut = case.film.shots[0].frames
        pixels = render(case.film, cut - frames // 2, cut - frames // 2 + frames)
        video = torch.from_numpy(pixels).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        with torch.inference_mode():
            decoded = mini.vae.decode(mini.vae.encode(video.to(mini.model.device)))
        values.append(
            psnr(((decoded[0].clamp(-1, 1) + 1) * 127.5).round().byte().cpu().permute(1, 2, 3, 0).numpy(), pixels)
        )
    return float(np.mean(values)) if values else float("nan")


def _judge_blocks(
    mini: Mini, case: Case, windows: Sequence[Window], memory: MemoryConfig, steps: int
) -> Iterator[Sample]:
    last = max((window.block for window in windows), default=-1)
    plan = case.plan()
    plan = replace(plan, blocks=plan.blocks[: last + 1])  # later blocks are not evaluated
    blocks = generate(mini.model, plan, mini.encode_text, memory, size=LATENT_SIZE, steps=steps, seed=case.seed)
    for window, frames in decode_windows(mini.vae, blocks, windows):
        yield judge_window(case.film, window, frames)


def _in_own_film(window: Window, first: int) -> Window:
    """The window in a separate film that starts with block `first`."""
    return Window(0, window.block - first, window.seam - first * BLOCK_FRAMES)
