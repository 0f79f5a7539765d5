"""Counts what makes the host wait for a GPU. The GPU is `meta`, which computes nothing and is on every machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from longlive.longlive_core import transfer
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
# Ops that return numbers to the host, or tensors whose size the host must know.
READS = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select")


class HostWaits(TorchDispatchMode):
    """Counts, by name, the ops for which a host would wait: reads of device values, and blocking copies either way."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._numbers = _Numbers(self.counts)

    def __enter__(self) -> HostWaits:
        self._numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401
        super().__exit__(*error)
        self._numbers.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs, name = dict(kwargs or {}), func.name().partition(".")[0].removeprefix("aten::")
        if name in READS and args[0].is_meta:
            self.counts[name] += 1
            return True
        if name in ("_to_copy", "to"):  # in inference mode, `to` comes whole
            names = [argument.name for argument in func._schema.arguments]
            return self._copied(func, args, kwargs, dict(zip(names, args, strict=False)) | kwargs)
        if name == "copy_":
            return self._written(func, args, kwargs)
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        return func(*args, **kwargs)

    def _copied(
        self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], values: dict[str, Any]
    ) -> Tensor:
        source, device = cast(Tensor, args[0]), torch.device(values.get("device") or args[0].device)
        if source.device.type == device.type:
            return func(*args, **kwargs)
        if not values.get("non_blocking"):
            self.counts[f"a copy to {device.type}"] += 1
        return torch.zeros(source.shape, dtype=values.get("dtype") or source.dtype, device=device)

    def _written(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        target, source = cast(Tensor, args[0]), cast(Tensor, args[1])
        if target.device.type == source.device.type:
            return func(*args, **kwargs)
        if not (args[2] if len(args) > 2 else kwargs.get("non_blocking")):
            self.counts[f"a copy to {target.device.type}"] += 1
        return target.fill_(1)


class _Numbers(TorchFunctionMode):
    """Counts device tensors that are made of Python numbers: a copy that no dispatcher sees."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and result.is_meta:
            self._counts["a tensor of Python numbers"] += 1
        return result


@pytest.fixture
def meta_gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """`meta` as a GPU whose copies need no waiting; there are no events, so nobody waits for them."""
    for module in ("longlive.longlive_core.transfer", "longlive.longlive_core.sampling.generation"):
        monkeypatch.setattr(f"{module}.ASYNCHRONOUS", ("cuda", "meta"))
    monkeypatch.setattr(transfer, "_end_of_work", lambda _: None)
    return META
