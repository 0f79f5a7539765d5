"""CausalWan: names and shapes of its weights, timesteps, positions and text."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.memory import BlockKVCache, PoolShape
from longlive.longlive_core.memory.pool import DensePool
from longlive.longlive_core.memory.prompts import PromptKV
from longlive.longlive_core.model import WAN22_TI2V_5B, CausalWan, WanConfig, rope_angles
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.model.rope import axis_pairs
from longlive.longlive_core.model.transformer import timestep_embedding

from ..conftest import Tiny


def test_the_full_model_has_wans_tensors() -> None:
    """The full model has the tensor names, shapes and number of weights of Wan2.2 TI2V 5B."""
    state = CausalWan(WAN22_TI2V_5B, device="meta").state_dict()
    assert len(state) == 825
    assert sum(tensor.numel() for tensor in state.values()) == 4_999_787_712
    shapes = {
        "patch_embedding.weight": (3072, 48, 1, 2, 2),
        "text_embedding.2.weight": (3072, 3072),
        "time_embedding.0.weight": (3072, 256),
        "time_projection.1.weight": (18432, 3072),
        "blocks.29.modulation": (1, 6, 3072),
        "blocks.29.self_attn.norm_q.weight": (3072,),
        "blocks.29.cross_attn.k.bias": (3072,),
        "blocks.29.norm3.bias": (3072,),
        "blocks.29.ffn.2.weight": (3072, 14336),
        "head.modulation": (1, 2, 3072),
        "head.head.weight": (192, 3072),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_config_is_read_from_shapes() -> None:
    """The config of a model is read from the shapes of its weights."""
    state = CausalWan(WAN22_TI2V_5B, device="meta").state_dict()
    assert WanConfig.from_state_dict(state) == WAN22_TI2V_5B


def test_another_checkpoint_is_refused_by_name() -> None:
    """A state dict of another model is refused with the missing tensor or the channels that differ."""
    with pytest.raises(ValueError, match=r"patch_embedding\.weight.*not the state dict of a Wan"):
        WanConfig.from_state_dict({"unet.weight": torch.zeros(1)})
    state = CausalWan(WAN22_TI2V_5B, device="meta").state_dict()
    state["patch_embedding.weight"] = torch.empty(3072, 96, 1, 2, 2, device="meta")
    with pytest.raises(ValueError, match="takes 96 latent channels and returns 48"):
        WanConfig.from_state_dict(state)


def test_a_description_with_wrong_names_lists_them() -> None:
    """A config with missing and unknown names is refused, and the error lists both."""
    with pytest.raises(ValueError, match=r"missing \['ffn_dim'.*unknown \['depth'\]"):
        WanConfig.from_mapping({"dim": 8, "depth": 2})


def test_axes_share_the_head_as_in_wan() -> None:
    """RoPE divides the channel pairs of a head among time, height and width as Wan does."""
    assert axis_pairs(128) == (22, 21, 21)
    assert axis_pairs(32) == (6, 5, 5)


def test_timesteps_put_cosines_first() -> None:
    """The timestep embedding has its cosines before its sines."""
    embedded = timestep_embedding(torch.tensor([0.0, 999.0]), 8)
    assert embedded[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert embedded[1, 0].item() == pytest.approx(torch.tensor(999.0, dtype=torch.float64).cos().item())


def test_rope_depends_on_distance_alone_however_late_and_between_frames() -> None:
    """RoPE makes scores depend on the distance in time alone, at any time and for fractions of a frame."""
    q, k = torch.randn(1, 1, 1, 32), torch.randn(1, 1, 1, 32)

    def score(at: float) -> float:
        near, far = (rope_angles(torch.tensor([time], dtype=torch.float64), (1, 1), 32) for time in (at, at + 3.5))
        return float((near.rotate(q) * far.rotate(k)).sum())

    assert score(0) == pytest.approx(score(100_000.25), abs=1e-4)
    assert score(0) != pytest.approx(float((q * k).sum()), abs=1e-2)


def test_frames_may_have_different_timesteps(tiny: Tiny) -> None:
    """The flow of a frame depends on its own timestep most; through attention the others change it a little."""
    x = torch.randn(1, 4, 2, 4, 6)
    both, first = torch.tensor([[500.0, 500.0]]), torch.tensor([[0.0, 500.0]])
    change = (_flow(tiny, x, both) - _flow(tiny, x, first)).abs().mean(dim=(0, 1, 3, 4))
    assert change[0] > 2 * change[1] > 0


def test_write_kv_stores_the_same_kv_as_a_whole_pass(tiny: Tiny) -> None:
    """The pass that stops at the last layer's K/V leaves the same cache as `forward`, to the bit."""
    x, t = torch.randn(1, 4, 2, 4, 6), torch.zeros(1, 2)
    whole, short = _cache(tiny), _cache(tiny)
    tiny.model(x, t, _text(tiny), whole, torch.arange(2))
    tiny.model.write_kv(x, t, _text(tiny), short, torch.arange(2))
    for a, b in zip(whole.pool.tensors(1), short.pool.tensors(1), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [(3, 6), (4, 7), (0, 2)])
def test_an_odd_size_is_refused_in_pixels(tiny: Tiny, size: tuple[int, int]) -> None:
    """A latent size that the patch does not divide is refused with the multiple in pixels."""
    with pytest.raises(ValueError, match="multiple of the patch 2x2: pixels must be multiples of 32x32"):
        tiny.generate("A", size=size)


def test_a_prompt_beyond_the_text_length_is_refused(tiny: Tiny) -> None:
    """A prompt with more tokens than the text length is refused with that length."""
    with pytest.raises(ValueError, match="up to 5 tokens"):
        tiny.model.text_kv(torch.zeros(1, 6, 16))


def test_padding_is_part_of_the_prompt(tiny: Tiny) -> None:
    """Zero padding is attended, as in training, so a short embedding equals the same embedding with zeros appended."""
    text = torch.randn(1, 2, 16)
    padded = torch.cat((text, torch.zeros(1, 3, 16)), dim=1)
    for a, b in zip(tiny.model.text_kv(text), tiny.model.text_kv(padded), strict=True):
        assert torch.equal(a.k, b.k) and torch.equal(a.v, b.v) and a.k.shape[1] == 5


def _text(tiny: Tiny) -> PromptKV:
    return PromptKV(tiny.model.text_kv(tiny.text("A").unsqueeze(0)), torch_attention)


def _cache(tiny: Tiny) -> BlockKVCache:
    shape = PoolShape.of(tiny.model.config, batch=1, slots=1, block_tokens=12)
    pool = DensePool(shape, torch.float32, torch.device("cpu"))
    return BlockKVCache(pool, (0,), 0, 2, False, torch_attention)


def _flow(tiny: Tiny, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return tiny.model(x, t, _text(tiny), _cache(tiny), torch.arange(2))
