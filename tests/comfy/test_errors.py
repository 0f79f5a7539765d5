"""What a creator reads when something is wrong: the thing, its value, and what to do; and the server lives on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
import torch
from longlive.longlive_core.model import CausalWan, WanConfig
from safetensors.torch import save_file

from .graphs import FILM, MINI, SAMPLER, SHORT, SHOTS, Prompt, decoded, film, in_host, node, save_lora, stream
from .host import Host, Refused

pytestmark = pytest.mark.comfy

# A tiny transformer with Wan 2.2 5B's names and channels, and text as wide as umt5-xxl's.
TINY = WanConfig(
    dim=128, ffn_dim=256, num_heads=1, num_layers=1, freq_dim=256, text_dim=4096, text_len=512, channels=48
)
SEEDS = count(1000)
WAN21_VAE = """
import torch
from safetensors.torch import save_file
from comfy.ldm.wan.vae import WanVAE
torch.manual_seed(1)
vae = WanVAE(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
             temperal_downsample=[False, True, True], image_channels=3, conv_out_channels=3, dropout=0.0)
save_file({name: tensor.contiguous() for name, tensor in vae.state_dict().items()}, sys.argv[1])
"""


@pytest.fixture(scope="module", autouse=True)
def files(comfy: Host) -> None:
    """The files that are wrong, among the server's models."""
    models = comfy.base / "models"
    torch.manual_seed(1)
    wan = CausalWan(TINY)
    wan.init_weights()
    tensors = {name: tensor.half().contiguous() for name, tensor in wan.state_dict().items()}
    for name in ("tiny_wan.safetensors", "wan2.2_ti2v_5B_fp16.safetensors"):
        save_file(tensors, models / "diffusion_models" / name)
    whole = (models / "diffusion_models" / "tiny_wan.safetensors").read_bytes()
    (models / "diffusion_models" / "torn.safetensors").write_bytes(whole[: len(whole) * 2 // 3])
    save_lora(comfy, "narrow.safetensors", {"blocks.0.self_attn.q": (1536, 1536), "blocks.1.ffn.0": (8960, 1536)})
    in_host(WAN21_VAE, models / "vae" / "wan_2.1_vae.safetensors")


def bad_script() -> Prompt:
    return film("hero: a big red ring\n\nShot 1 (4s): {hera} sways")


def bad_length() -> Prompt:
    return film("Shot 1 (4 bananas): a big red ring sways")


def size_130() -> Prompt:
    return film(SHORT, width=130, height=130)


def ordinary_by_name() -> Prompt:
    return film(SHORT) | {
        "9": node("LongLiveModelLoader", model_name="wan2.2_ti2v_5B_fp16.safetensors", precision="auto"),
        **sampler_with(model=["9", 0]),
    }


def torn() -> Prompt:
    return film(SHORT) | {
        "9": node("LongLiveModelLoader", model_name="torn.safetensors", precision="auto"),
        **sampler_with(model=["9", 0]),
    }


def missing_file() -> Prompt:
    return film(SHORT) | {
        "9": node("LongLiveModelLoader", model_name="absent.safetensors", precision="auto"),
        **sampler_with(model=["9", 0]),
    }


def sampler_with(**inputs: object) -> Prompt:
    """The sampler of the film with other inputs, and who draws it."""
    prompt = stream(SHORT, **inputs)
    return {SAMPLER: prompt[SAMPLER], FILM: decoded([SAMPLER, 0])}


@pytest.mark.parametrize(
    ("what", "prompt", "id", "parts"),
    [
        ("bad script", bad_script, SHOTS, ["line 3", "column", "hera", "hero"]),
        ("bad length", bad_length, SHOTS, ["line 1", "column", "bananas"]),
        ("size 130", size_130, SAMPLER, ["130", "32"]),
        (
            "ordinary Wan by name",
            ordinary_by_name,
            "9",
            ["wan2.2_ti2v_5B_fp16.safetensors", "ordinary (bidirectional) Wan2.2", "LongLive-2.0-5B"],
        ),
        ("truncated file", torn, "9", ["torn.safetensors", "truncated", "again"]),
        ("a file that is not there", missing_file, "9", ["absent.safetensors"]),
    ],
)
def test_refused_before_it_runs(
    comfy: Host,
    tell: Callable[[str, str], None],
    what: str,
    prompt: Callable[[], Prompt],
    id: str,
    parts: list[str],
) -> None:
    """What can be known before the film is made is refused when it is queued, at the node to change."""
    with pytest.raises(Refused) as refused:
        comfy.queue(prompt())
    tell(f"{what} (refused at the queue)", "\n".join(refused.value.messages))
    assert id in refused.value.node_errors
    message = "\n".join(line for line in refused.value.messages if line.startswith(id + " "))
    for part in parts:
        assert part in message
    assert usable(comfy)


def ordinary_loaded() -> Prompt:
    return film(SHORT) | {
        "9": node("UNETLoader", unet_name="tiny_wan.safetensors", weight_dtype="default"),
        **sampler_with(model=["9", 0]),
    }


def narrow_lora() -> Prompt:
    return film(SHORT) | {
        "9": node("LongLiveDMDLora", model=[MINI, 0], lora_name="narrow.safetensors", strength=1.0, mode="auto"),
        **sampler_with(model=["9", 0]),
    }


def other_vae() -> Prompt:
    prompt = film(SHORT)
    prompt["9"] = node("VAELoader", vae_name="wan_2.1_vae.safetensors")
    prompt[FILM]["inputs"]["vae"] = ["9", 0]
    return prompt


def too_large() -> Prompt:
    return film(SHORT, width=1280, height=704)


def picture_alone() -> Prompt:
    prompt = film(SHORT, start_image=["9", 0])
    prompt["9"] = node("EmptyImage", width=128, height=128, batch_size=1, color=255)
    return prompt


def text_of_another() -> Prompt:
    return film(SHORT) | {
        "9": node("LongLiveModelLoader", model_name="tiny_wan.safetensors", precision="auto"),
        **sampler_with(model=["9", 0]),
    }


def core_sampler(empty: str, **size: int) -> Callable[[], Prompt]:
    """LongLive's MODEL in core's KSampler."""

    def prompt() -> Prompt:
        return {
            MINI: node("LongLiveMini"),
            "2": node("CLIPTextEncode", clip=[MINI, 1], text="a big red ring"),
            "3": node(empty, batch_size=1, width=128, height=128, **size),
            "5": node(
                "KSampler",
                model=[MINI, 0],
                positive=["2", 0],
                negative=["2", 0],
                latent_image=["3", 0],
                seed=1,
                steps=2,
                cfg=1.0,
                sampler_name="euler",
                scheduler="simple",
                denoise=1.0,
            ),
            "6": node("SaveLatent", samples=["5", 0], filename_prefix="latents/never"),
        }

    return prompt


@pytest.mark.parametrize(
    ("what", "prompt", "id", "parts"),
    [
        (
            "ordinary Wan 2.2 through core's UNETLoader",
            ordinary_loaded,
            SAMPLER,
            ["this MODEL", "Wan 2.2", "LongLive-2.0-5B", "LongLive Model Loader"],
        ),
        ("LoRA of another width", narrow_lora, "9", ["narrow.safetensors", "1536", "192", "Wan2.1 1.3B"]),
        ("VAE of Wan 2.1", other_vae, FILM, ["16 latent channels", "48", "wan2.2_vae.safetensors", "LongLive Mini"]),
        ("1280x704 with Mini", too_large, SAMPLER, ["1280x704", "128x128", "LongLive 5B"]),
        ("start_image without vae", picture_alone, SAMPLER, ["start_image", "connect the vae"]),
        ("text of another model", text_of_another, SAMPLER, ["128", "4096", "text encoder"]),
        ("our MODEL in KSampler", core_sampler("EmptyLatentImage"), "5", ["this MODEL", "LongLive Streaming Sampler"]),
        (
            "our MODEL in KSampler, video latent",
            core_sampler("EmptyHunyuanLatentVideo", length=29),
            "5",
            ["this MODEL", "LongLive Streaming Sampler"],
        ),
    ],
)
def test_an_error_says_what_to_do(
    comfy: Host,
    tell: Callable[[str, str], None],
    what: str,
    prompt: Callable[[], Prompt],
    id: str,
    parts: list[str],
) -> None:
    """A prompt that fails ends at the node to change, with what is wrong, its value and the remedy."""
    run = comfy.run(prompt(), 60)
    assert run.error, "it ran"
    message = f"{run.error['exception_type']}: {run.error['exception_message']}"
    tell(f"{what} (node {run.error['node_id']} {run.error['node_type']}, when it runs)", message)
    assert run.error["node_id"] == id
    for part in parts:
        assert part in message
    assert usable(comfy)


def usable(comfy: Host) -> bool:
    """Whether the server still makes a film, a new and small one."""
    return comfy.run(film(SHORT, next(SEEDS), width=64, height=64), 60).ok
