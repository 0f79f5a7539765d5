"""Sound of many channels, mixed down to stereo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from torch import Tensor

# How loud a channel is on the left and on the right, as in ITU-R BS.775. The subwoofer's channel is left out.
HALF: Final = 0.5**0.5
SIDES: Final = {
    **dict.fromkeys(("FL", "FLC", "WL", "DL"), (1.0, 0.0)),
    **dict.fromkeys(("FR", "FRC", "WR", "DR"), (0.0, 1.0)),
    **dict.fromkeys(("BL", "SL", "TFL", "TBL", "TSL"), (HALF, 0.0)),
    **dict.fromkeys(("BR", "SR", "TFR", "TBR", "TSR"), (0.0, HALF)),
    "FC": (HALF, HALF),
    **dict.fromkeys(("LFE", "LFE2"), (0.0, 0.0)),
}
ELSEWHERE: Final = (0.5, 0.5)
# The channels of samples without a layout, by their number, in the order of WAVE files.
ORDERS: Final = {
    3: "FL FR LFE",
    4: "FL FR BL BR",
    5: "FL FR FC BL BR",
    6: "FL FR FC LFE BL BR",
    7: "FL FR FC LFE BC SL SR",
    8: "FL FR FC LFE BL BR SL SR",
}


def to_stereo(waveform: Tensor, channels: Sequence[str] = ()) -> Tensor:
    """Mixes `[C, S]` down to `[2, S]`; mono and stereo are returned as they are. The mix may be louder than 1.

    channels: libav's names of the channels; without a known one the order is that of WAVE files. Other channels are
    heard on both sides.
    """
    if len(waveform) <= 2:
        return waveform
    known = any(name in SIDES for name in channels)
    names = channels if known else ORDERS.get(len(waveform), "").split() or [""] * len(waveform)
    return waveform.new_tensor([SIDES.get(name, ELSEWHERE) for name in names]).T @ waveform


def without_clipping(waveform: Tensor) -> Tensor:
    """Makes all samples softer if one is louder than 1."""
    return waveform / max(1.0, float(waveform.abs().max())) if waveform.numel() else waveform


def mixdown_note(channels: int) -> str:
    """What is said of sound of so many channels; empty for mono and stereo."""
    return f"the sound has {channels} channels: they are mixed down to stereo" if channels > 2 else ""
