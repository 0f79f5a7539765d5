"""Backward simulation: it samples as inference does, and gradients are right however the window moves on."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from longlive.longlive_core.memory import BlockKVCache
from longlive.longlive_core.model import CausalWan, KVCache, TextKVCache, WanConfig
from longlive.longlive_core.model.transformer import RunLayer, call_layer
from longlive.longlive_core.sampling.noise import film_noise
from longlive.longlive_core.training.clip_prompts import ClipPrompts
from longlive.longlive_core.training.lora import AdaptedModel, LoraSettings, add_adapter
from longlive.longlive_core.training.rollout import GradedCall, RolloutSettings, rollout
from longlive.longlive_core.training.schedule import TimestepTable
from torch import Tensor, nn

from ..conftest import Tiny

pytestmark = pytest.mark.slow

WORDS = ["A", "A", "|B", "B", "B", "|C", "C"]
CUTS = tuple(word.startswith("|") for word in WORDS)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the model: latent frames that it attends to, positions, timesteps and input."""

    attended: tuple[int, ...]
    positions: Tensor
    t: Tensor
    x: Tensor


@dataclass(frozen=True, slots=True)
class Watched(AdaptedModel):
    """A model that keeps its calls, clean passes too."""

    calls: list[Call] = field(default_factory=list[Call])

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
        assert isinstance(kv, BlockKVCache)
        self.calls.append(Call(kv.frames, positions, t, x.detach()))
        return AdaptedModel.__call__(self, x, t, text, kv, positions, run_layer=run_layer)

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        self(x, t, text, kv, positions)


@pytest.fixture
def lora() -> nn.Module:
    """The weights of a random LoRA on a model of its own, which `adapted` returns."""
    torch.manual_seed(0)
    config = WanConfig(dim=32, ffn_dim=48, num_heads=2, num_layers=2, freq_dim=16, text_dim=16, text_len=5, channels=4)
    model = CausalWan(config)
    weights = add_adapter(model, "generator", LoraSettings(2, 2.0))
    for parameter in weights.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape)
    weights.base = [model]  # type: ignore[assignment]
    return weights


def adapted(lora: nn.Module) -> Watched:
    """The model of a LoRA."""
    return Watched(lora.base[0], "generator")  # type: ignore[index]


def prompts(tiny: Tiny, words: list[str] = WORDS, batch: int = 1) -> ClipPrompts:
    """The prompts of a clip; all clips of a batch have the same ones."""
    names = [word.lstrip("|") for word in words]
    distinct = sorted(set(names))
    rows = torch.tensor([[distinct.index(name) for name in names]]).expand(batch, -1)
    cuts = tuple(word.startswith("|") for word in words)
    return ClipPrompts(torch.stack([tiny.text(name) for name in distinct]), rows, cuts)


def noises(blocks: int = len(WORDS), batch: int = 1) -> tuple[Tensor, Tensor]:
    """Noise of a clip and of its clean passes."""
    generator = torch.Generator().manual_seed(2)
    noise, clean = torch.randn(2, batch, 4, 2 * blocks, 4, 6, generator=generator)
    return noise, clean


def simulate(
    tiny: Tiny,
    model: AdaptedModel,
    exit_step: int = 1,
    *,
    words: list[str] = WORDS,
    grad: bool = True,
    image: Tensor | None = None,
    memory: dict[str, Any] | None = None,
    **changes: Any,  # noqa: ANN401
) -> Iterator[GradedCall]:
    """A rollout with a window of four blocks and two steps."""
    settings = replace(RolloutSettings(2, 5.0, tiny.memory(**(memory or {}))), **changes)
    return rollout(model, settings, prompts(tiny, words), exit_step, *noises(len(words)), image=image, grad=grad)


def gradients(lora: nn.Module, calls: Iterator[GradedCall], at_once: bool = False) -> dict[str, Tensor]:
    """Gradients of a weighted sum of all x0; at_once: backward after each block, before the next one runs."""
    lora.zero_grad()
    losses: list[Tensor] = []
    for call in calls:
        weight = torch.randn(call.x0.shape, generator=torch.Generator().manual_seed(call.block.index))
        losses.append((weight * call.x0).mean())
        if at_once:
            losses[-1].backward()
    if not at_once:
        torch.stack(losses).sum().backward()
    return {name: p.grad.clone() for name, p in lora.named_parameters() if p.grad is not None}


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys() and len(a) == 40
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_blocks_attend_and_stand_where_they_do_at_inference(tiny: Tiny, lora: nn.Module) -> None:
    """Each call has the attended frames, positions and timesteps of the sampler, and block 0 has its samples too."""
    model, sampler = adapted(lora), adapted(lora)
    calls = list(simulate(tiny, model, exit_step=1))
    assert [call.block.start for call in calls] == [0, 2, 4, 6, 8, 10, 12]
    noise, _ = noises()
    with torch.no_grad():
        list(tiny.generate(" ".join(WORDS), model=sampler, noise=film_noise(noise)))
    # Inference runs the last block's clean pass, too, which no later block of a rollout needs.
    ours, theirs = model.calls, sampler.calls
    assert [call.attended for call in ours] == [call.attended for call in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert torch.equal(our.positions, their.positions) and torch.equal(our.t, their.t)
    for our, their in zip(ours[:2], theirs[:2], strict=True):
        assert torch.equal(our.x, their.x)


def test_the_exit_step_predicts_clean_latents_by_the_table(tiny: Tiny, lora: nn.Module) -> None:
    """x0 = x − sigma · flow, with the sigma of the table's entry nearest to the timestep, not with the solver's."""
    (call, *_) = simulate(tiny, adapted(lora), exit_step=1)
    table = TimestepTable.shifted()
    sigma = table.sigmas[(table.timesteps - 833).abs().argmin()]
    assert float(call.t[0, 0]) == 833
    torch.testing.assert_close(call.x0, call.x - sigma * call.flow, rtol=1e-5, atol=1e-6)


def test_clean_passes_see_the_exit_step_with_the_smallest_noise(tiny: Tiny, lora: nn.Module) -> None:
    """The clean pass runs at t = 0 on 0.995025 · x0 + 0.004975 · noise."""
    model = adapted(lora)
    calls = list(simulate(tiny, model, exit_step=0))
    clean = [call for call in model.calls if not call.t.any()]
    _, noise = noises()
    assert len(clean) == len(WORDS)
    sigma = TimestepTable.shifted().sigmas[-1]
    assert float(sigma) == pytest.approx(0.004975, abs=1e-5)  # the table is float32
    for call, passed in zip(calls, clean, strict=True):
        rows = slice(call.block.start, call.block.start + 2)
        expected = (1 - sigma) * call.x0.detach() + sigma * noise[:, :, rows]
        torch.testing.assert_close(passed.x, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"kv_format": "bf16"},
        {"kv_format": "nvfp4"},
        {"relative_rope": True},
        {"shot_clean_recache": True},
        {"sink": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("straight_through", [False, True])
def test_a_gradient_does_not_change_what_is_sampled(
    tiny: Tiny, lora: nn.Module, memory: dict[str, Any], straight_through: bool
) -> None:
    """With any memory, the graded calls give what the same calls give without a gradient."""
    # Step 0, because with a later one the steps before it would prepare the memory.
    plain = [call.x0 for call in simulate(tiny, adapted(lora), 0, grad=False, memory=memory)]
    graded = simulate(tiny, adapted(lora), 0, memory=memory, straight_through=straight_through)
    for call, expected in zip(graded, plain, strict=True):
        assert call.x0.requires_grad and not expected.requires_grad
        torch.testing.assert_close(call.x0.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", [{}, {"relative_rope": True}, {"shot_clean_recache": True}], ids=str)
def test_gradients_are_right_when_blocks_have_left_the_window(
    tiny: Tiny, lora: nn.Module, memory: dict[str, Any]
) -> None:
    """A backward pass at the end of a clip longer than the window gives what one after each block gives."""
    expected = gradients(lora, simulate(tiny, adapted(lora), memory=memory), at_once=True)
    assert_close(gradients(lora, simulate(tiny, adapted(lora), memory=memory)), expected)


@pytest.mark.parametrize("straight_through", [False, True])
def test_activations_may_be_computed_again(tiny: Tiny, lora: nn.Module, straight_through: bool) -> None:
    """Checkpointing changes no gradient, also of clips longer than the window."""
    expected = gradients(lora, simulate(tiny, adapted(lora), straight_through=straight_through))
    again = simulate(tiny, adapted(lora), straight_through=straight_through, checkpointing=True)
    assert_close(gradients(lora, again), expected)


def test_memory_is_detached_or_passes_gradients_to_the_window(tiny: Tiny, lora: nn.Module) -> None:
    """The loss of the last block reaches earlier blocks only with `straight_through`."""
    sums: dict[bool, float] = {}
    for straight_through in (False, True):
        calls = list(simulate(tiny, adapted(lora), straight_through=straight_through))
        gradient = torch.autograd.grad(calls[-1].x0.square().sum(), list(lora.parameters()))
        sums[straight_through] = float(torch.stack([g.abs().sum() for g in gradient]).sum())
    assert sums[True] != pytest.approx(sums[False], rel=1e-3)


def test_the_offset_of_cuts_is_applied_or_off(tiny: Tiny, lora: nn.Module) -> None:
    """rope_offset moves blocks from the first cut on, and 0 moves none."""
    models = {offset: adapted(lora) for offset in (0.0, 8.0)}
    x0 = {
        offset: [call.x0.detach() for call in simulate(tiny, model, memory={"rope_offset": offset})]
        for offset, model in models.items()
    }
    starts = {offset: [float(call.positions[0]) for call in model.calls][::3] for offset, model in models.items()}
    assert starts[0.0] == [0, 2, 4, 6, 8, 10, 12]
    assert starts[8.0] == [0, 2, 12, 14, 16, 26, 28]
    same = [torch.allclose(a, b, atol=1e-4) for a, b in zip(x0[0.0], x0[8.0], strict=True)]
    assert same[:3] == [True, True, False]


def test_the_image_is_given_and_never_sampled(tiny: Tiny, lora: nn.Module) -> None:
    """Image to video: frame 0 is the image in each input and output, at t = 0, in the first block only."""
    image, model = torch.randn(1, 4, 1, 4, 6), adapted(lora)
    calls = list(simulate(tiny, model, image=image))
    first = [call for call in model.calls if call.positions[0] == 0]
    assert len(first) == 3
    for call in first:
        assert torch.equal(call.x[:, :, :1], image) and not call.t[:, 0].any()
    assert [float(call.t[0, 1]) for call in first] == [999, 833, 0]
    assert torch.equal(calls[0].x0[:, :, :1], image)
    assert all(float(call.t[0, 0]) == 833 for call in calls[1:])


def test_clips_of_a_batch_have_prompts_of_their_own(tiny: Tiny, lora: nn.Module) -> None:
    """A batch of two clips with different prompts equals the two clips alone."""
    noise, clean = noises(3, batch=2)
    text, rows = torch.stack([tiny.text(name) for name in "ABC"]), torch.tensor([[0, 0, 1], [2, 1, 1]])
    settings, cuts = RolloutSettings(2, 5.0, tiny.memory()), (False, False, True)
    both = rollout(adapted(lora), settings, ClipPrompts(text, rows, cuts), 1, noise, clean)
    together = torch.cat([call.x0.detach() for call in both], dim=2)
    for clip in range(2):
        only = slice(clip, clip + 1)
        one = rollout(adapted(lora), settings, ClipPrompts(text, rows[only], cuts), 1, noise[only], clean[only])
        alone = torch.cat([call.x0.detach() for call in one], dim=2)
        torch.testing.assert_close(together[only], alone, rtol=1e-4, atol=1e-5)


def test_wrong_arguments_are_refused_before_work(tiny: Tiny, lora: nn.Module) -> None:
    """Shapes, steps, images and windows that do not fit are refused by the call itself."""
    model, (noise, clean) = adapted(lora), noises()
    settings, given = RolloutSettings(2, 5.0, tiny.memory()), prompts(tiny)
    with pytest.raises(ValueError, match="exit step 2 is outside 0 … 1"):
        rollout(model, settings, given, 2, noise, clean)
    with pytest.raises(ValueError, match="not 1 clips of 7 blocks"):
        rollout(model, settings, given, 0, noise[:, :, :13], clean[:, :, :13])
    with pytest.raises(ValueError, match="differ in shape"):
        rollout(model, settings, given, 0, noise, clean[:, :, :2])
    with pytest.raises(ValueError, match="the image has 2 latent frames, but must have 1 … 1"):
        rollout(model, settings, given, 0, noise, clean, image=noise[:, :, :2])
    with pytest.raises(ValueError, match="window 4 is too short"):
        rollout(model, replace(settings, memory=tiny.memory(window=4)), given, 0, noise, clean)
    with pytest.raises(ValueError, match="first block of a clip cannot be a cut"):
        replace(given, cuts=(True, *CUTS[1:]))
    assert not model.calls


def test_the_base_is_left_alone(tiny: Tiny, lora: nn.Module) -> None:
    """A rollout changes no weight of the base."""
    before = deepcopy(adapted(lora).model.state_dict())
    gradients(lora, simulate(tiny, adapted(lora)))
    assert all(torch.equal(value, before[name]) for name, value in adapted(lora).model.state_dict().items())
