"""NVFP4, eager and Triton: the recorded vectors to the bit, layouts, odd shapes and refused arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from longlive.kernels.eager import nvfp4 as eager
from longlive.kernels.nvfp4_format import NVFP4, RULES, swap_nibbles, swizzle_scales, unswizzle_scales
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = [
    *(("x", rule, rule, False) for rule in RULES),
    ("x", "mse2d", "mse", True),
    ("x", "static6_2d", "static_6", True),
    ("xt", "mse_T", "mse", False),
    ("xp", "mse", "mse", False),
    ("tiny", "mse", "mse", False),
    ("tiny", "static_6", "static_6", False),
]


@pytest.fixture(params=["eager", "triton"])
def nvfp4(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One of the backends, with new tensors filled with NaN, or bytes with 0xFF, to notice unwritten elements."""
    if request.param == "triton":
        pytest.importorskip("triton")

    def poisoned(*size: int, empty: Callable[..., Tensor] = torch.empty, **options: object) -> Tensor:
        made = empty(*size, **options)
        made.view(torch.uint8).fill_(0xFF)
        return made

    monkeypatch.setattr(torch, "empty", poisoned)
    return import_module(f"longlive.kernels.{request.param}.nvfp4")


@pytest.fixture
def device(nvfp4: ModuleType) -> str:
    return "cuda" if torch.cuda.is_available() and "triton" in nvfp4.__name__ else "cpu"


@pytest.fixture(scope="module")
def vectors(golden: Callable[[str], Path]) -> dict[str, Tensor]:
    return load_file(golden("nvfp4_vectors"))


def equal(a: NVFP4, b: NVFP4) -> bool:
    """Bit for bit."""
    scales = torch.equal(a.scales.cpu().view(torch.uint8), b.scales.cpu().view(torch.uint8))
    amax = torch.equal(a.amax.cpu().view(torch.int32), b.amax.cpu().view(torch.int32))
    return torch.equal(a.values.cpu(), b.values.cpu()) and scales and amax and a.denominator == b.denominator


def codes(packed: NVFP4) -> Tensor:
    return torch.stack([packed.values & 15, packed.values >> 4], dim=-1).flatten(-2).cpu()


@pytest.mark.slow
@pytest.mark.parametrize(("matrix", "name", "rule", "tile"), GOLDEN)
def test_recorded_vectors(
    nvfp4: ModuleType, device: str, vectors: dict[str, Tensor], matrix: str, name: str, rule: str, tile: bool
) -> None:
    """NVFP4 values, scales, amax and dequantised numbers are the recorded ones, to the bit."""
    if matrix not in vectors:
        pytest.skip(f"{matrix} is not in the subset of recorded vectors: set LONGLIVE_GOLDEN to the whole set")
    x = vectors[matrix].to(device)
    x = x.T if name == "mse_T" else x
    keys = ("values", "scales_2d", "scales_blocked", "amax", "dequant")
    case = {key: vectors[f"{matrix}.{name}.{key}"] for key in keys}
    packed = nvfp4.quantize_nvfp4(x, rule, tile=tile)
    rows, columns = case["scales_2d"].shape
    assert torch.equal(packed.values.cpu(), case["values"])
    assert torch.equal(packed.scales.cpu().view(torch.uint8), case["scales_blocked"])
    assert torch.equal(unswizzle_scales(packed.scales, rows, columns).cpu().view(torch.uint8), case["scales_2d"])
    assert torch.equal(packed.amax.cpu(), case["amax"][0])
    assert torch.equal(nvfp4.dequantize_nvfp4(packed, tuple(x.shape), torch.float32).cpu(), case["dequant"])


def test_recorded_weights_become_the_recorded_checkpoint(golden: Callable[[str], Path]) -> None:
    """Catches a division that the vectors do not."""
    weights, official = load_file(golden("weights_quant")), load_file(golden("weights_4o6"))
    layers = [name.removesuffix(".quantized_weight_values") for name in official if name.endswith("_weight_values")]
    assert layers
    for layer in layers:
        part = f"{layer}.quantized_weight_"
        amax = official[f"{part}amax"].reshape(())
        expected = NVFP4(official[f"{part}values"], official[f"{part}scale_factors"], amax, 6.0 * 256)
        assert equal(eager.quantize_nvfp4(weights[f"{layer.removeprefix('model.')}.weight"]), expected), layer


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 16), {"swizzled": False}),
        ((33, 272), {"swizzled": False, "high_first": True}),
        ((17, 81), {"rule": "mae"}),
        ((19, 40), {"rule": "abs_max", "swizzled": False, "tile": True}),
        ((130, 328), {"rule": "static_4", "tile": True, "high_first": True}),
    ],
)
def test_backends_agree_at_odd_shapes(shape: tuple[int, int], options: dict[str, object]) -> None:
    """Eager and Triton agree to the bit at odd shapes and strides, and nothing is written beside the output."""
    pytest.importorskip("triton")
    from longlive.kernels.triton import nvfp4 as triton_nvfp4

    device = "cuda" if torch.cuda.is_available() else "cpu"
    place = {name: options[name] for name in options.keys() & {"swizzled", "high_first"}}
    # Every other row and column of a larger matrix: strides count.
    x = torch.randn(2 * shape[0], 2 * shape[1], generator=torch.Generator().manual_seed(0)).half()[::2, ::2]
    packed, other = eager.quantize_nvfp4(x, **options), triton_nvfp4.quantize_nvfp4(x.to(device), **options)
    assert equal(packed, other)
    # A view with a border, to see that nothing is written beside it.
    border = torch.full((shape[0] + 2, shape[1] + 2), math.nan, dtype=torch.bfloat16, device=device)
    out = triton_nvfp4.dequantize_nvfp4(other, shape, torch.float32, out=border[1:-1, 1:-1], **place)
    assert torch.equal(out.cpu(), eager.dequantize_nvfp4(packed, shape, torch.bfloat16, **place))
    assert int(border.isnan().sum()) == border.numel() - x.numel()


def test_ties_go_to_the_even_code_and_signs_stay(nvfp4: ModuleType, device: str) -> None:
    """Ties go to the even code, and the code of a negative number has a sign, that of −0 too."""
    # A first block that makes the factor of scales 1, then one whose scale is 1 and whose values are ties.
    x = torch.zeros(1, 32, device=device)
    x[0, 0] = 6.0 * 448
    x[0, 16:] = torch.tensor([6, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -0.25, -0.75, -0.2, -6, 0.26, 0.0, -0.0, 4.99])
    packed = nvfp4.quantize_nvfp4(x, "static_6", swizzled=False)
    assert codes(packed)[0, 16:].tolist() == [7, 0, 2, 2, 4, 4, 6, 6, 8, 10, 8, 15, 1, 0, 8, 6]


def test_a_block_far_below_the_maximum_saturates_inside_its_codes(nvfp4: ModuleType, device: str) -> None:
    """A block with the smallest scale saturates at the largest code, and one too small for any scale is 0."""
    x = torch.zeros(1, 48, device=device)
    x[0, 0] = 6.0 * 448
    # Scale 2^-9, the smallest there is, for a maximum of 8.9 times that; and a block that not even this one holds.
    x[0, 16:32] = torch.tensor([8.9, -8.9] * 8) * 2.0**-9
    x[0, 32:] = -(2.0**-12)
    packed = nvfp4.quantize_nvfp4(x, "static_6", swizzled=False)
    assert codes(packed)[0, 16:32].tolist() == [7, 15] * 8
    assert codes(packed)[0, 32:].tolist() == [0] * 16


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-38, -1.0])
def test_a_matrix_of_one_value(nvfp4: ModuleType, device: str, rule: str, value: float) -> None:
    """Zeros come back as zeros, what is too small for any scale too, and a constant as nearly itself."""
    x = torch.full((2, 32), value, device=device)
    back = nvfp4.dequantize_nvfp4(nvfp4.quantize_nvfp4(x, rule), (2, 32), torch.float32)
    torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-37)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_does_not_come_back_as_numbers(nvfp4: ModuleType, device: str, bad: float) -> None:
    """NaN and infinity come back as NaN."""
    x = torch.ones(2, 32, device=device)
    x[1, 3] = bad
    assert nvfp4.dequantize_nvfp4(nvfp4.quantize_nvfp4(x), (2, 32), torch.float32)[1, 3].isnan()


def test_tiles_quantise_a_matrix_and_its_transpose_alike() -> None:
    """A matrix and its transpose have the same codes where scales are those of tiles."""
    x = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    for rule in RULES:
        straight, turned = (eager.quantize_nvfp4(m, rule, tile=True, swizzled=False) for m in (x, x.T))
        assert torch.equal(codes(straight), codes(turned).T)


def test_nibbles_are_low_first_unless_asked() -> None:
    """Even columns are in the low nibble, or with `high_first` in the high one."""
    x = torch.zeros(1, 16)
    x[0, 0], x[0, 1] = 6.0, -3.0
    low, high = (eager.quantize_nvfp4(x, "static_6", swizzled=False, high_first=flag) for flag in (False, True))
    assert (int(low.values[0, 0]), int(high.values[0, 0])) == (0xD7, 0x7D)
    assert torch.equal(swap_nibbles(low.values), high.values)


@pytest.mark.parametrize(("rows", "columns"), [(128, 4), (256, 12), (100, 5), (1, 1)])
def test_swizzle_is_the_layout_of_cublas_and_turns_back(rows: int, columns: int) -> None:
    """Swizzled scales have the layout of cuBLAS, with zeros as padding, and unswizzling is the inverse."""
    scales = torch.rand(rows, columns).to(torch.float8_e4m3fn)
    flat = swizzle_scales(scales)
    width = -(-columns // 4) * 4
    assert (flat.numel(), flat.dtype) == (-(-rows // 128) * 128 * width, scales.dtype)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    tile = (row // 128) * (width // 4) + column // 4
    place = tile * 512 + (row % 32) * 16 + (row % 128) // 32 * 4 + column % 4
    assert torch.equal(flat.float()[place], scales.float())
    assert flat.float().sum() == pytest.approx(scales.float().sum().item())
    assert torch.equal(unswizzle_scales(flat, rows, columns).float(), scales.float())


def test_an_unknown_rule_is_named_with_the_known_ones(nvfp4: ModuleType, device: str) -> None:
    """An unknown rule for scales is refused with the known ones."""
    with pytest.raises(ValueError, match=r"'mse2'.*static_6, static_4, mse, mae, abs_max"):
        nvfp4.quantize_nvfp4(torch.ones(1, 16, device=device), "mse2")


def test_codes_or_scales_of_another_matrix_are_refused(nvfp4: ModuleType, device: str) -> None:
    """Codes or scales that do not cover the shape of the matrix are refused with both sizes."""
    packed = nvfp4.quantize_nvfp4(torch.ones(128, 64, device=device))
    with pytest.raises(ValueError, match=r"a 128×64 matrix do not cover a 129×64 matrix"):
        nvfp4.dequantize_nvfp4(packed, (129, 64), torch.float32)
    with pytest.raises(ValueError, match=r"512 swizzled NVFP4 scales, not 511"):
        nvfp4.dequantize_nvfp4(packed._replace(scales=packed.scales[1:]), (128, 64), torch.float32)
    with pytest.raises(ValueError, match=r"512 swizzled scales do not fit 129×4"):
        unswizzle_scales(packed.scales, 129, 4)


def test_a_parameter_quantises_without_its_gradient(nvfp4: ModuleType, device: str) -> None:
    """A parameter is quantised without a gradient graph."""
    weight = torch.nn.Parameter(torch.ones(16, 16, device=device))
    assert not nvfp4.quantize_nvfp4(weight).amax.requires_grad


def test_long_matrices_are_quantised_in_strips_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix in strips has the codes and numbers of the whole matrix, to the bit."""
    x = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    for tile in (False, True):
        whole = eager.quantize_nvfp4(x, tile=tile)
        back = eager.dequantize_nvfp4(whole, (300, 64), torch.float32)
        with monkeypatch.context() as patch:
            patch.setattr(eager, "_STRIP", 1 << 11)
            assert equal(eager.quantize_nvfp4(x, tile=tile), whole)
            assert torch.equal(eager.dequantize_nvfp4(whole, (300, 64), torch.float32), back)
