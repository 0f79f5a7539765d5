"""`longlive plan`: estimates the VRAM that a film needs on a graphics card."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..memory import KV_FORMATS
from ..sampling import SEAMS
from ..script.prompt_folder import read_script
from ..script.reading import COMMENT
from ..units import GIB
from ..vram.budget import VAES, WEIGHT_BYTES
from ..vram.planner import plan_vram
from .script import SCRIPT_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("script", type=Path, nargs="?", help=f"{SCRIPT_HELP}: print its blocks too")
    parser.add_argument("--vram", required=True, metavar="12GB", help="the card's VRAM, as it is sold")
    parser.add_argument("--size", default="704x1280", metavar="HxW", help="pixels, multiples of 32 (704x1280)")
    parser.add_argument("--weights", choices=list(WEIGHT_BYTES), help="format of the weights (the best that fits)")
    parser.add_argument("--kv", choices=list(KV_FORMATS), help="format of the KV cache (the best that fits)")
    parser.add_argument("--window", type=int, default=32, help="latent frames in the KV cache, with the sinks (32)")
    parser.add_argument("--vae", choices=list(VAES), default="full", help="full: Wan 2.2's; tiny: taew2_2 (full)")
    parser.add_argument("--sequential", action="store_true", help="decode after sampling, with the model unloaded")
    parser.add_argument("--guidance", action="store_true", help="plan for a guidance other than 1")
    parser.add_argument("--seam", choices=SEAMS, default="plain", help="plain, or align: 9/8 of the tokens (plain)")


def run(args: argparse.Namespace) -> int:
    """Prints the plan; returns the exit code."""
    if args.script is not None:
        script = read_script(args.script)
        plan = script.plan()
        print("\n".join([plan.text(), *script.reading.lines((*plan.notes, COMMENT)), ""]))
    print(plan_text(args))
    return 0


def plan_text(args: argparse.Namespace) -> str:
    """Returns the plan of the parsed arguments as text. Raises ValueError for an invalid card or size."""
    plan = plan_vram(
        parse_vram(args.vram),
        parse_size(args.size),
        args.weights,
        args.kv,
        args.window,
        args.vae,
        sequential=args.sequential,
        guidance=args.guidance,
        align=args.seam == "align",
    )
    return plan.text()


def parse_vram(text: str) -> int:
    """Converts "12GB" or "12" into bytes: the GB of graphics cards are units of 2^30 bytes. Raises ValueError."""
    match = re.fullmatch(r"\s*(\d{1,4}(?:\.\d{1,3})?)\s*(?:G|GB|GiB)?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"vram '{text}' is not the memory of a card in GB, as in 12GB")
    return int(float(match[1]) * GIB)


def parse_size(text: str) -> tuple[int, int]:
    """Converts "704x1280" into (height, width). Raises ValueError."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", text)
    if match is None:
        raise ValueError(f"size '{text}' is not HEIGHTxWIDTH in pixels, as in 704x1280")
    return int(match[1]), int(match[2])
