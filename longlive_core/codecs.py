"""How frames are compressed: the choices of codec and quality, and the encoders behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import av


@dataclass(frozen=True)
class Codec:
    """One choice: its encoders with their options, the preferred one first, and its scale of quality."""

    encoders: Mapping[str, Mapping[str, str]]
    crf_limit: int  # the worst
    tag: str | None = None  # the mp4 sample entry, where the muxer's own choice does not play everywhere


# No look-ahead and no B-frames: a frame is a packet at once. Key frames come where a block starts, or after 250 frames.
CODECS: Mapping[str, Codec] = {
    "h264": Codec(
        {"libx264": {"preset": "veryfast", "tune": "zerolatency", "forced-idr": "1", "sc_threshold": "0"}}, crf_limit=51
    ),
    "h265": Codec(
        {
            "libx265": {
                "preset": "veryfast",
                "tune": "zerolatency",
                "forced-idr": "1",
                "x265-params": "log-level=error:pools=none:frame-threads=1:scenecut=0:keyint=250",
            }
        },
        crf_limit=51,
        tag="hvc1",  # Apple's players refuse the muxer's hev1
    ),
    "av1": Codec(
        {
            "libsvtav1": {"preset": "8", "g": "250", "svtav1-params": "pred-struct=1:lp=1:scd=0"},
            "libaom-av1": {"usage": "realtime", "cpu-used": "7", "lag-in-frames": "0", "g": "250", "b": "0"},
        },
        crf_limit=63,
    ),
}

# Constant rate factors: in one row all codecs give about the same picture, measured as PSNR.
QUALITIES: Mapping[str, Mapping[str, int]] = {
    "best": {"h264": 14, "h265": 18, "av1": 21},
    "high": {"h264": 18, "h265": 22, "av1": 28},
    "medium": {"h264": 23, "h265": 27, "av1": 38},
    "small": {"h264": 28, "h265": 32, "av1": 48},
}


def choose_encoder(codec: str) -> str:
    """The name of the encoder for `codec`. Raises ValueError for an unknown codec and one that av cannot encode."""
    present = {name: [e for e in choice.encoders if e in av.codecs_available] for name, choice in CODECS.items()}
    if not present.get(codec):
        offered = ", ".join(name for name, encoders in present.items() if encoders)
        why = f"needs {' or '.join(CODECS[codec].encoders)}, which this av lacks" if codec in CODECS else "is unknown"
        raise ValueError(f"video codec {codec!r} {why}; choose one of {offered}")
    return present[codec][0]


def choose_crf(codec: str, quality: str, crf: int | None) -> int:
    """`crf`, or what `quality` means for a known `codec`. Raises ValueError for a quality or crf not offered."""
    if quality not in QUALITIES:
        raise ValueError(f"film quality {quality!r} is unknown; choose one of {', '.join(QUALITIES)}")
    chosen, limit = QUALITIES[quality][codec] if crf is None else crf, CODECS[codec].crf_limit
    if not 0 <= chosen <= limit:
        raise ValueError(f"crf {chosen} is off the scale of {codec}; choose 0 (best) to {limit}")
    return chosen
