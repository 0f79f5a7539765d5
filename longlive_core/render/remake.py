"""Makes shots of a film again with new seeds, and keeps the version of each with the best continuity score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..evaluation.continuity import ShotScore
from ..evaluation.continuity_report import worst_first
from ..film.shot_versions import MAX_VERSIONS
from ..mini import Mini
from ..parallel import Leader
from ..take import Take, choose
from ..take.lock import TakeLock
from ..take.take import GIVEN_VIDEO
from .rank_versions import FilmScores, VersionScore
from .settings import RenderSettings
from .versions_job import VersionsJob
from .write_film import Progress


@dataclass(frozen=True, slots=True)
class Remade:
    """What was done with a shot (from 0).

    before: the version that was in the film. scores: of it and of the new versions, by number. chosen: the version that
    is in the film now. notes: on later shots. complete: false after a stop; nothing is chosen then.
    """

    shot: int
    before: int
    chosen: int
    scores: Mapping[int, VersionScore]
    notes: tuple[str, ...] = ()
    complete: bool = True

    @property
    def text(self) -> str:
        """What was done, in one line."""
        tried = ", ".join(f"version {version} {score.text}" for version, score in self.scores.items())
        kept = "is kept" if self.chosen == self.before else "is in the film now"
        end = f"version {self.chosen} {kept}" if self.complete else "stopped, nothing is changed"
        return f"shot {self.shot + 1} made again: {tried}; {end}"


def shots_to_remake(
    scores: Sequence[ShotScore], take: Take, limit: float, most: int
) -> tuple[list[int], tuple[str, ...]]:
    """The shots (from 0) below a limit, at most so many, the worst ones, in the order of the film; and notes.

    The first shot is left, because the others are compared with it, and so are locked shots and given videos.
    """
    chosen, notes = list[int](), list[str]()
    for score in worst_first(scores):
        if score.score >= limit:
            break
        shot = take.shots[score.shot]
        if score.shot == 0:
            notes.append("shot 1 is not made again: the others are compared with it; `longlive retake` does so")
        elif shot.locked or shot.versions[shot.chosen].made == GIVEN_VIDEO:
            notes.append(f"shot {score.shot + 1} is not made again: it is locked or a given video")
        else:
            chosen.append(score.shot)
    if len(chosen) > most:
        rest = len(chosen) - most
        notes.append(f"{rest} more below {limit:g}: the {most} worst are made again at a time, more with --most")
    return sorted(chosen[:most]), tuple(notes)


def check_tries(tries: int, most: int) -> None:
    """Raises ValueError for a number of versions or of shots that cannot be made."""
    if not 1 <= tries <= MAX_VERSIONS:
        raise ValueError(f"--tries {tries}: make 1 to {MAX_VERSIONS} versions of a shot")
    if most < 1:
        raise ValueError(f"--most {most}: make at least one shot again, or leave --retake-below out")


def remake_shot(
    settings: RenderSettings,
    film: FilmScores,
    shot: int,
    tries: int,
    *,
    mini: Mini | None = None,
    leader: Leader | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Remade:
    """Makes `tries` versions of a shot (from 0) and chooses the best one; the present one stays where none is better.

    The later shots stay as they are, spliced, but for those that recall the shot, which the next render makes again.
    settings: those of the take, as resumed. film: as it is. The other arguments are of `VersionsJob`. Raises as it.
    """
    job = VersionsJob(
        settings,
        shot + 1,
        tries,
        mode="keep",
        mini=mini,
        leader=leader,
        on_progress=on_progress,
        on_note=on_note,
        should_stop=should_stop,
    )
    complete = job.run()
    take = job.take
    present = take.shots[shot].chosen
    versions = tuple(dict.fromkeys((present, *job.made)))
    found = film.of_versions(take, job.vae, shot, versions)
    scores = {version: found[version] for version in versions}
    best = max(scores, key=lambda version: scores[version])
    if best == present or not complete:
        return Remade(shot, present, present, scores, complete=complete)
    with TakeLock(take.folder):
        changed, notes = choose(Take.load(take.folder), shot + 1, best)
        changed.save()
    return Remade(shot, present, best, scores, notes)
