"""The section of RESULTS.md on GPUs: what is computed, and what `device.py` measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .part import Row
from .plan import PARTS
from .tables import MORE, middle, number, table

RESULTS = Path(__file__).resolve().parents[1] / "RESULTS.md"
BEGIN, END = "<!-- device.py -->", "<!-- end of device.py -->"
TITLE = "## On a GPU: `python tests/benchmarks/device.py`"

Result = dict[str, Any]


def write_section(result: Result | None, path: Path = RESULTS) -> None:
    """Replaces the section in a file. result: what `device.py` wrote, or None. Raises ValueError without the marks."""
    text = path.read_text("utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{path} has no section between '{BEGIN}' and '{END}'; put the two lines where it shall be")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{section(result)}{after}", "utf-8")


def section(result: Result | None) -> str:
    """The section, between its marks."""
    parts = {} if result is None else rows_of(result)
    blocks = [BEGIN, TITLE, headline(result), computed(parts.get("ladder", {}))]
    blocks += [table(part.title, parts[part.name], MORE.get(part.name)) for part in PARTS if part.name in parts]
    return "\n\n".join([*blocks, END])


def rows_of(result: Result) -> dict[str, dict[str, Row]]:
    """The rows of all parts, by part and name."""
    return {
        name: {values["name"]: Row.from_dict(values) for values in part["rows"]}
        for name, part in result["parts"].items()
    }


def headline(result: Result | None) -> str:
    """Where and when the figures come from."""
    seconds = sum(part.expected for part in PARTS)
    parts = ", ".join(f"{part.name} {part.expected:.0f}" for part in PARTS)
    expected = f"Expected seconds on an H200, an estimate: {parts}; {seconds:.0f} in all, of 540."
    if result is None:
        return f"**Nothing here has run on a GPU yet**; none was at hand. {expected}"
    facts = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    toy = " Toy shapes: the times mean nothing." if result["toy"] else ""
    spent = ", ".join(f"{name} {part['seconds']:.0f}" for name, part in result["parts"].items())
    note = "Medians, and in brackets the lowest and the highest decile."
    return f"{result['date']}; {facts}.{toy} Seconds of the parts: {spent}. {expected} {note}"


def computed(ladder: dict[str, Row]) -> str:
    """Computed milliseconds of a pass and of a frame, before and after, beside the measured ones of the ladder."""
    # Imported here, because it needs the transformer.
    from . import costs

    steps = costs.PASSES[4]
    lines = [
        "### Milliseconds of a pass and of a video frame, computed",
        "",
        "5B model, 704x1280, window of 32 latent frames, 4 steps, by `device_parts/costs.py` for an H200: "
        f"{costs.FLOPS['bf16'] / 1e12:.0f} and {costs.FLOPS['fp8'] / 1e12:.0f} TFLOP/s of products in bf16 and FP8; "
        f"{costs.ATTENTION['flash'] / 1e12:.0f}, {costs.ATTENTION['cudnn'] / 1e12:.0f} and "
        f"{costs.ATTENTION['fp8'] / 1e12:.0f} of attention by FlashAttention-2, cuDNN and in FP8; "
        f"{costs.BYTES / 1e12:.1f} TB/s. A frame takes {steps} passes / {costs.FRAMES}. Before: ComfyUI's order of "
        "attention, rounding in integer arithmetic, FP8 layers that quantise and add the bias by themselves.",
        "",
        "| arm | | before: products + attention + prompt + others | ms a pass | ms a frame | frames/s "
        "| after: the same | ms a pass | ms a frame | frames/s | measured, ms a pass | ms a frame |",
        "|---" * 12 + "|",
    ]
    for arm in costs.arms():
        measured = middle(ladder.get(arm.name), "ms")
        seen = ("", "") if measured is None else (number(measured), number(measured * steps / costs.FRAMES))
        row = [arm.name, arm.title, *cost_cells(arm.before), *cost_cells(arm.after), *seen]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, "", *decoders()])


def decoders() -> list[str]:
    """The table of decoders: least milliseconds of a frame, and frames/s with a pass in bf16 and in FP8."""
    from . import costs
    from .work import decoder_flops

    arms = {arm.name: arm.after.frame() for arm in costs.arms()}
    lines = [
        "| decoder | TFLOP a frame | ms at the rate of products | frames/s with a film in bf16 | in FP8 "
        "| with attention in FP8 too |",
        "|---" * 6 + "|",
    ]
    for name in ("full", "tiny"):
        flops = decoder_flops(name)
        least = 1e3 * flops / costs.FLOPS["bf16"]
        rates = " | ".join(f"{1e3 / (arms[arm] + least):.1f}" for arm in ("d", "e", "e8"))
        lines.append(f"| {name} | {flops / 1e12:.3g} | {least:.3g} | {rates} |")
    return lines


def cost_cells(cost: Any) -> tuple[str, str, str, str]:  # noqa: ANN401 (`Cost`, which is imported late)
    """The parts of a cost, ms of a pass and of a frame, and frames/s."""
    if cost is None:
        return "", "", "", ""
    parts = " + ".join(f"{x:.1f}" for x in (cost.products, cost.attention, cost.text, cost.others))
    return parts, f"{cost.total:.0f}", f"{cost.frame():.1f}", f"{1e3 / cost.frame():.1f}"
