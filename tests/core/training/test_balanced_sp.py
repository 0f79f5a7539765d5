"""Balanced sequence parallelism: a step of teacher forcing that ranks share is the step of one."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from longlive.longlive_core.evaluation.recorded import RecordedRun, relative_error
from longlive.longlive_core.model.nvfp4_products import NVFP4Settings
from longlive.longlive_core.model.nvfp4_training import train_in_nvfp4
from longlive.longlive_core.parallel import Mesh, Ranks
from longlive.longlive_core.training.checkpoint import DiskFullError, disk_errors
from longlive.longlive_core.training.log import TrainingLog
from longlive.longlive_core.training.segments import SegmentOrder, attention_mask
from longlive.longlive_core.training.teacher_forcing import teacher_forced_flow
from torch import Tensor

from ..conftest import Tiny
from ..parallel.ranks import run_ranks, start_ranks
from .toy_ar import train

FRAMES, BLOCK = 8, 2
TOY = Path(__file__).with_name("toy_ar.py")


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_the_recorded_step_on_several_ranks(golden: Callable[[str], Path], tmp_path: Path, size: int) -> None:
    """Each rank has the recorded loss and gradient of its share; flow and mean gradients are those of one rank."""
    file = golden("train/balanced_sp")
    tensors = RecordedRun.load(file).tensors
    results = run_ranks(size, "balanced_step", tmp_path, file, None, False, file=TOY)
    losses = torch.stack([loss for loss, *_ in results])
    assert relative_error(losses, tensors[f"loss.sp{size}"].flatten()) <= 1e-6
    assert relative_error(losses.mean(), tensors["loss"].reshape(())) <= 1e-6
    for rank, (_, flow, own, mean) in enumerate(results):
        assert relative_error(flow.transpose(1, 2), tensors["flow"]) <= 5e-6
        local = {n: g for n, g in tensors.items() if n.startswith(f"local_grad.sp{size}.rank{rank}.")}
        assert local
        for name, expected in local.items():
            assert relative_error(own[name.split(".", 3)[3]], expected) <= 1e-5, name
        for name, expected in tensors.items():
            if name.startswith("grad."):
                assert relative_error(mean[name.removeprefix("grad.")], expected) <= 1e-5, name


@pytest.mark.slow
def test_frames_that_do_not_count_change_no_weight_of_the_others(golden: Callable[[str], Path], tmp_path: Path) -> None:
    """With a mask that leaves ranks unequal counts, loss and mean gradients are those of one rank; also recomputed."""
    file = golden("train/balanced_sp")
    mask = torch.tensor([[0.0, 1, 1, 1, 1, 0, 0, 0]])
    ((loss, _, _, whole),) = run_ranks(1, "balanced_step", tmp_path, file, mask, False, file=TOY)
    results = run_ranks(2, "balanced_step", tmp_path, file, mask, True, file=TOY)
    assert relative_error(torch.stack([own for own, *_ in results]).mean(), loss) <= 1e-6
    for *_, mean in results:
        for name, expected in whole.items():
            assert relative_error(mean[name], expected) <= 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize(("size", "name"), [(2, "dmd_t2v_exit3"), (4, "dmd_t2v_batch2_2steps")])
def test_the_recorded_distillation_on_several_ranks(
    golden: Callable[[str], Path], tmp_path: Path, size: int, name: str
) -> None:
    """Rollout, scores, losses and mean gradients of a distillation that ranks share are the recorded ones."""
    for result in run_ranks(size, "distillation_step", tmp_path, golden(f"train/{name}"), file=TOY):
        assert result.verdict == "ok", result.note


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_order_of_segments_is_that_of_the_mask(ranks: int) -> None:
    """What each segment attends to is what the reference's mask of that many ranks allows."""
    blocks = FRAMES // BLOCK
    order = SegmentOrder.of(blocks, blocks, 1, None, ranks)
    allowed = torch.zeros(2 * blocks, 2 * blocks, dtype=torch.bool)
    clean = order.clean_segments()
    for query, (_, block) in enumerate(order.order):
        for key in (query, *(clean[earlier] for earlier in order.history[block])):
            allowed[query, key] = True
    assert torch.equal(
        allowed.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1), attention_mask(FRAMES, BLOCK, 1, ranks)
    )


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_ranks_have_equal_work(ranks: int) -> None:
    """Each rank has as many clean and as many noisy blocks, in its own place of the film."""
    order = SegmentOrder.of(8, 8, 2, None, ranks).order
    for rank, own in enumerate(torch.arange(8).chunk(ranks)):
        held = order[rank * len(order) // ranks : (rank + 1) * len(order) // ranks]
        assert sorted(held) == sorted((stream, int(block)) for stream in (-1, 0, 1) for block in own)


def test_what_ranks_cannot_share_is_refused(tiny: Tiny) -> None:
    """Blocks that do not split evenly, and K/V whose scale each rank would choose, are named with a remedy."""
    with pytest.raises(ValueError, match="6 blocks do not split evenly on 4 ranks; use a multiple of 4"):
        SegmentOrder.of(6, 6, 1, None, 4)
    x = torch.zeros(1, 48, FRAMES, 4, 6)
    text: Tensor = torch.zeros(1, tiny.model.config.text_len, tiny.model.config.text_dim)
    with pytest.raises(ValueError, match=r"rounded to nvfp4 .*train with one rank, or without a format"):
        teacher_forced_flow(
            tiny.model,
            x,
            x[:, None],
            torch.zeros(1, 1, FRAMES),
            text,
            torch.zeros(1, 4, dtype=torch.int64),
            torch.arange(FRAMES),
            BLOCK,
            kv_format="nvfp4",
            ranks=Ranks(2),
        )


def trained(size: int, folder: Path, run: Path, sequence: int, steps: int, shard: bool) -> dict[str, Tensor]:
    """The weights of a toy run, which are the same on all ranks."""
    results = run_ranks(size, "train", folder, run, sequence, steps, shard, file=TOY)
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())
    return results[0]


def difference(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative error of a weight."""
    assert weights.keys() == expected.keys()
    return max(relative_error(weights[name], value) for name, value in expected.items())


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """The folder and the weights of a toy run of one process."""
    folder = tmp_path_factory.mktemp("one")
    return folder, train(Mesh(), folder, folder / "run", 1, 4, False)


@pytest.mark.slow
def test_a_run_of_several_ranks_trains_the_weights_of_one(tmp_path: Path, one: tuple[Path, dict[str, Tensor]]) -> None:
    """Two ranks a film, or two groups of them, sharded: weights, averages and losses are those of one process."""
    folder, weights = one
    for name, size, sequence, shard in (("two", 2, 2, False), ("four", 4, 2, True)):
        (tmp_path / name).mkdir()
        assert (
            difference(trained(size, tmp_path / name, tmp_path / name / "run", sequence, 4, shard), weights) <= 1e-5
        ), name
        for line, expected in zip(
            TrainingLog(tmp_path / name / "run").lines(), TrainingLog(folder / "run").lines(), strict=True
        ):
            assert line.keys() == expected.keys()
            for key in line.keys() & {"model.loss", "model.norm", "validation.validation"}:
                assert line[key] == pytest.approx(expected[key], rel=1e-5), (name, key)


@pytest.mark.slow
def test_a_sharded_run_goes_on_with_another_number_of_ranks(
    tmp_path: Path, one: tuple[Path, dict[str, Tensor]]
) -> None:
    """Stopped after two steps on four ranks, a run goes on with two, and with one, and ends in the same weights."""
    trained(4, tmp_path, tmp_path / "run", 4, 2, True)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert difference(trained(2, tmp_path, tmp_path / "copy", 2, 4, True), one[1]) <= 1e-5
    assert difference(train(Mesh(), tmp_path, tmp_path / "run", 1, 4, False), one[1]) <= 1e-5


@pytest.mark.slow
@pytest.mark.linux
@pytest.mark.parametrize("kill_at", [0, 5])
def test_a_rank_that_is_killed_ends_the_others(
    tmp_path: Path, one: tuple[Path, dict[str, Tensor]], kill_at: int
) -> None:
    """Killed at any batch, a rank takes the others with it in seconds; the run goes on and ends in the same weights."""
    ranks = start_ranks(2, "train", tmp_path, tmp_path / "run", 2, 4, True, kill_at, file=TOY)
    try:
        ranks[1].join(60)
        assert ranks[1].exitcode == -signal.SIGKILL
        ranks[0].join(10)
        assert ranks[0].exitcode == 1, "the other rank waits for a dead one"
    finally:
        for process in ranks:
            process.kill()
    (tmp_path / "again").mkdir()
    assert difference(trained(2, tmp_path / "again", tmp_path / "run", 2, 4, True), one[1]) <= 1e-5


def test_ranks_do_not_train_in_nvfp4(tiny: Tiny) -> None:
    """Each rank would scale its own tokens, so that a run would depend on their number; nothing changes."""
    before = {name: type(module) for name, module in tiny.model.named_modules()}
    with pytest.raises(ValueError, match=r"2 processes that share each film .*train in NVFP4 with --sequence 1"):
        train_in_nvfp4(tiny.model, NVFP4Settings(), Ranks(2))
    assert {name: type(module) for name, module in tiny.model.named_modules()} == before


def test_a_process_that_is_gone_is_no_full_disk(tmp_path: Path) -> None:
    """What a collective raises passes; a stream that takes no more bytes is a full disk."""
    with pytest.raises(dist.DistNetworkError, match="closed by peer"), disk_errors(tmp_path, 1):
        raise dist.DistNetworkError("closed by peer")
    with pytest.raises(DiskFullError, match="free disk space"), disk_errors(tmp_path, 1):
        raise RuntimeError("unexpected pos 0 vs 1")
