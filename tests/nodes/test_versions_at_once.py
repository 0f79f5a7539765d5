"""Versions of a shot that the node samples at once: as many as fit, each as it is alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from longlive.longlive_core.film.film_batch import FilmBatch
from longlive.longlive_core.film.sampler_settings import SamplerSettings
from longlive.longlive_core.film.shot_versions import ShotVersions
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.take import Take
from longlive.longlive_core.types import LatentShape
from safetensors.torch import load_file
from torch import Tensor

from .fake_host import fake_host

SCRIPT = "Shot 1 (1 block): one\nShot 2 (2 blocks): two\nShot 3 (1 block): three\n"
SETTINGS: dict[str, Any] = {
    "fps": 24,
    "block_frames": 2,
    "seed": 0,
    "size": "64x96",
    "window": 8,
    "sink": 2,
    "steps": 2,
}
CONFIG = WanConfig(dim=64, ffn_dim=128, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, text_len=5, channels=4)
FREE = 1 << 40


@pytest.fixture(scope="module")
def model() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(CONFIG).requires_grad_(False)


@pytest.fixture
def spec(model: CausalWan, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The spec of a film whose model the host runs as it is."""
    model.attention = torch_attention  # type: ignore[assignment]
    with fake_host() as load:
        module = load("longlive.nodes.film_spec")
        monkeypatch.setattr(module, "HostedModel", lambda patcher, _: patcher.model.diffusion_model)
        inner = SimpleNamespace(diffusion_model=model, get_dtype_inference=lambda: torch.float32)
        settings = SamplerSettings((4, 6), MemoryConfig(window=8, sink=2, kv_format="float32"), steps=2)
        lock = SimpleNamespace(free_vram=lambda: None, released=nullcontext)
        text = {prompt: torch.randn(3, 16, generator=torch.Generator().manual_seed(len(prompt))) for prompt in PROMPTS}
        plan = ShotScript.parse(SCRIPT).plan(24, 2)
        yield module.FilmSpec(
            SimpleNamespace(model=inner, get_attachment=lambda _: None),
            text,
            plan,
            LatentShape(1, 4, 2, 4, 6),
            settings,
            lock,
        )


PROMPTS = tuple(dict.fromkeys(block.prompt for block in ShotScript.parse(SCRIPT).plan(24, 2).blocks))


def versions(spec: Any, folder: Path, at_once: int, stop: Callable[[], bool] | None = None) -> tuple[Take, list[int]]:  # noqa: ANN401
    """The take after three versions of the second shot, and how many films each step sampled."""
    if not folder.is_dir():
        Take.new(folder, ShotScript.parse(SCRIPT), SETTINGS, {}).save()
    sizes, batch = list[int](), FilmBatch(spec, at_once)
    several = ShotVersions(Take.load(folder), 2, 3)
    for _, film in several.films(spec, prepare=lambda film: batch.add(film, spec.settings.noise_source)):
        list(film.run(lambda _: sizes.append(at_once), stop))
    return Take.load(folder), sizes


def latents(take: Take) -> dict[str, Tensor]:
    return {
        str(path.relative_to(take.folder)): load_file(path)["latents"] for path in take.folder.rglob("*.safetensors")
    }


def test_versions_at_once_are_those_made_alone(spec: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """To the bit; three at once take a third of the steps of the shot."""
    (alone, steps), (together, fewer) = (versions(spec, tmp_path / f"{n}.take", n) for n in (1, 3))
    one, three = latents(alone), latents(together)
    assert one.keys() == three.keys() and all(torch.equal(one[name], three[name]) for name in one)
    assert len(one) >= 7 and (len(steps), len(fewer)) == (2 * (1 + 3 * 2), 2 * 3)


def test_a_cancel_keeps_the_finished_blocks_of_all(spec: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """Cancelled in the second block of the shot: each version has its first; the next run makes the rest."""
    calls = iter(range(100))
    stopped, _ = versions(spec, tmp_path / "film.take", 3, lambda: next(calls) > 6)
    counts = [stopped.block_count(1, version) for version in range(len(stopped.shots[1].versions))]
    assert counts == [1, 1, 1]
    whole, _ = versions(spec, tmp_path / "film.take", 3)
    alone, _ = versions(spec, tmp_path / "alone.take", 1)
    assert all(torch.equal(latents(whole)[name], latents(alone)[name]) for name in latents(alone))


def test_the_planner_says_how_many(spec: Any) -> None:  # noqa: ANN401
    """As many as the free memory holds, and at least one."""
    two = spec.at_once(2, 4, FREE).needed
    assert [spec.at_once(4, 4, free).fits for free in (FREE, two, two - 1, 0)] == [4, 2, 1, 1]


def test_quantised_weights_are_run_one_by_one(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    """The host may round the activations of all films with one scale (W4A4)."""
    assert not spec.rounds_together
    kind = type(spec.model.model.diffusion_model.head.modulation)
    monkeypatch.setitem(type(spec).rounds_together.fget.__globals__, "QuantizedTensor", kind)
    assert spec.rounds_together and spec.at_once(4, 4, FREE).fits == 1
