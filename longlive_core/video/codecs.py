"""How frames are compressed: the choices of codec and quality, and the encoders and containers behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import av


@dataclass(frozen=True)
class Codec:
    """One choice: its encoders with their options, the preferred one first, its scale of quality and its container.

    `scale` names the encoder's option that `QUALITIES` sets, `crf_limit` the worst crf where that option is a crf.
    No encoders: numbered pictures in a folder, without loss.
    """

    encoders: Mapping[str, Mapping[str, str]]
    crf_limit: int | None = None
    scale: str = "crf"
    extension: str = ".mp4"
    tag: str | None = None  # the mp4 sample entry, where the muxer's own choice does not play everywhere
    pixels: str = "yuv420p"
    sound: str = "aac"

    @property
    def container(self) -> str:
        """libav's name of the muxer; empty for pictures in a folder."""
        return self.extension.lstrip(".")

    @property
    def kind(self) -> str:
        """What its films are, in words."""
        return f"a{'n' * (self.container == 'mp4')} {self.container or 'folder of numbered pictures'}"


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
    "vp9": Codec(
        {
            "libvpx-vp9": {
                "deadline": "realtime",
                "cpu-used": "5",
                "lag-in-frames": "0",
                "auto-alt-ref": "0",
                "row-mt": "1",
                "g": "250",
                "b": "0",
            }
        },
        crf_limit=63,
        extension=".webm",
        sound="libopus",
    ),
    # Every frame is a key frame; sound as it came, in 16 bits.
    "prores": Codec({"prores_ks": {}}, scale="profile", extension=".mov", pixels="yuv422p10le", sound="pcm_s16le"),
    "png": Codec({}, scale="", extension=""),
}

# Constant rate factors: in one row these codecs give about the same picture, measured as PSNR. ProRes, for editing,
# has profiles instead, as good or better: 422 HQ, 422, LT and Proxy.
QUALITIES: Mapping[str, Mapping[str, int]] = {
    "best": {"h264": 14, "h265": 18, "av1": 21, "vp9": 10, "prores": 3},
    "high": {"h264": 18, "h265": 22, "av1": 28, "vp9": 15, "prores": 2},
    "medium": {"h264": 23, "h265": 27, "av1": 38, "vp9": 28, "prores": 1},
    "small": {"h264": 28, "h265": 32, "av1": 48, "vp9": 38, "prores": 0},
}

# Of a picture's shorter side, in pixels.
X265_SMALL_SIDE = 64


def film_path(path: Path | str, codec: str) -> Path:
    """A film's path with the extension of its codec. Raises ValueError for a codec that is unknown or not in av."""
    _check_codec(codec)
    path, known = Path(path), (".png", *(choice.extension for choice in CODECS.values()))
    bare = path.with_suffix("") if path.suffix.lower() in known else path
    return bare.with_name(bare.name + CODECS[codec].extension)


def codec_named(path: Path | str) -> str | None:
    """The codec that a film's name stands for by itself, as `.webm` for vp9; None where there is a choice."""
    extension = Path(path).suffix.lower()
    named = [codec for codec, choice in CODECS.items() if extension and choice.extension == extension]
    return named[0] if len(named) == 1 else None


def check_path(path: Path | str, codec: str) -> None:
    """Raises ValueError for a path that is not named as the codec's films are, and as `film_path` does."""
    path, named = Path(path), film_path(path, codec)
    if path.suffix.lower() != named.suffix.lower():
        raise ValueError(f"output {path}: in {codec} a film is {CODECS[codec].kind}; name it {named}")


def choose_encoder(codec: str) -> str:
    """The name of the encoder for `codec`.

    Raises ValueError for an unknown codec, one that av cannot encode, and one that is no file.
    """
    _check_codec(codec)
    if not CODECS[codec].encoders:
        raise ValueError(f"{codec} makes a folder of pictures, not a file; choose another codec or `open_film`")
    return next(encoder for encoder in CODECS[codec].encoders if encoder in av.codecs_available)


def encoder_options(codec: str, encoder: str, width: int, height: int) -> Mapping[str, str]:
    """The options of one of a codec's encoders for films of this size."""
    options = CODECS[codec].encoders[encoder]
    if encoder != "libx265" or min(width, height) > X265_SMALL_SIDE:
        return options
    # In a picture of one 64-pixel tree unit, x265 makes another film each time, up to 15 dB worse.
    return {**options, "x265-params": f"{options['x265-params']}:ctu=16"}


def choose_quality(codec: str, quality: str, crf: int | None) -> Mapping[str, str]:
    """The options of a known `codec` for `crf`, or for what `quality` means. Raises ValueError for one not offered."""
    if quality not in QUALITIES:
        raise ValueError(f"film quality {quality!r} is unknown; choose one of {', '.join(QUALITIES)}")
    choice = CODECS[codec]
    if crf is not None and choice.crf_limit is None:
        means = f"it has qualities: {', '.join(QUALITIES)}" if choice.scale else "it loses nothing"
        raise ValueError(f"crf {crf}: {codec} has no crf, {means}; leave crf out")
    if not choice.scale:
        return {}
    chosen, limit = QUALITIES[quality][codec] if crf is None else crf, choice.crf_limit
    if limit is not None and not 0 <= chosen <= limit:
        raise ValueError(f"crf {chosen} is off the scale of {codec}; choose 0 (best) to {limit}")
    return {choice.scale: str(chosen)}


def _check_codec(codec: str) -> None:
    present = [
        name for name, choice in CODECS.items() if not choice.encoders or set(choice.encoders) & av.codecs_available
    ]
    if codec not in present:
        why = f"needs {' or '.join(CODECS[codec].encoders)}, which this av lacks" if codec in CODECS else "is unknown"
        raise ValueError(f"video codec {codec!r} {why}; choose one of {', '.join(present)}")
