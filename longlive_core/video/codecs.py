"""Tables of codecs and qualities, with their encoders, options and containers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import av


@dataclass(frozen=True)
class Codec:
    """A codec: its encoders with their options (the preferred one first), its quality option and its container.

    `scale` is the name of the option that `QUALITIES` sets, `crf_limit` the largest crf, None if the option is not a
    crf. A codec without encoders is a folder of numbered pictures.
    """

    encoders: Mapping[str, Mapping[str, str]]
    crf_limit: int | None = None
    scale: str = "crf"
    extension: str = ".mp4"
    tag: str | None = None  # the mp4 sample entry, if the default of the muxer does not play everywhere
    pixels: str = "yuv420p"
    sound: str = "aac"

    @property
    def container(self) -> str:
        """The name of the muxer in libav; empty for a folder of pictures."""
        return self.extension.lstrip(".")

    @property
    def kind(self) -> str:
        """A description for messages, such as "an mp4"."""
        return f"a{'n' * (self.container == 'mp4')} {self.container or 'folder of numbered pictures'}"


# No look-ahead and no B-frames: every frame becomes a packet at once. Key frames: at each block, or after 250 frames.
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
    # Every frame is a key frame. The sound is 16-bit PCM.
    "prores": Codec({"prores_ks": {}}, scale="profile", extension=".mov", pixels="yuv422p10le", sound="pcm_s16le"),
    "png": Codec({}, scale="", extension=""),
}

# Constant rate factors; the codecs of one row have about the same PSNR. ProRes has profiles instead (422 HQ, 422, LT
# and Proxy), with the same or a better PSNR.
QUALITIES: Mapping[str, Mapping[str, int]] = {
    "best": {"h264": 14, "h265": 18, "av1": 21, "vp9": 10, "prores": 3},
    "high": {"h264": 18, "h265": 22, "av1": 28, "vp9": 15, "prores": 2},
    "medium": {"h264": 23, "h265": 27, "av1": 38, "vp9": 28, "prores": 1},
    "small": {"h264": 28, "h265": 32, "av1": 48, "vp9": 38, "prores": 0},
}

# Up to this length of the shorter side, in pixels, x265 needs a smaller tree unit.
X265_SMALL_SIDE = 64


def film_path(path: Path | str, codec: str) -> Path:
    """Returns the path with the extension of the codec. Raises ValueError for a codec that is unknown or not in av."""
    _check_codec(codec)
    path, known = Path(path), (".png", *(choice.extension for choice in CODECS.values()))
    bare = path.with_suffix("") if path.suffix.lower() in known else path
    return bare.with_name(bare.name + CODECS[codec].extension)


def codec_named(path: Path | str) -> str | None:
    """Returns the only codec with the extension of the path, such as vp9 for `.webm`; None if several have it."""
    extension = Path(path).suffix.lower()
    named = [codec for codec, choice in CODECS.items() if extension and choice.extension == extension]
    return named[0] if len(named) == 1 else None


def check_path(path: Path | str, codec: str) -> None:
    """Checks the extension of a path. Raises ValueError if it is not the codec's, and as `film_path` does."""
    path, named = Path(path), film_path(path, codec)
    if path.suffix.lower() != named.suffix.lower():
        raise ValueError(f"output {path}: a film in {codec} is {CODECS[codec].kind}; name it {named}")


def choose_encoder(codec: str) -> str:
    """Returns the name of the encoder for `codec`.

    Raises ValueError for a codec that is unknown, that av cannot encode, or that is not a file (png).
    """
    _check_codec(codec)
    if not CODECS[codec].encoders:
        raise ValueError(f"{codec} makes a folder of pictures, not a file; choose another codec or `open_film`")
    return next(encoder for encoder in CODECS[codec].encoders if encoder in av.codecs_available)


def encoder_options(codec: str, encoder: str, width: int, height: int) -> Mapping[str, str]:
    """Returns the options of an encoder for a film of this size in pixels."""
    options = CODECS[codec].encoders[encoder]
    if encoder != "libx265" or min(width, height) > X265_SMALL_SIDE:
        return options
    # If one 64-pixel tree unit covers the picture, x265 is not deterministic and up to 15 dB worse.
    return {**options, "x265-params": f"{options['x265-params']}:ctu=16"}


def choose_quality(codec: str, quality: str, crf: int | None) -> Mapping[str, str]:
    """Returns the encoder option for `crf`, or for `quality` if it is None. Raises ValueError if the codec lacks it."""
    if quality not in QUALITIES:
        raise ValueError(f"film quality {quality!r} is unknown; choose one of {', '.join(QUALITIES)}")
    choice = CODECS[codec]
    if crf is not None and choice.crf_limit is None:
        means = f"it has qualities: {', '.join(QUALITIES)}" if choice.scale else "it is lossless"
        raise ValueError(f"crf {crf}: {codec} has no crf, {means}; leave crf out")
    if not choice.scale:
        return {}
    chosen, limit = QUALITIES[quality][codec] if crf is None else crf, choice.crf_limit
    if limit is not None and not 0 <= chosen <= limit:
        raise ValueError(f"crf {chosen} is out of range for {codec}; choose 0 (best) to {limit}")
    return {choice.scale: str(chosen)}


def _check_codec(codec: str) -> None:
    """Raises ValueError for a codec that is unknown or that av cannot encode."""
    present = [name for name, c in CODECS.items() if not c.encoders or set(c.encoders) & av.codecs_available]
    if codec not in present:
        why = f"needs {' or '.join(CODECS[codec].encoders)}, which this av lacks" if codec in CODECS else "is unknown"
        raise ValueError(f"video codec {codec!r} {why}; choose one of {', '.join(present)}")
