"""Makes `workflows/`, `subgraphs/` and `web/docs/images/` through the real front-end: each file is what it saves.

For developers; the tests do not run it:

    cd tests && COMFYUI_PATH=… COMFYUI_PYTHON=… python -m comfy.make_workflows [PART …]

A part is `templates`, the name of one, `blueprint`, `pictures` or the name of a node; without one, all are made.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import conftest  # noqa: F401  (makes `longlive` importable)
import numpy as np
import torch
from longlive.longlive_core.take.cast_file import Card
from longlive.longlive_core.take.take import FILE
from longlive.longlive_core.video import read_video
from PIL import Image

from .browser import Front, chromium, opened
from .host import ROOT, Host, checkout, serve
from .run import Json
from .templates import MODEL_FILES, TEMPLATES, Template, blueprint_nodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORKFLOWS, SUBGRAPHS, PICTURES = ROOT / "workflows", ROOT / "subgraphs", ROOT / "web" / "docs" / "images"
WIDTH = 512
DEMO = (280, 12, 536, 268)  # the second picture of the demo film
BLUEPRINT = "LongLive multi-shot"
EMPTY = {"version": 0.4, "last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": []}

# Builds a template on the empty graph: groups stand in a grid of cells, in each group columns of nodes. Returns the ids
# of the nodes by key.
BUILD = """(template) => {
    const TITLE = 30, GAP = 60, PAD = 20, HEAD = 50, SPACE = 60
    const nodes = {}
    const make = (spec) => {
        const node = LiteGraph.createNode(spec.type)
        app.graph.add(node)
        if (spec.title) node.title = spec.title
        for (const [name, value] of Object.entries(spec.widgets ?? {})) {
            const widget = node.widgets.find((widget) => widget.name === name)
            if (!widget) throw new Error(`${spec.type} has no widget ${name}`)
            widget.value = value
        }
        if (spec.models) node.properties.models = spec.models
        const least = node.computeSize()
        const wanted = spec.size ?? [0, 0]
        node.setSize([Math.max(least[0], wanted[0], 300), Math.max(least[1], wanted[1])])
        nodes[spec.key] = node
        return node
    }
    const groups = template.groups.map((group) => {
        const columns = group.columns.map((column) => column.map(make))
        let x = PAD, height = 0
        const places = []
        for (const column of columns) {
            const width = Math.max(...column.map((node) => node.size[0]))
            let y = HEAD
            for (const node of column) {
                node.setSize([width, node.size[1]])
                places.push([node, x, y + TITLE])
                y += TITLE + node.size[1] + GAP
            }
            height = Math.max(height, y - GAP + PAD)
            x += width + SPACE
        }
        return { ...group, places, width: x - SPACE + PAD, height }
    })
    const offset = (index, axis, size) => {
        let total = 0
        for (let i = 0; i < index; i++) {
            total += SPACE + Math.max(0, ...groups.filter((one) => one.cell[axis] === i).map((one) => one[size]))
        }
        return total
    }
    for (const group of groups) {
        const left = offset(group.cell[0], 0, "width"), top = offset(group.cell[1], 1, "height")
        for (const [node, x, y] of group.places) node.pos = [Math.round(left + x), Math.round(top + y)]
        if (!group.title) continue
        const box = new LiteGraph.LGraphGroup(group.title)
        box.pos = [left, top]
        box.size = [Math.round(group.width), Math.round(group.height)]
        app.graph.add(box)
    }
    for (const [from, output, to, input] of template.links) {
        const slot = nodes[from].findOutputSlot(output)
        const target = nodes[to].findInputSlot(input)
        if (slot < 0 || target < 0) throw new Error(`no link ${from}.${output} -> ${to}.${input}`)
        nodes[from].connect(slot, nodes[to], target)
    }
    return Object.fromEntries(Object.entries(nodes).map(([key, node]) => [key, String(node.id)]))
}"""

# Puts the nodes into one subgraph; a [node, widget or input, name] of `inputs` becomes an input of it.
CONVERT = """({ title, description, inputs, keep }) => {
    const inner = app.graph.nodes.filter((node) => !keep.includes(node.type))
    const { subgraph, node } = app.graph.convertToSubgraph(new Set(inner))
    subgraph.name = title
    node.title = title
    subgraph.description = description
    for (const [type, name] of inputs) {
        const target = subgraph.nodes.find((inner) => inner.type === type)
        const slot = target.inputs[target.findInputSlot(name)]
        if (slot.link != null) continue
        const input = subgraph.addInput(name, slot.type)
        input.connect(slot, target)
    }
    const decode = subgraph.nodes.find((inner) => inner.type === "LongLiveAsyncDecode")
    subgraph.addOutput("VIDEO", "VIDEO").connect(decode.outputs[0], decode)
    for (const other of app.graph.nodes.filter((one) => one !== node)) app.graph.remove(other)
    node.pos = [0, 0]
    node.setSize([Math.max(400, node.computeSize()[0]), Math.max(560, node.computeSize()[1])])
}"""

# The graph fills the page below scale 1; answers with its box on the page.
FIT = """async (pad) => {
    const pause = () => new Promise((next) => setTimeout(next, 400))
    await pause()  // a graph just loaded moves the view once more
    const boxes = [...app.graph.nodes.map((node) => [node.pos[0], node.pos[1] - 50, node.size[0], node.size[1] + 50]),
                   ...app.graph.groups.map((group) => [...group.pos, ...group.size])]
    const left = Math.min(...boxes.map((b) => b[0])) - pad, top = Math.min(...boxes.map((b) => b[1])) - pad
    const right = Math.max(...boxes.map((b) => b[0] + b[2])) + pad
    const bottom = Math.max(...boxes.map((b) => b[1] + b[3])) + pad
    const ds = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect()
    ds.scale = Math.min(1, canvas.width / (right - left), canvas.height / (bottom - top))
    ds.offset = [-left, -top]
    app.canvas.min_font_size_for_lod = 0  // small, but with its words
    app.canvas.deselectAll()
    app.canvas.setDirty(true, true)
    await pause()
    return { x: canvas.x, y: canvas.y, width: (right - left) * ds.scale, height: (bottom - top) * ds.scale }
}"""


def main(parts: list[str]) -> None:
    """Makes the parts named, or all."""
    folder = checkout()
    if folder is None:
        raise SystemExit("set COMFYUI_PATH to a ComfyUI checkout")
    with tempfile.TemporaryDirectory() as base:
        stand_in(Path(base), folder)
        with serve(folder, Path(base)) as host, chromium() as browser, opened(browser, host) as front:
            front.page.evaluate("() => app.extensionManager.command.execute('Workspace.ToggleFocusMode')")
            for template in TEMPLATES:
                if not parts or "templates" in parts or template.name in parts:
                    make_template(template, front, host)
            if not parts or "blueprint" in parts:
                make_blueprint(front)
            make_pictures(front, [] if "pictures" in parts else parts)


def stand_in(base: Path, folder: Path) -> None:
    """Files of the names that the templates load, empty, so that the lists of the nodes offer them."""
    for model in MODEL_FILES.values():
        path = base / "models" / model["directory"] / model["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    take = base / "output" / "takes" / "LongLive_00001.take" / FILE
    take.parent.mkdir(parents=True)
    take.touch()
    (base / "input" / "my_clips").mkdir(parents=True)
    (base / "input" / "my_clips" / "clip.mp4").touch()
    shutil.copy(folder / "input" / "example.png", base / "input")
    demo = Image.open(ROOT / "longlive_core" / "assets" / "demo.png").convert("RGB").crop(DEMO)
    prompt, origin = "it bobs in the middle against a plain wine wall", "demo.mp4, shot 2, block 1"
    card = Card("hero", torch.zeros(1), prompt, origin, {}, torch.from_numpy(np.array(demo)))
    card.save(base / "input" / "cast" / "hero.cast.safetensors")


def make_template(template: Template, front: Front, host: Host) -> None:
    """The workflow, and its picture: what the film shows where it can be made here, else the graph."""
    front.load(EMPTY)
    ids = front.page.evaluate(BUILD, template.content())
    box = front.page.evaluate(FIT, 10)
    workflow = front.to_workflow()
    if template.app:
        inputs = [[ids[key], widget] for key, widget in template.app]
        workflow["extra"]["linearData"] = {"inputs": inputs, "outputs": [ids[template.app_output]]}
    save(WORKFLOWS / f"{template.name}.json", workflow, template.name)
    if template.frames:
        run = host.run(front.to_api(), 400)
        if not run.ok:
            raise RuntimeError(f"{template.name}: {run.error}")
        titles = {node["title"]: str(node["id"]) for node in front.to_workflow()["nodes"] if "title" in node}
        films = {
            title: read_video(host.file(run.outputs[titles[title]]["video"][0])).numpy()
            for title in dict.fromkeys(title for title, _ in template.frames)
        }
        picture = grid([films[title][frame] for title, frame in template.frames], template.across)
    else:
        shot = WORKFLOWS / "shot.png"
        front.page.screenshot(path=shot, clip=box)
        picture = Image.open(shot).convert("RGB")
        picture.load()
        shot.unlink()
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture.save(WORKFLOWS / f"{template.name}.jpg", quality=88)


def grid(frames: list[NDArray[np.uint8]], across: int) -> Image.Image:
    """Frames side by side, `across` in a row."""
    height, width = frames[0].shape[:2]
    sheet = Image.new("RGB", (width * across, height * -(-len(frames) // across)))
    for i, frame in enumerate(frames):
        sheet.paste(Image.fromarray(frame), (i % across * width, i // across * height))
    return sheet


def make_blueprint(front: Front) -> None:
    """The subgraph, made of its nodes by the front-end's own command."""
    front.load(EMPTY)
    content, conversion = blueprint_nodes(BLUEPRINT)
    front.page.evaluate(BUILD, content)
    front.page.evaluate(CONVERT, conversion)
    workflow = front.to_workflow()
    save(SUBGRAPHS / "longlive_multi_shot.json", workflow, BLUEPRINT)


def make_pictures(front: Front, parts: list[str]) -> None:
    """One picture of each node of the pack that is named, or of all."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    own = front.page.evaluate(
        "() => Object.keys(LiteGraph.registered_node_types).filter((type) => type.startsWith('LongLive'))"
    )
    sizes = {"LongLiveShotScript": [460, 260], "LongLiveStreamingSampler": [340, 0], "LongLiveAsyncDecode": [340, 0]}
    for name in own if not parts else [name for name in own if name in parts]:
        front.load(EMPTY)
        node = {"key": "node", "type": name, "size": sizes.get(name)}
        front.page.evaluate(BUILD, {"groups": [{"title": None, "cell": [0, 0], "columns": [[node]]}], "links": []})
        box = front.page.evaluate(FIT, 12)
        path = PICTURES / f"{name}.png"
        front.page.screenshot(path=path, clip=box)
        Image.open(path).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def save(path: Path, workflow: Json, name: str) -> None:
    """Write a workflow under an identity that stays the same when it is made again."""
    path.parent.mkdir(exist_ok=True)
    workflow["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"longlive/{name}"))
    path.write_text(json.dumps(workflow, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
