"""A decoder whose latent frames are graphs, for which a recorder of ops stands in, makes the frames of one without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from longlive.longlive_core.vae import DecodeStream, VAEConfig, WanVAE
from longlive.longlive_core.vae.graphed_decoder import GraphedDecoder
from torch import Tensor

from ..op_recorder import Recorder

CHANNELS, FRAMES = 4, 9


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    """A decoder of a few weights."""
    torch.manual_seed(0)
    config = VAEConfig(
        dim=4, dec_dim=4, latent_channels=CHANNELS, dim_mult=(1, 2, 2, 2), mean=(0.0,) * 4, std=(1.0,) * 4
    )
    return WanVAE(config).requires_grad_(False).eval()


@pytest.fixture
def latents() -> Tensor:
    """Those of a film."""
    return torch.randn(1, CHANNELS, FRAMES, 2, 3, generator=torch.Generator().manual_seed(1))


def decoded(stream: DecodeStream, latents: Tensor) -> Tensor:
    """All frames of a film, `[T, H, W, 3]`."""
    stream.reset()
    for chunk in latents.split(4, dim=2):
        stream.feed(chunk)
    return torch.cat(stream.flush())


def test_frames_are_those_without_graphs(vae: WanVAE, latents: Tensor) -> None:
    """One graph serves all films of a size, from the third latent frame of the first one on."""
    recorder = Recorder()
    stream, other = DecodeStream(GraphedDecoder(vae, recorder)), latents.flip(2)
    for film in (latents, other, latents):
        assert torch.equal(decoded(stream, film), decoded(DecodeStream(vae), film))
    assert recorder.captured == 1
    assert recorder.replayed == (FRAMES - 2) + 2 * (FRAMES - 1)


def test_another_size_runs_as_it_is(vae: WanVAE, latents: Tensor) -> None:
    """A film of another size changes nothing in the graph."""
    recorder = Recorder()
    stream, small = DecodeStream(GraphedDecoder(vae, recorder)), latents[..., :2]
    for film in (latents, small, latents):
        assert torch.equal(decoded(stream, film), decoded(DecodeStream(vae), film))
    assert recorder.captured == 1


def test_a_graph_leaves_the_state_where_it_is(vae: WanVAE, latents: Tensor) -> None:
    """A film of steady latent frames has one state, in the same memory, so that a second one takes none."""
    stream, places = DecodeStream(GraphedDecoder(vae, Recorder())), list[list[int]]()
    for frame in latents.split(1, dim=2):
        stream.feed(frame)
        places.append([x.data_ptr() for x in stream.state])
    assert all(place == places[0] for place in places)


def test_a_frame_that_cannot_be_recorded_runs_as_it_is(vae: WanVAE, latents: Tensor) -> None:
    """The film is whole, and no second attempt is made."""
    attempts = list[None]()

    def capture(_: Callable[[], None]) -> Callable[[], None]:
        attempts.append(None)
        raise RuntimeError("operation not permitted when stream is capturing")

    assert torch.equal(
        decoded(DecodeStream(GraphedDecoder(vae, capture)), latents), decoded(DecodeStream(vae), latents)
    )
    assert len(attempts) == 1
