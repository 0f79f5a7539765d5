"""Selects the implementation of an op: Triton's on a GPU where it passes its self-test, eager PyTorch elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache, update_wrapper
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from .samples import SAMPLES

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Choice = Literal["auto", "eager", "triton"]
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# Largest relative L2 difference in the self-test. A miscompiled kernel gives results of another order.
SELF_TEST_TOLERANCE = 1e-2

_choice: ContextVar[Choice] = ContextVar("kernels", default="auto")


class NoBackendError(RuntimeError):
    """The selected implementation cannot run; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What Triton's implementation of an op takes.

    dtypes: of the first tensor. width: the largest last dimension of the first tensor, which one program holds whole.
    """

    dtypes: tuple[torch.dtype, ...] = FLOATS
    width: int | None = None

    def refusal(self, devices: tuple[str, ...], tensors: list[Tensor]) -> str | None:
        """Why an op cannot take these tensors, the main input first, on one of `devices`; None if it can."""
        first = tensors[0]
        if first.device.type not in devices:
            return f"the tensors are on {first.device.type}, but it takes {' or '.join(devices)}"
        if first.dtype not in self.dtypes:
            return f"dtype {first.dtype}, but it takes {', '.join(str(dtype) for dtype in self.dtypes)}"
        if self.width is not None and first.shape[-1] > self.width:
            return f"last dimension {first.shape[-1]}, but it takes at most {self.width}"
        if any(tensor.requires_grad for tensor in tensors) and torch.is_grad_enabled():
            return "a gradient is required, but it has no backward pass"
        return None


@dataclass(frozen=True)
class TritonBackend:
    """The module with Triton's implementations, or None and the reason why Triton cannot be used."""

    module: ModuleType | None
    unavailable: str = ""


@lru_cache(maxsize=1)
def triton_backend() -> TritonBackend:
    """Imports Triton, at the first use of an op on a GPU. A broken installation is returned as a reason, not raised."""
    try:
        return TritonBackend(import_module(".triton", __package__))
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return TritonBackend(None, "Triton is not installed")
    except Exception as error:
        return TritonBackend(None, f"Triton cannot be used ({type(error).__name__}: {error})")


def describe() -> str:
    """One line for a log: which implementations run on this machine, and the reason if it is not Triton."""
    if not torch.cuda.is_available():
        return "kernels: eager (no CUDA device)"
    backend = triton_backend()
    return f"kernels: {'Triton' if backend.module is not None else f'eager ({backend.unavailable})'}"


@contextmanager
def use_backend(choice: Choice) -> Generator[None, None, None]:
    """Selects the backend in the current context. `auto`, the default, is Triton on a GPU if possible, else eager."""
    token = _choice.set(choice)
    try:
        yield
    finally:
        _choice.reset(token)


@dataclass
class Op(Generic[P, R]):
    """An op with two implementations of one name: `eager`, the reference and fallback, and Triton's.

    Triton's is tested on a device before its first use there, with the arguments in `SAMPLES`.
    """

    eager: Callable[P, R]
    limits: Limits
    _self_tests: dict[torch.device, bool] = field(default_factory=dict[torch.device, bool])

    def __post_init__(self) -> None:
        update_wrapper(self, self.eager)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the implementation that `use_backend` selects; by default Triton's on a GPU if it takes the arguments.

        Raises NoBackendError if "triton" is selected and cannot run.
        """
        # torch.compile fuses plain PyTorch itself, and breaks its graph at a selection that it cannot trace.
        if torch.compiler.is_compiling():
            return self.eager(*args, **kwargs)
        choice = _choice.get()
        first: Any = args[0]
        tensor = first if isinstance(first, Tensor) else first[0]
        if choice == "eager" or (choice == "auto" and not tensor.is_cuda):
            return self.eager(*args, **kwargs)
        refusal = self._refusal(tensor, [value for value in args[1:] if isinstance(value, Tensor)])
        if refusal is None:
            with _on(tensor.device):
                return self.triton_op(*args, **kwargs)
        if choice == "auto":
            return self.eager(*args, **kwargs)
        raise NoBackendError(f"{self.name} cannot run: triton: {refusal}. Use use_backend('auto')")

    @property
    def name(self) -> str:
        """The name of both implementations."""
        return self.eager.__name__

    @property
    def triton_op(self) -> Callable[P, R]:
        """Triton's implementation. Raises NoBackendError if Triton cannot be used."""
        backend = triton_backend()
        if backend.module is None:
            raise NoBackendError(f"{self.name} cannot run: triton: {backend.unavailable}")
        return getattr(backend.module, self.name)

    def passes_self_test(self, device: torch.device) -> bool:
        """Whether Triton's implementation agrees with eager on a device. Tested once; a failure is logged once."""
        if device not in self._self_tests:
            fault = self._self_test(device)
            self._self_tests[device] = fault is None
            if fault is not None:
                log.warning("kernel %s falls back to eager on %s: %s", self.name, device, fault)
        return self._self_tests[device]

    def _refusal(self, first: Tensor, others: list[Tensor]) -> str | None:
        """Why Triton's implementation cannot take these tensors; None if it can."""
        backend = triton_backend()
        if backend.module is None:
            return backend.unavailable
        refusal = self.limits.refusal(backend.module.DEVICES, [first, *others])
        if refusal is None and not self.passes_self_test(first.device):
            return f"its self-test failed on {first.device}"
        return refusal

    def _self_test(self, device: torch.device) -> str | None:
        """How Triton's implementation fails or differs from eager on the sample; None if it agrees."""
        try:
            with _on(device):
                results = self._outputs(self.triton_op, device)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        for result, expected in zip(results, self._outputs(self.eager, device), strict=True):
            error = (result - expected).norm() / expected.norm().clamp(min=1e-12)
            if not bool(error <= SELF_TEST_TOLERANCE):
                return f"it differs from eager by {float(error):.1e}"
        return None

    def _outputs(self, implementation: Callable[..., Any], device: torch.device) -> list[Tensor]:
        """The results on the sample in float32, and its tensors after the call, because some ops write in place."""
        args = SAMPLES[self.name](device)
        return [tensor.float() for tensor in _tensors((implementation(*args), args))]


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one: Triton starts kernels there, wherever their tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors in nested tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in cast("tuple[object, ...]", value):
            yield from _tensors(item)
