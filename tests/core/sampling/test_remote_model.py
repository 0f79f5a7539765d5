"""Films whose model is in other processes, which the program that samples them is not one of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.mini import Mini, load_mini
from longlive.longlive_core.model.linears import linear_layers, takes_fp8
from longlive.longlive_core.parallel import ALONE, RankProcesses, Remote
from longlive.longlive_core.render.shared_model import SharedModel, load_shared
from longlive.longlive_core.sampling import Generation, RemoteModel, RemoteSplitModel, generate
from longlive.longlive_core.script import ShotScript
from safetensors.torch import save_file

pytestmark = pytest.mark.slow

PLAN = ShotScript.parse("Shot 1 (2 blocks): a big red ring sways\nShot 2 (2 blocks): a big red ring rests").plan()
FILMS: list[dict[str, Any]] = [
    {"memory": MemoryConfig(window=24)},
    {"memory": MemoryConfig(window=24, kv_format="nvfp4"), "guidance": 2.0, "negative": "a square"},
    {"memory": MemoryConfig(window=24, kv_format="fp8", relative_rope=True), "seam": "align"},
]


@pytest.fixture(scope="module")
def mini() -> Mini:
    return load_mini()


def in_two_processes(mini: Mini, kind: type[RemoteModel]) -> Iterator[RemoteModel]:
    """LongLive Mini in two processes, which end with the tests."""
    processes = RankProcesses(2, threads=1)
    shared = SharedModel(None, torch.float32, mini.model.config.text_len)
    yield kind(Remote(processes), mini.model.config, torch.float32, load_shared, shared)
    processes.end("the tests are over")
    assert processes.pids == []


@pytest.fixture(scope="module")
def remote(mini: Mini) -> Iterator[RemoteModel]:
    """Two processes that share each block."""
    yield from in_two_processes(mini, RemoteModel)


@pytest.fixture(scope="module")
def split(mini: Mini) -> Iterator[RemoteModel]:
    """Two processes, one for each branch of guidance."""
    yield from in_two_processes(mini, RemoteSplitModel)


def check_film(mini: Mini, remote: RemoteModel, settings: dict[str, Any]) -> None:
    """A film is that of one process, also where one goes on in its middle, and where they go on then."""

    def begin(model: RemoteModel | None) -> Generation:
        rest: dict[str, Any] = {"size": (8, 8), "steps": 2, "seed": 1, "pools": model, **settings}
        return generate(model or mini.model, PLAN, mini.encode_text, **rest)

    whole = [block.latents for block in begin(None)]
    run, there = begin(remote), list[torch.Tensor]()
    for model in (None, remote):
        there.append(next(run).latents)
        state = run.snapshot()
        run = begin(model)
        run.restore(state)
    there += [block.latents for block in run]
    assert all(torch.equal(one, other) for one, other in zip(whole, there, strict=True))
    del run
    remote.rest()


@pytest.mark.parametrize("settings", FILMS, ids=["plain", "guided", "relative"])
def test_a_film_is_that_of_one_process(mini: Mini, remote: RemoteModel, settings: dict[str, Any]) -> None:
    """To the bit, also when one process goes on with the K/V of the others in its middle, and they with its."""
    check_film(mini, remote, settings)


def test_a_process_for_each_branch_of_guidance(mini: Mini, split: RemoteModel) -> None:
    """The film is that of one process, to the bit; one without guidance is refused."""
    check_film(mini, split, FILMS[1])
    with pytest.raises(ValueError, match="guidance 1 has one branch"):
        next(generate(split, PLAN, mini.encode_text, size=(8, 8), steps=2, seed=1, pools=split, **FILMS[0]))


def test_ranks_multiply_in_fp8_where_comfyui_does(mini: Mini, tmp_path: Path) -> None:
    """`fp8 fast` of the loader: a rank reads the floats of the file and rounds the same layers."""
    config = mini.model.config
    told = {"num_heads": config.num_heads, "text_len": config.text_len, "eps": config.eps, "causal": True}
    save_file(mini.model.state_dict(), tmp_path / "mini.safetensors", {"longlive": json.dumps(told)})
    shared = SharedModel(tmp_path / "mini.safetensors", torch.float32, config.text_len)
    for fp8 in (False, True):
        model = load_shared(ALONE, replace(shared, fp8=fp8)).model
        layers = [takes_fp8(layer) for layer in linear_layers(model).values()]
        assert sum(layers) == (60 if fp8 else 0)
