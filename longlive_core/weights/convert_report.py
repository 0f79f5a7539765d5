"""`longlive convert` in words: its arguments, how far it is, and what it made."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from ...kernels import RULES
from .conversion import OTHERS, Conversion
from .convert import ConvertProgress, Format, convert_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `convert_lines` takes."""
    parser.add_argument("source", type=Path, metavar="IN", help="a checkpoint: safetensors or an official .pt")
    parser.add_argument("target", type=Path, metavar="OUT.safetensors")
    parser.add_argument(
        "--format", choices=get_args(Format), default="nvfp4", help="of the blocks' linear layers (nvfp4)"
    )
    parser.add_argument("--lora", type=Path, metavar="FILE", help="merged before the weights are rounded")
    parser.add_argument("--strength", type=float, default=1.0, help="of the LoRA (1)")
    parser.add_argument("--rule", choices=RULES, default="mse", help="how nvfp4 chooses its block scales (mse)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")


def convert_lines(
    args: argparse.Namespace,
    on_progress: Callable[[ConvertProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[str]:
    """Converts as `add_arguments` was told and gives the lines of the report. Raises what `convert_checkpoint` does."""
    done = convert_checkpoint(
        args.source,
        args.target,
        format=args.format,
        lora=args.lora,
        strength=args.strength,
        rule=args.rule,
        overwrite=args.overwrite,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    yield from report_lines(done)


def progress_line(progress: ConvertProgress) -> str:
    """As in `writing blocks.12.ffn.0.weight: 21 %`; writing is the first half, checking the second."""
    return f"{'checking' if progress.checking else 'writing'} {progress.name}: {progress.share:.0%}"


def report_lines(done: Conversion) -> Iterator[str]:
    """Sizes, coverage, and a table of relative RMS errors by kind of layer."""
    yield f"{done.target}: {done.format}, {done.bytes_in / 1e9:.3g} GB became {done.bytes_out / 1e9:.3g} GB"
    taken = f", {done.taken} of them as they were" if done.taken else ""
    yield f"{done.quantised} layers quantised{taken}; {done.kept} tensors in bf16; read back and compared"
    if done.lora is not None:
        yield f"lora merged: {done.lora.text()}"
    yield from (f"note: {note}" for note in done.notes)
    if not any(errors.worst for errors in done.errors.values()):
        yield "no value differs from the source"
        return
    kinds = [*(kind for kind in done.errors if kind != OTHERS), *({OTHERS} & done.errors.keys())]
    width = max(map(len, ("relative error", *kinds)))
    yield f"{'relative error':{width}}  tensors      mean     worst"
    for kind in kinds:
        errors = done.errors[kind]
        where = f"  {errors.worst_name}" if errors.worst else ""
        yield f"{kind:{width}}  {errors.tensors:7}  {errors.mean:8.2e}  {errors.worst:8.2e}{where}"
