"""Scores of an evaluation: 100 % for the film asked for, 0 for another hero, chance for random heroes."""

from __future__ import annotations

import json
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from longlive.longlive_core.evaluation.arm_films import ArmResult, FilmResult, evaluate_arms, make_film
from longlive.longlive_core.evaluation.arms import MAIN, MEMORY_OFF, TRUTH, Arm, all_arms, choose_arms
from longlive.longlive_core.evaluation.bootstrap import Estimate, estimate
from longlive.longlive_core.evaluation.formats import quantize_weights
from longlive.longlive_core.evaluation.measures import ATTRIBUTES, IDENTITY, Look, look_at, measure_flicker, psnr
from longlive.longlive_core.evaluation.pixels import (
    EXTRA,
    Cuts,
    MissingExtraError,
    match_cuts,
    measure_pixels,
    require_extra,
    ssim,
)
from longlive.longlive_core.evaluation.plots import make_plots
from longlive.longlive_core.evaluation.report import make_tables
from longlive.longlive_core.evaluation.scores import CHANCE, Column, Table, carried, figure, share, shot_drift
from longlive.longlive_core.evaluation.scripts import (
    GAPS,
    GROUPS,
    Case,
    Group,
    choose_groups,
    combination,
    make_case,
    make_cases,
    training_combinations,
)
from longlive.longlive_core.evaluation.table import as_json, film_table, markdown, write_results
from longlive.longlive_core.evaluation.targets import Target
from longlive.longlive_core.evaluation.windows import WARM_UP, Window, decode_film, decode_windows, plan_windows
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import WanConfig
from longlive.longlive_core.model.linears import NVFP4Linear
from longlive.longlive_core.training.captions import SHAPE_WORDS, SIZE_WORDS, vocabulary
from longlive.longlive_core.training.films import training_film
from longlive.longlive_core.training.world import COLOURS, SHAPES, Hero, WorldFilm, background, render
from longlive.longlive_core.types import Block
from longlive.longlive_core.vae import DecodeStream, VAEConfig
from longlive.longlive_core.video.canvas import Axes

HAS_EXTRA = all(find_spec(name) for name in EXTRA)
needs_extra = pytest.mark.skipif(not HAS_EXTRA, reason="needs the extra `eval`")


@pytest.fixture(scope="module")
def small_mini() -> Mini:
    """The model of `random_mini`."""
    return random_mini()


def random_mini() -> Mini:
    """A model of random weights, small enough to generate a film of one minute in seconds."""
    model = WanConfig(dim=32, ffn_dim=32, num_heads=2, num_layers=1, freq_dim=16, text_dim=16, text_len=48, channels=48)
    vae = VAEConfig(dim=4, dec_dim=4, mean=(0.0,) * 48, std=(1.0,) * 48)
    mini = Mini.random(0, vocabulary(), model, vae)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in mini.model.parameters():  # newly initialised weights ignore the text
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return mini


def cases(group: Group, count: int, seed: int = 0) -> list[Case]:
    """The first scripts of a group, held out from nothing, which saves making the training films."""
    return [make_case(group, index, seed) for index in range(count)]


def looks_at(case: Case, shown: WorldFilm | None = None) -> tuple[Look, ...]:
    """Looks at rendered frames of the film `shown`, by default the film asked for."""
    return tuple(
        look_at(case.film, window, render(shown or case.film, window.start, window.stop)) for window in case.windows()
    )


def result(case: Case, *hits: bool, shot: int = 1) -> FilmResult:
    """A film with looks at a shot, each of which shows everything or nothing."""
    looks = tuple(
        Look(shot, 1, "middle", 1.0, dict.fromkeys(ATTRIBUTES, hit), (None,) * 4, 1.0, 0.0, 0.0, 1.0, 1.0, None)
        for hit in hits
    )
    return FilmResult(case, looks)


@pytest.mark.slow
def test_what_was_asked_for_scores_100_per_cent() -> None:
    """Rendered frames of the film asked for are right in every attribute at every kind of place, with no difference."""
    looks = [look for case in (*cases("short", 8), *cases("minute", 1)) for look in looks_at(case)]
    assert {kind for kind in ("head", "seam", "middle", "end")} == {look.kind for look in looks}
    assert all(look.correct == dict.fromkeys(ATTRIBUTES, True) for look in looks)
    assert all(look.hero_error is not None and look.hero_error < 1 and look.background_error < 8 for look in looks)
    assert all(look.wall_difference == look.hero_difference == 0 for look in looks)


@pytest.mark.slow
def test_another_hero_scores_nothing_and_the_scene_stays_right() -> None:
    """A film with another hero is wrong in the hero's attributes, right in those of the scene, and shows that hero."""
    for case in cases("short", 6):
        hero = case.film.hero
        other = Hero(
            shape=SHAPES[(SHAPES.index(hero.shape) + 1) % len(SHAPES)],
            colour=next(colour for colour in COLOURS if colour != hero.colour),
            size="small" if hero.size == "big" else "big",
        )
        for look in looks_at(case, WorldFilm(other, case.film.shots)):
            assert [look.correct[name] for name in IDENTITY] == [False, False, False]
            assert [look.correct[name] for name in ("background", "pattern", "position")] == [True, True, True]
            assert set(look.shapes) == {other.shape}
            assert look.hero_difference > 20 > look.wall_difference


@pytest.mark.slow
def test_random_heroes_score_chance() -> None:
    """Heroes of other films score what random guessing does, within 4 standard deviations."""
    films = cases("short", 120)
    heroes = [case.film.hero for case in films]
    results: list[FilmResult] = []
    for shift in (37, 71):
        for case, hero in zip(films, heroes[shift:] + heroes[:shift], strict=True):
            window = Window(0, 1, 8)
            frame = render(WorldFilm(hero, case.film.shots), window.start + 8, window.start + 9)
            results.append(FilmResult(case, (look_at(case.film, window, np.repeat(frame, 16, axis=0)),)))
    for name in ("colour", "size"):  # shapes take turns, so that a shift does not guess them
        chance = CHANCE[name]
        found = share(results, name, lambda look: look.shot == 0).value
        assert abs(found - chance) < 4 * np.sqrt(chance * (1 - chance) / len(results)), name


def test_a_missing_hero_is_wrong_in_its_attributes() -> None:
    """Without a hero, background and pattern alone are right, and there is no colour error of the hero."""
    case = make_case("short", 0)
    window = plan_windows(case.plan(), kinds=("seam",))[0]
    wall = background(case.film.shots[0], np.arange(window.start, window.stop, dtype=np.float32) / 24).astype(np.uint8)
    look = look_at(case.film, window, wall)
    assert [name for name in ATTRIBUTES if look.correct[name]] == ["background", "pattern"]
    assert look.hero_error is None
    assert look.confidence == 0
    assert look.shapes == (None,) * 4


def test_half_of_the_frames_are_not_a_majority() -> None:
    """An attribute that half of the frames show is wrong; one that three quarters show is right."""
    case = make_case("short", 0)
    window = plan_windows(case.plan(), kinds=("seam",))[0]
    frames = render(case.film, window.start, window.stop)
    frames[8:] = 0
    assert not any(look_at(case.film, window, frames).correct[name] for name in (*IDENTITY, "position"))
    frames[8:12] = render(case.film, window.start + 8, window.start + 12)
    assert all(look_at(case.film, window, frames).correct.values())


def test_the_interval_covers_a_known_mean() -> None:
    """The 95 % interval contains the true share in 90 to 99 of 100 samples of 40 films of 5 looks."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        films = [(float(rng.binomial(5, 0.7)), 5.0) for _ in range(40)]
        found = estimate(films)
        covered += found.low <= 0.7 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_an_interval_is_over_films_and_not_over_looks() -> None:
    """Looks at one film that all agree do not narrow the interval; equal films have one of no width."""
    few, many = (estimate([(n, n), (0, n)] * 10) for n in (1.0, 50.0))
    assert (few.low, few.high) == (many.low, many.high)
    assert few.low < few.value == 0.5 < few.high
    assert estimate([(3, 4)] * 5) == Estimate(0.75, 0.75, 0.75, 5, 20)
    assert estimate([(1, 2), (0, 3)], seed=1) == estimate([(1, 2), (0, 3), (0, 0)], seed=1)
    assert np.isnan(estimate([]).value)
    assert figure(estimate([]), "%") == "–"


@pytest.mark.slow
def test_held_out_scripts_share_no_combination_and_no_seed_with_training() -> None:
    """No shot has hero, background, pattern and place of a shot in a training film, and no film is one of these."""
    seen = training_combinations()
    own = make_cases(16)
    assert not any(combination(case.film.hero, shot) in seen for case in own for shot in case.film.shots)
    trained = {training_film(0, index)[0] for index in range(100)}
    assert seen >= {combination(film.hero, shot) for film in trained for shot in film.shots}
    assert not {case.film for case in own} & trained


@pytest.mark.slow
def test_shapes_are_balanced_and_all_groups_have_films() -> None:
    """Each group of 4n films has n films of each shape, and each group has one film or more."""
    own = make_cases(32)
    for group in GROUPS:
        shapes = Counter(case.film.hero.shape for case in own if case.group == group)
        assert shapes.total() >= 1
        assert shapes.total() % 4 or set(shapes.values()) == {shapes.total() // 4}, group
    assert {case.group for case in make_cases(1)} == set(GROUPS)


@pytest.mark.slow
def test_scripts_do_not_depend_on_the_number_of_films_and_no_two_share_noise() -> None:
    """The first scripts are always the same, the seed changes the noise only, and no two films share a noise seed."""
    few, many = make_cases(4), make_cases(16)
    assert set(few) <= set(many)
    assert [replace(case, seed=0) for case in make_cases(4, seed=9)] == [replace(case, seed=0) for case in few]
    seeds = [case.alone(shot).seed for case in many for shot in range(len(case.blocks))]
    seeds += [case.seed for case in many]
    assert len(set(seeds)) == len(seeds)


def test_only_shot_1_names_the_hero_and_every_word_is_known() -> None:
    """Captions use the vocabulary, only those of shot 1 describe the hero, and each cut changes the background."""
    hero_words = {*COLOURS, *(w for words in (*SHAPE_WORDS.values(), *SIZE_WORDS.values()) for w in words)}
    known = set(vocabulary())
    for case in (*cases("short", 16), *cases("minute", 2), *cases("gap", 2)):
        words = [block.prompt.lower().replace(".", "").replace(",", "").split() for block in case.plan().blocks]
        assert {word for prompt in words for word in prompt} <= known
        assert case.film.hero.colour in words[0]
        for block, prompt in zip(case.plan().blocks, words, strict=True):
            assert block.shot == 0 or not hero_words & set(prompt)
            assert block.cut == block.prompt.startswith("The scene transitions. ")
        walls = [shot.background for shot in case.film.shots]
        assert all(a != b for a, b in pairwise(walls))


@pytest.mark.parametrize(("group", "blocks", "shots"), [("minute", 45, 6), ("long", 450, 60), ("shot", 30, 1)])
def test_long_films_have_their_length(group: Group, blocks: int, shots: int) -> None:
    """Films last a minute, ten minutes and 40 s, in shots of 4 to 7 blocks or in one."""
    plan = make_case(group, 0).plan()
    assert len(plan.blocks) == blocks
    assert plan.shots >= shots
    assert (plan.shots == 1) == (shots == 1)


def test_recall_is_looked_at_after_1_to_30_shots() -> None:
    """A film of the group `gap` has 31 shots, and is looked at in shot 1 and that many shots after it."""
    case = make_case("gap", 0)
    assert case.plan().shots == 31
    assert {window.shot for window in case.windows()} == {0, *GAPS}
    assert all(window.block == window.shot for window in case.windows())


def test_the_gap_table_counts_the_looks_at_its_shot() -> None:
    """In a row of the table are the looks at the shot that is so many shots after the first one, and no others."""
    case = make_case("gap", 0)
    looks = tuple(replace(result(case, gap <= 4, shot=gap).looks[0], shot=gap) for gap in GAPS)
    arm = ArmResult(Arm(MAIN), (FilmResult(case, looks), FilmResult(case, looks)), 1.0)
    (table,) = (table for table in make_tables([arm], random_mini()) if table.key == "recall")
    assert [name for name, _ in table.rows] == [str(gap) for gap in GAPS]
    assert [cells[0] for _, cells in table.rows] == [Estimate(float(g <= 4), g <= 4, g <= 4, 2, 2) for g in GAPS]


def test_windows_are_where_their_names_say() -> None:
    """Windows are 16 frames inside a shot; heads begin it, ends end it, and seams have half of them on each side."""
    for case in (*cases("short", 8), *cases("minute", 1), *cases("gap", 1)):
        plan = case.plan()
        windows = plan_windows(plan, every=3)
        assert {window.shot for window in windows} == set(range(plan.shots))
        for window in windows:
            own = [block for block in plan.blocks if block.shot == window.shot]
            begin, end = own[0].video_start, own[-1].video_start + own[-1].video_frames
            block = plan.blocks[window.block]
            assert begin <= window.start < window.stop <= end
            assert window.stop - window.start == 16
            assert (window.start == begin + (begin == 0)) == (window.kind == "head")
            assert window.kind != "end" or window.stop == end
            assert window.kind != "seam" or (not block.cut and block.video_start == window.start + 8)
            assert window.kind != "middle" or block.video_start < window.start


@pytest.mark.slow
def test_only_the_windows_are_decoded_with_their_warm_up(small_mini: Mini) -> None:
    """A window equals the last 16 frames decoded from the first latent frame, the warm-up and the window's own."""
    plan = make_case("short", 9).plan()
    latents = torch.randn(len(plan.blocks), 1, 48, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    window = plan_windows(plan, kinds=("seam",))[1]
    blocks = [Block(spec, latents[spec.index]) for spec in plan.blocks]
    [(found, frames)] = decode_windows(small_mini.vae, blocks, [window])
    film = torch.cat(tuple(latents), dim=2)
    stream = DecodeStream(small_mini.vae)
    stream.feed(torch.cat((film[:, :, :1], film[:, :, window.centre - 2 - WARM_UP : window.centre + 2]), dim=2))
    assert found == window
    assert np.array_equal(frames, torch.cat(stream.flush())[-16:].numpy())


@pytest.mark.slow
def test_windows_that_touch_are_those_of_the_whole_film(small_mini: Mini) -> None:
    """Windows from the film's start on that leave no gap have the frames of the film decoded as a whole."""
    case = make_case("gap", 0)
    plan = replace(case.plan(), blocks=case.plan().blocks[:3])
    latents = torch.randn(3, 1, 48, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    blocks = [Block(spec, latents[spec.index]) for spec in plan.blocks]
    film = decode_film(small_mini.vae, blocks)
    assert len(film) == plan.video_frames
    windows = plan_windows(plan)
    for window, (found, frames) in zip(windows, decode_windows(small_mini.vae, blocks, windows), strict=True):
        assert found == window
        assert np.array_equal(frames, film[window.start : window.stop])


@pytest.mark.slow
def test_rendered_films_have_no_seams() -> None:
    """In rendered films, seams are like the boundaries beside, colours do not drift, and contrast stays."""
    measured = [measure_pixels(render(case.film), case.plan(), extra=False) for case in cases("short", 16)]
    seam, beside = (sum(getattr(film, name)[0] for film in measured) for name in ("seam", "boundary"))
    assert abs(2 * seam / beside - 1) < 0.05
    for film in measured:
        assert film.colour_drift[0] < 2 * film.colour_drift[1]
        assert abs(film.contrast_drift[0] / film.contrast_drift[1] - 1) < 0.1
        assert film.cuts is film.seam_ssim is None


@pytest.mark.slow
def test_a_step_at_a_seam_and_a_drift_of_colour_are_measured_in_levels() -> None:
    """A last block that is 6 levels brighter has steps of 6 levels more at its seam, and a drift of √3 · 6."""
    case = make_case("short", 0)
    frames = render(case.film).astype(np.int16)
    last = case.plan().blocks[-1]
    plain = measure_pixels(render(case.film), case.plan(), extra=False)
    frames[last.video_start :] = frames[last.video_start :] + 6
    changed = measure_pixels(frames.clip(0, 255).astype(np.uint8), case.plan(), extra=False)
    assert 3 < changed.seam[0] - plain.seam[0] < 6.5
    assert changed.boundary == pytest.approx(plain.boundary, abs=0.2)
    assert changed.colour_drift[0] - plain.colour_drift[0] == pytest.approx(3**0.5 * 6, abs=0.5)


def test_cuts_are_counted_right() -> None:
    """Equal cuts have precision and recall 1; a missed one lowers recall, a false one precision, a near one neither."""
    assert match_cuts([60, 120], [60, 120]) == Cuts(2, 2, 2)
    assert match_cuts([60], [60, 120]) == Cuts(asked=2, found=1, matched=1)
    assert match_cuts([60, 90, 120], [60, 120]) == Cuts(asked=2, found=3, matched=2)
    assert match_cuts([56, 125], [60, 120]) == Cuts(asked=2, found=2, matched=1)
    assert match_cuts([58, 61], [60]) == Cuts(asked=1, found=2, matched=1)
    assert match_cuts([], []) == Cuts(0, 0, 0)


@needs_extra
@pytest.mark.slow
def test_the_cuts_of_a_rendered_film_are_found() -> None:
    """All cuts of a rendered film are found and no others; a film of one shot misses them, one more cut is false."""
    case = make_case("short", 4)
    plan, frames = case.plan(), render(case.film)
    assert measure_pixels(frames, plan).cuts == Cuts(2, 2, 2)
    one = replace(case.film, shots=(replace(case.film.shots[0], frames=case.film.frames),))
    assert measure_pixels(render(one), plan).cuts == Cuts(2, 0, 0)
    frames[20:40] = 255 - frames[20:40]
    assert measure_pixels(frames, plan).cuts == Cuts(2, 4, 2)


@needs_extra
@pytest.mark.slow
def test_ssim_is_1_for_equal_frames_and_less_for_others() -> None:
    """SSIM of a frame with itself is 1, and less with another shot's."""
    film = make_case("short", 0).film
    first, last = render(film, 0, 1)[0], render(film, film.frames - 1, film.frames)[0]
    assert ssim(first, first) == pytest.approx(1, abs=1e-3)
    assert ssim(first, last) < 0.9


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional packages the error names the command that installs them, before any film is made."""
    monkeypatch.setattr("longlive.longlive_core.evaluation.pixels.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r'scenedetect and torchmetrics.*pip install "longlive-video\[eval\]"'):
        require_extra()
    with pytest.raises(MissingExtraError):
        evaluate_arms(random_mini(), cases("short", 1), [Arm(MAIN)])


def test_an_unfinished_film_is_refused() -> None:
    """A film that is shorter than its plan is refused with both lengths."""
    case = make_case("short", 0)
    with pytest.raises(ValueError, match="the film has 100 frames, but its plan has 125"):
        measure_pixels(render(case.film, 0, 100), case.plan(), extra=False)


@pytest.mark.parametrize(("frame", "name"), [(8, "seam"), (4, "boundary"), (12, "boundary"), (6, "inside")])
def test_a_jump_counts_where_it_happens(frame: int, name: str) -> None:
    """A jump between two frames counts as flicker of the seam, of a boundary or of the inside of a block."""
    frames = np.zeros((16, 128, 128, 3), dtype=np.uint8)
    frames[frame:] = 60
    flicker = measure_flicker(frames)
    found = {n for n in ("seam", "boundary", "inside") if getattr(flicker, n) > 0}
    assert found == ({"boundary", "inside"} if name == "boundary" else {name})
    assert flicker.seam in (0, 60)


def test_psnr() -> None:
    """PSNR is infinite for equal arrays, follows its definition, and refuses two shapes."""
    a = np.full((2, 4, 4, 3), 100, dtype=np.uint8)
    assert psnr(a, a) == float("inf")
    assert psnr(a, a + np.uint8(5)) == pytest.approx(20 * np.log10(255 / 5))
    with pytest.raises(ValueError, match=r"\[1, 4, 4, 3\]"):
        psnr(a, a[:1])


def small_arms() -> list[Arm]:
    """All arms with one or two steps."""
    return [replace(arm, steps=min(arm.steps, 2)) for arm in all_arms()]


@pytest.mark.slow
def test_every_measure_runs_on_a_small_film(small_mini: Mini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All arms make their groups of films, every table and plot has figures, and the files can be written and read."""
    monkeypatch.setattr("longlive.longlive_core.evaluation.scripts.LONG_BLOCKS", 12)
    monkeypatch.setattr("longlive.longlive_core.evaluation.scripts.MINUTE_BLOCKS", 12)
    monkeypatch.setattr("longlive.longlive_core.evaluation.scores.LAST_SECONDS", 8.0)
    films = [case for group in GROUPS for case in cases(group, 1)]
    lines: list[str] = []
    results = evaluate_arms(small_mini, films, small_arms(), extra=HAS_EXTRA, log=lines.append)
    assert len(lines) == len(results) == len(all_arms())
    for found in results:
        assert [film.case.group for film in found.films] == [g for g in GROUPS if g in found.arm.groups]
        for film in found.films:
            assert [(k.shot, k.block, k.kind) for k in film.looks] == [
                (w.shot, w.block, w.kind) for w in film.case.windows()
            ]
            assert [look.seconds for look in film.looks] == pytest.approx(
                [w.start / 24 for w in film.case.windows()], abs=0.05
            )
    tables = make_tables(results, small_mini)
    keys = {table.key.split()[0] for table in tables}
    assert keys >= {"targets", "named", "carried", "after", "shapes", "places", "confusion", "recall", "seams"}
    assert keys >= {"one", "ten", "formats"}
    assert ("cuts" in keys) == HAS_EXTRA
    text = markdown("Test", tables, ("How.",))
    plots = make_plots(results)
    assert set(plots) == {"adherence", "recall", "identity", "drift"}
    paths = write_results(tmp_path, "eval", text, as_json(tables, {"seed": 0}), plots)
    assert all(path.stat().st_size > 0 for path in paths)
    assert json.loads(paths[1].read_text("utf-8"))["tables"].keys() == {table.key for table in tables}


@pytest.mark.slow
def test_without_memory_shots_do_not_influence_each_other(small_mini: Mini) -> None:
    """With memory off, another caption of shot 1 changes shot 1 only."""
    (arm,) = choose_arms([MEMORY_OFF])
    case = make_case("short", 0)
    changed = replace(case, captions=("a small blue ring waits at the top against a grey wall", *case.captions[1:]))
    before, after = (make_film(small_mini, c, arm, False, {}).looks for c in (case, changed))
    assert [a != b for a, b in zip(before, after, strict=True)] == [look.shot == 0 for look in before]


@pytest.mark.slow
def test_the_seed_changes_the_noise_and_with_it_the_film(small_mini: Mini) -> None:
    """Equal seeds give equal looks, another seed gives others."""
    first, again, other = (
        make_film(small_mini, make_case("short", 0, seed), Arm(MAIN, steps=1), False, {}).looks for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


@pytest.mark.slow
def test_psnr_compares_with_the_first_arm_and_the_truth_with_itself(small_mini: Mini) -> None:
    """The same arm again differs by nothing, and frames through a perfect VAE differ by nothing from rendered ones."""
    case, arm, reference = make_case("short", 0), Arm(MAIN, steps=1), {}
    assert make_film(small_mini, case, arm, False, reference).psnr is None
    assert make_film(small_mini, case, arm, False, reference).psnr == float("inf")
    (truth,) = choose_arms([TRUTH])
    assert (make_film(small_mini, case, truth, False, reference).psnr or 0) < 30


@pytest.mark.slow
def test_psnr_compares_with_another_model(small_mini: Mini) -> None:
    """Against a model, the first arm has a PSNR, too: infinite for the same model, and finite for another one."""
    other = replace(small_mini, model=deepcopy(small_mini.model))
    with torch.no_grad():
        other.model.head.head.bias.add_(1.0)
    films, arms = cases("short", 1), [Arm(MAIN)]
    found = [
        evaluate_arms(small_mini, films, arms, extra=False, against=model)[0].films[0].psnr
        for model in (small_mini, other)
    ]
    assert found[0] == float("inf") and found[1] is not None and found[1] < 100


def test_an_arm_and_a_group_are_chosen_by_name() -> None:
    """Arms and groups have the order of the report; an unknown name is named with the known ones."""
    assert [arm.name for arm in choose_arms([MEMORY_OFF, MAIN])] == [MAIN, MEMORY_OFF]
    assert choose_groups(["gap", "short"]) == ("short", "gap")
    with pytest.raises(ValueError, match="there is no arm 'memory'; the arms are 4 steps,"):
        choose_arms(["memory"])
    with pytest.raises(ValueError, match="there is no group 'films' of films; the groups are short, minute"):
        choose_groups(["films"])


def test_four_bits_everywhere_are_an_arm() -> None:
    """One arm has weights, what they are multiplied with and memory in NVFP4; the model that is given stays float."""
    (arm,) = choose_arms(["NVFP4 W4A4 and KV"])
    assert arm.memory is not None and arm.memory.kv_format == "nvfp4"
    mini = random_mini()
    layers = [part for part in quantize_weights(mini, arm.storage).model.modules() if isinstance(part, NVFP4Linear)]
    assert layers and {layer.activations for layer in layers} == {"nvfp4"}
    assert not any(isinstance(part, NVFP4Linear) for part in mini.model.modules())


def test_plain_seams_are_an_arm() -> None:
    """The first arm aligns seams as rendering does, and one arm differs from it in its plain seams only."""
    first, plain = all_arms()[:2]
    assert (first.seam, replace(first, name=plain.name, seam="plain")) == ("align", plain)


def test_a_target_is_compared_with_the_lower_end() -> None:
    """97 % of looks does not meet 97 % if the interval ends below; a seam is compared with its upper end."""
    wide, upper = Estimate(0.98, 0.95, 1.0, 9, 90), Estimate(1.0, 0.9, 1.1, 9, 9)
    assert Target("shape", 0.97, wide).cells == ("98.0 (95.0 to 100.0)", "≥ 97.0", "missed by 2.0")
    assert Target("shape", 0.95, wide).cells[2] == "met"
    assert Target("seam", 1.05, upper, "ratio", False, "high").cells[2] == "missed by 0.05"


def test_a_share_counts_its_part_only() -> None:
    """Shares are over the looks of the part, and films without any do not count."""
    case = make_case("short", 0)
    films = [result(case, True, True, False, True), result(case, False), result(case, True, shot=0)]
    assert share(films, "shape", carried).count == 5
    assert share(films, "shape", carried).value == 3 / 5
    assert share(films, "shape", carried).films == 2


def test_drift_of_one_shot_compares_its_last_ten_blocks_with_its_first() -> None:
    """A measure that doubles after block 20 has a drift of 2, and one in the first block is not counted."""
    case = make_case("shot", 0)
    look = result(case, True).looks[0]
    looks = tuple(replace(look, block=b, wall_difference=9.0 if not b else 1.0 + (b >= 20)) for b in range(30))
    assert shot_drift([FilmResult(case, looks)], lambda look: look.wall_difference).value == 2


def test_a_section_replaces_itself_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    """Writing results again replaces their section of RESULTS.md and keeps the text before and after it."""
    table = Table("t", "a table", (Column("share"),), (("row", (estimate([(1, 2), (1, 2)]),)),), "A note.")
    text = markdown("Title", (table,), ("Intro.",))
    assert text == "## Title\n\nIntro.\n\n| a table | share |\n|---|---|\n| row | 50.0 (50.0 to 50.0) |\n\nA note.\n"
    file = tmp_path / "RESULTS.md"
    file.write_text("# Results\n\nspeed: 80\n", "utf-8")
    write_results(tmp_path, "eval", text, as_json((table,), {}))
    first = file.read_text("utf-8")
    file.write_text(first + "\n## Memory\n", "utf-8")
    write_results(tmp_path, "eval", text.replace("Intro", "Outro"), as_json((table,), {}))
    second = file.read_text("utf-8")
    assert first.startswith("# Results\n\nspeed: 80\n")
    assert second == first.replace("Intro", "Outro") + "\n## Memory\n"


def test_json_has_every_figure_and_null_for_none() -> None:
    """The JSON file holds values and intervals by table, row and column; a figure without films is null."""
    table = Table("t", "a table", (Column("a"), Column("b")), (("row", (estimate([(1, 2)]), estimate([]))),))
    data = json.loads(as_json((table,), {"films": 1}))
    assert data["films"] == 1
    assert data["tables"]["t"]["row"]["a"] == {"value": 0.5, "low": 0.5, "high": 0.5, "films": 1, "count": 2.0}
    assert data["tables"]["t"]["row"]["b"]["value"] is None


def test_published_figures_have_a_column_of_their_own() -> None:
    """In the table of a film, no row has both a measured and a published figure."""
    case = make_case("short", 0)
    table = film_table(measure_pixels(render(case.film), case.plan(), extra=False))
    assert [column.name for column in table.columns] == ["this film", "LongLive 2.0 5B, published"]
    assert all(cells.count("–") >= 1 for _, cells in table.rows)
    assert sum(cells[0] == "–" and cells[1] != "–" for _, cells in table.rows) == 4


def test_axes_map_values_to_pixels() -> None:
    """The corners and a point between them are mapped to their pixels."""
    axes = Axes(10, 20, 110, 220, (0, 50), (0, 100))
    assert axes.to_pixels(0, 0) == (10, 220)
    assert axes.to_pixels(50, 100) == (110, 20)
    assert axes.to_pixels(25, 75) == (60, 70)
