"""Films of several ranks, from a script to a take, that recall shots and cast files, and whose guidance is split."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import WanConfig
from longlive.longlive_core.parallel import Leader, Ranks
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.sampling import RankModel, SplitModel
from longlive.longlive_core.take import Take
from longlive.longlive_core.take.cast_file import card_of
from longlive.longlive_core.vae import VAEConfig
from torch import Tensor

from .ranks import run_ranks
from .render_work import Run, rendered

WORK = Path(__file__).with_name("render_work.py")
# Its heads are wide enough for NVFP4, and as wide as the mean over tokens needs to be that of one rank.
MODEL = WanConfig(dim=128, ffn_dim=256, num_heads=4, num_layers=2, freq_dim=32, text_dim=32, text_len=16)
VAE = VAEConfig(dim=4, dec_dim=4, num_res_blocks=1, mean=(0.0,) * 48, std=(1.0,) * 48)
# Shot 4 recalls the third block of shot 2, which the window no longer holds, by `recall: auto`, and a cast file.
SCRIPT = """\
recall: auto
cast: room.cast.safetensors
thing: the other
Shot 1 (1 block): the hero
Shot 2 (3 blocks) @keep=thing@3: the other
Shot 3 (4 blocks): the hero
Shot 4 (2 blocks) @recall=kitchen: {thing}
"""
ROOM = "Shot 1 (1 block): the hero\nShot 2 (1 block): the other\n"
BLOCKS, STORED = 10, 9
"""Blocks of the film, and of one that is stopped: the last one is the first block of shot 4."""
COMMON = {"steps": 1, "size": "64x64", "window": 40, "seam": "align"}
GUIDED = {"guidance": 2.0, "negative": "the hero"}
FILMS: dict[str, dict[str, Any]] = {
    "float32": {"kv_format": "float32"},
    "fp8": {"kv_format": "fp8", "recall_position": "before_shot"},
    "nvfp4": {"kv_format": "nvfp4"},
    "guided": {"kv_format": "float32", "recall_position": "before_shot", **GUIDED},
    "guided nvfp4": {"kv_format": "nvfp4", **GUIDED},
}
SPLIT = [name for name in FILMS if name.startswith("guided")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a script with its cast file."""
    folder = tmp_path_factory.mktemp("films")
    mini = Mini.random(0, ["the", "hero", "other"], MODEL, VAE)
    torch.nn.init.normal_(mini.model.head.head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    mini.save(folder / "model")
    (folder / "script.txt").write_text(SCRIPT)
    (folder / "room.txt").write_text(ROOM)
    settings = {**COMMON, "model": str(folder / "model")}
    assert rendered(Run(folder / "room.txt", folder / "room.mp4", settings)).shape[2] == 16
    card_of(Take.load(folder / "room.take"), 2, 1, "kitchen").save(folder / "room.cast.safetensors")
    return folder


def runs(
    folder: Path, kind: str, names: Iterable[str] = FILMS, *, blocks: int | None = None, split: bool = False
) -> dict[str, Run]:
    """Runs of the films, whose names begin with `kind`."""
    common = {**COMMON, "model": str(folder / "model")}
    return {
        f"{kind} {name}": Run(
            folder / "script.txt", folder / f"{kind} {name}.mp4", {**common, **FILMS[name]}, blocks, split
        )
        for name in names
    }


def copied(
    folder: Path, source: str, kind: str, names: Iterable[str] = FILMS, *, split: bool = False
) -> dict[str, Run]:
    """Runs that go on with copies of takes of another kind."""
    for name in names:
        shutil.copytree(folder / f"{source} {name}.take", folder / f"{kind} {name}.take")
    return runs(folder, kind, names, split=split)


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Tensor]:
    """The films of one rank, and what is stopped of them in shot 4."""
    made = {**runs(folder, "stopped", blocks=STORED), **runs(folder, "one")}
    return {name: rendered(run) for name, run in made.items()}


@pytest.fixture(scope="module")
def two(folder: Path, one: dict[str, Tensor]) -> dict[str, Tensor]:
    """The films of two ranks: whole, and those of one rank gone on with; with split guidance also stopped."""
    assert one
    made = {
        **runs(folder, "two"),
        **copied(folder, "stopped", "one to two"),
        **runs(folder, "split", SPLIT, split=True),
        **copied(folder, "stopped", "one to split", SPLIT, split=True),
        **runs(folder, "split stopped", SPLIT, blocks=STORED, split=True),
    }
    films, _ = run_ranks(2, "render", folder, [asdict(run) for run in made.values()], file=WORK)
    return dict(zip(made, films, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two", "one to two"])
@pytest.mark.parametrize("name", FILMS)
def test_films_that_recall_have_the_bits_of_one_rank(
    one: dict[str, Tensor], two: dict[str, Tensor], name: str, kind: str
) -> None:
    """With formats of the KV cache and both positions; also gone on with by two ranks in the shot that recalls."""
    assert one[f"one {name}"].shape[2] == 8 * BLOCKS
    assert torch.equal(two[f"{kind} {name}"], one[f"one {name}"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["split", "one to split"])
@pytest.mark.parametrize("name", SPLIT)
def test_split_guidance_has_the_bits_of_one_rank(
    one: dict[str, Tensor], two: dict[str, Tensor], name: str, kind: str
) -> None:
    """A rank for each branch, also where they go on with a film of one rank."""
    assert torch.equal(two[f"{kind} {name}"], one[f"one {name}"])


@pytest.mark.slow
def test_split_guidance_on_four_ranks_and_back_on_one(
    folder: Path, one: dict[str, Tensor], two: dict[str, Tensor]
) -> None:
    """Two ranks for each branch, and one without the option, go on with films of one rank for each branch."""
    four = copied(folder, "split stopped", "split to four", SPLIT, split=True)
    back = copied(folder, "split stopped", "split to one", SPLIT)
    films, *_ = run_ranks(4, "render", folder, [asdict(run) for run in four.values()], file=WORK)
    for name, resumed, run in zip(SPLIT, films, back.values(), strict=True):
        assert two[f"split stopped {name}"].shape[2] == 8 * STORED
        assert torch.equal(resumed, one[f"one {name}"])
        assert torch.equal(rendered(run), one[f"one {name}"])


@pytest.mark.slow
def test_a_rank_has_the_kv_of_one_branch(tmp_path: Path) -> None:
    """Each rank holds a quarter of all K/V and the prompt of its branch, and the branches meet once in each step."""
    (found, exchanges), *_ = run_ranks(4, "branches", tmp_path, file=WORK)
    tokens, width = 2 * 8 * 4, 64
    bytes_of_both = 2 * (2 * tokens * width * 4)
    assert found.tolist() == [[bytes_of_both // 4, *own] for own in ([1, 0], [1, 0], [0, 1], [0, 1])]
    assert exchanges == 2 * 3


def test_guidance_that_cannot_be_split_is_refused(folder: Path) -> None:
    """One rank, or a film without guidance, before the model is loaded; the error has the remedy."""
    settings = RenderSettings.of(folder / "script.txt", folder / "no.mp4", {**COMMON, **GUIDED}, split_guidance=True)
    with pytest.raises(ValueError, match=r"1 rank cannot split guidance, .*; use --gpus 2, 4 or 8, or leave"):
        Job(settings)
    plain = RenderSettings.of(folder / "script.txt", folder / "no.mp4", COMMON, split_guidance=True)
    with pytest.raises(ValueError, match=r"guidance 1 has one branch, .*; set another --guidance"):
        Job(plain, leader=Leader(Ranks(2)))
    with pytest.raises(ValueError, match="3 ranks cannot split guidance"):
        SplitModel(Leader(Ranks(3)), (4, 4), RankModel(Mini.random(0).model, torch.matmul), RankModel)
    assert not list(folder.glob("no*"))
