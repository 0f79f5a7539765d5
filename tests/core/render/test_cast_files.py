"""Cast files: saved from a take, recalled in another film, kept in its take, and refused where they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.cast_still import with_model
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take
from longlive.longlive_core.take.cast import Cast
from longlive.longlive_core.take.cast_file import Card, card_of
from PIL import Image
from safetensors.torch import load_file, save_file

from ..takes import MODEL, VAE, after, latents, make_settings, remade, resume

SCRIPT = """\
cast: room.cast.safetensors
Shot 1 (2 blocks) @recall=kitchen: the hero
Shot 2 (1 block): the other
Shot 3 (1 block) @recall=kitchen: the hero
"""


@pytest.fixture(scope="module")
def mini() -> Mini:
    """Its heads are wide enough for NVFP4."""
    mini = Mini.random(0, ["the", "hero", "other"], replace(MODEL, dim=64), VAE)
    torch.nn.init.normal_(mini.model.head.head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    return mini


@pytest.fixture
def card(take: Take) -> Card:
    return card_of(take, 1, 2, "kitchen")


@pytest.fixture
def other(card: Card, tmp_path: Path) -> RenderSettings:
    """The settings of another film, whose script is beside the cast file."""
    (tmp_path / "scripts").mkdir()
    card.save(tmp_path / "scripts" / "room.cast.safetensors")
    (tmp_path / "scripts" / "b.txt").write_text(SCRIPT)
    return replace(make_settings(tmp_path), script=tmp_path / "scripts" / "b.txt", output=tmp_path / "b.mp4")


def test_a_file_gives_back_what_was_saved(take: Take, mini: Mini, tmp_path: Path) -> None:
    """Latents to the bit, the prompt of the block, where it is from, and a picture; the digest is of what counts."""
    card = card_of(take, 2, 1, "kitchen")
    card, note = with_model(take, card, mini)
    still = card.still
    assert still is not None and still.shape == (32, 32, 3) and still.dtype == torch.uint8 and not note
    card.save(tmp_path / "k.safetensors")
    loaded = Card.load(tmp_path / "k.safetensors")
    assert torch.equal(loaded.latents, latents(take)[2]) and loaded.still is not None
    assert loaded.prompt == "The scene transitions. the other" and loaded.origin == "film.mp4, shot 2, block 1"
    assert torch.equal(loaded.still, still) and loaded.digest == card.digest and loaded.made_by == card.made_by
    assert card.digest == replace(card, name="x", still=None).digest != replace(card, prompt="x").digest


@pytest.mark.parametrize("kv_format", ["bf16", "nvfp4"])
def test_a_film_recalls_it_as_the_sampler_does(other: RenderSettings, mini: Mini, card: Card, kv_format: str) -> None:
    """The blocks are those of a run of the sampler with the latents and the prompt of the file, to the bit."""
    job = Job(replace(other, memory=MemoryConfig(kv_format=kv_format)), mini=mini)
    start = replace(job.loaded, sampler=replace(job.loaded.sampler, cast=Cast((card,)).blocks)).start
    expected = [block.latents for block in start(job.plan)]
    assert job.run() and job.take is not None
    assert all(torch.equal(a, b) for a, b in zip(latents(job.take), expected, strict=True))
    plain = replace(job.plan, blocks=tuple(replace(block, recalled=()) for block in job.plan.blocks))
    assert not torch.equal(expected[0], next(start(plain)).latents)


@pytest.mark.parametrize("kv_format", ["bf16", "nvfp4"])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_film_is_resumed_and_retaken_without_the_file(
    other: RenderSettings, mini: Mini, at: int, kv_format: str
) -> None:
    """Its take has a copy: stopped after any block the film is that of one run, and a retake knows the cast, too."""
    settings = replace(other, memory=MemoryConfig(kv_format=kv_format))
    whole = Job(replace(settings, output=other.output.with_name("whole.mp4")), mini=mini)
    assert whole.run() and whole.take is not None
    job = Job(settings, mini=mini, should_stop=after(2 * at))
    job.run()
    assert job.take is not None
    (other.output.parent / "scripts" / "room.cast.safetensors").unlink()
    resume(Take.load(job.take.folder), mini)
    assert all(torch.equal(a, b) for a, b in zip(latents(job.take), latents(whole.take), strict=True))
    one, two = (remade(Take.load(take.folder), mini, 3, "ripple", seed=9) for take in (job.take, whole.take))
    assert one.film.report.sampled == [3] and one.take is not None and two.take is not None
    assert torch.equal(latents(one.take)[3], latents(two.take)[3])
    assert not torch.equal(latents(one.take)[3], latents(whole.take)[3])


def test_another_file_is_another_film(other: RenderSettings, mini: Mini, card: Card) -> None:
    """The take records the digest; a copy that is missing, damaged or another one is refused, with the remedy."""
    job = Job(other, mini=mini)
    assert job.run() and job.take is not None
    take, copy = Take.load(job.take.folder), job.take.folder / "cast" / "001.cast.safetensors"
    assert take.settings["cast"] == f"kitchen:{card.digest}" and take.script.cast[0].name == "kitchen"
    replace(card, prompt="another").save(copy)
    with pytest.raises(ValueError, match=r"has another cast: it was kitchen:\w+, now kitchen:\w+"):
        resume(take, mini)
    tensors = load_file(copy)
    card.save(copy)
    copy.write_bytes(copy.read_bytes()[:-8] + b"\0\0\0\0\0\0\1\1")
    with pytest.raises(ValueError, match=r"lost the cast 'kitchen' .*damaged.*copy room.cast.safetensors to"):
        resume(take, mini)
    save_file(tensors, copy)
    with pytest.raises(ValueError, match="is no cast file"):
        resume(take, mini)


@pytest.mark.parametrize(
    ("made_by", "reason"),
    [
        ({"weights": "x"}, r"another model or LoRA: weights was x, now \w+; use the model"),
        ({"size": "64x32"}, "another size: size was 64x32, now 32x32; render with --size 64x32"),
        ({"block_frames": 4}, "another block length: block_frames was 4, now 8; save a block"),
    ],
)
def test_a_block_that_does_not_fit_is_refused_before_any_work(
    other: RenderSettings, mini: Mini, card: Card, made_by: dict[str, str | int], reason: str
) -> None:
    """Of another model, size or block length: with the reason and the remedy, with a take or without; nothing stays."""
    file = other.output.parent / "scripts" / "room.cast.safetensors"
    replace(card, made_by={**card.made_by, **made_by}).save(file)
    for take in (True, False):
        with pytest.raises(ValueError, match=rf"the cast 'kitchen' \(film.mp4, shot 1, block 2\) is of {reason}"):
            Job(replace(other, take=take), mini=mini)
    assert not other.output.exists() and not (other.output.with_suffix(".take") / "take.json").exists()


@pytest.mark.parametrize(("made_in", "recalled_in"), [("", "ComfyUI-"), ("ComfyUI-", "")])
def test_the_command_line_and_comfyui_compare_the_transformer(
    take: Take, card: Card, mini: Mini, made_in: str, recalled_in: str
) -> None:
    """Their fingerprints of the weights differ, that of the transformer is shared; nothing is let through unknown."""
    card = with_model(take, card, mini)[0]
    transformer, settings = str(card.made_by["transformer"]), {**card.made_by, "weights": f"{recalled_in}y"}
    card = replace(card, made_by={**card.made_by, "weights": f"{made_in}x"})
    card.check_film(settings, transformer)
    with pytest.raises(ValueError, match=rf"another model or LoRA: weights was {transformer}, now other"):
        card.check_film(settings, "other")
    for unknown in (replace(card, made_by={**card.made_by, "transformer": ""}), card):
        known = transformer if unknown is not card else ""
        with pytest.raises(ValueError, match=r"cannot be compared between the command line and ComfyUI: .*not known"):
            unknown.check_film(settings, known)
    with pytest.raises(ValueError, match=r"another model or LoRA: weights was .*x, now .*y"):
        card.check_film({**settings, "weights": f"{made_in}y"}, transformer)


def test_films_without_a_cast_record_nothing_of_it(take: Take) -> None:
    """Their takes are those of earlier versions."""
    assert "cast" not in take.settings and not (take.folder / "cast").exists()
    assert "cast" not in (take.folder / "take.json").read_text()


def test_the_command_saves_and_shows(
    take: Take, mini: Mini, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`cast save` names the file after --name, or the block after the file; it replaces cast files only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("longlive.longlive_core.render.cast_still.load_model", lambda _: mini)
    save = ["cast", "save", str(take.folder), "--shot", "1"]
    assert main([*save, "--block", "2", "--name", "kitchen"]) == 0 and main([*save, "-o", "hall.cast.safetensors"]) == 0
    assert Card.load(Path("hall.cast.safetensors")).name == "hall"
    assert "@recall=kitchen" in capsys.readouterr().out
    assert main(["cast", "show", "kitchen.cast.safetensors", "--still", "k.png"]) == 0 and Path("k.png").is_file()
    assert "'kitchen' of film.mp4, shot 1, block 2, a picture" in capsys.readouterr().out
    Path("model.safetensors").write_text("weights")
    for wrong, why in (
        (["--block", "3", "--name", "k"], "block 3: shot 1 has 2, numbered from 1"),
        ([], "the block has no name: give --name NAME"),
        (["-o", "kitchen.txt"], "does not end with .safetensors"),
        (["-o", "1.safetensors"], "'1' is not a valid name"),
        (["-o", "model.safetensors"], "it is not replaced, name another file"),
    ):
        assert main([*save, *wrong]) == 2 and why in capsys.readouterr().err
    assert Path("model.safetensors").read_text() == "weights"


def test_a_picture_becomes_a_block_that_stands_still(
    other: RenderSettings, mini: Mini, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its latent frame, eight times; films recall it like any other, and ComfyUI can compare its model."""
    monkeypatch.chdir(other.output.parent)
    monkeypatch.setattr("longlive.longlive_core.render.cast_image.load_model", lambda _: mini)
    pixels = torch.arange(32 * 32 * 3).view(32, 32, 3) % 256
    Image.fromarray(pixels.to(torch.uint8).numpy()).save("hero.png")
    save = ["cast", "save", "--image", "hero.png", "-o", "scripts/room.cast.safetensors", "--name", "kitchen"]
    assert main([*save, "--prompt", "the hero"]) == 0 and "experimental" in capsys.readouterr().out
    card = Card.load(Path("scripts/room.cast.safetensors"))
    latent = mini.vae.normalise(mini.vae.encode(pixels.permute(2, 0, 1)[None, :, None].float() / 127.5 - 1))
    assert card.latents.shape[2] == 8 and torch.allclose(card.latents, latent.expand_as(card.latents), atol=1e-5)
    assert card.still is not None and torch.equal(card.still, pixels.to(torch.uint8)) and card.made_by["transformer"]
    job = Job(other, mini=mini)
    assert job.run() and job.take is not None and "kitchen:" in str(job.take.settings["cast"])
    Image.new("RGB", (40, 500)).save("large.png")
    Path("none.png").write_text("what")
    for words, why in (
        (
            [*save[:3], "large.png", "-o", "x.safetensors", "--prompt", "a"],
            "try 128x32, by scaling and cropping the picture",
        ),
        ([*save[:3], "none.png", "-o", "x.safetensors", "--prompt", "a"], "none.png is no picture that can be read"),
        (save, "the picture needs a text for its memory: --prompt"),
        ([*save, "film.take", "--prompt", "a"], "leave TAKE, --shot and --block out"),
        ([*save, "--block", "2", "--prompt", "a"], "leave TAKE, --shot and --block out"),
        (["cast", "save", "film.take", "--shot", "1", "--model", "mini", "-o", "x.safetensors"], "leave them out"),
        (["cast", "save", "-o", "x.safetensors"], "name the TAKE of a film and one of its shots"),
    ):
        assert main(words) == 2 and why in capsys.readouterr().err


def test_a_take_without_its_block_or_its_model_says_so(take: Take, card: Card) -> None:
    """A block that is not stored is refused; a film of ComfyUI has no picture, and a note says why."""
    comfy = replace(take, settings={**take.settings, "model": "ComfyUI"})
    note = "no picture: the film was made in ComfyUI, whose VAE the take does not name"
    assert with_model(comfy, card) == (card, note)
    take.path(take.plan.blocks[1]).unlink()
    with pytest.raises(ValueError, match="is missing; make it with `longlive render --resume"):
        card_of(take, 1, 2, "kitchen")


def test_a_script_with_another_cast_is_another_film(
    other: RenderSettings, mini: Mini, card: Card, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resumed with a file that has changed, the film needs a name of its own, and takes no block over."""
    job = Job(other, mini=mini)
    assert job.run() and job.take is not None and other.script is not None
    words = ["render", str(other.script), "--resume", str(job.take.folder), "--dry-run"]
    assert main(words) == 0 and "another film" not in capsys.readouterr().err
    replace(card, prompt="another").save(other.script.parent / "room.cast.safetensors")
    assert main(words[:-1]) == 2
    assert "definitions or cast differ; name it with -o, and 0 of 4 blocks are taken over" in capsys.readouterr().err
