"""Stochastic rounding to NVFP4, eager and Triton: the recorded codes, the mean over many draws, refused arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from longlive.kernels.eager import nvfp4 as eager
from longlive.kernels.nvfp4_format import NVFP4, SATURATION
from safetensors.torch import load_file
from torch import Tensor

DRAWS = 400


@pytest.fixture(params=["eager", "triton"])
def nvfp4(request: pytest.FixtureRequest) -> ModuleType:
    """One of the backends."""
    if request.param == "triton":
        pytest.importorskip("triton")
    return import_module(f"longlive.kernels.{request.param}.nvfp4")


@pytest.fixture
def device(nvfp4: ModuleType) -> str:
    return "cuda" if torch.cuda.is_available() and "triton" in nvfp4.__name__ else "cpu"


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in bf16."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def uniforms(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def codes(packed: NVFP4) -> Tensor:
    return torch.stack([packed.values & 15, packed.values >> 4], dim=-1).flatten(-2).cpu()


def mean_and_error(x: Tensor, rule: str, unbiased: bool) -> tuple[Tensor, Tensor]:
    """The mean of x, rounded in many ways, and its standard error, float64."""
    generator = torch.Generator().manual_seed(1)
    both = () if unbiased or rule == "static_6" else (2,)
    shape = (x.shape[0], x.shape[1])
    rounded = torch.stack(
        [
            eager.dequantize_nvfp4(
                eager.quantize_nvfp4_stochastic(
                    x, torch.rand((*both, *shape), generator=generator), rule, unbiased=unbiased, swizzled=False
                ),
                shape,
                torch.float32,
                swizzled=False,
            ).double()
            for _ in range(DRAWS)
        ]
    )
    return rounded.mean(0), rounded.std(0) / math.sqrt(DRAWS)


@pytest.mark.slow
def test_recorded_codes(nvfp4: ModuleType, device: str, golden: Callable[[str], Path]) -> None:
    """With the uniforms of the reference, codes and scales are the recorded ones, to the bit, signs of zeros too."""
    path = golden("weights_tiny").parent / "train" / "nvfp4_linear.safetensors"
    if not path.is_file():
        pytest.skip("nvfp4_linear is not here: set LONGLIVE_GOLDEN to the whole set of recorded runs")
    run = load_file(path)
    dy = run["dy"].flatten(0, 1).to(device)
    packed = nvfp4.quantize_nvfp4_stochastic(dy, run["sr.u"].to(device), "static_6", unbiased=False, swizzled=False)
    assert torch.equal(packed.values.cpu(), run["sr.static_6.values"])
    assert torch.equal(packed.scales.cpu().view(torch.uint8), run["sr.static_6.scales_2d"])


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "unbiased"), [("mse", True), ("static_6", True), ("mae", False), ("static_4", False)])
@pytest.mark.parametrize(("shape", "swizzled"), [((33, 272), False), ((130, 81), True)])
def test_backends_agree(rule: str, unbiased: bool, shape: tuple[int, int], swizzled: bool) -> None:
    """Eager and Triton agree to the bit at odd shapes and strides."""
    pytest.importorskip("triton")
    from longlive.kernels.triton import nvfp4 as triton_nvfp4

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = numbers(2 * shape[0], 2 * shape[1])[::2, ::2]
    random = uniforms(*(() if unbiased or rule == "static_4" else (2,)), *shape)
    options = {"unbiased": unbiased, "swizzled": swizzled}
    ours = eager.quantize_nvfp4_stochastic(x, random, rule, **options)
    other = triton_nvfp4.quantize_nvfp4_stochastic(x.to(device), random.to(device), rule, **options)
    assert torch.equal(ours.values, other.values.cpu())
    assert torch.equal(ours.scales.view(torch.uint8), other.scales.cpu().view(torch.uint8))
    assert torch.equal(ours.amax, other.amax.cpu())


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["mse", "static_6"])
def test_the_mean_over_many_draws_is_the_number(rule: str) -> None:
    """Unbiased rounding: the mean of every number differs from it by its standard error, as often as chance has it."""
    x = numbers(32, 256)
    mean, error = mean_and_error(x, rule, unbiased=True)
    z = (mean - x.double()) / error.clamp(min=1e-12)
    # Numbers on the grid are never rounded; those next to it too rarely for a normal distribution.
    z = z[error > 0.1 * error.median()]
    assert z.abs().max() < 6
    assert abs(float(z.square().mean()) - 1) < 6 * math.sqrt(2 / z.numel())
    assert abs(float(z.mean())) < 6 / math.sqrt(z.numel())


@pytest.mark.slow
def test_the_choice_of_the_reference_is_biased() -> None:
    """Comparing values that are rounded already moves means far beyond their standard errors; hence the default."""
    x = numbers(32, 256)
    mean, error = mean_and_error(x, "mse", unbiased=False)
    assert float((mean - x.double()).norm() / error.norm()) > 3


def test_no_block_of_an_unbiased_matrix_saturates() -> None:
    """The scale of every block holds its largest value, or the mean could not reach it."""
    x = numbers(64, 512)
    for rule in ("mse", "static_6"):
        packed = eager.quantize_nvfp4_stochastic(x, uniforms(64, 512), rule, swizzled=False)
        largest = x.float().unflatten(-1, (-1, 16)).abs().amax(-1)
        scaled = largest / (packed.scales.float() * packed.amax / packed.denominator)
        assert scaled.max() <= SATURATION
        assert packed.scales.float().max() <= 448


def test_numbers_on_the_grid_stay() -> None:
    """A number that E2M1 has under the scale of its block is never rounded away."""
    x = torch.tensor([[6, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3, -4, -6, 0]]) * 448
    packed = eager.quantize_nvfp4_stochastic(x, uniforms(1, 16), "static_6", swizzled=False)
    assert codes(packed)[0, :15].tolist() == [7, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15]
    assert int(codes(packed)[0, 15]) & 7 == 0


def test_a_block_far_below_the_maximum_is_not_lost(nvfp4: ModuleType, device: str) -> None:
    """Values below the smallest scale become one step of it now and then, in place of zero always."""
    x = torch.zeros(1, 32, device=device)
    x[0, 0], x[0, 16:] = 6.0 * 448, 2.0**-12
    for uniform, code in ((0.0, 0), (0.9999, 1)):
        packed = nvfp4.quantize_nvfp4_stochastic(x, torch.full_like(x, uniform), "static_6", swizzled=False)
        assert float(packed.scales.float()[0, 1]) == 2.0**-9
        assert {value & 7 for value in codes(packed)[0, 16:].tolist()} == {code}


def test_zeros_stay_and_what_is_not_finite_is_seen(nvfp4: ModuleType, device: str) -> None:
    """A matrix of zeros comes back as zeros, and a NaN as NaN, so that training can stop."""
    x, random = torch.zeros(2, 32, device=device), uniforms(2, 32).to(device)
    back = nvfp4.dequantize_nvfp4(nvfp4.quantize_nvfp4_stochastic(x, random), (2, 32), torch.float32)
    assert not back.any()
    x[1, 3] = math.nan
    back = nvfp4.dequantize_nvfp4(nvfp4.quantize_nvfp4_stochastic(x, random), (2, 32), torch.float32)
    assert back[1, 3].isnan()


def test_wrong_random_numbers_are_refused(nvfp4: ModuleType, device: str) -> None:
    """Uniforms must have one number for each value, or two where both candidates are rounded."""
    x = torch.ones(2, 32, device=device)
    with pytest.raises(ValueError, match=r"uniforms are \(2, 16\).* with unbiased rounding needs \(2, 32\)"):
        nvfp4.quantize_nvfp4_stochastic(x, torch.rand(2, 16, device=device))
    with pytest.raises(ValueError, match=r"rule mse without unbiased rounding needs \(2, 2, 32\)"):
        nvfp4.quantize_nvfp4_stochastic(x, torch.rand(2, 32, device=device), unbiased=False)
    with pytest.raises(ValueError, match="scale rule 'mse2' is unknown"):
        nvfp4.quantize_nvfp4_stochastic(x, torch.rand(2, 32, device=device), "mse2")
