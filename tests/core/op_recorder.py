"""A stand-in for a CUDA graph on the CPU: it records the ops of a function and runs them again on the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .host_waits import READS


class Recorded(TorchDispatchMode):
    """The ops of a function with their arguments. As in a CUDA graph, Python numbers stay what they were."""

    def __init__(self) -> None:
        super().__init__()
        self._ops: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs, name = kwargs or {}, func.name().partition(".")[0].removeprefix("aten::")
        if name in READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        given = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write and argument.name in given:
                self._before.append((given[argument.name], given[argument.name].clone()))
        results = func(*args, **kwargs)
        self._ops.append((func, args, kwargs, results))
        return results

    def undo(self) -> None:
        """Gives tensors back what they held before the function ran: a CUDA graph is recorded without running."""
        for tensor, value in reversed(self._before):
            tensor.copy_(value)
        self._before.clear()

    def replay(self) -> None:
        """Runs the ops in their order. A result is written to where it was, unless it shares memory with arguments."""
        for func, args, kwargs, before in self._ops:
            memory = {_memory(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            for target, source in zip(tree_leaves(before), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(target, Tensor) and target.numel() and _memory(target) not in memory:
                    target.copy_(source)


class Recorder:
    """A `Capture` that records ops. captured: the number of functions so far, replayed: how often they ran again."""

    def __init__(self) -> None:
        self.captured, self.replayed = 0, 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        recorded = Recorded()
        try:
            with recorded:
                work()
        finally:
            recorded.undo()
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            recorded.replay()

        return replay


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
