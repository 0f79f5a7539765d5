"""Conversion of a checkpoint of the size of LongLive 2.0: seconds, peak memory, bytes, and error by kind of layer.

    python tests/benchmarks/bench_convert.py FOLDER                 5 billion random weights; needs 23 GB of disk
    python tests/benchmarks/bench_convert.py FOLDER --layers 2      two of thirty layers

The weights are normally distributed and have the shapes of the model. The conversion runs in a separate process, so
that its peak memory does not include the making of the source; it does include mapped pages of the source. The
converter reads its file back, and fails if an error is larger than the format allows. `--keep` leaves the new file in
FOLDER; the source is always deleted. On a shared machine, `--threads 1` is the fastest. Linux only.
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
from process_memory import memory_mb
from torch import Tensor

SOURCE = "bench_source.safetensors"
METADATA = {"longlive": json.dumps({"causal": True})}
STD = 0.02


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=WAN22_TI2V_5B.num_layers)
    parser.add_argument("--format", default="nvfp4", choices=["nvfp4", "fp8", "bf16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--convert", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
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
    """Writes a bf16 checkpoint with the shapes of LongLive 2.0 and `layers` layers."""
    with torch.device("meta"):
        state = CausalWan(replace(WAN22_TI2V_5B, num_layers=layers)).state_dict()
    specs = {name: TensorSpec("BF16", tuple(tensor.shape)) for name, tensor in state.items()}
    generator = torch.Generator().manual_seed(0)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, spec in specs.items():
            yield name, torch.randn(spec.shape, generator=generator).mul_(STD).bfloat16()

    write_safetensors(path, specs, METADATA, tensors())


def convert(source: Path, target: Path, format: str) -> None:
    """Converts the source in this process and prints the measurements."""
    before, start, checking = memory_mb("VmHWM"), perf_counter(), list[float]()

    def on_progress(progress: ConvertProgress) -> None:
        if progress.checking and not checking:
            checking.append(perf_counter())

    report = convert_checkpoint(source, target, format=format, overwrite=True, on_progress=on_progress)
    end = perf_counter()
    print(f"{torch.get_num_threads()} threads: {checking[0] - start:.0f} s writing, {end - checking[0]:.0f} s checking")
    print(f"peak memory {memory_mb('VmHWM'):.0f} MB, including {before:.0f} MB before the conversion")
    print(f"size {report.bytes_out / 1e9:.4f} GB ({report.bytes_out:,} bytes)")
    print("\n".join(report_lines(report)))


if __name__ == "__main__":
    main()
