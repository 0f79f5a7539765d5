"""Trainable LoRAs: named adapters of peft on one frozen base, and their files in the official key names.

Several adapters share the base, so that the generator, the critic and the real score of a distillation take the memory
of one model:

    model = CausalWan(…)                        generator = AdaptedModel(model, "generator")
    add_adapter(model, "generator", settings)   critic = AdaptedModel(model, "critic")
    add_adapter(model, "critic", settings)      real_score = AdaptedModel(model, None)
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..model import CausalWan, KeyValue, KVCache, TextKVCache, WanConfig
from ..model.linears import FP8Linear, NVFP4Linear, replace_linears
from ..model.nvfp4_training import NVFP4TrainingLinear
from ..model.transformer import RunLayer, call_layer
from ..parallel import ALONE, Ranks
from ..weights import CheckpointError, LoraLayer, read_lora
from ..weights.names import summarize_names
from ..weights.safetensors_writer import replace_when_complete

# The linear layers of the transformer's blocks: a pattern of peft's `target_modules`.
TARGETS = r"blocks\.\d+\.((self_attn|cross_attn)\.[qkvo]|ffn\.[02])"
# The official files name the layers as in peft's wrapper. The LoRA loader of ComfyUI's core ignores these names for Wan
# models: it wants its own.
PREFIX, CORE_PREFIX = "base_model.model.", "diffusion_model."
QUANTIZED = (NVFP4Linear, FP8Linear)


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Rank and alpha of a LoRA, whose update of a layer is scaled by alpha / rank. The defaults are LongLive 2.0's."""

    rank: int = 128
    alpha: float = 128.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank {self.rank} must be at least 1; LongLive 2.0 uses 128")


@dataclass(frozen=True, slots=True)
class LoraCard:
    """What the file of a LoRA says of its training.

    base: name of the model that it belongs to. data: name of the prompts and films. steps: updates of its weights.
    sampler_steps: steps of the sampler that it was distilled to; 0 for a LoRA that changes no number of steps.
    rope_offset: latent frames that each cut added to the RoPE time in training; 0 for none.
    """

    base: str
    data: str
    steps: int
    sampler_steps: int
    rope_offset: float


@dataclass(frozen=True, slots=True)
class AdaptedModel:
    """A `FlowModel`: the shared base with one of its adapters, or without any (adapter None).

    Each call switches the base to this adapter and leaves it there. nvfp4: whether the layers of a base that trains in
    NVFP4 round what they multiply. ranks: processes that share the tokens of each call; all make the same calls.
    """

    model: CausalWan
    adapter: str | None
    nvfp4: bool = True
    ranks: Ranks = ALONE

    @property
    def config(self) -> WanConfig:
        """Configuration of the base."""
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the base; the adapters are in float32."""
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        """Device of the base."""
        return self.model.device

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        text: TextKVCache,
        kv: KVCache,
        positions: Tensor,
        *,
        run_layer: RunLayer = call_layer,
    ) -> Tensor:
        """See `CausalWan.forward`. A layer that runs again in the backward pass needs this adapter to be active."""
        return self.activate()(x, t, text, kv, positions, run_layer=run_layer, ranks=self.ranks)

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        """See `CausalWan.write_kv`."""
        self.activate().write_kv(x, t, text, kv, positions, ranks=self.ranks)

    def text_kv(self, text: Tensor) -> tuple[KeyValue, ...]:
        """See `CausalWan.text_kv`."""
        return self.activate().text_kv(text)

    def activate(self) -> CausalWan:
        """Switches the base to the adapter and returns it."""
        for layer in _lora_layers(self.model).values():
            base = layer.get_base_layer()
            if isinstance(base, NVFP4TrainingLinear):
                base.enabled = self.nvfp4
            layer.enable_adapters(self.adapter is not None)
            if self.adapter is not None:
                layer.set_adapter(self.adapter)
            # peft freezes the adapters that are not active; here all of them are trained, one after another.
            for part in (layer.lora_A, layer.lora_B):
                part.requires_grad_(True)
        return self.model


class FrozenQuantized(nn.Module):
    """A quantised linear layer with a gradient for its input: dx = dy W, with W dequantised again.

    Rounding of activations, which some formats do, is passed straight through by the gradient.
    """

    def __init__(self, base: NVFP4Linear | FP8Linear) -> None:
        super().__init__()
        self.base = base
        self.in_features, self.out_features = base.in_features, base.out_features

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", _FrozenProduct.apply(x, self.base))


class _FrozenProduct(torch.autograd.Function):
    """The output of a quantised layer. Autograd cannot keep its weight, whose buffer the next layer overwrites."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: NVFP4Linear | FP8Linear) -> Tensor:  # noqa: ANN401
        ctx.layer = layer
        return layer(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:  # noqa: ANN401
        (dy,) = gradients
        return dy @ ctx.layer.dequantized_weight(dy.dtype), None


def add_adapter(model: CausalWan, name: str, settings: LoraSettings, seed: int = 0) -> nn.Module:
    """Freezes the model, and adds a LoRA in float32 to the linear layers of its blocks. Returns its weights.

    A is drawn uniformly as peft does (`kaiming_uniform` with a = √5) from `seed`, never from PyTorch's global
    generator; B is zero, so that the model stays as it is. Quantised layers get a LoRA too. The parameters of the
    returned module have the names `blocks.0.self_attn.q.lora_A.weight`, and are those of the model.
    """
    config = _lora_config(settings)
    model.requires_grad_(False)
    if not _lora_layers(model):
        replace_linears(model, lambda _, layer: FrozenQuantized(layer) if isinstance(layer, QUANTIZED) else None)
    _inject(model, name, config)
    generator = torch.Generator().manual_seed(seed)
    for layer in _lora_layers(model).values():
        down, up = layer.lora_A[name], layer.lora_B[name]
        weight = torch.empty(down.weight.shape)
        nn.init.kaiming_uniform_(weight, a=sqrt(5), generator=generator)
        down.weight = nn.Parameter(weight.to(model.device))
        up.weight = nn.Parameter(torch.zeros(up.weight.shape, device=model.device))
    AdaptedModel(model, name).activate()
    return adapter_weights(model, name)


def adapter_weights(model: CausalWan, adapter: str) -> nn.Module:
    """Returns the weights of an adapter as one module; see `add_adapter`."""
    root = nn.Module()
    for name, layer in _lora_layers(model).items():
        parent = root
        for part in name.split("."):
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module("lora_A", layer.lora_A[adapter])
        parent.add_module("lora_B", layer.lora_B[adapter])
    return root


def save_lora(
    path: Path,
    weights: nn.Module | Mapping[str, Tensor],
    settings: LoraSettings,
    card: LoraCard,
    prefix: str = PREFIX,
) -> None:
    """Writes the weights of an adapter as a LoRA file of its own, in the official key names or those of a prefix.

    weights: of `add_adapter`, or an average of them with its names. The metadata holds rank, alpha and the card. An
    alpha that is not the rank is also saved as a tensor of each layer, because some loaders read no metadata. A part of
    the file that a killed run left is written over.
    """
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    tensors = {prefix + name: tensor.detach().float().cpu().contiguous() for name, tensor in state.items()}
    if settings.alpha != settings.rank:
        layers = {name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")}
        tensors |= {f"{layer}.alpha": torch.tensor(settings.alpha) for layer in sorted(layers)}
    about = {"kind": "lora", "rank": settings.rank, "lora_alpha": settings.alpha, **asdict(card)}
    peft = {"peft_type": "LORA", "r": settings.rank, "lora_alpha": settings.alpha, "target_modules": TARGETS}
    metadata = {"format": "pt", "longlive": json.dumps(about), "lora_adapter_metadata": json.dumps(peft)}
    with replace_when_complete(path, overwrite_part=True) as part:
        save_file(tensors, part, metadata)


def read_card(metadata: Mapping[str, str]) -> LoraCard:
    """Returns the card in the metadata of a LoRA file. Raises ValueError if there is none."""
    about: dict[str, Any] = json.loads(metadata.get("longlive", "{}"))
    if about.get("kind") != "lora":
        raise ValueError("the LoRA has no card: it was not made by this trainer")
    return LoraCard(**{name: about[name] for name in LoraCard.__dataclass_fields__})


def load_adapter(model: CausalWan, adapter: str, path: Path | str) -> None:
    """Loads a LoRA file into an adapter, to train it further. All names that `read_lora` knows are accepted.

    Raises CheckpointError, before anything is changed, for a LoRA of another rank or alpha, or of other layers.
    """
    lora, layers = read_lora(path), _lora_layers(model)
    missing = [name for name in layers if name not in lora.layers]
    unknown = [name for name in lora.layers if name not in layers]
    if missing or unknown:
        raise CheckpointError(
            f"lora {lora.path} has other layers than this run trains: missing {summarize_names(missing)}, unknown "
            f"{summarize_names(unknown)}; train a new LoRA, or start from a file of this trainer"
        )
    trained = {
        name: layer for name, layer in lora.layers.items() if isinstance(layer, LoraLayer) and layer.kind == "LoRA"
    }
    if len(trained) < len(layers) or lora.diffs:
        raise CheckpointError(
            f"lora {lora.path} is no plain LoRA ({lora.kinds}); train a new one, or start from a LoRA"
        )
    for name, layer in layers.items():
        found, rank, alpha = trained[name], layer.r[adapter], layer.lora_alpha[adapter]
        if (found.rank, found.alpha) != (rank, alpha):
            raise CheckpointError(
                f"lora {lora.path} has rank {found.rank} and alpha {found.alpha:g}, but this run trains rank {rank} "
                f"and alpha {alpha:g}; set the run's rank and alpha to those of the file"
            )
        if found.shape != (layer.out_features, layer.in_features):
            raise CheckpointError(
                f"lora {lora.path} is for a layer {name} of shape {list(found.shape)} [out, in], but the model's is "
                f"{[layer.out_features, layer.in_features]}; use a LoRA that was made for this model"
            )
    with torch.no_grad():
        for name, layer in layers.items():
            layer.lora_A[adapter].weight.copy_(trained[name].down)
            layer.lora_B[adapter].weight.copy_(trained[name].up)


def _lora_config(settings: LoraSettings) -> Any:  # noqa: ANN401
    """peft's configuration of a LoRA."""
    from peft import LoraConfig
    from peft.tuners.lora import Linear

    # peft accepts any number as alpha, although it is annotated as a whole one.
    config = LoraConfig(
        r=settings.rank, lora_alpha=cast("int", settings.alpha), target_modules=TARGETS, init_lora_weights=False
    )
    config._register_custom_module({FrozenQuantized: Linear})  # pyright: ignore[reportPrivateUsage]
    return config


def _inject(model: CausalWan, name: str, config: Any) -> None:  # noqa: ANN401
    """Adds an adapter with weights on the meta device, which costs no random numbers."""
    from peft import inject_adapter_in_model

    with warnings.catch_warnings():
        # peft warns of a second adapter and of linear layers that are not its own; both are wanted here.
        warnings.filterwarnings("ignore", "Already found a `peft_config`|Unsupported layer type", UserWarning)
        inject_adapter_in_model(config, model, name, low_cpu_mem_usage=True)


def _lora_layers(model: nn.Module) -> dict[str, Any]:
    """The layers that peft has wrapped, by Wan's names."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if hasattr(layer, "lora_A") and hasattr(layer, "base_layer")
    }
