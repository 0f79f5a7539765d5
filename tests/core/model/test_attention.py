"""The choice of attention on a GPU, with cuDNN's op replaced: a CPU has none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from longlive.longlive_core.model import attention
from longlive.longlive_core.model.attention import cuda_attention, prefers_cudnn, torch_attention
from torch import Tensor
from torch.backends import cuda


def flags() -> tuple[object, ...]:
    """The choice of backends that belongs to the whole process."""
    enabled = (cuda.flash_sdp_enabled, cuda.cudnn_sdp_enabled, cuda.mem_efficient_sdp_enabled, cuda.math_sdp_enabled)
    return (*(read() for read in enabled), tuple(torch._C._get_sdp_priority_order()))


@pytest.fixture
def qkv() -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, 1, 6, 2, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    return q[:, :4], k, v


def test_cudnn_is_called_without_changing_the_choice_of_the_process(
    monkeypatch: pytest.MonkeyPatch, qkv: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Inside the call the backends of the process are those of before, so that threads cannot disturb each other."""
    before, inside = flags(), list[tuple[object, ...]]()

    def fake(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        inside.append(flags())
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    monkeypatch.setattr(attention, "can_use_cudnn_attention", lambda _: True)
    monkeypatch.setattr(attention, "cudnn_attention", fake)
    assert torch.equal(cuda_attention(*qkv), torch_attention(*qkv))
    assert inside == [before] and flags() == before


@pytest.mark.parametrize("takes", [True, False])
def test_cudnn_is_not_called_for_a_gradient_or_for_what_it_does_not_take(
    monkeypatch: pytest.MonkeyPatch, qkv: tuple[Tensor, Tensor, Tensor], takes: bool
) -> None:
    """Training has its backward pass, and what cuDNN refuses goes to PyTorch's choice."""
    monkeypatch.setattr(attention, "can_use_cudnn_attention", lambda _: takes)
    monkeypatch.setattr(attention, "cudnn_attention", lambda *_: pytest.fail("cuDNN was called"))
    q, k, v = qkv
    assert torch.equal(cuda_attention(q.requires_grad_(takes), k, v), torch_attention(q, k, v))


def test_the_op_of_cudnn_takes_these_arguments(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    """The private op still has the signature that it is called with: on `meta` it gives the shape of the queries."""
    q, k, v = (x.transpose(1, 2).to("meta", torch.bfloat16) for x in qkv)
    assert attention.cudnn_attention(q, k, v).shape == q.shape


@pytest.mark.parametrize(
    ("device", "capability", "prefers"),
    [("cpu", (9, 0), False), ("cuda", (8, 9), False), ("cuda", (9, 0), True), ("cuda", (10, 3), True)],
)
def test_hopper_and_blackwell_prefer_cudnn(
    monkeypatch: pytest.MonkeyPatch, device: str, capability: tuple[int, int], prefers: bool
) -> None:
    """Ada and consumers' Blackwell keep the host's choice."""
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(get_device_capability=lambda _: capability))
    assert prefers_cudnn(torch.device(device)) is prefers
