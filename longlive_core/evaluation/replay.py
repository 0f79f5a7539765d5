"""Makes a recorded film again and compares every model call on the way."""

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
from ..types import BlockSpec
from ..weights import load_checkpoint
from .recorded import Recorded, relative_error

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(slots=True)
class RecordingModel:
    """A model that is compared call by call. In replay it is shown the recorded samples and answers with the recorded
    flows, so that no call inherits another's rounding except through the keys and values it left.

    `errors` has one figure for each compared call; a thinned case holds the flow of some calls only.
    """

    model: CausalWan
    case: Recorded
    replay: bool
    made: int = 0
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
        call = f"call.{self.made}"
        compared = self.case.keeps_call(self.made)
        recorded_t = self.case.call_timesteps(self.made)
        self.made += 1
        if recorded_t is None or not torch.equal(t, recorded_t.expand(t.shape).to(t.dtype)):
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
        """The recorded clean passes have a flow, so that they are run to their end."""
        self(x, t, text, kv, positions)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Errors of the film and of each compared call, the frames that each call attended, and of a run with NVFP4 memory,
    the share of recorded cache bytes (codes and scales) that ours is equal to. `calls` counts all calls of the film."""

    output_error: float
    call_errors: tuple[float, ...]
    attended: tuple[tuple[int, ...], ...]
    cache_equal: float | None
    calls: int


def run_case(case: Recorded, *, replay: bool) -> Replayed:
    """Makes the film of a case of kind generate: freely, or in replay."""
    run = case.facts["run"]
    model = RecordingModel(load_model(case), case, replay)
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
    if missing := case.calls - model.made:
        raise ValueError(f"{missing} of {case.calls} recorded calls were not made: the runs differ in their steps")
    error = relative_error(film, case.tensors["output"])
    return Replayed(error, tuple(model.errors), tuple(model.attended), equal, model.made)


def cache_equal(case: Recorded, snapshot: Snapshot) -> float:
    """The share of the recorded bytes of an NVFP4 memory, codes and scales of all kept blocks, that ours equals.

    The recorded ones are in film order, with swizzled scales.
    """
    slots = sorted(range(len(snapshot.window.blocks)), key=snapshot.window.blocks.__getitem__)
    stores = [f"cache.{layer}.{part}" for layer in range(case.facts["model"]["num_layers"]) for part in "kv"]
    parts = iter(snapshot.pools[0])
    equal = count = 0
    for store, values, scales, *_ in zip(stores, parts, parts, parts, parts, strict=True):
        for place, slot in enumerate(slots):
            codes = case.tensors[f"{store}.{place}.values"]
            blocked = case.tensors[f"{store}.{place}.scales"]
            wanted = unswizzle_scales(blocked, codes.shape[0], codes.shape[1] // 8)
            for ours, theirs in ((values, codes), (scales, wanted)):
                same = ours[0, slot].view(torch.uint8).view(theirs.shape) == theirs
                equal, count = equal + int(same.sum()), count + same.numel()
    return equal / count


def load_model(case: Recorded) -> CausalWan:
    """The case's model in the case's dtype; FourOverSix weights stay packed, and its activations are rounded too."""
    run, facts = case.facts["run"], case.facts["model"]
    if run.get("weight_format") == "fouroversix":
        path = case.path.parent / str(case.facts["weights"])
        return load_checkpoint(path, dtype=DTYPES[run["dtype"]], text_len=facts["text_len"], activations="nvfp4")
    model = CausalWan(WanConfig.from_mapping(facts), device="meta")
    model.load_state_dict(case.weights(), assign=True)
    return model.to(DTYPES[run["dtype"]]).requires_grad_(False).eval()


def case_plan(case: Recorded) -> BlockPlan:
    """Blocks from the prompts: one that begins with the cut prefix starts a shot."""
    frames: int = case.facts["run"]["block_frames"]
    blocks: list[BlockSpec] = []
    shot = 0
    for index, prompt in enumerate(case.facts["prompts"]):
        cut = index > 0 and prompt.startswith(case.facts["cut_prefix"])
        shot += cut
        blocks.append(BlockSpec(index, shot, prompt, cut, None, index * frames, frames))
    return BlockPlan(tuple(blocks), 24.0, frames)


def case_memory(run: dict[str, Any]) -> MemoryConfig:
    """The memory a run was recorded with."""
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
