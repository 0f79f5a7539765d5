"""Evaluation of LongLive Mini: held-out films of several arms, which differ in steps, seams, memory and formats."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import torch

from ..memory import DEFAULT_MEMORY, MemoryConfig
from ..mini import LATENT_SIZE, Mini
from ..model.attention import Attention
from ..sampling import Seam, generate
from ..script import BlockPlan
from ..training.world import render
from ..types import BLOCK_FRAMES, FPS, Block
from .formats import BF16, FORMATS, Format, attention_in, quantize_weights
from .measures import Look, look_at, psnr
from .pixels import FilmPixels, measure_pixels, require_extra
from .scripts import GROUPS, Case, Group
from .windows import Frames, Window, decode_film, decode_windows

# Short films of each arm that are compared with the same films of the first arm.
PSNR_FILMS: Final = 6


@dataclass(frozen=True, slots=True)
class Arm:
    """One configuration of sampling, and the groups of films that it makes.

    memory: None generates each shot as a separate film. seam: see `generate`. truth: rendered films that pass through
    the VAE, in place of sampled ones.
    """

    name: str
    groups: tuple[Group, ...] = GROUPS
    steps: int = 4
    seam: Seam = "align"
    memory: MemoryConfig | None = DEFAULT_MEMORY
    storage: Format = BF16
    truth: bool = False


MAIN: Final = "4 steps"
PLAIN: Final = "plain seams"
MEMORY_OFF: Final = "memory off"
SINKS_OFF: Final = "sinks off"
INDEPENDENT: Final = "independent shots"
TWO_STEPS: Final = "2 steps"
FIFTY_STEPS: Final = "50 steps"
TRUTH: Final = "truth through the VAE"


def all_arms() -> tuple[Arm, ...]:
    """The arms of the report. The first one is the default of rendering, and the others change one thing in it."""
    return (
        Arm(MAIN),
        Arm(PLAIN, seam="plain"),
        Arm(MEMORY_OFF, ("short", "minute", "gap"), memory=None),
        Arm(SINKS_OFF, ("minute", "gap"), memory=MemoryConfig(sink=0, shot_sink=False)),
        Arm(INDEPENDENT, ("short", "minute", "gap"), memory=MemoryConfig(independent_shots=True)),
        Arm(TWO_STEPS, ("short", "minute"), steps=2),
        Arm(FIFTY_STEPS, ("short",), steps=50),
        *(Arm(storage.name, ("short", "minute"), memory=storage.memory, storage=storage) for storage in FORMATS),
        Arm(TRUTH, ("short",), truth=True),
    )


def choose_arms(names: Iterable[str]) -> tuple[Arm, ...]:
    """The arms of these names, in the order of the report. Raises ValueError for an unknown name."""
    arms, names = all_arms(), tuple(names)
    known = [arm.name for arm in arms]
    for name in names:
        if name not in known:
            raise ValueError(f"there is no arm '{name}'; the arms are {', '.join(known)}")
    return tuple(arm for arm in arms if arm.name in names)


@dataclass(frozen=True, slots=True)
class FilmResult:
    """What one film shows.

    pixels: of a film that is decoded as a whole. psnr: in dB, of a short film compared with the same film of the first
    arm, or of rendered frames that pass through the VAE with the frames themselves.
    """

    case: Case
    looks: tuple[Look, ...]
    pixels: FilmPixels | None = None
    psnr: float | None = None


@dataclass(frozen=True, slots=True)
class ArmResult:
    """The films of one arm, and the time that they took."""

    arm: Arm
    films: tuple[FilmResult, ...]
    seconds: float

    def group(self, group: Group) -> tuple[FilmResult, ...]:
        """The films of a group."""
        return tuple(film for film in self.films if film.case.group == group)


def evaluate_arms(
    mini: Mini,
    cases: Sequence[Case],
    arms: Sequence[Arm],
    *,
    extra: bool = True,
    log: Callable[[str], None] | None = None,
    against: Mini | None = None,
) -> tuple[ArmResult, ...]:
    """Makes the films of given scripts in each arm and looks at them. extra: see `measure_pixels`.

    against: a model whose short films, in the arm of rendering, all arms are compared with; by default those of the
    first arm are.

    Raises MissingExtraError before any work.
    """
    if extra:
        require_extra()
    reference: dict[int, Frames] = {}
    if against is not None:
        for case in [case for case in cases if case.group == "short"][:PSNR_FILMS]:
            make_film(against, case, Arm(MAIN), False, reference)
    results: list[ArmResult] = []
    for arm in arms:
        began = time.monotonic()
        quantized = quantize_weights(mini, arm.storage)
        own = [case for case in cases if case.group in arm.groups]
        attention = attention_in(quantized, arm.storage)
        films = tuple(make_film(quantized, case, arm, extra, reference, attention) for case in own)
        results.append(ArmResult(arm, films, time.monotonic() - began))
        if log is not None:
            log(f"{arm.name}: {len(films)} films, {sum(map(_blocks, own))} blocks in {results[-1].seconds:.0f} s")
    return tuple(results)


def make_film(
    mini: Mini,
    case: Case,
    arm: Arm,
    extra: bool,
    reference: dict[int, Frames],
    attention: Attention | None = None,
) -> FilmResult:
    """Makes the film of a script and looks at it.

    reference: frames of short films by their seed, with which later arms compare theirs; the first arm fills it.
    attention: see `generate`.
    """
    if arm.memory is None:
        return FilmResult(case, tuple(_separate_shots(mini, case, arm, attention)))
    plan, windows = case.plan(), case.windows()
    if case.group != "short":
        plan = replace(plan, blocks=plan.blocks[: windows[-1].block + 1])  # no window shows a later block
        decoded = decode_windows(mini.vae, _blocks_of(mini, case, arm, plan, attention), windows)
        return FilmResult(case, tuple(look_at(case.film, window, frames) for window, frames in decoded))
    frames = decode_film(mini.vae, _blocks_of(mini, case, arm, plan, attention))
    looks = tuple(look_at(case.film, window, frames[window.start : window.stop]) for window in windows)
    compared = render(case.film) if arm.truth else reference.get(case.seed)
    if compared is None and len(reference) < PSNR_FILMS:
        reference[case.seed] = frames
    difference = None if compared is None else psnr(frames, compared)
    return FilmResult(case, looks, measure_pixels(frames, plan, extra=extra), difference)


def _separate_shots(mini: Mini, case: Case, arm: Arm, attention: Attention | None) -> Iterator[Look]:
    """Looks at shots that are generated as separate films."""
    for shot, group in groupby(case.windows(), key=lambda window: window.shot):
        own, first, alone = list(group), sum(case.blocks[:shot]), case.alone(shot)
        # A film's first latent frame has one video frame, so that a window at its head begins one later.
        in_film = [
            Window(0, w.block - first, w.centre - first * BLOCK_FRAMES + (w.kind == "head" and shot > 0), w.kind)
            for w in own
        ]
        blocks = _blocks_of(mini, alone, replace(arm, memory=DEFAULT_MEMORY), alone.plan(), attention)
        for asked, (window, frames) in zip(own, decode_windows(mini.vae, blocks, in_film), strict=True):
            look = look_at(alone.film, window, frames)
            yield replace(look, shot=shot, block=asked.block, seconds=asked.start / FPS)


@torch.inference_mode()
def _blocks_of(mini: Mini, case: Case, arm: Arm, plan: BlockPlan, attention: Attention | None) -> Iterator[Block]:
    """The blocks of a film: sampled, or encoded from the rendered film."""
    if arm.truth:
        video = torch.from_numpy(render(case.film)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        latents = mini.vae.normalise(mini.vae.encode(video.to(mini.model.device)))
        yield from (Block(spec, latents[:, :, spec.start : spec.start + spec.frames]) for spec in plan.blocks)
        return
    memory = arm.memory or DEFAULT_MEMORY
    yield from generate(
        mini.model,
        plan,
        mini.encode_text,
        memory,
        size=LATENT_SIZE,
        steps=arm.steps,
        seed=case.seed,
        seam=arm.seam,
        attention=attention,
    )


def _blocks(case: Case) -> int:
    return sum(case.blocks)
