"""Retakes: a new or earlier version of one shot, and its consequences for the later shots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Literal, NamedTuple

from ..sampling import MAX_SEED
from ..script import ScriptError, ShotScript
from ..script.storyboard import storyboard_blocks
from .history import history_before, version_history
from .recall import recalling
from .take import Shot, Take, Version, with_text

Mode = Literal["ripple", "keep"]


class Retake(NamedTuple):
    """A take with another version of a shot (from 0), neither saved nor sampled; `before` is the unchanged take."""

    take: Take
    shot: int
    version: int
    before: Take


def retake(
    take: Take,
    number: int,
    seed: int | None = None,
    prompt: str | None = None,
    mode: Mode = "ripple",
    *,
    reuse: bool = False,
    storyboard: bool = False,
) -> Retake:
    """Gives shot `number` (from 1) a version with this seed and prompt; every earlier version stays on disk.

    Without a seed and a prompt the shot gets a seed that it has not had. prompt: a shot's text, as in a script. mode:
    "ripple" gives the later shots new versions, except for locked shots, which are spliced; "keep" splices all of them
    unchanged, except for shots that recall a block of this one, which get new versions unless they are locked. reuse:
    chooses an existing version with that seed and prompt if it was sampled or begun after the blocks that now precede
    it, so that a ComfyUI graph can run again; an empty prompt keeps the text. storyboard: makes only the first block of
    the shot again, for the storyboard, and those of the shots that recall it; the other shots stay unchanged.

    Raises ValueError if the retake changes nothing or cannot be made, and ScriptError for the prompt.
    """
    index = take.sampled_index(number)
    shot = take.shots[index]
    if reuse:
        prompt = (prompt or "").strip() or None
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed} is outside 0 … {MAX_SEED}")
    if seed is None and prompt is None:
        seed = next(fresh_seeds(shot))
    version = requested_version(take, index, seed, prompt, "keep" if storyboard else mode)
    if reuse:
        return _reuse(take, index, version, mode)
    if version.has_input_of(shot.versions[shot.chosen]):
        raise ValueError(f"shot {number} has this text and seed already; give another --seed or --prompt")
    check_unlocked(shot, number)
    if storyboard:
        return _retake_storyboard(take, index, version)
    return Retake(_with_new_version(take, index, version, mode), index, len(shot.versions), take)


def fresh_seeds(shot: Shot) -> Iterator[int]:
    """Yields seeds that no version of the shot has, from 1 on."""
    used = {version.seed for version in shot.versions}
    return (seed for seed in count(1) if seed not in used)


def requested_version(take: Take, index: int, seed: int | None, prompt: str | None, mode: Mode) -> Version:
    """Returns the version as parsed from the script, because a prompt may set a seed.

    seed, prompt: None for those that the shot (from 0) has. Raises ValueError and ScriptError for the prompt.
    """
    shot = take.shots[index]
    now = shot.versions[shot.chosen]
    text = now.text if prompt is None else _without_header(take, index, prompt)
    requested = Version(text, now.seed if seed is None else seed)
    parsed, present = with_text(take.script, index, requested).shots[index], take.script.shots[index]
    if (parsed.keeps, parsed.recalls) != (present.keeps, present.recalls):
        raise ValueError(
            f"the prompt of shot {index + 1} changes @keep or @recall, which a retake leaves as they are; "
            "change them in the script, and render it again"
        )
    return Version(parsed.text, parsed.seed, mode)


def _without_header(take: Take, index: int, prompt: str) -> str:
    """A prompt without the header of a shot, if it has one that says what the take's shot is already.

    Raises ValueError for a header with another length, a start, or another transition: a retake keeps them.
    """
    try:
        shots = ShotScript.parse(replace(take.script, shots=()).format() + prompt).shots
    except ScriptError:  # what is wrong with it is said when it becomes the text of the shot
        return prompt
    plain = " ".join(prompt.split())
    if len(shots) != 1 or plain.startswith(shots[0].text):
        return prompt
    shot, present = shots[0], take.script.shots[index]
    changed = replace(present, duration=shot.duration or present.duration)
    script = replace(take.script, shots=(*take.script.shots[:index], changed, *take.script.shots[index + 1 :]))
    planned = script.plan(take.plan.fps, take.plan.block_frames)
    same_length = [spec.shot for spec in planned.blocks] == [spec.shot for spec in take.plan.blocks]
    if shot.start is not None or not same_length or (shot.continues and not present.continues):
        raise ValueError(
            f"the prompt '{plain}' begins with a header, but a retake keeps the length and the start of its shot; "
            f"leave the header out: '{shot.text}'"
        )
    return shot.text + (f" @seed={shot.seed}" if shot.seed is not None else "")


def _with_new_version(take: Take, index: int, version: Version, mode: Mode) -> Take:
    shot = take.shots[index]
    take = take.with_shot(index, _with_version(shot, version))
    depend = recalling(take.plan, index)
    for later in range(index + 1, len(take.shots)):
        following = take.shots[later]
        if (mode == "ripple" or later in depend) and not following.locked:
            version = replace(following.versions[following.chosen], made="ripple")
            take = take.with_shot(later, _with_version(following, version))
        else:
            take = take.with_shot(later, replace(following, spliced=True))
    return take


def _reuse(take: Take, index: int, version: Version, mode: Mode) -> Retake:
    """Chooses an equal version that fits the blocks before it, or adds the version if there is none."""
    shot, history = take.shots[index], history_before(take, index)
    equal = [v for v in shot.newest_first() if version.has_input_of(shot.versions[v])]
    fitting = (v for v in equal if v == shot.chosen or version_history(take, index, v, history) in (None, history))
    chosen = next(fitting, None)
    if chosen != shot.chosen:
        if mode == "keep":
            _check_made(take, index + 1)
        check_unlocked(shot, index + 1)
    if chosen is None:
        return Retake(_with_new_version(take, index, version, mode), index, len(shot.versions), take)
    moved, result = chosen != shot.chosen, take
    if moved:
        result = result.with_shot(index, replace(shot, chosen=chosen, spliced=False))
    depend = recalling(result.plan, index) if moved else frozenset[int]()
    for later in range(index + 1, len(take.shots)):
        following = result.shots[later]
        if (mode == "ripple" or later in depend) and not following.locked and (moved or following.spliced):
            result = result.with_shot(later, _following_version(result, later))
        elif moved:
            result = result.with_shot(later, replace(following, spliced=True))
    return Retake(result, index, chosen, take)


def _following_version(take: Take, index: int) -> Shot:
    """A later shot with a version that fits the blocks before it: an existing version, or else a new one."""
    shot, history = take.shots[index], history_before(take, index)
    now = shot.versions[shot.chosen]
    equal = [v for v in shot.newest_first() if now.has_input_of(shot.versions[v])]
    after = {version: version_history(take, index, version, history) for version in equal}
    follows = [v for v in equal if history is not None and after[v] == history]
    begun = [v for v in equal if after[v] is None and shot.versions[v].made == "ripple"]
    if reusable := [*follows, *begun]:
        return replace(shot, chosen=reusable[0], spliced=False)
    return _with_version(shot, replace(now, made="ripple"))


def _retake_storyboard(take: Take, index: int, version: Version) -> Retake:
    number, shot = index + 1, take.shots[index]
    if not any(spec.shot == index for spec in storyboard_blocks(take.plan)):
        raise ValueError(
            f"shot {number} continues without a cut, so the storyboard has no block of it; `longlive retake` without "
            "--preview makes it again"
        )
    for spec in take.plan.blocks:
        if spec.shot > index and not take.ignores_history(spec) and take.path(spec).is_file():
            raise ValueError(
                f"shot {spec.shot + 1} was made already, after the present shot {number}; `longlive retake` without "
                "--preview makes both again"
            )
    changed = take.with_shot(index, _with_version(shot, replace(version, made="preview")))
    begun = {spec.shot for spec in storyboard_blocks(take.plan)}
    for later in recalling(take.plan, index) & begun:  # sampled with the earlier block in memory
        following = take.shots[later]
        if following.locked:
            continue
        again = replace(following.versions[following.chosen], made="preview")
        changed = changed.with_shot(later, _with_version(following, again))
    return Retake(changed, index, len(shot.versions), take)


def check_unlocked(shot: Shot, number: int) -> None:
    """Raises ValueError for a locked shot."""
    if shot.locked:
        raise ValueError(f"shot {number} is locked; `longlive takes unlock` first, or retake another shot")


def _check_made(take: Take, index: int) -> None:
    """Raises ValueError if a shot from `index` on is incomplete, because its rest would follow the retake."""
    for spec in take.plan.blocks:
        if spec.shot >= index and take.record(spec) is None:
            raise ValueError(
                f"shot {spec.shot + 1} is not made yet, so it cannot stay unchanged: make the film first, or let the "
                "later shots follow (mode ripple)"
            )


def _with_version(shot: Shot, version: Version) -> Shot:
    """The shot with one more version, which is chosen."""
    return Shot((*shot.versions, version), len(shot.versions))
