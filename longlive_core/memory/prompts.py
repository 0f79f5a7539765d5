"""Cross-attention K/V, computed once per prompt and used by every step of its blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..model import KeyValue
from ..model.attention import Attention

TextEncoder = Callable[[str], Tensor]
"""Prompt → embedding, `[L, text_dim]`; in training also `[B, L, text_dim]`, one for each film of the batch."""


@dataclass(frozen=True, slots=True)
class PromptKV:
    """`TextKVCache` of one prompt: K/V of every layer, `[1, text_len, H, D]` if the batch shares them, or `[B, …]`."""

    layers: Sequence[KeyValue]
    attention: Attention

    def attend(self, layer: int, q: Tensor) -> Tensor:
        """See `TextKVCache.attend`."""
        k, v = self.layers[layer]
        batch = q.shape[0]
        return self.attention(q, k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1))


class PromptCache:
    """The prompts of a film. Keeps the embeddings of all prompts, and the K/V of the `capacity` prompts used last.

    encode: called once per distinct prompt. project: embeddings `[1 or B, L, text_dim]` → K/V of every layer; see
    `CausalWan.text_kv`. K/V are limited because those of one prompt take 190 MB in the full model.
    """

    def __init__(
        self,
        encode: TextEncoder,
        project: Callable[[Tensor], Sequence[KeyValue]],
        attention: Attention,
        capacity: int = 2,
    ) -> None:
        self._encode = encode
        self._project = project
        self._attention = attention
        self._capacity = capacity
        self._embeddings: dict[str, Tensor] = {}
        self._kv: OrderedDict[str, PromptKV] = OrderedDict()

    def kv(self, prompt: str) -> PromptKV:
        """K/V of the prompt. Raises ValueError if the encoder does not return what `TextEncoder` says."""
        if prompt not in self._kv:
            embedding = self._embedding(prompt)
            # Evicted before the projection, so that never more than `capacity` prompts are in memory.
            while len(self._kv) >= self._capacity:
                self._kv.popitem(last=False)
            self._kv[prompt] = PromptKV(self._project(embedding), self._attention)
        self._kv.move_to_end(prompt)
        return self._kv[prompt]

    def _embedding(self, prompt: str) -> Tensor:
        """`[1 or B, L, text_dim]`."""
        if prompt not in self._embeddings:
            embedding = self._encode(prompt)
            if embedding.ndim == 2:
                embedding = embedding.unsqueeze(0)
            if embedding.ndim != 3:
                raise ValueError(
                    f"the text encoder returned shape {tuple(embedding.shape)} for one prompt, expected [L, text_dim]"
                )
            self._embeddings[prompt] = embedding
        return self._embeddings[prompt]
