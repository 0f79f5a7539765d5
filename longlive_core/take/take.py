"""A take: the folder beside a film that holds its script, its settings and every version of every shot."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..script import BlockPlan, ShotScript
from ..script.shot_text import split_bars
from ..types import BlockSpec
from ..units import plural
from .block_file import PARTIAL, BadBlockError, BlockRecord, History, read_record, write_atomically
from .settings import Setting, Settings

FORMAT = "longlive-take-1"
SUFFIX = ".take"
FILE = "take.json"
SNAPSHOTS = "memory"
AHEAD = "ahead"
CAST = "cast"
CONTINUITY = "continuity.json"
FILM_INDEX = "footage"
# In this folder: the film's file before the one that is being written, with the ending of a film.
PREVIOUS = "before"
SOUND = "sound.wav"
STILL = "still.jpg"
# What ComfyUI's nodes record of the newest run: the film's file, and the workflow.
FILM_FILE, WORKFLOW, SOURCES = "film.json", "workflow.json", "sources.json"
GIVEN_VIDEO = "video"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a shot: its text and seed as in the script, and how it was `made`.

    render: with the film. ripple, keep: by a retake in this mode. preview: its first block was sampled for the
    storyboard, after the first blocks of earlier shots. video: its blocks are encoded from a given video. live: its
    text was changed while the film was sampled.
    """

    text: str
    seed: int | None = None
    made: str = "render"

    def has_input_of(self, other: Version) -> bool:
        """Whether the text and the seed are those of another version."""
        return (self.text, self.seed) == (other.text, other.seed)


@dataclass(frozen=True, slots=True)
class Shot:
    """The versions of a shot and which one is in the film.

    spliced: its blocks may follow other blocks than those they were sampled after, so that the shot need not continue
    the one before it. locked: a retake of an earlier shot leaves it unchanged, spliced. accepted: the version whose
    beginning the user has accepted on the storyboard.
    """

    versions: tuple[Version, ...]
    chosen: int = 0
    spliced: bool = False
    locked: bool = False
    accepted: int | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the user has accepted the beginning of the chosen version."""
        return self.accepted == self.chosen

    def newest_first(self) -> Iterator[int]:
        """Yields version numbers: the chosen one, then the others from the newest to the oldest."""
        yield self.chosen
        yield from (version for version in reversed(range(len(self.versions))) if version != self.chosen)


@dataclass(frozen=True, slots=True)
class Take:
    """The contents of `take.json`, an immutable value; `save` writes it to disk.

    script: the script of the chosen versions. settings: everything that changes a block's bits. machine: the machine
    that began the film. output: the name of the film's file beside the folder ("name"), its codec and quality.
    """

    folder: Path
    script: ShotScript
    settings: Settings
    machine: Settings
    shots: tuple[Shot, ...]
    output: Settings = field(default_factory=dict[str, Setting])

    @classmethod
    def new(
        cls, folder: Path, script: ShotScript, settings: Settings, machine: Settings, output: Settings | None = None
    ) -> Take:
        """Makes the take of a new film; nothing is written."""
        shots = tuple(Shot((Version(shot.text, shot.seed),)) for shot in script.shots)
        return cls(folder, script, settings, machine, shots, output or {})

    @classmethod
    def load(cls, folder: Path) -> Take:
        """Reads `take.json`. Raises FileNotFoundError if the folder is not a take, ValueError if it cannot be read."""
        path = folder / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is not a take: it has no {FILE}; name the FILM{SUFFIX} of a render")
        try:
            data: dict[str, Any] = json.loads(path.read_text("utf-8"))
            if data["format"] != FORMAT:
                raise ValueError(f"its format is {data['format']!r}, this version reads {FORMAT!r}")
            shots = tuple(
                Shot(
                    tuple(Version(**version) for version in shot["versions"]),
                    shot["chosen"],
                    shot["spliced"],
                    shot.get("locked", False),
                    shot.get("accepted"),
                )
                for shot in data["shots"]
            )
            script = ShotScript.parse(data["script"])
            if len(shots) != len(script.shots) or any(not 0 <= shot.chosen < len(shot.versions) for shot in shots):
                raise ValueError("its shots are not those of its script")
            take = cls(folder, script, data["settings"], data["machine"], shots, data.get("output", {}))
            _ = take.plan  # raises for invalid settings
            return take
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as a take ({error})") from error

    def save(self) -> None:
        """Writes `take.json` atomically. Raises OSError."""
        plan = self.plan
        facts = {"shots": plan.shots, "blocks": len(plan.blocks), "frames": plan.video_frames, "seconds": plan.seconds}
        data = {
            "format": FORMAT,
            "script": self.script.format(),
            "settings": dict(self.settings),
            "machine": dict(self.machine),
            "output": dict(self.output),
            "plan": facts,
            # Left out where nothing is accepted, so that a take of an earlier version stays as it was.
            "shots": [{k: v for k, v in asdict(shot).items() if (k, v) != ("accepted", None)} for shot in self.shots],
        }
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.folder / FILE, lambda partial: _write_through(partial, text))

    @property
    def plan(self) -> BlockPlan:
        """The block plan of the film as chosen."""
        return self.script.plan(float(self.settings["fps"] or 0), int(self.settings["block_frames"] or 0))

    @property
    def film(self) -> Path:
        """The path of the film's file, unless it was moved.

        A take that was copied or renamed has a film of its own, named like the take.
        """
        folder = self.folder if self.folder.suffix == SUFFIX else self.folder.resolve()
        name = str(self.output.get("name") or folder.with_suffix(".mp4").name)
        if Path(name).with_suffix(SUFFIX).name != folder.name:
            name = folder.with_suffix("" if self.output.get("codec") == "png" else Path(name).suffix).name
        return folder.with_name(name)

    @property
    def sound(self) -> Path:
        """The path of the film's sound, which begins with the film; most films have none."""
        return self.folder / SOUND

    def shot_folder(self, shot: int, version: int) -> Path:
        """Returns the folder of a version's blocks; shots count from 0 here and from 1 on disk."""
        return self.folder / "shots" / f"{shot + 1:03}" / f"v{version}"

    def still(self, shot: int, version: int) -> Path:
        """Returns the path of a small picture of a version's first frame; shots count from 0. It need not exist."""
        return self.shot_folder(shot, version) / STILL

    def path(self, spec: BlockSpec, version: int | None = None) -> Path:
        """Returns the path of a block's file, by default of the chosen version."""
        chosen = self.shots[spec.shot].chosen if version is None else version
        return self.shot_folder(spec.shot, chosen) / f"block_{spec.index:05}.safetensors"

    def snapshot_path(self, spec: BlockSpec, history: History) -> Path:
        """Returns the path of the KV snapshot before the first block of a shot, for one history of that block."""
        return self.folder / SNAPSHOTS / f"before_{spec.index:05}.{history.digest}.safetensors"

    def snapshot_paths(self) -> tuple[Path, ...]:
        """Lists all stored KV snapshots, of any history."""
        return tuple(sorted((self.folder / SNAPSHOTS).glob("before_*.safetensors")))

    def is_preview(self, spec: BlockSpec) -> bool:
        """Whether the chosen version of the block was sampled for the storyboard."""
        shot = self.shots[spec.shot]
        return shot.versions[shot.chosen].made == "preview" and self.plan.begins_shot(spec)

    def ignores_history(self, spec: BlockSpec) -> bool:
        """Whether the block may follow other blocks than those it was sampled after."""
        return self.shots[spec.shot].spliced or self.is_preview(spec)

    def record(self, spec: BlockSpec, version: int | None = None) -> BlockRecord | None:
        """Reads the record of a block; None if the block is missing or damaged."""
        try:
            return read_record(self.path(spec, version))[1]
        except (FileNotFoundError, BadBlockError):
            return None

    def block_count(self, shot: int | None = None, version: int | None = None) -> int:
        """Counts the stored blocks of the film as chosen, or of one shot (from 0) and version."""
        blocks = (spec for spec in self.plan.blocks if shot is None or spec.shot == shot)
        return sum(self.path(spec, version).is_file() for spec in blocks)

    @property
    def complete(self) -> bool:
        """Whether every block of the film as chosen is stored."""
        return self.block_count() == len(self.plan.blocks)

    def partial_files(self) -> Iterator[Path]:
        """Yields files that a killed process left incomplete."""
        return self.folder.rglob(f"*{PARTIAL}")

    def remove_partial_files(self) -> None:
        """Removes the `partial_files`. Raises OSError."""
        for path in tuple(self.partial_files()):
            path.unlink(missing_ok=True)

    def begin(self) -> None:
        """Writes the take into its folder and removes the blocks of an earlier film.

        Raises FileExistsError if the earlier film has retakes, OSError if the folder cannot be written.
        """
        check_no_retakes(self.folder)
        for name in ("shots", SNAPSHOTS, FILM_INDEX, AHEAD, CAST):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.sound.unlink(missing_ok=True)
        self.save()
        self.remove_partial_files()

    def shot_index(self, number: int) -> int:
        """Returns the index of shot `number` (from 1). Raises ValueError if the film has no such shot."""
        if not 1 <= number <= len(self.shots):
            raise ValueError(f"shot {number}: this film has {plural(len(self.shots), 'shot')}, numbered from 1")
        return number - 1

    def sampled_index(self, number: int) -> int:
        """Like `shot_index`; also raises ValueError for a given video, which cannot have another version."""
        index = self.shot_index(number)
        shot = self.shots[index]
        if shot.versions[shot.chosen].made == GIVEN_VIDEO:
            raise ValueError(f"shot {number} is a given video: it was not sampled and cannot be made again")
        return index

    @property
    def as_begun(self) -> Take:
        """The take with the first version of every shot chosen, as it was begun."""
        take = self
        for index, shot in enumerate(take.shots):
            if shot.chosen or shot.spliced:
                take = take.with_shot(index, replace(shot, chosen=0, spliced=False))
        return take

    def with_shot(self, shot: int, change: Shot) -> Take:
        """Returns the take with one shot and its script changed. Raises as `with_text`."""
        version = change.versions[change.chosen]
        shots = (*self.shots[:shot], change, *self.shots[shot + 1 :])
        return replace(self, script=with_text(self.script, shot, version), shots=shots)


def with_text(script: ShotScript, shot: int, version: Version) -> ShotScript:
    """Returns the script with a version's text and seed. Raises ScriptError, and ValueError if it is not one shot."""
    written = replace(script.shots[shot], text=" ".join(version.text.split()), seed=version.seed)
    shots = (*script.shots[:shot], written, *script.shots[shot + 1 :])
    parsed = ShotScript.parse(replace(script, shots=shots).format())
    others = [other for other in range(len(shots)) if other != shot]
    several = len(split_bars(written.text)) > 1
    if several or len(parsed.shots) != len(shots) or any(parsed.shots[i] != script.shots[i] for i in others):
        raise ValueError(f"'{version.text}' reads as more than one shot; write one shot without a header")
    return parsed


def check_no_retakes(folder: Path) -> None:
    """Raises FileExistsError if a folder is a take with retakes, which a new render would remove."""
    if (folder / FILE).exists() and any(len(shot.versions) > 1 for shot in Take.load(folder).shots):
        raise FileExistsError(
            f"{folder} has retakes that a new render would remove; name another film with -o, remove that folder, or "
            "render without a take"
        )


def block_counts_in(folder: Path) -> tuple[int, int]:
    """Counts the stored blocks of a film and of its storyboard in a folder; (0, 0) if it is not a take."""
    try:
        take = Take.load(folder)
    except (FileNotFoundError, ValueError):
        return 0, 0
    stored = [spec for spec in take.plan.blocks if take.path(spec).is_file()]
    storyboard = sum(map(take.is_preview, stored))
    return len(stored) - storyboard, storyboard


def takes_in(folder: Path) -> tuple[Path, ...]:
    """Lists the takes in a folder: the folder itself if it is a take, or else the takes directly in it."""
    return (folder,) if (folder / FILE).is_file() else tuple(sorted(path.parent for path in folder.glob(f"*/{FILE}")))


def bytes_in(folder: Path) -> int:
    """Adds up the sizes of all files below a folder."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process has renamed a partial file
            size += path.stat().st_size if path.is_file() else 0
    return size


def _write_through(path: Path, text: str) -> None:
    """Writes a text and flushes it to the disk: the file records hours of work and must survive a power failure."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
