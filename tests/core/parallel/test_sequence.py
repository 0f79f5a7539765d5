"""Ranks that share the tokens of a block, over gloo: recorded runs, films, stored K/V, bytes sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.evaluation.recorded import REFERENCE_RUNS, RecordedRun, golden_folder, relative_error
from longlive.longlive_core.mini.config import MINI_DIT
from longlive.longlive_core.parallel import Ranks
from torch import Tensor

from .ranks import run_ranks

WORK = Path(__file__).with_name("sequence_work.py")

LIMIT = 5e-6
SIZES = (1, 2, 4)
WINDOW = {"window": 24}
FILMS: list[dict[str, Any]] = [
    {"name": "plain", "memory": {**WINDOW, "kv_format": "float32"}, "steps": 2},
    {"name": "guided", "memory": {**WINDOW, "kv_format": "nvfp4"}, "steps": 2, "guidance": 2.0, "negative": "a square"},
    {"name": "relative", "memory": {**WINDOW, "kv_format": "fp8", "relative_rope": True}, "steps": 2, "seam": "align"},
]
# Rounding of a KV cache in few bits turns the last bit of a sum into a code that is one further.
LIMITS = {"plain": LIMIT, "guided": 1e-2, "relative": 1e-2}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What each rank of 1, 2 and 4 found, see `work.sequence`. Films go on from the snapshot of the size before."""
    folder = tmp_path_factory.mktemp("sequence")
    results = dict[int, list[dict[str, Any]]]()
    for size, before in zip(SIZES, (0, *SIZES), strict=False):
        paths = recorded_paths() if size > 1 else []
        results[size] = run_ranks(
            size, "sequence", folder, paths, keys_values(), FILMS, FILMS if before else [], file=WORK
        )
    return results


def recorded_paths() -> list[Path]:
    """The recorded films in float32: of the whole set where it is, else of the subset."""
    folder = golden_folder() if golden_folder().is_dir() else REFERENCE_RUNS
    runs = [RecordedRun.load(path) for path in sorted(folder.glob("generate_*.safetensors"))]
    return [run.path for run in runs if run.metadata["run"]["dtype"] == "float32"]


def keys_values() -> Tensor:
    """K/V of two blocks, `[2, B, T, H, D]`, whose heads differ much in size.

    D is a multiple of 32, as in every model: for others PyTorch's mean over tokens sums the last columns in another
    order.
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 9, 6, 32, generator=generator) * torch.logspace(-2, 2, 6)[:, None]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES[1:])
def test_recorded_runs_agree_as_on_one_rank(found: dict[int, list[dict[str, Any]]], size: int) -> None:
    """Every recorded float32 film agrees within the limit of one rank, and each call attends the same frames."""
    for path, result in zip(recorded_paths(), found[size][0]["replayed"], strict=True):
        attended = RecordedRun.load(path).metadata["attended"]
        assert max(result.output_error, *result.call_errors) <= LIMIT, path
        assert [set(seen) for seen in result.attended] == [set(seen) for seen in attended], path


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("size", SIZES[1:])
def test_a_film_is_that_of_one_rank(found: dict[int, list[dict[str, Any]]], size: int, name: str) -> None:
    """A film has the latents of one rank, whole, and gone on with in its middle from another number of ranks."""
    whole, _ = found[1][0]["made"][name]
    made, _ = found[size][0]["made"][name]
    rest, _ = found[size][0]["resumed"][name]
    assert relative_error(made, whole) <= LIMITS[name]
    assert relative_error(rest, whole[:, :, -rest.shape[2] :]) <= LIMITS[name] and rest.shape[2] == 8


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES[1:])
def test_the_stored_kv_have_the_bits_of_one_rank(found: dict[int, list[dict[str, Any]]], size: int) -> None:
    """Codes, scales, amax and means of all ranks together are those of one rank, as after a restore, on each rank."""
    for rank in found[size]:
        for name, tensors in rank["stored"].items():
            for ours, expected in zip(tensors, found[1][0]["stored"][name.split()[0]], strict=True):
                assert ours.shape == expected.shape and ours.dtype == expected.dtype, name
                assert torch.equal(ours.contiguous().view(torch.uint8), expected.contiguous().view(torch.uint8)), name


def bytes_of_a_film(ranks: Ranks) -> tuple[int, int]:
    """The bytes that a rank sends for the film `plain` and its snapshot, and the number of exchanges.

    It sends q, k and v of its tokens for the heads of others, the attention of its heads for the tokens of others, and
    its part of flow and snapshot.
    """
    model, blocks, steps, frames, frame = MINI_DIT, 3, 2, 8, 16
    tokens, heads = frames * ranks.shares(frame)[ranks.rank], ranks.shares(model.num_heads)[ranks.rank]
    out = tokens * (model.num_heads - heads) * model.head_dim
    layer = 3 * out + (frames * frame - tokens) * heads * model.head_dim
    call = model.num_layers * layer + (ranks.size - 1) * tokens * 4 * model.channels
    clean = (model.num_layers - 1) * layer + 2 * out
    snapshot = (ranks.size - 1) * 2 * model.num_layers * 2 * frames * frame * heads * model.head_dim
    exchanges = blocks * (steps * (2 * model.num_layers + 1) + 2 * model.num_layers - 1) + 2 * model.num_layers
    return 4 * (blocks * (steps * call + clean) + snapshot), exchanges


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES[1:])
def test_bytes_and_exchanges_are_those_of_the_formula(found: dict[int, list[dict[str, Any]]], size: int) -> None:
    """What is counted is what the formula says, to the byte."""
    assert found[size][0]["made"]["plain"][1] == bytes_of_a_film(Ranks(size, 0))


@pytest.mark.slow
def test_a_film_that_recalls_a_block_is_that_of_one_rank(tmp_path: Path) -> None:
    """Slots move in the pools of all ranks."""
    (one,) = run_ranks(1, "recalled", tmp_path, file=WORK)
    two, _ = run_ranks(2, "recalled", tmp_path, file=WORK)
    assert relative_error(two, one) <= LIMIT
