"""A linear layer that trains in NVFP4: its products have quantised operands in the forward and in the backward pass."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ...kernels import NVFP4
from ..parallel import ALONE, Ranks
from .linears import replace_linears
from .nvfp4_products import GROUP, NVFP4Products, NVFP4Settings, Operand, multiply


class RoundingNoise:
    """Random numbers of stochastic rounding, which the layers of a model draw one after another."""

    def __init__(self) -> None:
        self._seed = 0
        self._generators: dict[torch.device, torch.Generator] = {}

    def restart(self, seed: int) -> None:
        """Starts the numbers of a backward pass anew, so that they depend on `seed` only."""
        self._seed = seed
        self._generators.clear()

    def __call__(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Returns numbers in [0, 1), float32 of `shape`."""
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return torch.rand(shape, generator=self._generators[device], device=device)


class NVFP4TrainingLinear(nn.Linear):
    """x Wᵀ + b, `[..., K]` → `[..., N]`, with the weights of a float layer, which stay as they are.

    x, W and b are rounded to bf16, the operands of each product to NVFP4; the output has x's dtype. noise: of the
    stochastic rounding of gradients. enabled: if not, this is the float layer.
    """

    def __init__(self, linear: nn.Linear, products: NVFP4Products, noise: RoundingNoise) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.products, self.noise, self.enabled = products, noise, True
        # Of a weight that does not train: its operands of the output and of the input's gradient, once they are needed.
        self._frozen: dict[bool, Operand] = {}

    def forward(self, input: Tensor) -> Tensor:
        if not self.enabled:
            return super().forward(input)
        # Every linear layer of Wan has a bias.
        parts = (part.bfloat16() for part in (input, self.weight, self.bias))
        return cast("Tensor", _Product.apply(*parts, self)).to(input.dtype)

    def weight_operand(self, weight: Tensor, *, transposed: bool) -> Operand:
        """The quantised weight `[N, K]`, given in bf16, or its transpose."""
        if transposed in self._frozen and not self.weight.requires_grad:
            return self._frozen[transposed]
        operand = self.products.weight(weight.t() if transposed else weight)
        if not self.weight.requires_grad:
            self._frozen[transposed] = operand
        return operand


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, layer: NVFP4TrainingLinear) -> Tensor:  # noqa: ANN401
        operand = layer.products.input(x.flatten(0, -2))
        y = multiply(operand, layer.weight_operand(weight, transposed=False))
        ctx.save_for_backward(*operand.packed[:3], weight)
        ctx.layer, ctx.saved = layer, (operand.packed.denominator, operand.shape, operand.swizzled)
        return (y + bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        dy: Tensor = gradients[0]
        values, scales, amax, weight = ctx.saved_tensors
        denominator, shape, swizzled = ctx.saved
        layer: NVFP4TrainingLinear = ctx.layer
        products, rows = layer.products, dy.flatten(0, -2)
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            left = products.gradient(rows, layer.noise)
            dx = multiply(left, layer.weight_operand(weight, transposed=True)).view(*dy.shape[:-1], weight.shape[1])
        if ctx.needs_input_grad[1]:
            saved = Operand(NVFP4(values, scales, amax, denominator), shape, swizzled).saved_input()
            left = products.gradient(products.over_tokens(rows), layer.noise)
            dw = multiply(left, products.input(products.over_tokens(saved)))
        if ctx.needs_input_grad[2]:
            db = dy
            while db.ndim > 1:
                db = db.sum(0)
        return dx, dw, db, None


def train_in_nvfp4(model: nn.Module, settings: NVFP4Settings, ranks: Ranks = ALONE) -> RoundingNoise:
    """Lets the linear layers of the blocks train in NVFP4, in place; names and weights stay. Returns their noise.

    All other layers stay as they are, as in LongLive 2.0. Raises ValueError for widths that are not multiples of 16,
    for a model without float layers, and for several ranks, each of which would scale its own tokens, before anything
    changes.
    """
    if ranks.size > 1:
        raise ValueError(
            f"{ranks.size} processes that share each film would scale their own tokens by themselves, so that a run "
            "would depend on their number; train in NVFP4 with --sequence 1, or leave 'nvfp4' unset"
        )
    products, noise = NVFP4Products(settings), RoundingNoise()
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if name.startswith("blocks.") and isinstance(layer, nn.Linear)
    }
    if not layers:
        raise ValueError("the model has no float linear layers in its blocks to train in NVFP4; use a bf16 checkpoint")
    for name, layer in layers.items():
        for side, width in (("input", layer.in_features), ("output", layer.out_features)):
            if width % GROUP:
                raise ValueError(
                    f"{name} has {side} width {width}, and NVFP4 needs multiples of {GROUP}; train this model without "
                    "NVFP4"
                )
    replace_linears(
        model, lambda name, _: NVFP4TrainingLinear(layers[name], products, noise) if name in layers else None
    )
    return noise
