"""Text encoder of the embedded model: word embeddings and one transformer layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import category

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNKNOWN = "<unk>"


class TextEncoder(nn.Module):
    """Encodes words of a small vocabulary as embeddings `[L, width]`; ignores punctuation and case.

    Words outside the vocabulary share the embedding of `UNKNOWN`.
    """

    def __init__(self, vocabulary: Sequence[str], width: int = 128, max_words: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.vocabulary = (UNKNOWN, *(word for word in vocabulary if word != UNKNOWN))
        self.max_words, self.heads = max_words, heads
        self._index = {word: i for i, word in enumerate(self.vocabulary)}
        self.words = nn.Embedding(len(self.vocabulary), width)
        self.places = nn.Parameter(0.02 * torch.randn(max_words, width))
        self.norm1, self.norm2, self.norm = (nn.LayerNorm(width) for _ in range(3))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def tokenize(self, text: str) -> list[int]:
        """Returns the index of each word, 0 for unknown words; words after the first `max_words` are dropped."""
        return [self._index.get(word, 0) for word in split_words(text)[: self.max_words]]

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Returns the words of the text that are not in the vocabulary, each once, in order of appearance."""
        return tuple(dict.fromkeys(word for word in _words_of_any_alphabet(text) if word not in self._index))

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encodes P texts as `[P, L, width]`, where L is the length of the longest; padding rows are zero."""
        tokens = [torch.tensor(self.tokenize(text), dtype=torch.long) for text in texts]
        length = max(1, *(len(t) for t in tokens))
        ids = torch.stack([F.pad(t, (0, length - len(t)), value=-1) for t in tokens]).to(self.places.device)
        known = ids >= 0
        x = self.words(ids.clamp(min=0)) + self.places[:length]
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # An empty text has no key, and attention over no keys is NaN. It may attend to padding instead, because its
        # rows are set to zero below.
        visible = known | ~known.any(-1, keepdim=True)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None, None, :])
        x = x + self.proj(h.transpose(1, 2).flatten(2))
        x = x + self.ffn(self.norm2(x))
        return self.norm(x) * known[..., None]

    @torch.inference_mode()
    def encode(self, text: str) -> Tensor:
        """Encodes one text as `[L, width]` without padding; an empty text is one row of zeros."""
        return self([text])[0].clone()


def _words_of_any_alphabet(text: str) -> list[str]:
    """Splits a text into lower-case words at everything that is not a letter, a mark or a digit of any alphabet.

    The vocabulary is ASCII: `split_words` drops the other letters, which is how the model was trained.
    """
    return "".join(sign if category(sign)[0] in "LMN" else " " for sign in text.lower()).split()


def split_words(text: str) -> list[str]:
    """Splits a text into lower-case words at everything that is not an ASCII letter or digit."""
    return re.findall(r"[a-z0-9]+", text.lower())
