"""Every widget can be wired: a value over a wire is what it is in the widget, and is checked when the node runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from longlive.longlive_core.mini import load_mini

from .graphs import (
    FILM,
    MEMORY,
    MINI,
    SAMPLER,
    SHORT,
    SHOTS,
    Prompt,
    decoded,
    film,
    kept_latent,
    node,
    save_lora,
    save_model,
    say_mini,
)
from .host import Host, Start
from .run import Json
from .test_chain import save_clip

pytestmark = pytest.mark.comfy

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 1}
PRIMITIVES = {
    "STRING": "PrimitiveStringMultiline",
    "INT": "PrimitiveInt",
    "FLOAT": "PrimitiveFloat",
    "BOOLEAN": "PrimitiveBoolean",
}
TAKE = "takes/wires_00001.take"
CAST = "wires.cast.safetensors"
names = count(1)


@pytest.fixture(scope="module")
def host(start: Start) -> Iterator[Host]:
    """A server with a model, a LoRA, a clip and a take, which the lists of the loaders offer."""
    with start() as own:
        save_model(own, "mini.safetensors", load_mini().model.state_dict(), say_mini())
        save_lora(own, "small.safetensors", {"blocks.0.self_attn.q": (192, 192)})
        save_clip(own, 29)
        folder = own.base / "input" / "wires"
        folder.mkdir()
        (own.base / "input" / save_clip(own, 30)).rename(folder / "clip.mp4")
        (folder / "clip.txt").write_text("a big red ring", "utf-8")
        cast = {"20": node("LongLiveSaveCast", stream=[SAMPLER, 0], vae=[MINI, 2], shot=1, block=1, name="wires")}
        run = own.run({**film(SHORT, **SMALL), **cast})
        assert run.ok, run.error
        run = own.run({**film(SHORT, **SMALL), "20": take_of([SAMPLER, 0]), **kept_latent(["20", 0])})
        assert run.ok, run.error
        yield own


def take_of(stream: list[object]) -> Json:
    return node("LongLiveSaveTake", stream=stream, name_prefix="takes/wires")


def loaded() -> Json:
    return node("LongLiveLoadTake", take=TAKE, model=[MINI, 0], clip=[MINI, 1])


def with_cast(prompt: Prompt) -> Prompt:
    shots = prompt[SHOTS]
    return {**prompt, SHOTS: {**shots, "inputs": {**shots["inputs"], "cast": ["40", 0]}}}


def graphs() -> dict[str, tuple[str, Prompt]]:
    """For each node that has widgets its id in a graph, and the graph, which runs it with its usual values."""
    whole = {**film(SHORT, **SMALL, storyboard="off", seam="auto")}
    whole[FILM]["inputs"]["decode"] = "async"
    whole[MEMORY]["inputs"]["recall_position"] = "original"
    links = {"model": [MINI, 0], "clip": [MINI, 1]}
    shot = node(
        "LongLiveShot",
        **links,
        prompt="a big red ring",
        seconds=1.33,
        seed=1,
        guidance=1.0,
        style="",
        cut=True,
        seam="auto",
        **SMALL,
    )
    clip = {
        "30": node("LoadVideo", file="clip29.mp4"),
        "31": node("GetVideoComponents", video=["30", 0]),
        "32": node(
            "LongLiveExtendVideo",
            **links,
            vae=[MINI, 2],
            frames=["31", 0],
            prompt="a ring",
            width=64,
            height=64,
            fps=24.0,
        ),
    }
    train = node(
        "LongLiveTrainLora",
        **links,
        vae=[MINI, 2],
        data="wires",
        output_name="wires",
        rank=2,
        steps=1,
        learning_rate=1e-4,
        sample_every=0,
        sample_script="",
        seed=1,
        resolution=32,
        blocks=1,
        prior="none",
    )
    lora = {"lora_name": "small.safetensors", "strength": 1.0}
    mini = {MINI: whole[MINI]}
    ends = kept_latent(["40", 0])
    return {
        "LongLiveModelLoader": (
            "9",
            {
                **film(SHORT, **SMALL, model=["9", 0]),
                "9": node("LongLiveModelLoader", model_name="mini.safetensors", precision="auto", attention="usual"),
            },
        ),
        "LongLiveDMDLora": (
            "9",
            {
                **film(SHORT, **SMALL, model=["9", 0]),
                "9": node("LongLiveDMDLora", model=[MINI, 0], mode="auto", **lora),
            },
        ),
        "LongLiveTrainLora": ("40", {**mini, "40": train}),
        "LongLiveMultiGPU": (
            "9",
            {
                **film(SHORT, **SMALL, model=["9", 0]),
                "9": node("LongLiveMultiGPU", model=[MINI, 0], gpus="off", split_guidance=False),
            },
        ),
        "LongLiveShotScript": (SHOTS, whole),
        "LongLiveEncodeShots": ("3", whole),
        "LongLiveSinkMemory": (MEMORY, whole),
        "LongLiveStreamingSampler": (SAMPLER, whole),
        "LongLiveAsyncDecode": (FILM, whole),
        "LongLiveStreamToImages": (
            "40",
            {
                **whole,
                "40": node("LongLiveStreamToImages", stream=[SAMPLER, 0], vae=[MINI, 2], first_frame=0, frame_count=0),
                "41": node("PreviewImage", images=["40", 0]),
            },
        ),
        "LongLiveConvertCheckpoint": (
            "40",
            {
                "40": node(
                    "LongLiveConvertCheckpoint",
                    model_name="mini.safetensors",
                    format="bf16",
                    output_name="new",
                    lora_name="none",
                    strength=1.0,
                )
            },
        ),
        "LongLiveShot": ("40", {**mini, "40": shot, **ends}),
        "LongLiveExtendVideo": ("32", {**mini, **clip, FILM: decoded(["32", 0])}),
        "LongLiveSaveTake": ("40", {**whole, "40": take_of([SAMPLER, 0]), **ends}),
        "LongLiveLoadTake": ("40", {**mini, "40": loaded(), **ends}),
        "LongLiveRetake": (
            "40",
            {
                **mini,
                "20": loaded(),
                "40": node("LongLiveRetake", take=["20", 2], **links, shot=1, seed=5, prompt="", mode="ripple"),
                **ends,
            },
        ),
        "LongLiveCast": ("40", {**with_cast(whole), "40": node("LongLiveCast", cast_name=CAST, name="ring")}),
        "LongLiveSaveCast": (
            "40",
            {
                **whole,
                "40": node("LongLiveSaveCast", stream=[SAMPLER, 0], vae=[MINI, 2], shot=1, block=1, name="ring"),
            },
        ),
        "LongLiveShotVersions": (
            "40",
            {
                **whole,
                "20": take_of([SAMPLER, 0]),
                "40": node("LongLiveShotVersions", stream=["20", 0], vae=[MINI, 2], shot=1, versions=1),
            },
        ),
    }


def widgets_of(host: Host, kind: str) -> dict[str, str]:
    """The widgets of a node by their type. A combo's type is COMBO."""
    entry = host.get(f"/object_info/{kind}")[kind]["input"]
    found = {name: spec[0] for part in ("required", "optional") for name, spec in entry.get(part, {}).items()}
    kinds = {name: "COMBO" if isinstance(type, list) else type for name, type in found.items()}
    return {name: type for name, type in kinds.items() if type in (*PRIMITIVES, "COMBO")}


def wired(prompt: Prompt, id: str, kinds: dict[str, str], values: Json) -> Prompt:
    """The prompt with values of a node over wires. A combo takes text over a switch, which core lets through."""
    changed = {key: {**one, "inputs": {**one["inputs"]}} for key, one in prompt.items()}
    for number, (name, value) in enumerate(values.items(), 100):
        kind = "STRING" if kinds[name] == "COMBO" else kinds[name]
        changed[str(number)] = node(PRIMITIVES[kind], value=value)
        link = [str(number), 0]
        if kinds[name] == "COMBO":
            changed[f"{number}0"] = node("ComfySwitchNode", switch=True, on_true=link, on_false=link)
            link = [f"{number}0", 0]
        changed[id]["inputs"][name] = link
    return changed


def test_every_node_with_widgets_is_wired(host: Host) -> None:
    """No node is left out of the next test, and its graph has a value for each of its widgets."""
    kinds = [name for name in host.get("/object_info") if name.startswith("LongLive")]
    assert {name for name in kinds if widgets_of(host, name)} == set(graphs())
    for name, (id, prompt) in graphs().items():
        assert set(widgets_of(host, name)) <= set(prompt[id]["inputs"]), name


@pytest.mark.parametrize("kind", sorted(graphs()))
def test_every_widget_can_be_wired(host: Host, kind: str) -> None:
    """A node runs with all its values over wires, and with each of them alone."""
    id, prompt = graphs()[kind]
    kinds = widgets_of(host, kind)
    usual = {name: prompt[id]["inputs"][name] for name in kinds}
    for values in (usual, *({name: value} for name, value in usual.items())):
        if "output_name" in usual:  # a converted file is never replaced
            prompt[id]["inputs"]["output_name"] = f"new{next(names)}"
        values = {name: prompt[id]["inputs"][name] for name in values}
        run = host.run(wired(prompt, id, kinds, values), 60)
        assert run.ok, (kind, list(values), run.error)


@pytest.mark.parametrize(
    ("kind", "name", "value", "parts"),
    [
        ("LongLiveStreamingSampler", "steps", 0, ["steps", "0", "1", "50"]),
        ("LongLiveStreamingSampler", "width", 100, ["100", "32"]),
        ("LongLiveStreamingSampler", "width", 0, ["width", "0", "32", "4096"]),
        ("LongLiveStreamingSampler", "seed", -1, ["seed", "-1", "0"]),
        ("LongLiveStreamingSampler", "seam", "smooth", ["seam", "smooth", "auto", "plain", "align"]),
        ("LongLiveStreamingSampler", "guidance", -2.0, ["guidance", "-2", "20"]),
        ("LongLiveSinkMemory", "window", 20, ["window", "20", "8"]),
        ("LongLiveSinkMemory", "global_sink", 64, ["64", "32"]),
        ("LongLiveSinkMemory", "kv_format", "int8", ["kv_format", "int8", "nvfp4"]),
        ("LongLiveSinkMemory", "recall_position", "behind", ["recall_position", "behind", "before_shot"]),
        ("LongLiveShotScript", "fps", 0.0, ["fps", "0", "1", "120"]),
        ("LongLiveShotScript", "default_seconds", -4.0, ["default_seconds", "-4", "0.1"]),
        ("LongLiveShotScript", "script", "Shot 1 (4 bananas): x", ["line 1", "bananas"]),
        ("LongLiveAsyncDecode", "codec", "gif", ["codec", "gif", "h264"]),
        ("LongLiveAsyncDecode", "quality", "ultra", ["quality", "ultra", "best"]),
        ("LongLiveAsyncDecode", "decode", "later", ["decode", "later", "async"]),
        ("LongLiveAsyncDecode", "filename_prefix", "", ["filename_prefix", "empty", "video/LongLive"]),
        ("LongLiveSaveTake", "name_prefix", "../out", ["name_prefix", "../out", "output folder"]),
        ("LongLiveShot", "seconds", 0.0, ["seconds", "0", "1"]),
        ("LongLiveRetake", "shot", 0, ["shot", "0", "1"]),
        ("LongLiveShotVersions", "versions", 17, ["versions", "17", "16"]),
        ("LongLiveLoadTake", "take", "takes/none.take", ["takes/none.take"]),
        ("LongLiveCast", "cast_name", "../x.safetensors", ["../x.safetensors", "put it into"]),
        ("LongLiveCast", "name", "a b", ["a b", "is not a valid name"]),
        ("LongLiveSaveCast", "name", "1", ["1", "is not a valid name"]),
        ("LongLiveSaveCast", "block", 2, ["block 2", "has 1"]),
        ("LongLiveTrainLora", "rank", 0, ["rank", "0", "1", "512"]),
        ("LongLiveTrainLora", "data", "../x", ["../x", "input folder"]),
        ("LongLiveTrainLora", "output_name", "a/b", ["output_name", "a/b", "without folders"]),
        ("LongLiveMultiGPU", "gpus", "3", ["gpus", "3", "off"]),
        ("LongLiveMultiGPU", "split_guidance", True, ["split_guidance", "gpus is off", "2, 4 or 8"]),
        ("LongLiveModelLoader", "precision", "int4", ["precision", "int4", "bf16"]),
    ],
)
def test_a_bad_value_over_a_wire_is_refused(host: Host, kind: str, name: str, value: object, parts: list[str]) -> None:
    """What a widget could not hold ends the run at its node, with the input's name, the value and what may be."""
    id, prompt = graphs()[kind]
    run = host.run(wired(prompt, id, widgets_of(host, kind), {name: value}), 60)
    assert run.error is not None
    assert run.error["node_id"] == id
    for part in parts:
        assert part in run.error["exception_message"], run.error["exception_message"]
