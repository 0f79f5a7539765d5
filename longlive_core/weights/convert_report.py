"""Formats the progress and the report of a checkpoint conversion."""

from __future__ import annotations

from collections.abc import Iterator

from .conversion_check import OTHER_TENSORS, Conversion
from .convert import ConvertProgress


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
    kinds = [*(kind for kind in done.errors if kind != OTHER_TENSORS), *({OTHER_TENSORS} & done.errors.keys())]
    width = max(map(len, ("relative error", *kinds)))
    yield f"{'relative error':{width}}  tensors      mean     worst"
    for kind in kinds:
        errors = done.errors[kind]
        where = f"  {errors.worst_name}" if errors.worst else ""
        yield f"{kind:{width}}  {errors.tensors:7}  {errors.mean:8.2e}  {errors.worst:8.2e}{where}"
