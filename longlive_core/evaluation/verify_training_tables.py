"""Verification of the recorded tables of training: noise levels, random draws, buckets, optimiser and halo windows."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import torch
from torch import Tensor, nn

from ..sampling.unipc import unipc
from ..training.error_recycling import ErrorBuffer, ErrorRecyclingSettings
from ..training.optim import WeightAverage
from ..training.schedule import TimestepTable, block_indices, clip_indices, dmd_timesteps
from ..training.stage import OptimiserSettings
from ..vae.halo import halo_window
from .recorded import RecordedRun
from .result import Result, compared

# Largest error of a number, relative to the largest number of its table.
TABLE_TOLERANCE = 1e-6
# How the tables were recorded, see their description.
SAMPLE_SEED, SAMPLE_BLOCK_FRAMES = 1234, 2
OPTIMISER, AVERAGE_DECAY = OptimiserSettings(lr=0.01), 0.99


def verify_tables(recorded: RecordedRun) -> Result:
    """Compares every table of a file: integers exactly, other numbers within a tolerance."""
    faults: list[str] = []
    worst, known, unknown = 0.0, 0, list[str]()
    for name, expected in recorded.tensors.items():
        ours = _table(recorded, name, expected)
        if ours is None:
            unknown.append(name)
            continue
        known += 1
        error = _error(ours, expected)
        worst = max(worst, error)
        if not error <= (TABLE_TOLERANCE if expected.is_floating_point() else 0):
            faults.append(f"{name} differs by {error:.1e}")
    note = "; ".join(faults) or f"{known} tables agree"
    if unknown:
        note += f"; this version does not know {', '.join(unknown)}"
    return compared(recorded, known > 0 and not faults, worst, None, None, TABLE_TOLERANCE, note)


def _error(ours: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest number; infinite for another shape and for NaN."""
    if ours.shape != expected.shape:
        return float("inf")
    difference = (ours.double() - expected.double()).abs().max()
    error = float(difference / expected.double().abs().max().clamp(min=1e-30))
    return error if error == error else float("inf")


def _table(recorded: RecordedRun, name: str, expected: Tensor) -> Tensor | None:
    """Our table of that name, or None if there is no such table here. expected: for its shape and its inputs."""
    if name in _FIXED:
        return _FIXED[name](TimestepTable.shifted())
    if name.startswith("sample."):
        return _sampled(name.removeprefix("sample."), expected)
    if found := re.fullmatch(r"rollout\.(timesteps|sigmas|x0_sigma)\.(\d+)", name):
        return _rollout(found[1], int(found[2]))
    if found := re.fullmatch(r"er\.bucket_read\.shards(\d+)", name):
        return _buckets_read(int(found[1]))
    if name == "er.trace":
        return _trace(recorded, expected)
    if name.startswith("opt."):
        return _optimised(recorded).get(name.removeprefix("opt."))
    return _halo(expected) if name == "halo" else None


_EVERY = torch.arange(1000)
_FIXED: dict[str, Callable[[TimestepTable], Tensor]] = {
    "table.sigmas": lambda table: table.sigmas,
    "table.timesteps": lambda table: table.timesteps,
    "table.weight": lambda table: table.weights,
    "ar.weight_of_index": lambda table: table.levels(_EVERY).weights,
    "ar.timestep_bf16_of_index": lambda table: table.levels(_EVERY, bf16=True).timesteps,
    "ar.sigma_of_index_bf16": lambda table: table.levels(_EVERY, bf16=True).sigmas,
    "ar.weight_of_index_bf16": lambda table: table.levels(_EVERY, bf16=True).weights,
    "dmd.t_of_draw": lambda _: dmd_timesteps(_EVERY),
    "dmd.sigma_of_draw": lambda table: table.at(dmd_timesteps(_EVERY)).sigmas,
}


def _sampled(kind: str, expected: Tensor) -> Tensor | None:
    """Timestep indices drawn from the recorded seed."""
    films, frames = expected.shape
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    if kind == "uniform":
        return clip_indices(films, frames, generator=generator)
    if kind not in ("per_block", "independent_first_frame"):
        return None
    single = kind == "independent_first_frame"
    return block_indices(films, frames, SAMPLE_BLOCK_FRAMES, single_first_frame=single, generator=generator)


def _rollout(kind: str, steps: int) -> Tensor:
    """Timesteps and noise levels of the sampler, or the noise level of the table that is nearest to each timestep."""
    schedule = unipc(steps)
    timesteps = torch.tensor(schedule.timesteps, dtype=torch.float32)
    if kind == "timesteps":
        return timesteps
    return torch.tensor(schedule.sigmas) if kind == "sigmas" else TimestepTable.shifted().at(timesteps).sigmas


def _buckets_read(ranks: int) -> Tensor:
    """The bucket that each rank reads for each bucket, `[ranks, buckets]`."""
    settings = ErrorRecyclingSettings()
    buffers = [ErrorBuffer(settings, rank, ranks) for rank in range(ranks)]
    return torch.tensor([[buffer.bucket_read(b) for b in range(settings.buckets)] for buffer in buffers])


def _trace(recorded: RecordedRun, expected: Tensor) -> Tensor:
    """Replays a trace of a buffer of numbers: rows of (operation, timestep index, value).

    Operation 0 stores the value; 1 reads at the index, 2 reads anywhere, and both put what they read as the value.
    """
    described = str(recorded.metadata.get("meta", {}).get("er_trace", ""))

    def number(pattern: str, default: str) -> str:
        found = re.search(pattern, described)
        return found[1] if found else default

    settings = ErrorRecyclingSettings(
        buckets=int(number(r"(\d+) buckets", "50")),
        entries=int(number(r"(\d+) entries", "3")),
        modulation=float(number(r"modulate (\d*\.\d+)", "0.3")),
    )
    buffer, rng = ErrorBuffer(settings), Random(int(number(r"seed\((\d+)\)", "42")))
    values: list[float] = []
    for operation, index, value in expected.tolist():
        if operation == 0:
            buffer.add(int(index), torch.tensor(value), rng)
            values.append(value)
            continue
        error = buffer.sample(int(index), rng) if operation == 1 else buffer.sample_any(rng)
        values.append(float("nan") if error is None else float(error))
    return torch.cat((expected[:, :2], torch.tensor(values, dtype=expected.dtype)[:, None]), dim=1)


def _optimised(recorded: RecordedRun) -> dict[str, Tensor]:
    """Parameters and their moving average after each of the recorded gradients."""
    start, gradients = recorded.tensors["opt.p0"], recorded.tensors["opt.grads"]
    parameter = nn.Parameter(start.clone())
    module = nn.ParameterDict({"p": parameter})
    average = WeightAverage(module, AVERAGE_DECAY)
    settings = OPTIMISER
    optimiser = torch.optim.AdamW(
        [parameter], lr=settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
    )
    parameters: list[Tensor] = []
    averages: list[Tensor] = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        nn.utils.clip_grad_norm_([parameter], settings.max_norm)
        optimiser.step()
        average.update(module)
        parameters.append(parameter.detach().clone())
        averages.append(average.weights["p"].clone())
    inputs = {"p0": start, "grads": gradients}
    return {**inputs, "params": torch.stack(parameters), "ema": torch.stack(averages)}


def _halo(expected: Tensor) -> Tensor:
    """The halo windows of the first four columns: latent frames, ranks, halo and rank."""
    rows: list[tuple[int, ...]] = []
    for latents, ranks, halo, rank, *_ in expected.tolist():
        window = halo_window(latents, ranks, rank, halo)
        (first, end), (start, stop) = window.keep, window.video
        rows.append((latents, ranks, halo, rank, first, end, window.start, start, stop, stop - start, window.drop))
    return torch.tensor(rows, dtype=expected.dtype)
