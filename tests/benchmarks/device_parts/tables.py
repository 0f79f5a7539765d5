"""Tables in Markdown of the rows that parts found, with what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles

from .part import Row

Cells = dict[str, str]
Rows = Mapping[str, Row]


def number(x: float) -> str:
    """Three significant digits, without an exponent from 0.001 to a million."""
    if x != x or x == 0 or not 1e-3 <= abs(x) < 1e6:
        return f"{x:.1e}" if x else "0"
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def spread(samples: Sequence[float]) -> str:
    """The median, and the deciles at both ends where they differ: `12.1 (12.0–12.9)`."""
    middle = number(median(samples))
    if len(samples) < 2:
        return middle
    deciles = quantiles(samples, n=10, method="inclusive")
    low, high = number(deciles[0]), number(deciles[-1])
    return middle if low == high else f"{middle} ({low}–{high})"


def cells(row: Row) -> Cells:
    """Figures and samples of a row by the name of their column."""
    found = {key: value if isinstance(value, str) else number(value) for key, value in row.figures.items()}
    return found | {key: spread(values) for key, values in row.samples.items() if values}


def as_text(row: Row) -> str:
    """A row in one line."""
    parts = [row.name, *([row.status] if row.status != "ok" else []), *([row.note] if row.note else [])]
    return ", ".join([*parts, *(f"{key} {value}" for key, value in cells(row).items())])


def table(title: str, rows: Rows, more: Callable[[Row, Rows], Cells] | None = None) -> str:
    """The table of a part. more: cells that follow from a row and the others."""
    lines = {name: cells(row) | (more(row, rows) if more else {}) for name, row in rows.items()}
    columns = list(dict.fromkeys(column for line in lines.values() for column in line))
    header = ["row", *columns, "note"]
    out = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name, line in lines.items():
        row = rows[name]
        note = row.note if row.status == "ok" else f"{row.status}: {row.note}".removesuffix(": ")
        out.append(f"| {' | '.join([name, *(line.get(column, '') for column in columns), note])} |".replace("  ", " "))
    return f"### {title}\n\n" + "\n".join(out)


def middle(row: Row | None, key: str) -> float | None:
    """The median of some samples of a row, or None without any."""
    values = row.samples.get(key) if row is not None else None
    return median(values) if values else None


def figure(row: Row, key: str) -> float:
    """A figure that is a number."""
    value = row.figures[key]
    assert isinstance(value, float | int)
    return value


def op_cells(row: Row, rows: Rows) -> Cells:  # noqa: ARG001
    """GB/s of Triton, and how much faster than eager PyTorch it is."""
    ours, eager = middle(row, "ms, Triton"), middle(row, "ms, eager")
    if ours is None:
        return {}
    rate = {"GB/s, Triton": number(figure(row, "MB") / ours)}
    return rate | ({"eager / Triton": number(eager / ours)} if eager is not None else {})


def ceiling_cells(row: Row, rows: Rows) -> Cells:  # noqa: ARG001
    """TFLOP/s or GB/s."""
    per = {"TFLOP": ("TFLOP/s", 1e3), "MB": ("GB/s", 1.0)}
    return {
        f"{unit}{key.removeprefix('ms')}": number(scale * figure(row, work) / value)
        for work, (unit, scale) in per.items()
        if work in row.figures
        for key in row.samples
        if key != "ms, quantise" and (value := middle(row, key))
    }


def ladder_cells(row: Row, rows: Rows) -> Cells:
    """Speed relative to arm a, and frames/s of whole blocks."""
    found: Cells = {}
    took, base = middle(row, "ms"), middle(rows.get("a"), "ms")
    if took is not None and base is not None:
        found["a / this"] = number(base / took)
    for steps in (4, 2):
        if (block := middle(row, f"ms a block, {steps} steps")) is not None:
            found[f"frames/s, {steps} steps"] = number(32e3 / block)
    return found


def film_cells(row: Row, rows: Rows) -> Cells:
    """Frames/s, and of a film end to end its share of the speed of sampling alone."""
    took = middle(row, "ms a block")
    if took is None:
        return {}
    found = {"frames/s": number(1e3 * figure(row, "frames of a block") / took)}
    kind, _, rest = row.name.partition(", ")
    alone = middle(rows.get(f"denoise, {rest.partition(', ')[0]}, 4 steps"), "ms a block")
    if kind == "film" and alone is not None:
        found["end to end / denoise"] = number(alone / took)
    return found


MORE = {"ops": op_cells, "ceilings": ceiling_cells, "ladder": ladder_cells, "films": film_cells, "graphs": film_cells}
"""What follows from the rows, by part."""
