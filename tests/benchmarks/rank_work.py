"""Work of each rank of a training step of autoregressive training, computed: ours, the reference's, a plain split.

    python tests/benchmarks/rank_work.py [--frames 128] [--tokens 880]

A plain split gives each rank consecutive tokens of [all clean frames | all noisy frames], so that the loss is on the
ranks of the second half. Attention is divided by heads in all three, so its pairs are equal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

if "longlive" not in sys.modules:
    package = ModuleType("longlive")
    package.__path__ = [str(Path(__file__).resolve().parents[2])]
    sys.modules["longlive"] = package

from longlive.longlive_core.training.segments import CLEAN, SegmentOrder
from longlive.longlive_core.types import BLOCK_FRAMES
from longlive.longlive_core.vae.halo import balanced_windows, halo_window

SIZES = (1, 2, 4, 8)


def loss_frames(order: SegmentOrder, ranks: int) -> list[int]:
    """The noisy latent frames of each rank, which are those that the loss counts."""
    share = len(order.order) // ranks
    held = [order.order[rank * share : (rank + 1) * share] for rank in range(ranks)]
    return [BLOCK_FRAMES * sum(stream != CLEAN for stream, _ in own) for own in held]


def plain_loss_frames(frames: int, ranks: int) -> list[int]:
    """The noisy latent frames of each rank of a plain split."""
    share = 2 * frames // ranks
    return [max(0, (rank + 1) * share - max(frames, rank * share)) for rank in range(ranks)]


def attended_pairs(order: SegmentOrder, tokens: int) -> int:
    """Pairs of a query and a key of one head: of each segment, those of its history and its own."""
    segments = sum(len(order.history[block]) + 1 for _, block in order.order)
    return segments * (BLOCK_FRAMES * tokens) ** 2


def row(name: str, values: Sequence[int], scale: float = 1.0) -> str:
    """A line of the table: the work of each rank, and the largest beside the mean."""
    shown = ", ".join(f"{scale * value:,.0f}" for value in values)
    return f"| {name} | {shown} | {max(values) * len(values) / sum(values):.3f} |"


def table(frames: int, tokens: int) -> list[str]:
    """The lines of the table."""
    blocks = frames // BLOCK_FRAMES
    lines = ["| ranks, work | each rank | largest / mean |", "|---|---|---|"]
    for ranks in SIZES:
        order = SegmentOrder.of(blocks, blocks, 1, None, ranks)
        loss = loss_frames(order, ranks)
        lines += [
            row(f"{ranks}: tokens, all three", [2 * frames // ranks * tokens] * ranks),
            row(f"{ranks}: loss tokens, ours and the reference's", loss, tokens),
            row(f"{ranks}: loss tokens, plain split", plain_loss_frames(frames, ranks), tokens),
            row(f"{ranks}: encoded video frames, ours", [one.frames for one in balanced_windows(frames, ranks)]),
            row(
                f"{ranks}: encoded video frames, the reference's",
                [halo_window(frames, ranks, rank).frames for rank in range(ranks)],
            ),
            row(
                f"{ranks}: 10⁹ attended pairs of the own share of heads, all three",
                [attended_pairs(order, tokens) // ranks] * ranks,
                1e-9,
            ),
        ]
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=128, help="latent frames of the film (128)")
    parser.add_argument("--tokens", type=int, default=880, help="tokens of a latent frame (880, of 1280x704)")
    args = parser.parse_args(argv)
    print("\n".join(table(args.frames, args.tokens)))


if __name__ == "__main__":
    main()
