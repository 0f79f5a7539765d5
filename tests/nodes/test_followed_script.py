"""The script that a film followed replaces the one that it began with, in its prompt and in its workflow."""

from __future__ import annotations

from typing import Any

from .host_free import load

followed_script = load("followed_script")

WAS, NOW = "Shot 1: a fox", "Shot 1: a hare"


def prompt(place: str = "", script: object = WAS) -> dict[str, Any]:
    """A prompt of script, encoder and sampler, the nodes 1, 2 and 3 of a graph; place: of a subgraph, as in `12:`."""
    return {
        f"{place}1": {"class_type": "LongLiveShotScript", "inputs": {"script": script, "fps": 24.0}},
        f"{place}2": {"class_type": "LongLiveEncodeShots", "inputs": {"shots": [f"{place}1", 0]}},
        f"{place}3": {"class_type": "LongLiveStreamingSampler", "inputs": {"conditioning": [f"{place}2", 0]}},
    }


def nodes(values: object) -> list[dict[str, Any]]:
    return [{"id": 2, "type": "LongLiveEncodeShots"}, {"id": 1, "widgets_values": values}]


def test_prompt_and_workflow_follow() -> None:
    """Only the script's widget changes, and what was given stays as it was."""
    given, saved = prompt(), {"nodes": nodes([WAS, 24.0, "other"])}
    changed, workflow = followed_script.with_followed(given, saved, {"3": NOW})
    assert changed == prompt(script=NOW) and given == prompt()
    assert workflow == {"nodes": nodes([NOW, 24.0, "other"])} and saved["nodes"][1]["widgets_values"][0] == WAS


def test_a_script_in_a_subgraph_follows() -> None:
    """The node is found by its path, in the definition that the outer node names; widgets may be stored by name."""
    saved = {
        "nodes": [{"id": 12, "type": "one"}],
        "definitions": {"subgraphs": [{"id": "two", "nodes": nodes([WAS])}, {"id": "one", "nodes": nodes({"a": WAS})}]},
    }
    changed, workflow = followed_script.with_followed(prompt("12:"), saved, {"12:3": NOW})
    assert changed == prompt("12:", NOW)
    two, one = workflow["definitions"]["subgraphs"]
    assert two["nodes"] == nodes([WAS]) and one["nodes"] == nodes({"a": NOW})


def test_what_has_no_script_of_its_own_stays() -> None:
    """A script over a wire, another kind of node, and a prompt without a workflow."""
    wired = prompt(script=["9", 0])
    assert followed_script.with_followed(wired, None, {"3": NOW}) == (wired, None)
    shot = {"3": {"class_type": "LongLiveShot", "inputs": {"prompt": "a fox"}}}
    assert followed_script.with_followed(shot, None, {"3": NOW}) == (shot, None)
    assert followed_script.with_followed(prompt(), {"nodes": []}, {"3": NOW})[1] == {"nodes": []}
