"""Films whose shots recall others: resumed, retaken, begun with a storyboard, live, in versions and several at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.film_batch import FilmBatch
from longlive.longlive_core.film.live_script import LiveScript, TooLateError
from longlive.longlive_core.film.sampler_settings import SamplerSettings
from longlive.longlive_core.film.shot_versions import ShotVersions
from longlive.longlive_core.film.take_store import TakeStore
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.script.storyboard import storyboard_blocks, storyboard_plan
from longlive.longlive_core.take import Take, choose, follow, lock_shot, preview_changes, retake
from longlive.longlive_core.take.append import append
from longlive.longlive_core.take.block_file import read_record
from longlive.longlive_core.take.carry_over import carry_over
from longlive.longlive_core.take.recall import recalling
from longlive.longlive_core.take.settings import recorded_only
from longlive.longlive_core.take.storyboard import with_storyboard
from safetensors.torch import load_file
from torch import Tensor

from ..conftest import Tiny
from ..takes import after, latents, same, stored_film
from .test_take_film import SETTINGS, SamplingRecorder, joined, recorder

__all__ = ["recorder"]

LENGTHS = [(2, "A"), (1, "B"), (2, "C"), (2, "D"), (1, "E")]
PLAIN = "".join(f"Shot {i} ({n} block{'s' * (n > 1)}): {t}\n" for i, (n, t) in enumerate(LENGTHS, 1))
# Shots 4 and 5 recall block 2, the only one of shot 2.
SCRIPT = PLAIN.replace(": B", ": B @keep=b").replace(": D", ": D @recall=b").replace(": E", ": E @recall=b")
BLOCKS, FIRSTS = 8, [0, 2, 3, 5, 7]


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    torch.manual_seed(0)
    config = WanConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, text_len=5, channels=4)
    model = CausalWan(config).requires_grad_(False)
    torch.nn.init.normal_(model.head.head.weight, std=0.1)
    return Tiny(model)


def new_take(folder: Path, script: str = SCRIPT) -> Take:
    take = Take.new(folder, ShotScript.parse(script), SETTINGS, {})
    take.save()
    return take


@pytest.fixture
def take(tmp_path: Path) -> Take:
    return new_take(tmp_path / "film.take")


def made(take: Take, recorder: SamplingRecorder, **options: bool) -> list[int]:
    """Makes the rest of the film; returns which of its blocks were sampled."""
    film = Film(take.plan, recorder, TakeStore(take, **options))
    return recorder.run(film)[1]


def whole(tiny: Tiny, script: str = SCRIPT) -> Tensor:
    return tiny.film("", plan=ShotScript.parse(script).plan(24, 2))


@pytest.mark.parametrize("snapshots", [False, True])
@pytest.mark.parametrize("at", range(BLOCKS + 1))
def test_a_stopped_film_goes_on(tiny: Tiny, take: Take, recorder: SamplingRecorder, at: int, snapshots: bool) -> None:
    """From its take, by clean passes or a snapshot, in the shot that recalls too: the same film to the bit."""
    film = Film(take.plan, recorder, TakeStore(take, snapshots=snapshots))
    run = film.run()
    for _ in range(at):
        next(run)
    run.close()
    assert made(Take.load(take.folder), recorder, snapshots=snapshots) == list(range(at, BLOCKS))
    assert torch.equal(torch.cat(latents(take), dim=2), whole(tiny))


def test_a_missing_block_is_made_again(tiny: Tiny, take: Take, recorder: SamplingRecorder) -> None:
    """A block of the shot that recalls, from the take alone: what it recalls is read from disk."""
    made(take, recorder)
    for index in (5, 6):
        take.path(take.plan.blocks[index]).unlink()
    assert made(Take.load(take.folder), recorder) == [5, 6]
    assert torch.equal(torch.cat(latents(take), dim=2), whole(tiny))


def test_takes_without_the_words_record_nothing_of_them(take: Take, recorder: SamplingRecorder, tmp_path: Path) -> None:
    """Blocks are those of earlier versions, a setting names the position; blocks of a shot that recalls say what."""
    made(take, recorder)
    records = [read_record(take.path(spec))[0].get("recalled") for spec in take.plan.blocks]
    assert records == [None] * 5 + [[2]] * 3
    plain = new_take(tmp_path / "plain.take", PLAIN)
    made(plain, recorder, snapshots=True)
    for path in plain.folder.rglob("*.*"):
        text = path.read_bytes().replace(b"recall_position=before_shot", b"")
        assert b"recall" not in text and b"keep" not in text


@pytest.mark.parametrize("mode", ["ripple", "keep"])
def test_a_retake_of_what_is_kept_makes_the_shots_that_recall_it_again(
    tiny: Tiny, take: Take, recorder: SamplingRecorder, mode: str
) -> None:
    """Mode keep leaves the shots in between unchanged, and no shot that recalls the retaken block."""
    made(take, recorder)
    before = latents(take)
    changed = retake(take, 2, 9, mode=mode).take  # type: ignore[arg-type]
    changed.save()
    assert made(changed, recorder) == ([2, 3, 4, 5, 6, 7] if mode == "ripple" else [2, 5, 6, 7])
    assert [shot.spliced for shot in changed.shots] == [False, False, mode == "keep", False, False]
    if mode == "ripple":
        assert torch.equal(torch.cat(latents(changed), dim=2), whole(tiny, SCRIPT.replace(": B", ": B @seed=9")))
    # Chosen again, the earlier version brings back those that recalled it.
    back, _ = choose(changed, 2, 0)
    back.save()
    assert made(back, recorder) == [] and all(same(latents(back), before))


def test_a_chosen_version_leaves_no_shot_that_recalls_another(take: Take, recorder: SamplingRecorder) -> None:
    """A version that leaves later shots unchanged gives those that recall its block new versions, as a retake does."""
    made(take, recorder)
    versions = ShotVersions(take, 2, 1, mode="keep")
    for _, film in versions.films(recorder):
        assert len(list(film.run())) == 3
    changed, _ = choose(versions.take, 2, 1)
    assert [(shot.spliced, shot.chosen) for shot in changed.shots[2:]] == [(True, 0), (False, 1), (False, 1)]
    assert made(changed, recorder) == [5, 6, 7]


def test_the_original_position_is_not_recorded(tiny: Tiny) -> None:
    """A take that records none has the original one, as those of versions that knew no other."""
    for memory, recorded in ((tiny.memory(), {"before_shot"}), (tiny.memory(recall_position="original"), set())):
        settings = recorded_only(SamplerSettings(tiny.size, memory).recorded)
        assert {settings[name] for name in settings if name == "recall_position"} == set(recorded)


def test_a_lock_holds_against_a_recall(take: Take, recorder: SamplingRecorder) -> None:
    """A locked shot stays as it is, spliced, whatever it recalls."""
    made(take, recorder)
    changed = retake(lock_shot(take, 4, True), 2, 9, mode="keep").take
    assert [shot.spliced for shot in changed.shots] == [False, False, True, True, False]
    assert made(changed, recorder) == [2, 7]


def test_a_retake_of_another_shot_in_mode_keep_leaves_the_rest(take: Take, recorder: SamplingRecorder) -> None:
    made(take, recorder)
    assert made(retake(take, 3, 9, mode="keep").take, recorder) == [3, 4]


def test_a_retake_does_not_change_what_a_shot_recalls(take: Take) -> None:
    """Its prompt may repeat no word: it would be lost."""
    for prompt in ("X @keep=x", "X @recall=b"):
        with pytest.raises(ValueError, match=r"changes @keep or @recall, which a retake leaves as they are|twice"):
            retake(take, 3, prompt=prompt)
    assert retake(take, 4, prompt="X").take.plan.blocks[5].recalled == (2,)


def test_recalling_shots_are_found_through_others() -> None:
    script = PLAIN.replace(": B", ": B @keep=b").replace(": C", ": C @recall=b @keep=c").replace(": E", ": E @recall=c")
    plan = ShotScript.parse(script).plan()
    assert (recalling(plan, 1), recalling(plan, 2), recalling(plan, 0)) == ({2, 4}, {4}, frozenset())


def test_a_script_that_recalls_otherwise_is_another_film(
    take: Take, recorder: SamplingRecorder, tmp_path: Path
) -> None:
    """Its take has over what comes before; a name that is only kept changes nothing."""
    made(take, recorder)
    kept = ShotScript.parse(SCRIPT.replace(": C", ": C @keep=c"))
    assert preview_changes(take, kept).count("kept") == BLOCKS
    assert follow(take, kept).script == kept and follow(take, kept).shots == take.shots
    other = ShotScript.parse(SCRIPT.replace(": D @recall=b", ": D"))
    assert preview_changes(take, other).another_film
    with pytest.raises(ValueError, match="begin a new take"):
        follow(take, other)
    new = new_take(tmp_path / "other.take", other.format())
    assert carry_over(take, new) == 5 and made(new, recorder) == [5, 6, 7]


def test_added_shots_recall_what_the_film_keeps(tiny: Tiny, take: Take, recorder: SamplingRecorder) -> None:
    made(take, recorder)
    longer = append(take, "Shot 1 (1 block): F @recall=b")
    longer.save()
    assert made(longer, recorder) == [8]
    assert torch.equal(torch.cat(latents(longer), dim=2), whole(tiny, SCRIPT + "Shot 6 (1 block): F @recall=b"))


# Storyboards.


def board(take: Take, recorder: SamplingRecorder) -> tuple[Take, list[int]]:
    """The take with its storyboard, and which of its blocks were sampled now."""
    take = with_storyboard(take)
    take.save()
    film = Film(storyboard_plan(take.plan), recorder, TakeStore(take, storyboard=True))
    return Take.load(take.folder), recorder.run(film)[1]


def openings(take: Take) -> list[Tensor]:
    return [load_file(take.path(spec))["latents"].clone() for spec in storyboard_blocks(take.plan)]


def test_a_storyboard_recalls_too(tiny: Tiny, take: Take, recorder: SamplingRecorder) -> None:
    """Its own first blocks, and the film begins with what it has made."""
    take, sampled = board(take, recorder)
    assert sampled == [0, 1, 2, 3, 4]
    plan = storyboard_plan(take.plan)
    assert [block.recalled for block in plan.blocks] == [(), (), (), (1,), (1,)]
    assert torch.equal(torch.cat(openings(take), dim=2), tiny.film("", plan=plan))
    first = openings(take)
    assert made(take, recorder) == [1, 4, 6] and all(same(openings(take), first))


def test_a_retaken_opening_is_recalled_anew(take: Take, recorder: SamplingRecorder) -> None:
    """Of the storyboard's other blocks, those of the shots that recall it are made again, and no others."""
    take, _ = board(take, recorder)
    before = openings(take)
    changed, sampled = board(retake(take, 2, 9, storyboard=True).take, recorder)
    assert sampled == [1, 3, 4] and same(openings(changed), before) == [True, False, True, False, False]


# Live scripts.


def test_a_live_script_recalls_what_was_made(tiny: Tiny, take: Take, recorder: SamplingRecorder) -> None:
    """A shot that has not begun may recall a shot that has, which is kept only now; the take records both."""
    plain = new_take(take.folder.with_name("live.take"), PLAIN)
    script = ShotScript.parse(PLAIN)
    live = LiveScript(script, plain.plan, SamplerSettings(tiny.size, tiny.memory()).check_plan)
    run = stored_film(Film(plain.plan, recorder, live=live), plain, live).run()
    blocks = [next(run) for _ in range(4)]
    with pytest.raises(TooLateError, match="shot 3 has begun, and what it recalls cannot change"):
        live.change(PLAIN.replace(": B", ": B @keep=b").replace(": C", ": C @recall=b"))
    with pytest.raises(ValueError, match="shot 4 recalls 2 blocks, but 1 fits"):
        live.change(PLAIN.replace(": B", ": B @keep=b").replace(": C", ": C @keep=c").replace(": D", ": D @recall=b,c"))
    assert live.version == 0
    live.change(SCRIPT)
    blocks += run
    assert torch.equal(joined(blocks), whole(tiny))
    loaded = Take.load(plain.folder)
    assert loaded.script == ShotScript.parse(SCRIPT)
    assert made(loaded, recorder) == []


# Versions, and films at once.


def test_versions_of_a_shot_that_recalls(tiny: Tiny, take: Take, recorder: SamplingRecorder) -> None:
    """Each equals the film with its seed to the bit, and all begin from one KV cache."""
    made(take, recorder)
    versions = ShotVersions(take, 4, 2)
    for number, film in versions.films(recorder):
        got = joined(list(film.run()))
        seed = versions.take.shots[3].versions[number].seed
        assert torch.equal(got, whole(tiny, SCRIPT.replace(": D", f": D @seed={seed}"))[:, :, : got.shape[2]])


@pytest.mark.parametrize("stop", [20, 13, 15])
def test_films_at_once_recall_each_their_own(tiny: Tiny, tmp_path: Path, stop: int) -> None:
    """Films of two seeds, made together, stopped within and resumed, are the films made alone."""
    plan = ShotScript.parse(SCRIPT).plan(24, tiny.block_frames)

    def start(settings: SamplerSettings, *args: object, **options: object):  # noqa: ANN202
        return settings.start(tiny.model, tiny.text, *args, **options)  # type: ignore[arg-type]

    def films() -> list[Film]:
        batch, result = FilmBatch(partial(start, SamplerSettings(tiny.size, tiny.memory(), steps=2)), 2), list[Film]()
        for seed in (0, 1):
            settings = SamplerSettings(tiny.size, tiny.memory(), seed, steps=2)
            folder = tmp_path / f"{seed}.take"
            take = Take.load(folder) if folder.is_dir() else new_take(folder)
            result.append(Film(plan, partial(start, settings), TakeStore(take, is_locked=True)))
            batch.add(result[-1], settings.noise_source)
        return result

    stopped: Callable[[], bool] = after(stop)
    list(films()[0].run(None, stopped))
    for seed, film in enumerate(films()):
        alone = joined(
            list(SamplerSettings(tiny.size, tiny.memory(), seed, steps=2).start(tiny.model, tiny.text, plan))
        )
        torch.testing.assert_close(joined(list(film.run())), alone)
