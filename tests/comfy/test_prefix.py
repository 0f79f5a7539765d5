"""Prefixes of file names: the tokens of core's Save Video, over the front-end, over a wire and from a script."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from .browser import Front
from .graphs import FILM, SAMPLER, SHORT, Prompt, film, film_path, kept_latent, node
from .host import Host, Refused
from .run import Json

pytestmark = pytest.mark.comfy

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 1}
# Each as core's Save Video makes it of the same graph.
TOKENS = (
    "%date:yyyy-MM-dd%/film",
    "%date:yy%-%date:M%-%date:d%/%date:yyyy%_film",
    "%year%_%month%_%day%/film",
    "%width%x%height%/film",
    "100%_sure",
    "50% off, 100% fun",
    "%LongLive ShotScript.fps%/film",
    "%LongLiveShotScript.default_seconds%_film",
    "%Nobody.width%/film",
    "%My sampler.seed%/film",
    "%LongLiveShotScript.script%",
    "%date:%film",
    "plain/film",
)
SERIALISED = """async (prefix) => {
    app.graph.clear()
    const add = (type) => { const node = LiteGraph.createNode(type); app.graph.add(node); return node }
    add("LongLiveShotScript")
    add("LongLiveStreamingSampler").title = "My sampler"
    for (const type of ["SaveVideo", "LongLiveAsyncDecode", "LongLiveSaveTake"])
        add(type).widgets.find(({ name }) => name.endsWith("_prefix")).value = prefix
    const { output } = await app.graphToPrompt()
    return Object.fromEntries(Object.values(output).map(({ class_type, inputs }) => [
        class_type, inputs.filename_prefix ?? inputs.name_prefix]))
}"""


def test_tokens_are_those_of_save_video(page: Front) -> None:
    """What the front-end sends is, for either of our nodes, what it sends for Save Video."""
    for prefix in TOKENS:
        sent: Json = page.page.evaluate(SERIALISED, prefix)
        assert sent["LongLiveAsyncDecode"] == sent["LongLiveSaveTake"] == sent["SaveVideo"], prefix
    assert page.page.evaluate(SERIALISED, TOKENS[0])["LongLiveAsyncDecode"] == f"{date.today():%Y-%m-%d}/film"
    assert page.own_errors() == []


def prefixed(prefix: object, kind: str = "film") -> Prompt:
    prompt = film(SHORT, **SMALL)
    if kind == "film":
        prompt[FILM]["inputs"]["filename_prefix"] = prefix
        return prompt
    del prompt[FILM]
    return {**prompt, "20": node("LongLiveSaveTake", stream=[SAMPLER, 0], name_prefix=prefix), **kept_latent(["20", 0])}


def test_what_no_front_end_replaced_is_replaced(comfy: Host) -> None:
    """Dates from a script and over a wire are dates; sizes and core's own tokens are as in Save Video."""
    today = date.today()
    for prefix, name in (
        ("%date:yyyy-MM-dd%/a", f"{today:%Y-%m-%d}/a_00001_.mp4"),
        ("t/%date:yy%_%date:MM%/b", f"t/{today:%y}_{today:%m}/b_00001_.mp4"),
        ("%year%/%width%x%height%/c", f"{today:%Y}/64x64/c_00001_.mp4"),
        ("t/100%_sure", "t/100%_sure_00001_.mp4"),
        ("t/d/", "t/d_00001_.mp4"),
    ):
        run = comfy.run(prefixed(prefix), 60)
        assert run.ok, run.error
        assert film_path(comfy, run) == comfy.base / "output" / name
    wired = prefixed(["50", 0]) | {"50": node("PrimitiveString", value="%date:yyyy%/wired")}
    run = comfy.run(wired, 60)
    assert run.ok, run.error
    assert film_path(comfy, run).parent.name == f"{today:%Y}"
    run = comfy.run(prefixed("%date:yyyy-MM-dd%/take", "take"), 60)
    assert run.ok, run.error
    assert (comfy.base / "output" / f"{today:%Y-%m-%d}" / "take_00001.take").is_dir()


def test_a_film_is_named_as_save_video_names_it(comfy: Host) -> None:
    """Of one prefix, Save Video behind the node makes the next file in the same folder."""
    prompt = prefixed("%year%-%month%/%width%_same")
    prompt["7"] = node(
        "SaveVideo", video=[FILM, 0], filename_prefix="%year%-%month%/%width%_same", format="auto", codec="auto"
    )
    run = comfy.run(prompt, 60)
    assert run.ok, run.error
    (saved,) = run.outputs["7"]["images"]
    own = film_path(comfy, run)
    assert comfy.file(saved) == own.with_name(own.name.replace("00001", "00002"))


@pytest.mark.parametrize("kind", ["film", "take"])
@pytest.mark.parametrize("prefix", ["", "  ", ".", "./", "a/..", "%date:%"])
def test_an_empty_name_is_refused(comfy: Host, prefix: str, kind: str) -> None:
    """A prefix without a name, which would make a hidden file, is refused when it is queued, with one to write."""
    with pytest.raises(Refused, match=r"name.*empty.*(video|takes)/LongLive") as refused:
        comfy.queue(prefixed(prefix, kind))
    assert len(refused.value.messages) == 1


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/tmp/x"])
def test_a_folder_elsewhere_is_refused(comfy: Host, prefix: str) -> None:
    """A film goes nowhere but below the output folder."""
    with pytest.raises(Refused, match="output folder"):
        comfy.queue(prefixed(prefix))
