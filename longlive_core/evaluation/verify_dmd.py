"""Verification of recorded distillation steps of the reference: rollout, scores, losses, and gradients of the LoRAs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..memory import MemoryConfig
from ..memory.prompts import PromptKV
from ..model import CausalWan, KVCache, TextKVCache
from ..model.transformer import RunLayer, call_layer
from ..parallel import ALONE, Ranks, all_sum
from ..training.clip_prompts import ClipPrompts
from ..training.dmd import (
    CRITIC,
    GENERATOR,
    Batch,
    CriticStep,
    Draws,
    GeneratorStep,
    Roles,
    ScoreSettings,
    critic_step,
    generator_step,
)
from ..training.lora import PREFIX, AdaptedModel, LoraSettings, add_adapter
from ..training.optim import Optimiser
from ..training.rollout import RolloutSettings
from ..training.schedule import TimestepTable
from ..training.stage import OptimiserSettings
from .recorded import RecordedRun
from .result import TOLERANCE, Result, compared, skipped
from .verify_training import LOSS_TOLERANCE, Comparison, load_training_model

LORA_GRADIENT_TOLERANCE = 2e-5
# The draw of timesteps; the draw after it is the noise of the scores.
_TIMESTEP_DRAW = "randint[0,1000)"


def verify_dmd(recorded: RecordedRun, ranks: Ranks = ALONE) -> Result:
    """Compares a step of the generator and one of the critic, both before any update, on the recorded draws.

    ranks: processes that share the calls, of whose gradients the mean is compared.

    The gradient of the generator's LoRA is compared with memory that passes gradients on, as the reference has it, and
    if the file has them, with those of detached memory too.
    """
    run, meta, tensors = recorded.metadata["run"], recorded.metadata["meta"], recorded.tensors
    if run["dtype"] != "float32":
        return skipped(recorded, f"dtype {run['dtype']} is not supported; the supported one is float32")
    if run["fake_guidance"]:
        return skipped(recorded, f"guidance {run['fake_guidance']:g} of the critic is not supported; only 0 is")
    model = load_training_model(recorded)
    lora = LoraSettings(int(run["lora_rank"]), float(run["lora_alpha"]))
    weights = {role: _load_adapter(model, role, lora, tensors) for role in (GENERATOR, CRITIC)}
    batch, rollout = _batch(recorded), _rollout_settings(recorded)
    # The reference says cond + scale · (cond − uncond).
    scores = ScoreSettings(guidance=1 + float(run["real_guidance"]))
    generator = _RecordedModel(model, GENERATOR, ranks=ranks)
    roles = replace(Roles.of(model, ranks), generator=generator)
    comparison = Comparison()
    two_blocks = len(batch.prompts.cuts) == 2
    hook = model.register_forward_pre_hook(_mix_prompts) if two_blocks else None
    with torch.enable_grad():
        draws = _draws(recorded, "draw.", meta["draws"], int(meta["exit_step"]))
        detached = any(name.startswith("detached_lora_grad.") for name in tensors)
        if detached:
            step = generator_step(roles, replace(rollout, straight_through=False), scores, batch, draws)
            step.loss.backward()
            _average(weights[GENERATOR], ranks)
            _compare_gradients(comparison, "detached_lora_grad.", weights[GENERATOR], tensors)
            weights[GENERATOR].zero_grad()
            generator.calls.clear()
        step = generator_step(roles, rollout, scores, batch, draws)
        _compare_calls(comparison, recorded, generator.calls)
        step.loss.backward()
        _average(weights[GENERATOR], ranks)
        _compare_generator(comparison, step, tensors)
        _compare_gradients(comparison, "lora_grad.", weights[GENERATOR], tensors)
        critic_draws = _draws(recorded, "critic.draw.", meta["critic_draws"], int(meta["critic_exit_step"]))
        critic = critic_step(roles, rollout, scores, batch, critic_draws)
        critic.loss.backward()
        _average(weights[CRITIC], ranks)
        _compare_critic(comparison, critic, tensors)
        _compare_gradients(comparison, "critic_grad.", weights[CRITIC], tensors)
    if hook is not None:
        hook.remove()
    _compare_update(comparison, recorded, weights[GENERATOR])
    note = _summary(comparison)
    if two_blocks:
        note += "; scores of two-block clips with prompts mixed as the reference mixes them"
    note = "; ".join((*comparison.faults, note))
    calls = [error for name, error in comparison.errors.items() if name.startswith("call.")]
    worst = max(calls) if calls else None
    return compared(recorded, not comparison.faults, comparison.errors["rollout"], worst, None, TOLERANCE, note)


def _average(weights: nn.Module, ranks: Ranks) -> None:
    """Replaces the gradients of a LoRA by their mean over the ranks. A missing one is missing on all of them."""
    for parameter in weights.parameters():
        if parameter.grad is not None:
            parameter.grad = all_sum(parameter.grad, ranks) / ranks.size


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of the generator: first latent frame, whether it is recorded by autograd, and its tensors."""

    start: int
    grad: bool
    x: Tensor
    t: Tensor
    flow: Tensor


@dataclass(frozen=True, slots=True)
class _RecordedModel(AdaptedModel):
    """The generator, which keeps its calls. Clean passes run the whole model, because theirs have a recorded flow."""

    calls: list[_Call] = field(default_factory=list[_Call])

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        text: TextKVCache,
        kv: KVCache,
        positions: Tensor,
        *,
        run_layer: RunLayer = call_layer,
    ) -> Tensor:
        flow = AdaptedModel.__call__(self, x, t, text, kv, positions, run_layer=run_layer)
        self.calls.append(_Call(int(positions[0]), torch.is_grad_enabled(), x.detach(), t, flow.detach()))
        return flow

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        self(x, t, text, kv, positions)


@dataclass(frozen=True, slots=True)
class _MixedPrompts:
    """Text K/V that cut the sequence [a b c d] of quarters into the halves [a c] and [b d]."""

    text: TextKVCache

    def attend(self, layer: int, q: Tensor) -> Tensor:
        """See `TextKVCache.attend`."""
        return _swap_middle(self.text.attend(layer, _swap_middle(q)))


def _swap_middle(x: Tensor) -> Tensor:
    """`[B, L, …]` with the second and the third quarter of L exchanged."""
    a, b, c, d = x.chunk(4, dim=1)
    return torch.cat((a, c, b, d), dim=1)


def _mix_prompts(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward hook that repeats a mistake of the reference in scores of two-block clips.

    Having run single blocks with a KV cache, the reference takes a sequence of twice their length for the clean and the
    noisy half of teacher forcing. It cuts each half by prompts, so that the second half of block 0 attends the prompt
    of block 1, and the first half of block 1 that of block 0.
    """
    del module
    x, t, text, *rest = args
    return (x, t, text if isinstance(text, PromptKV) else _MixedPrompts(text), *rest)


def _load_adapter(model: CausalWan, role: str, settings: LoraSettings, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Adds a role's recorded LoRA to the model and returns its weights."""
    weights, prefix = add_adapter(model, role, settings), f"{role}_lora.{PREFIX}"
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    weights.load_state_dict(state)
    return weights


def _batch(recorded: RecordedRun) -> Batch:
    """The clips of a recorded step. There is one prompt for each clip and block, clip after clip."""
    meta, tensors = recorded.metadata["meta"], recorded.tensors
    image = tensors["initial_latent"].transpose(1, 2) if meta["i2v"] else None
    cuts = tuple(bool(cut) for cut in meta["cuts"])
    rows = torch.arange(len(tensors["prompt_embeds"])).reshape(len(tensors["draw.0"]), len(cuts))
    return Batch(ClipPrompts(tensors["prompt_embeds"], rows, cuts), tensors["negative_embeds"], image)


def _rollout_settings(recorded: RecordedRun) -> RolloutSettings:
    """The settings of a recorded rollout, whose window holds all of its frames."""
    run, meta = recorded.metadata["run"], recorded.metadata["meta"]
    block, frames = int(run["block_frames"]), recorded.tensors["draw.0"].shape[1]
    memory = MemoryConfig(
        window=max(frames, int(run["sink"]) + 2 * block),
        sink=int(run["sink"]),
        kv_format="float32",
        rope_offset=float(run["rope_offset_effective"]),
    )
    return RolloutSettings(int(meta["steps"]), float(run["shift"]), memory, straight_through=True)


def _draws(recorded: RecordedRun, prefix: str, names: list[str], exit_step: int) -> Draws:
    """The recorded draws: noise, rollout length, exit steps, one noise for each clean pass, timesteps, score noise."""
    tensors, timestep = recorded.tensors, names.index(_TIMESTEP_DRAW)
    noise = tensors[f"{prefix}0"].transpose(1, 2)
    clean = [
        tensors[f"{prefix}{index}"].unflatten(0, (noise.shape[0], -1))
        for index in range(1, timestep)
        if names[index].startswith("randn")
    ]
    score = tensors[f"{prefix}{timestep + 1}"].transpose(1, 2)
    return Draws(exit_step, noise, torch.cat(clean, dim=1).transpose(1, 2), score, tensors[f"{prefix}{timestep}"])


def _compare_calls(comparison: Comparison, recorded: RecordedRun, calls: list[_Call]) -> None:
    """Compares which blocks and which calls with a gradient there are, and the tensors of the calls in the file."""
    expected = [(call["start_frame"], call["grad"]) for call in recorded.metadata["meta"]["calls"]]
    if [(call.start, call.grad) for call in calls] != expected:
        comparison.faults.append(f"the {len(calls)} calls are not the {len(expected)} recorded ones in their order")
    for index, call in enumerate(calls):
        for part, value in (("x", call.x.transpose(1, 2)), ("t", call.t), ("flow", call.flow.transpose(1, 2))):
            name = f"call.{index}.{part}"
            if name in recorded.tensors:
                comparison.add(name, value, recorded.tensors[name], TOLERANCE)


def _compare_generator(comparison: Comparison, step: GeneratorStep, tensors: Mapping[str, Tensor]) -> None:
    values = {
        "rollout": step.rollout,
        "score.noisy": step.noisy,
        "score.fake_x0": step.fake,
        "score.real_cond_x0": step.real_positive,
        "score.real_uncond_x0": step.real_negative,
        "dmd.grad": step.gradient,
    }
    for name, value in values.items():
        comparison.add(name, value.transpose(1, 2), tensors[name], TOLERANCE)
    comparison.add("score.t", step.t, tensors["score.t"], TOLERANCE)
    comparison.add("dmd.loss", step.loss.detach().reshape(1), tensors["dmd.loss"].reshape(1), LOSS_TOLERANCE)


def _compare_critic(comparison: Comparison, step: CriticStep, tensors: Mapping[str, Tensor]) -> None:
    # The reference takes the flow from x0, which is rounded; where sigma is small, the rounding shows.
    sigma = TimestepTable.shifted().at(step.t).sigmas[:, None, :, None, None].double()
    flow = ((step.noisy.double() - step.x0.double()) / sigma).float()
    values = {"rollout": step.rollout, "noisy": step.noisy, "x0": step.x0, "flow": flow}
    for name, value in values.items():
        comparison.add(f"critic.{name}", value.transpose(1, 2), tensors[f"critic.{name}"], TOLERANCE)
    comparison.add("critic.t", step.t, tensors["critic.t"], TOLERANCE)
    loss = step.loss.detach().reshape(1)
    comparison.add("critic.loss", loss, tensors["critic.loss"].reshape(1), LOSS_TOLERANCE)


def _compare_gradients(comparison: Comparison, prefix: str, weights: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Compares the gradients of a LoRA. A missing one counts as 0."""
    parameters = dict(weights.named_parameters())
    for name, expected in tensors.items():
        if name.startswith(prefix):
            gradient = parameters[name.removeprefix(prefix + PREFIX)].grad
            value = torch.zeros_like(expected) if gradient is None else gradient
            comparison.add(name, value, expected, LORA_GRADIENT_TOLERANCE)


def _compare_update(comparison: Comparison, recorded: RecordedRun, weights: nn.Module) -> None:
    """Compares the norm of the generator's gradient, and its LoRA after one step of the optimiser."""
    run, tensors = recorded.metadata["run"], recorded.tensors
    optimiser = OptimiserSettings(lr=float(run["lr"]), betas=(float(run["betas"][0]), float(run["betas"][1])))
    norm = nn.utils.clip_grad_norm_(weights.parameters(), float(run["clip"]))
    comparison.add("clip.norm", norm.reshape(1), tensors["clip.norm"].reshape(1), LORA_GRADIENT_TOLERANCE)
    Optimiser(weights, optimiser).step()
    parameters, prefix = dict(weights.named_parameters()), f"lora_after.{PREFIX}"
    for name, expected in tensors.items():
        if name.startswith(prefix):
            comparison.add(name, parameters[name.removeprefix(prefix)].detach(), expected, TOLERANCE)


def _summary(comparison: Comparison) -> str:
    """The worst error of each kind of tensor, the losses, and the number of tensors."""
    kinds = (
        "score.",
        "dmd.grad",
        "dmd.loss",
        "lora_grad.",
        "detached_lora_grad.",
        "lora_after.",
        "critic.",
        "critic_grad.",
    )
    found = [kind for kind in kinds if any(name.startswith(kind) for name in comparison.errors)]
    parts = [f"{kind.removesuffix('.')} {comparison.worst(kind)[1]:.1e}" for kind in found]
    share = f"{len(comparison.errors)} tensors, at most {100 * comparison.share:.0f} % of a tolerance"
    return f"worst errors: {', '.join(parts)}; {share}"
