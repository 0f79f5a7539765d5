"""Quantised linear layers, and a LoRA beside any of them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from longlive.kernels import dequantize_nvfp4, quantize_nvfp4
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.model.linears import BypassLinear, FP8Linear, NVFP4Linear, Scratch, quantize_linears
from torch import nn
from torch.nn import functional as F

SMALL = WanConfig(dim=64, ffn_dim=128, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, text_len=5)


def layer(out: int = 96, width: int = 64) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(width, out).requires_grad_(False)


def nvfp4(of: nn.Linear, **options: object) -> NVFP4Linear:
    weight = quantize_nvfp4(of.weight)
    return NVFP4Linear(weight, (of.out_features, of.in_features), of.bias, Scratch(), **options)  # type: ignore[arg-type]


# Of two ways to compute one product in float32; rounding to four bits moves it by 10 %.
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def test_an_nvfp4_layer_is_a_linear_layer_with_the_dequantised_weight() -> None:
    """With float activations only the weight is rounded."""
    base = layer()
    packed = nvfp4(base)
    weight = dequantize_nvfp4(quantize_nvfp4(base.weight), (96, 64), torch.float32)
    x = torch.randn(2, 7, 64)
    close(packed(x), F.linear(x, weight, base.bias))


def test_nvfp4_activations_are_rounded_like_weights() -> None:
    """W4A4 multiplies the dequantised activations and weight in float32 and adds the bias."""
    base, x = layer(), torch.randn(2, 64, 64)
    packed = nvfp4(base, activations="nvfp4")
    rows = dequantize_nvfp4(quantize_nvfp4(x.view(-1, 64)), (128, 64), torch.float32)
    weight = dequantize_nvfp4(quantize_nvfp4(base.weight), (96, 64), torch.float32)
    close(packed(x), (F.linear(rows, weight) + base.bias).view(2, 64, 96))


def test_a_model_may_round_activations_too() -> None:
    """Quantised in W4A4, every linear layer of the blocks rounds its inputs; by default none does."""
    for options, activations in (({}, "float"), ({"activations": "nvfp4"}, "nvfp4")):
        model = CausalWan(SMALL)
        quantize_linears(model, "nvfp4", **options)  # pyright: ignore[reportArgumentType]
        assert {part.activations for part in model.modules() if isinstance(part, NVFP4Linear)} == {activations}


def test_layers_share_one_scratch_and_store_4_bits() -> None:
    """Every linear layer of the blocks is replaced, with one scratch buffer and 0.5625 bytes per weight."""
    model = CausalWan(SMALL)
    before = {
        n: p.numel() for n, p in model.named_parameters() if n.startswith("blocks.") and n.endswith("ffn.0.weight")
    }
    assert quantize_linears(model, "nvfp4") == 20
    packed = [module for module in model.modules() if isinstance(module, NVFP4Linear)]
    assert len({id(module._scratch) for module in packed}) == 1
    ffn = model.get_submodule("blocks.0.ffn.0")
    assert isinstance(ffn, NVFP4Linear)
    stored = sum(b.numel() * b.element_size() for b in ffn.buffers())
    assert stored / before["blocks.0.ffn.0.weight"] == pytest.approx(0.5625, abs=0.01)
    assert not any(isinstance(module, nn.Linear) for module in model.blocks.modules())


def test_fp8_layers_are_close_and_closer_with_float_activations() -> None:
    """The error is below 5 % with FP8 activations and smaller with float ones."""
    base, x = layer(), torch.randn(3, 5, 64)
    from longlive.kernels import quantize_fp8_rows

    errors = {}
    for activations in ("fp8", "float"):
        packed = FP8Linear(*quantize_fp8_rows(base.weight), base.bias, Scratch(), activations=activations)
        errors[activations] = float((packed(x) - base(x)).norm() / base(x).norm())
    assert errors["float"] < errors["fp8"] < 0.05


@pytest.mark.parametrize("weights", ["float", "nvfp4"])
def test_a_bypass_adds_exactly_the_lora(weights: str) -> None:
    """On any weight format, at any strength that is set later; 0 is the layer itself."""
    base = layer()
    inner: nn.Module = base if weights == "float" else nvfp4(base)
    down, up, x = torch.randn(4, 64), torch.randn(96, 4), torch.randn(2, 3, 64)
    beside = BypassLinear(inner, down, up, scale=0.5)
    for strength in (1.0, -2.0, 0.0):
        beside.strength = strength
        wanted = inner(x) + strength * 0.5 * (x @ down.T @ up.T)
        assert torch.allclose(beside(x), wanted, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64,), (3, 64), (2, 3, 64)], ids=str)
def test_a_bypass_is_one_pass_over_the_output(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """It adds to the output in place, within rounding of the formula in float64, for any number of dimensions."""
    base = layer().to(dtype)
    down, up, x = torch.randn(4, 64).to(dtype), torch.randn(96, 4).to(dtype), torch.randn(shape).to(dtype)
    outputs: list[torch.Tensor] = []
    base.register_forward_hook(lambda _layer, _x, y: outputs.append(y))
    y = BypassLinear(base, down, up, scale=0.25, strength=-2.0)(x)
    assert y.data_ptr() == outputs[0].data_ptr()
    wanted = F.linear(x.double(), base.weight.double(), base.bias.double())
    wanted += -0.5 * F.linear(F.linear(x, down).double(), up.double())
    # The output of the layer is rounded before the sum, so its rounding shows where the sum cancels.
    torch.testing.assert_close(y.double(), wanted, rtol=2 * torch.finfo(dtype).eps, atol=16 * torch.finfo(dtype).eps)
