"""Shots of a chain that the user bypasses or mutes on the canvas."""

from __future__ import annotations

import json

import pytest

from .browser import Front

pytestmark = pytest.mark.comfy

# Three shots, and what draws them: [id, type, inputs by [node, output name]].
CHAIN = """(modes) => {
    app.graph.clear()
    const add = (type) => { const node = LiteGraph.createNode(type); app.graph.add(node); return node }
    const join = (from, output, to, input) =>
        from.connect(from.findOutputSlot(output), to, to.findInputSlot(input))
    const set = (node, name, value) => { node.widgets.find((widget) => widget.name === name).value = value }
    const mini = add("LongLiveMini")
    const shots = [1, 2, 3].map((number) => {
        const shot = add("LongLiveShot")
        join(mini, "MODEL", shot, "model")
        join(mini, "CLIP", shot, "clip")
        for (const [name, value] of Object.entries(
            { seconds: 1.33, seed: number, width: 64, height: 64, steps: 1, prompt: `a big red ring ${number}` }))
            set(shot, name, value)
        return shot
    })
    shots.slice(1).forEach((shot, index) => join(shots[index], "STATE", shot, "state"))
    const save = add("LongLiveSaveTake")
    join(shots[2], "STREAM", save, "stream")
    const film = add("LongLiveAsyncDecode")
    join(save, "STREAM", film, "stream")
    join(mini, "VAE", film, "vae")
    ;[...shots, save].forEach((node, index) => { node.mode = modes[index] ?? 0 })
    return [...shots, save, film].map((node) => node.id)
}"""
RUN, MUTED, BYPASSED = 0, 2, 4


def texts(page: Front, id: int) -> str:
    """What stands on a node."""
    return page.page.evaluate(
        "(id) => app.graph.getNodeById(id).widgets.map(({ value }) => String(value)).join('\\n')", id
    )


@pytest.mark.parametrize(
    ("modes", "blocks"),
    [
        ((RUN, RUN, RUN), 3),
        ((RUN, RUN, BYPASSED), 2),
        ((RUN, BYPASSED, BYPASSED), 1),
        ((RUN, BYPASSED, RUN), 2),
        ((BYPASSED, RUN, RUN), 2),
        ((BYPASSED, RUN, BYPASSED), 1),
        ((RUN, RUN, RUN, BYPASSED), 3),
        ((RUN, RUN, BYPASSED, BYPASSED), 2),
    ],
)
def test_a_bypassed_shot_is_left_out(page: Front, modes: tuple[int, ...], blocks: int) -> None:
    """The film has the other shots: a bypassed last one ends it a shot earlier; a bypassed take keeps nothing."""
    *_, film = page.page.evaluate(CHAIN, modes)
    end = page.queue()
    assert end["type"] == "execution_success", end
    (entry,) = [output for output in page.host.get(f"/history/{end['prompt_id']}").values()]
    text = entry["outputs"][str(film)]["text"][0]
    assert f"{32 * blocks - 3} frames" in text


@pytest.mark.parametrize(
    ("modes", "shot", "muted"),
    [
        ((RUN, MUTED, RUN), 2, 1),
        ((MUTED, RUN, RUN), 1, 0),
        ((RUN, MUTED, BYPASSED), None, 1),
        ((MUTED, BYPASSED, RUN), 2, 0),
        ((RUN, RUN, MUTED), None, 2),
    ],
)
def test_a_muted_shot_is_said(page: Front, modes: tuple[int, ...], shot: int | None, muted: int) -> None:
    """Nothing before a muted shot is in the film: the shot behind it says so, and a film without a shot is refused."""
    ids = page.page.evaluate(CHAIN, modes)
    end = page.queue()
    if shot is None:
        assert end["type"] == "refused"
        toast = page.page.locator(".p-toast-message").filter(has_text=f"node {ids[muted]}")
        toast.first.wait_for()
        said = toast.first.inner_text()
    else:
        assert end["type"] == "execution_success", end
        (entry,) = page.host.get(f"/history/{end['prompt_id']}").values()
        said = json.dumps(entry["outputs"][str(ids[shot])])
        # Also beside the progress, which is what stands on the node at the end.
        assert f"node {ids[muted]}) is muted" in texts(page, ids[shot])
    assert f"node {ids[muted]}" in said
    assert "muted" in said
