"""CausalWan: the Wan2.2 transformer, applied to one block of latent frames at a time."""

from __future__ import annotations

from math import prod
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..parallel import ALONE, Ranks
from .config import WanConfig
from .kv_cache import KeyValue, KVCache, TextKVCache
from .layers import Head, Layer, Ops, two_linears
from .rope import Rope, frequencies, rope_angles
from .sequence import SequenceKV, own_tokens, whole_tokens


class RunLayer(Protocol):
    """Runs one layer of the transformer on its inputs: `call_layer`, or training's recomputation of activations."""

    def __call__(
        self, layer: nn.Module, x: Tensor, e: Tensor, text: TextKVCache, kv: KVCache, rope: Rope, /
    ) -> Tensor: ...


def call_layer(layer: nn.Module, x: Tensor, e: Tensor, text: TextKVCache, kv: KVCache, rope: Rope) -> Tensor:
    """Calls a layer. See `Layer.forward`."""
    return layer(x, e, text, kv, rope)


class CausalWan(nn.Module):
    """Predicts the flow (noise − clean) of a block of latent frames, given the K/V of the text and of earlier frames.

    The weights have the names and shapes of Wan2.2. The network itself is not causal: the `kv` argument decides which
    frames are attended. ops: the classes Linear and Conv3d, which get `device` and `dtype`.
    """

    def __init__(
        self,
        config: WanConfig,
        ops: Ops = nn,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.config = config
        self.patch_embedding = ops.Conv3d(
            config.channels, config.dim, kernel_size=config.patch, stride=config.patch, **factory
        )
        dim = config.dim
        self.text_embedding = two_linears((config.text_dim, dim, dim), nn.GELU(approximate="tanh"), ops, factory)
        self.time_embedding = two_linears((config.freq_dim, dim, dim), nn.SiLU(), ops, factory)
        self.time_projection = nn.Sequential(nn.SiLU(), ops.Linear(dim, 6 * dim, **factory))
        self.blocks = nn.ModuleList(Layer(config, i, ops, factory) for i in range(config.num_layers))
        self.head = Head(config, prod(config.patch) * config.channels, ops, factory)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of activations: that of the head's modulation, which no weight format quantises."""
        return self.head.modulation.dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.head.modulation.device

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        text: TextKVCache,
        kv: KVCache,
        positions: Tensor,
        *,
        run_layer: RunLayer = call_layer,
        ranks: Ranks = ALONE,
    ) -> Tensor:
        """Predicts the flow of the latent frames x and stores their K/V.

        x: `[B, C, F, H, W]`. t: `[B, F]`, or `[1, F]` for all films, the timestep 0 … 999 of each latent frame.
        positions: `[F]` or `[B, F]`, real-valued RoPE times in latent frames. run_layer: how to run each layer;
        training may recompute activations. ranks: those that share the tokens of this call; each gives the same
        inputs, and K/V of its own heads in `kv`, and gets the whole result.
        Returns `[B, C, F, H, W]` in x's dtype. Raises ValueError if height or width is not a multiple of the patch.
        """
        grid = self.config.grid(*x.shape[-2:])
        tokens, e, rope = self._embed(x, t, positions)
        tokens, kv = _share(tokens, kv, ranks, prod(grid))
        projected = self._project(e, len(x))
        for layer in self.blocks:
            tokens = run_layer(layer, tokens, projected, text, kv, rope)
        patches = whole_tokens(self.head(tokens, e.expand(len(x), -1, -1)), ranks, prod(grid))
        return self._unpatchify(patches, grid)

    def write_kv(
        self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor, *, ranks: Ranks = ALONE
    ) -> None:
        """Stores the K/V that `forward` stores, without the rest of the last layer. Arguments as in `forward`."""
        tokens, e, rope = self._embed(x, t, positions)
        tokens, kv = _share(tokens, kv, ranks, prod(self.config.grid(*x.shape[-2:])))
        projected = self._project(e, len(x))
        for layer in list(self.blocks)[:-1]:
            tokens = layer(tokens, projected, text, kv, rope)
        last = self.blocks[-1]
        assert isinstance(last, Layer)
        last.store(tokens, projected, kv, rope)

    def text_kv(self, text: Tensor) -> tuple[KeyValue, ...]:
        """Cross-attention K/V of P prompts for each layer, `[P, text_len, H, D]`. text, errors: see `embed_text`."""
        context = self.embed_text(text)
        return tuple(self.layer_text_kv(index, context) for index in range(len(self.blocks)))

    def layer_text_kv(self, layer: int, context: Tensor) -> KeyValue:
        """Cross-attention K/V of one layer, `[P, text_len, H, D]`, for embedded prompts `[P, text_len, C]`."""
        block = self.blocks[layer]
        assert isinstance(block, Layer)
        return block.cross_attn.keys_values(context)

    def embed_text(self, text: Tensor) -> Tensor:
        """Embeds P prompts for the keys and values of all layers, `[P, text_len, C]`.

        text: `[P, L, text_dim]` with L ≤ text_len, on the model's device and in its dtype. It is zero-padded to
        text_len and the padding is attended, as the model was trained. Raises ValueError for other shapes.
        """
        length, width = text.shape[-2:]
        if text.ndim != 3 or width != self.config.text_dim or length > self.config.text_len:
            raise ValueError(
                f"the text embedding has shape {tuple(text.shape)}, expected [prompts, up to {self.config.text_len} "
                f"tokens, {self.config.text_dim}]; use the text encoder of this model, or a shorter prompt"
            )
        return self.text_embedding(F.pad(text, (0, 0, 0, self.config.text_len - length)))

    def init_weights(self) -> None:
        """Initialises the weights for training: Xavier linears, small embeddings, a head that predicts zero flow."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in (*self.text_embedding, *self.time_embedding):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        for name, value in self.named_parameters():
            if name == "patch_embedding.weight":
                nn.init.xavier_uniform_(value.data.flatten(1))
            elif name.startswith("head.head."):
                nn.init.zeros_(value)

    def _embed(self, x: Tensor, t: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Rope]:
        """Tokens `[B, L, C]`, timestep embedding `[1 or B, F, C]` and RoPE angles of the inputs of `forward`."""
        grid = self.config.grid(*x.shape[-2:])
        # PyTorch's convolution sums a batch in another order than one film. Training needs no equal bits.
        films = (x,) if len(x) == 1 or torch.is_grad_enabled() else x.split(1)
        patches = [self.patch_embedding(film) for film in films]
        # Contiguous, because every later sum would keep the strides of a transposed view, and each norm would copy it.
        tokens = torch.cat([rearrange(patch, "b c f y x -> b (f y x) c") for patch in patches]).contiguous()
        e = self.time_embedding(timestep_embedding(t, self.config.freq_dim).to(x.dtype))
        return tokens, e, rope_angles(positions.to(x.device), grid, self.config.head_dim)

    def _project(self, e: Tensor, batch: int) -> Tensor:
        """`[1 or B, F, C]` → `[B, F, 6, C]`."""
        return self.time_projection(e).unflatten(-1, (6, -1)).expand(batch, -1, -1, -1)

    def _unpatchify(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """`[B, L, features]` → `[B, C, F, H, W]`."""
        _, p, q = self.config.patch
        return rearrange(patches, "b (f y x) (p q c) -> b c f (y p) (x q)", y=grid[0], x=grid[1], p=p, q=q)


def _share(tokens: Tensor, kv: KVCache, ranks: Ranks, frame: int) -> tuple[Tensor, KVCache]:
    """The own tokens of all tokens `[B, L, C]`, and the KV cache for them. frame: tokens of a latent frame."""
    return own_tokens(tokens, ranks, frame), kv if ranks.size == 1 else SequenceKV(kv, ranks, frame)


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding [cos(t ω) | sin(t ω)] with ω_i = 10000^(−i / (width / 2)), computed in float64.

    t `[...]` → `[..., width]`.
    """
    angles = t.to(torch.float64).unsqueeze(-1) * frequencies(width // 2, t.device)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
