"""The nodes as saved workflows know them: ids, inputs and widgets in order, outputs; and the record of them.

    cd tests && COMFYUI_PATH=… COMFYUI_PYTHON=… python -m comfy.schema

writes `golden/object_info.json` anew, which must only grow: it refuses where saved workflows would break.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

from .host import ROOT, Host, checkout, serve
from .run import Json

RECORD = ROOT / "tests" / "golden" / "object_info.json"
SCALARS = ("STRING", "INT", "FLOAT", "BOOLEAN", "COMBO")
# The widget that the front-end puts behind a seed by itself.
CONTROL = "control_after_generate"


def described(host: Host) -> dict[str, Json]:
    """Each LongLive node of a running server, without its prose and without options that are files on a disk."""
    info: dict[str, Json] = host.get("/object_info")
    return {name: _node(entry) for name, entry in sorted(info.items()) if name.startswith("LongLive")}


def _node(entry: Json) -> Json:
    inputs = [
        _input(name, part, *entry["input"][part][name])
        for part in ("required", "optional")
        for name in entry["input_order"].get(part, [])
    ]
    outputs = zip(entry["output_name"], entry["output"], strict=True)
    return {"inputs": inputs, "outputs": [{"name": name, "type": kind} for name, kind in outputs]}


def _input(name: str, part: str, kind: Any, options: Json | None = None) -> Json:  # noqa: ANN401
    options = options or {}
    told = {key: options[key] for key in ("default", "min", "max", CONTROL) if key in options}
    if options.get("options"):  # empty where they are the files of a folder
        told["options"] = options["options"]
    return {"name": name, "type": kind, "required": part == "required", **told}


def widgets(node: Json) -> list[str]:
    """The names of a node's widgets in the order in which a saved workflow has their values."""
    own = [one for one in node["inputs"] if one["type"] in SCALARS]
    return [name for one in own for name in (one["name"], *([CONTROL] if CONTROL in one else []))]


def breaks(was: dict[str, Json], now: dict[str, Json]) -> Iterator[str]:
    """What saved workflows would lose: a node, a widget's place, an input, an output, an option, a value in range."""
    for name, node in was.items():
        if name not in now:
            yield f"{name} is gone"
            continue
        yield from (f"{name}: {lost}" for lost in _breaks(node, now[name]))


def _breaks(was: Json, now: Json) -> Iterator[str]:
    if widgets(now)[: len(widgets(was))] != widgets(was):
        yield f"its widgets were {widgets(was)}, now {widgets(now)}"
    if now["outputs"][: len(was["outputs"])] != was["outputs"]:
        yield f"its outputs were {was['outputs']}, now {now['outputs']}"
    there = {one["name"]: one for one in now["inputs"]}
    known = [one["name"] for one in was["inputs"]]
    left = [name for name in there if name in known]
    if left != known:
        yield f"its inputs were {known}, now {left}"
    for one in was["inputs"]:
        if one["name"] in there:
            yield from (f"{one['name']} {change}" for change in _changes(one, there[one["name"]]))
    # The server would refuse a prompt that was saved without it.
    yield from (f"{name} is new and required" for name in there if name not in known and there[name]["required"])


def _changes(was: Json, now: Json) -> Iterator[str]:
    # An input that takes more types than it did takes every link of a saved workflow.
    taken = set(str(now.get("type")).split(","))
    for key in ("type", "default", CONTROL):
        if was.get(key) != now.get(key) and not (key == "type" and taken >= set(str(was.get("type")).split(","))):
            yield f"had {key} {was.get(key)!r}, now {now.get(key)!r}"
    if now["required"] and not was["required"]:
        yield "was optional, now it is required"
    if now.get("min", -inf) > was.get("min", -inf) or now.get("max", inf) < was.get("max", inf):
        yield f"went from {was.get('min')} to {was.get('max')}, now from {now.get('min')} to {now.get('max')}"
    lost = [option for option in was.get("options", []) if option not in now.get("options", [])]
    if lost:
        yield f"no longer offers {lost}"


def record() -> None:
    """Writes the nodes of this tree down."""
    comfy = checkout()
    if comfy is None:
        raise FileNotFoundError("no ComfyUI: set COMFYUI_PATH to a checkout")
    with tempfile.TemporaryDirectory() as base, serve(comfy, Path(base)) as host:
        now = described(host)
    lost = list(breaks(json.loads(RECORD.read_text("utf-8")), now)) if RECORD.is_file() else []
    if lost:
        sys.exit("saved workflows would break:\n" + "\n".join(lost))
    RECORD.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    record()
