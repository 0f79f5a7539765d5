"""A step of autoregressive training: its inputs, loss and gradients, and the stage that the trainer runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from longlive.longlive_core.memory import FilmKVCache
from longlive.longlive_core.model import CausalWan
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.training.ar import ar_step, step_errors
from longlive.longlive_core.training.ar_inputs import ARBatch, ARDraws, ar_inputs, random_draws
from longlive.longlive_core.training.ar_settings import ARSettings
from longlive.longlive_core.training.ar_stage import ARStage
from longlive.longlive_core.training.error_recycling import BlockErrors, ErrorBuffers, ErrorRecyclingSettings
from longlive.longlive_core.training.schedule import TimestepTable
from longlive.longlive_core.training.stage import OptimiserSettings, Stage
from longlive.longlive_core.types import LatentShape
from torch import Tensor

from ..conftest import Tiny

SETTINGS = ARSettings(block_frames=2, sink=2)
ALWAYS = ErrorRecyclingSettings(clean=0, noise=1, latent=1, context=1)
TABLE = TimestepTable.shifted()
INDICES = torch.tensor([[900, 900, 500, 500, 55, 55], [1, 1, 700, 700, 300, 300]])


@dataclass(frozen=True)
class Films:
    """A source of random films of three blocks; `blocks` may be another number."""

    image: bool = False
    blocks: int = 3

    def batch(self, rng: np.random.Generator, /) -> ARBatch:
        generator = torch.Generator().manual_seed(int(rng.integers(2**40)))
        frames = 2 * self.blocks
        clean = torch.randn(2, 4, frames, 4, 6, generator=generator)
        text = torch.randn(3, 4, 16, generator=generator)
        prompts = torch.arange(self.blocks).remainder(3).expand(2, -1)
        cuts = tuple(block == 2 for block in range(self.blocks))
        return ARBatch(
            clean, text, prompts, torch.arange(frames), cuts, image=self.image, name=f"{generator.initial_seed()}"
        )


BATCH = Films().batch(np.random.default_rng(0))
IMAGE = replace(BATCH, image=True)
DRAWS = ARDraws(INDICES, torch.randn(BATCH.clean.shape, generator=torch.Generator().manual_seed(1)))


def filled() -> ErrorBuffers:
    """Buffers with one error in each bucket, in all three injections."""
    buffers, generator = ErrorBuffers(ALWAYS), torch.Generator().manual_seed(2)
    for index in range(0, 1000, 20):
        latent, noise = torch.randn(2, 4, 2, 4, 6, generator=generator)
        buffers.store([BlockErrors(index, latent, noise)], Random(0))
    return buffers


@pytest.fixture
def trainable(tiny: Tiny) -> Iterator[CausalWan]:
    """A copy of the tiny model whose parameters require gradients."""
    yield copy.deepcopy(tiny.model).requires_grad_(True)


def gradients(model: CausalWan, batch: ARBatch, settings: ARSettings) -> dict[str, Tensor]:
    """The gradients of the loss of a step."""
    model.zero_grad()
    ar_step(model, batch, ar_inputs(batch, DRAWS, settings, TABLE), settings).loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def test_inputs_of_a_plain_step() -> None:
    """noisy = (1 − sigma) · clean + sigma · noise, target = noise − clean; the context is the clean film at t = 0."""
    inputs = ar_inputs(BATCH, DRAWS, SETTINGS, TABLE)
    sigma = TABLE.sigmas[INDICES][:, None, :, None, None]
    assert torch.equal(inputs.noisy, (1 - sigma) * BATCH.clean + sigma * DRAWS.noise)
    assert torch.equal(inputs.target, DRAWS.noise - BATCH.clean)
    assert torch.equal(inputs.levels.timesteps, TABLE.timesteps[INDICES])
    assert torch.equal(inputs.context, BATCH.clean) and not inputs.context_t.any() and inputs.mask is None


def test_the_loss_is_the_weighted_mean_over_all_frames(tiny: Tiny) -> None:
    """The loss weighs the squared error of each frame by its noise level; x0 = noisy − sigma · flow."""
    step = ar_step(tiny.model, BATCH, ar_inputs(BATCH, DRAWS, SETTINGS, TABLE), SETTINGS)
    squares = (step.flow - step.inputs.target).square().mean(dim=(1, 3, 4))
    torch.testing.assert_close(step.loss, (TABLE.weights[INDICES] * squares).mean())
    sigma = TABLE.sigmas[INDICES][:, None, :, None, None]
    torch.testing.assert_close(step.predicted, step.inputs.noisy - sigma * step.flow)


def test_bf16_timesteps_change_everything_that_follows_from_them() -> None:
    """With rounded timesteps, the model input, the noise and the weight are those of the rounded timestep."""
    inputs = ar_inputs(BATCH, DRAWS, replace(SETTINGS, bf16_timesteps=True), TABLE)
    rounded = TABLE.timesteps[INDICES].bfloat16().float()
    nearest = (TABLE.timesteps - rounded[..., None]).abs().argmin(-1)
    assert torch.equal(inputs.levels.timesteps, rounded) and not torch.equal(nearest, INDICES)
    assert torch.equal(inputs.levels.weights, TABLE.weights[nearest])
    sigma = TABLE.sigmas[nearest][:, None, :, None, None]
    assert torch.equal(inputs.noisy, (1 - sigma) * BATCH.clean + sigma * DRAWS.noise)


@pytest.mark.parametrize("context_noise", [0.0, 300.0])
@pytest.mark.parametrize("recycling", [False, True])
def test_the_frame_of_a_start_image_stays_clean(context_noise: float, recycling: bool) -> None:
    """Frame 0 is the clean one at t = 0 in both halves, with target 0 and mask 0, with any noise and errors."""
    settings = replace(SETTINGS, context_noise=context_noise)
    draws = random_draws(IMAGE, settings, TABLE, torch.Generator().manual_seed(3))
    buffers, rng = (filled(), Random(4)) if recycling else (None, None)
    inputs = ar_inputs(IMAGE, draws, settings, TABLE, buffers, rng)
    first = IMAGE.clean[:, :, 0]
    assert torch.equal(inputs.noisy[:, :, 0], first) and torch.equal(inputs.context[:, :, 0], first)
    assert not inputs.levels.timesteps[:, 0].any() and not inputs.context_t[:, 0].any()
    assert not inputs.target[:, :, 0].any()
    assert inputs.mask is not None and inputs.mask.tolist() == [[0, 1, 1, 1, 1, 1]] * 2
    # The other frame of its block keeps the level of the block, and everything else is as without an image.
    without = ar_inputs(replace(IMAGE, image=False), draws, settings, TABLE, filled() if recycling else None, Random(4))
    for ours, theirs in (
        (inputs.noisy, without.noisy),
        (inputs.context, without.context),
        (inputs.target, without.target),
    ):
        assert torch.equal(ours[:, :, 1:], theirs[:, :, 1:])
    assert torch.equal(inputs.levels.timesteps[:, 1:], without.levels.timesteps[:, 1:])


def test_the_loss_with_an_image_divides_by_the_frames_that_count(tiny: Tiny) -> None:
    """The loss is the sum over frames 1 … 5 divided by their number, and a padded frame leaves both."""
    step = ar_step(tiny.model, IMAGE, ar_inputs(IMAGE, DRAWS, SETTINGS, TABLE), SETTINGS)
    torch.testing.assert_close(step.loss, step.frame_loss[:, 1:].mean())
    mask = torch.ones(2, 6)
    mask[1, 4:] = 0
    padded = replace(IMAGE, mask=mask)
    step = ar_step(tiny.model, padded, ar_inputs(padded, DRAWS, SETTINGS, TABLE), SETTINGS)
    expected = (step.frame_loss[0, 1:].sum() + step.frame_loss[1, 1:4].sum()) / 8
    torch.testing.assert_close(step.loss, expected)


def test_an_error_of_the_latents_is_to_be_removed_and_one_of_the_noise_predicted() -> None:
    """The target has the injected noise, but the clean latents without their error; the context has its own."""
    inputs = ar_inputs(BATCH, DRAWS, SETTINGS, TABLE, filled(), Random(4))
    assert inputs.injections == ("noise", "latent", "context")
    assert not torch.equal(inputs.noise, DRAWS.noise) and not torch.equal(inputs.latents, BATCH.clean)
    sigma = TABLE.sigmas[INDICES][:, None, :, None, None]
    assert torch.equal(inputs.noisy, (1 - sigma) * inputs.latents + sigma * inputs.noise)
    assert torch.equal(inputs.target, inputs.noise - BATCH.clean)
    assert not torch.allclose(inputs.context - BATCH.clean, inputs.latents - BATCH.clean)


def test_stored_errors_are_those_of_the_step(tiny: Tiny) -> None:
    """Stored errors are predicted − clean and (1 − sigma) · (flow − target), with the sigma of the unrounded index."""
    settings = replace(SETTINGS, bf16_timesteps=True)
    step = ar_step(tiny.model, IMAGE, ar_inputs(IMAGE, DRAWS, settings, TABLE), settings)
    errors = step_errors(IMAGE, DRAWS, step, settings, TABLE)
    assert [error.index for error in errors] == [900, 500, 55, 1, 700, 300]
    assert torch.equal(errors[0].latent, (step.predicted - IMAGE.clean)[0, :, :2])
    expected = (1 - TABLE.sigmas[55]) * (step.flow - step.inputs.target)[0, :, 4:]
    torch.testing.assert_close(errors[2].noise, expected, rtol=0, atol=0)


def test_context_noise_has_draws_of_its_own_up_to_its_level() -> None:
    """The clean half gets other noise than the noisy half, at timesteps up to the highest one, given to the model."""
    settings = replace(SETTINGS, context_noise=300.0)
    draws = random_draws(BATCH, settings, TABLE, torch.Generator().manual_seed(3))
    assert draws.context_indices is not None and draws.context_noise is not None
    inputs = ar_inputs(BATCH, draws, settings, TABLE)
    assert torch.equal(inputs.context_t, TABLE.timesteps[draws.context_indices])
    assert float(inputs.context_t.min()) > 0 and float(inputs.context_t.max()) <= 300
    sigma = TABLE.sigmas[draws.context_indices][:, None, :, None, None]
    assert torch.equal(inputs.context, (1 - sigma) * BATCH.clean + sigma * draws.context_noise)
    assert not torch.equal(draws.context_noise, draws.noise)
    plain = random_draws(BATCH, SETTINGS, TABLE, torch.Generator().manual_seed(3))
    assert torch.equal(plain.noise, draws.noise) and plain.context_indices is None


def test_the_timesteps_of_the_context_reach_the_model(tiny: Tiny) -> None:
    """Another timestep of the clean half changes the flow of later blocks, and not that of the first one."""
    inputs = ar_inputs(BATCH, DRAWS, SETTINGS, TABLE)
    base = ar_step(tiny.model, BATCH, inputs, SETTINGS).flow
    other = ar_step(tiny.model, BATCH, replace(inputs, context_t=inputs.context_t + 200), SETTINGS).flow
    assert torch.allclose(base[:, :, :2], other[:, :, :2]) and not torch.allclose(base[:, :, 2:], other[:, :, 2:])


def test_checkpointing_changes_no_gradient(trainable: CausalWan) -> None:
    """With recomputed activations every gradient is the same to the bit, and each layer runs twice."""
    plain = gradients(trainable, IMAGE, SETTINGS)
    calls: list[int] = []
    first = trainable.blocks[0]
    first.register_forward_pre_hook(lambda *_: calls.append(0))
    recomputed = gradients(trainable, IMAGE, replace(SETTINGS, checkpointing=True))
    assert plain.keys() == recomputed.keys() == dict(trainable.named_parameters()).keys()
    assert [name for name in plain if not torch.equal(plain[name], recomputed[name])] == []
    assert len(calls) == 2


def test_a_window_trains_what_is_served(tiny: Tiny) -> None:
    """With a window of three blocks, sinks and cuts, the flow of a film of six blocks is that of the KV cache."""
    batch = Films(blocks=6).batch(np.random.default_rng(5))
    indices = torch.randint(1000, (2, 6), generator=torch.Generator().manual_seed(6)).repeat_interleave(2, dim=1)
    draws = ARDraws(indices, torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(7)))
    settings = replace(SETTINGS, window=6)
    inputs = ar_inputs(batch, draws, settings, TABLE)
    flow = ar_step(tiny.model, batch, inputs, settings).flow
    assert settings.history(batch.cuts) == ((), (0,), (0, 1), (0, 2), (0, 2), (0, 2))
    plan = tiny.plan("0 1 |2 0 1 2")
    shape = LatentShape(1, 4, 2, 4, 6)
    cache = FilmKVCache(
        tiny.model, tiny.memory(window=6), shape, 6, lambda name: batch.text[int(name)], torch_attention
    )
    for block in plan.blocks:
        rows = slice(block.start, block.start + 2)
        cache.begin(block)
        (text, kv), *_ = cache.calls(block, clean=False)
        served = tiny.model(
            inputs.noisy[:1, :, rows], inputs.levels.timesteps[:1, rows], text, kv, batch.positions[rows]
        )
        # The clean keys of a block depend on what it attended, so that later blocks agree as long as that was kept.
        if block.index < 4:
            torch.testing.assert_close(flow[:1, :, rows], served, rtol=1e-4, atol=1e-5)
        (text, kv), *_ = cache.calls(block, clean=True)
        tiny.model.write_kv(batch.clean[:1, :, rows], torch.zeros(1, 2), text, kv, batch.positions[rows])
        cache.end(block)
    whole = ar_step(tiny.model, batch, inputs, SETTINGS).flow
    assert not torch.allclose(flow[:, :, 6:], whole[:, :, 6:], atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 7}, "window of 7 latent frames is not whole blocks of 2"),
        ({"window": 8, "sink": 3}, "sink of 3 latent frames"),
        ({"block_frames": 0}, "one latent frame or more"),
        ({"context_noise": 1001.0}, "context_noise 1001.0 is outside"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    """Part of a block, blocks without frames and noise above the table raise an error."""
    with pytest.raises(ValueError, match=message):
        ARSettings(**{"block_frames": 2, "sink": 2, **settings})


def test_the_model_may_be_bfloat16(tiny: Tiny) -> None:
    """The model computes in its own dtype; the loss is float32."""
    model = copy.deepcopy(tiny.model).bfloat16()
    step = ar_step(model, BATCH, ar_inputs(BATCH, DRAWS, SETTINGS, TABLE), SETTINGS)
    full = ar_step(tiny.model, BATCH, ar_inputs(BATCH, DRAWS, SETTINGS, TABLE), SETTINGS)
    assert (step.flow.dtype, step.loss.dtype) == (torch.bfloat16, torch.float32)
    assert float(step.loss) == pytest.approx(float(full.loss), rel=0.02)


def stage(model: CausalWan, recycling: ErrorRecyclingSettings | None = ALWAYS, **options: Any) -> ARStage:  # noqa: ANN401
    settings = replace(SETTINGS, error_recycling=recycling)
    return ARStage(model, Films(), settings, OptimiserSettings(1e-3), 11, **options)


def run(each: ARStage, steps: range, parts: int = 2) -> list[float]:
    """The losses of some steps, part after part."""
    return [float(each.loss("model", step, part).value.detach()) for step in steps for part in range(parts)]


def test_uniform_weights_count_every_noise_level_alike(tiny: Tiny) -> None:
    """The loss is the mean of the squared errors of the flow, also at the noisiest level, where the bell is zero."""
    uniform = ARStage(tiny.model, Films(), replace(SETTINGS, weighting="uniform"), OptimiserSettings(1e-3), 11)
    assert bool((uniform.table.weights == 1).all()) and float(stage(tiny.model).table.weights[0]) < 1e-3
    step = ar_step(tiny.model, BATCH, ar_inputs(BATCH, DRAWS, SETTINGS, uniform.table), SETTINGS)
    errors = (step.flow - step.inputs.target).square().mean()
    assert float(step.loss) == pytest.approx(float(errors), rel=1e-5)


def test_a_loss_depends_on_seed_step_and_part_only(tiny: Tiny) -> None:
    """Without stored errors, losses can be computed in any order; other seeds, steps and parts have others."""
    forward, backward = stage(tiny.model, None), stage(tiny.model, None)
    losses = run(forward, range(3))
    assert [float(backward.loss("model", step, part).value) for step in (2, 1, 0) for part in (1, 0)] == losses[::-1]
    assert len(set(losses)) == 6
    other = ARStage(tiny.model, Films(), SETTINGS, OptimiserSettings(1e-3), 12)
    assert run(other, range(1)) != losses[:2]


def test_global_random_numbers_are_left_alone(tiny: Tiny) -> None:
    """A step draws nothing from the generator of the process."""
    before = torch.get_rng_state()
    run(stage(tiny.model), range(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_of_a_step_do_not_see_each_others_errors(tiny: Tiny) -> None:
    """Errors are stored when the next step begins, so that the order of parts does not matter."""
    one, other = stage(tiny.model), stage(tiny.model)
    run(one, range(1)), run(other, range(1))
    assert one.buffers is not None and len(one.buffers.latent) == 0
    first, second = one.loss("model", 1, 0), one.loss("model", 1, 1)
    assert len(one.buffers.latent) == 2 * 2 * 3  # parts, films, blocks
    assert first.figures["injections"] > 0
    assert float(other.loss("model", 1, 1).value) == float(second.value)
    assert float(other.loss("model", 1, 0).value) == float(first.value)


@pytest.mark.parametrize("interrupted", [0, 1])
def test_a_resumed_stage_goes_on_to_the_bit(tiny: Tiny, interrupted: int) -> None:
    """A restored stage has the losses of an uninterrupted one, even if it was saved between the parts of a step."""
    small = replace(ALWAYS, entries=2)  # full buckets, whose errors are replaced
    whole, first, second = (stage(tiny.model, small) for _ in range(3))
    losses = run(whole, range(8))
    run(first, range(5))
    for part in range(interrupted):
        first.loss("model", 5, part)
    state = copy.deepcopy(first.state_dict())
    second.load_state_dict(state)
    assert run(second, range(5, 8)) == losses[10:]


def test_errors_change_the_losses_of_later_steps(tiny: Tiny) -> None:
    """With error recycling, the first step has the loss of a run without it, and later ones do not."""
    losses, plain = run(stage(tiny.model), range(3)), run(stage(tiny.model, None), range(3))
    assert losses[:2] == plain[:2] and all(a != b for a, b in zip(losses[2:], plain[2:], strict=True))


def test_stored_errors_need_error_recycling(tiny: Tiny) -> None:
    """A checkpoint with errors is refused by a run that would drop them; one without goes on."""
    each = stage(tiny.model)
    run(each, range(2))
    with pytest.raises(ValueError, match="has no error recycling; turn it on"):
        stage(tiny.model, None).load_state_dict(each.state_dict())
    stage(tiny.model, None).load_state_dict({})
    stage(tiny.model).load_state_dict({})


def test_validation_is_the_same_each_time_and_stores_nothing(tiny: Tiny) -> None:
    """Validation losses do not depend on the step, on stored errors or on earlier training."""
    each = stage(tiny.model, validation=Films(image=True), validation_batches=2)
    before = each.validation_loss(0)
    run(each, range(2))
    assert each.validation_loss(7) == before and before["validation"] > 0
    assert stage(tiny.model).validation_loss(0) == {}


def test_the_stage_fits_the_trainer(trainable: CausalWan) -> None:
    """The stage has one trained module, names its batches and has a loss with a graph."""
    each: Stage = stage(trainable)
    assert each.name == "ar" and [trained.name for trained in each.trained] == ["model"]
    loss = each.loss("model", 0, 0)
    loss.value.backward()
    assert loss.batch and all(value.grad is not None for value in trainable.parameters())
