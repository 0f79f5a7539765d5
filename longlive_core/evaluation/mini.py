"""Evaluation of LongLive Mini: how well its films match their scripts, with and without sinks and KV cache."""

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
from .measures import WindowScore, psnr, score_window
from .report import Report, Row, make_row
from .scripts import Case, minute_cases, short_cases
from .windows import Window, decode_windows, plan_windows

# Blocks between two windows of a shot. To decode a window takes seven latent frames.
STRIDE: Final = 3
INTERVAL_SECONDS: Final = STRIDE * BLOCK_FRAMES * TIME_FACTOR / FPS

SINKS_ON: Final = "sinks on"
NO_SHOT_SINK: Final = "shot sink off"
NO_SINKS: Final = "all sinks off"
NO_MEMORY: Final = "memory off"
FEWER_STEPS: Final = "sinks on, 2 steps"


@dataclass(frozen=True)
class Variant:
    """A configuration to evaluate. With `memory` None, each shot is generated as a separate film.

    minute_films: whether minute films are generated too.
    """

    name: str
    memory: MemoryConfig | None
    steps: int
    minute_films: bool = True


def variants(steps: int) -> tuple[Variant, ...]:
    """The configurations in the report, in the order of its rows."""
    return (
        Variant(SINKS_ON, MemoryConfig(), steps),
        Variant(NO_SHOT_SINK, MemoryConfig(shot_sink=False), steps),
        Variant(NO_SINKS, MemoryConfig(sink=0, shot_sink=False), steps),
        Variant(NO_MEMORY, None, steps),
        Variant(FEWER_STEPS, MemoryConfig(), 2, minute_films=False),
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
    """Generates held-out films with each configuration and reads them with the probe.

    scripts: number of short scripts, of two or three shots. minute_films: number of films of one minute, whose first
    shot alone describes the hero. seed: of the noise; the scripts do not depend on it. The defaults take about seven
    minutes on two CPU cores.
    """
    return evaluate_cases(mini, short_cases(scripts, seed), minute_cases(minute_films, seed), steps, log)


def evaluate_cases(
    mini: Mini,
    short: Sequence[Case],
    minute: Sequence[Case],
    steps: int,
    log: Callable[[str], None] | None = None,
) -> Report:
    """Generates the films of given scripts with each configuration and reads them with the probe."""
    began = time.monotonic()
    rows: list[Row] = []
    for variant in variants(steps):
        variant_began = time.monotonic()
        row = evaluate_variant(mini, variant, short, minute if variant.minute_films else ())
        rows.append(row)
        if log is not None:
            log(f"{row.name}: {row.flicker.seams} windows in {time.monotonic() - variant_began:.0f} s")
    return Report(tuple(rows), len(short), len(minute), vae_psnr(mini, short[:8]), time.monotonic() - began)


def evaluate_variant(mini: Mini, variant: Variant, short: Sequence[Case], minute: Sequence[Case]) -> Row:
    """Generates the films of given scripts with one configuration and reads them with the probe."""
    short_scores, minute_scores = (
        [score for case in cases for score in score_case(mini, case, variant)] for cases in (short, minute)
    )
    return make_row(variant.name, variant.steps, short_scores, minute_scores, INTERVAL_SECONDS)


def score_case(mini: Mini, case: Case, variant: Variant, every: int = STRIDE) -> Iterator[WindowScore]:
    """Generates the film of a script and scores one window for each shot and each interval of `every` blocks."""
    windows = plan_windows(case.plan(), every)
    if variant.memory is not None:
        yield from _score_film(mini, case, windows, variant.memory, variant.steps)
        return
    for shot in range(len(case.blocks)):
        in_film = [window for window in windows if window.shot == shot]
        first = sum(case.blocks[:shot])
        in_shot = [Window(0, window.block - first, window.seam - first * BLOCK_FRAMES) for window in in_film]
        scores = _score_film(mini, case.alone(shot), in_shot, MemoryConfig(), variant.steps)
        for window, score in zip(in_film, scores, strict=True):
            yield replace(score, shot=shot, seconds=window.start / FPS)


def vae_psnr(mini: Mini, cases: Sequence[Case], frames: int = 33) -> float:
    """Mean PSNR in dB of `frames` encoded and decoded frames around the first cut of each film; NaN without films."""
    values: list[float] = []
    for case in cases:
        start = case.film.shots[0].frames - frames // 2
        pixels = render(case.film, start, start + frames)
        video = torch.from_numpy(pixels).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        with torch.inference_mode():
            decoded = mini.vae.decode(mini.vae.encode(video.to(mini.model.device)))
        levels = ((decoded[0].clamp(-1, 1) + 1) * 127.5).round().byte().cpu().permute(1, 2, 3, 0)
        values.append(psnr(levels.numpy(), pixels))
    return float(np.mean(values)) if values else float("nan")


def _score_film(
    mini: Mini, case: Case, windows: Sequence[Window], memory: MemoryConfig, steps: int
) -> Iterator[WindowScore]:
    last = max((window.block for window in windows), default=-1)
    plan = case.plan()
    plan = replace(plan, blocks=plan.blocks[: last + 1])  # no window shows a later block
    blocks = generate(mini.model, plan, mini.encode_text, memory, size=LATENT_SIZE, steps=steps, seed=case.seed)
    for window, frames in decode_windows(mini.vae, blocks, windows):
        yield score_window(case.film, window, frames)
