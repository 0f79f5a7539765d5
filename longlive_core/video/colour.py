"""Colours of a video of any kind, converted to those of a film: BT.709 R'G'B' in full range."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

import numpy as np
import torch
from av.video.frame import VideoFrame
from torch import Tensor

# Codes of ITU-T H.273, which are those of libav.
BT709: Final = 1
UNSPECIFIED: Final = 2
BT2020: Final = 9
PQ, HLG = 16, 18
FULL_RANGE: Final = 2  # AVCOL_RANGE_JPEG
# By H.273 code: swscale's own code of a matrix (SWS_CS_*), and the weights of red and blue in its luma.
SWSCALE_MATRICES: Final = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
LUMA_WEIGHTS: Final = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    **dict.fromkeys((5, 6), (0.299, 0.114)),
    7: (0.212, 0.087),
    **dict.fromkeys((9, 10), (0.2627, 0.0593)),
}
# Chromaticities (x, y) of red, green and blue; all with the white point D65.
PRIMARIES: Final = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
D65: Final = (0.3127, 0.3290)
# A video without tags has the matrix of BT.709 from this number of lines on, else that of BT.601.
HIGH_DEFINITION: Final = 720

# White of BT.2408 and the peak of HLG in cd/m². Light is relative to white, and brighter light is compressed from the
# knee on, so that up to the peak it keeps some gradation.
WHITE, PEAK, KNEE = 203.0, 1000.0, 0.9
# SWS_BILINEAR with SWS_ACCURATE_RND, and for RGB in 8 bits SWS_FULL_CHR_H_INT: without them swscale is up to 3 levels
# off.
ACCURATE: Final = 0x2 | 0x40000
ACCURATE_RGB: Final = ACCURATE | 0x2000
GAMMA: Final = 2.4  # of BT.1886


class Colours(NamedTuple):
    """What a video's numbers mean, in codes of H.273."""

    primaries: int
    transfer: int
    matrix: int

    @property
    def hdr(self) -> str:
        """The name of a transfer of high dynamic range; empty for another one."""
        return {PQ: "PQ", HLG: "HLG"}.get(self.transfer, "")


def colours_of(frame: VideoFrame) -> Colours:
    """The frame's own tags; what is not tagged is guessed from the rest and from the height, as players do."""
    primaries, transfer, matrix = int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace)
    if primaries not in PRIMARIES:
        primaries = BT2020 if transfer in (PQ, HLG) or (matrix == BT2020 and primaries == UNSPECIFIED) else BT709
    if matrix not in LUMA_WEIGHTS:
        standard = BT709 if frame.height >= HIGH_DEFINITION else 6
        matrix = BT2020 if primaries == BT2020 else standard
    return Colours(primaries, transfer, matrix)


def colour_notes(frame: VideoFrame) -> list[str]:
    """What is changed or not known about a frame's colours."""
    notes: list[str] = []
    if hdr := colours_of(frame).hdr:
        notes.append(f"the video is HDR ({hdr}): its colours are tone-mapped to BT.709, white at {WHITE:.0f} cd/m²")
    for name, code, known in (
        ("primaries", int(frame.color_primaries), PRIMARIES),
        ("matrix", int(frame.colorspace), {0: 0, **LUMA_WEIGHTS}),
    ):
        if code not in known and code != UNSPECIFIED:
            notes.append(f"the video's colour {name} (H.273 code {code}) are not known: read as the usual ones")
    return notes


def to_bt709(frame: VideoFrame, width: int, height: int) -> Tensor:
    """Converts a frame of any format, scaled to this size, to `[height, width, 3]` uint8."""
    colours = colours_of(frame)
    if colours.primaries == BT709 and not colours.hdr:
        matrix = SWSCALE_MATRICES[colours.matrix]
        rgb = frame.reformat(width, height, "rgb24", src_colorspace=matrix, interpolation=ACCURATE_RGB)
        return torch.from_numpy(rgb.to_ndarray())
    light = _light(_signal(frame, width, height, colours.matrix), colours.transfer) @ _to_bt709(colours.primaries).T
    light = _compress(light) if colours.hdr else light
    return light.clamp_(0, 1).pow_(1 / GAMMA).mul_(255).round_().to(torch.uint8)


def _signal(frame: VideoFrame, width: int, height: int, matrix: int) -> Tensor:
    """The R'G'B' signal `[height, width, 3]` float32 of a frame, where [0, 1] is the nominal range.

    Computed here, because swscale clips signals outside of that range, which other primaries can represent.
    """
    if frame.format.is_rgb:
        rgb = frame.reformat(width, height, "rgb48le", interpolation=ACCURATE).to_ndarray()
        return torch.from_numpy(rgb.astype(np.float32) / 65_535)
    full = frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj")
    bits = frame.format.components[0].bits
    kept = FULL_RANGE if full else 1
    planar = frame.reformat(
        width, height, "yuv444p16le", interpolation=ACCURATE, src_color_range=kept, dst_color_range=kept
    )
    # Codes of fewer bits are shifted up to 16.
    codes = [
        np.frombuffer(bytes(plane), "<u2").reshape(height, -1)[:, :width].astype(np.float32) for plane in planar.planes
    ]
    luma, *chroma = (torch.from_numpy(plane) / 2 ** (16 - bits) for plane in codes)
    unit, top = 2 ** (bits - 8), 2**bits - 1
    luma = luma / top if full else (luma - 16 * unit) / (219 * unit)
    blue, red = ((plane - 128 * unit) / (top if full else 224 * unit) for plane in chroma)
    of_red, of_blue = LUMA_WEIGHTS[matrix]
    r, b = luma + 2 * (1 - of_red) * red, luma + 2 * (1 - of_blue) * blue
    return torch.stack([r, (luma - of_red * r - of_blue * b) / (1 - of_red - of_blue), b], dim=-1)


def _light(signal: Tensor, transfer: int) -> Tensor:
    """R'G'B' → light of a display, relative to white, as BT.2100 and BT.1886 have it."""
    if transfer == PQ:
        root = signal.clamp(0, 1).pow(32 / 2523)
        return ((root - 3424 / 4096).clamp_(min=0) / (2413 / 128 - 2392 / 128 * root)).pow(16384 / 2610) * 1e4 / WHITE
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        signal = signal.clamp(min=0)
        scene = torch.where(signal <= 0.5, signal.square() / 3, (((signal - c) / a).exp() + b) / 12)
        luminance = scene @ scene.new_tensor([0.2627, 0.6780, 0.0593])
        return scene * luminance.pow(0.2)[..., None] * (PEAK / WHITE)
    return signal.abs().pow(GAMMA).copysign(signal)


def _compress(light: Tensor) -> Tensor:
    """The Mobius curve: unchanged up to KNEE, then bent so that PEAK becomes white; keeps the hue."""
    peak, knee = PEAK / WHITE, KNEE
    a = -(knee**2) * (peak - 1) / (knee**2 - 2 * knee + peak)
    b = (knee**2 - 2 * knee * peak + peak) / (peak - 1)
    brightest = light.amax(-1, keepdim=True)
    bent = (b * b + 2 * b * knee + knee**2) / (b - a) * (brightest + a) / (brightest + b)
    return torch.where(brightest > knee, light * (bent.clamp(max=1) / brightest), light)


@cache
def _to_bt709(primaries: int) -> Tensor:
    """The matrix `[3, 3]` from light in these primaries to light in those of BT.709."""
    return torch.linalg.solve(_to_xyz(BT709), _to_xyz(primaries)).float()


def _to_xyz(primaries: int) -> Tensor:
    def column(x: float, y: float) -> Tensor:
        return torch.tensor([x / y, 1, (1 - x - y) / y], dtype=torch.float64)

    columns = torch.stack([column(*xy) for xy in PRIMARIES[primaries]], dim=1)
    return columns * torch.linalg.solve(columns, column(*D65))
