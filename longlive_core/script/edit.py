"""Edits a script and writes it as canonical text that keeps the comments of its author."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from ..types import BLOCK_FRAMES, FPS
from .block_plan import DEFAULT_SECONDS, Grid
from .cast import CastEntry, name_of_path
from .draft import Draft, DraftShot, check_read_alike, draft_of
from .edits import (
    Delete,
    Duplicate,
    Edit,
    Insert,
    Move,
    SetCut,
    SetName,
    SetSeed,
    SetStyle,
    SetText,
    Split,
    Stretch,
)
from .entry import MAX_SHOTS
from .lengths import stretched, with_lengths
from .recall import Kept
from .shots import Shot, ShotScript
from .source import ScriptError


@dataclass(frozen=True, slots=True)
class EditedScript:
    """The canonical text after an edit, and how it is read. `selected` is the shot the edit was about, from 1.

    `notes` say what else changed.
    """

    text: str
    script: ShotScript
    selected: int
    notes: tuple[str, ...] = ()


def edit_script(
    text: str,
    edit: Edit,
    fps: float = FPS,
    default_seconds: float = DEFAULT_SECONDS,
    cast_name: Callable[[str], str] = name_of_path,
    given: Sequence[CastEntry] = (),
) -> EditedScript:
    """Returns a script after an edit. Parsing the result gives the script that was meant.

    cast_name, given: see `ShotScript.parse`.

    Times of the film, as in `[4s-9s]`, become lengths if shots change places or lengths. Raises ScriptError if the
    script is wrong, or would be after the edit, and ValueError as `ShotScript.plan` does.
    """
    script = ShotScript.parse(text, cast_name, given)
    plan = script.plan(fps, default_seconds=default_seconds)
    draft = _Editor(draft_of(script, text, plan, given), Grid(Fraction(fps), BLOCK_FRAMES), default_seconds).apply(edit)
    read = _read(draft)
    if any(item.typed is not None for item in draft.shots):
        shots = tuple(replace(item, shot=shot, typed=None) for item, shot in zip(draft.shots, read.shots, strict=True))
        draft = replace(draft, shots=shots)
    try:
        check_read_alike(_read(draft), draft.script)
    except ScriptError:
        draft = draft.without_headers_in_comments()
        check_read_alike(_read(draft), draft.script)
    edited = ShotScript.parse(draft.text(), given=draft.given)
    edited.plan(fps, default_seconds=default_seconds)
    return EditedScript(draft.text(), edited, draft.selected, draft.notes)


def _read(draft: Draft) -> ShotScript:
    """Reads the text of a draft. Raises ScriptError if it has another number of shots."""
    read = ShotScript.parse(draft.text(), given=draft.given)
    if len(read.shots) != len(draft.shots):
        draft = draft.without_headers_in_comments()
        read = ShotScript.parse(draft.text(), given=draft.given)
        if len(read.shots) != len(draft.shots):
            check_read_alike(read, draft.script)
    return read


@dataclass(frozen=True, slots=True)
class _Editor:
    """Applies edits to a draft, at the frame rate of `grid`."""

    draft: Draft
    grid: Grid
    default_seconds: float

    def apply(self, edit: Edit) -> Draft:
        """Returns the draft after an edit. Raises ScriptError if the edit cannot be made."""
        match edit:
            case SetStyle():
                return replace(self.draft, style=_one_line(edit.text))
            case SetName():
                return self._set_name(edit)
            case Insert():
                return self._insert(edit)
            case SetText():
                return self._change(edit.shot, replace(self._shot(edit.shot), typed=_one_line(edit.text)))
            case SetSeed():
                item = self._shot(edit.shot)
                return self._change(edit.shot, replace(item, shot=replace(item.shot, seed=edit.seed)))
            case SetCut():
                return self._set_cut(edit)
            case Move() | Stretch() | Split() | Duplicate() | Delete():
                return replace(self, draft=with_lengths(self.draft, self.grid, self.default_seconds))._rearrange(edit)

    def _rearrange(self, edit: Move | Stretch | Split | Duplicate | Delete) -> Draft:
        """Applies an edit that changes the times of shots; the draft has lengths only."""
        item, index, shots = self._shot(edit.shot), edit.shot - 1, list(self.draft.shots)
        selected = edit.shot
        match edit:
            case Move():
                self._shot(edit.to)
                shots.insert(edit.to - 1, shots.pop(index))
                selected = edit.to
            case Stretch():
                shots[index] = stretched(item, edit.blocks, self.grid, first=index == 0)
            case Split():
                if edit.blocks >= item.blocks:
                    message = f"shot {edit.shot} has {item.blocks} blocks and cannot be split behind {edit.blocks}"
                    raise ScriptError(message, remedy="split a shot of two blocks or more behind an earlier one")
                second = stretched(replace(item, comments=()), item.blocks - edit.blocks, self.grid, first=False)
                kept, later = _split_kept(item.shot, edit.blocks)
                second = replace(second, shot=replace(second.shot, continues=True, keeps=later))
                item = replace(item, shot=replace(item.shot, keeps=kept))
                shots[index : index + 1] = [stretched(item, edit.blocks, self.grid, first=index == 0), second]
                selected += 1
            case Duplicate():
                # A name is kept once.
                shots.insert(index + 1, replace(item, comments=(), shot=replace(item.shot, keeps=())))
                selected += 1
            case Delete():
                return self._delete(index)
        return self._with_shots(shots, selected)

    def _delete(self, index: int) -> Draft:
        shots, tail = list(self.draft.shots), self.draft.tail
        if len(shots) == 1:
            raise ScriptError("a script needs one shot", remedy="change the text of this one instead")
        comments = shots.pop(index).comments
        if index < len(shots):
            shots[index] = replace(shots[index], comments=(*comments, *shots[index].comments))
        else:
            tail = (*comments, *tail)
        return replace(self._with_shots(shots, min(index + 1, len(shots))), tail=tail)

    def _insert(self, edit: Insert) -> Draft:
        draft = with_lengths(self.draft, self.grid, self.default_seconds)
        if not 1 <= edit.shot <= len(draft.shots) + 1:
            raise ScriptError(f"there is no place {edit.shot} in {len(draft.shots)} shots", remedy="choose another")
        new = DraftShot(Shot("", ""), 1, typed=_one_line(edit.text))
        shots = [*draft.shots[: edit.shot - 1], new, *draft.shots[edit.shot - 1 :]]
        return replace(self, draft=draft)._with_shots(shots, edit.shot)

    def _set_cut(self, edit: SetCut) -> Draft:
        item = self._shot(edit.shot)
        if edit.shot == 1 and not edit.cut:
            raise ScriptError("shot 1 starts the film and continues nothing", remedy="choose a later shot")
        return self._change(edit.shot, replace(item, shot=replace(item.shot, continues=not edit.cut)))

    def _set_name(self, edit: SetName) -> Draft:
        name, text = edit.name.strip(), _one_line(edit.text)
        if name.casefold() == "style":
            raise ScriptError("'style' is not a valid name", remedy="choose another name, or change the style")
        names = {key.casefold(): (key, value) for key, value in self.draft.names}
        written = names.get(name.casefold(), (name, ""))[0]
        names[name.casefold()] = (written, text)
        return replace(self.draft, names=tuple(pair for pair in names.values() if pair[1]))

    def _shot(self, number: int) -> DraftShot:
        if not 1 <= number <= len(self.draft.shots):
            message = f"there is no shot {number}"
            raise ScriptError(message, remedy=f"the script has {len(self.draft.shots)}; choose one of them")
        return self.draft.shots[number - 1]

    def _change(self, number: int, item: DraftShot) -> Draft:
        shots = list(self.draft.shots)
        shots[number - 1] = item
        return self._with_shots(shots, number)

    def _with_shots(self, shots: list[DraftShot], selected: int) -> Draft:
        if len(shots) > MAX_SHOTS:
            raise ScriptError(f"{len(shots):,} shots; the limit is {MAX_SHOTS:,}", remedy="split the film in two")
        return replace(self.draft, shots=tuple(shots), selected=selected)


def _split_kept(shot: Shot, blocks: int) -> tuple[tuple[Kept, ...], tuple[Kept, ...]]:
    """What the first `blocks` of a shot keep, and what its rest keeps."""
    first = tuple(kept for kept in shot.keeps if kept.block <= blocks)
    return first, tuple(replace(kept, block=kept.block - blocks) for kept in shot.keeps if kept.block > blocks)


def _one_line(text: str) -> str:
    return " ".join(text.split())
