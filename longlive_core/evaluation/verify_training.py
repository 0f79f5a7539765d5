"""Verification of recorded training steps of the reference: inputs, flow, loss, gradients and stored errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from ..model import CausalWan, WanConfig
from ..training.ar import ARStep, ar_step, step_errors
from ..training.ar_inputs import ARBatch, ARDraws, ARInputs, ar_inputs
from ..training.ar_settings import ARSettings
from ..training.error_recycling import ErrorBuffers, ErrorRecyclingSettings
from ..training.schedule import TimestepTable
from ..training.segments import attention_mask
from .recorded import RecordedRun, relative_error
from .result import TOLERANCE, Result, compared, skipped

LOSS_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 1e-5
# The files do not say how many heads their model has, and shapes do not show it.
RECORDED_HEADS = 4


@dataclass(slots=True)
class Comparison:
    """Errors of the tensors of one file by name, the largest share of a tolerance, and the tensors that differ."""

    errors: dict[str, float] = field(default_factory=dict[str, float])
    share: float = 0.0
    faults: list[str] = field(default_factory=list[str])

    def add(self, name: str, value: Tensor, expected: Tensor, tolerance: float) -> None:
        """Compares a tensor by its relative error, or by its norm where all of `expected` is 0."""
        if value.shape == expected.shape and not expected.any():
            error = float(value.double().norm())
        else:
            error = relative_error(value, expected)
        self.errors[name] = error
        self.share = max(self.share, error / tolerance)
        if not error <= tolerance:
            self.faults.append(f"{name} differs by {error:.1e}, and {tolerance:.0e} is allowed")

    def add_exact(self, name: str, value: Tensor, expected: Tensor) -> None:
        """Compares a tensor of integers element by element."""
        same = value.shape == expected.shape and torch.equal(value.long(), expected.long())
        self.errors[name] = 0.0 if same else float("inf")
        if not same:
            self.faults.append(f"{name} differs")

    def add_bits(self, name: str, value: Tensor, expected: Tensor) -> None:
        """Compares a tensor to the bit, and says how many numbers differ; −0 is 0."""
        self.errors[name] = 0.0 if value.shape == expected.shape and torch.equal(value, expected) else float("inf")
        if value.shape != expected.shape:
            self.faults.append(f"{name}: {list(value.shape)} instead of {list(expected.shape)}")
        elif self.errors[name]:
            self.faults.append(f"{name}: {int((value != expected).sum())} of {expected.numel()} differ")

    def add_steps(self, name: str, value: Tensor, expected: Tensor, terms: Tensor, sum_error: float) -> None:
        """Compares bf16 results of float32 sums: they may differ by a step of bf16, and by rounding in the sums.

        terms: the sum of the magnitudes of the terms of each number. sum_error: what may change, relative to it.
        """
        self.errors[name] = relative_error(value, expected)
        if value.shape != expected.shape:
            self.faults.append(f"{name}: {list(value.shape)} instead of {list(expected.shape)}")
            return
        largest = torch.maximum(value.float().abs(), expected.float().abs())
        step = torch.frexp(largest)[1].sub(8).float().exp2()
        allowed = torch.maximum(step, sum_error * terms)
        # A NaN is within no limit.
        outside = int((~((value.float() - expected.float()).abs() <= allowed)).sum())
        if outside:
            self.faults.append(f"{name}: {outside} of {expected.numel()} differ by more than a step of bf16")

    def worst(self, prefix: str) -> tuple[str, float]:
        """The name without `prefix` and the error of the worst of the tensors whose names begin with `prefix`."""
        found = {name: error for name, error in self.errors.items() if name.startswith(prefix)}
        name = max(found, key=lambda name: found[name])
        return name.removeprefix(prefix), found[name]

    def result(self, recorded: RecordedRun, note: str) -> Result:
        """The result for a file: errors of the predicted clean latents and of the flow."""
        output, call = self.errors.get("x0"), self.errors.get("flow")
        note = "; ".join((*self.faults, note)) if self.faults else note
        return compared(recorded, not self.faults, output, call, None, TOLERANCE, note)


def load_training_model(recorded: RecordedRun) -> CausalWan:
    """The model of a recorded training step, in float32, with parameters that require gradients."""
    weights, text_len = recorded.weights(), recorded.tensors["prompt_embeds"].shape[1]
    if "model" in recorded.metadata:
        config = WanConfig.from_mapping(recorded.metadata["model"])
    else:
        config = WanConfig.from_state_dict(weights, num_heads=RECORDED_HEADS, text_len=text_len)
    model = CausalWan(config, device="meta")
    model.load_state_dict(weights, assign=True)
    return model.float().requires_grad_(True).eval()


def verify_ar_step(recorded: RecordedRun) -> Result:
    """Compares one step of autoregressive training, with or without error recycling and start image."""
    run = recorded.metadata["run"]
    if run["dtype"] != "float32":
        return skipped(recorded, f"dtype {run['dtype']} is not supported; the supported one is float32")
    model, batch, draws = load_training_model(recorded), recorded_batch(recorded), recorded_draws(recorded)
    settings = ARSettings(block_frames=run["block_frames"], shift=run.get("shift", 5.0))
    table = TimestepTable.shifted(settings.shift)
    buffers, rng = _buffers(recorded), Random(run.get("python_seed"))
    with torch.enable_grad():
        inputs = ar_inputs(batch, draws, settings, table, buffers, rng)
        step = ar_step(model, batch, inputs, settings)
        step.loss.backward()
    comparison = Comparison()
    _compare_inputs(comparison, recorded, batch, inputs)
    _compare_step(comparison, recorded, step)
    _compare_gradients(comparison, recorded, model)
    stored = 0
    if buffers is not None:
        if buffers.should_store(inputs.clean_step, rng):
            buffers.store(step_errors(batch, draws, step, settings, table), rng)
        stored = _compare_stored(comparison, recorded, buffers)
    note = _summary(comparison)
    if buffers is not None:
        note += f"; injected: {', '.join(inputs.injections) or 'nothing'}; compared {stored} stored errors"
    return comparison.result(recorded, note)


def verify_balanced_sp(recorded: RecordedRun) -> Result:
    """Compares a step of teacher forcing that the reference split among ranks, computed here on one.

    The loss of each rank and the gradient that it holds follow from those of the whole step, so that they are compared,
    too: a rank's gradient is what its own tokens contribute to the gradient of the sum of all ranks' losses.
    """
    run, tensors = recorded.metadata["run"], recorded.tensors
    if run["dtype"] != "float32":
        return skipped(recorded, f"dtype {run['dtype']} is not supported; the supported one is float32")
    model, batch, draws = load_training_model(recorded), recorded_batch(recorded), recorded_draws(recorded)
    settings = ARSettings(block_frames=run["block_frames"], shift=run.get("shift", 5.0))
    table = TimestepTable.shifted(settings.shift)
    local = [name for name in tensors if name.startswith("local_grad.")]
    calls = {name: _LinearCalls() for name in {_local_parameter(name)[2] for name in local}}
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    with torch.enable_grad():
        inputs = ar_inputs(batch, draws, settings, table)
        handles = [
            linears[layer].register_forward_hook(calls[name])
            for name in calls
            if (layer := name.rpartition(".")[0]) in linears
        ]
        step = ar_step(model, batch, inputs, settings)
        step.loss.backward()
        for handle in handles:
            handle.remove()
    comparison = Comparison()
    _compare_inputs(comparison, recorded, batch, inputs)
    _compare_step(comparison, recorded, step)
    _compare_gradients(comparison, recorded, model)
    frames = batch.clean.shape[2]
    for name, ranks in _numbered(recorded, "loss.sp"):
        losses = torch.stack([part.mean() for part in step.frame_loss.detach().chunk(ranks, dim=1)])
        comparison.add(name, losses, tensors[name].flatten(), LOSS_TOLERANCE)
    for name, ranks in _numbered(recorded, "mask.sp"):
        tokens = tensors[name].shape[0] // (2 * frames)
        mask = attention_mask(frames, settings.block_frames, tokens, ranks)
        comparison.add_exact(name, mask, tensors[name])
    unknown = 0
    for name in local:
        ranks, rank, parameter = _local_parameter(name)
        if not calls[parameter].inputs:
            unknown += 1
            continue
        gradient = calls[parameter].gradient(parameter, rank, ranks, frames, settings.block_frames)
        comparison.add(name, ranks * gradient, tensors[name], GRADIENT_TOLERANCE)
    note = _summary(comparison)
    if unknown:
        note += f"; {unknown} gradients of single ranks are not of linear layers, and were not compared"
    return comparison.result(recorded, note)


@dataclass(slots=True)
class _LinearCalls:
    """Forward hook of a linear layer: the inputs of its calls and the gradients of their outputs."""

    inputs: list[Tensor] = field(default_factory=list[Tensor])
    gradients: list[Tensor] = field(default_factory=list[Tensor])

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        del module
        self.inputs.append(args[0].detach())
        output.register_hook(self.gradients.append)

    def gradient(self, parameter: str, rank: int, ranks: int, frames: int, block_frames: int) -> Tensor:
        """What the tokens or prompts of one rank contribute to the gradient of the weight or bias `parameter`."""
        (x,), (y,) = self.inputs, self.gradients
        if "cross_attn.k." in parameter or "cross_attn.v." in parameter or parameter.startswith("text_embedding."):
            blocks = frames // block_frames
            held = (torch.arange(len(x)) % blocks) // (blocks // ranks) == rank
            x, y = x[held], y[held]
        else:
            # Clean frames without those of the last block, which no block attends to, then the noisy frames.
            order = torch.cat((torch.arange(frames - block_frames), torch.arange(frames)))
            held = (order // (frames // ranks) == rank).repeat_interleave(x.shape[1] // len(order))
            x, y = x[:, held], y[:, held]
        x, y = x.flatten(0, -2), y.flatten(0, -2)
        return y.T @ x if parameter.endswith(".weight") else y.sum(0)


def recorded_batch(recorded: RecordedRun) -> ARBatch:
    """The films of a recorded step. Recorded tensors are `[B, F, C, h, w]`, with one prompt for each film and block."""
    run, tensors = recorded.metadata["run"], recorded.tensors
    clean, text = tensors["clean"].transpose(1, 2), tensors["prompt_embeds"]
    image = bool(run.get("i2v", "initial_latent" in tensors))
    if image and "initial_latent" in tensors:
        start = tensors["initial_latent"].transpose(1, 2)
        if start.shape[2] != 1:
            raise ValueError(f"the start image has {start.shape[2]} latent frames; one is supported")
        clean = torch.cat((start.to(clean), clean[:, :, 1:]), dim=2)
    films, frames = len(clean), clean.shape[2]
    prompts = torch.arange(films * (frames // run["block_frames"])).reshape(films, -1)
    positions = torch.arange(frames, dtype=torch.float64)
    return ARBatch(clean, text, prompts, positions, image=image, mask=tensors.get("loss_mask"))


def recorded_draws(recorded: RecordedRun) -> ARDraws:
    return ARDraws(recorded.tensors["index"], recorded.tensors["noise"].transpose(1, 2))


def _buffers(recorded: RecordedRun) -> ErrorBuffers | None:
    """The buffers before a recorded step, or None if it has no error recycling."""
    run: dict[str, Any] = recorded.metadata["run"]
    if not run.get("error_recycling"):
        return None
    probability = float(run["inject_probabilities"])
    settings = ErrorRecyclingSettings(
        clean=0.0, noise=probability, latent=probability, context=probability, modulation=float(run["modulate"])
    )
    buffers = ErrorBuffers(settings)
    state: dict[str, dict[str, Tensor]] = {"latent": {}, "noise": {}}
    for name, error in recorded.tensors.items():
        if name.startswith("buffer."):
            _, kind, bucket, *number = name.split(".")
            state[kind][f"{bucket}.{number[0] if number else 0}"] = error.transpose(0, 1)
    buffers.load_state_dict(state)
    return buffers


def _compare_inputs(comparison: Comparison, recorded: RecordedRun, batch: ARBatch, inputs: ARInputs) -> None:
    films = {"noisy": inputs.noisy, "context": inputs.context, "target": inputs.target}
    # Of a given first frame the model sees neither noise nor errors, whatever was drawn for it.
    first = 1 if batch.image else 0
    drawn = {
        "noise_used": inputs.noise,
        "latent_used": inputs.latents,
        "context_delta": inputs.context - batch.clean,
    }
    for name, value in films.items():
        if name in recorded.tensors:
            comparison.add(name, value.transpose(1, 2), recorded.tensors[name], TOLERANCE)
    for name, value in drawn.items():
        if name in recorded.tensors:
            expected = recorded.tensors[name][:, first:]
            comparison.add(name, value.transpose(1, 2)[:, first:], expected, TOLERANCE)
    for name, value in {"timestep": inputs.levels.timesteps, "weight": inputs.levels.weights}.items():
        if name in recorded.tensors:
            expected = recorded.tensors[name]
            comparison.add(name, value.reshape(expected.shape), expected, TOLERANCE)


def _compare_step(comparison: Comparison, recorded: RecordedRun, step: ARStep) -> None:
    tensors = recorded.tensors
    comparison.add("flow", step.flow.detach().transpose(1, 2), tensors["flow"], TOLERANCE)
    comparison.add("x0", step.predicted.transpose(1, 2), tensors["x0"], TOLERANCE)
    comparison.add("loss", step.loss.detach().reshape(1), tensors["loss"].reshape(1), LOSS_TOLERANCE)
    if "frame_loss" in tensors:
        mask = torch.ones_like(tensors["frame_loss"]) if step.inputs.mask is None else step.inputs.mask
        comparison.add("frame_loss", step.frame_loss.detach() * mask, tensors["frame_loss"] * mask, TOLERANCE)


def _compare_gradients(comparison: Comparison, recorded: RecordedRun, model: CausalWan) -> None:
    parameters = dict(model.named_parameters())
    for name, expected in recorded.tensors.items():
        if name.startswith("grad."):
            gradient = parameters[name.removeprefix("grad.")].grad
            comparison.add(
                name, torch.zeros_like(expected) if gradient is None else gradient, expected, GRADIENT_TOLERANCE
            )


def _compare_stored(comparison: Comparison, recorded: RecordedRun, buffers: ErrorBuffers) -> int:
    """Compares the errors that a step stored, and returns their number."""
    names = [name for name in recorded.tensors if name.startswith("stored.")]
    for name in names:
        _, kind, bucket, number = name.split(".")
        errors = (buffers.latent if kind == "latent" else buffers.noise).errors(int(bucket))
        value = errors[int(number)] if int(number) < len(errors) else torch.zeros(0)
        comparison.add(name, value.transpose(0, 1) if value.ndim > 1 else value, recorded.tensors[name], TOLERANCE)
    before = sum(name.startswith("buffer.") for name in recorded.tensors)
    if names and (new := len(buffers.latent) + len(buffers.noise) - before) != len(names):
        comparison.faults.append(f"{new} errors were stored, and {len(names)} are recorded")
    return len(names)


def _summary(comparison: Comparison) -> str:
    gradients = [name for name in comparison.errors if name.startswith("grad.")]
    note = f"loss within {comparison.errors['loss']:.1e}"
    if gradients:
        name, error = comparison.worst("grad.")
        note += f"; worst of {len(gradients)} gradients {error:.1e} ({name})"
    return f"{note}; {len(comparison.errors)} tensors, at most {100 * comparison.share:.0f} % of a tolerance"


def _numbered(recorded: RecordedRun, prefix: str) -> Iterator[tuple[str, int]]:
    """The tensors whose names are `prefix` and a number, with that number."""
    for name in recorded.tensors:
        if name.startswith(prefix) and name.removeprefix(prefix).isdigit():
            yield name, int(name.removeprefix(prefix))


def _local_parameter(name: str) -> tuple[int, int, str]:
    """Number of ranks, rank and parameter of "local_grad.sp2.rank0.blocks.0.self_attn.q.weight"."""
    _, ranks, rank, parameter = name.split(".", 3)
    return int(ranks.removeprefix("sp")), int(rank.removeprefix("rank")), parameter
