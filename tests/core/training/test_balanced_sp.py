"""Balanced sequence parallelism: a step of teacher forcing that ranks share is the step of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.evaluation.recorded import RecordedRun, relative_error
from longlive.longlive_core.parallel import Ranks
from longlive.longlive_core.training.segments import SegmentOrder, attention_mask
from longlive.longlive_core.training.teacher_forcing import teacher_forced_flow
from torch import Tensor

from ..conftest import Tiny
from ..parallel.ranks import run_ranks

FRAMES, BLOCK = 8, 2


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_the_recorded_step_on_several_ranks(golden: Callable[[str], Path], tmp_path: Path, size: int) -> None:
    """Each rank has the recorded loss and gradient of its share; flow and mean gradients are those of one rank."""
    file = golden("train/balanced_sp")
    tensors = RecordedRun.load(file).tensors
    results = run_ranks(size, "balanced_step", tmp_path, file, None, False)
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
    ((loss, _, _, whole),) = run_ranks(1, "balanced_step", tmp_path, file, mask, False)
    results = run_ranks(2, "balanced_step", tmp_path, file, mask, True)
    assert relative_error(torch.stack([own for own, *_ in results]).mean(), loss) <= 1e-6
    for *_, mean in results:
        for name, expected in whole.items():
            assert relative_error(mean[name], expected) <= 1e-5, name


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
