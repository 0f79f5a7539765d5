"""Records this folder's runs: the formats of `longlive verify`, made by this engine on small random weights.

    python tests/golden/record.py            writes the files anew, the same bytes on the same machine and torch

They hold the engine to what it computed when it agreed with the reference, for clones that have no reference runs
beside them. Record anew only for a change that is meant to change numbers, and only while the reference runs agree.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from longlive.kernels import RULES
from longlive.longlive_core.evaluation.recorded import FORMAT, RecordedRun
from longlive.longlive_core.evaluation.replay import recorded_memory_config, recorded_plan
from longlive.longlive_core.evaluation.vectors import quantize_with_rule
from longlive.longlive_core.memory import BlockKVCache
from longlive.longlive_core.model import CausalWan, KeyValue, KVCache, TextKVCache, WanConfig
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.sampling.noise import film_noise
from longlive.longlive_core.training.schedule import TimestepTable, add_noise, clean_from_flow
from longlive.longlive_core.training.teacher_forcing import plain_flow, teacher_forced_flow
from longlive.longlive_core.vae import VAEConfig, WanVAE
from safetensors.torch import save
from torch import Tensor, nn

CONFIG = WanConfig(
    dim=48, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=16, text_dim=16, text_len=8, channels=4
)  # fmt: skip
VAE = VAEConfig(dim=4, dec_dim=4, latent_channels=4, dim_mult=(1, 2, 2, 2))
WEIGHTS = "weights_small.safetensors"
SIZE = (4, 6)
CUT = "The scene transitions. "
RUN: dict[str, Any] = {
    "block_frames": 2, "window": 8, "sink": 2, "shot_sink": True, "rope_offset": 8.0, "t_scale": 1.0, "guidance": 1.0,
    "steps": 4, "shift": 5.0, "shot_clean_recache": False, "relative_rope": False, "image_to_video": False,
    "kv_format": "float32", "dtype": "float32",
}  # fmt: skip
# Prompts of a film, `|` before a cut, and what differs from RUN.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "roll": ("A A A |B B B |C C C", {}),
    "relative_rope": ("A A A |B B B B", {"relative_rope": True, "steps": 2}),
    "guidance": ("A A |B", {"guidance": 3.0, "steps": 2}),
    "image": ("A A |B", {"image_to_video": True}),
    "clean_recache": ("A A A |B B B", {"shot_clean_recache": True, "steps": 2}),
}


@dataclass(slots=True)
class RecorderModel:
    """A model that keeps what it was shown, what it answered and which frames it attended."""

    model: CausalWan
    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    attended: list[list[int]] = field(default_factory=list[list[int]])

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
        flow: Tensor = self.model(x, t, text, kv, positions)
        call = f"call.{len(self.attended)}"
        self.tensors |= {f"{call}.x": x.clone(), f"{call}.t": t.clone(), f"{call}.flow": flow.clone()}
        assert isinstance(kv, BlockKVCache)
        self.attended.append(list(kv.frames))
        return flow

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        """Recorded clean passes have a flow, so that they are run to their end."""
        self(x, t, text, kv, positions)


@torch.no_grad()
def record(folder: Path) -> None:
    """Writes every file into the folder."""
    model = CausalWan(CONFIG).requires_grad_(False)
    randomise(model, seed=1)
    write(folder / WEIGHTS, dict(model.state_dict()), {})
    for seed, (name, (film, changes)) in enumerate(CASES.items(), start=10):
        record_film(folder / f"generate_{name}.safetensors", model, film, RUN | changes, seed)
    record_teacher_forcing(folder / "teacher_forcing.safetensors", model, seed=2)
    record_vae(folder / "vae.safetensors", seed=3)
    record_nvfp4(folder / "nvfp4.safetensors", seed=4)


def record_film(path: Path, model: CausalWan, film: str, run: dict[str, Any], seed: int) -> None:
    """A case of kind generate: inputs from the seed, every call, and the film."""
    prompts = [word.replace("|", CUT) for word in film.split()]
    table = ["NEG", *dict.fromkeys(prompts)]
    random = torch.Generator().manual_seed(seed)
    shape = (1, len(prompts) * run["block_frames"], CONFIG.channels, *SIZE)
    tensors = {"noise": torch.randn(shape, generator=random), "prompt_embeds": embeddings(len(table), random)}
    if run["image_to_video"]:
        tensors["initial_latent"] = torch.randn(shape[0], 1, *shape[2:], generator=random)
    metadata = described("generate", run) | {"prompts": prompts, "prompt_table": table, "cut_prefix": CUT}
    case = RecordedRun(path, metadata, tensors)
    recorder = RecorderModel(model)
    blocks = generate(
        recorder,
        recorded_plan(case),
        dict(zip(table, tensors["prompt_embeds"], strict=True)).__getitem__,
        recorded_memory_config(run),
        size=SIZE,
        steps=run["steps"],
        shift=run["shift"],
        guidance=run["guidance"],
        negative="NEG",
        prefix=tensors["initial_latent"].transpose(1, 2) if run["image_to_video"] else None,
        noise=film_noise(tensors["noise"].transpose(1, 2)),
    )
    output = torch.cat([block.latents for block in blocks], dim=2).transpose(1, 2)
    metadata |= {"attended": recorder.attended, "calls": calls(case, recorder)}
    write(path, tensors | recorder.tensors | {"output": output}, metadata)


def calls(case: RecordedRun, recorder: RecorderModel) -> list[dict[str, Any]]:
    """What each call was: every step and the clean pass of a block, the prompt's branch before the negative one's."""
    run = case.metadata["run"]
    branches = ["cond"] if run["guidance"] == 1 else ["cond", "uncond"]
    passes = [
        (block.start, run["rope_offset"] * block.shot, branch)
        for block in recorded_plan(case).blocks
        for _ in range(run["steps"] + 1)
        for branch in branches
    ]
    return [
        {"branch": branch, "t": recorder.tensors[f"call.{i}.t"][0].tolist(), "start": start, "rope_offset": offset}
        for i, (start, offset, branch) in enumerate(passes)
    ]


def record_teacher_forcing(path: Path, model: CausalWan, seed: int) -> None:
    """Three blocks, a cut before the second, each with a timestep of its own."""
    random = torch.Generator().manual_seed(seed)
    table, frames = TimestepTable.shifted(), RUN["block_frames"]
    clean, noise = torch.randn(2, 1, 3 * frames, CONFIG.channels, *SIZE, generator=random)
    entries = torch.tensor([[150, 900, 500]]).repeat_interleave(frames, dim=1)
    t, sigma = table.timesteps[entries], table.sigmas[entries][:, :, None, None, None]
    noisy, text = add_noise(clean, noise, sigma), embeddings(3, random)
    offset = torch.tensor([0.0, 8.0, 8.0]).repeat_interleave(frames)
    positions = torch.arange(3 * frames, dtype=torch.float64) + offset.double()
    history, target, prompts = clean.transpose(1, 2), noisy.transpose(1, 2), torch.arange(3).unsqueeze(0)
    forced = teacher_forced_flow(
        model, history, target.unsqueeze(1), t.unsqueeze(1), text, prompts, positions, frames
    )  # fmt: skip
    flows = {"tf": forced.squeeze(1), "plain": plain_flow(model, target, t, text, prompts, positions, frames)}
    tensors = {
        "clean": clean, "noise": noise, "noisy": noisy, "timestep": t, "rope_offset": offset, "prompt_embeds": text,
        "sigmas": table.sigmas, "timesteps": table.timesteps, "weight": table.weights[entries].flatten(),
    }  # fmt: skip
    for name, flow in flows.items():
        tensors[f"{name}.flow"] = flow.transpose(1, 2)
        tensors[f"{name}.x0"] = clean_from_flow(noisy, tensors[f"{name}.flow"], sigma)
    write(path, tensors, described("teacher_forcing", {"block_frames": frames, "dtype": "float32"}))


def record_vae(path: Path, seed: int) -> None:
    """Nine frames of 32x32 pixels to latents, and other latents to as many frames."""
    vae = WanVAE(VAE).requires_grad_(False)
    randomise(vae, seed)
    random = torch.Generator().manual_seed(seed)
    video = torch.rand(1, 3, 9, 32, 32, generator=random) * 2 - 1
    latent = torch.randn(1, VAE.latent_channels, 3, 2, 2, generator=random)
    tensors = {"video": video, "encoded": vae.encode(video), "latent": latent, "decoded": vae.decode(latent)}
    model = asdict(VAE)
    model["z_dim"] = model.pop("latent_channels")
    metadata = {name: value for name, value in model.items() if name not in ("mean", "std")}
    weights = {f"weights.{name}": value for name, value in vae.state_dict().items()}
    write(path, tensors | weights, {"format": FORMAT, "kind": "vae", "source": source(), "model": metadata})


def record_nvfp4(path: Path, seed: int) -> None:
    """A matrix of odd size by every rule, with an outlier, a row of zeros and values that round to zero."""
    x = torch.randn(40, 80, generator=torch.Generator().manual_seed(seed))
    x[0, 0], x[3] = 40.0, 0.0
    x[5, :16] *= 1e-4
    tensors = {"x": x.bfloat16()}
    for rule in (*RULES, "mse2d", "static6_2d"):
        tensors |= {f"x.{rule}.{part}": value for part, value in quantize_with_rule(tensors["x"], rule).items()}
    write(path, tensors, {"format": FORMAT, "kind": "nvfp4", "source": source()})


def randomise(model: nn.Module, seed: int) -> None:
    """Weights as if trained: nothing is zero, nothing is exactly one, and every layer keeps its input's size."""
    random = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=random)
        if name.endswith("modulation"):
            value.copy_(0.3 * noise)
        elif ("norm" in name and name.endswith("weight")) or name.endswith("gamma"):
            value.copy_(1 + 0.2 * noise)
        elif name.endswith("bias"):
            value.copy_(0.1 * noise)
        else:
            value.copy_(noise / value[0].numel() ** 0.5)


def embeddings(prompts: int, random: torch.Generator) -> Tensor:
    """Prompts of a few tokens each, zero-padded to the model's length."""
    text = torch.randn(prompts, CONFIG.text_len, CONFIG.text_dim, generator=random)
    for row in range(prompts):
        text[row, 3 + row % 3 :] = 0
    return text


def described(kind: str, run: dict[str, Any]) -> dict[str, Any]:
    """The facts that cases of the transformer share."""
    return {
        "format": FORMAT, "kind": kind, "source": source(), "model": asdict(CONFIG), "weights": WEIGHTS, "run": run
    }  # fmt: skip


def source() -> str:
    """Where the numbers come from."""
    return "LongLive for ComfyUI, its own engine, random weights, float32, CPU"


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """One safetensors file; its header is sorted, because the library orders metadata anew each time."""
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    data = save({name: value.contiguous() for name, value in tensors.items()}, metadata or None)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])


if __name__ == "__main__":
    record(Path(__file__).parent)
