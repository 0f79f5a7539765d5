"""Makes, saves and loads LongLive Mini, whose trained weights are three small files in `assets/mini`."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
VAE_FILE = "vae.safetensors"


@dataclass(frozen=True)
class Mini:
    """The embedded model: transformer, text encoder and VAE for films of 128 x 128 pixels at 24 fps."""

    model: CausalWan
    text: TextEncoder
    vae: WanVAE

    pixel_size = PIXELS

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The three modules in the order of `FILES`."""
        return self.model, self.text, self.vae

    def encode_text(self, prompt: str) -> Tensor:
        """Encodes a prompt as `[L, text_dim]` on the device of the transformer."""
        return self.text.encode(prompt).to(self.model.device)

    def to(self, device: str) -> Mini:
        """Moves the weights to a device, in place."""
        for module in self.modules:
            module.to(device)
        return self

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Returns the words of a prompt that are not in the vocabulary."""
        return self.text.unknown_words(prompt)

    @classmethod
    def random(
        cls,
        seed: int,
        vocabulary: Sequence[str] = ("the", "hero"),
        model: WanConfig = MINI_DIT,
        vae: VAEConfig = MINI_VAE,
    ) -> Mini:
        """Makes an untrained model from a seed, in eval mode and without gradients like that of `load_mini`.

        Gradients matter because oneDNN may choose other kernels for weights that require them, which changes bits.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transformer = CausalWan(model)
            transformer.init_weights()
            mini = cls(transformer, TextEncoder(vocabulary, model.text_dim, model.text_len), WanVAE(vae))
        for module in mini.modules:
            module.requires_grad_(False).eval()
        return mini

    def save(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Writes the three safetensors files to `folder`, each with its configuration as metadata."""
        folder.mkdir(parents=True, exist_ok=True)
        text: dict[str, Any] = {
            "vocabulary": self.text.vocabulary,
            "width": self.model.config.text_dim,
            "max_words": self.text.max_words,
            "heads": self.text.heads,
        }
        configs = asdict(self.model.config), text, asdict(self.vae.config)
        for name, module, config in zip(FILES, self.modules, configs, strict=True):
            _write(module, config, folder / f"{name}.safetensors", dtype)


def load_mini(folder: Path | None = None, device: str | torch.device = "cpu") -> Mini:
    """Loads the embedded model in float32 from `folder`, the output of `longlive train mini`; None: from the package.

    Raises FileNotFoundError for a missing file, and ValueError for a file that is damaged or of another format.
    """
    folder = ASSETS if folder is None else folder
    (model, text, vae), states = zip(*(_read(folder / f"{name}.safetensors") for name in FILES), strict=True)
    mini = Mini(CausalWan(WanConfig.from_mapping(model)), TextEncoder(**text), WanVAE(VAEConfig.from_dict(vae)))
    for module, state in zip(mini.modules, states, strict=True):
        module.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        module.requires_grad_(False).eval().to(device)
    return mini


def save_vae(vae: WanVAE, path: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes a VAE with its configuration, like the file of an embedded model; the file appears when it is complete."""
    partial = path.with_name(f"{path.name}.partial")
    _write(vae, asdict(vae.config), partial, dtype)
    partial.replace(path)


def load_vae(path: Path) -> WanVAE:
    """Loads what `save_vae` wrote, in float32 on the CPU; raises as `load_mini` does."""
    config, state = _read(path)
    vae = WanVAE(VAEConfig.from_dict(config))
    vae.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return vae.requires_grad_(False).eval()


def _write(module: nn.Module, config: dict[str, Any], path: Path, dtype: torch.dtype) -> None:
    """Writes a module and its configuration to one file."""
    tensors = {k: v.detach().to(dtype).contiguous() for k, v in module.state_dict().items()}
    save_file(tensors, path, {"format": FORMAT, "config": json.dumps(config)})


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the configuration and the tensors of one file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: an embedded model consists of {', '.join(f'{n}.safetensors' for n in FILES)}; "
            "reinstall the package or run `longlive train mini`"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} has format {metadata.get('format')!r}, not {FORMAT!r}; use LongLive Mini")
            return json.loads(metadata["config"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}); copy or download it again") from error
