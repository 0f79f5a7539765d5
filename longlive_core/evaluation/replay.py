"""Generate a recorded film again and compare every model call with the recorded one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...kernels import unswizzle_scales
from ..memory import BlockKVCache, MemoryConfig
from ..model import CausalWan, KeyValue, KVCache, TextKVCache, WanConfig
from ..sampling.generate import generate
from ..sampling.noise import film_noise
from ..sampling.snapshot import Snapshot
from ..script import BlockPlan
from ..types import FPS, BlockSpec
from ..weights import load_checkpoint
from .recorded import Recorded, relative_error

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(slots=True)
class RecordingModel:
    """Model that compares each call with the recorded one.

    In replay the model gets the recorded samples and the sampler gets the recorded flows, so that rounding passes from
    one call to the next through the KV cache only. `errors` holds the relative error of each compared call.
    """

    model: CausalWan
    case: Recorded
    replay: bool
    timesteps: list[Tensor]
    calls: int = 0
    errors: list[float] = field(default_factory=list[float])
    attended: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])

    @property
    def config(self) -> WanConfig:
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        return self.model.device

    def text_kv(self, text: Tensor) -> tuple[KeyValue, ...]:
        return self.model.text_kv(text)

    def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
        index, call = self.calls, f"call.{self.calls}"
        compared = index in self.case.facts.get("kept_calls", range(len(self.timesteps)))
        self.calls += 1
        if index >= len(self.timesteps) or not torch.equal(t, self.timesteps[index].expand(t.shape).to(t.dtype)):
            raise ValueError(f"{call} at timesteps {t.tolist()} was not recorded: the runs differ in their steps")
        if self.replay and not compared:
            raise ValueError(f"{call} was left out of this thinned file: a replay needs every call")
        shown = self.case.tensors[f"{call}.x"].to(x.dtype) if self.replay else x
        flow: Tensor = self.model(shown, t, text, kv, positions)
        if isinstance(kv, BlockKVCache):
            self.attended.append(kv.frames)
        if not compared:
            return flow
        recorded = self.case.tensors[f"{call}.flow"]
        self.errors.append(relative_error(flow, recorded))
        return recorded if self.replay else flow

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        """Run the whole model, because the recorded clean passes have a flow to compare."""
        self(x, t, text, kv, positions)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Comparison of a film with the recorded one: relative errors of its latents and of each compared call.

    attended: latent frames that each call attended to. cache_equal: share of equal bytes (codes and scales) in an NVFP4
    KV cache; None for other formats. calls: number of all model calls.
    """

    output_error: float
    call_errors: tuple[float, ...]
    attended: tuple[tuple[int, ...], ...]
    cache_equal: float | None
    calls: int


def run_case(case: Recorded, *, replay: bool) -> Replayed:
    """Generate the film of a recorded run of kind "generate", with or without replay.

    Raises ValueError if the film takes another number of model calls or other timesteps than recorded.
    """
    run = case.facts["run"]
    model = RecordingModel(load_model(case), case, replay, case.timesteps())
    embeddings = dict(zip(case.facts["prompt_table"], case.tensors["prompt_embeds"], strict=True))
    noise = case.tensors["noise"].transpose(1, 2)
    image = case.tensors["initial_latent"].transpose(1, 2) if run["image_to_video"] else None
    blocks = generate(
        model,
        case_plan(case),
        embeddings.__getitem__,
        case_memory(run),
        size=(noise.shape[-2], noise.shape[-1]),
        steps=run["steps"],
        shift=run["shift"],
        guidance=run["guidance"],
        negative="NEG",
        batch=noise.shape[0],
        prefix=image,
        noise=film_noise(noise),
    )
    film = torch.cat([block.latents for block in blocks], dim=2).transpose(1, 2)
    equal = cache_equal(case, blocks.snapshot()) if run["kv_format"] == "nvfp4" else None
    if missing := len(model.timesteps) - model.calls:
        raise ValueError(
            f"{missing} of {len(model.timesteps)} recorded calls were not made: the runs differ in their steps"
        )
    error = relative_error(film, case.tensors["output"])
    return Replayed(error, tuple(model.errors), tuple(model.attended), equal, model.calls)


def cache_equal(case: Recorded, snapshot: Snapshot) -> float:
    """Share of equal bytes, codes and scales, between an NVFP4 KV cache and the recorded one.

    The recorded blocks are in film order and their scales are swizzled.
    """
    slots = sorted(range(len(snapshot.window.blocks)), key=snapshot.window.blocks.__getitem__)
    stores = [f"cache.{layer}.{part}" for layer in range(case.facts["model"]["num_layers"]) for part in "kv"]
    # Each store has four tensors in the snapshot; codes and scales come first.
    parts = iter(snapshot.pools[0])
    equal: list[Tensor] = []
    for store, values, scales, *_ in zip(stores, parts, parts, parts, parts, strict=True):
        for block, slot in enumerate(slots):
            codes = case.tensors[f"{store}.{block}.values"]
            blocked = case.tensors[f"{store}.{block}.scales"]
            recorded = codes, unswizzle_scales(blocked, codes.shape[0], codes.shape[1] // 8)
            ours = (part[0, slot].view(torch.uint8) for part in (values, scales))
            equal += [(a.view(b.shape) == b).flatten() for a, b in zip(ours, recorded, strict=True)]
    return float(torch.cat(equal).double().mean())


def load_model(case: Recorded) -> CausalWan:
    """Load the run's model in the run's dtype; FourOverSix weights stay packed and activations become NVFP4."""
    run, facts = case.facts["run"], case.facts["model"]
    if run.get("weight_format") == "fouroversix":
        path = case.path.parent / str(case.facts["weights"])
        return load_checkpoint(path, dtype=DTYPES[run["dtype"]], text_len=facts["text_len"], activations="nvfp4")
    model = CausalWan(WanConfig.from_mapping(facts), device="meta")
    model.load_state_dict(case.weights(), assign=True)
    return model.to(DTYPES[run["dtype"]]).requires_grad_(False).eval()


def case_plan(case: Recorded) -> BlockPlan:
    """Block plan of a recorded run: a prompt with the scene-transition prefix starts a new shot."""
    frames: int = case.facts["run"]["block_frames"]
    blocks: list[BlockSpec] = []
    shot = 0
    for index, prompt in enumerate(case.facts["prompts"]):
        cut = index > 0 and prompt.startswith(case.facts["cut_prefix"])
        shot += cut
        blocks.append(BlockSpec(index, shot, prompt, cut, None, index * frames, frames))
    return BlockPlan(tuple(blocks), float(FPS), frames)


def case_memory(run: dict[str, Any]) -> MemoryConfig:
    """`MemoryConfig` of a recorded run, from its fact `run`."""
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
