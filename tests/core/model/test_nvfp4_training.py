"""The linear layer that trains in NVFP4: its products, what it saves and skips, and refused models."""

from __future__ import annotations

import pytest
import torch
from longlive.kernels import dequantize_nvfp4, quantize_nvfp4
from longlive.longlive_core.model import CausalWan, WanConfig, fp4_units
from longlive.longlive_core.model.nvfp4_products import NVFP4Products, NVFP4Settings, Operand, multiply
from longlive.longlive_core.model.nvfp4_training import NVFP4TrainingLinear, RoundingNoise, train_in_nvfp4
from torch import Tensor, nn

NEAREST = NVFP4Settings(rounding="nearest")


def linear(inputs: int = 64, outputs: int = 96, seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(inputs, outputs)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(settings: NVFP4Settings = NEAREST, **widths: int) -> NVFP4TrainingLinear:
    noise = RoundingNoise()
    noise.restart(1)
    return NVFP4TrainingLinear(linear(**widths), NVFP4Products(settings), noise)


def rounded(x: Tensor, rule: str, *, tile: bool = False) -> Tensor:
    shape = (x.shape[0], x.shape[1])
    packed = quantize_nvfp4(x, rule, tile=tile, swizzled=False)
    return dequantize_nvfp4(packed, shape, torch.float32, swizzled=False)


def gradients(module: NVFP4TrainingLinear, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and gradients of input, weight and bias."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    y = module(x)
    y.backward(dy)
    assert x.grad is not None and module.weight.grad is not None and module.bias.grad is not None
    return y.detach(), x.grad, module.weight.grad.clone(), module.bias.grad.clone()


def relative(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


@pytest.mark.parametrize("tokens", [32, 20])
def test_products_are_those_of_the_formula(tokens: int) -> None:
    """Output and gradients are the products of matrices rounded as LongLive 2.0 rounds them, written out again."""
    module, x, dy = (
        layer(NVFP4Settings(rounding="nearest", hadamard=False)),
        normal(tokens, 64),
        normal(tokens, 96, seed=1),
    )
    y, dx, dw, db = gradients(module, x, dy)
    w, bias = module.weight.detach().bfloat16(), module.bias.detach().bfloat16()
    inputs, weight, gradient = rounded(x.bfloat16(), "mse"), rounded(w, "static_6", tile=True), dy.bfloat16()
    pad = (0, -tokens % 16)
    # The order of operations of saved inputs; another one moves values by a step of bf16, and some to other codes.
    packed = quantize_nvfp4(x.bfloat16(), "mse", swizzled=False)
    codes = dequantize_nvfp4(
        packed._replace(amax=torch.tensor(1.0), denominator=1.0), (tokens, 64), torch.float32, swizzled=False
    )
    saved = rounded(
        nn.functional.pad((codes * (packed.amax / packed.denominator)).bfloat16().t().contiguous(), pad), "mse"
    )
    left = rounded(nn.functional.pad(gradient.t().contiguous(), pad), "mse")
    expected = (
        (inputs @ weight.t()).bfloat16() + bias,
        (rounded(gradient, "mse") @ rounded(w.t(), "static_6", tile=True).t()).bfloat16(),
        (left @ saved.t()).bfloat16(),
        gradient.sum(0),
    )
    for ours, formula in zip((y, dx, dw, db), expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, formula.float(), rtol=2.0**-7, atol=1e-6)


def test_the_transform_changes_rounding_only() -> None:
    """With the Hadamard transform the gradient of the weight is another rounding of the same product."""
    x, dy = normal(64, 64), normal(64, 96, seed=1)
    exact = dy.t() @ x
    with_it, without = (
        gradients(layer(NVFP4Settings(rounding="nearest", hadamard=flag)), x, dy)[2] for flag in (True, False)
    )
    assert not torch.equal(with_it, without)
    assert 0.05 < relative(with_it, exact) < 0.25 and 0.05 < relative(without, exact) < 0.25


def test_leading_dimensions_are_tokens() -> None:
    """A batch of sequences gives what its tokens in one row of sequences give."""
    x, dy = normal(2, 16, 64), normal(2, 16, 96, seed=1)
    whole, flat = gradients(layer(), x, dy), gradients(layer(), x.flatten(0, 1), dy.flatten(0, 1))
    for a, b in zip(whole[:3], flat[:3], strict=True):
        assert torch.equal(a.reshape(b.shape), b)


@pytest.mark.parametrize("rounding", ["unbiased", "reference"])
def test_the_noise_depends_on_the_seed_only(rounding: str) -> None:
    """The same seed gives the same gradients, and another seed others; the output has no noise."""
    module, x, dy = layer(NVFP4Settings(rounding=rounding)), normal(32, 64), normal(32, 96, seed=1)  # pyright: ignore[reportArgumentType]
    results: list[tuple[Tensor, ...]] = []
    for seed in (1, 1, 2):
        module.noise.restart(seed)
        results.append(gradients(module, x, dy))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert torch.equal(results[0][0], results[2][0])
    assert not torch.equal(results[0][1], results[2][1]) and not torch.equal(results[0][2], results[2][2])


@pytest.mark.slow
def test_gradients_are_unbiased() -> None:
    """The mean of stochastic gradients is the gradient of products whose other operand is rounded, within its error."""
    module, x, dy = layer(NVFP4Settings()), normal(32, 64).bfloat16().float(), normal(32, 96, seed=1).bfloat16().float()
    draws = torch.stack([gradients(module, x, dy)[1] for _ in range(400)]).double()
    weight = rounded(module.weight.detach().bfloat16(), "static_6", tile=True).double()
    error = draws.std(0) / 20
    z = (draws.mean(0) - dy.double() @ weight) / error
    assert abs(float(z.square().mean()) - 1) < 6 * (2 / z.numel()) ** 0.5 + 0.02  # bf16 rounds each draw


def test_only_what_is_needed_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a frozen layer, W and its transpose are quantised once, and there is no gradient of the weight."""
    module = layer()
    module.requires_grad_(False)
    calls: list[str] = []
    original = NVFP4Products.weight

    def counted(products: NVFP4Products, w: Tensor) -> Operand:
        calls.append("weight")
        return original(products, w)

    monkeypatch.setattr(NVFP4Products, "weight", counted)
    monkeypatch.setattr(NVFP4Products, "over_tokens", lambda *_: pytest.fail("the weight has no gradient"))
    x = normal(16, 64).requires_grad_()
    for _ in range(2):
        module(x).sum().backward()
    assert calls == ["weight", "weight"] and module.weight.grad is None


def test_a_disabled_layer_is_the_float_layer() -> None:
    """Without rounding the layer is `nn.Linear`, as the critic of a distillation needs it."""
    module, x = layer(), normal(4, 64)
    module.enabled = False
    assert torch.equal(module(x), nn.functional.linear(x, module.weight, module.bias))


def test_autocast_changes_neither_output_nor_gradients() -> None:
    """In mixed precision operands are not rounded again."""
    x, dy = normal(32, 64).bfloat16(), normal(32, 96, seed=1).bfloat16()
    plain = gradients(layer(), x, dy)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = gradients(layer(), x, dy)
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))


def config(dim: int = 64, ffn: int = 128) -> WanConfig:
    return WanConfig(dim=dim, ffn_dim=ffn, num_heads=2, num_layers=1, freq_dim=32, text_dim=32, text_len=8, channels=4)


def test_layers_of_the_blocks_are_replaced_and_names_stay() -> None:
    """All linear layers of the blocks round, and no other; the weights keep their names and are the same tensors."""
    model = CausalWan(config())
    before = dict(model.named_parameters())
    train_in_nvfp4(model, NVFP4Settings())
    after = dict(model.named_parameters())
    assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)
    names = {name for name, part in model.named_modules() if isinstance(part, NVFP4TrainingLinear)}
    assert len(names) == 10 and all(name.startswith("blocks.") for name in names)


def test_widths_and_quantised_models_are_refused() -> None:
    """A width that is no multiple of 16 is named with its layer, and so is a model that has no float layers."""
    model = CausalWan(config(dim=72))
    with pytest.raises(
        ValueError, match=r"blocks\.0\.self_attn\.q has input width 72, and NVFP4 needs multiples of 16"
    ):
        train_in_nvfp4(model, NVFP4Settings())
    assert not any(isinstance(part, NVFP4TrainingLinear) for part in model.modules())
    with pytest.raises(
        ValueError, match="no float linear layers in its blocks to train in NVFP4; use a bf16 checkpoint"
    ):
        train_in_nvfp4(nn.Sequential(nn.Linear(16, 16)), NVFP4Settings())


@pytest.fixture
def blackwell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that says that it is a Blackwell GPU, and whose tensors are on the CPU."""
    fp4_units._passes_self_test.cache_clear()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (10, 0))


@pytest.mark.usefixtures("blackwell")
def test_units_are_used_where_they_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """FP4 units take the product if their self-test agrees, and padding is cut off; otherwise a log has one line."""
    cpu = torch.device("cpu")
    check = fp4_units._passes_self_test  # pyright: ignore[reportPrivateUsage]

    def product(left: object, right: object) -> Tensor:
        a, b = (
            dequantize_nvfp4(part, (len(part.values), 2 * part.values.shape[1]), torch.float32)  # pyright: ignore
            for part in (left, right)
        )
        return (a @ b.t()).bfloat16()

    monkeypatch.setattr(fp4_units, "multiply_fp4", product)
    assert check(cpu)
    check.cache_clear()
    monkeypatch.setattr(fp4_units, "multiply_fp4", lambda left, right: product(right, left))
    assert not check(cpu)
    for name in ("has_fp4_units", "multiply_fp4"):
        monkeypatch.setattr(
            f"longlive.longlive_core.model.nvfp4_products.{name}", {"has_fp4_units": lambda _: True}.get(name, product)
        )
    x, dy = normal(20, 64), normal(20, 96, seed=1)
    swizzled = gradients(layer(), x, dy)
    monkeypatch.undo()
    for ours, expected in zip(swizzled, gradients(layer(), x, dy), strict=True):
        torch.testing.assert_close(ours, expected, rtol=2.0**-7, atol=1e-6)


@pytest.mark.usefixtures("blackwell")
def test_units_that_fail_are_not_used(caplog: pytest.LogCaptureFixture) -> None:
    """Where PyTorch has no such product, the reason is logged once, and layers train without it."""
    cpu = torch.device("cpu")
    assert not any(fp4_units._passes_self_test(cpu) for _ in range(2))  # pyright: ignore[reportPrivateUsage]
    assert len([record for record in caplog.records if "FP4 units of cpu are not used" in record.message]) == 1


def test_a_cpu_has_no_units() -> None:
    """On a CPU operands are dequantised, and the product is that of float32 matrices."""
    left = NVFP4Products(NEAREST).input(normal(20, 64).bfloat16())
    right = NVFP4Products(NEAREST).weight(normal(32, 64, seed=1).bfloat16())
    assert not left.swizzled
    assert torch.equal(multiply(left, right), (left.dequantized() @ right.dequantized().t()).bfloat16())
