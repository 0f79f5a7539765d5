"""The Hadamard transform, eager and Triton: its formula, its inverse and refused widths."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest
import torch
from torch import Tensor

SIGNS = torch.tensor([1.0, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, -1])


@pytest.fixture(params=["eager", "triton"])
def hadamard(request: pytest.FixtureRequest) -> ModuleType:
    """One of the backends."""
    if request.param == "triton":
        pytest.importorskip("triton")
    return import_module(f"longlive.kernels.{request.param}.hadamard")


@pytest.fixture
def device(hadamard: ModuleType) -> str:
    return "cuda" if torch.cuda.is_available() and "triton" in hadamard.__name__ else "cpu"


def sylvester() -> Tensor:
    """H[i, j] = (−1)^(number of ones in i & j), float64 `[16, 16]`."""
    return torch.tensor([[(-1.0) ** (i & j).bit_count() for j in range(16)] for i in range(16)], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 16), (33, 144)])
def test_it_is_the_product_with_the_matrix(
    hadamard: ModuleType, device: str, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    """Each group of 16 columns is multiplied by diag(signs) H / 4, in x's dtype, whatever its strides."""
    x = torch.randn(shape[1], shape[0], generator=torch.Generator().manual_seed(0)).to(dtype).t()
    y = hadamard.hadamard16(x.to(device), SIGNS.to(device)).cpu()
    expected = (x.double().unflatten(-1, (-1, 16)) @ (SIGNS.double()[:, None] * sylvester() / 4)).flatten(-2)
    assert (y.dtype, y.shape) == (dtype, x.shape)
    step = 1e-6 if dtype == torch.float32 else 2.0**-8
    torch.testing.assert_close(y.double(), expected, rtol=step, atol=step)


def test_backends_agree_to_the_bit() -> None:
    """Both backends sum in the same order."""
    eager, triton = pytest.importorskip("triton") and (
        import_module(f"longlive.kernels.{name}.hadamard") for name in ("eager", "triton")
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(20, 272, generator=torch.Generator().manual_seed(0))
    assert torch.equal(eager.hadamard16(x, SIGNS), triton.hadamard16(x.to(device), SIGNS.to(device)).cpu())


def test_it_cancels_in_a_product(hadamard: ModuleType, device: str) -> None:
    """The product of two transformed matrices is that of the matrices themselves."""
    a, b = torch.randn(2, 8, 64, generator=torch.Generator().manual_seed(0)).to(device)
    signs = SIGNS.to(device)
    product = hadamard.hadamard16(a, signs) @ hadamard.hadamard16(b, signs).t()
    torch.testing.assert_close(product, a @ b.t(), rtol=1e-4, atol=1e-4)


def test_widths_that_are_not_whole_groups_are_refused(hadamard: ModuleType, device: str) -> None:
    """A row must have whole groups of 16 values."""
    with pytest.raises(ValueError, match="rows of 24 values are not whole groups of 16; pad them with zeros"):
        hadamard.hadamard16(torch.ones(2, 24, device=device), SIGNS.to(device))
