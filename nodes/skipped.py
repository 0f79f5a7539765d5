"""Finds in a workflow the muted node whose film a node was to continue: the front-end leaves it out of the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .workflow_graph import Graph, graph_of, nodes_of, origins_of

MUTED, BYPASSED = 2, 4
FILM_INPUTS, REROUTE = ("state", "stream"), "Reroute"


def muted_note(extra_pnginfo: Graph | None, node: str) -> list[str]:
    """Returns a note if the node whose film this one was to continue is muted.

    extra_pnginfo: has the workflow if a front-end queued it. node: the id, in subgraphs the path of ids, as in `12:5`.
    """
    for muted in _muted((extra_pnginfo or {}).get("workflow") or {}, node):
        return [
            f"{muted.get('title') or muted['type']} (node {muted['id']}) is muted, so the film begins with this shot: "
            "to leave out only that shot, bypass it (Ctrl+B)"
        ]
    return []


def _muted(workflow: Graph, node: str) -> Iterator[Graph]:
    """Yields the muted node, if there is one, behind bypassed and virtual nodes."""
    graph, own = graph_of(workflow, node)
    nodes, origins = nodes_of(graph), origins_of(graph)
    seen = set[str]()
    while own in nodes and own not in seen:
        seen.add(own)
        before = nodes.get(origins.get(_link(nodes[own]), ""), {})
        if before.get("mode") == MUTED:
            yield before
        if before.get("mode") != BYPASSED and before.get("type") != REROUTE:
            return
        own = str(before["id"])


def _link(node: Graph) -> Any:  # noqa: ANN401 (a number, or None)
    """The link to the film that a node takes."""
    inputs = node.get("inputs") or []
    reroutes = node.get("type") == REROUTE
    return next((one.get("link") for one in inputs if reroutes or one.get("name") in FILM_INPUTS), None)
