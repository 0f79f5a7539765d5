"""Convolutions by cuDNN's op, which is replaced: a CPU has none."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.vae import convolution as module
from longlive.longlive_core.vae.convolution import convolution, takes_cudnn
from torch import Tensor
from torch.nn import functional as F


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("biased", [False, True])
def test_cudnn_tries_its_algorithms_and_the_process_keeps_its_flag(
    monkeypatch: pytest.MonkeyPatch, dims: int, biased: bool
) -> None:
    """The op is told so by an argument and gets all of the convolution but its bias."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, *[6] * dims, generator=generator)
    weight, bias = torch.randn(5, 4, *[3] * dims, generator=generator), torch.randn(5, generator=generator)
    stride, padding = (2, *[1] * (dims - 1)), (0, *[1] * (dims - 1))
    expected = (F.conv2d, F.conv3d)[dims - 2](x, weight, bias if biased else None, stride, padding)
    flags: list[bool] = []

    def op(x: Tensor, weight: Tensor, padding: tuple[int, ...], stride: tuple[int, ...], *rest: object) -> Tensor:
        flags.append(torch.backends.cudnn.benchmark)
        assert rest == ([1] * dims, 1, True, False, torch.backends.cudnn.allow_tf32)
        return torch.convolution(x, weight, None, stride, padding, [1] * dims, False, [0] * dims, 1)

    names = [argument.name for argument in torch.ops.aten.cudnn_convolution.default._schema.arguments]  # pyright: ignore[reportPrivateUsage]
    assert names[:4] == ["self", "weight", "padding", "stride"] and names[6:] == [
        "benchmark",
        "deterministic",
        "allow_tf32",
    ]
    monkeypatch.setattr(module, "takes_cudnn", lambda *_: True)
    monkeypatch.setattr(torch.ops.aten, "cudnn_convolution", op)
    torch.testing.assert_close(convolution(x, weight, bias if biased else None, stride, padding), expected)
    assert flags == [False] and not torch.backends.cudnn.benchmark


class OnGPU:
    """What `takes_cudnn` reads of a tensor on a GPU."""

    is_cuda, requires_grad = True, False


@pytest.mark.parametrize("change", [None, "deterministic", "disabled", "gradient", "amd"])
def test_pytorch_convolves_where_the_choice_is_not_ours(monkeypatch: pytest.MonkeyPatch, change: str | None) -> None:
    """Deterministic algorithms, cuDNN turned off, training and AMD's library keep PyTorch's own path."""
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "is_acceptable", lambda _: True)
    monkeypatch.setattr(torch.version, "hip", "6.4" if change == "amd" else None)
    x = OnGPU()
    x.requires_grad = change == "gradient"
    with cudnn.flags(enabled=change != "disabled", deterministic=change == "deterministic"):
        assert takes_cudnn(x, x) is (change is None)  # pyright: ignore[reportArgumentType]


def test_a_cpu_has_no_cudnn() -> None:
    """Nothing of cuDNN is called there."""
    assert not takes_cudnn(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1))
