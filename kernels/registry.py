"""Which implementation of an op runs: Triton's on a GPU that passes its self-test, the eager twin everywhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache, update_wrapper
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Choice = Literal["auto", "eager", "triton"]
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# Relative L2 between the twins on the self-test's sample; a miscompiled kernel is off by its whole value.
SELF_TEST_TOLERANCE = 1e-2

_choice: ContextVar[Choice] = ContextVar("kernels", default="auto")


class NoBackendError(RuntimeError):
    """No implementation takes these arguments; the message holds every backend's refusal."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What Triton's twin of an op takes. width: of the first tensor's last dimension, which one program holds whole."""

    dtypes: tuple[torch.dtype, ...] = FLOATS
    width: int | None = None

    def refusal(self, devices: tuple[str, ...], tensors: list[Tensor]) -> str | None:
        """Why these arguments cannot be taken, None if they can. The first tensor is the one the op works on."""
        first = tensors[0]
        if first.device.type not in devices:
            return f"tensors are on {first.device.type}, it takes {' or '.join(devices)}"
        if first.dtype not in self.dtypes:
            return f"dtype {first.dtype}, it takes {', '.join(str(dtype) for dtype in self.dtypes)}"
        if self.width is not None and first.shape[-1] > self.width:
            return f"last dimension {first.shape[-1]}, it takes up to {self.width}"
        if any(tensor.requires_grad for tensor in tensors) and torch.is_grad_enabled():
            return "a gradient is asked for, it has none"
        return None


@dataclass(frozen=True)
class TritonBackend:
    """Triton's twins, or why there are none."""

    module: ModuleType | None
    unavailable: str = ""

    @property
    def devices(self) -> tuple[str, ...]:
        return () if self.module is None else self.module.DEVICES


@lru_cache(maxsize=1)
def triton_backend() -> TritonBackend:
    """Imports Triton at the first use of an op on a GPU. A broken installation is reported, not raised."""
    try:
        return TritonBackend(import_module(".triton", __package__))
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return TritonBackend(None, "Triton is not installed")
    except Exception as error:
        return TritonBackend(None, f"Triton cannot be used ({type(error).__name__}: {error})")


def describe() -> str:
    """One line for a log: which implementations run on this machine, and why."""
    if not torch.cuda.is_available():
        return "kernels: eager (no CUDA device)"
    backend = triton_backend()
    return f"kernels: {'Triton' if backend.module is not None else f'eager ({backend.unavailable})'}"


@contextmanager
def use_backend(choice: Choice) -> Generator[None, None, None]:
    """Inside, ops of this thread run on the backend named; `auto` is the default everywhere."""
    token = _choice.set(choice)
    try:
        yield
    finally:
        _choice.reset(token)


@dataclass
class Op(Generic[P, R]):
    """An op under one name: `eager` is its reference, and what runs where Triton's twin does not.

    sample: runs an implementation on small made-up tensors of a device, for the self-test on first use.
    """

    eager: Callable[P, R]
    limits: Limits
    sample: Callable[[Callable[P, R], torch.device], tuple[Tensor, ...]]
    _self_tests: dict[torch.device, bool] = field(default_factory=dict[torch.device, bool])

    def __post_init__(self) -> None:
        update_wrapper(self, self.eager)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():  # the compiler fuses plain torch itself, and cannot see through a choice
            return self.eager(*args, **kwargs)
        choice = _choice.get()
        first: Any = args[0]
        tensor = first if isinstance(first, Tensor) else first[0]
        if choice == "eager" or (choice == "auto" and not tensor.is_cuda):
            return self.eager(*args, **kwargs)
        refusal = self._refusal(tensor, [value for value in args[1:] if isinstance(value, Tensor)])
        if refusal is None:
            return self.triton_op(*args, **kwargs)
        if choice == "auto":
            return self.eager(*args, **kwargs)
        raise NoBackendError(
            f"{self.name} cannot run: triton: {refusal}; eager: not asked for. Use use_backend('auto')"
        )

    @property
    def name(self) -> str:
        return self.eager.__name__

    @property
    def triton_op(self) -> Callable[P, R]:
        """Triton's implementation. Raises NoBackendError where there is no Triton."""
        backend = triton_backend()
        if backend.module is None:
            raise NoBackendError(f"{self.name} cannot run: triton: {backend.unavailable}")
        return getattr(backend.module, self.name)

    def _refusal(self, first: Tensor, others: list[Tensor]) -> str | None:
        backend = triton_backend()
        if backend.module is None:
            return backend.unavailable
        refusal = self.limits.refusal(backend.devices, [first, *others])
        if refusal is None and not self.passes_self_test(first.device):
            return f"its self-test failed on {first.device}"
        return refusal

    def passes_self_test(self, device: torch.device) -> bool:
        """Whether Triton's twin agrees with the eager one on this device: tried once, a failure is logged once."""
        if device not in self._self_tests:
            fault = self._fault(device)
            self._self_tests[device] = fault is None
            if fault is not None:
                log.warning("kernel %s falls back to eager on %s: %s", self.name, device, fault)
        return self._self_tests[device]

    def _fault(self, device: torch.device) -> str | None:
        try:
            made = self.sample(self.triton_op, device)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        wanted = self.sample(self.eager, device)
        for got, want in zip(made, wanted, strict=True):
            error = (got.float() - want.float()).norm() / want.float().norm().clamp(min=1e-12)
            if not bool(error <= SELF_TEST_TOLERANCE):
                return f"it differs from eager by {float(error):.1e}"
        return None
