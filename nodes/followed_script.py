"""The workflow of a film whose script was changed while it was made: with the script that the film followed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .workflow_graph import graph_of, nodes_of

SCRIPT_NODE = "LongLiveShotScript"
# From a node that samples to the node with its script.
INPUTS = ("conditioning", "shots")


def with_followed(
    prompt: Mapping[str, Any], workflow: Mapping[str, Any] | None, scripts: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Returns a prompt and its workflow with these scripts in their nodes.

    scripts: by the node that samples. A script that comes over a wire from another kind of node stays as it is.
    """
    prompt, workflow = copy.deepcopy(dict(prompt)), copy.deepcopy(dict(workflow)) if workflow else None
    for sampler, text in scripts.items():
        node = _script_node(prompt, sampler)
        if node is None:
            continue
        inputs = prompt[node]["inputs"]
        before, inputs["script"] = inputs["script"], text
        values = [] if workflow is None else _widgets(workflow, node) or []
        keys = values if isinstance(values, dict) else range(len(values))
        for key in keys:
            # A workflow stores widgets by position; only the script has this text.
            if values[key] == before:
                values[key] = text
    return prompt, workflow


def _script_node(prompt: Mapping[str, Any], node: str) -> str | None:
    """The node with the script of a node that samples, or None if a wire ends elsewhere."""
    for name in INPUTS:
        link = prompt.get(node, {}).get("inputs", {}).get(name)
        if not isinstance(link, list):
            return None
        node = str(link[0])
    found = prompt.get(node, {})
    own = found.get("class_type") == SCRIPT_NODE and isinstance(found.get("inputs", {}).get("script"), str)
    return node if own else None


def _widgets(workflow: Mapping[str, Any], node: str) -> Any:  # noqa: ANN401 (a list, or in API form a dict)
    """The values of a node's widgets."""
    graph, own = graph_of(workflow, node)
    return nodes_of(graph).get(own, {}).get("widgets_values")
