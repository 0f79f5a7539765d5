"""LongLive Mini: the whole system at toy size, trained, in three small files beside the code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..model import CausalWan, WanConfig
from ..vae import VAEConfig, WanVAE
from .config import MINI_DIT, MINI_VAE, PIXELS
from .text_encoder import TextEncoder

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "mini"
FORMAT = "longlive-mini-1"
FILES = ("transformer", "text_encoder", "vae")


@dataclass(frozen=True)
class Mini:
    """The embedded model: transformer, text encoder and VAE at 128 x 128 px, 24 fps."""

    model: CausalWan
    text: TextEncoder
    vae: WanVAE

    pixel_size = PIXELS

    def encode_text(self, prompt: str) -> Tensor:
        """Embedding [L, text_dim] of a prompt, on the model's device."""
        return self.text.encode(prompt).to(self.model.device)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Words the model has never seen."""
        return self.text.unknown_words(prompt)

    @classmethod
    def random(
        cls,
        seed: int,
        vocabulary: Sequence[str] = ("the", "hero"),
        model: WanConfig = MINI_DIT,
        vae: VAEConfig = MINI_VAE,
    ) -> Mini:
        """Untrained weights from a seed; frozen and in eval mode, as `load_mini` gives them.

        A model that asks for gradients is no stand-in for a loaded one: oneDNN may choose other kernels for it.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transformer = CausalWan(model)
            transformer.init_weights()
            parts = transformer, TextEncoder(vocabulary, model.text_dim, model.text_len), WanVAE(vae)
        for module in parts:
            module.requires_grad_(False).eval()
        return cls(*parts)

    def save(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Three safetensors files with their configuration as metadata."""
        folder.mkdir(parents=True, exist_ok=True)
        text: dict[str, Any] = {
            "vocabulary": self.text.vocabulary,
            "width": self.model.config.text_dim,
            "max_words": self.text.max_words,
            "heads": self.text.heads,
        }
        parts: tuple[tuple[nn.Module, Mapping[str, Any]], ...] = (
            (self.model, asdict(self.model.config)),
            (self.text, text),
            (self.vae, self.vae.config.to_dict()),
        )
        for name, (module, config) in zip(FILES, parts, strict=True):
            tensors = {k: v.detach().to(dtype).contiguous() for k, v in module.state_dict().items()}
            save_file(tensors, folder / f"{name}.safetensors", {"format": FORMAT, "config": json.dumps(config)})


def load_mini(folder: Path | None = None, device: str | torch.device = "cpu") -> Mini:
    """The shipped weights, or those that `longlive train mini` wrote to `folder`; float32, ready to run.

    Raises FileNotFoundError or ValueError that name the file.
    """
    folder = ASSETS if folder is None else folder
    transformer, text, vae = (_read(folder / f"{name}.safetensors") for name in FILES)
    model = CausalWan(WanConfig.from_mapping(transformer.config))
    encoder = TextEncoder(**text.config)
    decoder = WanVAE(VAEConfig.from_dict(vae.config))
    for module, part in ((model, transformer), (encoder, text), (decoder, vae)):
        module.load_state_dict({k: v.float() for k, v in part.tensors.items()})
        module.requires_grad_(False).eval().to(device)
    return Mini(model, encoder, decoder)


@dataclass(frozen=True)
class _Part:
    config: dict[str, Any]
    tensors: dict[str, Tensor]


def _read(path: Path) -> _Part:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: the folder of an embedded model holds {', '.join(f'{n}.safetensors' for n in FILES)}; "
            "reinstall the package or run `longlive train mini`"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} has format {metadata.get('format')!r}, not {FORMAT!r}: it is another model")
            return _Part(json.loads(metadata["config"]), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}): copy or download it again") from error
