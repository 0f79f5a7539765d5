"""The prompts and cuts of a batch of clips that are simulated together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..types import BlockSpec


@dataclass(frozen=True, slots=True)
class ClipPrompts:
    """The prompts of a batch of clips, one for each block, and the cuts, which all clips of the batch share.

    text: embeddings of the distinct prompts, `[P, L, text_dim]`. rows: row of `text` for each clip and block,
    `[B, N]`. cuts: whether each of the N blocks is a cut; the first one is not.
    """

    text: Tensor
    rows: Tensor
    cuts: tuple[bool, ...]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != len(self.cuts) or not self.cuts:
            raise ValueError(f"rows of shape {tuple(self.rows.shape)} must be [batch, {len(self.cuts)} blocks]")
        if self.cuts[0]:
            raise ValueError("the first block of a clip cannot be a cut; a cut needs a shot before it")

    def block(self, index: int) -> Tensor:
        """Embeddings of one block's prompts, `[B, L, text_dim]`."""
        return self.text[self.rows[:, index].to(self.text.device)]

    def block_frames(self, clip: Tensor) -> int:
        """Latent frames in a block of a clip `[B, C, F, H, W]`. Raises ValueError if it is not of N equal blocks."""
        frames, odd = divmod(clip.shape[2], len(self.cuts))
        if odd or not frames or clip.shape[0] != self.rows.shape[0]:
            raise ValueError(
                f"latents of shape {tuple(clip.shape)} are not {self.rows.shape[0]} clips of {len(self.cuts)} blocks"
            )
        return frames

    def specs(self, block_frames: int) -> tuple[BlockSpec, ...]:
        """Descriptions of the blocks. Blocks with the same prompts in all clips have the same `prompt`."""
        shots = [sum(self.cuts[: index + 1]) for index in range(len(self.cuts))]
        return tuple(
            BlockSpec(
                index, shots[index], str(self.rows[:, index].tolist()), cut, None, index * block_frames, block_frames
            )
            for index, cut in enumerate(self.cuts)
        )
