"""Peaks of the allocator while films of the 5B model are made, compared with the plan of the VRAM.

Without the parts of the plan that no allocator sees: the CUDA context, other programs, and what is in host memory.
"""

from __future__ import annotations

from functools import partial

import torch
from longlive.longlive_core.pipeline.decode import QUEUE_DEPTH, decode, decoder_cuda_stream
from longlive.longlive_core.pipeline.stages import Pipeline, sample
from longlive.longlive_core.vae import DecodeStream
from longlive.longlive_core.vram.budget import CONTEXT, DISPLAY, Budget

from .arms import FIVE_B, TOY
from .films import Models
from .ladder import clear
from .part import Found, Task
from .timing import CUDA, DEVICE

SIZE = (704, 1280)
CARD = 24 * 2**30
"""Any card: the parts of a plan do not depend on it."""
FILMS = (("bf16", "bf16", "full"), ("bf16", "bf16", "tiny"), ("fp8", "fp8", "full"), ("nvfp4", "nvfp4", "tiny"))
"""Formats of weights and K/V, and the decoder."""
HIGHEST, LOWEST = 1.05, 0.7
"""Limits of measured to planned bytes, as in `tests/gpu/test_planner.py`."""
BLOCKS = 6


def tasks(toy: bool) -> list[Task]:
    """One task for each film."""
    models = Models(TOY if toy else FIVE_B, toy)
    films = FILMS[:1] if toy else FILMS
    return [Task(f"{w} weights, {kv} KV, {vae} VAE", partial(peak, models, w, kv, vae)) for w, kv, vae in films]


def planned(weights: str, kv: str, vae: str) -> int:
    """Bytes of the plan that an allocator sees."""
    return Budget(CARD, SIZE, weights=weights, kv_format=kv, vae=vae).total - CONTEXT - DISPLAY


def peak(models: Models, weights: str, kv: str, vae: str) -> Found:
    """Planned GB, and measured ones on a GPU."""
    plan = planned(weights, kv, vae)
    models.model = None
    clear()
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated() if CUDA else 0
    film, decoder = models.film(weights, kv, steps=2, blocks=BLOCKS), models.decoder(vae)
    with Pipeline() as pipeline:
        stream = DecodeStream(decoder, cuda_stream=decoder_cuda_stream(torch.device(DEVICE)))
        for piece in pipeline.stage("decoding", decode(sample(pipeline, film, "async"), stream), QUEUE_DEPTH):
            assert piece.frames is not None
            piece.frames.wait()
    figures: dict[str, float | str] = {"planned GB": plan / 1e9}
    if not CUDA:
        return Found(figures)
    measured = torch.cuda.max_memory_allocated() - base
    figures |= {
        "measured GB": measured / 1e9,
        "reserved GB": torch.cuda.max_memory_reserved() / 1e9,
        "measured / planned": measured / plan,
    }
    return Found(figures, red=verdict(measured, plan))


def verdict(measured: int, plan: int) -> str:
    """Why a plan is wrong, or nothing."""
    ratio = measured / plan
    return "" if LOWEST <= ratio <= HIGHEST else f"measured / planned {ratio:.2f} is outside {LOWEST} to {HIGHEST}"
