"""Stopping within a part of a batch: at each layer of what is trained, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class StoppedInPart(Exception):
    """A run was stopped before a part of a batch was done."""


@contextmanager
def stops_at_layers(module: nn.Module, should_stop: Callable[[], bool]) -> Generator[None, None, None]:
    """Asks `should_stop` after each innermost layer of a module, and before its gradient; changes no number.

    Raises StoppedInPart out of the pass where it returns true; gradients of a backward pass are incomplete then.
    """

    def check(*_: Any) -> None:  # noqa: ANN401 (hooks of several kinds)
        if should_stop():
            raise StoppedInPart

    def after(_layer: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401 (a layer's own)
        check()
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(check)

    layers = [layer for layer in module.modules() if next(layer.children(), None) is None]
    hooks = [layer.register_forward_hook(after) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
