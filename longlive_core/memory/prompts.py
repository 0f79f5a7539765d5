"""Cross-attention keys and values, computed once per prompt and shared by every step of its blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..model import KeyValue
from ..model.attention import Attention

TextEncoder = Callable[[str], Tensor]


@dataclass(frozen=True, slots=True)
class PromptKV:
    """`TextKVCache` of one prompt: K/V of every layer, `[1, text_len, H, D]`, shared by the batch."""

    layers: tuple[KeyValue, ...]
    attention: Attention

    def attend(self, layer: int, q: Tensor) -> Tensor:
        k, v = self.layers[layer]
        batch = q.shape[0]
        return self.attention(q, k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1))


class PromptCache:
    """Prompts of a film. Text is encoded once per distinct prompt; K/V are kept for the `keep` used last.

    encode: prompt → `[L, text_dim]`. The embeddings are kept as they came (they are small, and usually the caller
    holds them anyway); K/V of one prompt take 190 MB in the full model, so that old ones go.
    """

    def __init__(
        self,
        encode: TextEncoder,
        project: Callable[[Tensor], tuple[KeyValue, ...]],
        attention: Attention,
        keep: int = 2,
    ) -> None:
        self._encode = encode
        self._project = project
        self._attention = attention
        self._keep = keep
        self._embeddings: dict[str, Tensor] = {}
        self._keys: OrderedDict[str, PromptKV] = OrderedDict()

    def keys(self, prompt: str) -> PromptKV:
        """K/V of the prompt. Raises ValueError if the encoder does not return `[L, text_dim]`."""
        if prompt not in self._keys:
            embedding = self._embedding(prompt)
            while len(self._keys) >= self._keep:
                self._keys.popitem(last=False)
            self._keys[prompt] = PromptKV(self._project(embedding.unsqueeze(0)), self._attention)
        self._keys.move_to_end(prompt)
        return self._keys[prompt]

    def _embedding(self, prompt: str) -> Tensor:
        if prompt not in self._embeddings:
            embedding = self._encode(prompt)
            if embedding.ndim != 2:
                raise ValueError(f"text encoder returned {tuple(embedding.shape)} for one prompt, not [L, text_dim]")
            self._embeddings[prompt] = embedding
        return self._embeddings[prompt]
