"""Changes of one linear layer: LoRA and DoRA, LoHa, LoKr, and a whole difference of its weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]


class LayerChange(ABC):
    """A change of a weight `[out, in]`: W + strength · change(W)."""

    __slots__ = ()
    kind = "LoRA"

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Shape [out, in] of the layer's weight."""

    @property
    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """All tensors of the change."""

    @abstractmethod
    def change(self, weight: Tensor) -> Tensor:
        """What is added to `weight` at strength 1, in its dtype and on its device; the dtype is float32 or float64."""

    @abstractmethod
    def comfy_parts(self) -> dict[str, Tensor]:
        """The tensors of the change by the endings that ComfyUI's loader reads; none for DoRA, which it computes from
        another norm.
        """

    def merged(self, weight: Tensor, strength: float) -> Tensor:
        """Returns the changed weight; the sum is made in float32, or in float64 for a float64 weight."""
        exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
        return (exact + strength * self.change(exact)).to(weight.dtype)


@dataclass(frozen=True, slots=True)
class LoraLayer(LayerChange):
    """alpha / rank · up @ down: down `[rank, in]`, up `[out, rank]`.

    magnitude: with DoRA, the norm that the changed weight has for each output `[out, 1]` or input `[1, in]`.
    """

    down: Tensor
    up: Tensor
    alpha: float
    magnitude: Tensor | None = None

    @property
    def kind(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """DoRA or LoRA."""
        return "LoRA" if self.magnitude is None else "DoRA"

    @property
    def rank(self) -> int:
        """Rank of the update."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, int]:
        return self.up.shape[0], self.down.shape[1]

    @property
    def tensors(self) -> list[Tensor]:
        return [self.down, self.up, torch.tensor(self.alpha), *([] if self.magnitude is None else [self.magnitude])]

    def change(self, weight: Tensor) -> Tensor:
        product = self._product(weight)
        return product if self.magnitude is None else self.dora_scales(weight) * (weight + product) - weight

    def dora_scales(self, weight: Tensor) -> Tensor:
        """What a DoRA multiplies `weight` + up @ down by, `[out, 1]` or `[1, in]`: the magnitude over its norm."""
        if self.magnitude is None:
            raise ValueError("this LoRA has no magnitudes: it is no DoRA")
        dim = 1 if self.scales_outputs else 0
        return self.magnitude.to(weight) / (weight + self._product(weight)).norm(dim=dim, keepdim=True)

    @property
    def scales_outputs(self) -> bool:
        """Whether a DoRA has a magnitude for each output, and not for each input."""
        return self.magnitude is not None and self.magnitude.shape[0] == self.shape[0]

    def _product(self, like: Tensor) -> Tensor:
        return self.scale * (self.up.to(like) @ self.down.to(like))

    def comfy_parts(self) -> dict[str, Tensor]:
        if self.magnitude is not None:
            return {}
        return {"lora_A.weight": self.down, "lora_B.weight": self.up, "alpha": torch.tensor(self.alpha)}


@dataclass(frozen=True, slots=True)
class LycorisLayer(LayerChange):
    """A change whose tensors have the names of LyCORIS, which ComfyUI's loader reads too."""

    parts: Parts
    alpha: float

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.parts.values(), torch.tensor(self.alpha)]

    def comfy_parts(self) -> dict[str, Tensor]:
        return {**self.parts, "alpha": torch.tensor(self.alpha)}


@dataclass(frozen=True, slots=True)
class LohaLayer(LycorisLayer):
    """alpha / rank · (w1_a @ w1_b) ∘ (w2_a @ w2_b); w1_a `[out, rank]`, w1_b `[rank, in]`."""

    kind = "LoHa"

    @property
    def rank(self) -> int:
        """Rank of the two products."""
        return self.parts["hada_w1_b"].shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.parts["hada_w1_a"].shape[0], self.parts["hada_w1_b"].shape[1]

    def change(self, weight: Tensor) -> Tensor:
        a, b, c, d = (self.parts[f"hada_{name}"].to(weight) for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
        return (self.alpha / self.rank) * (a @ b) * (c @ d)


@dataclass(frozen=True, slots=True)
class LokrLayer(LycorisLayer):
    """w1 ⊗ w2. Either may be a product a @ b, which is scaled by alpha / rank."""

    kind = "LoKr"

    @property
    def rank(self) -> int:
        """Rank of the product; where both are products, that of w2, as in ComfyUI; 0 without one."""
        factor = self.parts.get("lokr_w2_b", self.parts.get("lokr_w1_b"))
        return 0 if factor is None else factor.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        (rows, columns), (height, width) = self._size("lokr_w1"), self._size("lokr_w2")
        return rows * height, columns * width

    def change(self, weight: Tensor) -> Tensor:
        product = torch.kron(self._factor("lokr_w1", weight), self._factor("lokr_w2", weight))
        return product * (self.alpha / self.rank if self.rank else 1.0)

    def _size(self, name: str) -> tuple[int, int]:
        whole = self.parts.get(name)
        height, width = (whole.shape[0], whole.shape[1]) if whole is not None else (
            self.parts[f"{name}_a"].shape[0], self.parts[f"{name}_b"].shape[1],
        )  # fmt: skip
        return height, width

    def _factor(self, name: str, like: Tensor) -> Tensor:
        if name in self.parts:
            return self.parts[name].to(like)
        return self.parts[f"{name}_a"].to(like) @ self.parts[f"{name}_b"].to(like)


@dataclass(frozen=True, slots=True)
class WholeLayer(LayerChange):
    """The difference of the whole weight `[out, in]`."""

    difference: Tensor
    kind = "whole"

    @property
    def shape(self) -> tuple[int, int]:
        return self.difference.shape[0], self.difference.shape[1]

    @property
    def tensors(self) -> list[Tensor]:
        return [self.difference]

    def change(self, weight: Tensor) -> Tensor:
        return self.difference.to(weight)

    def comfy_parts(self) -> dict[str, Tensor]:
        return {"diff": self.difference}
