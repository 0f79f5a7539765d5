"""`longlive train ar`, `dmd` and `vae`: what they write, and what they refuse before work starts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import Mini, load_mini
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.script import CUT_PREFIX
from longlive.longlive_core.training import films
from longlive.longlive_core.training.captions import vocabulary
from longlive.longlive_core.training.clips import WORLD_PATTERNS, WorldClips, read_plans, world_plan
from longlive.longlive_core.training.dmd import GENERATOR
from longlive.longlive_core.training.lora import AdaptedModel, LoraSettings, add_adapter, load_adapter, read_card
from longlive.longlive_core.weights import open_source, read_lora
from safetensors.torch import load_file
from torch import Tensor

from ..training.toy_mini import TINY_DIT, TINY_VAE, random_films, save_tiny

Train = Callable[..., tuple[int, str]]
DMD = """
base = "{base}"
{more}
[trainer]
steps = 3
[dmd]
size = [2, 2]
rank = {rank}
alpha = 4
steps = 2
[dmd.generator]
lr = 0.05
every = 1
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a model like the embedded one, of a few thousand weights."""
    return save_tiny(tmp_path / "tiny")


@pytest.fixture
def train(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """Runs `longlive train dmd`; returns the exit code and the text of its error."""

    def run(
        out: str, *words: str, more: str = "", rank: int = 2, kind: str = "dmd", text: str = DMD
    ) -> tuple[int, str]:
        config = tmp_path / "run.toml"
        config.write_text(text.format(base=base, more=more, rank=rank))
        code = main(["train", kind, str(config), "--out", str(tmp_path / out), *words])
        return code, capsys.readouterr().err

    return run


@pytest.mark.slow
def test_a_lora_is_written_and_refused_where_its_rank_differs(train: Train, base: Path, tmp_path: Path) -> None:
    """The LoRA has a card; it can be trained further with its rank, and with another one nothing begins."""
    assert train("one") == (0, "")
    path = tmp_path / "one" / "lora.safetensors"
    card = read_card(open_source(path).metadata)
    assert (card.base, card.data, card.steps, card.sampler_steps, card.rope_offset) == ("tiny", "world", 3, 2, 8.0)
    assert len(read_lora(path).layers) == 10
    official, core = load_file(path), load_file(path.with_name("lora_comfyui.safetensors"))
    names = {name: name.replace("base_model.model.", "diffusion_model.") for name in official}
    assert set(names.values()) == core.keys() and all(torch.equal(official[n], core[c]) for n, c in names.items())
    assert train("two", more=f'lora = "{path}"') == (0, "")
    code, error = train("three", more=f'lora = "{path}"', rank=3)
    assert code == 2 and "has rank 2 and alpha 4, but this run trains rank 3" in error and error.count("\n") == 1
    assert not (tmp_path / "three").exists()

    assert_loads_the_same(base, path)


def assert_loads_the_same(base: Path, path: Path) -> None:
    """The LoRA changes films as it did in training when it is beside the layers and when it is merged into them."""
    plan = world_plan((2, 1), np.random.default_rng(0))
    one, beside, merged, plain = (load_mini(base) for _ in range(4))
    add_adapter(one.model, GENERATOR, LoraSettings(2, 4.0))
    load_adapter(one.model, GENERATOR, path)
    read_lora(path).add_bypass(beside.model, 1.0)
    merged.model.load_state_dict(read_lora(path).merge(merged.model.state_dict(), 1.0))

    def latents(mini: Mini, model: object = None) -> Tensor:
        blocks = generate(model or mini.model, plan, mini.encode_text, size=(2, 2), steps=2, seed=1)  # pyright: ignore
        return torch.cat([block.latents for block in blocks], dim=2)

    with torch.no_grad():
        trained = latents(one, AdaptedModel(one.model, GENERATOR))
        assert float((latents(plain) - trained).norm() / trained.norm()) > 1e-3
        for mini in (beside, merged):
            torch.testing.assert_close(latents(mini), trained, rtol=1e-4, atol=1e-4)


@pytest.fixture
def encoded(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of encoded films with random latents."""
    made = {str(film.film): film for film in random_films()}
    monkeypatch.setattr(films, "encode_film", lambda _vae, film, _shots: made[str(film)])
    films.encode_films(load_mini(base).vae, tmp_path / "films", 0, len(made))
    return tmp_path / "films"


def changed(base: Path, folder: Path) -> Path:
    """A folder with the model of `base` and one other weight."""
    mini = load_mini(base)
    mini.model.head.head.weight.data[0, 0] += 1
    mini.save(folder)
    return folder


@pytest.mark.slow
def test_a_distillation_is_resumed_with_its_own_base_and_data(train: Train, base: Path, tmp_path: Path) -> None:
    """Another base or other scripts are refused with the names of both; a base that was renamed is the same one."""
    film, other = (tmp_path / name for name in ("one.txt", "other.txt"))
    film.write_text("Shot 1 (1 block): a ring\n")
    other.write_text("Shot 1 (1 block): a square\n")
    assert train("out", more=f'data = "{film}"') == (0, "")
    code, error = train("out", more=f'data = "{other}"')
    assert code == 2 and re.search(r"are of data 'one\.txt \(\w{16}\)', not 'other\.txt \(\w{16}\)': choose", error)
    assert "data 'one.txt" in train("out")[1] and "not 'world" in train("out")[1]
    another = changed(base, tmp_path / "another")
    code, error = train("out", more=f'data = "{film}"', text=DMD.replace("{base}", str(another)))
    assert code == 2 and re.search(r"are of base 'tiny \(\w{16}\)', not 'another \(\w{16}\)': choose", error)
    renamed = base.rename(tmp_path / "renamed")
    assert train("out", more=f'data = "{film}"', text=DMD.replace("{base}", str(renamed))) == (0, "")


@pytest.mark.slow
def test_teacher_forcing_is_resumed_with_its_own_base_and_data(
    train: Train, base: Path, encoded: Path, tmp_path: Path
) -> None:
    """Another base or other films are refused with the names of both."""
    text = 'base = "{base}"\n{more}\nblocks = 3\nfilms = 55\nvalidation_films = 5\n[trainer]\nsteps = 2'
    more = f'data = "{encoded}"'
    assert train("out", more=more, kind="ar", text=text) == (0, "")
    code, error = train("out", more=more, kind="ar", text=text.replace("films = 55", "films = 50"))
    assert code == 2 and re.search(r"of data '55 films of seed 0 \(\w{16}\)', not '50 films of seed 0 \(", error)
    another = changed(base, tmp_path / "another")
    code, error = train("out", more=more, kind="ar", text=text.replace("{base}", str(another)))
    assert code == 2 and re.search(r"are of base 'tiny \(\w{16}\)', not 'another \(", error)


@pytest.mark.slow
def test_a_checkpoint_of_another_stage_is_refused(train: Train, encoded: Path, tmp_path: Path) -> None:
    """The folder of a run of teacher forcing is no place for a distillation; the model of that run can be rendered."""
    text = 'base = "{base}"\n{more}\nblocks = 3\nfilms = 55\nvalidation_films = 5\n[trainer]\nsteps = 2'
    assert train("out", more=f'data = "{encoded}"', kind="ar", text=text) == (0, "")
    assert load_mini(tmp_path / "out").model.config == TINY_DIT
    code, error = train("out")
    assert code == 2 and "are of stage 'ar', not 'dmd': choose another folder" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "more", "kind", "message"),
    [
        ((), 'data = "empty"', "dmd", "has no shot script (.txt)"),
        ((), 'data = "no.txt"', "dmd", "no.txt"),
        ((), "clip = 2", "dmd", "unknown key 'clip'; did you mean 'clips'?"),
        ((), "lora = 3", "dmd", "'lora' = 3 must be a path in quotes"),
        (("--device", "gpu"), "", "dmd", "'gpu' is no device"),
        ((), "", "vae", "unknown key 'base'"),
        ((), 'data = "empty"', "ar", "has no encoded films (films-00000.safetensors); this command trains on films"),
        ((), "[ar]\nblock_frames = 4", "ar", "'ar.block_frames' must be 8"),
    ],
)
def test_bad_input_is_refused_before_work_starts(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], more: str, kind: str,
    message: str,
) -> None:  # fmt: skip
    """Data, settings and devices that do not fit end the command with code 2 and one line; no folder is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, error = train("out", *words, more=more, kind=kind, text=DMD if kind == "dmd" else 'base = "{base}"\n{more}\n')
    assert code == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_scripts_of_the_world_name_the_hero_once() -> None:
    """A script has 3 to 8 blocks; its first shot describes the hero, later ones do not; only cuts have the prefix."""
    rng = np.random.default_rng(4)
    for pattern in WORLD_PATTERNS:
        plan = world_plan(pattern, rng)
        assert len(plan.blocks) == sum(pattern) and 3 <= len(plan.blocks) <= 8
        assert [block.shot for block in plan.blocks] == [s for s, n in enumerate(pattern) for _ in range(n)]
        for block in plan.blocks:
            text = block.prompt.removeprefix(CUT_PREFIX)
            assert block.cut == (text != block.prompt) == (plan.begins_shot(block) and block.index > 0)
            assert text.startswith("a ") == (block.shot == 0)


def test_batches_of_the_world_depend_on_the_random_numbers_only() -> None:
    """Equal generators give equal batches; the clips of a batch share their cuts, not their prompts."""
    mini = Mini.random(0, vocabulary(), TINY_DIT, TINY_VAE)
    clips = WorldClips(mini.encode_text, "", batch=3)
    one, again, other = (clips.batch(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.prompts.text, again.prompts.text) and one.prompts.cuts == again.prompts.cuts
    assert one.name != other.name
    assert one.prompts.rows.shape == (3, len(one.prompts.cuts))
    assert len({tuple(row) for row in one.prompts.rows.tolist()}) == 3


def test_scripts_are_read_from_a_file_or_a_folder(tmp_path: Path) -> None:
    """A folder gives a film for each script in the order of their names."""
    (tmp_path / "b.txt").write_text("Shot 1 (1 block): a ring\nShot 2 (2 blocks): it waits\n")
    (tmp_path / "a.txt").write_text("Shot 1 (1 block): a box\n")
    assert [len(plan.blocks) for plan in read_plans(tmp_path)] == [1, 3]
    (plan,) = read_plans(tmp_path / "b.txt")
    assert [block.cut for block in plan.blocks] == [False, True, False]
