"""Prompts in API form that several tests queue, and readers of what they leave behind."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.script import BlockPlan, ShotScript
from longlive.longlive_core.video import read_video
from safetensors.torch import load_file, save_file
from torch import Tensor

from .host import Host, checkout, python
from .run import Json, Run

MINI, SHOTS, TEXT, MEMORY, SAMPLER, FILM = "1", "2", "3", "4", "5", "6"

SCRIPT = """hero: a big red ring

Shot 1 (4s): {hero} sways on the left in front of a plain forest wall
Shot 2 (4s): {hero} circles in the middle against a striped navy wall
"""
SHORT = "Shot 1 (1.33s): a big red ring rests in the middle against a plain forest wall"

Prompt = dict[str, Json]
Link = list[Any]


def node(kind: str, **inputs: object) -> Json:
    """One node of a prompt; a link is `[node id, output]`."""
    return {"class_type": kind, "inputs": inputs}


def stream(script: str = SCRIPT, seed: int = 3, **sampler: object) -> Prompt:
    """LongLive Mini from a script to a STREAM, which nobody draws yet."""
    return {
        MINI: node("LongLiveMini"),
        SHOTS: node("LongLiveShotScript", script=script, default_seconds=4.0, fps=24.0),
        TEXT: node("LongLiveEncodeShots", clip=[MINI, 1], shots=[SHOTS, 0], negative=""),
        MEMORY: node(
            "LongLiveSinkMemory",
            window=32,
            global_sink=8,
            shot_sink=True,
            rope_offset=8.0,
            kv_format="bf16",
            clean_recache=False,
        ),
        SAMPLER: node(
            "LongLiveStreamingSampler",
            **{
                "model": [MINI, 0],
                "conditioning": [TEXT, 0],
                "memory": [MEMORY, 0],
                "width": 128,
                "height": 128,
                "seed": seed,
                "steps": 4,
                "guidance": 1.0,
                **sampler,
            },
        ),
    }


def decoded(source: Link, codec: str = "h264", **inputs: object) -> Json:
    """LongLive Async Decode of a STREAM with Mini's VAE."""
    return node(
        "LongLiveAsyncDecode",
        stream=source,
        vae=[MINI, 2],
        **{"filename_prefix": "video/LongLive", "codec": codec, "quality": "high", **inputs},
    )


def film(script: str = SCRIPT, seed: int = 3, codec: str = "h264", **sampler: object) -> Prompt:
    """LongLive Mini from a script to a film on disk."""
    return {**stream(script, seed, **sampler), FILM: decoded([SAMPLER, 0], codec)}


def latent(script: str = SCRIPT, seed: int = 3, **sampler: object) -> Prompt:
    """LongLive Mini from a script to a LATENT on disk, saved by node 8 of core."""
    return {**stream(script, seed, **sampler), **kept_latent([SAMPLER, 0])}


def kept_latent(source: Link, to_latent: str = "7", save: str = "8") -> Prompt:
    """A STREAM as LATENT in the output folder."""
    return {
        to_latent: node("LongLiveStreamToLatent", stream=source),
        save: node("SaveLatent", samples=[to_latent, 0], filename_prefix="latents/LongLive"),
    }


def plan_of(script: str = SCRIPT) -> BlockPlan:
    """What LongLive ShotScript plans for a script."""
    return ShotScript.parse(script).plan(24.0)


def film_path(host: Host, run: Run, id: str = FILM) -> Path:
    """The file that LongLive Async Decode reports."""
    (saved,) = run.outputs[id]["video"]
    return host.file(saved)


def film_frames(host: Host, run: Run, id: str = FILM) -> Tensor:
    """What that file plays, `[T, H, W, 3]` uint8."""
    return read_video(film_path(host, run, id))


def latents(host: Host, run: Run, id: str = "8") -> Tensor:
    """The tensor that SaveLatent wrote, `[1, C, F, h, w]`."""
    (saved,) = run.outputs[id]["latents"]
    return load_file(host.file(saved))["latent_tensor"]


def sampled(run: Run) -> bool:
    """Whether a denoising step ran, as told by the sampler's line of text."""
    return any(" fps " in line for line in run.texts[SAMPLER])


def say_mini(**more: object) -> dict[str, str]:
    """The metadata with which Mini's transformer is loaded as a checkpoint like any other."""
    config = asdict(load_mini().model.config)
    told = {name: config[name] for name in ("num_heads", "text_len", "eps")}
    return {"longlive": json.dumps({**told, "causal": True, **more})}


def save_model(host: Host, name: str, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """A file in models/diffusion_models; returns its name."""
    tensors = {key: tensor.contiguous() for key, tensor in state.items()}
    save_file(tensors, host.base / "models" / "diffusion_models" / name, metadata)
    return name


def save_lora(host: Host, name: str, layers: dict[str, tuple[int, int]], rank: int = 4, scale: float = 0.1) -> str:
    """A random LoRA in models/loras for layers of shape (out, in); returns its name."""
    draw = torch.Generator().manual_seed(7)
    tensors: dict[str, Tensor] = {}
    for layer, (rows, columns) in layers.items():
        tensors[f"diffusion_model.{layer}.lora_A.weight"] = torch.randn(rank, columns, generator=draw) * scale
        tensors[f"diffusion_model.{layer}.lora_B.weight"] = torch.randn(rows, rank, generator=draw) * scale
    save_file(tensors, host.base / "models" / "loras" / name)
    return name


def in_host(code: str, *arguments: object) -> str:
    """What a piece of Python prints that is run by ComfyUI's Python, in its checkout."""
    folder = checkout()
    assert folder is not None
    head = "import sys\nsys.path.insert(0, '.')\nfrom comfy.cli_args import args as cli\ncli.cpu = True\n"
    command = [python(folder), "-c", head + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
