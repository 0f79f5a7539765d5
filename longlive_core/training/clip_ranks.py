"""Encoding of training clips by several ranks, which rank 0 leads: it alone reads the videos.

Short clips go to the ranks whole, one each: a window of a clip begins 28 latent frames early, so that ranks which share
a short one would each encode nearly all of it. A long clip that is left at the end is shared by windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ..parallel import Leader, Ranks
from ..types import LatentShape, latent_frames
from ..vae.encode_clip import ChunkEncoder
from ..vae.encode_ranks import Share, encode_shares
from ..vae.halo import balanced_windows


class RankEncoder:
    """The VAE of one rank. parts: on rank 0, what the next call sends to the ranks."""

    def __init__(self, vae: ChunkEncoder) -> None:
        self.vae = vae
        self.parts: list[Tensor] | None = None


@dataclass(frozen=True, slots=True)
class ReadClip:
    """A clip to encode. frames: `[T, H, W, 3]` uint8 of any size, T = 1 + 4 k. shape: of its latents."""

    frames: Tensor
    shape: LatentShape


@dataclass(frozen=True, slots=True)
class Piece:
    """What a rank encodes: frames of one clip of a round. video: a half-open range. drop: see `Share`."""

    clip: int
    video: tuple[int, int]
    drop: int = 0


class LedEncoder:
    """Encodes clips on all ranks, for rank 0.

    own: the VAE of this rank. load: called on each other rank with its `Ranks` and the arguments, gives the same VAE
    there.
    """

    def __init__(self, leader: Leader, own: ChunkEncoder, load: Callable[..., RankEncoder], *arguments: Any) -> None:  # noqa: ANN401
        self._leader = leader
        self._encoder = leader.make(load, *arguments, own=RankEncoder(own))

    def encode(self, clips: Iterable[ReadClip]) -> Iterator[Tensor]:
        """Yields the latents of each clip, `[1, C, F, h, w]` float32 on the CPU, in their order.

        As many clips as there are ranks are taken at a time. Raises RankError if a rank fails.
        """
        clips, size = iter(clips), self._leader.ranks.size
        while group := list(islice(clips, size)):
            latents: list[list[Tensor]] = [[] for _ in group]
            for pieces in pieces_of([len(clip.frames) for clip in group], size):
                for piece, part in zip(pieces, self._encoded(group, pieces), strict=False):
                    latents[piece.clip].append(part)
            yield from (torch.cat(parts, dim=2) for parts in latents)

    def _encoded(self, group: Sequence[ReadClip], pieces: Sequence[Piece]) -> list[Tensor]:
        """The latents of pieces, at most one for each rank."""
        parts = [group[piece.clip].frames[slice(*piece.video)] for piece in pieces]
        shares = [
            Share(len(part), (part.shape[1], part.shape[2]), group[piece.clip].shape, piece.drop)
            for piece, part in zip(pieces, parts, strict=True)
        ]
        idle = self._leader.ranks.size - len(pieces)
        parts += [parts[0][:0]] * idle
        shares += [Share(0, shares[0].video, shares[0].shape)] * idle
        self._encoder.parts = parts
        try:
            return list(self._leader.call(_encode, self._encoder, shares))
        finally:
            self._encoder.parts = None


def pieces_of(frames: Sequence[int], ranks: int) -> list[list[Piece]]:
    """How ranks share at most as many clips of so many video frames: rounds, with at most a piece for each rank.

    A rank a clip, or all ranks for each clip where that ends sooner.
    """
    whole = [[Piece(clip, (0, count)) for clip, count in enumerate(frames)]]
    shared = [
        [Piece(clip, window.video, window.drop) for window in balanced_windows(latent_frames(count), ranks)]
        for clip, count in enumerate(frames)
    ]
    return min(whole, shared, key=lambda rounds: sum(max(_length(piece) for piece in pieces) for pieces in rounds))


def _length(piece: Piece) -> int:
    return piece.video[1] - piece.video[0]


def _encode(ranks: Ranks, encoder: RankEncoder, shares: Sequence[Share]) -> tuple[Tensor, ...]:
    return tuple(encode_shares(encoder.parts, shares, encoder.vae, ranks))
