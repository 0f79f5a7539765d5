"""`longlive train mini`: trains the embedded model."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..take.lock import TakeLock
from .console import STOPPED, stop_signals
from .training_line import TrainingLine

if TYPE_CHECKING:
    from ..training.log import TrainingProgress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("output/mini"), help="folder of weights and checkpoints")
    parser.add_argument(
        "--vae", default="new", help="train a VAE (new), or take the shipped one, or one of `train vae` (its folder)"
    )
    parser.add_argument(
        "--start", choices=["nothing", "mini"], default="nothing", help="weights of the transformer to start from"
    )
    parser.add_argument("--films", type=int, default=2000, help="number of films of one hero to train on")
    parser.add_argument("--casts", type=int, default=600, help="number of films of several heroes to train on")
    parser.add_argument("--data", type=Path, help="folder of the encoded films (default: films in --out)")
    parser.add_argument("--steps", type=int, default=30_000, help="training steps of the transformer")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of the transformer (0.001)")
    parser.add_argument("--nvfp4", action="store_true", help="train weights, activations and memory for NVFP4")
    parser.add_argument("--processes", type=int, default=1, help="processes that train together, each on one CPU core")
    parser.add_argument("--device", default="cpu", help="device of the transformer, such as cuda")
    parser.add_argument("--batch", type=int, default=1, help="factor of the size of batches; 8 suits a large GPU")
    parser.add_argument("--only", choices=["films"], help="stop after this: encode the films")


def run(args: argparse.Namespace) -> int:
    """Trains the model; returns the exit code. The first Ctrl-C stops between two steps and saves a checkpoint."""
    from ..evaluation.probe import read_shape
    from ..training.mini import Hooks, MiniRun, encode_data, train_mini

    settings = MiniRun(
        folder=args.out,
        seed=args.seed,
        shipped_vae=args.vae == "shipped",
        vae=None if args.vae in ("new", "shipped") else Path(args.vae),
        from_mini=args.start == "mini",
        films=args.films,
        casts=args.casts,
        data=args.data,
        steps=args.steps,
        lr=args.lr,
        nvfp4=args.nvfp4,
        processes=args.processes,
        device=args.device,
        batch=args.batch,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    with TakeLock(args.out) as lock, stop_signals() as should_stop:
        line = TrainingLine()

        def show(progress: TrainingProgress) -> None:
            lock.check()
            line.show(progress)

        hooks = Hooks(partial(print, flush=True), show, should_stop, read_shape)
        complete = encode_data(settings, hooks) if args.only == "films" else train_mini(settings, hooks) is not None
    if complete:
        return 0
    print("stopped; the same command resumes the run")
    return STOPPED
