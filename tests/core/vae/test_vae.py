"""The VAE in chunks equals the VAE of the whole film, to the bit, in the memory of one latent frame."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
import torch
from longlive.longlive_core.vae import DecodeStream, State, VAEConfig, WanVAE
from longlive.longlive_core.vae import stream as vae_stream
from longlive.longlive_core.vae.graphed_decoder import GraphedDecoder
from longlive.longlive_core.vae.layers import CausalConv3d, ConvCache, ResidualBlock
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..op_recorder import Recorder


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    torch.manual_seed(0)
    mean, std = torch.randn(48).tolist(), (0.5 + torch.rand(48)).tolist()
    return WanVAE(VAEConfig(dim=4, dec_dim=4, mean=tuple(mean), std=tuple(std))).eval().requires_grad_(False)


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(1, 48, 7, 2, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sizes", [[1, 6], [1, 2, 4], [2, 5], [7], [1] * 7])
def test_decoding_in_chunks_is_bit_identical(vae: WanVAE, latents: Tensor, sizes: list[int]) -> None:
    """Decoding in chunks of any size equals decoding the whole, to the bit."""
    state: State | None = None
    pieces: list[Tensor] = []
    for piece in latents.split(sizes, dim=2):
        video, state = vae.decode_chunk(piece, state)
        pieces.append(video)
    assert torch.equal(torch.cat(pieces, dim=2), vae.decode(latents))


@pytest.mark.parametrize("sizes", [[24], [4] * 6, [8, 16]])
def test_encoding_in_chunks_is_bit_identical(vae: WanVAE, sizes: list[int]) -> None:
    """Encoding the first frame and then chunks of any size equals encoding the whole, to the bit."""
    video = torch.rand(1, 3, 25, 32, 48, generator=torch.Generator().manual_seed(2)) * 2 - 1
    first, state = vae.encode_chunk(video[:, :, :1], None)
    pieces = [first]
    for piece in video[:, :, 1:].split(sizes, dim=2):
        z, state = vae.encode_chunk(piece, state)
        pieces.append(z)
    assert torch.equal(torch.cat(pieces, dim=2), vae.encode(video))


def test_one_latent_frame_is_one_frame_first_and_four_later(vae: WanVAE, latents: Tensor) -> None:
    """The first latent frame decodes to one video frame, and every later one to four."""
    first, state = vae.decode_chunk(latents[:, :, :1], None)
    later, _ = vae.decode_chunk(latents[:, :, 1:3], state)
    assert (first.shape[2], later.shape[2]) == (1, 8)
    assert vae.decode(latents).shape == (1, 3, 25, 32, 48)


def test_the_future_does_not_change_the_past(vae: WanVAE, latents: Tensor) -> None:
    """Decoding is causal: later latent frames do not change earlier video frames."""
    other = latents.clone()
    other[:, :, 4:] += 1
    assert torch.equal(vae.decode(latents)[:, :, :13], vae.decode(other)[:, :, :13])


def test_training_passes_equal_the_stream_within_rounding(vae: WanVAE, latents: Tensor) -> None:
    """`reconstruct` and `moments`, the passes for training, equal decoding and encoding within rounding."""
    video = vae.decode(latents)
    assert torch.allclose(vae.reconstruct(latents), video, rtol=1e-4, atol=1e-5)
    assert torch.allclose(vae.moments(video.clamp(-1, 1))[0], vae.encode(video.clamp(-1, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 1, 1), (1, 1, 1)])
def test_stacked_taps_are_a_causal_conv3d(kernel: tuple[int, int, int]) -> None:
    """The causal convolution equals a conv3d that is padded in time with zeros before the first frame."""
    torch.manual_seed(3)
    conv = CausalConv3d(5, 7, kernel)
    x = torch.randn(2, 4, 6, 8, 5)
    padded = torch.nn.functional.pad(x.permute(0, 4, 1, 2, 3), (0, 0, 0, 0, kernel[0] - 1, 0))
    expected = torch.nn.functional.conv3d(
        padded, conv.weight, conv.bias, padding=(0, kernel[1] // 2, kernel[2] // 2)
    ).permute(0, 2, 3, 4, 1)
    assert torch.allclose(conv(x, ConvCache(None)), expected, atol=1e-5)


def test_the_state_does_not_grow_and_holds_no_whole_activation(vae: WanVAE, latents: Tensor) -> None:
    """The state of the decoder does not grow, and its tensors keep no larger tensor alive."""
    _, state = vae.decode_chunk(latents[:, :, :2], None)
    _, later = vae.decode_chunk(latents[:, :, 2:], state)
    assert [tensor.shape for tensor in later] == [tensor.shape for tensor in state]
    assert all(tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size() for tensor in later)


def test_a_stream_gives_the_frames_of_the_whole_film(vae: WanVAE, latents: Tensor) -> None:
    """A decode stream gives the whole film in uint8 to the bit, and no frame twice."""
    stream = DecodeStream(vae)
    stream.feed(latents[:, :, :3])
    taken = [stream.take(), stream.take()]
    stream.feed(latents[:, :, 3:])
    frames = torch.cat([piece for piece in taken if piece is not None] + stream.flush())
    whole = vae.decode(vae.denormalise(latents))[0].permute(1, 2, 3, 0)
    expected = ((whole.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert frames.dtype == torch.uint8
    assert torch.equal(frames, expected)
    assert stream.take() is None


def test_reset_begins_a_new_film(vae: WanVAE, latents: Tensor) -> None:
    """A decode stream decodes the first latent frame to one video frame again after a reset."""
    stream = DecodeStream(vae)
    stream.feed(latents)
    first = stream.flush()[0]
    stream.feed(latents[:, :, :1])
    assert len(stream.flush()[0]) == 4
    stream.reset()
    stream.feed(latents[:, :, :1])
    assert torch.equal(stream.flush()[0], first)


def test_a_cancelled_stream_goes_on_where_it_stopped(vae: WanVAE, latents: Tensor) -> None:
    """A decode stream that was cancelled goes on with the latent frame it stopped at, to the bit."""
    calls: list[int] = []

    def cancel_once() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    stream = DecodeStream(vae, on_latent_frame=cancel_once)
    with pytest.raises(KeyboardInterrupt):
        stream.feed(latents)
    stream.feed(latents[:, :, 2:])
    frames = torch.cat(stream.flush())
    plain = DecodeStream(vae)
    plain.feed(latents)
    assert torch.equal(frames, torch.cat(plain.flush()))


@pytest.mark.parametrize("bad", [0, 3])
@pytest.mark.parametrize(("place", "graphs"), [("decoder", False), ("frames", False), ("frames", True)])
def test_a_latent_frame_that_failed_is_decoded_again(
    vae: WanVAE, latents: Tensor, bad: int, place: str, graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory in the last layer, when all others have changed the state, or after it; then a cancel there.

    The film is the same to the bit.
    """
    errors = list[BaseException]()
    stream = DecodeStream(GraphedDecoder(vae, Recorder()) if graphs else vae, free=lambda: None)
    owner, name = (vae.decoder.head, "forward") if place == "decoder" else (vae_stream, "to_uint8")
    work, pieces = getattr(owner, name), list[Tensor]()

    def breaking(*args: Any) -> Any:  # noqa: ANN401
        made = work(*args)
        if errors:
            raise errors.pop()
        return made

    monkeypatch.setattr(owner, name, breaking)
    for index, frame in enumerate(latents.split(1, dim=2)):
        if index == bad:
            errors.append(torch.OutOfMemoryError("CUDA out of memory"))
        if index == bad + 1:
            errors.append(KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                stream.feed(frame)
        stream.feed(frame)
        assert not errors
        pieces += stream.flush()
    plain = DecodeStream(vae)
    plain.feed(latents)
    assert torch.equal(torch.cat(pieces), torch.cat(plain.flush()))


def test_a_state_that_was_lost_is_that_of_the_whole_film(latents: Tensor) -> None:
    """It is made of the latent frames that pixels depend on, and no more of them are kept."""
    torch.manual_seed(0)
    vae = WanVAE(VAEConfig(dim=4, dec_dim=4, num_res_blocks=1, mean=(0.0,) * 48, std=(1.0,) * 48))
    vae.eval().requires_grad_(False)
    film = latents[:, :, :1, :1, :1].repeat(1, 1, vae.reach + 4, 1, 1) * torch.randn(vae.reach + 4).view(-1, 1, 1)
    plain, broken = DecodeStream(vae), DecodeStream(vae)
    for stream in (plain, broken):
        stream.feed(film[:, :, :-2])
        stream.flush()
    broken.state = None
    frames = []
    for stream in (plain, broken):
        stream.feed(film[:, :, -2:])
        frames.append(torch.cat(stream.flush()))
    assert torch.equal(*frames)


def test_normalising_is_undone_by_denormalising(vae: WanVAE, latents: Tensor) -> None:
    """Latents that are normalised and denormalised are as before, within rounding."""
    assert torch.allclose(vae.denormalise(vae.normalise(latents)), latents, atol=1e-6)
    assert not torch.allclose(vae.normalise(latents), latents, atol=0.1)


@pytest.mark.parametrize("shape", [(1, 3, 4, 32, 32), (1, 3, 5, 40, 32), (1, 3, 5, 32, 24)])
def test_clips_that_do_not_fit_are_refused_with_the_remedy(vae: WanVAE, shape: tuple[int, ...]) -> None:
    """A clip that does not have 1 + 4 k frames, or has a side that 16 does not divide, is refused with that rule."""
    with pytest.raises(ValueError, match=r"1 \+ 4 k.*multiples of 16"):
        vae.encode(torch.zeros(shape))


def test_a_stream_decodes_one_film(vae: WanVAE, latents: Tensor) -> None:
    """A decode stream refuses a batch of two films."""
    with pytest.raises(ValueError, match="one film"):
        DecodeStream(vae).feed(latents.repeat(2, 1, 1, 1, 1))


def test_a_decoder_of_a_checkpoint_gives_the_pixels_of_the_whole_vae(vae: WanVAE, latents: Tensor) -> None:
    """It has no encoder, shares the weights and gives the same pixels; their order in memory changes roundings only."""
    decoder = WanVAE.of_decoder(vae.state_dict())
    assert not any(name.startswith("encoder.") for name in decoder.state_dict())
    assert decoder.conv2.weight.data_ptr() == vae.conv2.weight.data_ptr()
    assert torch.equal(decoder.decode(latents), vae.decode(latents))
    decoder.to_channels_last()
    assert decoder.decoder.conv1.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not vae.decoder.conv1.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(decoder.decode(latents), vae.decode(latents), rtol=1e-4, atol=1e-5)


def test_weights_of_another_decoder_are_refused(vae: WanVAE) -> None:
    """A missing name or another shape is an error before anything is decoded."""
    weights = dict(vae.state_dict())
    del weights["decoder.conv1.bias"]
    with pytest.raises(KeyError, match=r"decoder\.conv1\.bias"):
        WanVAE.of_decoder(weights)
    with pytest.raises(RuntimeError, match="size mismatch"):
        WanVAE.of_decoder({**vae.state_dict(), "decoder.head.0.gamma": torch.ones(6, 1, 1, 1)})


class Ops(TorchDispatchMode):
    """Counts by name the ops that read or write activations, views apart."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        del types
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.numel() > 1000 and not func.is_view:
            self.counts[func.overloadpacket.__name__] += 1
        return made


@pytest.mark.parametrize(("c_in", "sums"), [(12, {"addmm_": 1}), (8, {"add_": 1})])
def test_a_shortcut_and_the_sum_are_one_op(c_in: int, sums: dict[str, int]) -> None:
    """The projection of a residual block's input adds itself to the block, and what needs none is added in place."""
    torch.manual_seed(4)
    block, x = ResidualBlock(c_in, 8).requires_grad_(False), torch.randn(1, 4, 8, 8, c_in)
    for name, value in block.named_parameters():
        if name.endswith("bias"):
            value.normal_()
    with Ops() as ops:
        y = block(x, ConvCache(None))
    added = {name: count for name, count in ops.counts.items() if "add" in name or name in ("linear", "mm")}
    assert added == sums and ops.counts["convolution"] == 2
    block.requires_grad_(True)  # training sums as it did
    torch.testing.assert_close(y, block(x, ConvCache(None)).detach(), rtol=1e-5, atol=1e-5)


def test_a_shortcut_in_bf16_rounds_the_sum_once() -> None:
    """It is at least as near to the block in float64 as a projection that is rounded before it is added."""
    torch.manual_seed(5)
    block, x = ResidualBlock(12, 8).requires_grad_(False).bfloat16(), torch.randn(1, 4, 8, 8, 12).bfloat16()
    exact, apart = deepcopy(block).double()(x.double(), ConvCache(None)), deepcopy(block).requires_grad_(True)
    fused, separate = (part(x, ConvCache(None)).detach().double() for part in (block, apart))
    assert (fused - exact).norm() <= (separate - exact).norm()
