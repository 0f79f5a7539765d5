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
from ..types import BlockSpec
from .block_file import PARTIAL, BlockRecord, History, read_record, write_atomically
from .settings import Setting, Settings

FORMAT = "longlive-take-1"
SUFFIX = ".take"
FILE = "take.json"
SNAPSHOTS = "memory"
FILM_INDEX = "footage"
GIVEN_VIDEO = "video"


@dataclass(frozen=True, slots=True)
class Version:
    """One making of a shot: its text and seed as the script has them; `made` says how.

    preview: its first block was made for the storyboard, behind the first blocks of the shots before it. video: its
    blocks are those of a given video. live: its text came while the film was made.
    """

    text: str
    seed: int | None = None
    made: str = "render"


@dataclass(frozen=True, slots=True)
class Shot:
    """The versions of a shot and which one is in the film.

    spliced: its blocks may stand behind others than those they were made after; the seam before it is no continuation.
    locked: it stays as it is, spliced, when shots before it are made again.
    """

    versions: tuple[Version, ...]
    chosen: int = 0
    spliced: bool = False
    locked: bool = False

    def newest_first(self) -> Iterator[int]:
        """Version numbers: the chosen one, then the others from the newest to the oldest."""
        yield self.chosen
        yield from (version for version in reversed(range(len(self.versions))) if version != self.chosen)


@dataclass(frozen=True, slots=True)
class Take:
    """What `take.json` says. Values, like the shots, are replaced, never changed; `save` makes them true on disk.

    script: the film as chosen. settings: what changes a block's bits. machine: what it was first made with. output:
    the film's file beside the folder ("name") and how it is compressed.
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
        """The take of a film that is about to be made; nothing is written."""
        shots = tuple(Shot((Version(shot.text, shot.seed),)) for shot in script.shots)
        return cls(folder, script, settings, machine, shots, output or {})

    @classmethod
    def load(cls, folder: Path) -> Take:
        """Raises FileNotFoundError for a folder that is no take, ValueError for a take that cannot be read."""
        path = folder / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is no take: it has no {FILE}; name the FILM{SUFFIX} of a render")
        try:
            kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
            if kept["format"] != FORMAT:
                raise ValueError(f"its format is {kept['format']!r}, this version reads {FORMAT!r}")
            shots = tuple(
                Shot(
                    tuple(Version(**version) for version in shot["versions"]),
                    shot["chosen"],
                    shot["spliced"],
                    shot.get("locked", False),
                )
                for shot in kept["shots"]
            )
            script = ShotScript.parse(kept["script"])
            if len(shots) != len(script.shots) or any(not 0 <= shot.chosen < len(shot.versions) for shot in shots):
                raise ValueError("its shots are not those of its script")
            take = cls(folder, script, kept["settings"], kept["machine"], shots, kept.get("output", {}))
            _ = take.plan  # which raises for settings that no film has
            return take
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as a take ({error})") from error

    def save(self) -> None:
        """Writes `take.json`, whole or not at all. Raises OSError."""
        plan = self.plan
        facts = {"shots": plan.shots, "blocks": len(plan.blocks), "frames": plan.video_frames, "seconds": plan.seconds}
        kept = {
            "format": FORMAT,
            "script": self.script.format(),
            "settings": dict(self.settings),
            "machine": dict(self.machine),
            "output": dict(self.output),
            "plan": facts,
            "shots": [asdict(shot) for shot in self.shots],
        }
        text = json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.folder / FILE, lambda partial: _write_through(partial, text))

    @property
    def plan(self) -> BlockPlan:
        """The blocks of the film as chosen."""
        return self.script.plan(float(self.settings["fps"] or 0), int(self.settings["block_frames"] or 0))

    @property
    def film(self) -> Path:
        """Where the film itself lies, if nobody moved it."""
        folder = self.folder if self.folder.suffix == SUFFIX else self.folder.resolve()
        return folder.with_name(str(self.output.get("name") or folder.with_suffix(".mp4").name))

    @property
    def has_retakes(self) -> bool:
        """Whether any shot has a second version."""
        return any(len(shot.versions) > 1 for shot in self.shots)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return bytes_in(self.folder)

    def size_of(self, shot: int, version: int) -> int:
        """Bytes on disk of one version of a shot."""
        return bytes_in(self.shot_folder(shot, version))

    def shot_folder(self, shot: int, version: int) -> Path:
        """Where the blocks of a version lie; shots count from 0 here and from 1 on disk."""
        return self.folder / "shots" / f"{shot + 1:03}" / f"v{version}"

    def path(self, spec: BlockSpec, version: int | None = None) -> Path:
        """The file of a block, by default of the version that is chosen."""
        chosen = self.shots[spec.shot].chosen if version is None else version
        return self.shot_folder(spec.shot, chosen) / f"block_{spec.index:05}.safetensors"

    def snapshot_path(self, spec: BlockSpec, history: History) -> Path:
        """The file of the memory before a block that begins a shot, as these very blocks before it left it."""
        return self.folder / SNAPSHOTS / f"before_{spec.index:05}.{history.digest}.safetensors"

    def snapshot_paths(self) -> tuple[Path, ...]:
        """All memories that are kept, whatever history they are of."""
        return tuple(sorted((self.folder / SNAPSHOTS).glob("before_*.safetensors")))

    def is_preview(self, spec: BlockSpec) -> bool:
        """Whether the block is one of the storyboard's: the first of a shot that was made for it."""
        shot = self.shots[spec.shot]
        return shot.versions[shot.chosen].made == "preview" and self.plan.begins_shot(spec)

    def ignores_history(self, spec: BlockSpec) -> bool:
        """Whether the block may stand behind others than those it was made after."""
        return self.shots[spec.shot].spliced or self.is_preview(spec)

    def record(self, spec: BlockSpec, version: int | None = None) -> BlockRecord | None:
        """What is written with a block; None where it is missing or damaged."""
        return read_record(self.path(spec, version))

    def block_count(self, shot: int | None = None, version: int | None = None) -> int:
        """How many blocks are there: of the film as chosen, or of a shot's version."""
        own = (spec for spec in self.plan.blocks if shot is None or spec.shot == shot)
        return sum(self.path(spec, version).is_file() for spec in own)

    @property
    def complete(self) -> bool:
        """Whether every block of the film as chosen is there."""
        return self.block_count() == len(self.plan.blocks)

    def partial_files(self) -> Iterator[Path]:
        """What a killed process left half-written."""
        return self.folder.rglob(f"*{PARTIAL}")

    def remove_partial_files(self) -> None:
        """Raises OSError."""
        for path in tuple(self.partial_files()):
            path.unlink(missing_ok=True)

    def begin(self) -> None:
        """Makes the folder that of this film, and takes an earlier one's blocks away.

        Raises FileExistsError rather than lose the retakes of an earlier film, OSError where nothing can be written.
        """
        if (self.folder / FILE).exists() and Take.load(self.folder).has_retakes:
            raise FileExistsError(
                f"{self.folder} holds retakes that a new render would lose; name another film with -o, remove that "
                "folder, or render without a take"
            )
        for made in ("shots", SNAPSHOTS, FILM_INDEX):
            shutil.rmtree(self.folder / made, ignore_errors=True)
        self.save()
        self.remove_partial_files()

    def shot_index(self, number: int) -> int:
        """The index of shot `number` (from 1). Raises ValueError for a shot that the film does not have."""
        if not 1 <= number <= len(self.shots):
            raise ValueError(f"shot {number}: this film has {len(self.shots)}, numbered from 1")
        return number - 1

    def sampled_index(self, number: int) -> int:
        """As `shot_index`. Raises ValueError for a given video too: it has no other version and cannot have one."""
        index = self.shot_index(number)
        shot = self.shots[index]
        if shot.versions[shot.chosen].made == GIVEN_VIDEO:
            raise ValueError(f"shot {number} is a given video: it was not sampled, so there is nothing to make again")
        return index

    @property
    def as_begun(self) -> Take:
        """The film that the take was begun with, whatever versions are chosen now."""
        take = self
        for index, shot in enumerate(take.shots):
            if shot.chosen or shot.spliced:
                take = take.with_shot(index, replace(shot, chosen=0, spliced=False))
        return take

    def with_shot(self, shot: int, change: Shot) -> Take:
        """The take with another shot, script included. Raises ScriptError or ValueError for a text that is not one."""
        version = change.versions[change.chosen]
        shots = (*self.shots[:shot], change, *self.shots[shot + 1 :])
        return replace(self, script=with_text(self.script, shot, version), shots=shots)


def with_text(script: ShotScript, shot: int, version: Version) -> ShotScript:
    """The script with the text and seed of a version. Raises ScriptError, and ValueError where it were no one shot."""
    written = replace(script.shots[shot], text=" ".join(version.text.split()), seed=version.seed)
    shots = (*script.shots[:shot], written, *script.shots[shot + 1 :])
    made = ShotScript.parse(replace(script, shots=shots).format())
    others = [other for other in range(len(shots)) if other != shot]
    if len(made.shots) != len(shots) or any(made.shots[i] != script.shots[i] for i in others):
        raise ValueError(f"'{version.text}' reads as more than one shot; write one shot without a header")
    return made


def block_counts_in(folder: Path) -> tuple[int, int]:
    """How many blocks of a film and of its storyboard a folder holds; none for what is no take."""
    try:
        take = Take.load(folder)
    except (FileNotFoundError, ValueError):
        return 0, 0
    there = [spec for spec in take.plan.blocks if take.path(spec).is_file()]
    board = sum(map(take.is_preview, there))
    return len(there) - board, board


def takes_in(folder: Path) -> tuple[Path, ...]:
    """The takes of a folder: itself, if it is one, or those right in it."""
    return (folder,) if (folder / FILE).is_file() else tuple(sorted(path.parent for path in folder.glob(f"*/{FILE}")))


def bytes_in(folder: Path) -> int:
    """Of all files below a folder."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # somebody makes the film: what was half-written has its name now
            size += path.stat().st_size if path.is_file() else 0
    return size


def _write_through(path: Path, text: str) -> None:
    """Down to the disk: a file that stands for hours of work outlives a power cut."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
