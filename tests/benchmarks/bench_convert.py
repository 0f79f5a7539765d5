"""What converting a checkpoint of LongLive 2.0's size costs: seconds, peak memory, bytes, and error by kind of layer.

    python tests/benchmarks/bench_convert.py FOLDER                 5 B random weights, 10 GB; needs 23 GB of disk
    python tests/benchmarks/bench_convert.py FOLDER --layers 2      two blocks of thirty

The weights are random, normal, of the real shapes. The conversion runs in a process of its own, so that its peak is its
own; pages of the mapped source count in it. Nothing is printed unless the file, read back, is as near the source as its
format can be. `--keep` leaves the new file in FOLDER; the source is deleted. On a shared machine `--threads 1` is
the fastest. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from longlive.longlive_core.model import WAN22_TI2V_5B, CausalWan
from longlive.longlive_core.weights import TensorSpec, convert_checkpoint
from longlive.longlive_core.weights.convert import ConvertProgress
from longlive.longlive_core.weights.convert_report import report_lines
from longlive.longlive_core.weights.safetensors_writer import write_safetensors
from torch import Tensor

SOURCE = "bench_source.safetensors"
SAYS = {"longlive": json.dumps({"causal": True})}
STD = 0.02


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=WAN22_TI2V_5B.num_layers)
    parser.add_argument("--format", default="nvfp4", choices=["nvfp4", "fp8", "bf16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--convert", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    source, target = args.folder / SOURCE, args.folder / f"bench_{args.layers}_{args.format}.safetensors"
    torch.set_num_threads(args.threads)
    if args.convert:
        return convert(source, target, args.format)
    try:
        start = perf_counter()
        make_source(source, args.layers)
        print(f"source: {source.stat().st_size / 1e9:.3f} GB in {perf_counter() - start:.0f} s", flush=True)
        options = [str(args.folder), "--layers", str(args.layers), "--format", args.format]
        options += ["--threads", str(args.threads), "--convert"]
        subprocess.run([sys.executable, __file__, *options], check=True)
    finally:
        source.unlink(missing_ok=True)
        if not args.keep:
            target.unlink(missing_ok=True)


def make_source(path: Path, layers: int) -> None:
    """A bf16 checkpoint with the shapes of LongLive 2.0 and `layers` blocks."""
    with torch.device("meta"):
        state = CausalWan(replace(WAN22_TI2V_5B, num_layers=layers)).state_dict()
    specs = {name: TensorSpec("BF16", tuple(tensor.shape)) for name, tensor in state.items()}
    draw = torch.Generator().manual_seed(0)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, spec in specs.items():
            yield name, torch.randn(spec.shape, generator=draw).mul_(STD).bfloat16()

    write_safetensors(path, specs, SAYS, tensors())


def convert(source: Path, target: Path, form: str) -> None:
    """The conversion, measured, in this process."""
    before, start, checking = peak_mb(), perf_counter(), []

    def watch(progress: ConvertProgress) -> None:
        if progress.checking and not checking:
            checking.append(perf_counter())

    done = convert_checkpoint(source, target, format=form, overwrite=True, on_progress=watch)
    end = perf_counter()
    print(f"{torch.get_num_threads()} threads: {checking[0] - start:.0f} s writing, {end - checking[0]:.0f} s checking")
    print(f"peak memory {peak_mb():.0f} MB, of it {before:.0f} MB before the conversion began")
    print(f"size {done.bytes_out / 1e9:.4f} GB ({done.bytes_out:,} bytes)")
    print("\n".join(report_lines(done)))


def peak_mb() -> float:
    """The most resident memory this process has had, in MB; a child's count begins anew, unlike that of getrusage."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
