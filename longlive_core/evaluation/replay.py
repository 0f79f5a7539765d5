"""Generates a recorded film again and compares its model calls with the recorded ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...kernels import unswizzle_scales
from ..memory import BlockKVCache, MemoryConfig
from ..model import CausalWan, FlowModel, KVCache, TextKVCache, WanConfig
from ..sampling import LedModel
from ..sampling.generate import generate
from ..sampling.noise import film_noise
from ..sampling.snapshot import Snapshot
from ..script import BlockPlan
from ..types import FPS, BlockSpec
from ..weights import load_checkpoint
from .recorded import RecordedRun, relative_error

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ComparedModel:
    """A model whose calls are compared with those of a recorded run.

    replay: run each call on the recorded sample and return the recorded flow. Then rounding errors pass from one call
    to another through the KV cache only.
    timesteps: of each recorded call. calls: number of calls so far. errors: relative L2 of each compared call; a
    thinned file leaves out calls. attended: latent frames that each call attended to.
    """

    def __init__(self, recorded: RecordedRun, model: FlowModel, *, replay: bool) -> None:
        self.model = model
        self.config, self.dtype, self.device = self.model.config, self.model.dtype, self.model.device
        self.text_kv = self.model.text_kv
        self.recorded, self.replay, self.timesteps = recorded, replay, recorded.timesteps()
        self.calls = 0
        self.errors: list[float] = []
        self.attended: list[tuple[int, ...]] = []

    def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
        index, call = self.calls, f"call.{self.calls}"
        compared = index in self.recorded.metadata.get("kept_calls", range(len(self.timesteps)))
        self.calls += 1
        if index >= len(self.timesteps) or not (t == self.timesteps[index].to(t.dtype)).all():
            raise ValueError(f"{call} at timesteps {t.tolist()} was not recorded: the runs have different steps")
        if self.replay and not compared:
            raise ValueError(f"{call} is not in this thinned file, but a replay needs every call")
        sample = self.recorded.tensors[f"{call}.x"].to(x.dtype) if self.replay else x
        flow: Tensor = self.model(sample, t, text, kv, positions)
        if isinstance(kv, BlockKVCache):
            self.attended.append(kv.frames)
        if not compared:
            return flow
        recorded_flow = self.recorded.tensors[f"{call}.flow"]
        self.errors.append(relative_error(flow, recorded_flow))
        return recorded_flow if self.replay else flow

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        """Runs the whole model, because recorded clean passes have a flow."""
        self(x, t, text, kv, positions)


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Result of generating a recorded film again. Errors are relative L2.

    call_errors: of each compared call. attended: latent frames that each call attended to. equal_cache_share: share of
    the recorded bytes of an NVFP4 KV cache, codes and scales, that are equal; None for other formats. calls: number of
    all calls.
    """

    output_error: float
    call_errors: tuple[float, ...]
    attended: tuple[tuple[int, ...], ...]
    equal_cache_share: float | None
    calls: int


def regenerate(recorded: RecordedRun, *, replay: bool, led: LedModel | None = None) -> ReplayResult:
    """Generates the film of a recorded run of kind `generate`. replay: see `ComparedModel`.

    led: its model on several ranks. Raises ValueError if the film takes other model calls than the recorded one.
    """
    run = recorded.metadata["run"]
    model = ComparedModel(recorded, load_model(recorded) if led is None else led, replay=replay)
    embeddings = dict(zip(recorded.metadata["prompt_table"], recorded.tensors["prompt_embeds"], strict=True))
    noise = recorded.tensors["noise"].transpose(1, 2)
    image = recorded.tensors["initial_latent"].transpose(1, 2) if run["image_to_video"] else None
    blocks = generate(
        model,
        recorded_plan(recorded),
        embeddings.__getitem__,
        recorded_memory_config(run),
        size=(noise.shape[-2], noise.shape[-1]),
        steps=run["steps"],
        shift=run["shift"],
        guidance=run["guidance"],
        negative="NEG",  # the name of the negative prompt in the recorded prompt table
        batch=noise.shape[0],
        prefix=image,
        noise=film_noise(noise),
        pools=led,
    )
    film = torch.cat([block.latents for block in blocks], dim=2).transpose(1, 2)
    equal = equal_cache_share(recorded, blocks.snapshot()) if run["kv_format"] == "nvfp4" else None
    count = len(model.timesteps)
    if missing := count - model.calls:
        raise ValueError(f"{missing} of {count} recorded calls were not made: the runs have different steps")
    error = relative_error(film, recorded.tensors["output"])
    return ReplayResult(error, tuple(model.errors), tuple(model.attended), equal, model.calls)


def equal_cache_share(recorded: RecordedRun, snapshot: Snapshot) -> float:
    """Share of the recorded bytes of an NVFP4 KV cache, codes and scales, that equal ours.

    The recorded blocks are in the order of the film, and their scales are swizzled.
    """
    slots = sorted(range(len(snapshot.window.blocks)), key=snapshot.window.blocks.__getitem__)
    stores = [f"cache.{layer}.{part}" for layer in range(recorded.metadata["model"]["num_layers"]) for part in "kv"]
    # Four tensors for each store, in this order: codes, scales, amax and mean.
    parts = iter(snapshot.pools[0])
    equal: list[Tensor] = []
    for store, values, scales, *_ in zip(stores, parts, parts, parts, parts, strict=True):
        for index, slot in enumerate(slots):
            codes = recorded.tensors[f"{store}.{index}.values"]
            swizzled = recorded.tensors[f"{store}.{index}.scales"]
            rows = unswizzle_scales(swizzled, codes.shape[0], codes.shape[1] // 8)
            for ours, theirs in ((values, codes), (scales, rows)):
                equal.append((ours[0, slot].view(torch.uint8).view(theirs.shape) == theirs).flatten())
    return float(torch.cat(equal).double().mean())


def load_model(recorded: RecordedRun) -> CausalWan:
    """The model of a recorded run, in its dtype. With FourOverSix weights, activations are rounded too."""
    run, metadata = recorded.metadata["run"], recorded.metadata["model"]
    if run.get("weight_format") == "fouroversix":
        path = recorded.weights_path()
        return load_checkpoint(path, dtype=DTYPES[run["dtype"]], text_len=metadata["text_len"], activations="nvfp4")
    model = CausalWan(WanConfig.from_mapping(metadata), device="meta")
    model.load_state_dict(recorded.weights(), assign=True)
    return model.to(DTYPES[run["dtype"]]).requires_grad_(False).eval()


def recorded_plan(recorded: RecordedRun) -> BlockPlan:
    """The block plan of a recorded run. A prompt that begins with the cut prefix starts a shot."""
    frames: int = recorded.metadata["run"]["block_frames"]
    blocks: list[BlockSpec] = []
    shot = 0
    for index, prompt in enumerate(recorded.metadata["prompts"]):
        cut = index > 0 and prompt.startswith(recorded.metadata["cut_prefix"])
        shot += cut
        blocks.append(BlockSpec(index, shot, prompt, cut, None, index * frames, frames))
    return BlockPlan(tuple(blocks), FPS, frames)


def recorded_memory_config(run: dict[str, Any]) -> MemoryConfig:
    """The `MemoryConfig` of a recorded run. run: the metadata `run` of the file."""
    return MemoryConfig(
        window=run["window"],
        sink=run["sink"],
        shot_sink=run["shot_sink"],
        kv_format=run["kv_format"],
        smoothing="reference" if run.get("reference_k_smooth") else "none",
        shot_clean_recache=run["shot_clean_recache"],
        relative_rope=run["relative_rope"],
        rope_offset=run["rope_offset"],
        t_scale=run["t_scale"],
    )
