"""Poison in the memory that an op is to write, so that an element that it leaves out shows up in the comparison."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor

NAN_BITS = 0x7F
"""NaN in E4M3; as two codes of E2M1 it is 6 and −6."""


@contextmanager
def poisoned_allocations() -> Generator[None, None, None]:
    """While this is open, `torch.empty` and its relatives return NaN, or the largest integer."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled: bool = torch.utils.deterministic.fill_uninitialized_memory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ops that are not deterministic, which does not matter here
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        try:
            yield
        finally:
            torch.utils.deterministic.fill_uninitialized_memory = filled
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def poison(tensors: Iterable[Tensor]) -> None:
    """Overwrites results of an earlier run, which an op may write in place and would otherwise seem to have written."""
    for tensor in tensors:
        if tensor.dtype in (torch.uint8, torch.float8_e4m3fn):
            tensor.view(torch.uint8).fill_(NAN_BITS)
        else:
            tensor.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max)
