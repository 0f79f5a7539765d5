"""What a film is made from beside its script: the same as the page says, from the workflow that it queues."""

from __future__ import annotations

from typing import Any

from .host_free import load

sources = load("sources")


def workflow(file: str = "a.safetensors", seed: int = 3, link: int = 1) -> dict[str, Any]:
    """Loader 1, script 2, encoder 3 and sampler 4."""
    nodes = [
        {"id": 1, "type": "Loader", "widgets_values": [file, None]},
        {"id": 2, "type": "LongLiveShotScript", "widgets_values": ["Shot 1"], "inputs": [{"link": 5}]},
        {"id": 3, "type": "Encode", "widgets_values": ["", "randomize"], "inputs": [{"link": 1}, {"link": 2}]},
        {"id": 4, "type": "Sampler", "widgets_values": [seed], "inputs": [{"link": link}, {"link": 3}, {"link": None}]},
        {"id": 9, "type": "Text", "widgets_values": ["Shot 1"]},
    ]
    links = [[1, 1, 0, 3, 0, "CLIP"], [2, 2, 0, 3, 1, "SHOTS"], [3, 3, 0, 4, 1, "C"], [5, 9, 0, 2, 0, "STRING"]]
    return {"nodes": nodes, "links": links}


def test_the_nodes_that_lead_to_a_sampler() -> None:
    """Each once, in the order of the inputs; neither the sampler nor the script, which are compared by themselves."""
    found = sources.sources_of(workflow(), "4")
    assert found == [["Loader", 0, ["a.safetensors"]], ["Encode", 0, [""]]]
    assert sources.sources_of(workflow(seed=9), "4") == found
    assert sources.sources_of(workflow("b.safetensors"), "4") != found
    assert sources.sources_of(workflow(), "8") == []


def test_the_number_of_gpus_is_no_source() -> None:
    """What leads to LongLive Multi-GPU counts, and its widgets do not: a film goes on with any of them."""
    alone, shared = workflow(), workflow()
    shared["nodes"].append(
        {"id": 6, "type": "LongLiveMultiGPU", "widgets_values": ["2", True], "inputs": [{"link": 1}]}
    )
    shared["nodes"][3]["inputs"][0]["link"] = 6
    shared["links"].append([6, 6, 0, 4, 0, "MODEL"])
    assert sources.sources_of(shared, "4") == sources.sources_of(alone, "4")


def test_inside_a_subgraph() -> None:
    """The path of ids leads to the graph that is looked at."""
    inner = {"id": "x", **workflow()}
    outer = {"nodes": [{"id": 12, "type": "x"}], "links": [], "definitions": {"subgraphs": [inner]}}
    assert sources.sources_of(outer, "12:4") == sources.sources_of(workflow(), "4")
