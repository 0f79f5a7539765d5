"""Formats the progress and the report of a checkpoint conversion."""

from __future__ import annotations

from collections.abc import Iterator

from .conversion_check import OTHER_TENSORS
from .convert import Conversion, ConvertProgress


def progress_line(progress: ConvertProgress) -> str:
    """Formats the progress as in `writing blocks.12.ffn.0.weight: 21 %`."""
    return f"{'checking' if progress.checking else 'writing'} {progress.name}: {progress.fraction:.0%}"


def report_lines(conversion: Conversion) -> Iterator[str]:
    """Yields sizes, the coverage of each LoRA, notes, and a table of relative RMS errors by kind of layer."""
    yield (
        f"{conversion.target}: {conversion.format}, "
        f"{conversion.bytes_in / 1e9:.3g} GB became {conversion.bytes_out / 1e9:.3g} GB"
    )
    copied = f", {conversion.copied} of them copied unchanged" if conversion.copied else ""
    yield f"{conversion.quantized} layers quantised{copied}; {conversion.unquantized} tensors in bf16; compared"
    yield from (f"lora merged: {report.text()}" for report in conversion.loras)
    yield from (f"note: {note}" for note in conversion.notes)
    if not any(errors.worst for errors in conversion.errors.values()):
        yield "no value differs from the source"
        return
    # The kind of all other tensors comes last.
    kinds = sorted(conversion.errors, key=lambda kind: kind == OTHER_TENSORS)
    width = max(map(len, ("relative error", *kinds)))
    yield f"{'relative error':{width}}  tensors      mean     worst"
    for kind in kinds:
        errors = conversion.errors[kind]
        name = f"  {errors.worst_name}" if errors.worst else ""
        yield f"{kind:{width}}  {errors.tensors:7}  {errors.mean:8.2e}  {errors.worst:8.2e}{name}"
