"""The continuity report on films with planted faults: found, missed and false alarms.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_continuity.py --films 20

A film has six shots of two blocks of LongLive Mini's world, rendered, so that nothing has to be sampled; shot 2 keeps
its place, and shot 6 recalls it. Of each film there is one copy without a fault, and one for each fault:

    hero       the hero has another colour in shot 3
    place      shot 6 is in another place than the one that it recalls
    cut        shot 4 goes on as shot 3, where the script has a cut
    seam       the second block of shot 5 is 5 levels brighter
    colour     shot 2 loses 40 % of its brightness until its end

The limit is chosen on as many other films: the middle of the limits with the fewest errors. A fault is found if the
score of its measure in its shot is below the limit. A false alarm is any other score below it, those of the faulty
shot included.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from longlive.longlive_core.evaluation.continuity import LIMIT, MEASURES, Measure, score_film
from longlive.longlive_core.evaluation.film_facts import film_facts
from longlive.longlive_core.evaluation.references import references_of
from longlive.longlive_core.evaluation.windows import Frames
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.training import world
from longlive.longlive_core.types import FPS

SCRIPT = "\n".join(
    f"Shot {n} (2 blocks): the hero{' @keep=place' * (n == 2)}{' @recall=place' * (n == 6)}" for n in range(1, 7)
)
SHOT_FRAMES = (61, 64, 64, 64, 64, 64)
# The shot (from 0) and the measure of each fault; the first copy has none.
FAULTS: dict[str, tuple[int, Measure] | None] = {
    "none": None,
    "hero": (2, "identity"),
    "place": (5, "place"),
    "cut": (3, "cut"),
    "seam": (4, "seam"),
    "colour": (1, "colour"),
}
OTHER_FILMS = 1_000  # number of the first film on which the limit is chosen


@dataclass(frozen=True)
class Score:
    """A score of a copy. wanted: whether its fault is in this shot and measure."""

    fault: str
    measure: Measure
    value: float
    wanted: bool


def make_film(index: int) -> world.WorldFilm:
    """A film whose places differ from shot to shot, but for the last one, which is in that of the second."""
    rng = np.random.default_rng((18, 6, index))
    film = world.sample_film(rng, SHOT_FRAMES)
    names = list(world.BACKGROUNDS)
    order = [names[i] for i in rng.permutation(len(names))]
    shots = [replace(shot, background=order[i]) for i, shot in enumerate(film.shots)]
    shots[5] = replace(shots[5], background=shots[1].background, pattern=shots[1].pattern)
    return replace(film, shots=tuple(shots))


def with_fault(film: world.WorldFilm, fault: str, index: int) -> Frames:
    """The frames of a film, `[T, H, W, 3]`, with a fault."""
    rng = np.random.default_rng((18, 7, index))
    starts = np.cumsum((0, *SHOT_FRAMES))
    frames = world.render(film)
    if fault == "hero":
        colour = rng.choice([name for name in world.COLOURS if name != film.hero.colour])
        other = replace(film, hero=replace(film.hero, colour=str(colour)))
        frames[starts[2] : starts[3]] = world.render(other, starts[2], starts[3])
    elif fault == "place":
        used = {film.shots[5].background, film.shots[4].background}
        place = rng.choice([name for name in world.BACKGROUNDS if name not in used])
        shots = (*film.shots[:5], replace(film.shots[5], background=str(place)))
        frames[starts[5] :] = world.render(replace(film, shots=shots), starts[5])
    elif fault == "cut":
        long = replace(film.shots[2], frames=film.shots[2].frames + film.shots[3].frames)
        frames[starts[2] : starts[4]] = world.render(world.WorldFilm(film.hero, (long,)))
    elif fault == "seam":
        part = slice(starts[4] + 32, starts[5])
        frames[part] = np.clip(frames[part].astype(np.int16) + 5, 0, 255)
    elif fault == "colour":
        gain = np.linspace(1.0, 0.6, SHOT_FRAMES[1])[:, None, None, None]
        frames[starts[1] : starts[2]] = (frames[starts[1] : starts[2]] * gain).round()
    return frames


def scores(numbers: range) -> Iterator[Score]:
    """The scores of all copies of these films."""
    script = ShotScript.parse(SCRIPT)
    plan = script.plan(FPS, 8)
    references = references_of(script, plan)
    for index in numbers:
        film = make_film(index)
        for fault, wanted in FAULTS.items():
            facts = film_facts(with_fault(film, fault, index), plan.blocks)
            for shot in score_film(facts, plan, references):
                for name, value in shot.scores.items():
                    if value is not None:
                        yield Score(fault, name, value, wanted == (shot.shot, name))


def choose_limit(known: list[Score]) -> float:
    """The middle of the limits with the fewest errors."""
    limits = np.arange(0.01, 1.0, 0.01)
    errors = np.array([sum((score.value < limit) != score.wanted for score in known) for limit in limits])
    return float(limits[errors == errors.min()].mean())


def table(known: list[Score], limit: float) -> Iterator[str]:
    """What a limit finds, misses and takes for a fault."""
    yield "| fault | measure | found | missed | highest score of a fault | lowest score of the same measure without |"
    yield "|---|---|---|---|---|---|"
    for fault, wanted in FAULTS.items():
        if wanted is not None:
            own = [score.value for score in known if score.fault == fault and score.wanted]
            clean = [score.value for score in known if score.measure == wanted[1] and not score.wanted]
            found = sum(value < limit for value in own)
            yield (
                f"| {fault} | {wanted[1]} | {found} | {len(own) - found} | {max(own):.2f} "
                f"| {min(clean):.2f} of {len(clean)} |"
            )
    alarms = Counter(score.measure for score in known if score.value < limit and not score.wanted)
    total = sum(not score.wanted for score in known)
    by_measure = ", ".join(f"{name} {alarms[name]}" for name in MEASURES)
    yield f"\nFalse alarms: {sum(alarms.values())} of {total} scores ({by_measure})"


def main() -> None:
    """Chooses the limit on other films and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=20)
    args = parser.parse_args()
    chosen = choose_limit(list(scores(range(OTHER_FILMS, OTHER_FILMS + args.films))))
    known = list(scores(range(args.films)))
    print(f"limit chosen on {args.films} other films: {chosen:.2f}; the default is {LIMIT}\n")
    for limit in dict.fromkeys((chosen, LIMIT)):
        print(f"with {limit:.2f}:")
        print("\n".join(table(known, limit)), flush=True)


if __name__ == "__main__":
    main()
