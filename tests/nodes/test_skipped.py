"""Muted nodes are found in the workflow that the front-end saves with a prompt."""

from __future__ import annotations

from typing import Any

import pytest

from .host_free import load

skipped = load("skipped")

RUN, MUTED, BYPASSED = 0, 2, 4


def node(id: int, mode: int = RUN, link: int | None = None, name: str = "state", **more: object) -> dict[str, Any]:
    """A node of a saved workflow; `link` is at its input `name`, behind one for a model."""
    inputs = [{"name": "model", "link": 99}, {"name": name, "link": link}]
    return {"id": id, "type": "LongLiveShot", "mode": mode, "inputs": inputs, **more}


def reroute(id: int, link: int) -> dict[str, Any]:
    return {"id": id, "type": "Reroute", "mode": RUN, "inputs": [{"name": "", "link": link}]}


def chain(*nodes: dict[str, Any]) -> dict[str, Any]:
    """A workflow in which link n goes from node n to node n + 1."""
    return {"nodes": list(nodes), "links": [[one["id"], one["id"], 1, one["id"] + 1, 0, "X"] for one in nodes]}


@pytest.mark.parametrize(
    ("workflow", "id", "muted"),
    [
        (chain(node(1), node(2, link=1)), "2", None),
        (chain(node(1, MUTED), node(2, link=1)), "2", 1),
        (chain(node(1, MUTED), node(2, BYPASSED, 1), node(3, link=2)), "3", 1),
        (chain(node(1, MUTED), node(2, link=1), node(3, link=2)), "3", None),
        (chain(node(1, MUTED), reroute(2, 1), node(3, link=2)), "3", 1),
        (chain(node(1, MUTED), node(2, BYPASSED, 1, "stream"), node(3, link=2)), "3", 1),
        (chain(node(1, MUTED), node(2)), "2", None),
        (chain(node(1, BYPASSED, 2), node(2, BYPASSED, 1), node(3, link=2)), "3", None),
        (chain(node(2, link=1)), "7", None),
        ({}, "1", None),
        ({"nodes": [{"type": "Note"}, {"id": 1, "inputs": None}], "links": None, "definitions": None}, "1", None),
        (None, "1", None),
    ],
)
def test_the_muted_node_is_found(workflow: dict[str, Any] | None, id: str, muted: int | None) -> None:
    """Behind bypassed nodes and reroutes, at the film's own input; a circle and a strange workflow have none."""
    notes = skipped.muted_note(None if workflow is None else {"workflow": workflow}, id)
    assert len(notes) == (muted is not None)
    assert all(f"(node {muted}) is muted" in note for note in notes)


def test_a_node_in_a_subgraph_has_a_path() -> None:
    """Its links are objects, and its graph is that of the nodes on its path; a title is the node's name."""
    inner = {
        "id": "ab-cd",
        "nodes": [node(1, MUTED, title="Opening"), node(2, link=5)],
        "links": [{"id": 5, "origin_id": 1, "target_id": 2}],
    }
    workflow = {
        "nodes": [{"id": 12, "type": "ab-cd", "inputs": []}],
        "links": [],
        "definitions": {"subgraphs": [inner]},
    }
    (note,) = skipped.muted_note({"workflow": workflow}, "12:2")
    assert note.startswith("Opening (node 1) is muted, so the film begins with this shot: ")
    assert skipped.muted_note({"workflow": workflow}, "2") == []
