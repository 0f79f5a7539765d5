"""The loss of flow matching: weights of frames, frames that do not count, and the denominator."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.training.losses import flow_loss, frame_losses, mean_over_frames


def test_a_frame_is_the_weighted_mean_of_its_squares() -> None:
    """The loss of a frame is its weight times the mean over channels and cells, in float32 for bfloat16 flows."""
    flow = torch.zeros(1, 2, 2, 1, 2, dtype=torch.bfloat16)
    target = torch.zeros(1, 2, 2, 1, 2)
    target[0, :, 1] = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    losses = frame_losses(flow, target, torch.tensor([[5.0, 0.5]]))
    assert losses.dtype == torch.float32
    assert losses.tolist() == [[0.0, 0.5 * (1 + 4 + 9) / 4]]


def test_without_a_mask_the_loss_is_the_mean_over_frames() -> None:
    """All frames of all films count alike."""
    assert float(mean_over_frames(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))) == 3.0


@pytest.mark.parametrize(
    ("mask", "expected"),
    [([0, 1, 1, 1], (2 + 3 + 6) / 3), ([0, 0, 0, 1], 6.0), ([0, 0, 0, 0], 0.0), ([0, 0, 0.5, 0], 1.5)],
)
def test_masked_frames_leave_the_denominator_too(mask: list[float], expected: float) -> None:
    """The sum over the frames that count is divided by their number, and by 1 if there are fewer."""
    assert float(mean_over_frames(torch.tensor([[1.0, 2.0, 3.0, 6.0]]), torch.tensor([mask]))) == pytest.approx(
        expected
    )


def test_a_masked_frame_may_hold_anything() -> None:
    """A frame that does not count changes neither the loss nor a gradient, even if it is NaN."""
    flow = torch.tensor([[torch.nan, 3.0]]).reshape(1, 1, 2, 1, 1).requires_grad_()
    loss = flow_loss(flow, torch.ones(1, 1, 2, 1, 1), torch.ones(1, 2), torch.tensor([[0, 1]]))
    loss.backward()
    assert loss.item() == 4.0
    assert flow.grad is not None and float(flow.grad.flatten()[1]) == 4.0
