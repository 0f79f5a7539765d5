"""`longlive plan`: what a film would take on a card."""

from __future__ import annotations

import argparse
import re

from ..memory import KV_FORMATS
from ..vram.budget import VAES, WEIGHT_BYTES
from ..vram.planner import GIB, plan_vram


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that `plan_text` reads."""
    parser.add_argument("--vram", required=True, metavar="12GB", help="memory of the card, as it is sold")
    parser.add_argument("--size", default="704x1280", metavar="HxW", help="pixels, multiples of 32 (704x1280)")
    parser.add_argument("--weights", choices=list(WEIGHT_BYTES), help="format of the model file (the best that fits)")
    parser.add_argument("--kv", choices=list(KV_FORMATS), help="how memory is kept (the best that fits)")
    parser.add_argument("--window", type=int, default=32, help="latent frames of memory, sinks included (32)")
    parser.add_argument("--vae", choices=list(VAES), default="full", help="full: Wan 2.2's; tiny: taew2_2 (full)")
    parser.add_argument("--sequential", action="store_true", help="decode when all is sampled and the model is gone")
    parser.add_argument("--guidance", action="store_true", help="with guidance other than 1")


def plan_text(args: argparse.Namespace) -> str:
    """The plan of the arguments that `add_arguments` added. Raises ValueError for a card or a size that is none."""
    plan = plan_vram(
        parse_vram(args.vram),
        parse_size(args.size),
        args.weights,
        args.kv,
        args.window,
        args.vae,
        sequential=args.sequential,
        guidance=args.guidance,
    )
    return plan.text()


def parse_vram(text: str) -> int:
    """Bytes of a card of "12GB" or "12": cards are sold in units of 2^30 bytes, whatever their boxes say."""
    found = re.fullmatch(r"\s*(\d{1,4}(?:\.\d{1,3})?)\s*(?:G|GB|GiB)?\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise ValueError(f"vram '{text}' is not the memory of a card in GB, as in 12GB")
    return int(float(found[1]) * GIB)


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "704x1280"."""
    found = re.fullmatch(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", text)
    if found is None:
        raise ValueError(f"size '{text}' is not HEIGHTxWIDTH in pixels, as in 704x1280")
    return int(found[1]), int(found[2])
