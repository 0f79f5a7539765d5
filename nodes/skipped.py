"""Finds in a workflow the muted node whose film a node was to continue: the front-end leaves it out of the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MUTED, BYPASSED = 2, 4
FILM_INPUTS, REROUTE = ("state", "stream"), "Reroute"

Graph = Mapping[str, Any]


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
    graph = workflow
    *outer, own = node.split(":")
    for key in outer:
        graph = _subgraphs(workflow).get(str(_nodes(graph).get(key, {}).get("type")), {})
    nodes, links = _nodes(graph), _links(graph)
    seen = set[str]()
    while own in nodes and own not in seen:
        seen.add(own)
        before = nodes.get(links.get(_link(nodes[own]), ""), {})
        if before.get("mode") == MUTED:
            yield before
        if before.get("mode") != BYPASSED and before.get("type") != REROUTE:
            return
        own = str(before["id"])


def _nodes(graph: Graph) -> dict[str, Graph]:
    return {str(node["id"]): node for node in graph.get("nodes") or [] if "id" in node}


def _links(graph: Graph) -> dict[Any, str]:
    """The id of the node that each link comes from; a workflow's links are lists, those of a subgraph are objects."""
    links = graph.get("links") or []
    return dict(
        (one["id"], str(one["origin_id"])) if isinstance(one, Mapping) else (one[0], str(one[1])) for one in links
    )


def _link(node: Graph) -> Any:  # noqa: ANN401 (a number, or None)
    """The link to the film that a node takes."""
    inputs = node.get("inputs") or []
    reroutes = node.get("type") == REROUTE
    return next((one.get("link") for one in inputs if reroutes or one.get("name") in FILM_INPUTS), None)


def _subgraphs(workflow: Graph) -> dict[str, Graph]:
    return {str(one["id"]): one for one in (workflow.get("definitions") or {}).get("subgraphs") or []}
