"""The node that makes the film, once somebody draws it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from threading import Lock
from typing import Literal, get_args

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..longlive_core.engine import Generation, generate
from ..longlive_core.film import Drawable, Film, OnStep, ShouldStop
from ..longlive_core.footprint import activation_bytes, prompt_bytes
from ..longlive_core.generation import KnownLatents
from ..longlive_core.live import LiveScript
from ..longlive_core.memory import DEFAULT_MEMORY, MemoryConfig
from ..longlive_core.mini import PIXELS as MINI_PIXELS
from ..longlive_core.model import WanConfig
from ..longlive_core.sampling import MAX_SEED, NoiseSource, block_noise
from ..longlive_core.script import BlockPlan
from ..longlive_core.script.of_plan import script_of
from ..longlive_core.storyboard import StoryboardFilm, board_noise
from ..longlive_core.storyboard import storyboard as board_plan
from ..longlive_core.take.blocks import Settings, latents_digest
from ..longlive_core.types import LatentShape, PixelShape
from .inputs import check_sides, guidance_input, memory_input, side_input, steps_input
from .model import HostedModel, as_causal
from .types import CATEGORY, ConditioningType, ShotConditioning, StateType, Stream, StreamType, Turn
from .vae import MiniLatents, check_pair

Storyboard = Literal["off", "only", "first"]


class StreamingSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveStreamingSampler",
            display_name="LongLive Streaming Sampler",
            category=CATEGORY,
            description="Makes the film block by block, while LongLive Async Decode (or a Stream to … node) draws "
            "it. A film that was stopped goes on where it was when it is queued again.",
            search_aliases=["longlive", "ksampler", "long video", "causal", "autoregressive", "streaming"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="From LongLive Model Loader or LongLive Mini, perhaps through LoRA loaders."
                ),
                ConditioningType.Input("conditioning", tooltip="From LongLive Encode Shots."),
                side_input("width", 1280, "Width in pixels, a multiple of 32. LongLive Mini: up to 128."),
                side_input("height", 704, "Height in pixels, a multiple of 32. LongLive Mini: up to 128."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="The same seed makes the same film; a longer film begins with the shorter one.",
                ),
                steps_input("steps"),
                guidance_input(
                    "guidance",
                    "1 for distilled models. Any other value runs the negative prompt beside and takes twice "
                    "the time and memory.",
                ),
                memory_input(
                    "memory", "From LongLive Sink Memory; without it, that of the film to go on from, or its defaults."
                ),
                io.Image.Input("start_image", optional=True, tooltip="The film begins with this picture. Needs vae."),
                io.Vae.Input("vae", optional=True, tooltip="Encodes start_image."),
                StateType.Input(
                    "state",
                    optional=True,
                    tooltip="Of another sampler: its film goes on, after a cut, with these shots.",
                ),
                io.Combo.Input(
                    "storyboard",
                    options=list(get_args(Storyboard)),
                    default="off",
                    optional=True,
                    tooltip="only: the first block of every shot, to judge a script by in seconds. first: they are "
                    "made first, then the film whose shots begin with these very blocks.",
                ),
            ],
            outputs=[
                StreamType.Output(display_name="STREAM", tooltip="The film, made while it is drawn."),
                StateType.Output(
                    display_name="STATE", tooltip="Where the film ends, for another sampler to go on from."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool | str:
        try:
            check_sides(width, height)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        conditioning: ShotConditioning,
        width: int,
        height: int,
        seed: int,
        steps: int,
        guidance: float,
        memory: MemoryConfig | None = None,
        start_image: Tensor | None = None,
        vae: comfy.sd.VAE | None = None,
        state: Stream | None = None,
        storyboard: Storyboard = "off",
    ) -> io.NodeOutput:
        stream = make_stream(
            model,
            conditioning,
            size=(width, height),
            seed=seed,
            steps=steps,
            guidance=guidance,
            memory=memory,
            picture=(start_image, vae),
            state=state,
            node=str(cls.hidden.unique_id),
            title="LongLive Streaming Sampler",
            storyboard=storyboard,
        )
        return io.NodeOutput(stream, stream)


def make_stream(
    model: comfy.model_patcher.ModelPatcher,
    conditioning: ShotConditioning,
    *,
    size: tuple[int, int],
    seed: int,
    steps: int,
    guidance: float,
    memory: MemoryConfig | None,
    picture: tuple[Tensor | None, comfy.sd.VAE | None],
    state: Stream | None,
    node: str,
    title: str,
    cut: bool = True,
    storyboard: Storyboard = "off",
) -> Stream:
    """The film of these shots, or of another film and these shots behind it.

    size: (width, height) in pixels. memory: without one, that of the film that goes on, or the defaults. picture: the
    start image and its VAE, of a film that begins here. cut: whether these shots begin with a cut. node, title: who
    makes it. storyboard: of these shots, see `make_film`. Raises ValueError for what cannot be made.
    """
    model = as_causal(model)
    memory = memory or (DEFAULT_MEMORY if state is None else state.memory)
    plan = conditioning.plan if state is None else state.film.plan.then(conditioning.plan, cut)
    shape = PixelShape(1, 1, size[1], size[0]).latent.with_frames(plan.block_frames)
    check_size(model, shape, state)
    embeddings = conditioning.embeddings if state is None else {**state.embeddings, **conditioning.embeddings}
    turn = make_turn(model) if state is None else state.turn
    recipe = Recipe(model, embeddings, conditioning.negative, plan, shape, seed, steps, guidance, memory, turn)
    recipe = replace(recipe, encode=conditioning.encode)
    recipe.check()
    start = encode_start(*picture, model, shape) if state is None else None
    film = make_film(recipe, start, None if state is None else state.film, storyboard)
    if storyboard == "off":
        film.live = LiveScript(conditioning.script or script_of(conditioning.plan), plan)
    asked: Settings = {
        **recipe.asked,
        "start": None if start is None else f"image {latents_digest(start.to('cpu', torch.float32))}",
        "storyboard": storyboard,
    }
    script = conditioning.script if state is None else None
    return Stream(
        film, model, shape, steps, memory, recipe.bytes, node, title, embeddings, turn, state, asked, script, film.live
    )


def make_turn(model: comfy.model_patcher.ModelPatcher) -> Turn:
    """See `Turn`: on a CPU weights stay where they are, and nobody waits."""
    return nullcontext() if model.load_device.type == "cpu" else Lock()


@dataclass(frozen=True)
class Recipe:
    """All that makes a film; called, it starts a generation (`Begin`)."""

    model: comfy.model_patcher.ModelPatcher
    embeddings: Mapping[str, Tensor]
    negative: str
    plan: BlockPlan
    shape: LatentShape
    seed: int
    steps: int
    guidance: float
    memory: MemoryConfig
    turn: Turn
    noise: NoiseSource | None = None
    encode: Callable[[str], Tensor] | None = None

    @property
    def config(self) -> WanConfig:
        return self.model.model.diffusion_model.config

    @property
    def asked(self) -> Settings:
        """What changes a block's bits, but for the weights, the text and the size."""
        own = {"seed": self.seed, "steps": self.steps, "guidance": self.guidance, "negative": self.negative}
        return {**own, **asdict(self.memory)}

    @property
    def bytes(self) -> int:
        """Memory of a draw beside the weights. Raises ValueError where the memory cannot keep such blocks."""
        blocks, branches = len(self.plan.blocks), 1 if self.guidance == 1.0 else 2
        dtype = self.model.model.get_dtype_inference()
        return (
            self.memory.bytes(self.config, self.shape, blocks, branches)
            + self.memory.scratch_bytes(self.config, self.shape, blocks, dtype)
            + activation_bytes(self.config, self.shape, dtype.itemsize)
            + prompt_bytes(self.config, 1 + branches, dtype.itemsize)
        )

    def check(self) -> None:
        """Raises ValueError where the text belongs to another model."""
        widths = {embedding.shape[-1] for embedding in self.embeddings.values()}
        if width := next(iter(widths - {self.config.text_dim}), None):
            raise ValueError(
                f"the conditioning is {width} wide, this model reads text of width {self.config.text_dim}: encode the "
                "shots with the model's own text encoder (umt5-xxl, type wan, for LongLive 5B; LongLive Mini's CLIP "
                "for Mini)"
            )

    def text(self, prompt: str) -> Tensor:
        """The embedding of a prompt; one that came while the film is made is encoded now, and the model comes back."""
        if prompt in self.embeddings or self.encode is None:
            return self.embeddings[prompt]
        with self.turn:
            embedding = self.encode(prompt)
            comfy.model_management.load_models_gpu([self.model], memory_required=self.bytes)
        return embedding

    def __call__(
        self, plan: BlockPlan, known: KnownLatents, on_step: OnStep | None, should_stop: ShouldStop | None
    ) -> Generation:
        model = HostedModel(self.model, self.turn)
        return generate(
            model,
            plan,
            self.text,
            self.memory,
            size=(self.shape.height, self.shape.width),
            steps=self.steps,
            seed=self.seed,
            guidance=self.guidance,
            negative=self.negative,
            known=known,
            noise=self.noise,
            attention=model.attention,
            on_step=on_step,
            should_stop=should_stop,
        )


def make_film(recipe: Recipe, start: Tensor | None, earlier: Drawable | None, storyboard: Storyboard) -> Film:
    """The recipe's film, or in its place ("only") or before it ("first") a storyboard of the shots behind `earlier`."""
    if storyboard == "off":
        return Film(recipe.plan, recipe, start, earlier)
    after = 0 if earlier is None else len(earlier.plan.blocks)
    noise = board_noise(recipe.plan, block_noise(recipe.seed), after)
    board = Film(board_plan(recipe.plan, after), replace(recipe, noise=noise), start, earlier)
    return board if storyboard == "only" else StoryboardFilm(recipe.plan, recipe, board, start, earlier)


def check_size(model: comfy.model_patcher.ModelPatcher, shape: LatentShape, state: Stream | None) -> None:
    """Raises ValueError for a size that the model cannot make, or other than that of the film to go on from."""
    pixels = shape.pixels
    size = f"{pixels.width}x{pixels.height}"
    if isinstance(model.model.latent_format, MiniLatents) and max(pixels.width, pixels.height) > MINI_PIXELS:
        raise ValueError(
            f"size {size}: LongLive Mini makes films of at most {MINI_PIXELS}x{MINI_PIXELS}; set width and height to "
            f"{MINI_PIXELS}, or load LongLive 5B"
        )
    if state is not None and state.shape != shape:
        before = state.shape.pixels
        raise ValueError(
            f"size {size}: the film to go on from is {before.width}x{before.height} in blocks of {state.shape.frames} "
            "latent frames; set the same size"
        )


def encode_start(
    image: Tensor | None, vae: comfy.sd.VAE | None, model: comfy.model_patcher.ModelPatcher, shape: LatentShape
) -> Tensor | None:
    """The start image as the film's first latent frame, `[1, C, 1, h, w]` normalised; only its first picture counts.

    Raises ValueError where image or VAE comes alone, or the VAE is another model's.
    """
    if image is None:
        return None
    if vae is None:
        raise ValueError("start_image needs a VAE to be encoded: connect the vae input too")
    check_pair(vae, model.model.latent_format)
    pixels = shape.pixels
    fitted = comfy.utils.common_upscale(image[:1].movedim(-1, 1), pixels.width, pixels.height, "bilinear", "center")
    latent = vae.encode(fitted.movedim(1, -1)[..., :3])
    return model.model.latent_format.process_in(latent.float())
