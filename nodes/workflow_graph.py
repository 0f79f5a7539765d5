"""Graphs of a workflow in the front-end's format: where a node is, in subgraphs too, and what its links come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Graph = Mapping[str, Any]


def graph_of(workflow: Graph, node: str) -> tuple[Graph, str]:
    """Returns the graph that holds a node, and the node's id in it; an empty graph if there is none.

    node: the id, in subgraphs the path of ids: `12:5` is node 5 in the subgraph of node 12.
    """
    graph = workflow
    *outer, own = node.split(":")
    for name in outer:
        graph = _definition(graph, nodes_of(graph).get(name, {}).get("type"))
    return graph, own


def nodes_of(graph: Graph) -> dict[str, Graph]:
    """Returns the nodes of a graph by id."""
    return {str(node["id"]): node for node in graph.get("nodes") or [] if "id" in node}


def origins_of(graph: Graph) -> dict[Any, str]:
    """Returns the id of the node that each link comes from.

    A workflow's links are lists, those of a subgraph are objects.
    """
    links = graph.get("links") or []
    return dict(
        (one["id"], str(one["origin_id"])) if isinstance(one, Mapping) else (one[0], str(one[1])) for one in links
    )


def _definition(graph: Graph, kind: object) -> Graph:
    """A subgraph by its id, which definitions of the whole workflow, or of the graph around it, hold."""
    definitions = graph.get("definitions") or {}
    found = next((one for one in definitions.get("subgraphs") or [] if one.get("id") == kind), {})
    return {"definitions": definitions, **found} if found else {}
