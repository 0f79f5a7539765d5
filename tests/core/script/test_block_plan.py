"""Plans: whole blocks, every rounding said, cuts where they belong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from longlive.longlive_core.script import CUT_PREFIX, BlockPlan, ScriptError, ShotScript


def plan(script: str, fps: float = 24, block_frames: int = 8) -> BlockPlan:
    return ShotScript.parse(script).plan(fps=fps, block_frames=block_frames)


def counts(script: str, fps: float = 24, block_frames: int = 8) -> list[int]:
    """Blocks of every shot."""
    film = plan(script, fps, block_frames)
    return [sum(block.shot == shot for block in film.blocks) for shot in range(film.shots)]


def test_arithmetic_of_a_plan() -> None:
    """Five blocks of 8 latent frames: the first latent frame is one video frame, each other one four."""
    film = plan("(2 blocks) a\n(3 blocks) b")
    assert (film.latent_frames, film.video_frames, film.shots) == (40, 157, 2)
    assert film.seconds == pytest.approx(157 / 24)
    assert (film.fps, film.block_frames, film.notes) == (24, 8, ())
    assert [(block.index, block.start, block.frames) for block in film.blocks] == [(i, 8 * i, 8) for i in range(5)]
    assert sum(block.video_frames for block in film.blocks) == film.video_frames


def test_a_cut_is_announced_once() -> None:
    """The first block of each shot but the film's first carries the scene transition, and `cut`."""
    film = plan("(2 blocks) a\n(2 blocks) b\n(1 block) continue: c\n(1 block) d")
    assert [block.prompt for block in film.blocks] == ["a", "a", CUT_PREFIX + "b", "b", "c", CUT_PREFIX + "d"]
    assert [block.cut for block in film.blocks] == [False, False, True, False, False, True]
    assert [block.shot for block in film.blocks] == [0, 0, 1, 1, 2, 3]


def test_a_written_scene_transition_is_not_doubled() -> None:
    """A prompt that announces the cut itself stays as it is."""
    film = plan(f"(1 block) a\n(1 block) {CUT_PREFIX}b")
    assert film.blocks[1].prompt == CUT_PREFIX + "b"
    assert film.blocks[1].cut


def test_seeds_reach_their_blocks() -> None:
    """Every block of a shot has the shot's seed, None where the script gives none."""
    assert [block.seed for block in plan("(2 blocks) a @seed=7\n(1 block) b").blocks] == [7, 7, None]


@pytest.mark.parametrize(
    ("script", "expected", "note"),
    [
        ("(29f) a", 1, None),
        ("(93f) a", 3, None),
        ("(8 blocks) a", 8, None),
        ("(4s) a", 3, "shot 1: 4 s becomes 3 blocks, 3.88 s"),
        ("(2.5s) a", 2, "shot 1: 2.5 s becomes 2 blocks, 2.54 s"),
        ("(0.7s) a", 1, "shot 1: 0.7 s becomes 1 block, 1.21 s"),
        ("(100f) a", 3, "shot 1: 100f (4.17 s) becomes 3 blocks, 3.88 s"),
        ("(2.5 blocks) a", 3, "shot 1: 2.5 blocks (3.21 s) becomes 3 blocks, 3.88 s"),
        ("[0s-4s] a", 3, "shot 1: 4 s becomes 3 blocks, 3.88 s"),
        ("a", 3, None),
    ],
)
def test_rounding_is_said(script: str, expected: int, note: str | None) -> None:
    """The nearest whole number of blocks, with a note wherever that is not what was written."""
    film = plan(script)
    assert len(film.blocks) == expected
    assert film.notes == (() if note is None else (note,))


def test_a_length_means_the_same_wherever_it_stands() -> None:
    """A shot's blocks depend on its own length only, so that editing one shot leaves the others as they were."""
    assert counts("(4s) a\n(2s) b\n(2s) c\n(2s) d\n(4s) e") == [3, 2, 2, 2, 3]


def test_times_stay_on_the_clock() -> None:
    """Times of the film are rounded as times: errors do not add up."""
    seconds = [f"[{2 * i}s-{2 * i + 2}s] a" for i in range(20)]
    film = plan("\n".join(seconds))
    assert film.seconds == pytest.approx(40, abs=0.67)


def test_a_start_time_ends_the_shot_above() -> None:
    """Without a length a shot lasts until the next one's start; the last has the default length."""
    assert counts("[0s: a]\n[5s: b]\nc\n[16s] d") == [4, 3, 5, 3]
    assert counts("a\n[8s-12s] b") == [6, 3]


def test_block_size_and_rate_are_respected() -> None:
    """3 latent frames at 16 fps: 12 video frames, 0.75 s a block."""
    assert counts("(3s) a\n(3s) b\nc", fps=16, block_frames=3) == [4, 4, 5]
    assert plan("(1 block) a", fps=23.976).fps == 23.976


def test_half_a_block_is_one() -> None:
    """Half is rounded up, from the shortest shot that is no error: 13 frames at the film's start, 16 behind it."""
    assert counts("(13f) a\n(16f) b") == [1, 1]
    assert counts("(45f) a\n(48f) b") == [2, 2]
    for script in ("(12f) a", "a\n(15f) b"):
        with pytest.raises(ScriptError, match="the shortest shot is one block"):
            plan(script)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "(4s) a\n(4s) b\nShot 3 (0.4s): c",
            "line 3, column 1: shot 3 asks for 0.4 s; the shortest shot is one block, 1.33 s at 24 fps: "
            "use 1.4 s or merge it with shot 2",
        ),
        ("(9f) a", "shot 1 asks for 9f (0.38 s); the shortest shot is one block, 1.21 s at 24 fps: use 1.3 s"),
        ("(0.2 blocks) a\nb", "use 1.3 s or merge it with shot 2"),
        ("[0s-0.2s] a", "shot 1 asks for 0.2 s"),
        ("[4s] a", "line 1, column 1: shot 1 starts at 4s, but the film starts at 0 s"),
        ("(4s) a\n  [2s-9s] b", "line 2, column 3: shot 2 starts at 2s, but shot 1 ends at 4 s: make the times meet"),
        ("[0s-4s] a\n[6s-9s] b", "shot 2 starts at 6s, but shot 1 ends at 4 s"),
        ("Shot 1 (86400s): a\n(1 block) b\n(40s) c", "line 2, column 1: with shot 2 the film is longer than 24 h"),
    ],
)
def test_impossible_times(script: str, message: str) -> None:
    """Shots below half a block, times that contradict each other and endless films are refused with a remedy."""
    with pytest.raises(ScriptError) as caught:
        plan(script)
    assert message in str(caught.value)
    assert caught.value.remedy


def test_times_that_nearly_meet_are_said() -> None:
    """Less than half a block apart is the raster's doing: kept, and noted."""
    film = plan("(3 blocks) a\n[4s-9s] b")
    assert "shot 2 starts at 4s, but shot 1 ends at 3.88 s" in film.notes


def test_notes_of_things_without_effect() -> None:
    """A name that no shot uses and a `continue` with nothing before it are said."""
    film = plan("hero: a fox\nCamera: pan\n(1 block) continue: {hero}")
    assert film.notes == (
        "'Camera: …' is a named thing, but no shot uses {Camera}",
        "shot 1 has nothing to continue from: it starts the film",
    )


@pytest.mark.parametrize(("fps", "block_frames"), [(0, 8), (-24, 8), (24, 0), (float("inf"), 8), (float("nan"), 8)])
def test_impossible_rates(fps: float, block_frames: int) -> None:
    """A rate that is not a positive number is the caller's error, with its value."""
    with pytest.raises(ValueError, match="both must be numbers above zero"):
        plan("a", fps, block_frames)


def test_a_plan_of_24_hours() -> None:
    """The longest film is 64,800 blocks."""
    assert len(plan("(64799 blocks) a\n(1 block) b").blocks) == 64_800


def test_the_bundled_demo() -> None:
    """The demo is a film of at least four shots and twenty seconds that needs no rounding."""
    film = ShotScript.read(Path(__file__).parents[3] / "longlive_core/assets/demo.txt").plan()
    assert film.shots >= 4
    assert film.seconds >= 20
    assert film.notes == ()


def test_a_plan_goes_on_after_a_cut() -> None:
    """Blocks, shots and latent frames are numbered on; the seam is a cut, announced; nothing else changes."""
    first, second = plan("(2 blocks) a\n(1 block) b"), plan("(2 blocks) c @seed=7\n(1 block) continue: d\n(1 block) e")
    film = first.then(second)
    assert film.blocks[:3] == first.blocks
    assert [block.index for block in film.blocks] == list(range(7))
    assert [block.start for block in film.blocks] == [8 * index for index in range(7)]
    assert [block.shot for block in film.blocks] == [0, 0, 1, 2, 2, 3, 4]
    assert [block.cut for block in film.blocks] == [False, False, True, True, False, False, True]
    assert [block.prompt for block in film.blocks[3:]] == [CUT_PREFIX + "c", "c", "d", CUT_PREFIX + "e"]
    assert [block.seed for block in film.blocks] == [None, None, None, 7, 7, None, None]
    assert (film.shots, film.latent_frames, film.fps, film.block_frames) == (5, 56, 24, 8)


@pytest.mark.parametrize("seam", ["c", CUT_PREFIX + "c", "continue: c"])
def test_joined_plans_are_the_plan_of_the_joined_script(seam: str) -> None:
    """But for the seam, a cut however the second film begins, announced once."""
    one, two = "(2 blocks) a\n(4s) b\n", f"(2 blocks) {seam}\n(1 block) continue: d\n(3s) e @seed=3\n"
    film, whole = plan(one).then(plan(two)), plan(one + two)
    cut = replace(whole.blocks[5], cut=True, prompt=CUT_PREFIX + "c")
    assert film.blocks == (*whole.blocks[:5], cut, *whole.blocks[6:])
    assert seam.startswith("continue") or film.blocks == whole.blocks


@pytest.mark.parametrize(("fps", "block_frames"), [(16, 8), (24, 4)])
def test_plans_of_different_rasters_do_not_join(fps: float, block_frames: int) -> None:
    """One film has one rate and one length of blocks; the message names both."""
    message = f"24 fps in blocks of 8 latent frames cannot go on with {fps} fps in blocks of {block_frames}"
    with pytest.raises(ValueError, match=message):
        plan("a").then(plan("b", fps, block_frames))


def test_a_plan_in_words() -> None:
    """A line for the film, one for each shot with its times and prompt, then the notes."""
    film = plan("(2 blocks) a\n(4s) b\n(1 block) continue: c")
    assert film.text().splitlines() == [
        "3 shots, 6 blocks, 189 frames, 7.88 s",
        "shot 1: 0 s to 2.54 s, 2 blocks: a",
        f"shot 2: 2.54 s to 6.54 s, 3 blocks: {CUT_PREFIX}b",
        "shot 3: 6.54 s to 7.88 s, 1 block: c",
    ]
    noted = plan("(2.5s) a\n(1 block) b")
    assert noted.notes and noted.text().splitlines()[3:] == list(noted.notes)


def test_the_default_length_is_that_of_shots_without_one() -> None:
    """Only theirs: a written length, and one that the next shot's start gives, stay."""
    script = ShotScript.parse("[0s: a]\n[4s] b\n(2 blocks) c\nd")
    lengths = [
        [sum(block.shot == shot for block in script.plan(default_seconds=seconds).blocks) for shot in range(4)]
        for seconds in (4, 8)
    ]
    assert lengths == [[3, 3, 2, 3], [3, 6, 2, 6]]
    assert len(ShotScript.parse("a").plan(default_seconds=0.01).blocks) == 1


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 24 * 3600 + 1])
def test_impossible_default_lengths(seconds: float) -> None:
    """The default is a length above zero that a film can have."""
    with pytest.raises(ValueError, match=r"the default shot length is .* s; it must be above 0"):
        ShotScript.parse("a").plan(default_seconds=seconds)
