"""The NVFP4 kernels. Each program handles ROWS × COLUMNS of one matrix of a batch."""

import triton
import triton.language as tl

from .bits import decode_e2m1, decode_e4m3, divide_by, encode_e2m1, encode_e4m3, round_e2m1, round_e2m1_stochastic
from .rows import part_indices, round_as


# A slot's amax lies 4 bytes behind the one before it, so that all but some would be compiled a second time.
@triton.jit(do_not_specialize_on_alignment=["bits"])
def find_amax(
    x: tl.tensor,
    bits: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    x_batch: tl.tensor,
    x_row: tl.tensor,
    x_column: tl.tensor,
    bits_batch: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Takes the maximum of the matrix's magnitudes into `bits`, the int32 view of amax, which must be 0 before."""
    batch = tl.program_id(2).to(tl.int64)
    value = _load(x + batch * x_batch, rows, columns, x_row, x_column, ROWS, COLUMNS)
    # Magnitudes have the order of their bits, with NaN above all, so the integer maximum keeps a NaN.
    magnitudes = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    tl.atomic_max(bits + batch * bits_batch, tl.max(tl.max(magnitudes, 1), 0))


@triton.jit(do_not_specialize_on_alignment=["amax"])
def quantize(
    x: tl.tensor,
    values: tl.tensor,
    scales: tl.tensor,
    amax: tl.tensor,
    uniforms: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    x_batch: tl.tensor,
    x_row: tl.tensor,
    x_column: tl.tensor,
    values_batch: tl.tensor,
    scales_batch: tl.tensor,
    amax_batch: tl.tensor,
    RULE: tl.constexpr,
    DENOMINATOR: tl.constexpr,
    MIN_AMAX: tl.constexpr,
    GROUP: tl.constexpr,
    SWIZZLED: tl.constexpr,
    HIGH_FIRST: tl.constexpr,
    ROUNDING: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Quantises with the amax of `find_amax`; GROUP rows share a scale. ROUNDING: see `quantize_batch`."""
    batch = tl.program_id(2).to(tl.int64)
    value = _load(x + batch * x_batch, rows, columns, x_row, x_column, ROWS, COLUMNS)
    largest = tl.load(amax + batch * amax_batch)
    encode = tl.where(largest >= MIN_AMAX, tl.div_rn(DENOMINATOR, tl.maximum(largest, MIN_AMAX)), 0.0)
    blocks = tl.reshape(value, (ROWS // GROUP, GROUP, COLUMNS // 16, 16))
    magnitudes = tl.abs(blocks)
    if ROUNDING == "nearest":
        code = _choose(magnitudes, encode, largest, RULE, DENOMINATOR)
        scale = decode_e4m3(code)
        codes = encode_e2m1(blocks * _per_value(_reciprocal(scale, encode)))
    else:
        code, scale, rounded = _round_stochastic(
            magnitudes, uniforms, rows, columns, encode, largest, RULE, DENOMINATOR, ROUNDING, ROWS, COLUMNS, GROUP
        )
        codes = encode_e2m1(rounded) ^ ((blocks.to(tl.uint32, bitcast=True) >> 28) & 8).to(tl.uint8)
    codes = tl.where(_per_value(scale) > 0, codes, 0)
    even, odd = tl.split(tl.reshape(codes, (ROWS, COLUMNS // 2, 2)))
    packed = (even << 4) | odd if HIGH_FIRST else (odd << 4) | even
    row, column, mask = part_indices(height, width // 2, ROWS, COLUMNS // 2)
    tl.store(values + batch * values_batch + row * (width // 2) + column, packed, mask=mask)
    code = tl.broadcast_to(code[:, None, :], (ROWS // GROUP, GROUP, COLUMNS // 16))
    row, column, mask = part_indices(height, width // 16, ROWS, COLUMNS // 16)
    position = _scale_offset(row, column, width // 16, SWIZZLED)
    tl.store(scales + batch * scales_batch + position, tl.reshape(code, (ROWS, COLUMNS // 16)), mask=mask)


@triton.jit(do_not_specialize=["slot_mask"])
def dequantize(
    values: tl.tensor,
    scales: tl.tensor,
    amax: tl.tensor,
    out: tl.tensor,
    mean: tl.tensor | None,
    slot_mask: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    width: tl.tensor,
    slots: tl.tensor,
    values_batch: tl.tensor,
    values_slot: tl.tensor,
    scales_batch: tl.tensor,
    scales_slot: tl.tensor,
    amax_batch: tl.tensor,
    amax_slot: tl.tensor,
    out_batch: tl.tensor,
    out_slot: tl.tensor,
    out_row: tl.tensor,
    out_column: tl.tensor,
    DENOMINATOR: tl.constexpr,
    SWIZZLED: tl.constexpr,
    HIGH_FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Dequantises the slots whose bit is set in `slot_mask`, and adds the means of their columns if there are any."""
    batch = (tl.program_id(2) // slots).to(tl.int64)
    slot = (tl.program_id(2) % slots).to(tl.int64)
    if (slot_mask.to(tl.int64) >> slot) & 1 == 0:
        return
    row, column, mask = part_indices(rows, width // 2, ROWS, COLUMNS // 2)
    packed = tl.load(
        values + batch * values_batch + slot * values_slot + row * (width // 2) + column, mask=mask, other=0
    )
    low, high = decode_e2m1(packed & 15), decode_e2m1(packed >> 4)
    value = tl.join(high, low) if HIGH_FIRST else tl.join(low, high)
    row, column, mask = part_indices(rows, width // 16, ROWS, COLUMNS // 16)
    position = _scale_offset(row, column, width // 16, SWIZZLED)
    scale = decode_e4m3(tl.load(scales + batch * scales_batch + slot * scales_slot + position, mask=mask, other=0))
    largest = tl.load(amax + batch * amax_batch + slot * amax_slot)
    value = tl.reshape(value, (ROWS, COLUMNS // 16, 16)) * scale[:, :, None]
    value = tl.reshape(divide_by(value * largest, tl.full((), DENOMINATOR, tl.float32)), (ROWS, COLUMNS))
    row, column, mask = part_indices(rows, columns, ROWS, COLUMNS)
    if mean is not None:
        average = tl.load(mean + (batch * slots + slot) * columns + column, mask=column < columns, other=0.0)
        value = round_as(value, out) + average
    target = out + batch * out_batch + slot * out_slot + row * out_row + column * out_column
    tl.store(target, round_as(value, out), mask=mask)


@triton.jit
def _load(
    x: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    x_row: tl.tensor,
    x_column: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> tl.tensor:
    """This program's part of a matrix, `[ROWS, COLUMNS]` float32, with zeros outside the matrix."""
    row, column, mask = part_indices(rows, columns, ROWS, COLUMNS)
    return tl.load(x + row * x_row + column.to(tl.int64) * x_column, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _scale_offset(row: tl.tensor, column: tl.tensor, width: tl.tensor, SWIZZLED: tl.constexpr) -> tl.tensor:
    """Offset of the scale of a row and a block of columns, in row-major order or in the 128×4 layout."""
    if SWIZZLED:
        tile = row // 128 * tl.cdiv(width, 4) + column // 4
        return tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + column % 4
    return row * width + column


@triton.jit
def _per_value(x: tl.tensor) -> tl.tensor:
    """`[G, C]` → `[G, 1, C, 1]`, to broadcast a number per scale over the values that share the scale."""
    return x[:, None, :, None]


@triton.jit
def _reciprocal(scale: tl.tensor, encode: tl.tensor) -> tl.tensor:
    """The factor of values before rounding; 0 if the scale is 0 or NaN."""
    decode = tl.div_rn(1.0, tl.where(encode > 0, encode, 1.0))
    return tl.where(scale > 0, tl.div_rn(1.0, tl.where(scale > 0, decode * scale, 1.0)), 0.0)


@triton.jit
def _round_stochastic(
    magnitudes: tl.tensor,
    uniforms: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    encode: tl.tensor,
    amax: tl.tensor,
    RULE: tl.constexpr,
    DENOMINATOR: tl.constexpr,
    ROUNDING: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Codes of the scales, the scales, and magnitudes `[G, H, C, 16]` rounded stochastically to the E2M1 grid."""
    random = _load_random(uniforms, rows, columns, ROWS, COLUMNS, GROUP)
    if ROUNDING == "unbiased":
        code = _unsaturated(magnitudes, _choose(magnitudes, encode, amax, RULE, DENOMINATOR), encode)
    else:
        code = encode_e4m3(_base_scale(magnitudes, encode, RULE))
    scale = decode_e4m3(code)
    rounded = round_e2m1_stochastic(magnitudes * _per_value(_reciprocal(scale, encode)), random)
    if ROUNDING == "biased" and RULE != "static_6" and RULE != "static_4":
        random = _load_random(uniforms + rows.to(tl.int64) * columns, rows, columns, ROWS, COLUMNS, GROUP)
        other_code = encode_e4m3(_base_scale(magnitudes, encode, RULE) * 1.5)
        other_scale = decode_e4m3(other_code)
        other = round_e2m1_stochastic(magnitudes * _per_value(_reciprocal(other_scale, encode)), random)
        better = _error(other, magnitudes, other_scale, amax, RULE, DENOMINATOR) < _error(
            rounded, magnitudes, scale, amax, RULE, DENOMINATOR
        )
        code = tl.where(better, other_code, code)
        scale = tl.where(better, other_scale, scale)
        rounded = tl.where(_per_value(better), other, rounded)
    return code, scale, rounded


@triton.jit
def _load_random(
    uniforms: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
) -> tl.tensor:
    """Random numbers in [−½, ½) for this program's values, `[G, H, C, 16]`, with zeros outside the matrix."""
    row, column, mask = part_indices(rows, columns, ROWS, COLUMNS)
    random = tl.load(uniforms + row * columns + column, mask=mask, other=0.5)
    return tl.reshape(random - 0.5, (ROWS // GROUP, GROUP, COLUMNS // 16, 16))


@triton.jit
def _base_scale(magnitudes: tl.tensor, encode: tl.tensor, RULE: tl.constexpr) -> tl.tensor:
    """Scales of magnitudes `[G, H, C, 16]` before rounding, `[G, C]`: the largest one becomes 6, or 4 for static_4."""
    peaks = tl.max(tl.max(magnitudes, 3), 1)
    return tl.div_rn(peaks, 4.0 if RULE == "static_4" else 6.0) * encode


@triton.jit
def _unsaturated(magnitudes: tl.tensor, code: tl.tensor, encode: tl.tensor) -> tl.tensor:
    """Scales of which those that cannot hold the largest magnitude are replaced by the next larger one of E4M3."""
    peaks = tl.max(tl.max(magnitudes, 3), 1)
    scale = decode_e4m3(code)
    # The limit is SATURATION of `nvfp4_format`.
    scaled = peaks * _reciprocal(scale, encode)
    short = (scaled > 6.0 * (1 + 2.0**-20)) | ((scale == 0) & (peaks > 0))  # pyright: ignore[reportOperatorIssue]
    return tl.where(short, tl.minimum(code + 1, 0x7E), code).to(tl.uint8)


@triton.jit
def _choose(
    magnitudes: tl.tensor, encode: tl.tensor, amax: tl.tensor, RULE: tl.constexpr, DENOMINATOR: tl.constexpr
) -> tl.tensor:
    """The scales of magnitudes `[G, H, C, 16]` by the rule, `[G, C]`, as bits of float8_e4m3fn in uint8."""
    base = _base_scale(magnitudes, encode, RULE)
    code = encode_e4m3(base)
    if RULE != "static_6" and RULE != "static_4":
        smaller = encode_e4m3(base * 1.5)
        better = _nearest_error(magnitudes, smaller, encode, amax, RULE, DENOMINATOR) < _nearest_error(
            magnitudes, code, encode, amax, RULE, DENOMINATOR
        )
        code = tl.where(better, smaller, code)
    return code


@triton.jit
def _nearest_error(
    magnitudes: tl.tensor,
    code: tl.tensor,
    encode: tl.tensor,
    amax: tl.tensor,
    RULE: tl.constexpr,
    DENOMINATOR: tl.constexpr,
) -> tl.tensor:
    """`_error` of rounding to nearest."""
    scale = decode_e4m3(code)
    rounded = round_e2m1(magnitudes * _per_value(_reciprocal(scale, encode)))
    return _error(rounded, magnitudes, scale, amax, RULE, DENOMINATOR)


@triton.jit
def _error(
    rounded: tl.tensor,
    magnitudes: tl.tensor,
    scale: tl.tensor,
    amax: tl.tensor,
    RULE: tl.constexpr,
    DENOMINATOR: tl.constexpr,
) -> tl.tensor:
    """Quantisation error by the rule, `[G, C]`, over the values that share a scale; magnitudes `[G, H, C, 16]`."""
    error = divide_by(rounded * _per_value(scale) * amax, tl.full((), DENOMINATOR, tl.float32)) - magnitudes
    if RULE == "mse":
        total = tl.sum(tl.sum(error * error, 3), 1)
    elif RULE == "mae":
        total = tl.sum(tl.sum(tl.abs(error), 3), 1)
    else:
        total = tl.max(tl.max(tl.abs(error), 3), 1)
    return total  # pyright: ignore[reportReturnType]
