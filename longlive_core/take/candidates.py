"""Which of several takes a film goes on in: the one that is the same film, else one of which it is an edit."""

from __future__ import annotations

from ..script import ShotScript
from .changes import Changes, preview_changes
from .follow import LockedShotError
from .settings import Settings
from .take import Take


class Candidates:
    """The takes that have something in common with a film of a script, in the order in which they are added."""

    def __init__(self) -> None:
        self._exact, self._edited = list[Take](), list[Take]()
        self.locked: LockedShotError | None = None
        self.most_shared: Take | None = None
        self._shared = 0

    @property
    def same_film(self) -> list[Take]:
        """The takes that have every version of the film, then those of which it is an edit."""
        return [*self._exact, *self._edited]

    def add(self, take: Take, script: ShotScript, settings: Settings) -> Changes | None:
        """Compares a take with the film; returns what the film would change in it, None if a locked shot forbids it.

        settings: of the film, those that differ from the take's at least. Raises ValueError as `preview_changes`.
        """
        try:
            changes = preview_changes(take, script, settings)
        except LockedShotError as error:
            if _has_shot_of(take, script) and self.locked is None:
                self.locked = error
            return None
        if changes.another_film or not _has_shot_of(take, script):
            if changes.count("kept") > self._shared:
                self.most_shared, self._shared = take, changes.count("kept")
        else:
            (self._edited if changes.needs_versions else self._exact).append(take)
        return changes


def _has_shot_of(take: Take, script: ShotScript) -> bool:
    """Whether a shot of the script has a text that the same shot of the take has had: it is not just any other film."""
    shots = zip(take.shots, script.shots, strict=False)
    return any(written.text in {version.text for version in shot.versions} for shot, written in shots)
