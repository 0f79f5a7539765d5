"""Encoding of a clip by several ranks: the window of video frames that each rank needs for its latent frames.

The encoder is causal, and a latent frame depends on 112 video frames before its own, which are 28 latent frames. So a
rank starts to encode that many latent frames early, the halo, and drops what it encodes before its own share.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..types import TIME_FACTOR, video_frames

# Latent frames that the Wan2.2 encoder looks back. In video frames, its temporal convolutions look back 18 at full
# rate, 16 at half and 72 at a quarter of the rate, and its two strides 2 and 4: 112 in all.
ENCODER_HALO = 28


@dataclass(frozen=True, slots=True)
class HaloWindow:
    """What one rank encodes. Ranges are half-open.

    keep: its latent frames. start: first latent frame that it encodes. video: range of video frames to encode as a clip
    of its own. drop: latent frames of the result before the first one to keep.
    """

    keep: tuple[int, int]
    start: int
    video: tuple[int, int]
    drop: int

    @property
    def frames(self) -> int:
        """How many video frames the rank encodes."""
        return self.video[1] - self.video[0]


def halo_window(latents: int, ranks: int, rank: int, halo: int = ENCODER_HALO) -> HaloWindow:
    """The window of one of several ranks that share the latent frames of a clip evenly, as the reference does.

    Raises ValueError if they cannot.
    """
    if not 0 <= rank < ranks or latents < ranks or latents % ranks:
        raise ValueError(f"{latents} latent frames do not split evenly on {ranks} ranks, of which this is rank {rank}")
    share = latents // ranks
    return _window(rank * share, (rank + 1) * share, halo)


def balanced_windows(latents: int, ranks: int, halo: int = ENCODER_HALO) -> tuple[HaloWindow, ...]:
    """The windows of all ranks, such that the largest number of video frames that one of them encodes is the smallest.

    The first rank has no halo, so it keeps more latent frames than the others. Raises ValueError for fewer latent
    frames than ranks.
    """
    if latents < ranks:
        raise ValueError(f"{latents} latent frames cannot be shared by {ranks} ranks; use {latents} ranks at most")
    low, high = 1, video_frames(latents)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _filled(latents, ranks, halo, middle) else (middle + 1, high)
    windows = _filled(latents, ranks, halo, low)
    assert windows is not None  # one rank that encodes everything is within the largest limit
    return windows


def _filled(latents: int, ranks: int, halo: int, limit: int) -> tuple[HaloWindow, ...] | None:
    """Windows of at most `limit` video frames, each as long as possible and of one latent frame at least.

    None if they do not cover the clip.
    """
    windows: list[HaloWindow] = []
    first = 0
    for rank in range(ranks):
        last = latents - (ranks - 1 - rank)  # the other ranks need a latent frame each
        fitting = [end for end in range(first + 1, last + 1) if _window(first, end, halo).frames <= limit]
        if not fitting:
            return None
        windows.append(_window(first, fitting[-1], halo))
        first = fitting[-1]
    return tuple(windows) if first == latents else None


def _window(first: int, end: int, halo: int) -> HaloWindow:
    start = max(0, first - halo)
    # The first video frame of a clip is encoded alone. In the middle of a film it makes a latent frame of its own,
    # which is dropped; only at the start of the film it is the real first one.
    extra = 0 if start == 0 else 1
    raw = TIME_FACTOR * (start - 1) if extra else 0
    return HaloWindow((first, end), start, (raw, video_frames(end)), first - start + extra)
