"""A small Wan transformer, LoRA halves for it, and what a LoRA file really adds to each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.weights import read_lora
from safetensors.torch import save_file
from torch import Tensor, nn

CONFIG = WanConfig(dim=128, ffn_dim=64, num_heads=1, num_layers=2, freq_dim=32, text_dim=16, text_len=512)
RANK = 4

Tensors = dict[str, Tensor]
Halves = dict[str, tuple[Tensor, Tensor]]

_random = torch.Generator().manual_seed(0)
_model = CausalWan(CONFIG)
WEIGHTS: Tensors = {n: torch.randn(v.shape, generator=_random) * 0.1 for n, v in _model.state_dict().items()}
LINEARS = {n: tuple(m.weight.shape) for n, m in _model.named_modules() if isinstance(m, nn.Linear)}
# (down, up) of the twenty linear layers of the blocks.
HALVES: Halves = {
    n: (torch.randn(RANK, shape[1], generator=_random), torch.randn(shape[0], RANK, generator=_random))
    for n, shape in LINEARS.items()
    if n.startswith("blocks.")
}


def model() -> CausalWan:
    """The transformer with `WEIGHTS`."""
    made = CausalWan(CONFIG).requires_grad_(False).eval()
    made.load_state_dict(WEIGHTS)
    return made


def diffusers(name: str) -> str:
    """The name that diffusers gives to a layer of a block."""
    for wan, theirs in (
        ("self_attn", "attn1"),
        ("cross_attn", "attn2"),
        (".q", ".to_q"),
        (".k", ".to_k"),
        (".v", ".to_v"),
        (".o", ".to_out.0"),
        ("ffn.0", "ffn.net.0.proj"),
        ("ffn.2", "ffn.net.2"),
    ):
        name = name.replace(wan, theirs)
    return name


def flat(name: str) -> str:
    """The name that kohya gives to a layer."""
    return name.replace(".", "_")


def plain(name: str, down: Tensor, up: Tensor) -> Tensors:
    """The halves of a layer by the names of ComfyUI."""
    return {f"diffusion_model.{name}.lora_down.weight": down, f"diffusion_model.{name}.lora_up.weight": up}


def save(
    path: Path,
    keys: Callable[[str, Tensor, Tensor], Tensors],
    metadata: dict[str, str] | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> Path:
    """Writes the LoRA of `HALVES` under the names of `keys`, and the tensors of `extra`."""
    tensors = {k: v for n, (down, up) in HALVES.items() for k, v in keys(n, down, up).items()}
    save_file({k: v.clone().contiguous() for k, v in {**tensors, **(extra or {})}.items()}, path, metadata)
    return path


def truth(scale: float = 1.0) -> Tensors:
    """What the LoRA of `HALVES` adds to the weight of each layer."""
    return {n: scale * up @ down for n, (down, up) in HALVES.items()}


def beside(path: Path, strength: float = 1.0) -> tuple[Tensors, Tensors, str]:
    """What a file adds to weights and biases, measured at the outputs of the layers that it runs beside; the report."""
    changed = model()
    text = read_lora(path).add_bypass(changed, strength).text()
    weights: Tensors = {}
    biases: Tensors = {}
    for name, shape in LINEARS.items():
        layer = changed.get_submodule(name)
        biases[name] = layer(torch.zeros(1, shape[1]))[0] - WEIGHTS[f"{name}.bias"]
        product = layer(torch.eye(shape[1])) - layer(torch.zeros(1, shape[1]))
        weights[name] = product.T - WEIGHTS[f"{name}.weight"]
    return weights, biases, text


def merged(path: Path, strength: float = 1.0) -> Tensors:
    """What a file adds to each tensor of the model when it is merged."""
    return {n: v - WEIGHTS[n] for n, v in read_lora(path).merge(WEIGHTS, strength).items()}


def assert_adds(path: Path, expected: Mapping[str, Tensor], strength: float = 1.0) -> str:
    """Asserts what a file adds to the weights of the blocks' layers, beside them and merged; returns the report."""
    weights, _, text = beside(path, strength)
    sums = merged(path, strength)
    for name in HALVES:
        want = expected.get(name, torch.zeros(LINEARS[name]))
        torch.testing.assert_close(weights[name], want, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sums[f"{name}.weight"], want, rtol=1e-4, atol=1e-4)
    return text
