"""`longlive plan`: estimates the VRAM that a film, or the training of a LoRA, needs on a graphics card."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..memory import DEFAULT_MEMORY, KV_FORMATS, RECALL_POSITIONS, MemoryConfig
from ..pipeline.decode_device import CPU
from ..sampling import SEAMS
from ..sampling.split import check_split
from ..script.prompt_folder import read_script
from ..script.reading import COMMENT
from ..units import GIB
from ..vram.budget import VAES, WEIGHT_BYTES, Placement
from ..vram.planner import plan_vram
from ..vram.training_budget import TrainingBudget
from ..vram.training_planner import plan_training
from .script import SCRIPT_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("script", type=Path, nargs="?", help=f"{SCRIPT_HELP}: print its blocks too")
    parser.add_argument("--vram", required=True, metavar="12GB", help="the card's VRAM, as it is sold")
    parser.add_argument("--size", default="704x1280", metavar="HxW", help="pixels, multiples of 32 (704x1280)")
    parser.add_argument("--weights", choices=list(WEIGHT_BYTES), help="format of the weights (the best that fits)")
    parser.add_argument("--kv", choices=list(KV_FORMATS), help="format of the KV cache (the best that fits)")
    parser.add_argument("--window", type=int, default=32, help="latent frames in the KV cache, with the sinks (32)")
    usual = DEFAULT_MEMORY.recall_position
    position = "where blocks that @recall brings back stand in time, see `render --recall-position` (before_shot)"
    parser.add_argument("--recall-position", choices=RECALL_POSITIONS, default=usual, help=position)
    parser.add_argument("--vae", choices=list(VAES), default="full", help="full: Wan 2.2's; tiny: taew2_2 (full)")
    parser.add_argument("--sequential", action="store_true", help="decode after sampling, with the model unloaded")
    parser.add_argument("--guidance", action="store_true", help="plan for a guidance other than 1")
    parser.add_argument("--seam", choices=SEAMS, default="plain", help="plain, or align: 9/8 of the tokens (plain)")
    gpus = "plan for N such cards that share each block, see `render --gpus`: the card with the most (1)"
    parser.add_argument("--gpus", type=int, default=1, metavar="N", dest="cards", help=gpus)
    split = "with --guidance: one half of the cards has one of its branches, see `render --split-guidance`"
    parser.add_argument("--split-guidance", action="store_true", dest="split", help=split)
    device = "the card that decodes, from 0, or cpu (0); one beyond those of --gpus only decodes"
    parser.add_argument("--decode-gpu", metavar="INDEX", dest="decoder", help=device)
    parser.add_argument("--cuda-graphs", action="store_true", help="count what `render --cuda-graphs` holds")
    variants = "say how many of N films with other seeds are sampled at once, see `render --variants` (1)"
    parser.add_argument("--variants", type=int, default=1, metavar="N", help=variants)
    group = parser.add_argument_group("training of a LoRA for LongLive 5B, instead of a film")
    group.add_argument("--train", action="store_true", help="plan `train lora` on one's own clips")
    group.add_argument("--rank", type=int, default=32, help="rank of the LoRA (32)")
    group.add_argument("--frames", type=int, default=65, help="video frames of a clip, rounded up to blocks (65)")
    group.add_argument("--shots", type=int, default=1, help="shots of a clip, each at least a block (1)")
    group.add_argument("--clips", type=int, default=1, help="clips in a part of a batch (1)")
    offload = "keep the optimiser's moments in host memory (if needed)"
    group.add_argument("--offload", action=argparse.BooleanOptionalAction, help=offload)
    keep = "keep all activations, which is faster"
    group.add_argument("--no-checkpointing", action="store_false", dest="checkpointing", help=keep)


def run(args: argparse.Namespace) -> int:
    """Prints the plan; returns the exit code."""
    recalled = 0
    if args.script is not None:
        script = read_script(args.script)
        plan = script.plan()
        print("\n".join([plan.text(), *script.reading.lines((*plan.notes, COMMENT)), ""]))
        memory = MemoryConfig(args.window, recall_position=args.recall_position)
        memory.check_recalled(plan.blocks, plan.block_frames)
        recalled = max(count for _, count in memory.recalled_by_shot(plan.blocks, plan.block_frames))
    print(plan_text(args, recalled))
    return 0


def plan_text(args: argparse.Namespace, recalled: int = 0) -> str:
    """Returns the plan of the parsed arguments as text.

    recalled: blocks that a shot recalls at most. Raises ValueError for an invalid card or size.
    """
    if args.train:
        budget = TrainingBudget(
            parse_vram(args.vram),
            parse_size(args.size),
            args.frames,
            args.shots,
            args.rank,
            checkpointing=args.checkpointing,
            clips=args.clips,
            window=args.window,
        )
        return plan_training(budget, weights=args.weights, offload=args.offload).text()
    if args.split:
        check_split(args.cards)
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
        films=args.variants,
        recalled=recalled,
        ranks=args.cards // 2 if args.split else args.cards,
        decoder=decoder_placement(args.decoder, args.cards),
        split=args.split,
        graphs=args.cuda_graphs,
    )
    return plan.text()


def decoder_placement(name: str | None, cards: int) -> Placement:
    """Where `--decode-gpu` puts the VAE, seen by the card with the most. Raises ValueError for what is no index."""
    if name is None:
        return "resident"
    if name == CPU:
        return "offloaded"
    if not (name.isascii() and name.isdecimal()):
        raise ValueError(f"--decode-gpu {name}: give the index of a card, as in {cards} for one more, or {CPU}")
    return "other card" if int(name) >= cards else "resident"


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
