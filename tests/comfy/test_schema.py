"""Saved workflows open: nodes keep their ids, inputs, widgets in order and outputs; see `schema.py`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .host import ROOT, Host
from .run import Json
from .schema import RECORD, breaks, described, widgets

NODES: dict[str, Json] = json.loads(RECORD.read_text("utf-8"))
SAVED = sorted([*(ROOT / "workflows").glob("*.json"), *(ROOT / "subgraphs").glob("*.json")])


def saved_nodes(path: Path) -> Iterator[Json]:
    """The LongLive nodes of a saved workflow, those within subgraphs too."""
    workflow = json.loads(path.read_text("utf-8"))
    graphs = [workflow, *(workflow.get("definitions") or {}).get("subgraphs", [])]
    yield from (node for graph in graphs for node in graph["nodes"] if node["type"].startswith("LongLive"))


@pytest.mark.comfy
def test_nodes_only_grow(comfy: Host) -> None:
    """Whatever a workflow of an older version holds is still there, at its place; what is new stands behind it."""
    assert list(breaks(NODES, described(comfy))) == []


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_templates_are_of_these_nodes(path: Path) -> None:
    """Each node that is shipped in a workflow is one of the record, with its slots and no more widgets than it has."""
    nodes = list(saved_nodes(path))
    assert nodes
    for node in nodes:
        recorded = NODES[node["type"]]
        assert len(node.get("widgets_values", [])) <= len(widgets(recorded)), node["type"]
        slots = {(one["name"], one["type"]) for one in recorded["inputs"]}
        assert {(one["name"], one["type"]) for one in node["inputs"]} <= slots
        outputs = [(one["name"], one["type"]) for one in recorded["outputs"]]
        assert [(one["name"], one["type"]) for one in node["outputs"]] == outputs[: len(node["outputs"])]


def sampler(nodes: dict[str, Json]) -> Json:
    return nodes["LongLiveStreamingSampler"]


def retyped(nodes: dict[str, Json]) -> None:
    next(one for one in sampler(nodes)["inputs"] if one["name"] == "state")["type"] = "LONGLIVE_STATE"


def dropped(nodes: dict[str, Json]) -> None:
    del nodes["LongLiveMini"]


def inserted(nodes: dict[str, Json]) -> None:
    sampler(nodes)["inputs"].insert(3, {"name": "shift", "type": "FLOAT", "required": False})


def required(nodes: dict[str, Json]) -> None:
    sampler(nodes)["inputs"].append({"name": "upscaler", "type": "MODEL", "required": True})


def renamed(nodes: dict[str, Json]) -> None:
    sampler(nodes)["inputs"][0]["name"] = "unet"


def swapped(nodes: dict[str, Json]) -> None:
    sampler(nodes)["outputs"].reverse()


def narrowed(nodes: dict[str, Json]) -> None:
    next(one for one in sampler(nodes)["inputs"] if one["name"] == "steps")["max"] = 8


def unoffered(nodes: dict[str, Json]) -> None:
    next(one for one in sampler(nodes)["inputs"] if one["name"] == "storyboard")["options"].pop()


def other_default(nodes: dict[str, Json]) -> None:
    next(one for one in sampler(nodes)["inputs"] if one["name"] == "storyboard")["default"] = "first"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dropped, "LongLiveMini is gone"),
        (retyped, "state had type 'LONGLIVE_STREAM,LONGLIVE_STATE', now 'LONGLIVE_STATE'"),
        (inserted, "its widgets were"),
        (required, "upscaler is new and required"),
        (renamed, "its inputs were"),
        (swapped, "its outputs were"),
        (narrowed, "steps went from 1 to 50, now from 1 to 8"),
        (unoffered, "storyboard no longer offers"),
        (other_default, "storyboard had default 'off', now 'first'"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_each_break_is_reported(change: Callable[[dict[str, Json]], None], message: str) -> None:
    """A change that saved workflows would not survive is named."""
    changed = copy.deepcopy(NODES)
    change(changed)
    assert any(message in line for line in breaks(NODES, changed))


def test_an_appended_widget_breaks_nothing() -> None:
    """An optional widget behind the others, one more type of an input, or a new node, breaks no saved workflow."""
    grown = copy.deepcopy(NODES)
    next(one for one in sampler(grown)["inputs"] if one["name"] == "model")["type"] += ",LATENT"
    sampler(grown)["inputs"].append({"name": "shift", "type": "FLOAT", "required": False, "default": 5.0})
    grown["LongLiveNew"] = {"inputs": [], "outputs": []}
    assert list(breaks(NODES, grown)) == []
