"""`longlive eval`: measures how well a model does what its script says, or how steady a film of any model is."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

from .run_job import set_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    model = "mini, a folder that `train mini` made, a checkpoint of its shape, or FILM.take: a film of any model"
    parser.add_argument("model", help=model)
    lora = "a LoRA file, such as one of `train dmd`, applied without merging it; may be given several times"
    parser.add_argument("--lora", action="append", default=[], metavar="FILE[:STRENGTH]", help=lora)
    films = "held-out short films in each arm; the other groups have fewer (32: all arms in about 70 min on one core)"
    parser.add_argument("--films", type=int, default=32, help=films)
    parser.add_argument("--arms", metavar="NAME,NAME", help="evaluate these arms only, as in 'memory off,2 steps'")
    groups = "make films of these groups only: short, minute, gap, shot, long"
    parser.add_argument("--groups", metavar="NAME,NAME", help=groups)
    parser.add_argument("--seed", type=int, default=0, help="added to the seeds of the noise (0)")
    against = "a model in bf16 with whose short films PSNR compares all arms, such as the one a model was trained from"
    parser.add_argument("--against", metavar="MODEL", help=against)
    extra = "leave out cuts and SSIM, which need the optional packages longlive-video[eval]"
    parser.add_argument("--no-extra", action="store_false", dest="extra", help=extra)
    threads = "number of CPU threads (torch's default); 1 is faster where other programs use the cores"
    parser.add_argument("--threads", type=int, help=threads)
    parser.add_argument("--out", type=Path, default=Path("output/eval"), help="folder of tables, figures and plots")


def run(args: argparse.Namespace) -> int:
    """Evaluates the model or the film, prints the tables and writes the results; returns the exit code."""
    set_threads(args)
    return _evaluate_take(args) if (Path(args.model) / "take.json").is_file() else _evaluate_model(args)


def _evaluate_model(args: argparse.Namespace) -> int:
    from ..evaluation.arm_films import evaluate_arms
    from ..evaluation.arms import all_arms, choose_arms
    from ..evaluation.pixels import require_extra
    from ..evaluation.plots import make_plots
    from ..evaluation.report import make_tables
    from ..evaluation.scripts import choose_groups, make_cases
    from ..evaluation.table import HOW, MINI_SECTION, as_json, markdown, mini_facts, seeds_text, write_results
    from ..render.load_model import change_linears, load_model, read_loras
    from ..weights import LoraFile

    model = " + ".join([args.model, *args.lora])
    if args.films < 1:
        raise ValueError(f"--films {args.films} must be at least 1; 32 gives comparable figures")
    arms = choose_arms(args.arms.split(",")) if args.arms else all_arms()
    groups = choose_groups(args.groups.split(",")) if args.groups else None
    if args.extra:
        require_extra()
    mini, began = load_model(args.model), time.monotonic()
    against = None if args.against is None else load_model(args.against)
    loras = read_loras(args.model, [LoraFile.parse(text, None) for text in args.lora])
    notes = change_linears(mini.model, False, loras)
    cases = [case for case in make_cases(args.films, args.seed) if groups is None or case.group in groups]
    results = evaluate_arms(mini, cases, arms, extra=args.extra, log=partial(print, flush=True), against=against)
    tables = make_tables(results, mini, "the first arm" if args.against is None else args.against)
    seconds = time.monotonic() - began
    counts = f"{args.films} held-out short films in each arm, in {seconds / 60:.1f} min."
    text = markdown(f"LongLive Mini ({model})", tables, (*notes, counts, HOW, seeds_text(args.seed)))
    print(text)
    data = as_json(tables, mini_facts(model, args.films, args.seed, seconds))
    for path in write_results(args.out, MINI_SECTION, text, data, make_plots(results)):
        print(f"wrote {path}")
    return 0


def _evaluate_take(args: argparse.Namespace) -> int:
    from ..evaluation.pixels import measure_pixels, require_extra
    from ..evaluation.table import as_json, film_table, markdown, write_results
    from ..take import Take
    from ..video import read_frames

    if args.extra:
        require_extra()
    take = Take.load(Path(args.model))
    if not take.film.exists():
        raise FileNotFoundError(f"{take.film}, the film of {take.folder}, is missing; resume its render to write it")
    table = film_table(measure_pixels(read_frames(take.film), take.plan, extra=args.extra))
    text = markdown(f"{take.film.name}, seed {take.settings.get('seed')}", (table,), ())
    print(text)
    facts = {"film": str(take.film), "seed": take.settings.get("seed")}
    for path in write_results(args.out, f"longlive eval {take.folder.name}", text, as_json((table,), facts)):
        print(f"wrote {path}")
    return 0
