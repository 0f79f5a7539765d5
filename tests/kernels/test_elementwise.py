"""Every Triton kernel against the eager op: on a GPU if there is one, otherwise in Triton's interpreter."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton")

from longlive.kernels import eager
from longlive.kernels import triton as triton_ops
from longlive.kernels.triton import activation, fp8, gate, norm, rope, rows, vae

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-6
# The interpreter uses numpy, which warns of every infinity.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
RUNS = [1, 3]
E4M3 = torch.float8_e4m3fn


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills new tensors with NaN, or bytes with 0x5A, so that elements that a kernel does not write are noticed."""
    torch.manual_seed(0)
    for make in (torch.empty, torch.empty_like):

        def filled(*args: object, make: Callable[..., Tensor] = make, **options: object) -> Tensor:
            made = make(*args, **options)
            return made.fill_(math.nan if made.is_floating_point() else 0x5A)

        monkeypatch.setattr(torch, make.__name__, filled)


def normal(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def modulation(dtype: torch.dtype, batch: int, runs: int, width: int) -> tuple[Tensor, ...]:
    """Shift, scale and gate as the model cuts them: strided views of one projection."""
    return normal(dtype, batch, runs, 3, width).unbind(2)


def angles(batch: int, length: int, pairs: int) -> tuple[Tensor, Tensor]:
    theta = torch.randn(batch, length, pairs, device=DEVICE)
    return theta.cos(), theta.sin()


def off_by(value: Tensor, expected: Tensor, *, eps: float | None = None, terms: float = 1.0) -> Tensor:
    """Distance in units of the last place of the larger of |expected| and `terms`, what was summed: sums cancel."""
    assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
    magnitude = expected.double().abs().clamp(min=terms)
    ulp = magnitude.log2().floor().exp2() * (eps or torch.finfo(expected.dtype).eps)
    return (value.double() - expected.double()).abs() / ulp


def assert_normed(value: Tensor, expected: Tensor, *, eps: float | None = None, terms: float = 1.0) -> None:
    """A float32 sum in another order moves the norm by a few float32 ulp; eager itself is as far from exact.

    Rounded to fewer bits that rarely shows: where it does, one rounding falls to the other side, and what follows
    (weight, scale) may make two of it. `eps` is that of the coarsest dtype on the way.
    """
    off = off_by(value, expected, eps=eps, terms=terms)
    if (eps or torch.finfo(value.dtype).eps) == torch.finfo(torch.float32).eps:
        assert float(off.max()) <= 8
    else:
        assert float(off.max()) <= 2
        assert float((off == 0).double().mean()) >= 0.99


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(48,), (3, 7), (2, 5, 204)], ids=str)
def test_rms_norm(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """RMSNorm in Triton equals eager within rounding, for one row and for rows in several dimensions."""
    x, weight = 7 * normal(dtype, *shape), normal(dtype, shape[-1])
    assert_normed(norm.rms_norm(x, weight, EPS), eager.rms_norm(x, weight, EPS))


@pytest.mark.slow
@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_modulate(dtype: torch.dtype, runs: int) -> None:
    """LayerNorm modulation in Triton equals eager within rounding, for one run of tokens and for several."""
    x, (shift, scale, _) = 3 * normal(dtype, 2, 9, 204) + 1, modulation(dtype, 2, runs, 204)
    assert_normed(norm.layer_norm_modulate(x, scale, shift, EPS), eager.layer_norm_modulate(x, scale, shift, EPS))


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gate_residual_is_exact(dtype: torch.dtype, runs: int) -> None:
    """One product and one sum, each rounded where eager rounds."""
    x, y = normal(dtype, 2, 9, 204), normal(dtype, 2, 204, 9).mT
    factor = modulation(torch.float32, 2, runs, 204)[2]
    assert torch.equal(gate.gate_residual(x, y, factor), eager.gate_residual(x, y.contiguous(), factor))


@pytest.mark.slow
@pytest.mark.parametrize("runs", [None, *RUNS])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["gate_residual_norm", "gate_residual_modulate"])
def test_gate_residual_and_the_norm_after_it(op: str, dtype: torch.dtype, runs: int | None) -> None:
    """The sum is exact, so both norms see the same numbers."""
    x, y = 3 * normal(dtype, 2, 9, 204) + 1, normal(dtype, 2, 9, 204)
    shift, scale, factor = modulation(dtype, 2, runs or 3, 204)
    after = (scale, shift) if op == "gate_residual_modulate" else (normal(dtype, 204), normal(dtype, 204))
    arguments = (x, y, None if runs is None else factor, *after, EPS)
    total, normed = getattr(gate, op)(*arguments)
    expected_total, expected = getattr(eager, op)(*arguments)
    assert torch.equal(total, expected_total)
    assert_normed(normed, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_after_the_residual_is_that_of_torch(dtype: torch.dtype) -> None:
    """A model's `nn.LayerNorm` can be handed over to the op without a bit changing."""
    layer = nn.LayerNorm(48, eps=EPS, device=DEVICE).to(dtype)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    x, y = normal(dtype, 2, 5, 48), normal(dtype, 2, 5, 48)
    total, normed = eager.gate_residual_norm(x, y, None, layer.weight, layer.bias, EPS)
    assert torch.equal(total, x + y)
    assert torch.equal(normed, layer(x + y))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rope_rotate(dtype: torch.dtype, batch: int) -> None:
    """Within an ulp of the products: a compiler may leave one of the two unrounded. x may be cut from a memory."""
    cos, sin = angles(batch, 5, 17)
    tokens_first, heads_first = normal(dtype, 2, 11, 6, 34), normal(dtype, 2, 6, 11, 34).transpose(1, 2)
    for x in (tokens_first[:, 3:8], heads_first[:, 3:8]):
        value, expected = rope.rope_rotate(x, cos, sin), eager.rope_rotate(x, cos, sin)
        assert float(off_by(value, expected, terms=float(x.abs().max())).max()) <= 1


@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_rope(dtype: torch.dtype, rotated: bool) -> None:
    """RMSNorm with RoPE in Triton equals eager within rounding, with and without rotation."""
    x, weight = 7 * normal(dtype, 2, 5, 204), normal(dtype, 204)
    cos, sin = angles(2, 5, 17) if rotated else (None, None)
    assert_normed(*(op.rms_norm_rope(x, weight, cos, sin, 6, EPS) for op in (norm, eager)))


@pytest.mark.slow
@pytest.mark.parametrize("kept", [*DTYPES, E4M3], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_keys_are_written_to_a_slot_of_a_memory(dtype: torch.dtype, kept: torch.dtype) -> None:
    """A strided view of any float dtype is filled as eager fills it, and its neighbours stay as they were."""
    x, weight, (cos, sin) = normal(dtype, 2, 5, 204), 300 * normal(dtype, 204), angles(1, 5, 17)
    memories = [torch.full((2, 6, 15, 34), 7.0, device=DEVICE).to(kept).transpose(1, 2) for _ in range(2)]
    for op, memory in zip((norm, eager), memories, strict=True):
        slot = memory[:, 5:10]
        assert op.rms_norm_rope(x, weight, cos, sin, 6, EPS, out=slot) is slot
    value, expected = (memory.float() for memory in memories)
    assert_normed(value, expected, eps=max(torch.finfo(dtype).eps, torch.finfo(kept).eps), terms=300)
    assert bool((value[:, [*range(5), *range(10, 15)]] == 7).all())
    assert kept != E4M3 or float(value.max()) == 448


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_tanh(dtype: torch.dtype) -> None:
    """An ulp in 16 bits, 4 in float32. Below −3 eager's own 1 + tanh cancels: it is off by a float32 ulp of x."""
    x = 4 * normal(dtype, 3, 1031)
    value, expected = activation.gelu_tanh(x), eager.gelu_tanh(x)
    cancelled = x.double().abs() * torch.finfo(torch.float32).eps
    ulp = expected.double().abs().clamp(min=torch.finfo(dtype).tiny).log2().floor().exp2() * torch.finfo(dtype).eps
    assert value.dtype == dtype
    off = (value.double() - expected.double()).abs()
    assert bool((off <= (4 if dtype == torch.float32 else 1) * ulp + cancelled).all())


def test_gelu_tanh_does_not_overflow() -> None:
    """GELU in Triton is 0 for large negative numbers and x for large positive ones, up to the largest float32."""
    x = torch.tensor([-3e38, -1e30, -100.0, -20.0, 0.0, 20.0, 100.0, 1e30, 3e38], device=DEVICE)
    assert activation.gelu_tanh(x).tolist() == [0.0] * 5 + x.tolist()[5:]


@pytest.mark.parametrize("dtype", DTYPES)
def test_fp8_codes_and_scales_are_exact(dtype: torch.dtype) -> None:
    """A maximum is the same in any order and both divisions are true ones, so nothing may differ."""
    x = normal(dtype, 40, 201) * torch.linspace(-12, 12, 40, device=DEVICE).exp2().to(dtype).unsqueeze(1)
    x[3], x[4], x[5, 7] = 0, torch.finfo(dtype).smallest_normal, math.nan
    x[7] = 2.0**-149 if dtype == torch.float32 else 1  # over 448 that is nothing
    x[6, :9] = torch.tensor([448.0, 17.0, 18.0, 19.0, -17.0, 0.0146484375, 0.0009765625, 0.0029296875, -0.0])
    x[6, 9:] = 0
    (codes, scales), (expected, expected_scales) = fp8.quantize_fp8_rows(x), eager.quantize_fp8_rows(x)
    assert (codes.dtype, codes.shape, scales.dtype, scales.shape) == (E4M3, (40, 201), torch.float32, (40, 1))
    torch.testing.assert_close(scales, expected_scales, rtol=0, atol=0, equal_nan=True)
    number = torch.arange(40) != 5
    assert torch.equal(codes.view(torch.uint8)[number], expected.view(torch.uint8)[number])
    assert bool(codes[5].float().isnan().all()) and bool(expected[5].float().isnan().all())
    assert float(scales[3]) == 1 and not bool(codes[3].float().any())
    assert codes[6, :9].tolist() == [448, 16, 18, 20, -16, 0.015625, 0, 0.00390625, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "heads", "width"), [(3, 24, 128), (37, 2, 20), (1, 1, 1)])
def test_heads_in_fp8_are_exact(dtype: torch.dtype, tokens: int, heads: int, width: int) -> None:
    """Each head of each film has the scale of its own largest number; a NaN spoils its own head only."""
    x = normal(dtype, 2, tokens, heads + 1, width)[:, :, 1:]
    x = x * torch.linspace(-9, 9, heads, device=DEVICE).exp2().to(dtype).unsqueeze(1)
    x[1, 0, -1] = 0 if tokens == 1 else math.nan
    (codes, scales), (expected, wanted_scales) = fp8.quantize_fp8_heads(x), eager.quantize_fp8_heads(x)
    assert (codes.dtype, codes.shape, scales.dtype, scales.shape) == (E4M3, x.shape, torch.float32, (2, 1, heads, 1))
    torch.testing.assert_close(scales, wanted_scales, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(codes.float(), expected.float(), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(scales[0, 0, :, 0], x[0].float().abs().amax((0, 2)) / 448)
    assert bool(codes[0].float().isfinite().all()) and bool(codes[1, :, : heads - 1].float().isfinite().all())


def assert_quantised(value: tuple[Tensor, ...], expected: tuple[Tensor, ...], dtype: torch.dtype) -> None:
    """Codes and scales of eager, but where the norm before them rounded to the other side."""
    (codes, scales), (wanted, wanted_scales) = value[-2:], expected[-2:]
    assert (codes.dtype, codes.shape, scales.shape) == (E4M3, wanted.shape, wanted_scales.shape)
    torch.testing.assert_close(scales, wanted_scales, rtol=2 * torch.finfo(dtype).eps, atol=0)
    assert float((codes.view(torch.uint8) == wanted.view(torch.uint8)).double().mean()) >= 0.99
    torch.testing.assert_close(codes.float() * scales, wanted.float() * wanted_scales, rtol=0.07, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("width", [201, 3072])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["layer_norm_modulate", "gate_residual_norm", "gate_residual_modulate"])
def test_norms_write_fp8(op: str, dtype: torch.dtype, width: int) -> None:
    """A norm in FP8 is the norm, rounded to its dtype, then quantised by rows; the sum before it is exact."""
    x, y = 3 * normal(dtype, 1, 4, width) + 1, normal(dtype, 1, 4, width)
    shift, scale, factor = modulation(dtype, 1, 2, width)
    arguments = {
        "layer_norm_modulate": (x, scale, shift, EPS),
        "gate_residual_norm": (x, y, factor, scale[0, 0], shift[0, 0], EPS),
        "gate_residual_modulate": (x, y, None, scale, shift, EPS),
    }[op]
    value, expected = (getattr(ops, f"{op}_fp8")(*arguments) for ops in (triton_ops, eager))
    assert all(torch.equal(total, wanted) for total, wanted in zip(value[:-2], expected[:-2], strict=True))
    assert_quantised(value, expected, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("width", [201, 9216, 14336])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_writes_fp8(dtype: torch.dtype, width: int) -> None:
    """GELU in FP8 is GELU, rounded to its dtype, then quantised by rows, for any number of dimensions."""
    x = 4 * normal(dtype, 1, 3, width)
    assert_quantised(triton_ops.gelu_tanh_fp8(x), eager.gelu_tanh_fp8(x), dtype)


@pytest.mark.parametrize("width", [3072, 9216, 14336])
def test_fp8_rows_of_production_are_exact(width: int) -> None:
    """Codes and scales are those of eager at the widths of the 5B model."""
    x = normal(torch.bfloat16, 2, width)
    for value, expected in zip(fp8.quantize_fp8_rows(x), eager.quantize_fp8_rows(x), strict=True):
        assert torch.equal(value.view(torch.uint8), expected.view(torch.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_read_columns_of_a_larger_matrix(dtype: torch.dtype) -> None:
    """q and k are parts of one product's columns: their norms read the rows where they lie, without a copy."""
    columns, weight, (cos, sin) = normal(dtype, 2, 5, 3 * 48), normal(dtype, 48), angles(1, 5, 4)
    x = columns[..., 48:96]
    assert rows.spaced_rows(x) == (x, 3 * 48) and rows.spaced_rows(x)[0].data_ptr() == x.data_ptr()
    assert_normed(norm.rms_norm(x, weight, EPS), eager.rms_norm(x, weight, EPS))
    assert_normed(*(op.rms_norm_rope(x, weight, cos, sin, 6, EPS) for op in (norm, eager)))
    crossed = normal(dtype, 5, 2, 48).transpose(0, 1)
    assert rows.spaced_rows(crossed)[1] == 48
    assert_normed(norm.rms_norm(crossed, weight, EPS), eager.rms_norm(crossed, weight, EPS))


def divisions(x: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The quotient to nearest, that of `bits.divide_by`, and the product with the reciprocal."""
    reciprocal = 1 / divisor
    quotient = x * reciprocal
    remainder = (x.double() - quotient.double() * divisor.double()).float()
    return x / divisor, (quotient.double() + remainder.double() * reciprocal.double()).float(), quotient


def test_a_division_by_one_number_is_exact() -> None:
    """A product with the reciprocal and a correction by the exact remainder gives the quotient to nearest.

    Float64 stands in for the fused multiply-add that the interpreter lacks; it holds products of float32 exactly.
    """
    mantissas = torch.arange(1 << 23, 1 << 24, dtype=torch.float32)
    for divisor in (6.0 * 256, 6.0 * 448, 4.0 * 448):  # those of NVFP4
        exact, corrected, plain = divisions(mantissas, torch.tensor(divisor))
        assert torch.equal(corrected, exact) and not torch.equal(plain, exact)
    exact, corrected, _ = divisions(torch.randn(100, 1000), torch.randn(100, 1).exp() / 448)
    assert torch.equal(corrected, exact)


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 7, 11, 24), (1, 1, 2, 3, 5)], ids=str)
def test_rms_silu_pad(dtype: torch.dtype, past: bool, shape: tuple[int, ...]) -> None:
    """The two frames before are copied, exactly; a film begins behind zeros."""
    x, gamma = 5 * normal(dtype, *shape), normal(dtype, shape[-1])
    x[0, 0, 0, 0] = 0
    # As the stream keeps them: the last two of the frames before.
    before = normal(dtype, shape[0], 4, *shape[2:])[:, -2:] if past else None
    value, expected = vae.rms_silu_pad(x, gamma, before), eager.rms_silu_pad(x, gamma, before)
    assert torch.equal(value[:, :2], torch.zeros_like(value[:, :2]) if before is None else before)
    assert_normed(value, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 7, 11, 24), (1, 1, 2, 3, 5)], ids=str)
def test_upsample_nearest_is_exact(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Nearest upsampling in Triton repeats every pixel twice in height and width, to the bit."""
    x = normal(dtype, *shape)
    value = vae.upsample_nearest(x)
    assert torch.equal(value, eager.upsample_nearest(x))
    assert torch.equal(value, x.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_uint8_is_exact(dtype: torch.dtype) -> None:
    """Ties go to the even level, values outside are clamped, NaN is black."""
    video = normal(dtype, 1, 3, 5, 7, 31)
    levels = (torch.arange(256, device=DEVICE) / 127.5 - 1).to(dtype)
    ties = (torch.arange(256, device=DEVICE) / 255 * 2 - 1 + 1 / 255).to(dtype)
    video.view(-1)[:512] = torch.cat((levels, ties))
    video.view(-1)[512:515] = torch.tensor([math.inf, -math.inf, math.nan])
    frames = vae.to_uint8(video)
    assert torch.equal(frames, eager.to_uint8(video))
    assert frames.permute(3, 0, 1, 2).reshape(-1)[512:515].tolist() == [255, 0, 0]
    if dtype == torch.float32:
        assert frames.permute(3, 0, 1, 2).reshape(-1)[:256].tolist() == list(range(256))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_row(dtype: torch.dtype) -> None:
    """NaN and infinity spread over their own rows of RMSNorm only, in Triton as in eager."""
    x, weight = normal(dtype, 2, 4, 48), normal(dtype, 48)
    x[0, 1, 3], x[1, 0, 5], x[1, 2, 0] = math.nan, math.inf, -math.inf
    value, expected = norm.rms_norm(x, weight, EPS), eager.rms_norm(x, weight, EPS)
    assert torch.equal(value.isnan(), expected.isnan()) and bool(value.isnan().any())
    assert_normed(value.nan_to_num(), expected.nan_to_num())


def test_a_shape_that_does_not_fit_is_refused() -> None:
    """A kernel does not look at shapes: without the refusal it would read beside the tensor."""
    x, weight = torch.ones(1, 6, 8), torch.ones(8)
    with pytest.raises(ValueError, match=r"weight has shape \[4\], expected \[8\]"):
        norm.rms_norm(x, weight[:4], EPS)
    with pytest.raises(ValueError, match=r"scale has 4 runs, which do not divide 6 tokens"):
        norm.layer_norm_modulate(x, torch.ones(1, 4, 8), torch.ones(1, 1, 8), EPS)
    with pytest.raises(ValueError, match=r"y has shape \[1, 5, 8\]"):
        gate.gate_residual(x, x[:, :5], torch.ones(1, 1, 8))
    with pytest.raises(ValueError, match=r"cos has shape \[1, 5, 2\], expected \[1, 6, 2\]"):
        rope.rope_rotate(x.view(1, 6, 2, 4), torch.ones(1, 5, 2), torch.ones(1, 5, 2))
    with pytest.raises(ValueError, match=r"out has shape \[1, 6, 4, 2\], expected \[1, 6, 2, 4\]"):
        norm.rms_norm_rope(x, weight, None, None, 2, EPS, out=x.view(1, 6, 4, 2))
    with pytest.raises(ValueError, match=r"past has shape"):
        vae.rms_silu_pad(torch.ones(1, 1, 2, 2, 4), torch.ones(4), torch.ones(1, 1, 2, 2, 4))
    with pytest.raises(ValueError, match=r"video has shape \[1, 4, 1, 2, 2\]"):
        vae.to_uint8(torch.ones(1, 4, 1, 2, 2))
