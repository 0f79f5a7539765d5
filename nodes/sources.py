"""What a film is made from beside its script and its sampler's settings: the nodes that lead to its sampler.

A page compares them with those of a take, so that it shows no shot as made that another model would make anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .workflow_graph import Graph, graph_of, nodes_of, origins_of

SCRIPT = "LongLiveShotScript"
RANKS = "LongLiveMultiGPU"  # a film is the same on any number of GPUs
# What a front-end does with a seed after a run; web/js/strip/sources.mjs has them too.
AFTER_RUN = ("fixed", "increment", "decrement", "randomize")

Sources = list[list[Any]]
"""[type, mode, values of the widgets] of each node, in the order of the inputs that they are reached by."""


def sources_of(workflow: Graph, node: str) -> Sources:
    """Returns the nodes that lead to a node, in its own graph; the script's are compared as a script.

    node: the id, in subgraphs the path of ids, as in `12:5`.
    """
    graph, own = graph_of(workflow, node)
    nodes, origins = nodes_of(graph), origins_of(graph)
    seen = {own}

    def before(name: str) -> Iterator[list[Any]]:
        for slot in nodes.get(name, {}).get("inputs") or []:
            origin = origins.get(slot.get("link"), "")
            if origin in seen or origin not in nodes or nodes[origin].get("type") == SCRIPT:
                continue
            seen.add(origin)
            if nodes[origin].get("type") != RANKS:
                yield [nodes[origin].get("type"), nodes[origin].get("mode") or 0, _values(nodes[origin])]
            yield from before(origin)

    return list(before(own))


def _values(node: Graph) -> object:
    values = node.get("widgets_values")
    if not isinstance(values, list):
        return values
    return [value for value in values if value is not None and value not in AFTER_RUN]
