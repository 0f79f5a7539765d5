"""Scores of an evaluation: 100 % for the film asked for, 0 for another hero, chance for random heroes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from math import isnan
from pathlib import Path

import numpy as np
import pytest
import torch
from longlive.longlive_core.evaluation.measures import (
    ATTRIBUTES,
    IDENTITY,
    SCENE,
    WindowScore,
    measure_flicker,
    psnr,
    score_window,
)
from longlive.longlive_core.evaluation.mini import (
    NO_MEMORY,
    SINKS_ON,
    evaluate_cases,
    evaluate_mini,
    score_case,
    vae_psnr,
    variants,
)
from longlive.longlive_core.evaluation.report import CHANCE, Report, attribute_scores, make_row, seam_flicker
from longlive.longlive_core.evaluation.scripts import Case, minute_cases, short_cases
from longlive.longlive_core.evaluation.table import markdown, write_report
from longlive.longlive_core.evaluation.windows import WARM_UP, Window, decode_windows, plan_windows
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import WanConfig
from longlive.longlive_core.training.captions import SHAPE_WORDS, SIZE_WORDS, vocabulary
from longlive.longlive_core.training.world import COLOURS, SHAPES, Hero, WorldFilm, background, render
from longlive.longlive_core.types import Block
from longlive.longlive_core.vae import DecodeStream, VAEConfig
from longlive.longlive_core.video.canvas import Axes
from PIL import Image

# Nearly every test here renders films.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small_mini() -> Mini:
    """A model of random weights, small enough to generate a film of one minute in seconds."""
    model = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=1, freq_dim=16, text_dim=16, text_len=48, channels=48)
    vae = VAEConfig(dim=4, dec_dim=4, mean=(0.0,) * 48, std=(1.0,) * 48)
    mini = Mini.random(0, vocabulary(), model, vae)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in mini.model.parameters():  # newly initialised weights ignore the text
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return mini


def scores_of(case: Case, shown: WorldFilm | None = None) -> list[WindowScore]:
    """Scores of a script's windows with rendered frames of the film `shown`, by default the film asked for."""
    windows = plan_windows(case.plan(), every=3)
    return [
        score_window(case.film, window, render(shown or case.film, window.start, window.stop)) for window in windows
    ]


def test_what_was_asked_for_scores_100_per_cent() -> None:
    """Rendered frames of the film asked for are correct in every attribute, with small colour errors."""
    samples = [sample for case in (*short_cases(8), *minute_cases(1)) for sample in scores_of(case)]
    assert {name: s.rate for name, s in attribute_scores(samples).items()} == dict.fromkeys(ATTRIBUTES, 1.0)
    assert all(sample.hero_error is not None and sample.hero_error < 1 for sample in samples)
    assert all(sample.background_error < 8 for sample in samples)


def test_another_hero_scores_nothing_and_the_scene_stays_right() -> None:
    """A film with another hero is wrong in the hero's attributes and correct in those of the scene."""
    for case in short_cases(6):
        hero = case.film.hero
        other = Hero(
            shape=SHAPES[(SHAPES.index(hero.shape) + 1) % len(SHAPES)],
            colour=next(colour for colour in COLOURS if colour != hero.colour),
            size="small" if hero.size == "big" else "big",
        )
        for sample in scores_of(case, WorldFilm(other, case.film.shots)):
            assert [sample.correct[name] for name in IDENTITY] == [False, False, False]
            assert [sample.correct[name] for name in SCENE] == [True, True, True]


def test_random_heroes_score_chance() -> None:
    """Heroes of other films score what random guessing does, within 4 standard deviations."""
    cases = short_cases(120)
    heroes = [case.film.hero for case in cases]
    samples: list[WindowScore] = []
    for shift in (37, 71):
        for case, hero in zip(cases, heroes[shift:] + heroes[:shift], strict=True):
            window = Window(0, 1, 8)
            frame = render(WorldFilm(hero, case.film.shots), window.start + 8, window.start + 9)
            samples.append(score_window(case.film, window, np.repeat(frame, 16, axis=0)))
    scores = attribute_scores(samples)
    for name, chance in CHANCE.items():
        assert abs(scores[name].rate - chance) < 4 * np.sqrt(chance * (1 - chance) / len(samples)), name


def test_a_missing_hero_is_wrong_in_its_attributes() -> None:
    """Without a hero, background and pattern alone are correct, and there is no colour error of the hero."""
    case = short_cases(1)[0]
    window = plan_windows(case.plan())[0]
    wall = background(case.film.shots[0], np.arange(window.start, window.stop, dtype=np.float32) / 24).astype(np.uint8)
    sample = score_window(case.film, window, wall)
    assert [name for name in ATTRIBUTES if sample.correct[name]] == ["background", "pattern"]
    assert sample.hero_error is None
    assert sample.confidence == 0


def test_half_of_the_frames_are_not_a_majority() -> None:
    """An attribute that half of the frames show is wrong; one that three quarters show is correct."""
    case = short_cases(1)[0]
    window = plan_windows(case.plan())[0]
    frames = render(case.film, window.start, window.stop)
    frames[8:] = 0
    assert not any(score_window(case.film, window, frames).correct[name] for name in (*IDENTITY, "position"))
    frames[8:12] = render(case.film, window.start + 8, window.start + 12)
    assert all(score_window(case.film, window, frames).correct.values())


def test_held_out_scripts_do_not_depend_on_count_or_seed() -> None:
    """The first scripts are always the same, the seed changes the noise only, and no two films share a noise seed."""
    assert short_cases(6) == short_cases(40)[:6]
    assert minute_cases(2) == minute_cases(12)[:2]
    assert [replace(case, seed=0) for case in short_cases(5, seed=9)] == [replace(c, seed=0) for c in short_cases(5)]
    seeds = [case.alone(shot).seed for case in short_cases(40) for shot in range(len(case.blocks))]
    seeds += [case.seed for case in (*short_cases(40), *minute_cases(12))]
    assert len(set(seeds)) == len(seeds)


def test_only_shot_1_names_the_hero_and_every_word_is_known() -> None:
    """Captions use the vocabulary, only those of shot 1 describe the hero, and each cut changes the background."""
    hero_words = {*COLOURS, *(w for words in (*SHAPE_WORDS.values(), *SIZE_WORDS.values()) for w in words)}
    known = set(vocabulary())
    for case in (*short_cases(40), *minute_cases(12)):
        words = [block.prompt.lower().replace(".", "").replace(",", "").split() for block in case.plan().blocks]
        assert {word for prompt in words for word in prompt} <= known
        assert case.film.hero.colour in words[0]
        for block, prompt in zip(case.plan().blocks, words, strict=True):
            assert block.shot == 0 or not hero_words & set(prompt)
            assert block.cut == block.prompt.startswith("The scene transitions. ")
        walls = [shot.background for shot in case.film.shots]
        assert all(a != b for a, b in pairwise(walls))


def test_minute_films_last_a_minute() -> None:
    """A minute film has 45 blocks, which are 60 s, in 5 or more shots."""
    for case in minute_cases(12):
        plan = case.plan()
        assert len(plan.blocks) == 45
        assert round(plan.seconds) == 60
        assert plan.shots >= 5


def test_windows_are_inside_a_shot_and_not_near_its_cut() -> None:
    """Each shot has windows; they are 16 frames inside the shot, 20 frames or more after its first."""
    for case in (*short_cases(8), *minute_cases(3)):
        plan = case.plan()
        windows = plan_windows(plan, every=3)
        assert {window.shot for window in windows} == set(range(plan.shots))
        for window in windows:
            own = [block for block in plan.blocks if block.shot == window.shot]
            assert not plan.blocks[window.block].cut
            assert own[0].video_start + 20 <= window.start
            assert window.stop <= own[-1].video_start + own[-1].video_frames
            assert window.stop - window.start == 16


def test_only_the_windows_are_decoded_with_their_warm_up(small_mini: Mini) -> None:
    """A window equals the last 16 frames decoded from the first latent frame, the warm-up and the window's own."""
    plan = short_cases(3)[2].plan()
    latents = torch.randn(len(plan.blocks), 1, 48, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    window = plan_windows(plan)[1]
    blocks = (Block(spec, latents[spec.index]) for spec in plan.blocks)
    [(found, frames)] = decode_windows(small_mini.vae, blocks, [window])
    film = torch.cat(tuple(latents), dim=2)
    stream = DecodeStream(small_mini.vae)
    stream.feed(torch.cat((film[:, :, :1], film[:, :, window.seam - 2 - WARM_UP : window.seam + 2]), dim=2))
    assert found == window
    assert np.array_equal(frames, torch.cat(stream.flush())[-16:].numpy())


def test_rendered_films_have_no_seams() -> None:
    """Rendered films have seam flicker ratios of 1, because nothing happens at their seams."""
    flicker = seam_flicker([sample for case in short_cases(12) for sample in scores_of(case)])
    assert abs(flicker.over_boundaries - 1) < 0.05
    assert abs(flicker.over_inside - 1) < 0.05


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


def test_vae_psnr_is_infinite_for_a_perfect_autoencoder(small_mini: Mini) -> None:
    """An identity as the autoencoder has infinite PSNR; without films the result is NaN."""

    class Perfect(torch.nn.Module):
        def encode(self, video: torch.Tensor) -> torch.Tensor:
            return video

        decode = encode

    assert vae_psnr(replace(small_mini, vae=Perfect()), short_cases(1)) == float("inf")
    assert isnan(vae_psnr(small_mini, ()))


def test_without_memory_shots_do_not_influence_each_other(small_mini: Mini) -> None:
    """With memory off, another caption of shot 1 changes shot 1 only."""
    variant = next(variant for variant in variants(2) if variant.name == NO_MEMORY)
    case = short_cases(1)[0]
    changed = replace(case, captions=("a small blue ring waits at the top against a grey wall", *case.captions[1:]))
    before, after = (list(score_case(small_mini, c, variant, every=3)) for c in (case, changed))
    assert before[0] != after[0]
    assert before[1:] == after[1:]


def test_an_evaluation_counts_every_window_once(small_mini: Mini, tmp_path: Path) -> None:
    """Rows follow the variants and count each window of each film once; the report can be written."""
    lines: list[str] = []
    short, long = short_cases(2), short_cases(4)[2:3]  # instead of a minute film, to save time
    report = evaluate_cases(small_mini, short, long, steps=1, log=lines.append)
    shots = [len(case.blocks) for case in short]
    assert (report.scripts, report.minute_films) == (2, 1)
    assert [(row.name, row.steps) for row in report.rows] == [(variant.name, variant.steps) for variant in variants(1)]
    assert len(lines) == len(report.rows)
    minute = plan_windows(long[0].plan(), every=3)
    for row, variant in zip(report.rows, variants(1), strict=True):
        assert {s.count for s in row.named.values()} == {2}
        assert {s.count for s in row.unnamed.values()} == {sum(shots) - 2}
        expected = len(minute) if variant.minute_films else 0
        assert sum(point.scores["colour"].count for point in row.timeline) == expected
        assert row.flicker.seams == sum(shots) + expected
        assert bool(row.minute["colour"].count) == variant.minute_films
    assert report.row(SINKS_ON).minute.keys() == set(ATTRIBUTES)
    assert all(path.stat().st_size > 0 for path in write_report(report, tmp_path))


def test_the_seed_changes_the_noise_and_with_it_the_film(small_mini: Mini) -> None:
    """Equal seeds give equal scores, another seed gives others."""
    first, again, other = (
        list(score_case(small_mini, short_cases(1, seed)[0], variants(1)[0], every=3)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_without_films_there_are_no_figures(small_mini: Mini) -> None:
    """Without films, rates and PSNR are NaN."""
    report = evaluate_mini(small_mini, scripts=0, minute_films=0)
    assert all(isnan(row.named["colour"].rate) and isnan(row.minute["colour"].rate) for row in report.rows)
    assert isnan(report.vae_psnr)


@pytest.fixture(scope="module")
def perfect() -> Report:
    """A report of rendered films, and a row without windows."""

    def samples(cases: tuple[Case, ...]) -> Iterator[WindowScore]:
        return (sample for case in cases for sample in scores_of(case))

    row = make_row(SINKS_ON, 4, samples(short_cases(2)), samples(minute_cases(1)), 4.0)
    return Report((row, make_row("nothing", 2, (), (), 4.0)), 2, 1, 33.0, 60.0)


def test_the_table_replaces_itself_and_leaves_the_rest_alone(perfect: Report, tmp_path: Path) -> None:
    """Writing a report again replaces its section of RESULTS.md and keeps the text before and after it."""
    file = tmp_path / "RESULTS.md"
    file.write_text("# Results\n\nspeed: 80\n", "utf-8")
    write_report(perfect, tmp_path)
    first = file.read_text("utf-8")
    file.write_text(first + "\n## Memory\n", "utf-8")
    write_report(replace(perfect, vae_psnr=31.0), tmp_path)
    second = file.read_text("utf-8")
    assert first.startswith("# Results\n\nspeed: 80\n")
    assert second.endswith("\n## Memory\n")
    assert second.replace("31.0 dB", "33.0 dB").replace("\n## Memory\n", "") == first.rstrip("\n") + "\n"


def test_the_table_shows_scores_and_dashes_for_no_windows(perfect: Report) -> None:
    """The table shows scores, dashes where there are no windows, and the score of guessing."""
    table = markdown(perfect)
    assert "| sinks on | 100 | 100 | 100 | 100 | 100 | 100 | 2 |" in table
    assert "| nothing | – | – | 0 | – → – | – → – | – → – |" in table
    assert "| *chance* |  |  | 12 | 25 | 50 |  | |" in table


def test_plots_are_pictures_with_bars_as_high_as_their_values(perfect: Report, tmp_path: Path) -> None:
    """Plots have their size, and a bar of 100 % reaches the top of the axes."""
    paths = write_report(perfect, tmp_path)
    assert [path.name for path in paths[1:]] == ["mini_adherence.png", "mini_identity.png", "mini_flicker.png"]
    picture = np.asarray(Image.open(paths[1]).convert("RGB"), dtype=np.int16)
    assert picture.shape == (380, 900, 3)
    blue = np.abs(picture[98:340] - (22, 104, 179)).max(axis=-1) < 24
    assert np.flatnonzero(blue.any(axis=1)).tolist()[0] <= 1  # 100 % reaches the top of the axes


def test_axes_map_values_to_pixels() -> None:
    """The corners and a point between them are mapped to their pixels."""
    axes = Axes(10, 20, 110, 220, (0, 50), (0, 100))
    assert axes.to_pixels(0, 0) == (10, 220)
    assert axes.to_pixels(50, 100) == (110, 20)
    assert axes.to_pixels(25, 75) == (60, 70)
