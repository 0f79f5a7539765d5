"""Verification of this implementation against recorded runs of the reference: one result for each file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..training.schedule import TimestepTable, clean_from_flow
from ..training.teacher_forcing import plain_flow, teacher_forced_flow
from ..vae import State, VAEConfig, WanVAE
from .recorded import FORMAT, TRAINING_FORMAT, RecordedRun, relative_error
from .replay import DTYPES, load_model, regenerate
from .result import TOLERANCE, Result, compared, skipped
from .vectors import vector_differences
from .verify_dmd import verify_dmd
from .verify_nvfp4_training import verify_nvfp4_linear
from .verify_training import verify_ar_step, verify_balanced_sp
from .verify_training_tables import verify_tables

# Prefixes of the encoder's tensors in Wan's VAE.
_ENCODER = ("encoder.", "conv1.")
# Least share of equal bytes in an NVFP4 KV cache. Kernels of other CPUs round some bf16 products differently. With the
# simplest kernels a correct run has 97.7 %, or 91.1 % in W4A4; a wrong rule for block scales gives 83.5 % and 65.4 %.
MIN_EQUAL_CACHE, MIN_EQUAL_CACHE_W4A4 = 0.95, 0.85


def verify_file(path: Path) -> Result:
    """Verifies one recorded run. A file that cannot be read or replayed fails, with the reason in `note`."""
    kind = "unreadable"
    try:
        recorded = RecordedRun.load(path)
        kind = recorded.kind
        kinds = _KINDS.get(recorded.format, {"weights": _weights})
        if kind not in kinds:
            return skipped(recorded, f"this version does not know the kind '{kind}'")
        with torch.no_grad():
            return kinds[kind](recorded)
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        return Result(path.name, kind, "failed", note=str(error))
    except KeyError as error:
        return Result(path.name, kind, "failed", note=f"the file has no {error}")


def _generate(recorded: RecordedRun) -> Result:
    dtype = recorded.metadata["run"]["dtype"]
    if dtype not in DTYPES:
        return skipped(recorded, f"dtype {dtype} is not supported; the supported ones are {', '.join(DTYPES)}")
    return _exact(recorded) if dtype == "float32" else _replayed(recorded)


def _exact(recorded: RecordedRun) -> Result:
    """Generates a float32 film again, and compares the calls in the file, the film and the attended frames."""
    ours = regenerate(recorded, replay=False)
    limit = recorded.number("tolerance", TOLERANCE)
    count = len(ours.call_errors)
    if not count:
        raise ValueError("the file holds the flow of no model call")
    worst = max(ours.call_errors)
    note = "" if count == ours.calls else f"thinned file: compared the flow of {count} of {ours.calls} calls"
    attended = [set(seen) for seen in ours.attended] == [set(seen) for seen in recorded.metadata["attended"]]
    agrees = ours.output_error <= limit and worst <= limit and attended
    return compared(recorded, agrees, ours.output_error, worst, attended, limit, note)


def _replayed(recorded: RecordedRun) -> Result:
    """Compares a low-precision run call by call on recorded samples, and its film with a wide tolerance."""
    replayed = regenerate(recorded, replay=True)
    calls, cache = replayed.call_errors, replayed.equal_cache_share
    output = regenerate(recorded, replay=False).output_error
    limit, wide = recorded.number("replay_tolerance", 0.006), recorded.number("tolerance", 0.02)
    mean = sum(calls) / len(calls)
    note = f"mean over {len(calls)} replayed calls; free-running output within {wide:g}"
    if cache is not None:
        note += f"; {100 * cache:.2f} % of the cached codes equal"
    w4a4 = recorded.metadata["run"].get("weight_format") == "fouroversix"
    min_equal = MIN_EQUAL_CACHE_W4A4 if w4a4 else MIN_EQUAL_CACHE
    agrees = mean <= limit and output <= wide and (cache is None or cache >= min_equal)
    return compared(recorded, agrees, output, mean, None, limit, note)


def _teacher_forcing(recorded: RecordedRun) -> Result:
    """Compares flow and predicted clean latents of the teacher-forced pass and of the plain block-causal pass."""
    tensors = recorded.tensors
    model, frames = load_model(recorded), recorded.metadata["run"]["block_frames"]
    clean, noisy, t = tensors["clean"].transpose(1, 2), tensors["noisy"].transpose(1, 2), tensors["timestep"]
    length = noisy.shape[2]
    positions = torch.arange(length, dtype=torch.float64) + tensors["rope_offset"].double()
    prompts = torch.arange(length // frames).expand(noisy.shape[0], -1)
    table = TimestepTable.shifted()
    sigma = table.sigmas[table.index(t)][:, :, None, None, None]
    forced = teacher_forced_flow(
        model, clean, noisy.unsqueeze(1), t.unsqueeze(1), tensors["prompt_embeds"], prompts, positions, frames
    )
    plain = plain_flow(model, noisy, t, tensors["prompt_embeds"], prompts, positions, frames)
    flows = {"tf": forced.squeeze(1).transpose(1, 2), "plain": plain.transpose(1, 2)}
    call = max(relative_error(flow, tensors[f"{name}.flow"]) for name, flow in flows.items())
    output = max(
        relative_error(clean_from_flow(tensors["noisy"], flow, sigma), tensors[f"{name}.x0"])
        for name, flow in flows.items()
    )
    tables = max(
        relative_error(table.sigmas, tensors["sigmas"]),
        relative_error(table.timesteps, tensors["timesteps"]),
        relative_error(table.weights[table.index(t)].flatten(), tensors["weight"].flatten()),
    )
    limit = recorded.number("tolerance", TOLERANCE)
    agrees = max(call, output, tables) <= limit
    return compared(recorded, agrees, output, call, None, limit, f"timestep table within {tables:.1e}")


def _vae(recorded: RecordedRun) -> Result:
    """Compares decoding and encoding within the tolerance, and passes over a whole clip and over chunks to the bit.

    A thinned file may leave out the encoder, and all frames of `decoded` except those that its metadata lists under
    `decoded_frames`.
    """
    vae = _load_vae(recorded)
    latent, expected = recorded.tensors["latent"], recorded.tensors["decoded"]
    whole = vae.decode(latent)
    frames: list[int] = recorded.metadata.get("decoded_frames", list(range(whole.shape[2])))
    decoding = max(relative_error(video[:, :, frames], expected) for video in (whole, vae.reconstruct(latent)))
    same = all(torch.equal(whole, _in_chunks(vae.decode_chunk, latent, size)) for size in (1, 2, 3))
    encoding = None
    note = f"thinned file: compared decoding only, and {len(frames)} of {whole.shape[2]} frames"
    if "encoded" in recorded.tensors:
        video, expected = recorded.tensors["video"], recorded.tensors["encoded"]
        mean = vae.encode(video)
        encoding = max(relative_error(latents, expected) for latents in (mean, vae.moments(video)[0]))
        same = same and all(torch.equal(mean, _in_chunks(vae.encode_chunk, video, size)) for size in (4, 8))
        note = "errors of decoding and of encoding"
    limit = recorded.number("tolerance", TOLERANCE)
    note += f"; the whole clip and its chunks {'are bit-identical' if same else 'DIFFER'}"
    agrees = same and max(decoding, encoding or 0) <= limit
    return compared(recorded, agrees, decoding, encoding, None, limit, note)


def _in_chunks(run: Callable[[Tensor, State | None], tuple[Tensor, State]], clip: Tensor, size: int) -> Tensor:
    """Passes a clip `[B, C, T, H, W]` through the VAE in chunks: the first frame, then `size` frames at a time."""
    outputs: list[Tensor] = []
    state = None
    for chunk in (clip[:, :, :1], *clip[:, :, 1:].split(size, dim=2)):
        output, state = run(chunk, state)
        outputs.append(output)
    return torch.cat(outputs, dim=2)


def _load_vae(recorded: RecordedRun) -> WanVAE:
    """The VAE of a recorded run; its latents are not normalised."""
    metadata = dict(recorded.metadata["model"])
    channels = metadata.pop("z_dim")
    metadata |= {"latent_channels": channels, "mean": [0.0] * channels, "std": [1.0] * channels}
    vae = WanVAE(VAEConfig.from_dict(metadata))
    prefix = "weights."
    weights = {k.removeprefix(prefix): v for k, v in recorded.tensors.items() if k.startswith(prefix)}
    if "encoded" not in recorded.tensors:  # the file has no encoder; the random weights here are never used
        weights |= {name: value for name, value in vae.state_dict().items() if name.startswith(_ENCODER)}
    vae.load_state_dict(weights)
    return vae.requires_grad_(False).eval()


def _nvfp4(recorded: RecordedRun) -> Result:
    """Compares codes, scales in both layouts, amax and dequantised numbers of every rule, to the bit."""
    vectors = sum(name.endswith(".values") for name in recorded.tensors)
    differences = list(vector_differences(recorded))
    note = "; ".join(differences) or f"{vectors} vectors bit-exact"
    return compared(recorded, vectors > 0 and not differences, None, None, None, 0.0, note)


def _weights(recorded: RecordedRun) -> Result:
    return skipped(recorded, "weights only, which other files read")


_KINDS: dict[str, dict[str, Callable[[RecordedRun], Result]]] = {
    FORMAT: {
        "generate": _generate,
        "teacher_forcing": _teacher_forcing,
        "vae": _vae,
        "nvfp4": _nvfp4,
        "weights": _weights,
    },
    TRAINING_FORMAT: {
        "ar_step": verify_ar_step,
        "balanced_sp": verify_balanced_sp,
        "dmd": verify_dmd,
        "nvfp4_linear": verify_nvfp4_linear,
        "tables": verify_tables,
    },
}
