"""Image embeddings of frames by a DINO or CLIP vision model that the user has, for the continuity report.

`transformers` runs the model. It is imported here alone, when a model is loaded, and a model is only ever read from a
folder or from what is already in the Hugging Face cache: nothing is downloaded.

    from .features import load_features
    embed = load_features("~/models/dinov2-small")  # or "facebook/dinov2-small", if it is in the cache
    embed(frames)  # [N, D], unit vectors
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .colours import Floats, Frame

Embed = Callable[[Sequence[Frame]], Floats]  # frames `[H, W, 3]` as unit vectors `[N, D]`

BATCH: Final = 8  # frames that are embedded at once, so that a long film needs no more memory than a short one
# The class of transformers for each `model_type`. CLIP's has no text encoder, whatever is in the folder.
MODELS: Final[Mapping[str, str]] = {
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
    "dinov3_convnext": "DINOv3ConvNextModel",
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
}
# A DINO model takes pictures of any size, and its configuration has that of its training: 518 pixels for DINOv2.
DINO_SIDE: Final = 224
IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: Final = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGE_KEYS: Final = frozenset({"image_size", "patch_size", "num_channels", "vision_config"})
REMEDY: Final = (
    "--features takes the folder of a DINOv2, DINOv3 or CLIP vision model, as transformers saves it, or its name in "
    "the Hugging Face cache"
)


class FeaturesError(ValueError):
    """A vision model cannot be loaded or used."""


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """A vision model that embeds frames. name: of its folder, for reports. side: of the square that it sees.

    A frame is squeezed into the square instead of cropped: a subject may stand at the side, and all frames of a film
    are squeezed alike.
    """

    name: str
    model: Any
    side: int
    mean: Tensor
    std: Tensor
    batch: int = BATCH

    @torch.inference_mode()
    def __call__(self, frames: Sequence[Frame]) -> Floats:
        """Unit vectors `[N, D]` of frames `[H, W, 3]` of one size. Raises FeaturesError if they are not finite."""
        parts = [self._embed(frames[start : start + self.batch]) for start in range(0, len(frames), self.batch)]
        vectors = torch.cat(parts).cpu()
        if not vectors.isfinite().all():
            raise FeaturesError(f"{self.name} gives values that are not finite; its weights are damaged")
        return vectors.numpy()

    def _embed(self, frames: Sequence[Frame]) -> Tensor:
        pictures = torch.from_numpy(np.stack(frames)).to(self.mean.device).permute(0, 3, 1, 2).float()
        square = F.interpolate(pictures, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 255) / 255
        pooled: Tensor = self.model(pixel_values=(square - self.mean) / self.std).pooler_output
        return F.normalize(pooled.float(), dim=-1)


def block_features(embed: Embed, frames: Sequence[Frame]) -> Floats:
    """The unit vector `[D]` of some frames of one block: the direction of their mean."""
    mean = embed(frames).mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def cosine_distance(a: Floats, b: Floats) -> float:
    """One minus the cosine of unit vectors, exactly 0 for equal ones."""
    return float(np.square(a - b).sum() / 2)


def load_features(source: str, device: str = "cpu") -> ImageFeatures:
    """Loads a vision model from a folder, or by a name that is in the Hugging Face cache.

    Raises FeaturesError, which names what is missing, without transformers, a model, or a device.
    """
    try:
        import transformers
    except ImportError as error:
        remedy = 'pip install "longlive-video[features]", or leave --features out'
        raise FeaturesError(f"--features needs transformers, which is not installed: {remedy}") from error
    name, folder = _find(source)
    config = _read(folder / "config.json")
    kind = str(config.get("model_type"))
    if kind not in MODELS:
        wrong = "is not supported" if IMAGE_KEYS & config.keys() else "is a text model: it cannot see frames"
        raise FeaturesError(f"{folder}: a model of type '{kind}' {wrong}; supported are {', '.join(MODELS)}")
    model_class = getattr(transformers, MODELS[kind], None)
    if model_class is None:
        version = f"transformers {transformers.__version__}"
        raise FeaturesError(f"{folder}: {version} has no models of type '{kind}'; pip install --upgrade transformers")
    model = _load(model_class, folder)
    try:
        model = model.float().eval().requires_grad_(False).to(device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise FeaturesError(f"--device {device} cannot be used for --features: {error}") from error
    is_clip = kind.startswith("clip")
    side = int(model.config.image_size) if is_clip else min(int(model.config.image_size), DINO_SIDE)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in _normalisation(folder, is_clip))
    return ImageFeatures(name, model, side, mean, std)


def _find(source: str) -> tuple[str, Path]:
    """The name and the folder of a model; that of a name is in the cache."""
    from huggingface_hub import try_to_load_from_cache

    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve().name, folder
    try:
        cached = try_to_load_from_cache(source, "config.json")
    except ValueError:  # it is no name of the hub either
        cached = None
    if not isinstance(cached, str):
        absent = f"{source} is no folder and is not in the Hugging Face cache; nothing is downloaded"
        raise FeaturesError(f"{absent}. {REMEDY}")
    return source, Path(cached).parent


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise FeaturesError(f"{path.parent}: {path.name} is missing. {REMEDY}") from error
    except ValueError as error:
        raise FeaturesError(f"{path} is no JSON: {error}. {REMEDY}") from error
    if not isinstance(data, dict):
        raise FeaturesError(f"{path} is no JSON object. {REMEDY}")
    return data


def _load(model_class: Any, folder: Path) -> Any:  # noqa: ANN401
    """A model with all its weights: transformers alone would fill in random ones for those that are missing."""
    from safetensors import SafetensorError

    try:
        with _quiet():
            model, info = model_class.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise FeaturesError(f"{folder}: its weights (model.safetensors) cannot be read: {reason}") from error
    if missing := sorted(info["missing_keys"]):
        first = ", ".join(missing[:3])
        raise FeaturesError(f"{folder}: its file lacks {len(missing)} weights of the vision model, such as {first}")
    return model


@contextmanager
def _quiet() -> Generator[None]:
    """Without the progress bar of transformers, and without its table of the text encoder's unused weights."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _normalisation(folder: Path, is_clip: bool) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of the channels, from preprocessor_config.json where the folder has one."""
    path = folder / "preprocessor_config.json"
    known = _read(path) if path.exists() else {}
    mean, std = CLIP if is_clip else IMAGENET
    return known.get("image_mean", mean), known.get("image_std", std)
