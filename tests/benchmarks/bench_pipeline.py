"""Concurrent stages of a film: each stage alone, then the film in each mode.

    python tests/benchmarks/bench_pipeline.py            a film of 60 s
    python tests/benchmarks/bench_pipeline.py 600        a film of 10 minutes

Each row runs in a separate process. `denoise`, `decode` and `encode` run one stage alone in its thread; the modes
render a script to mp4, without a take. `of denoise` is the speed of a row relative to denoising alone. `overlap` is the
share of the time outside the longest stage that a mode hides behind it: (sum of the stages − row) / (sum − longest).
`first s` is when the first frame was written. Stages that use all cores gain little by overlap; `--threads 1` on two
cores shows the gain. Nothing is measured if a check fails, and no table is printed if the modes write different files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from bench_render import BLOCK_SECONDS, MEMORY, block_count, failed_checks, model, script
from longlive.longlive_core.evaluation.recorded import REFERENCE_RUNS
from longlive.longlive_core.mini import LATENT_SIZE, Mini
from longlive.longlive_core.pipeline.decode import QUEUE_DEPTH, DecodedFrame, decode
from longlive.longlive_core.pipeline.stages import MODES, Mode, Pipeline
from longlive.longlive_core.pipeline.write import NewFile, write
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.render.write_film import Progress
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.types import BLOCK_FRAMES, FPS, Block, video_frames
from longlive.longlive_core.vae import DecodeStream
from longlive.longlive_core.video import VideoWriter
from process_memory import memory_mb
from torch import Tensor

STAGES = ("denoise", "decode", "encode")
QUARTERS = (0.25, 0.5, 0.75, 1.0)
# Blocks that are sampled for the other stages, which repeat them for a longer film.
SAMPLE_BLOCKS = 12

Row = dict[str, Any]


def sampled(mini: Mini, seconds: float) -> Iterator[Block]:
    """Samples a film."""
    plan = ShotScript.parse(script(seconds)).plan()
    return generate(mini.model, plan, mini.encode_text, MEMORY, size=LATENT_SIZE)


class Stopwatch:
    """Measures time and memory of a row, from its construction on."""

    def __init__(self, frames: int) -> None:
        self.frames, self.began = frames, perf_counter()
        self.first: float | None = None
        self.memory: list[float] = []

    def record(self, done: int) -> None:
        """Records that `done` video frames have passed the stage."""
        if self.first is None:
            self.first = perf_counter() - self.began
        while len(self.memory) < len(QUARTERS) and done >= QUARTERS[len(self.memory)] * self.frames:
            self.memory.append(memory_mb("VmRSS"))

    def row(self, **more: object) -> Row:
        """The measurements."""
        took = perf_counter() - self.began
        return {
            "seconds": took,
            "fps": self.frames / took,
            "first": self.first,
            "memory": self.memory,
            "frames": self.frames,
            **more,
        }


def sample_blocks(mini: Mini, seconds: float) -> list[Block]:
    """The first blocks of a film."""
    return list(sampled(mini, min(seconds, SAMPLE_BLOCKS * BLOCK_SECONDS)))


def pixels(frame: DecodedFrame) -> Tensor:
    """Video frames of one decoded latent frame, `[T, H, W, 3]` uint8."""
    assert frame.frames is not None
    return frame.frames.wait()


def frames_of(seconds: float) -> int:
    """Number of video frames in a film."""
    return video_frames(BLOCK_FRAMES * block_count(seconds))


def denoise_row(seconds: float, _: Path) -> Row:
    """Samples only."""
    mini, _name = model()
    blocks = sampled(mini, seconds)
    watch = Stopwatch(frames_of(seconds))
    with Pipeline() as line:
        for block in line.stage("sampling", blocks):
            watch.record(block.spec.video_start + block.spec.video_frames)
    return watch.row()


def decode_row(seconds: float, _: Path) -> Row:
    """Decodes only."""
    mini, _name = model()
    sample = sample_blocks(mini, seconds)
    decoded, done = decode(islice(cycle(sample), block_count(seconds)), DecodeStream(mini.vae)), 0
    watch = Stopwatch(frames_of(seconds))
    with Pipeline() as line:
        for frame in line.stage("decoding", decoded, QUEUE_DEPTH):
            done += len(pixels(frame))
            watch.record(done)
    return watch.row()


def encode_row(seconds: float, folder: Path) -> Row:
    """Encodes and writes only."""
    mini, _name = model()
    first, *others = decode(sample_blocks(mini, seconds), DecodeStream(mini.vae))
    height, width = pixels(first).shape[1:3]
    decoded, done = [first, *islice(cycle(others), BLOCK_FRAMES * block_count(seconds) - 1)], 0
    watch = Stopwatch(frames_of(seconds))
    with VideoWriter(folder / "film.mp4", width=width, height=height) as writer, Pipeline() as line:
        for written in line.stage("writing", write(decoded, NewFile(writer)), QUEUE_DEPTH):
            done += written.video_frames
            watch.record(done)
    return watch.row()


def film_row(seconds: float, folder: Path, mode: Mode) -> Row:
    """Renders the film in a mode."""
    mini, _name = model()
    (folder / "script.txt").write_text(script(seconds))
    watch = Stopwatch(frames_of(seconds))

    def on_progress(progress: Progress) -> None:
        watch.record(progress.video_frames)

    settings = RenderSettings(folder / "script.txt", folder / "film.mp4", memory=MEMORY, take=False, decode=mode)
    job = Job(settings, mini=mini, on_progress=on_progress)
    watch.began = perf_counter()
    job.run()
    return watch.row(hash=hashlib.sha256((folder / "film.mp4").read_bytes()).hexdigest())


ROWS: dict[str, Callable[[float, Path], Row]] = {
    "denoise": denoise_row,
    "decode": decode_row,
    "encode": encode_row,
    **{mode: partial(film_row, mode=mode) for mode in MODES},
}


def measure(kind: str, seconds: float, threads: int) -> Row:
    """Measures one row in a separate process."""
    command = [sys.executable, __file__, str(seconds), "--row", kind, "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"kind": kind, **json.loads(done.stdout.splitlines()[-1])}


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    alone = {row["kind"]: row["seconds"] for row in rows if row["kind"] in STAGES}
    total, longest = sum(alone.values()), max(alone.values())
    quarters = "".join(f"{f'MB at {share:.0%}':>12}" for share in QUARTERS)
    lines = [f"{'':12}{'seconds':>9}{'frames/s':>10}{'of denoise':>12}{'overlap':>9}{'first s':>9}{quarters}"]
    for row in rows:
        whole = row["kind"] in MODES
        share = f"{alone['denoise'] / row['seconds']:.0%}" if whole else "-"
        overlap = f"{(total - row['seconds']) / (total - longest):.0%}" if whole else "-"
        memory = "".join(f"{megabytes:>12.0f}" for megabytes in row["memory"])
        lines.append(
            f"{row['kind']:12}{row['seconds']:>9.1f}{row['fps']:>10.1f}{share:>12}{overlap:>9}{row['first']:>9.2f}{memory}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float, nargs="?", default=60, help="length of the film (60)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="modes of the film (all)")
    parser.add_argument("--golden", type=Path, default=REFERENCE_RUNS, help="folder of recorded runs")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.row:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(ROWS[args.row](args.seconds, Path(folder))))
        return 0
    failed = failed_checks(args.golden)
    if failed:
        print("nothing was measured, because these checks failed:", *failed, sep="\n  ")
        return 1
    rows = [measure(kind, args.seconds, args.threads) for kind in (*STAGES, *args.modes)]
    if len({row["hash"] for row in rows if row["kind"] in MODES}) > 1:
        print("the modes wrote different files:", *(f"{row['kind']}: {row.get('hash')}" for row in rows), sep="\n  ")
        return 1
    facts = {
        "film": frames_of(args.seconds) / FPS,
        "weights": model()[1],
        "threads": args.threads,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(table(rows))
    print(json.dumps({**facts, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
