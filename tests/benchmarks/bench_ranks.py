"""Ranks that share the blocks of films of LongLive Mini, over gloo: differences, bytes and kills.

    python tests/benchmarks/bench_ranks.py [--sizes 2 4] [--kills 10]

The first table is computed: what a rank of LongLive 5B sends for a block at 704x1280 in bf16. Recorded runs: the worst
relative L2 of each float32 run, limit 5e-6. Films: the relative L2 to the film of one rank, whole, and gone on with
from block 2 of the size before. Bytes: what rank 0 sends for the plain film, with its snapshot. Kills: a render on two
ranks whose rank 1 is killed at a random moment; the seconds until both are gone, and how far the resumed film is off.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
package = ModuleType("longlive")
package.__path__ = [str(ROOT)]
sys.modules.setdefault("longlive", package)
sys.path.append(str(ROOT / "tests"))

import torch  # noqa: E402
from core.cli.test_ranks import RENDER, SCRIPT, ranks_of  # noqa: E402
from core.parallel.ranks import run_ranks  # noqa: E402
from core.parallel.test_sequence import FILMS, WORK, bytes_of_a_film, keys_values, recorded_paths  # noqa: E402
from longlive.longlive_core.evaluation.recorded import relative_error  # noqa: E402
from longlive.longlive_core.model import WAN22_TI2V_5B  # noqa: E402
from longlive.longlive_core.parallel import Ranks  # noqa: E402
from longlive.longlive_core.take import Take  # noqa: E402
from longlive.longlive_core.take.history import read_blocks  # noqa: E402


def sequences(sizes: list[int], folder: Path) -> None:
    """Prints the tables of recorded runs, films and bytes."""
    found = dict[int, dict[str, Any]]()
    for size in (1, *sizes):
        inputs = recorded_paths() if size > 1 else [], keys_values(), FILMS, FILMS if found else []
        found[size] = run_ranks(size, "sequence", folder, *inputs, file=WORK)[0]
    for size in sizes:
        print(f"\nranks {size}\n| recorded run | relative L2 |\n|---|---|")
        for path, result in zip(recorded_paths(), found[size]["replayed"], strict=True):
            print(f"| {path.stem} | {max(result.output_error, *result.call_errors):.1e} |")
        print("| film | whole | gone on with |\n|---|---|---|")
        for name, (latents, _) in found[size]["made"].items():
            whole, (rest, _) = found[1]["made"][name][0], found[size]["resumed"][name]
            errors = relative_error(latents, whole), relative_error(rest, whole[:, :, -rest.shape[2] :])
            print(f"| {name} | {' | '.join('equal to the bit' if not error else f'{error:.1e}' for error in errors)} |")
        counted, formula = found[size]["made"]["plain"][1], bytes_of_a_film(Ranks(size, 0))
        print(f"bytes and exchanges counted {counted}, by the formula {formula}: {counted == formula}")


def kills(count: int, folder: Path) -> None:
    """Prints a line for each render whose rank 1 is killed."""
    (folder / "longlive").symlink_to(ROOT)
    (folder / "script.txt").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", *RENDER]
    quiet: dict[str, Any] = {"cwd": folder, "env": environment, "stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    begun = monotonic()
    subprocess.run([*command, "-o", "whole.mp4"], check=True, **quiet)
    limit, generator = monotonic() - begun, random.Random(0)
    whole = [block.latents for block, _ in read_blocks(Take.load(folder / "whole.take"))]
    for number in range(1, count + 1):
        moment = generator.uniform(0.05, 0.95) * limit
        render = subprocess.Popen([*command, "-o", f"{number}.mp4"], text=True, **quiet)
        sleep(moment)
        others = ranks_of(render)
        for rank in others:
            os.kill(rank, signal.SIGKILL)
        killed = monotonic()
        _, errors = render.communicate()
        seconds, take = monotonic() - killed, folder / f"{number}.take"
        again = ["script.txt", "-o", f"{number}.mp4", "--steps", "2"]
        if (take / "take.json").is_file():
            again = ["--resume", str(take)]
        subprocess.run([*command[:4], *again], check=True, **quiet)
        blocks = [block.latents for block, _ in read_blocks(Take.load(take))]
        off = relative_error(torch.cat(blocks), torch.cat(whole))
        print(
            f"{number}: rank 1 killed after {moment:.1f} s ({len(others)} found): rank 0 ended with {render.returncode}"
        )
        print(f"   in {seconds:.1f} s; the resumed film is off by {off:.1e}; {errors.splitlines()[-1:]}", flush=True)


def computed() -> None:
    """Prints what a rank of LongLive 5B sends for a block: four steps and a clean pass over 8 x 880 tokens."""
    model, tokens = WAN22_TI2V_5B, 8 * 880
    print("\n| ranks | GB sent by a rank for a block | at 450 GB/s | at 25 GB/s |\n|---|---|---|---|")
    for size in (2, 4, 8):
        layer = 4 * tokens // size * model.dim * 2 * (size - 1) / size
        sent = (4 * model.num_layers + model.num_layers - 0.5) * layer / 1e9
        print(f"| {size} | {sent:.2f} | {sent / 450 * 1e3:.0f} ms | {sent / 25 * 1e3:.0f} ms |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--kills", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        computed()
        if given.sizes:
            sequences(given.sizes, Path(temporary))
        if given.kills:
            kills(given.kills, Path(temporary))
