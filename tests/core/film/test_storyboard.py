"""A storyboard has the first block of every shot of a film, and the film begins its shots with these blocks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.sampler_settings import storyboard_noise
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.sampling.noise import block_noise
from longlive.longlive_core.script import BlockPlan, ShotScript
from longlive.longlive_core.script.storyboard import storyboard_blocks, storyboard_plan
from longlive.longlive_core.take import Take, choose, retake
from longlive.longlive_core.take.append import append
from longlive.longlive_core.types import Block, LatentShape
from longlive.longlive_core.video import read_video
from safetensors.torch import load_file

from ..conftest import Tiny
from ..takes import SCRIPT, after, latents, make_settings, make_take, remade, resume, same
from .test_film import STEPS, CountingModel

# Films are rendered by nearly every test here.
pytestmark = pytest.mark.slow

SHOTS = "A A |B B B |C |D D"
OPENINGS = [0, 2, 5, 6]
LONG = SCRIPT.replace("(1 block)", "(2 blocks)")
FIRSTS = [0, 2, 4, 6, 8]


def make_storyboard(tiny: Tiny, plan: BlockPlan, **more: object) -> tuple[CountingModel, list[Block]]:
    """A storyboard as a film, and the model that counts its calls."""
    model = CountingModel(tiny, noise=storyboard_noise(plan, block_noise(0)))
    return model, list(model.film(storyboard_plan(plan), **more).run())  # type: ignore[arg-type]


def make_begun(tiny: Tiny, plan: BlockPlan, start: torch.Tensor | None = None) -> tuple[Film, CountingModel]:
    """A film that begins with its storyboard, and the model of the film."""
    storyboard, film = CountingModel(tiny, noise=storyboard_noise(plan, block_noise(0))), CountingModel(tiny)
    return Film(plan, film.start, start=start, storyboard=storyboard.film(storyboard_plan(plan), start)), film


# Films.


def test_a_storyboard_has_the_first_block_of_every_shot(tiny: Tiny) -> None:
    """A storyboard has the first block of every shot, one after the other, with its prompt, cut and seed."""
    plan = tiny.plan(SHOTS, seeds={2: 9})
    storyboard = storyboard_plan(plan)
    assert [block.index for block in storyboard_blocks(plan)] == OPENINGS
    assert [(block.index, block.start) for block in storyboard.blocks] == [(0, 0), (1, 2), (2, 4), (3, 6)]
    assert [(b.shot, b.prompt, b.cut, b.seed) for b in storyboard.blocks] == [
        (0, "A", False, None),
        (1, "B", True, None),
        (2, "C", True, 9),
        (3, "D", True, None),
    ]


def test_a_board_block_has_the_noise_of_the_block_that_it_is(tiny: Tiny) -> None:
    """A storyboard block has the noise of its seeds and its index in the whole film."""
    plan, shape = tiny.plan(SHOTS, seeds={2: 9}), LatentShape(1, 4, 2, 4, 6)
    source = block_noise(3)
    noise = storyboard_noise(plan, source)
    for spec, whole in zip(storyboard_plan(plan).blocks, OPENINGS, strict=True):
        assert torch.equal(noise(spec, shape), source(plan.blocks[whole], shape))


def test_a_shot_that_goes_on_has_no_block_of_its_own() -> None:
    """The first block of a continued shot must follow the block before it, so the storyboard omits it, with a note."""
    script = "Shot 1 (2 blocks): the hero\nShot 2 (1 block, continue): the other\nShot 3 (1 block): the hero\n"
    storyboard = storyboard_plan(ShotScript.parse(script).plan(24))
    assert [block.shot for block in storyboard.blocks] == [0, 2]
    assert storyboard.notes == ("shot 2 continues without a cut: the storyboard has no block of it",)


def test_a_film_begins_its_shots_with_its_storyboard(tiny: Tiny) -> None:
    """Bit for bit; shot 1 also equals the plain film's, and the later blocks of a shot follow its storyboard block."""
    plan = tiny.plan(SHOTS)
    _, storyboard = make_storyboard(tiny, plan)
    film, model = make_begun(tiny, plan)
    blocks = list(film.run())
    assert [block.spec for block in blocks] == list(plan.blocks)
    assert all(same([blocks[i].latents for i in OPENINGS], [block.latents for block in storyboard]))
    assert model.sampled == STEPS * (len(plan.blocks) - len(OPENINGS))
    known = {index: block.latents for index, block in zip(OPENINGS, storyboard, strict=True)}
    whole = tiny.film(SHOTS, known=lambda spec: known.get(spec.index))
    assert torch.equal(torch.cat([block.latents for block in blocks], dim=2), whole)
    plain = list(tiny.generate(SHOTS))
    assert same([blocks[i].latents for i in (0, 1, 2)], [plain[i].latents for i in (0, 1, 2)]) == [True, True, False]
    assert all(one is other for one, other in zip(blocks, film.run(), strict=True))


def test_a_storyboard_depends_on_script_and_seeds_alone(tiny: Tiny) -> None:
    """Later blocks of a shot do not change its storyboard; a shot's seed changes its block and later blocks."""
    plan = tiny.plan(SHOTS)
    _, storyboard = make_storyboard(tiny, plan)
    _, other = make_storyboard(tiny, tiny.plan(SHOTS.replace("B B B", "B X Y")))
    assert all(same([block.latents for block in storyboard], [block.latents for block in other]))
    _, other = make_storyboard(tiny, tiny.plan(SHOTS, seeds={2: 5}))
    assert same([block.latents for block in storyboard], [block.latents for block in other]) == [
        True,
        True,
        False,
        False,
    ]


def test_a_start_image_begins_the_storyboard(tiny: Tiny) -> None:
    """The start image is the first latent frame of the storyboard, and block 0 equals that of the plain film."""
    image = torch.randn(1, 4, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    film, _ = make_begun(tiny, tiny.plan(SHOTS), image)
    blocks = list(film.run())
    assert torch.equal(blocks[0].latents[:, :, :1], image)
    assert torch.equal(blocks[0].latents, next(tiny.generate(SHOTS, prefix=image)).latents)


@pytest.mark.parametrize("at", range(24))
def test_a_film_stopped_anywhere_goes_on_to_the_bit(tiny: Tiny, at: int) -> None:
    """A run that is stopped in the storyboard or after it leaves blocks that the next run does not sample again.

    It is asked to stop once only, and must not make the film without its storyboard then.
    """
    plan = tiny.plan(SHOTS)
    whole = list(make_begun(tiny, plan)[0].run())
    film, model = make_begun(tiny, plan)
    answers = iter([False] * at + [True])
    shown = list(film.run(should_stop=lambda: next(answers, False)))
    assert film.finished == len(shown)
    assert all(same([block.latents for block in film.run()], [block.latents for block in whole]))
    assert model.sampled <= STEPS * (len(plan.blocks) - len(OPENINGS)) + 1


def test_the_storyboard_of_a_film_that_goes_on_is_of_the_new_shots(tiny: Tiny) -> None:
    """The storyboard follows the earlier film, which is not sampled again, and has no blocks of its shots."""
    beginning = tiny.plan("A A |B B")
    plan = beginning.then(tiny.plan("C C |D D"))
    assert [block.index for block in storyboard_blocks(plan, 4)] == [0, 1, 2, 3, 4, 6]
    noise = storyboard_noise(plan, block_noise(0), 4)
    earlier = CountingModel(tiny).film(beginning)
    before, model = list(earlier.run()), CountingModel(tiny, noise=noise)
    storyboard = list(model.film(storyboard_plan(plan, 4), earlier=earlier).run())
    assert model.sampled == STEPS * 2
    own = CountingModel(tiny)
    board_film = CountingModel(tiny, noise=noise).film(storyboard_plan(plan, 4), earlier=earlier)
    film = Film(plan, own.start, earlier=earlier, storyboard=board_film)
    blocks = list(film.run())
    assert all(one is other for one, other in zip(before, blocks, strict=False))
    assert all(same([blocks[i].latents for i in (4, 6)], [block.latents for block in storyboard[4:]]))
    assert own.sampled == STEPS * 2


@pytest.mark.parametrize(("kept", "anew"), [(0, 8), (3, 4), (7, 0)])
def test_a_film_that_is_kept_elsewhere_brings_its_storyboard(tiny: Tiny, kept: int, anew: int) -> None:
    """Only missing blocks of the storyboard are sampled too."""
    plan = tiny.plan(SHOTS)
    whole = list(make_begun(tiny, plan)[0].run())
    storyboard, film = CountingModel(tiny, noise=storyboard_noise(plan, block_noise(0))), CountingModel(tiny)
    resumed = Film(plan, film.start, storyboard=storyboard.film(storyboard_plan(plan)))
    resumed.adopt(whole[:kept])
    assert all(same([block.latents for block in resumed.run()], [block.latents for block in whole]))
    assert storyboard.sampled == anew


# Takes.


@pytest.fixture
def settings(tmp_path: Path) -> RenderSettings:
    made = make_settings(tmp_path)
    (tmp_path / "script.txt").write_text(LONG)
    return made


def preview(mini: Mini, settings: RenderSettings, take: Take | None = None, calls: int | None = None) -> Job:
    stop = None if calls is None else after(calls)
    job = Job(settings, mini=mini, take=take, storyboard=True, should_stop=stop)
    assert job.run() or calls is not None
    return job


def taken(job: Job) -> Take:
    assert job.take is not None
    return job.take


def made_directly(mini: Mini, plan: BlockPlan, known: dict[int, torch.Tensor]) -> list[torch.Tensor]:
    """The latents of a plan's storyboard, of which some blocks are known."""
    noise = storyboard_noise(plan, block_noise(0))
    hooks = {"noise": noise, "known": lambda spec: known.get(spec.index)}
    made = generate(mini.model, storyboard_plan(plan), mini.encode_text, size=(2, 2), steps=2, **hooks)
    return [block.latents for block in made]


def storyboard_latents(take: Take) -> list[torch.Tensor]:
    """The latents of the storyboard's blocks, read from the files."""
    return [load_file(take.path(spec))["latents"].clone() for spec in storyboard_blocks(take.plan)]


def test_a_take_begins_with_its_storyboard(mini: Mini, settings: RenderSettings) -> None:
    """The preview shows every shot; the resumed take reuses these blocks and samples the others."""
    job = preview(mini, settings)
    take = taken(job)
    storyboard = storyboard_latents(take)
    assert all(same(storyboard, made_directly(mini, take.plan, {})))
    assert (take.block_count(), take.complete) == (5, False)
    assert [shot.versions[0].made for shot in take.shots] == ["preview"] * 5
    assert len(read_video(settings.output.with_name("film.preview.mp4"))) == 29 + 4 * 32
    assert settings.output.with_name("film.preview.png").is_file() and not settings.output.exists()
    film, notes = resume(take, mini)
    assert film.film.report is not None and film.film.report.stored == FIRSTS
    assert not any("made again" in line for line in notes)
    assert all(same(storyboard_latents(take), storyboard)) and take.complete
    again = preview(mini, RenderSettings.resumed(take.folder))
    assert again.film.report is not None and not again.film.report.sampled


def test_shot_1_begins_as_in_the_plain_film(mini: Mini, settings: RenderSettings) -> None:
    """Bit for bit; the other shots differ, because their storyboard blocks follow other blocks."""
    take = taken(preview(mini, settings))
    storyboard = storyboard_latents(take)
    plain = make_take(
        mini, RenderSettings(settings.script, settings.output.with_name("plain.mp4"), size="32x32", steps=2)
    )
    assert same(storyboard, storyboard_latents(plain)) == [True, False, False, False, False]


@pytest.mark.parametrize("calls", [0, 5, 17])
def test_a_stopped_preview_goes_on_to_the_bit(mini: Mini, settings: RenderSettings, calls: int) -> None:
    """A preview that was stopped samples only its missing blocks, and the storyboard is the same to the bit."""
    whole = taken(
        preview(mini, RenderSettings(settings.script, settings.output.with_name("whole.mp4"), size="32x32", steps=2))
    )
    stopped = taken(preview(mini, settings, calls=calls))
    made = stopped.block_count()
    assert made < 5
    job = preview(mini, RenderSettings.resumed(stopped.folder))
    assert job.film.report is not None and len(job.film.report.sampled) == 5 - made
    assert all(same(storyboard_latents(stopped), storyboard_latents(whole)))


@pytest.mark.parametrize("calls", [10, 45])
def test_the_film_from_a_preview_may_be_stopped(mini: Mini, settings: RenderSettings, calls: int) -> None:
    """A film from a preview can be stopped and resumed: film and storyboard are the same to the bit."""
    take = taken(preview(mini, settings))
    storyboard = storyboard_latents(take)
    assert not Job(RenderSettings.resumed(take.folder), mini=mini, should_stop=after(calls)).run()
    resume(take, mini)
    other = taken(
        preview(mini, RenderSettings(settings.script, settings.output.with_name("other.mp4"), size="32x32", steps=2))
    )
    resume(other, mini)
    assert all(same(latents(take), latents(other))) and all(same(storyboard_latents(take), storyboard))


def test_another_beginning_of_one_shot_leaves_the_others(mini: Mini, settings: RenderSettings) -> None:
    """Bit for bit; both first blocks stay stored, either can be chosen, and the film begins with the chosen one."""
    take = taken(preview(mini, settings))
    storyboard = storyboard_latents(take)
    job = preview(mini, RenderSettings.resumed(take.folder), retake(take, 3, seed=9, storyboard=True).take)
    again = taken(job)
    assert job.film.report is not None and (job.film.report.sampled, job.film.report.stored) == ([2], [0, 1, 3, 4])
    assert same(storyboard_latents(again), storyboard) == [True, True, False, True, True]
    assert not any(shot.spliced for shot in again.shots)
    assert (again.script.shots[2].seed, [len(shot.versions) for shot in again.shots]) == (9, [1, 1, 2, 1, 1])
    back, _ = choose(again, 3, 0)
    assert all(same(storyboard_latents(back), storyboard))
    other = storyboard_latents(again)
    resume(again, mini)
    assert again.complete and all(same(storyboard_latents(again), other))


def test_another_beginning_is_made_behind_those_that_are_there(mini: Mini, settings: RenderSettings) -> None:
    """This includes shot 4, whose block follows an earlier first block of shot 3."""
    take = taken(preview(mini, settings))
    again = taken(preview(mini, RenderSettings.resumed(take.folder), retake(take, 3, seed=9, storyboard=True).take))
    before = storyboard_latents(again)
    last = taken(preview(mini, RenderSettings.resumed(take.folder), retake(again, 5, seed=4, storyboard=True).take))
    expected = made_directly(mini, last.plan, dict(enumerate(before[:4])))
    assert all(same(storyboard_latents(last), expected)) and not torch.equal(expected[4], before[4])


def test_a_retake_of_a_previewed_shot_is_one_like_any_other(mini: Mini, settings: RenderSettings) -> None:
    """The retake does not use the storyboard: it samples the shot and later shots, and old versions can be chosen."""
    take = taken(preview(mini, settings))
    resume(take, mini)
    whole = latents(take)
    job = remade(take, mini, 3, "ripple", seed=9)
    again = taken(job)
    assert job.film.report.replayed == 0  # from the memory of its shot
    assert same(latents(again), whole) == [True] * 4 + [False] * 6
    back, _ = choose(again, 3, 0)
    assert all(same(latents(back), whole)) and not any(shot.spliced for shot in back.shots)


def test_a_film_that_was_begun_can_be_previewed(mini: Mini, settings: RenderSettings) -> None:
    """Stored blocks stay; the shots that have none begin with their storyboard."""
    stopped = Job(settings, mini=mini, should_stop=after(30))
    assert not stopped.run()
    take = taken(stopped)
    made = take.block_count()
    assert 2 < made < 8
    before = [load_file(take.path(spec))["latents"] for spec in take.plan.blocks[:made]]
    take = taken(preview(mini, RenderSettings.resumed(take.folder)))
    storyboard = storyboard_latents(take)
    resume(take, mini)
    assert all(same(latents(take)[:made], before)) and all(same(storyboard_latents(take), storyboard))


def test_shots_behind_a_film_can_be_previewed(mini: Mini, settings: RenderSettings) -> None:
    """The storyboard shows all shots; only the first blocks of the new shots are sampled."""
    take = make_take(mini, settings)
    whole = latents(take)
    job = preview(mini, RenderSettings.resumed(take.folder), append(take, "Shot 6 (2 blocks): the other"))
    assert job.film.report.sampled == [5]
    longer, storyboard = taken(job), storyboard_latents(taken(job))
    resume(longer, mini)
    assert all(same(latents(longer)[:-2], whole)) and all(same(storyboard_latents(longer), storyboard))


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("hurt", [Path.unlink, damaged])
def test_a_bad_block_of_a_storyboard_is_made_again(
    mini: Mini, settings: RenderSettings, hurt: Callable[[Path], None]
) -> None:
    """A missing or damaged storyboard block is sampled again, alone and to the bit."""
    take = taken(preview(mini, settings))
    storyboard = storyboard_latents(take)
    hurt(take.path(take.plan.blocks[4]))
    job = preview(mini, RenderSettings.resumed(take.folder))
    assert job.film.report.sampled == [2]
    assert all(same(storyboard_latents(take), storyboard))


def test_what_no_storyboard_can_be_is_refused(mini: Mini, settings: RenderSettings) -> None:
    """A preview is refused without a take, over a film, of a continued or unchanged shot, and before finished shots."""
    with pytest.raises(ValueError, match="leave --no-take out"):
        Job(RenderSettings(settings.script, settings.output, take=False), mini=mini, storyboard=True)
    take = make_take(mini, settings)
    with pytest.raises(ValueError, match="shot 4 was made already, after the present shot 3"):
        retake(take, 3, seed=9, storyboard=True)
    with pytest.raises(FileExistsError, match=r"holds a film that a storyboard would replace"):
        Job(settings, mini=mini, storyboard=True)
    assert take.complete
    shutil.rmtree(take.folder)
    (settings.output.parent / "script.txt").write_text(
        "Shot 1 (1 block): the hero\nShot 2 (1 block, continue): the other"
    )
    take = taken(preview(mini, settings))
    with pytest.raises(ValueError, match="shot 2 continues without a cut"):
        retake(take, 2, seed=9, storyboard=True)
    with pytest.raises(ValueError, match="this text and seed already"):
        retake(take, 1, prompt="the hero")


def test_a_render_says_that_it_replaces_a_storyboard(mini: Mini, settings: RenderSettings) -> None:
    """A render in place of a storyboard says in a note that the storyboard is replaced."""
    preview(mini, settings)
    job = Job(settings, mini=mini)
    assert any("storyboard in" in note and "is replaced" in note for note in job.notes)


def test_the_command_line_makes_a_preview_and_the_film_from_it(
    settings: RenderSettings, mini: Mini, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command that the preview prints works."""
    mini.save(settings.output.parent / "mini", torch.float32)
    film, take = str(settings.output), str(settings.output.with_suffix(".take"))
    words = ["--model", str(settings.output.parent / "mini"), "--size", "32x32", "--steps", "2", "--threads", "1"]
    assert main(["render", str(settings.script), "-o", film, "--preview", *words]) == 0
    printed = capsys.readouterr().out
    assert f"longlive render --resume {take} --threads 1\n" in printed
    assert f"longlive retake {take} --shot N --preview\n" in printed
    assert main(["retake", take, "--shot", "3", "--seed", "9", "--preview"]) == 0
    assert "shot 3 is version 1, seed 9\nreused blocks 0 to 1, 3 to 4; sampled block 2" in capsys.readouterr().out
    storyboard = storyboard_latents(Take.load(Path(take)))
    assert main(["render", "--resume", take, "--threads", "1"]) == 0
    assert Path(film).is_file() and all(same(storyboard_latents(Take.load(Path(take))), storyboard))
    assert main(["render", str(settings.script), "-o", film, "--preview", "--no-take"]) == 2
    assert "leave --no-take out" in capsys.readouterr().err
    assert main(["retake", take, "--shot", "5", "--preview", "--mode", "keep"]) == 2
    assert "leave --mode out" in capsys.readouterr().err
