"""Linear layers that multiply in FP8 with weights that the host loads, offloads and frees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import comfy.ops
import torch
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

from ..longlive_core.model.fp8 import FP8Layer, FP8Linear, FP8Rows, Rows
from .fp8_layout import row_fp8, row_fp8_parts
from .lora_hook import LoraHook

# The name of the weights as a submodule of the first layer that has rows in them.
CHILD = "fp8"


class OnDevice(NamedTuple):
    """Weights where they are multiplied: E4M3 `[N, K]`, scales `[N, 1]` and bias `[N]`."""

    codes: Tensor
    scales: Tensor
    bias: Tensor


class FP8Weights(nn.Module, comfy.ops.CastWeightBiasOp):
    """The weights of one linear layer, or of several with one input, as one matrix of the host.

    The host takes `weight` and `bias` of such a module as a whole: into VRAM, out of it, or through it in each call.

    rows: name of each layer beside the first -> its rows.
    """

    def __init__(self, layers: Mapping[str, FP8Linear], dtype: torch.dtype) -> None:
        """layers: by name, each with a bias. dtype: that of the model."""
        super().__init__()
        self.rows: dict[str, slice] = {}
        for name, layer in layers.items():
            start = sum(other.stop - other.start for other in self.rows.values())
            self.rows[name] = slice(start, start + layer.out_features)
        parts = layers.values()
        codes = torch.cat([layer.get_buffer("values") for layer in parts])
        scales = torch.cat([layer.get_buffer("scales") for layer in parts])
        self.weight = nn.Parameter(row_fp8(codes, scales, dtype), requires_grad=False)
        bias = torch.cat([layer.get_parameter("bias") for layer in parts]).to(dtype)
        self.bias = nn.Parameter(bias, requires_grad=False)

    @contextmanager
    def on(self, device: torch.device, dtype: torch.dtype) -> Iterator[OnDevice]:
        """The weights on a device; the host may move them again afterwards. dtype: of the bias."""
        if self.weight.device == device:
            yield OnDevice(*row_fp8_parts(self.weight), self.bias)
            return
        # In its own dtype the host leaves the weight quantised.
        weight, bias, lent = comfy.ops.cast_bias_weight(
            self, dtype=self.weight.dtype, device=device, bias_dtype=dtype, offloadable=True
        )
        try:
            yield OnDevice(*row_fp8_parts(weight), bias)
        finally:
            comfy.ops.uncast_bias_weight(self, weight, bias, lent)

    def state_dict(
        self, *_: object, destination: dict[str, Any] | None = None, prefix: str = "", **__: object
    ) -> dict[str, Any]:
        """The tensors of each layer by its own name, by which LoRAs and ComfyUI's files know it."""
        found = {} if destination is None else destination
        parent = prefix.removesuffix(f"{CHILD}.").removesuffix(f"{next(iter(self.rows))}.")
        codes, scales = row_fp8_parts(self.weight)
        for name, rows in self.rows.items():
            parts = {"weight": codes[rows], "weight_scale": scales[rows], "bias": self.bias[rows]}
            found.update({f"{parent}{name}.{part}": tensor.detach() for part, tensor in parts.items()})
        return found

    def _load_from_state_dict(self, *_: object) -> None:
        """Does nothing: the weights are there from the beginning."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FP8Weights:  # noqa: ARG002
        """As the host's quantised layers: a quantised tensor does not take other data, but another one its place."""
        for name in ("weight", "bias"):
            value = fn(getattr(self, name))
            if not torch.is_inference_mode_enabled() and value.is_inference():
                value = value.clone()
            setattr(self, name, nn.Parameter(value, requires_grad=False))
        return self


class HostedFP8Linear(FP8Layer):
    """A linear layer with rows of `FP8Weights`. LoRAs beside it are forward hooks, see `LoraHook`."""

    def __init__(self, name: str, weights: FP8Weights) -> None:
        super().__init__()
        self._rows = weights.rows[name]
        self._weights = (weights,)  # a tuple, so that only the first layer has them as a submodule
        self.out_features, self.in_features = self._rows.stop - self._rows.start, weights.weight.shape[1]
        if self._rows.start == 0:
            self.add_module(CHILD, weights)

    @property
    def weight(self) -> QuantizedTensor:
        """The weight `[N, K]`, where the host keeps it."""
        weight = self._weights[0].weight
        codes, scales = row_fp8_parts(weight)
        return row_fp8(codes[self._rows], scales[self._rows], weight.dtype)

    @property
    def bias(self) -> Tensor:
        """The bias `[N]`, where the host keeps it."""
        return self._weights[0].bias.detach()[self._rows]

    @property
    def takes_rows(self) -> bool:
        """See `FP8Layer`. What others have put around the layer gets the input as it is."""
        others = [hook for hook in self._forward_hooks.values() if not isinstance(hook, LoraHook)]
        return "forward" not in vars(self) and not others and not self._forward_pre_hooks

    @property
    def reads_unrounded(self) -> bool:
        """See `FP8Layer`."""
        return bool(self._forward_hooks)

    def forward(self, x: Rows) -> Tensor:
        comfy.ops.run_every_op()
        return self.products(x if isinstance(x, FP8Rows) else FP8Rows.of(x), [self])[0]

    def products(self, rows: FP8Rows, layers: Sequence[FP8Layer]) -> tuple[Tensor, ...]:
        """See `FP8Layer`. Layers that follow each other in the same weights are one product."""
        start, stop = self._rows.start, self._rows.start + sum(layer.out_features for layer in layers)
        follow = [layer for layer in layers if isinstance(layer, HostedFP8Linear) and layer._weights == self._weights]
        if len(follow) < len(layers) or [layer._rows.start for layer in follow] != _starts(start, follow):
            return tuple(layer(rows) for layer in layers)
        with self._weights[0].on(rows.codes.device, rows.dtype) as (codes, scales, bias):
            y = rows.product(codes[start:stop], scales[start:stop], bias[start:stop])
        return y.split([layer.out_features for layer in layers], dim=-1)


def _starts(start: int, layers: Sequence[HostedFP8Linear]) -> list[int]:
    """The first row of each layer where they lie one after another."""
    return [start + sum(layer.out_features for layer in layers[:i]) for i in range(len(layers))]
