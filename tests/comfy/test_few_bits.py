"""Films in few bits in the real server: NVFP4 weights, NVFP4 and FP8 memory, and a LoRA beside them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.weights import convert_checkpoint
from torch import Tensor

from .graphs import (
    MEMORY,
    SCRIPT,
    SHORT,
    Prompt,
    film,
    film_frames,
    latent,
    latents,
    node,
    plan_of,
    save_lora,
    save_model,
    say_mini,
)
from .host import Host

pytestmark = pytest.mark.comfy

LOADER, LORA = "9", "10"


@pytest.fixture(scope="module")
def files(comfy: Host) -> dict[str, str]:
    """Mini's transformer in bf16 and in NVFP4, and a LoRA for all its blocks."""
    mini = load_mini().model
    state = {name: value.bfloat16() for name, value in mini.state_dict().items()}
    source = save_model(comfy, "mini_bf16.safetensors", state, say_mini())
    folder = comfy.base / "models" / "diffusion_models"
    convert_checkpoint(folder / source, folder / "mini_nvfp4.safetensors", format="nvfp4")
    linears = {n: m for n, m in mini.named_modules() if isinstance(m, torch.nn.Linear) and n.startswith("blocks.")}
    lora = save_lora(comfy, "style.safetensors", {n: (m.out_features, m.in_features) for n, m in linears.items()})
    return {"bf16": source, "nvfp4": "mini_nvfp4.safetensors", "lora": lora}


def with_model(prompt: Prompt, name: str, lora: str | None = None) -> Prompt:
    prompt[LOADER] = node("LongLiveModelLoader", model_name=name, precision="auto")
    if lora is not None:
        prompt[LORA] = node("LongLiveDMDLora", model=[LOADER, 0], lora_name=lora, strength=0.8, mode="auto")
    prompt["5"]["inputs"]["model"] = [LORA if lora is not None else LOADER, 0]
    return prompt


def made(comfy: Host, prompt: Prompt) -> Tensor:
    run = comfy.run(prompt, 60)
    assert run.ok, run.error
    return latents(comfy, run)


def test_a_lora_does_to_nvfp4_what_it_does_to_bf16(
    comfy: Host, files: dict[str, str], tell: Callable[[str, str], None]
) -> None:
    """Merged into bf16 and beside NVFP4, the same LoRA moves the first block the same way; and the film is a video."""
    change = {}
    for form, how in (("bf16", "merge"), ("nvfp4", "bypass")):
        plain = made(comfy, with_model(latent(SHORT, 5), files[form]))
        run = comfy.run(with_model(latent(SHORT, 5), files[form], files["lora"]), 60)
        assert run.ok, run.error
        assert run.outputs[LORA]["text"][0].startswith(f"{how}: 60 of 60 layers")
        change[form] = latents(comfy, run) - plain
    apart = float((change["nvfp4"] - change["bf16"]).norm() / change["bf16"].norm())
    alike = float(torch.cosine_similarity(change["nvfp4"].flatten(), change["bf16"].flatten(), dim=0))
    tell("a LoRA on NVFP4 against bf16", f"relative error of what it changes {apart:.3f}, cosine {alike:.4f}")
    assert alike > 0.9
    run = comfy.run(with_model(film(SCRIPT, 5), files["nvfp4"], files["lora"]), 120)
    assert run.ok, run.error
    assert len(film_frames(comfy, run)) == plan_of().video_frames


@pytest.mark.parametrize("kv_format", ["fp8", "nvfp4", "q2"])
def test_a_film_with_a_small_memory_is_nearly_the_same(
    comfy: Host, kv_format: str, tell: Callable[[str, str], None]
) -> None:
    """The film that remembers in few bits stays close to the one in bf16, and is another one."""
    plain = made(comfy, latent(SCRIPT, 5))
    prompt = latent(SCRIPT, 5)
    prompt[MEMORY]["inputs"]["kv_format"] = kv_format
    small = made(comfy, prompt)
    apart = float((small - plain).norm() / plain.norm())
    tell(f"{kv_format} memory against bf16", f"relative error of the film's latents {apart:.4f}")
    assert 0 < apart < 0.3
