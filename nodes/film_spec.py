"""The specification of a film in ComfyUI: the MODEL, the text and the settings in one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import comfy.model_patcher
from comfy.quant_ops import QuantizedTensor
from torch import Tensor

from ..longlive_core.film.block_store import BlockStore
from ..longlive_core.film.film import Film
from ..longlive_core.film.live_script import LiveScript
from ..longlive_core.film.sampler_settings import OnStep, SamplerSettings, ShouldStop, storyboard_noise
from ..longlive_core.model import WanConfig
from ..longlive_core.sampling import Generation, KnownLatents, NoiseSource, block_noise
from ..longlive_core.script import BlockPlan
from ..longlive_core.script.storyboard import storyboard_plan
from ..longlive_core.types import LatentShape
from ..longlive_core.vram.budget import activation_bytes, overlap_bytes, prompt_bytes
from ..longlive_core.vram.films_at_once import FilmsAtOnce, FilmSize, films_at_once
from .device_lock import DeviceLock
from .fp8_layout import is_row_fp8
from .model import HostedModel
from .shared_model import Sharing, sharing_of

Storyboard = Literal["off", "only", "first"]


@dataclass(frozen=True)
class FilmSpec:
    """The specification of a film; calling it starts a generation (`StartGeneration`, `StartBatch`).

    embeddings: prompt → `[L, text_dim]`. shape: the shape of one block, in latent cells. encode: encodes new
    prompts of a live script.
    """

    model: comfy.model_patcher.ModelPatcher
    embeddings: Mapping[str, Tensor]
    plan: BlockPlan
    shape: LatentShape
    settings: SamplerSettings
    device_lock: DeviceLock
    encode: Callable[[str], Tensor] | None = None

    @property
    def config(self) -> WanConfig:
        """The model's configuration."""
        return self.model.model.diffusion_model.config

    @property
    def bytes(self) -> int:
        """VRAM of a run besides the weights. Raises ValueError if the window does not fit the blocks."""
        blocks = len(self.plan.blocks) + len(self.settings.cast)
        branches = 1 if self.settings.guidance == 1.0 else 2
        dtype, memory = self.model.model.get_dtype_inference(), self.settings.memory
        window = min(memory.window, blocks * self.shape.frames)
        aligns = self.settings.seam == "align"
        return (
            memory.bytes(self.config, self.shape, blocks, branches)
            + memory.scratch_bytes(self.config, self.shape, blocks, dtype)
            + activation_bytes(self.config, self.shape, dtype.itemsize)
            + (overlap_bytes(self.config, self.shape, window, dtype.itemsize) if aligns else 0)
            + prompt_bytes(self.config, 1 + branches, dtype.itemsize)
        )

    @property
    def sharing(self) -> Sharing | None:
        """How the MODEL is shared among processes; None if this one samples."""
        return sharing_of(self.model)

    @property
    def hosted(self) -> comfy.model_patcher.ModelPatcher:
        """What the host loads to sample: the MODEL, or in its place what stands for the processes that share it."""
        return self.model if self.sharing is None else self.sharing.ranks.stand_in

    @property
    def hosted_bytes(self) -> int:
        """VRAM of a run in this process besides the weights of `hosted`."""
        return self.bytes if self.sharing is None else 0

    @property
    def rounds_together(self) -> bool:
        """Whether the host may round activations with one scale for all films of a batch, so that none is as alone.

        It does for some formats of quantised weights on some cards; all of its own are taken for such.
        """
        weights = self.model.model.diffusion_model.parameters()
        return any(isinstance(weight, QuantizedTensor) and not is_row_fp8(weight) for weight in weights)

    def at_once(self, wanted: int, blocks: int, free: int) -> FilmsAtOnce:
        """How many films of so many blocks fit into `free` bytes at once. Raises ValueError as `films_at_once`."""
        settings, dtype = self.settings, self.model.model.get_dtype_inference()
        branches, aligns = 1 if settings.guidance == 1.0 else 2, settings.seam == "align"
        blocks += len(settings.cast)
        size = FilmSize(self.config, settings.memory, self.shape, blocks, branches, aligns, dtype)
        return films_at_once(1 if self.rounds_together else wanted, size, free)

    def check(self) -> None:
        """Raises ValueError for text encoded for another model, a window too small for such blocks or for what a shot
        recalls, and what no processes can share.
        """
        _ = self.bytes
        self.settings.check_plan(self.plan)
        if self.sharing is not None:
            self.sharing.check(self.model, self.shape, self.settings.guidance)
        widths = {embedding.shape[-1] for embedding in self.embeddings.values()}
        if width := next(iter(widths - {self.config.text_dim}), None):
            raise ValueError(
                f"the conditioning has width {width}, but this model takes text of width {self.config.text_dim}: "
                "encode the shots with the text encoder of the model (umt5-xxl, type wan, for LongLive 5B; the CLIP of "
                "LongLive Mini for Mini)"
            )

    def text(self, prompt: str) -> Tensor:
        """Returns the embedding `[L, text_dim]` of a prompt; encodes it if a live script added it."""
        if prompt in self.embeddings or self.encode is None:
            return self.embeddings[prompt]
        with self.device_lock.released():
            return self.encode(prompt)

    def __call__(
        self,
        plan: BlockPlan,
        known: KnownLatents,
        on_step: OnStep | None,
        should_stop: ShouldStop | None,
        /,
        *,
        batch: int = 1,
        noise: NoiseSource | None = None,
    ) -> Generation:
        hooks, options = (on_step, should_stop), {"batch": batch, "noise": noise, "free": self.device_lock.free_vram}
        if self.sharing is not None:
            shared = self.sharing.model(self.model, should_stop)
            return self.settings.start(shared, self.text, plan, known, *hooks, pools=shared, **options)
        model = HostedModel(self.model, self.device_lock)
        return self.settings.start(model, self.text, plan, known, *hooks, attention=model.attention, **options)


def make_film(
    spec: FilmSpec, start: Tensor | None, earlier: Film | None, storyboard: Storyboard, live: LiveScript | None
) -> Film:
    """Makes the film of a spec, with "only" its storyboard, or with "first" a film that begins with its storyboard.

    start: latents of the start image, `[1, C, 1, H, W]` normalised. earlier: the film that this one continues.
    """
    if storyboard == "off":
        return Film(spec.plan, spec, start=start, earlier=earlier, live=live)
    first = make_storyboard(spec, spec.plan, start, earlier)
    return first if storyboard == "only" else Film(spec.plan, spec, start=start, earlier=earlier, storyboard=first)


def make_storyboard(
    spec: FilmSpec, plan: BlockPlan, start: Tensor | None, earlier: Film | None, store: BlockStore | None = None
) -> Film:
    """Makes the storyboard of a film of this plan; `start` and `earlier` are those of `make_film`.

    store: has the blocks of the storyboard, host memory by default.
    """
    after = 0 if earlier is None else len(earlier.plan.blocks)
    noise = storyboard_noise(plan, block_noise(spec.settings.seed), after)
    preview = replace(spec, settings=replace(spec.settings, noise=noise))
    return Film(storyboard_plan(plan, after), preview, store, start=start, earlier=earlier)
