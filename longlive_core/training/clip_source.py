"""Batches of encoded clips of a data set for autoregressive training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..memory import TextEncoder
from ..types import BLOCK_FRAMES
from .ar_inputs import ARBatch
from .clip_cache import EncodedClip
from .clips import stacked


class ClipSource:
    """An `ARSource` of encoded clips: a batch holds clips of one size whose cuts are at the same blocks.

    encode: called once per distinct prompt, here. batch: number of clips in a batch, drawn with replacement.
    rope_offset: latent frames that each cut adds to the RoPE time. Raises ValueError if there are no clips.
    """

    def __init__(
        self,
        clips: Sequence[EncodedClip],
        encode: TextEncoder,
        *,
        batch: int = 1,
        rope_offset: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not clips:
            raise ValueError("there are no clips to train on")
        self._clips, self._batch, self._rope_offset, self._device = tuple(clips), batch, rope_offset, device
        prompts = sorted({block.prompt for clip in clips for block in clip.layout})
        self._text = {prompt: encode(prompt).cpu() for prompt in prompts}

    def batch(self, rng: np.random.Generator, /) -> ARBatch:
        """Returns a batch. See `ARSource`."""
        first = self._clips[rng.integers(len(self._clips))]
        alike = [clip for clip in self._clips if (clip.cuts, clip.size) == (first.cuts, first.size)]
        chosen = [first, *(alike[index] for index in rng.integers(len(alike), size=self._batch - 1))]
        prompts = [[block.prompt for block in clip.layout] for clip in chosen]
        distinct = sorted({prompt for row in prompts for prompt in row})
        rows = torch.tensor([[distinct.index(prompt) for prompt in row] for row in prompts])
        return ARBatch(
            torch.stack([clip.latents() for clip in chosen]).to(self._device),
            stacked([self._text[prompt] for prompt in distinct]).to(self._device),
            rows.to(self._device),
            self._positions(first.cuts).to(self._device),
            first.cuts,
            name=", ".join(clip.name for clip in chosen),
        )

    def _positions(self, cuts: Sequence[bool]) -> Tensor:
        """RoPE position of each latent frame, `[F]`."""
        shots = torch.tensor(cuts).cumsum(0).repeat_interleave(BLOCK_FRAMES)
        return torch.arange(len(shots), dtype=torch.float32) + self._rope_offset * shots
