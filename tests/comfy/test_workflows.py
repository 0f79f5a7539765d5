"""The workflows that people open first: whole, sound and true, in the real front-end and on the real server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
import pytest
from longlive.longlive_core.evaluation.probe import Reading, read_frame
from longlive.longlive_core.script import BlockPlan, ShotScript
from longlive.longlive_core.script.cast import CastEntry
from longlive.longlive_core.script.storyboard import storyboard_plan
from longlive.longlive_core.take.take import Version, with_text
from longlive.longlive_core.training.world import BACKGROUNDS, COLOURS
from longlive.longlive_core.video import read_video
from numpy.typing import NDArray
from PIL import Image

from .browser import Front
from .host import ROOT, Host, Refused
from .run import Json

pytestmark = pytest.mark.comfy

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
MINI = [path for path in WORKFLOWS if "(Mini)" in path.stem]
LARGE = [path for path in WORKFLOWS if "(5B" in path.stem]
BLUEPRINT = ROOT / "subgraphs" / "longlive_multi_shot.json"
TITLE_BAR = 30

# Saved workflows keep widget values by position: a widget may be added at the end only. The front-end puts
# `control_after_generate` behind the seed by itself.
WIDGETS = {
    "LongLiveModelLoader": ["model_name", "precision", "attention"],
    "LongLiveMini": [],
    "LongLiveDMDLora": ["lora_name", "strength", "mode"],
    "LongLiveShotScript": ["script", "default_seconds", "fps"],
    "LongLiveEncodeShots": ["negative"],
    "LongLiveSinkMemory": [
        "window",
        "global_sink",
        "shot_sink",
        "rope_offset",
        "kv_format",
        "clean_recache",
        "recall_position",
    ],
    "LongLiveStreamingSampler": [
        "width",
        "height",
        "seed",
        "control_after_generate",
        "steps",
        "guidance",
        "storyboard",
        "seam",
    ],
    "LongLiveAsyncDecode": ["filename_prefix", "codec", "quality", "decode"],
    "LongLiveStreamToLatent": [],
    "LongLiveStreamToImages": ["first_frame", "frame_count"],
    "LongLiveTrainLora": [
        "data",
        "output_name",
        "rank",
        "steps",
        "learning_rate",
        "sample_every",
        "sample_script",
        "seed",
        "control_after_generate",
        "resolution",
        "blocks",
        "prior",
    ],
    "LongLiveConvertCheckpoint": ["model_name", "format", "lora_name", "strength", "output_name"],
    "LongLiveShot": [
        "prompt",
        "seconds",
        "seed",
        "control_after_generate",
        "width",
        "height",
        "steps",
        "guidance",
        "style",
        "cut",
        "seam",
    ],
    "LongLiveExtendVideo": ["prompt", "width", "height", "fps"],
    "LongLiveSaveTake": ["name_prefix"],
    "LongLiveLoadTake": ["take"],
    "LongLiveStoryboard": [],
    "LongLiveRetake": ["shot", "seed", "control_after_generate", "prompt", "mode"],
    "LongLiveShotVersions": ["shot", "versions"],
    "LongLiveMultiGPU": ["gpus", "split_guidance"],
    "LongLiveCast": ["cast_name", "name"],
    "LongLiveSaveCast": ["shot", "block", "name"],
}
# What Nodes 2.0 draws: of every node its left, top, right and bottom on the page.
BOXES = """() => [...document.querySelectorAll("[data-node-id]")].map((node) => {
    const { left, top, right, bottom } = node.getBoundingClientRect()
    return [left, top, right, bottom]
})"""
SCALARS = ("STRING", "INT", "FLOAT", "BOOLEAN", "COMBO")


def read(path: Path) -> Json:
    return json.loads(path.read_text("utf-8"))


def lies_on(one: Sequence[float], two: Sequence[float]) -> bool:
    """Whether two boxes (left, top, right, bottom) share a part of the canvas."""
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def models(workflow: Json) -> Iterator[tuple[Json, Json]]:
    """Each model file that a workflow declares, with its node."""
    for node in workflow["nodes"]:
        for model in node["properties"].get("models", []):
            yield node, model


def walls_and_heroes(plan: BlockPlan) -> Iterator[tuple[str, str | None]]:
    """Of each shot the wall and, where the shot names it, the hero's colour."""
    prompts = {block.shot: block.prompt for block in reversed(plan.blocks)}
    for shot in range(plan.shots):
        words = prompts[shot].replace(",", " ").split()
        (wall,) = {word for word in words if word in BACKGROUNDS}
        yield wall, next((word for word in words if word in COLOURS), None)


def readings(frames: NDArray[np.uint8], plan: BlockPlan) -> list[list[Reading]]:
    """What the probe reads in frames of each shot, away from the cuts."""
    ends = np.cumsum([sum(b.frames * 4 for b in plan.blocks if b.shot == shot) for shot in range(plan.shots)]) - 3
    starts = [0, *ends[:-1]]
    return [
        [read_frame(frames[int(start + (end - start) * part)]) for part in (0.3, 0.5, 0.7, 0.9)]
        for start, end in zip(starts, ends, strict=True)
    ]


def shots_of(prompt: dict[str, Json], node: str) -> Iterator[str]:
    """The shots of a chain, `(4s): a big red ring …`; an extended video counts as those that it was made of."""
    inputs = prompt[node]["inputs"]
    for name in ("stream", "state", "frames", "video"):
        if name in inputs:
            yield from shots_of(prompt, inputs[name][0])
    if prompt[node]["class_type"] == "LongLiveShot":
        yield f"({inputs['seconds']}s): {inputs['prompt']}"


def script_of(prompt: dict[str, Json], node: str) -> ShotScript:
    """The script of the film that a node writes, written down from its shots where there is none."""
    if shots := list(shots_of(prompt, node)):
        return ShotScript.parse("\n".join(f"Shot {number} {shot}" for number, shot in enumerate(shots, 1)))
    kind, inputs = prompt[node]["class_type"], prompt[node]["inputs"]
    if kind == "LongLiveShotScript":
        given = [CastEntry("mini-hero", "")] if "cast" in inputs else []
        return ShotScript.parse(inputs["script"], given=given)
    before = next(inputs[name] for name in ("stream", "take", "conditioning", "shots") if name in inputs)
    script = script_of(prompt, before[0])
    if kind == "LongLiveRetake":
        return with_text(script, inputs["shot"] - 1, Version(inputs["prompt"], inputs["seed"]))
    return script


def film_of(prompt: dict[str, Json], node: str) -> BlockPlan:
    """The plan of the film that a node writes."""
    plan = script_of(prompt, node).plan(24.0)
    sampler = prompt[prompt[node]["inputs"]["stream"][0]]["inputs"]
    return storyboard_plan(plan) if sampler.get("storyboard") == "only" else plan


def test_what_is_shipped() -> None:
    """Eight templates of Mini, three of 5B and one that trains, each with a picture of its name, and nothing else."""
    assert [len(MINI), len(LARGE), len(WORKFLOWS)] == [8, 3, 12]
    names = {file.name for path in WORKFLOWS for file in (path, path.with_suffix(".jpg"))}
    assert {path.name for path in (ROOT / "workflows").iterdir()} == names


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_pictures_and_places(path: Path) -> None:
    """A picture is small; no node lies on another; every node but the note stands in one group; links go right."""
    with Image.open(path.with_suffix(".jpg")) as picture:
        assert picture.width == 512
    assert path.with_suffix(".jpg").stat().st_size < 80_000
    workflow = read(path)
    boxes = {
        node["id"]: (node["pos"][0], node["pos"][1] - TITLE_BAR, node["pos"][0] + node["size"][0],
                     node["pos"][1] + node["size"][1])
        for node in workflow["nodes"]
    }  # fmt: skip
    assert not any(lies_on(one, two) for one, two in combinations(boxes.values(), 2))
    for node in workflow["nodes"]:
        left, top, right, bottom = boxes[node["id"]]
        around = [
            group["title"]
            for group in workflow["groups"]
            for x, y, width, height in [group["bounding"]]
            if x <= left and y <= top and right <= x + width and bottom <= y + height
        ]
        assert len(around) == (0 if node["type"] == "MarkdownNote" else 1), node["type"]
    for _, source, _, target, *_ in workflow["links"]:
        assert boxes[source][0] <= boxes[target][0]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_model_files(path: Path) -> None:
    """Every declared file is the value of a widget of its node, safetensors from huggingface.co under its own name."""
    for node, model in models(read(path)):
        assert set(model) == {"name", "url", "directory"}
        assert model["name"] in node["widgets_values"]
        assert model["url"].startswith("https://huggingface.co/")
        assert model["url"].endswith("/" + model["name"])
        assert model["name"].endswith(".safetensors")
    values = {value for node in read(path)["nodes"] for value in node.get("widgets_values", []) if node["properties"]}
    files = {value for value in values if isinstance(value, str) and value.endswith(".safetensors")}
    assert files == {model["name"] for _, model in models(read(path))}


def test_widget_order(comfy: Host, page: Front) -> None:
    """The order of widgets is that of the schema, and it is the one that saved workflows were made with."""
    info = comfy.get("/object_info")
    own = {name: entry for name, entry in info.items() if name.startswith("LongLive")}
    assert set(own) == set(WIDGETS)
    for name, expected in WIDGETS.items():
        inputs = own[name]["input"]
        schema = [
            key
            for part in ("required", "optional")
            for key in own[name]["input_order"].get(part, [])
            if isinstance(inputs[part][key][0], list) or inputs[part][key][0] in SCALARS
        ]
        assert schema == [key for key in expected if key != "control_after_generate"], name
        # The strip and the player are widgets that workflow files leave out.
        saved = (
            "(type) => (LiteGraph.createNode(type).widgets ?? []).filter(({ serialize }) => serialize !== false).length"
        )
        assert page.page.evaluate(saved, name) == len(expected), name


@pytest.mark.parametrize("renderer", ["classic", "vue"])
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_front_end_opens_it(path: Path, renderer: Literal["classic", "vue"], page: Front) -> None:
    """It loads without a missing node, keeps every widget's value, and comes out as the prompt that was saved.

    Nodes 2.0 draws some nodes taller than they were saved: there, too, none lies on another.
    """
    workflow = read(path)
    page.set_renderer(renderer)
    page.load(workflow)
    kinds = {node["type"] for node in workflow["nodes"]}
    assert (
        page.page.evaluate(
            "(kinds) => kinds.filter((kind) => !(kind in LiteGraph.registered_node_types))", sorted(kinds)
        )
        == []
    )
    again = {node["id"]: node for node in page.to_workflow()["nodes"]}
    for node in workflow["nodes"]:
        assert again[node["id"]].get("widgets_values") == node.get("widgets_values")
        names = WIDGETS.get(node["type"])
        if names is not None:
            assert len(node.get("widgets_values", [])) == len(names)
    prompt = page.to_api()
    assert {entry["class_type"] for entry in prompt.values()} == kinds - {"MarkdownNote"}
    if renderer == "vue":
        boxes = page.page.evaluate(BOXES)
        assert len(boxes) == len(workflow["nodes"])
        assert not any(lies_on(one, two) for one, two in combinations(boxes, 2))
    assert page.own_errors() == []


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_only_the_files_are_missing(path: Path, page: Front, comfy: Host, comfy_path: Path) -> None:
    """Without the model files the server refuses a 5B template for these files alone, each by its widget."""
    comfy.upload_image(comfy_path / "input" / "example.png")
    workflow = read(path)
    page.load(workflow)
    with pytest.raises(Refused) as refused:
        comfy.queue(page.to_api())
    missing = {(str(node["id"]), model["name"]) for node, model in models(workflow)}
    told = set()
    for node, entry in refused.value.node_errors.items():
        for error in entry["errors"]:
            assert error["type"] == "value_not_in_list" or error["type"].startswith("exception_during_")
            told |= {(node, name) for _, name in missing if name in error["details"]}
            assert any(name in error["details"] for _, name in missing), error
    assert told == missing


@pytest.mark.slow
@pytest.mark.parametrize("path", MINI, ids=lambda path: path.stem)
def test_mini_makes_the_film(path: Path, page: Front, comfy: Host) -> None:
    """Each film has the planned frames; each shot has its wall, and its hero the colour that the shot names."""
    page.load(read(path))
    prompt = page.to_api()
    run = comfy.run(prompt, 400)
    assert run.ok, run.error
    films = [node for node, entry in prompt.items() if entry["class_type"] == "LongLiveAsyncDecode"]
    for node in films:
        plan = film_of(prompt, node)
        frames = read_video(comfy.file(run.outputs[node]["video"][0])).numpy()
        assert len(frames) == plan.video_frames
        for seen, (wall, colour) in zip(readings(frames, plan), walls_and_heroes(plan), strict=True):
            assert [reading.background for reading in seen] == [wall] * len(seen)
            assert all(reading.found for reading in seen)
            if colour:
                assert {reading.hero.colour for reading in seen if reading.hero} == {colour}


def test_the_browser_of_templates_lists_them(page: Front, comfy: Host) -> None:
    """The server lists every template and serves its file and its picture; the front-end shows a card of each."""
    (pack,) = [pack for pack in comfy.get("/workflow_templates") if "longlive" in pack.lower()]
    assert sorted(comfy.get("/workflow_templates")[pack]) == [path.stem for path in WORKFLOWS]
    for path in WORKFLOWS:
        address = f"/api/workflow_templates/{pack}/{quote(path.stem)}"
        assert comfy.get(address + ".json") == read(path)
        assert comfy.read(address + ".jpg") == path.with_suffix(".jpg").read_bytes()
    dialog = page.open_templates()
    dialog.get_by_role("searchbox").or_(dialog.locator("input[type=text]")).first.fill("longlive")
    for path in WORKFLOWS:
        dialog.get_by_test_id(f"template-workflow-{path.stem}").wait_for(timeout=10_000)


def test_the_blueprint(page: Front, comfy: Host) -> None:
    """The server offers the blueprint, the front-end takes it, and with LongLive Mini connected it makes a film."""
    listed = comfy.get("/global_subgraphs")
    (key,) = [key for key, entry in listed.items() if entry["name"] == BLUEPRINT.stem]
    assert json.loads(comfy.get(f"/global_subgraphs/{quote(key)}")["data"]) == read(BLUEPRINT)
    assert not [error for error in page.errors if "valid subgraph" in error.text]
    workflow = read(BLUEPRINT)
    (node,) = workflow["nodes"]
    (subgraph,) = workflow["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"]
    assert subgraph["name"] == "LongLive multi-shot"
    page.load(workflow)
    script = "Shot 1 (1 block): a big red ball waits in the middle against a plain navy wall"
    build = """(script) => {
        const film = app.graph.nodes[0], mini = LiteGraph.createNode("LongLiveMini")
        app.graph.add(mini)
        for (const name of ["model", "clip", "vae"])
            mini.connect(mini.findOutputSlot(name.toUpperCase()), film, film.findInputSlot(name))
        film.widgets.find((widget) => widget.name === "script").value = script
    }"""
    page.page.evaluate(build, script)
    run = comfy.run(page.to_api(), 120)
    assert run.ok, run.error
    ((film,),) = [output["video"] for output in run.outputs.values() if "video" in output]
    assert len(read_video(comfy.file(film))) >= 29


def test_pictures_of_the_nodes() -> None:
    """The help pages have a small picture of each node."""
    folder = ROOT / "web" / "docs" / "images"
    assert {path.stem for path in folder.glob("*.png")} >= set(WIDGETS)
    for name in WIDGETS:
        assert (folder / f"{name}.png").stat().st_size < 30_000
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 60
