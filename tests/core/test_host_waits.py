"""While a film is sampled and decoded on a GPU, the host never waits for a read or a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.sampler_settings import SamplerSettings
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.model.cuda_graph import Capture
from longlive.longlive_core.pipeline.decode import decode
from longlive.longlive_core.pipeline.stages import Pipeline, sample
from longlive.longlive_core.types import Block
from longlive.longlive_core.vae import DecodeStream, VAEConfig, WanVAE

from .conftest import Tiny
from .host_waits import META, HostWaits, meta_gpu

__all__ = ["meta_gpu"]

BLOCKS, STEADY = 6, 4
WIDE = WanConfig(dim=64, ffn_dim=64, num_heads=2, num_layers=1, freq_dim=32, text_dim=16, text_len=5, channels=48)


def waits_of_a_block(
    tiny: Tiny, guidance: float = 1.0, seam: str = "plain", capture: Capture | None = None, **memory: object
) -> dict[str, int]:
    """What the host waits for from the first step of a steady block to its frames."""
    settings = SamplerSettings((4, 6), tiny.memory(window=6, **memory), steps=2, guidance=guidance, seam=seam)  # type: ignore[arg-type]
    model = CausalWan(WIDE, device=META, dtype=torch.bfloat16).requires_grad_(False)
    vae = WanVAE(VAEConfig(4, 4, num_res_blocks=0, mean=(0.0,) * 48, std=(1.0,) * 48)).requires_grad_(False).to(META)
    plan = tiny.plan(" ".join("A" * BLOCKS))
    film = Film(plan, lambda *arguments: settings.start(model, tiny.text, *arguments, capture=capture))
    counted = HostWaits()

    def drawn() -> Iterator[Block]:
        for block in film.run():
            counted.counts.clear() if block.index < STEADY else None
            yield block

    with torch.inference_mode(), counted, Pipeline() as pipeline:
        for frame in decode(sample(pipeline, drawn(), "sequential"), DecodeStream(vae)):
            if frame.block.index == STEADY and frame.last:
                return dict(counted.counts)
    raise AssertionError("the film ended before its steady block")


@pytest.mark.parametrize("memory", [{}, {"kv_format": "bf16"}, {"relative_rope": True}], ids=str)
@pytest.mark.usefixtures("meta_gpu")
def test_the_host_waits_for_nothing_in_a_steady_block(tiny: Tiny, memory: dict[str, object]) -> None:
    """No value is read and no copy blocks, from the noise to the pixels, however K/V are kept."""
    assert waits_of_a_block(tiny, **memory) == {}


@pytest.mark.parametrize("kv_format", ["fp8", "nvfp4", "q2"])
@pytest.mark.usefixtures("meta_gpu")
def test_the_host_waits_for_nothing_with_a_quantised_cache(tiny: Tiny, kv_format: str) -> None:
    """Quantising and reading K/V needs no value on the host."""
    assert waits_of_a_block(tiny, kv_format=kv_format) == {}


@pytest.mark.usefixtures("meta_gpu")
def test_the_host_waits_for_nothing_with_guidance_and_aligned_seams(tiny: Tiny) -> None:
    """Neither a second branch nor the frame in front of a block makes the host wait."""
    assert waits_of_a_block(tiny, guidance=3.0, seam="align") == {}


@pytest.mark.parametrize("kv_format", ["bf16", "fp8", "nvfp4", "q2"])
@pytest.mark.usefixtures("meta_gpu")
def test_the_host_waits_for_nothing_while_graphs_are_made(tiny: Tiny, kv_format: str) -> None:
    """CUDA refuses to record work that waits, and the inputs of a replay are copied on the device."""
    made: list[int] = []

    def capture(work: Callable[[], None]) -> Callable[[], None]:
        with HostWaits() as counted:
            work()
        made.append(sum(counted.counts.values()))
        return lambda: None

    assert waits_of_a_block(tiny, seam="align", capture=capture, kv_format=kv_format) == {}
    assert made == [0, 0]  # steps with a frame in front, and clean passes


@pytest.mark.usefixtures("meta_gpu")
def test_a_read_and_a_blocking_copy_are_counted() -> None:
    """The count sees what it is to find: a value, a copy each way, and numbers of Python."""
    x = torch.ones(3, device=META)
    with HostWaits() as counted:
        bool(torch.isfinite(x).all())
        x.cpu(), torch.ones(3).to(META), torch.ones(3).to(META, non_blocking=True)
        torch.tensor([1.0], device=META), x.new_tensor([1.0])
    assert sum(counted.counts.values()) == 5
