"""A film that a model makes while it is trained, so that its progress can be seen."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from ..memory import TextEncoder
from ..model import FlowModel
from ..pipeline.decode import decode
from ..pipeline.write import NewFile
from ..sampling import Seam, generate
from ..script import BlockPlan
from ..types import SPACE_FACTOR
from ..vae import ChunkDecoder, DecodeStream
from ..video import open_film


def write_sample(
    model: FlowModel,
    plan: BlockPlan,
    encode: TextEncoder,
    vae: ChunkDecoder,
    path: Path,
    *,
    size: tuple[int, int],
    seed: int = 0,
    seam: Seam = "plain",
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Samples, decodes and writes a film; returns False, and leaves no file, if it was stopped.

    model: as it is now. encode: prompt → `[L, text_dim]`. size: (height, width) in pixels. seed: the same for all
    samples of a run, so that only the weights differ. should_stop: asked before each model call and latent frame.

    Raises ValueError as `generate`, and OSError if the file cannot be written.
    """
    height, width = size
    cells = height // SPACE_FACTOR, width // SPACE_FACTOR
    blocks = generate(model, plan, encode, size=cells, seed=seed, seam=seam, should_stop=should_stop)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_film(path, width=width, height=height, fps=Fraction(plan.fps)) as writer:
        file = NewFile(writer)
        for frame in decode(blocks, DecodeStream(vae), should_stop):
            file.write(frame)
        complete = writer.frames == plan.video_frames
    if not complete:
        path.unlink()
    return complete
