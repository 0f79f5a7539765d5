"""The host's VAEs as decoders of a film: the pixels equal those of the host's own decode, and no work is done twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from longlive.longlive_core.vram.budget import VAES

from .graphs import in_host
from .host import ROOT

pytestmark = pytest.mark.comfy

HEAD = """
import importlib.util, json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace as Some
import comfy.latent_formats
import comfy.ldm.wan.vae2_2 as wan22
import torch
from comfy.taesd.taehv import TAEHV
from torch.utils._python_dispatch import TorchDispatchMode

root = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("longlive", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["longlive"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["longlive"])
from longlive.nodes.native_vae import native_patcher
from longlive.nodes.vae import HostedVAE
from longlive.longlive_core.vae import DecodeStream
from longlive.kernels import to_uint8

FORMAT = comfy.latent_formats.Wan22()


class Convolutions(TorchDispatchMode):
    calls = frames = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op.name() in ("aten::convolution", "aten::conv2d", "aten::conv3d"):
            self.calls += 1
            self.frames += args[0].shape[0]
        return op(*args, **(kwargs or {}))


def random_weights(model):
    torch.manual_seed(0)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=(2.0 / max(1, value[0].numel())) ** 0.5 if value.ndim > 1 else 0.1)
    return model.eval().requires_grad_(False)


def hosted(model):
    return HostedVAE(loaded(model), FORMAT)


def loaded(model):
    cpu = torch.device("cpu")
    return Some(first_stage_model=model, device=cpu, vae_dtype=torch.float32, patcher=Some(model=model))


def in_pieces(vae, latents, sizes):
    state, pieces = None, []
    for piece in latents.split(sizes, dim=2):
        video, state = vae.decode_chunk(piece, state)
        pieces.append(video)
    return torch.cat(pieces, dim=2)
"""


def shown(code: str) -> Any:  # noqa: ANN401
    """What the code prints last, as JSON."""
    return json.loads(in_host(HEAD + code, ROOT).splitlines()[-1])


def test_a_tiny_decoder_in_pieces_gives_the_pixels_of_the_whole_film() -> None:
    """Its state replaces the latent frames that were decoded again; no bit differs, whatever the pieces."""
    code = """
model = random_weights(TAEHV(latent_channels=48))
latents = torch.randn(1, 48, 11, 4, 6)
whole = model.decode(latents).mul(2).sub(1)
vae = hosted(model)
same = [torch.equal(whole, in_pieces(vae, latents, sizes)) for sizes in (1, [1, 8, 2], [3, 1, 7])]
stream = DecodeStream(vae)
stream.feed(FORMAT.process_in(latents))
exact = torch.cat(stream.flush())
near = (exact.int() - to_uint8(whole).int()).abs().max().item()
print(json.dumps([list(whole.shape), same, near]))
"""
    shape, same, near = shown(code)
    assert shape == [1, 3, 41, 64, 96] and same == [True] * 3
    assert near <= 1  # the latents are normalised and back


def test_a_tiny_decoder_decodes_each_latent_frame_once() -> None:
    """Every latent frame costs the 52 convolutions of its own frames, and not those of eight earlier ones."""
    code = """
vae = hosted(random_weights(TAEHV(latent_channels=48)))
state, counts = None, []
for frame in torch.randn(1, 48, 12, 2, 2).split(1, dim=2):
    with Convolutions() as counted:
        _, state = vae.decode_chunk(frame, state)
    counts.append([counted.frames, counted.calls])
print(json.dumps(counts))
"""
    assert shown(code) == [[52, 35]] * 12


def test_our_decoder_with_the_weights_of_the_host_gives_its_frames() -> None:
    """The host's Wan 2.2 VAE, narrow and random: frames equal the host's within rounding.

    Its weights are not copied on the way.
    """
    code = """
config = {"dim": 8, "dec_dim": 8, "z_dim": 48, "dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}
model = random_weights(wan22.WanVAE(**config))
ours = native_patcher(loaded(model)).model
latents = torch.randn(1, 48, 4, 3, 2)
whole, native = model.decode(latents), in_pieces(ours, latents, [1, 2, 1])
error = ((native - whole).norm() / whole.norm()).item()
levels = (to_uint8(native).int() - to_uint8(whole).int()).abs().max().item()
shared = sum(a.data_ptr() == model.state_dict()[name].data_ptr() for name, a in ours.state_dict().items())
print(json.dumps([list(native.shape), error, levels, shared, len(ours.state_dict()), float(whole.std())]))
"""
    shape, error, levels, shared, weights, spread = shown(code)
    assert shape == [1, 3, 13, 48, 32] and shared == weights > 100
    assert error < 1e-5 and levels <= 1 and spread > 0.01


def test_a_decoder_of_the_host_has_one_state() -> None:
    """Its Wan 2.2 VAE replaces what its layers remember one by one, and a latent frame that failed is decoded again."""
    code = """
config = {"dim": 8, "dec_dim": 8, "z_dim": 48, "dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}
vae = hosted(random_weights(wan22.WanVAE(**config)))
states, latents = [], torch.randn(1, 48, 4, 3, 2)
last = vae._model.decoder.head[-1]
plain, broken, work = DecodeStream(vae), DecodeStream(vae), last.forward
for frame in latents.split(1, dim=2):
    plain.feed(frame)
    states.append(plain.state)

def fail(*arguments, **options):
    raise KeyboardInterrupt

broken.feed(latents[:, :, :2])
last.forward = fail
try:
    broken.feed(latents[:, :, 2:])
except KeyboardInterrupt:
    last.forward = work
broken.feed(latents[:, :, 2:])
same = torch.equal(torch.cat(plain.flush()), torch.cat(broken.flush()))
print(json.dumps([all(state is states[0] for state in states), same]))
"""
    assert shown(code) == [True, True]


def test_the_tiny_decoder_takes_what_is_planned() -> None:
    """To the byte, traced on the meta device: its state, and beside it, with the latents that a stream keeps."""
    code = """
from longlive.longlive_core.vram.budget import VAES
from longlive.nodes.tiny_decoder import TINY_REACH, decode_tiny
sys.path.append(str(root / "tests" / "core" / "vram"))
from live_bytes import LiveBytes

own, cells, state = VAES["tiny"], 4 * 6, None
with torch.device("meta"), torch.inference_mode():
    model = TAEHV(latent_channels=48).bfloat16()
    latent = torch.empty(1, 48, 1, 4, 6, dtype=torch.bfloat16)
    with LiveBytes() as live:
        for _ in range(3):
            state = decode_tiny(model, latent, state)[1]
kept = (TINY_REACH + 1) * latent.nbytes
weights = sum(value.nbytes for value in model.parameters())
print(json.dumps([weights == own.weights, live.now == cells * own.cache, live.peak + kept - cells * own.cache]))
"""
    weights, state, beside = shown(code)
    assert weights and state and beside == 24 * VAES["tiny"].transient
