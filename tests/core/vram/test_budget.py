"""The budget equals the bytes of live tensors: of weights, decoder, a whole film and one pass."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.model import WAN22_TI2V_5B, CausalWan, WanConfig
from longlive.longlive_core.model.linears import quantize_linears
from longlive.longlive_core.parallel import Ranks
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.sampling.seam import SEAMS, Seam
from longlive.longlive_core.script import BlockPlan
from longlive.longlive_core.types import BlockSpec
from longlive.longlive_core.vae import DecodeStream
from longlive.longlive_core.vram.budget import (
    CONTEXT,
    DISPLAY,
    VAES,
    Budget,
    Placement,
    activation_bytes,
    prompt_bytes,
    weight_bytes,
)
from torch import Tensor

from .card_decoder import CELLS, decoder, latents
from .live_bytes import LiveBytes

GIB = 2**30
LARGE, SMALL = (704, 1280), (480, 832)
FILM = ("KV", "dequantisation", "activations", "aligned seams", "prompt")  # what a film allocates besides the weights
TINY = WanConfig(dim=256, ffn_dim=1024, num_heads=2, num_layers=3, freq_dim=32, text_dim=16, text_len=8)


def part(budget: Budget, *names: str) -> int:
    """Bytes of the parts whose names start with one of `names`."""
    return sum(p.bytes for p in budget.parts if p.name.startswith(names))


@pytest.mark.parametrize("config", [TINY, replace(WAN22_TI2V_5B, num_layers=2)], ids=["tiny", "5B, two layers"])
def test_weights_are_the_model_s(config: WanConfig) -> None:
    """The formula counts every parameter of the transformer."""
    model = CausalWan(config, device="meta", dtype=torch.bfloat16)
    assert weight_bytes(config, "bf16") == 2 * sum(p.numel() for p in model.parameters())


def test_weights_of_the_full_model() -> None:
    """As in the released checkpoints: 4,999,787,712 parameters, 4,907,335,680 of them quantised."""
    assert weight_bytes(WAN22_TI2V_5B, "bf16") == 2 * 4_999_787_712
    others = 2 * (4_999_787_712 - 4_907_335_680)
    assert weight_bytes(WAN22_TI2V_5B, "nvfp4") == others + 4_907_335_680 * 9 // 16
    assert weight_bytes(WAN22_TI2V_5B, "fp8") == pytest.approx(others + 4_907_335_680, rel=1e-3)


@pytest.mark.parametrize("weights", ["fp8", "nvfp4"])
def test_quantised_weights_are_the_layers(weights: Any) -> None:  # noqa: ANN401
    """The budget equals the bytes that the quantised layers store."""
    model = CausalWan(TINY, dtype=torch.bfloat16).requires_grad_(False)
    quantize_linears(model, weights)
    stored = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    assert stored == pytest.approx(weight_bytes(TINY, weights), rel=2e-3)


@pytest.mark.parametrize(("name", "width"), [("full", 256), ("light", 64)])
def test_a_vae_takes_what_is_planned(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the byte: weights, and the peak of a film's first latent frame and of a later one, with one state.

    The VAE is Wan2.2's; the light one has a quarter of its decoder's width.
    """
    vae, own = decoder(width, monkeypatch), VAES[name]
    assert own.weights == 2 * sum(p.numel() for p in vae.parameters())
    with LiveBytes() as live:
        stream = DecodeStream(vae)
        for index in range(vae.reach + 2):
            stream.feed(latents())
            if index == 0:
                assert live.peak == CELLS * (own.cache + own.first) + latents().nbytes
            stream.flush()
    assert sum(tensor.nbytes for tensor in stream.state) == CELLS * own.cache
    assert live.peak == CELLS * (own.cache + own.transient)


@pytest.mark.slow
@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize(("kv_format", "guidance"), [("bf16", 1.0), ("fp8", 3.0), ("nvfp4", 1.0), ("q2", 1.0)])
def test_a_film_takes_what_is_planned(kv_format: str, guidance: float, seam: Seam) -> None:
    """The peak of live bytes while a film is sampled is the budget, or up to a fifth less."""
    model = CausalWan(TINY, dtype=torch.bfloat16).requires_grad_(False)
    plan = BlockPlan(tuple(BlockSpec(i, 0, "a", False, None, 8 * i, 8) for i in range(4)), 24.0, 8)
    memory = MemoryConfig(kv_format=kv_format)
    with LiveBytes() as live:
        text = torch.zeros(4, TINY.text_dim)
        guided = {"guidance": guidance, "negative": "b"}
        for _ in generate(model, plan, lambda _: text, memory, size=(4, 6), steps=2, seam=seam, **guided):
            pass
    aligned = seam == "align"
    budget = Budget(GIB, (64, 96), kv_format=kv_format, guidance=guidance != 1.0, model=TINY, align=aligned)
    assert 0.8 * part(budget, *FILM) <= live.peak <= part(budget, *FILM)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_activations_are_those_of_a_pass(size: tuple[int, int], ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass of the full model at full size takes the activations of the budget, or up to a fifth less.

    Also one of a rank, whose exchanges are made without the other ranks.
    """
    monkeypatch.setattr(torch.distributed, "all_to_all_single", lambda *_, **__: None)
    config, block = replace(WAN22_TI2V_5B, num_layers=1), Budget(GIB, size).block
    down, across = config.grid(block.height, block.width)
    slot = torch.empty(1, 8 * down * across, 24 // ranks, 128, dtype=torch.bfloat16, device="meta")

    class Slot:
        def attend(self, _: int, q: Any, k: Any, v: Tensor, rope: Any) -> Tensor:  # noqa: ANN401
            k.rotated(rope, out=slot)
            return torch.empty_like(q.rotated(rope)) if v is not None else v

    class Text:
        def attend(self, _: int, q: Tensor) -> Tensor:
            return torch.empty_like(q)

    model: Any = CausalWan(config, device="meta", dtype=torch.bfloat16)
    x = torch.empty(block.as_tuple(), dtype=torch.bfloat16, device="meta")
    times, positions = torch.empty(1, 8, device="meta"), torch.empty(8, dtype=torch.float64, device="meta")
    with torch.no_grad(), LiveBytes() as live:
        model(x, times, Text(), Slot(), positions, ranks=Ranks(ranks, ranks - 1))
    planned = activation_bytes(config, block, ranks=ranks)
    assert 0.8 * planned <= live.peak <= planned, live.peak / planned


def test_aligned_seams_take_a_frame_more() -> None:
    """The activations of one frame more, and a copy of the K/V of one layer with it: 9/8 of a block's activations."""
    plain, aligned = Budget(GIB, LARGE), Budget(GIB, LARGE, align=True)
    keys = 2 * 2 * 33 * 22 * 40 * WAN22_TI2V_5B.dim
    assert part(aligned, "aligned seams") == part(plain, "activations") // 8 + keys
    assert aligned.total == plain.total + part(aligned, "aligned seams")
    assert part(plain, "aligned seams") == 0


def test_guidance_needs_two_kv_caches() -> None:
    """Guidance doubles the KV cache and needs one more prompt, but no second scratch buffer."""
    one, two = (Budget(GIB, LARGE, kv_format="fp8", guidance=guidance) for guidance in (False, True))
    assert part(two, "KV") == 2 * part(one, "KV")
    assert part(two, "dequantisation") == part(one, "dequantisation")
    assert 2 * part(two, "prompt") == 3 * part(one, "prompt") == 6 * prompt_bytes(WAN22_TI2V_5B, 1)


def test_ranks_share_the_heads_of_the_kv() -> None:
    """Of 24 heads the rank with the most has an equal share, of 6 on 4 ranks two; weights and prompts are whole."""
    one, four = (Budget(GIB, LARGE, kv_format="fp8", ranks=ranks) for ranks in (1, 4))
    assert part(one, "KV") == 4 * part(four, "KV")
    assert part(one, "weights", "prompt", "VAE") == part(four, "weights", "prompt", "VAE")
    small = replace(TINY, num_heads=6, dim=6 * 32)
    uneven = [Budget(GIB, (128, 128), model=small, ranks=ranks) for ranks in (1, 4)]
    assert part(uneven[0], "KV") == 3 * part(uneven[1], "KV")


def test_split_guidance_takes_one_branch_of_a_card() -> None:
    """A card has the K/V and prompts of one branch, as without guidance, so that the KV cache is half of both."""
    plain, both, split = (
        Budget(GIB, LARGE, guidance=guidance, split=split)
        for guidance, split in ((False, False), (True, False), (True, True))
    )
    assert split.total == plain.total
    assert 2 * part(split, "KV") == part(both, "KV")


@pytest.mark.parametrize("decoder", ["other card", "offloaded"])
def test_a_vae_elsewhere_takes_nothing_of_this_card(decoder: Placement) -> None:
    """It is in the table, and not in the peak of a card that samples; decoding later would not help."""
    usual, apart = Budget(GIB, LARGE), Budget(GIB, LARGE, decoder=decoder)
    assert part(usual, "VAE") == part(apart, "VAE") > 0
    assert apart.total == usual.total - part(usual, "VAE")
    assert replace(apart, sequential=True).total == apart.total
    few = Budget(GIB, LARGE, "nvfp4", "nvfp4", 24, model=replace(WAN22_TI2V_5B, num_layers=1), decoder="other card")
    assert few.total == max(few.total, part(few, "VAE") + CONTEXT + DISPLAY)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"split": True}, "without guidance there is one branch, which cannot be split; plan with guidance"),
        ({"ranks": 3}, "3 ranks cannot share a model of 24 heads"),
        ({"weights": "int4"}, "weights 'int4' is not known; choose one of bf16, fp8, nvfp4"),
        ({"kv_format": "int4"}, "kv_format 'int4' is not known"),
        ({"vae": "huge"}, "vae 'huge' is not known"),
        ({"window": 30}, "window 30 is not a multiple of the block"),
        ({"window": 8}, "window 8 is too short"),
        (
            {"size": (700, 1280)},
            "height 700 and width 1280 must be positive multiples of 32; try height 704 and width 1280",
        ),
        ({"streamed": 31}, "streamed 31 is outside 0 … 30"),
    ],
)
def test_impossible_films(fields: dict[str, Any], says: str) -> None:
    """Impossible settings are refused with the possible values."""
    with pytest.raises(ValueError, match=re.escape(says)):
        Budget(**{"vram": GIB, "size": LARGE, **fields})
