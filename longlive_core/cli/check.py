"""`longlive check`: a continuity report on a film, and its worst shots made again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .console import CHECK_FAILED, STOPPED, job_hooks
from .run_job import set_threads

if TYPE_CHECKING:
    from ..evaluation.continuity import ShotScore
    from ..evaluation.features import ImageFeatures
    from ..render.rank_versions import FilmScores
    from ..render.remake import Remade
    from ..take import Take


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("take", type=Path, metavar="TAKE", help="the FILM.take of a render")
    limit = "scores below it are faults: what the report names, and exit code 1 (0.8)"
    parser.add_argument("--below", type=float, default=0.8, metavar="SCORE", help=limit)
    places = "names of @keep or {name} that stand for a place only: the subject in front of it may change"
    parser.add_argument("--places", default="", metavar="NAME,NAME", help=places)
    subjects = "names that stand for a subject only: the place behind it may change"
    parser.add_argument("--subjects", default="", metavar="NAME,NAME", help=subjects)
    features = (
        "a DINOv2, DINOv3 or CLIP vision model of yours: its folder, or its name in the Hugging Face cache; nothing is "
        "downloaded. The report then has the similarity of each shot with what identity compares it with; needs "
        "transformers"
    )
    parser.add_argument("--features", metavar="FOLDER_OR_NAME", help=features)
    parser.add_argument("--device", default="cpu", help="device that runs the model of --features, such as cuda (cpu)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    again = "make the worst shots below this score again with new seeds; later shots stay, spliced"
    parser.add_argument("--retake-below", type=float, metavar="SCORE", help=again)
    parser.add_argument("--tries", type=int, default=2, metavar="N", help="new versions of each of these shots (2)")
    parser.add_argument("--most", type=int, default=3, metavar="N", help="shots that are made again at most (3)")
    parser.add_argument("--threads", type=int, help="number of CPU threads (torch's default)")
    parser.set_defaults(leader=None)


def run(args: argparse.Namespace) -> int:
    """Prints the report; returns 1 if a shot is below the limit."""
    from ..evaluation.continuity_report import report_data, report_lines
    from ..evaluation.features import load_features
    from ..evaluation.film_facts import has_detector
    from ..render.remake import check_tries
    from ..take import Take

    set_threads(args)
    for name, value in (("--below", args.below), ("--retake-below", args.retake_below)):
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} {value:g}: scores are from 0 to 1")
    check_tries(args.tries, args.most)
    features = None if args.features is None else load_features(args.features, args.device)
    film, scores = _check(Take.load(args.take), args, features)
    remade, code = list["Remade"](), 0
    if args.retake_below is not None:
        remade, code = _remake(args, film, scores)
        if any(shot.chosen != shot.before for shot in remade) and not code:
            film, scores = _check(Take.load(args.take), args, features)
    take = Take.load(args.take)
    if args.json:
        name = None if features is None else features.name
        data = report_data(take.film.name, scores, film.references, args.below, has_detector(), name)
        data["remade"] = [
            {
                "shot": shot.shot + 1,
                "before": shot.before,
                "chosen": shot.chosen,
                "scores": {str(version): round(score.score, 4) for version, score in shot.scores.items()},
            }
            for shot in remade
        ]
        print(json.dumps(data, indent=1, ensure_ascii=False))
    else:
        print("\n".join(report_lines(scores, take.plan, film.references, args.below)))
    return code or (CHECK_FAILED if any(score.score < args.below for score in scores) else 0)


def _check(
    take: Take, args: argparse.Namespace, features: ImageFeatures | None
) -> tuple[FilmScores, tuple[ShotScore, ...]]:
    """Reads the film of a take. Raises as `FilmScores.of`."""
    from ..evaluation.continuity import score_film
    from ..render.rank_versions import FilmScores

    names = [[name.strip() for name in text.split(",") if name.strip()] for text in (args.places, args.subjects)]
    film = FilmScores.of(take, names[0], names[1], embed=features)
    return film, score_film(film.facts, take.plan, film.references)


def _remake(args: argparse.Namespace, film: FilmScores, scores: tuple[ShotScore, ...]) -> tuple[list[Remade], int]:
    """Makes the worst shots again and writes the film; returns what was done and the exit code of a stop, or 0."""
    from ..render.job import Job
    from ..render.remake import remake_shot, shots_to_remake
    from ..render.settings import RenderSettings
    from ..take import Take

    def say(line: str) -> None:
        if not args.json:
            print(line, flush=True)

    settings = RenderSettings.resumed(args.take)
    shots, notes = shots_to_remake(scores, Take.load(args.take), args.retake_below, args.most)
    for note in notes:
        say(f"note: {note}")
    remade = list["Remade"]()
    with job_hooks(args) as (bar, hooks):
        hooks["on_note"] = None if args.json else hooks["on_note"]
        for shot in shots:
            remade.append(remake_shot(settings, film, shot, args.tries, **hooks))
            bar.end()
            for line in (remade[-1].text, *remade[-1].notes):
                say(line)
            if not remade[-1].complete:
                return remade, STOPPED
        if any(shot.chosen != shot.before for shot in remade):
            complete = Job(settings, **hooks).run()
            bar.end()
            return remade, 0 if complete else STOPPED
    return remade, 0
