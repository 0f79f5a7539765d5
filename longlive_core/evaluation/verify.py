"""Verify agreement with recorded runs of the reference, one result per file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..training.schedule import TimestepTable, clean_from_flow
from ..training.teacher_forcing import plain_flow, teacher_forced_flow
from ..vae import State, VAEConfig, WanVAE
from .recorded import Recorded, relative_error
from .replay import DTYPES, load_model, run_case
from .vectors import differing_vectors

Verdict = Literal["ok", "failed", "skipped"]

TOLERANCE = 5e-6
# Name prefixes of the encoder's weights in Wan's VAE.
_ENCODER = ("encoder.", "conv1.")
# Least share of equal bytes in the KV cache. CPU kernels differ in their rounding of bf16 products: with the
# least capable ones a correct run has 97.7 %, and 91.1 % with W4A4; with a wrong block-scale rule 83.5 % and 65.4 %.
CACHE_EQUAL, CACHE_EQUAL_W4A4 = 0.95, 0.85


@dataclass(frozen=True, slots=True)
class Result:
    """Verdict on one file. Errors are relative L2; a figure is None if the kind of run does not have it.

    output_error: of the film's latents; of decoding for a VAE. call_error: of the worst model call in float32, the mean
    over all calls in replay, of encoding for a VAE. attended: whether every call attended to the recorded frames.
    tolerance: limit of the deciding figure. note: what was compared, or why the file failed or was skipped.
    """

    name: str
    kind: str
    verdict: Verdict
    output_error: float | None = None
    call_error: float | None = None
    attended: bool | None = None
    tolerance: float | None = None
    note: str = ""


def verify_file(path: Path) -> Result:
    """Repeat a recorded run and compare. A file that cannot be read or repeated fails, with the reason as its note."""
    kind = "unreadable"
    try:
        case = Recorded.load(path)
        kind = case.kind
        if kind not in _KINDS:
            return Result(path.name, kind, "skipped", note=f"kind '{kind}' is not known to this version")
        with torch.no_grad():
            return _KINDS[kind](case)
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        return Result(path.name, kind, "failed", note=str(error))
    except KeyError as error:
        return Result(path.name, kind, "failed", note=f"{error} is missing in the file")


def _generate(case: Recorded) -> Result:
    dtype = case.facts["run"]["dtype"]
    if dtype not in DTYPES:
        return Result(case.path.name, case.kind, "skipped", note=f"needs dtype {dtype}")
    return _exact(case) if dtype == "float32" else _replayed(case)


def _exact(case: Recorded) -> Result:
    """Compare a float32 run without replay: recorded calls, the film and the attended frames of all calls."""
    run, limit = run_case(case, replay=False), case.number("tolerance", TOLERANCE)
    compared = len(run.call_errors)
    if not compared:
        raise ValueError("no model call is recorded in the file")
    worst = max(run.call_errors)
    note = "" if compared == run.calls else f"thinned: flow of {compared} of {run.calls} calls compared"
    attended = [set(frames) for frames in run.attended] == [set(frames) for frames in case.facts["attended"]]
    good = max(run.output_error, worst) <= limit and attended
    return _result(case, good, run.output_error, worst, attended, limit, note)


def _replayed(case: Recorded) -> Result:
    """Compare a run in low precision call by call in replay, and its film without replay within a wide limit."""
    replayed, output = run_case(case, replay=True), run_case(case, replay=False).output_error
    calls, cache = replayed.call_errors, replayed.cache_equal
    limit, loose = case.number("replay_tolerance", 0.006), case.number("tolerance", 0.02)
    mean = sum(calls) / len(calls)
    note = f"mean over {len(calls)} replayed calls; free-running output within {loose:g}"
    note += "" if cache is None else f"; {100 * cache:.2f} % of the cached codes equal"
    least = CACHE_EQUAL_W4A4 if case.facts["run"].get("weight_format") == "fouroversix" else CACHE_EQUAL
    good = mean <= limit and output <= loose and (cache is None or cache >= least)
    return _result(case, good, output, mean, None, limit, note)


def _teacher_forcing(case: Recorded) -> Result:
    """Compare flow and clean prediction of the teacher-forced and of the plain block-causal pass."""
    got = case.tensors
    model, frames = load_model(case), case.facts["run"]["block_frames"]
    clean, noisy, t = got["clean"].transpose(1, 2), got["noisy"].transpose(1, 2), got["timestep"]
    length = noisy.shape[2]
    positions = torch.arange(length, dtype=torch.float64) + got["rope_offset"].double()
    prompts = torch.arange(length // frames).expand(noisy.shape[0], -1)
    table = TimestepTable.shifted()
    sigma = table.sigmas[table.index(t)][:, :, None, None, None]
    forced = teacher_forced_flow(
        model, clean, noisy.unsqueeze(1), t.unsqueeze(1), got["prompt_embeds"], prompts, positions, frames
    )
    plain = plain_flow(model, noisy, t, got["prompt_embeds"], prompts, positions, frames)
    flows = {"tf": forced.squeeze(1).transpose(1, 2), "plain": plain.transpose(1, 2)}
    call = max(relative_error(flow, got[f"{name}.flow"]) for name, flow in flows.items())
    output = max(
        relative_error(clean_from_flow(got["noisy"], flow, sigma), got[f"{name}.x0"]) for name, flow in flows.items()
    )
    tables = max(
        relative_error(table.sigmas, got["sigmas"]),
        relative_error(table.timesteps, got["timesteps"]),
        relative_error(table.weights[table.index(t)].flatten(), got["weight"].flatten()),
    )
    limit = case.number("tolerance", TOLERANCE)
    good = max(call, output, tables) <= limit
    return _result(case, good, output, call, None, limit, f"timestep table within {tables:.1e}")


def _vae(case: Recorded) -> Result:
    """Compare decoding and encoding with the recorded ones, and streaming in pieces with one piece bit for bit.

    A thinned file may omit the encoder and the frames of `decoded` that its fact `decoded_frames` does not list.
    """
    vae = _load_vae(case)
    latent, expected = case.tensors["latent"], case.tensors["decoded"]
    whole = vae.decode(latent)
    frames: list[int] = case.facts.get("decoded_frames", list(range(whole.shape[2])))
    decoding = max(relative_error(video[:, :, frames], expected) for video in (whole, vae.reconstruct(latent)))
    same = all(torch.equal(whole, _in_pieces(vae.decode_chunk, latent, size)) for size in (1, 2, 3))
    encoding = None
    note = f"thinned: decoding only, {len(frames)} of {whole.shape[2]} frames compared"
    if "encoded" in case.tensors:
        video = case.tensors["video"]
        mean = vae.encode(video)
        encoding = max(relative_error(latents, case.tensors["encoded"]) for latents in (mean, vae.moments(video)[0]))
        same = same and all(torch.equal(mean, _in_pieces(vae.encode_chunk, video, size)) for size in (4, 8))
        note = "errors of decoding and of encoding"
    limit = case.number("tolerance", TOLERANCE)
    note += f"; whole and in pieces {'bit-identical' if same else 'DIFFER'}"
    return _result(case, same and max(decoding, encoding or 0) <= limit, decoding, encoding, None, limit, note)


def _in_pieces(run: Callable[[Tensor, State | None], tuple[Tensor, State]], clip: Tensor, size: int) -> Tensor:
    """Run a streaming pass over a clip `[B, C, F, H, W]`: one frame, then `size` frames at a time."""
    state, pieces = None, list[Tensor]()
    for part in (clip[:, :, :1], *clip[:, :, 1:].split(size, dim=2)):
        piece, state = run(part, state)
        pieces.append(piece)
    return torch.cat(pieces, dim=2)


def _load_vae(case: Recorded) -> WanVAE:
    """Load the run's VAE, with mean 0 and standard deviation 1 of its latents."""
    facts = dict(case.facts["model"])
    channels = facts.pop("z_dim")
    facts |= {"latent_channels": channels, "mean": [0.0] * channels, "std": [1.0] * channels}
    vae = WanVAE(VAEConfig.from_dict(facts))
    weights = {
        name.removeprefix("weights."): value for name, value in case.tensors.items() if name.startswith("weights.")
    }
    if "encoded" not in case.tensors:  # the file has no encoder weights; the random ones are never used
        weights |= {name: value for name, value in vae.state_dict().items() if name.startswith(_ENCODER)}
    vae.load_state_dict(weights)
    return vae.requires_grad_(False).eval()


def _nvfp4(case: Recorded) -> Result:
    """Compare codes, scales in both layouts, amax and dequantised values of every rule bit for bit."""
    vectors = sum(name.endswith(".values") for name in case.tensors)
    faults = "; ".join(differing_vectors(case))
    return _result(case, vectors > 0 and not faults, None, None, None, 0.0, faults or f"{vectors} vectors bit-exact")


def _weights(case: Recorded) -> Result:
    return Result(case.path.name, case.kind, "skipped", note="weights only, read by the cases that name it")


def _result(
    case: Recorded, good: bool, output: float | None, call: float | None, attended: bool | None, limit: float, note: str
) -> Result:
    return Result(case.path.name, case.kind, "ok" if good else "failed", output, call, attended, limit, note)


_KINDS: dict[str, Callable[[Recorded], Result]] = {
    "generate": _generate,
    "teacher_forcing": _teacher_forcing,
    "vae": _vae,
    "nvfp4": _nvfp4,
    "weights": _weights,
}
