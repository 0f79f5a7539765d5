"""A film written again copies what its file held before; what it plays is what decoding everything gives."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.film_index import Encoding
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.render.numbered_films import NumberedFilms
from longlive.longlive_core.render.write_film import Render
from longlive.longlive_core.take import Take, choose, retake
from longlive.longlive_core.take.history import read_blocks
from longlive.longlive_core.take.retake import Mode
from longlive.longlive_core.types import video_frames
from longlive.longlive_core.vae import DecodeStream
from longlive.longlive_core.video import read_video
from torch import Tensor

from ..takes import MODEL, VAE, after

# Films are rendered by nearly every test here.
pytestmark = pytest.mark.slow

# Twelve blocks: the decoder reaches five back.
SCRIPT = """\
Shot 1 (7 blocks): the hero
Shot 2 (1 block): the other
Shot 3 (8 blocks): the hero
"""
BLOCKS = 16


@pytest.fixture(scope="module")
def mini() -> Mini:
    mini = Mini.random(0, ["the", "hero", "other"], MODEL, replace(VAE, num_res_blocks=2))
    torch.nn.init.normal_(mini.model.head.head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    return mini


@pytest.fixture
def settings(tmp_path: Path) -> RenderSettings:
    (tmp_path / "script.txt").write_text(SCRIPT)
    return RenderSettings(tmp_path / "script.txt", tmp_path / "film.mp4", size="32x32", steps=1)


@pytest.fixture
def take(mini: Mini, settings: RenderSettings) -> Take:
    job = Job(settings, mini=mini)
    assert job.run() and job.take is not None and job.render.copied == 0
    return job.take


def run(take: Take, mini: Mini, **more: object) -> Job:
    job = Job(RenderSettings.resumed(take.folder, **more), take=take, mini=mini)  # type: ignore[arg-type]
    assert job.run()
    return job


def whole(take: Take, mini: Mini) -> Tensor:
    """The film of these blocks as a file that nothing was copied into plays it."""
    path = take.folder.parent / "whole.mp4"
    job = Job(RenderSettings.resumed(take.folder, path, contact_sheet=True), mini=mini)
    assert job.run() and job.render.copied == 0
    return read_video(path)


def footage(take: Take) -> list[str]:
    return sorted(path.name for path in (take.folder / "footage").iterdir())


@pytest.mark.parametrize(("mode", "copied"), [("ripple", 7), ("keep", 7 + 3)])
def test_a_retake_decodes_its_shot_and_the_seams(mini: Mini, take: Take, mode: Mode, copied: int) -> None:
    """Five blocks behind a spliced shot still depend on it; everything else is copied, frame for frame."""
    before = read_video(take.film)
    job = run(retake(take, 2, seed=9, mode=mode).take, mini)
    assert job.render.copied == copied
    played = read_video(take.film)
    shot = video_frames(7 * 8)
    assert torch.equal(played[:shot], before[:shot]) and not torch.equal(played[shot:], before[shot:])
    if mode == "keep":
        assert torch.equal(played[video_frames(13 * 8) :], before[video_frames(13 * 8) :])
    assert torch.equal(played, whole(job.take or take, mini))
    assert footage(take) == ["film.mp4.txt", "whole.mp4.txt"]


def test_going_back_to_an_earlier_version_is_the_film_it_was(mini: Mini, take: Take) -> None:
    """A film of an earlier version of a shot copies the blocks before it, and plays as it did then."""
    before = read_video(take.film)
    run(retake(take, 3, seed=9).take, mini)
    back, _ = choose(Take.load(take.folder), 3, 0)
    assert run(back, mini).render.copied == 8
    assert torch.equal(read_video(take.film), before)


def test_another_file_is_cut_from_the_takes_own(mini: Mini, take: Take) -> None:
    """With `-o` the old film stays in place, and equal blocks of the new film are copied from it."""
    before = take.film.read_bytes()
    job = run(retake(take, 3, seed=9).take, mini, output=take.folder.parent / "other.mp4")
    assert job.render.copied == 8 and take.film.read_bytes() == before
    assert torch.equal(read_video(job.settings.output), whole(job.take or take, mini))


@pytest.mark.parametrize("calls", [0, 9, 70])
def test_a_cut_that_is_stopped_loses_nothing(mini: Mini, take: Take, calls: int) -> None:
    """Stopped anywhere, even twice, the next cut copies from the longest film there is."""
    changed = retake(take, 3, seed=9).take
    for stops in (calls, calls // 2):
        job = Job(RenderSettings.resumed(take.folder), take=changed, mini=mini, should_stop=after(stops))
        assert not job.run()
        frames = read_video(take.film)
        assert len(frames) == job.render.video_frames
    done = run(Take.load(take.folder), mini)
    assert done.render.copied >= 8
    assert torch.equal(read_video(take.film), whole(done.take or take, mini))
    assert "before.mp4" not in footage(take)


@pytest.mark.parametrize("spoil", [lambda film: film.write_bytes(b"no film"), Path.unlink])
def test_a_film_that_was_spoilt_is_made_whole(mini: Mini, take: Take, spoil: Callable[[Path], object]) -> None:
    """A film that is missing or damaged is encoded whole, to the same bytes."""
    before = take.film.read_bytes()
    spoil(take.film)
    assert run(take, mini).render.copied == 0
    assert take.film.read_bytes() == before


def test_a_film_in_another_quality_is_made_whole(mini: Mini, take: Take) -> None:
    """A film in another quality copies no block of the old file, and in the same quality every block."""
    before = take.film.read_bytes()
    assert run(take, mini, given={"quality": "small"}).render.copied == 0
    assert len(take.film.read_bytes()) < len(before)
    assert run(take, mini, given={"quality": "small"}).render.copied == BLOCKS


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_decoder_reaches_as_far_as_it_says(blocks: int) -> None:
    """A film decoded from the decoder's reach before a latent frame has that frame to the bit."""
    config = replace(VAE, num_res_blocks=blocks)
    vae = Mini.random(3, ["the"], MODEL, config).vae
    reach = config.decoder_reach
    latents = torch.randn(1, 48, reach + 12, 2, 2, generator=torch.Generator().manual_seed(blocks))

    def decoded(first: int) -> Tensor:
        stream = DecodeStream(vae)
        stream.feed(latents[:, :, first:])
        return torch.cat(stream.flush())[-4:]

    film = decoded(0)
    assert torch.equal(decoded(11), film)


def test_a_film_of_the_same_name_elsewhere_is_another_film(mini: Mini, take: Take) -> None:
    """A retake written to `other/film.mp4` changes neither the film beside the take nor its index."""
    other = take.folder.parent / "other"
    other.mkdir()
    job = run(retake(take, 3, seed=9).take, mini, output=other / "film.mp4")
    assert job.render.copied == 8
    again = run(job.take or take, mini)
    assert again.render.copied == 8
    assert take.film.read_bytes() == (other / "film.mp4").read_bytes()


def test_a_foreign_film_of_that_name_is_not_taken_for_ours(mini: Mini, settings: RenderSettings, take: Take) -> None:
    """One that was made meanwhile without the take, equal in every setting of its encoder."""
    before = take.film.read_bytes()
    foreign = Job(replace(settings, seed=5, take=False), mini=mini)
    assert foreign.run() and take.film.read_bytes() != before
    assert run(take, mini).render.copied == 0
    assert take.film.read_bytes() == before


def test_a_film_that_cannot_be_moved_is_made_whole(mini: Mini, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example if a player holds it open on Windows or the take is on another disk: it is not copied from itself."""
    before = take.film.read_bytes()

    def refuse(source: Path, target: Path) -> None:
        if Path(source) == take.film:
            raise PermissionError(13, "in use", str(source))
        replaced(source, target)

    replaced = os.replace
    monkeypatch.setattr("longlive.longlive_core.render.film_index.os.replace", refuse)
    job = run(take, mini)
    assert job.render.copied == 0 and take.film.read_bytes() == before


def test_a_cut_that_cannot_begin_leaves_the_film(mini: Mini, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    """A film that cannot be opened leaves the old film and its index, and all its blocks can be copied later."""
    before = take.film.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("longlive.longlive_core.render.write_film.open_film", full)
    with pytest.raises(OSError, match="No space left"):
        Job(RenderSettings.resumed(take.folder), mini=mini)
    assert take.film.read_bytes() == before and footage(take) == ["film.mp4.txt"]
    monkeypatch.undo()
    assert run(take, mini).render.copied == BLOCKS


@pytest.mark.parametrize("more", [{"given": {"quality": "small"}}, {"contact_sheet": True}])
def test_a_stopped_cut_keeps_the_longer_film(mini: Mini, take: Take, more: dict[str, object]) -> None:
    """Also where nothing of it can be copied into the new one."""
    before = take.film.read_bytes()
    job = Job(RenderSettings.resumed(take.folder, **more), mini=mini, should_stop=after(20))  # type: ignore[arg-type]
    assert not job.run()
    assert (take.folder / "footage" / "before.mp4").read_bytes() == before
    assert run(take, mini).render.copied == BLOCKS
    assert take.film.read_bytes() == before and footage(take) == ["film.mp4.txt"]


def test_pictures_are_cut_too_and_a_folder_with_other_files_is_left_alone(mini: Mini, take: Take) -> None:
    """Pictures are copied like packets, and a folder with other files is refused and left as it is."""
    given = {"given": {"codec": "png"}}
    run(take, mini, **given)
    folder = take.folder.parent / "film"
    played = read_video(folder)
    assert run(take, mini, **given).render.copied == BLOCKS
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds notes\.txt"):
        run(take, mini, **given)
    assert torch.equal(read_video(folder), played) and (folder / "notes.txt").read_text() == "mine"


def numbered(take: Take, mini: Mini, name: str, decoder: str = "vae") -> Render:
    """The take's film as chosen, written into a new file beside its earlier ones."""
    film = take.folder.parent / "films" / name
    film.parent.mkdir(exist_ok=True)
    earlier = NumberedFilms(take, film, Encoding("h264", "high", decoder))
    render = Render(take.plan, mini.vae, film, size=(2, 2), previous=earlier)
    assert render.run(block for block, _ in read_blocks(take))
    return render


def test_numbered_films_are_made_of_each_other(mini: Mini, take: Take, tmp_path: Path) -> None:
    """Each is whole and stays; one that goes back copies every block, each from the film that has it."""
    films = tmp_path / "films"
    assert numbered(take, mini, "film_1.mp4").copied == 0
    assert run(retake(take, 3, seed=9).take, mini).render.copied == 8
    assert numbered(Take.load(take.folder), mini, "film_2.mp4").copied == 8
    assert numbered(take, mini, "film_3.mp4").copied == BLOCKS
    assert torch.equal(read_video(films / "film_3.mp4"), read_video(films / "film_1.mp4"))
    assert torch.equal(read_video(films / "film_2.mp4"), read_video(take.film))
    assert numbered(take, mini, "film_4.mp4", "another VAE").copied == 0


def test_a_numbered_film_that_is_gone_is_forgotten(mini: Mini, take: Take, tmp_path: Path) -> None:
    """Nothing is copied from it, and its index does not stay behind."""
    numbered(take, mini, "film_1.mp4")
    (tmp_path / "films" / "film_1.mp4").unlink()
    assert numbered(take, mini, "film_2.mp4").copied == 0
    assert sum(name.startswith("film_1.mp4.") for name in footage(take)) == 0


def test_a_full_disk_ends_the_index_and_not_the_film(
    mini: Mini, take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The film is whole; the next one decodes what is not indexed."""

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("longlive.longlive_core.render.film_index.Checksum.update", full)
        assert numbered(take, mini, "film_1.mp4").complete
    assert numbered(take, mini, "film_2.mp4").copied == 0
    assert torch.equal(read_video(tmp_path / "films" / "film_1.mp4"), read_video(take.film))
