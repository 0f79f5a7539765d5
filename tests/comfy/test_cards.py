"""Cards and takes on a real page: what a film made shows on the strip, and what can be done from there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from .browser import Front, opened
from .host import ROOT, Host, Start

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.comfy, pytest.mark.slow]

AXE = ROOT / "tests" / "web" / "node_modules" / "axe-core" / "axe.min.js"
TEMPLATE = ROOT / "workflows" / "LongLive 01 Text to film (Mini).json"
SCRIPT = """hero: a big red ring

Shot 1 (1 block): {hero} sways on the left in front of a striped navy wall
Shot 2 (1 block): {hero} bobs in the middle against a plain wine wall
Shot 3 (1 block): the hero circles at the top in front of a checked forest background
"""
SET = """((type, name, value) => {
    const node = app.graph.nodes.find(({ comfyClass }) => comfyClass === type)
    const widget = node.widgets.find((widget) => widget.name === name)
    widget.value = value
    widget.callback?.(value)
})"""
WIDGETS = f"""([script, size, seed]) => {{
    const set = {SET}
    set("LongLiveShotScript", "script", script)
    for (const side of ["width", "height"]) set("LongLiveStreamingSampler", side, size)
    set("LongLiveStreamingSampler", "seed", seed)
}}"""
# An edit as by hand, which the front-end notices.
EDIT = f"""([type, name, value]) => {{
    app.canvas.emitBeforeChange();
    {SET}(type, name, value)
    app.canvas.emitAfterChange()
}}"""
TEXT = """() => app.graph.nodes.find(({ comfyClass }) => comfyClass === "LongLiveShotScript").widgets
    .find(({ name }) => name === "script").value"""
# So many steps that a button can be pressed while something is made.
SLOW = f"() => {SET}('LongLiveStreamingSampler', 'steps', 50)"
LIMIT = 60_000
SEEDS = count(1)  # a film that was made before is cached and makes no take


@pytest.fixture(scope="module")
def studio(start: Start) -> Iterator[Host]:
    """A server whose films keep their takes."""
    with start(keep=True) as host:
        yield host


@pytest.fixture(params=["classic", "vue"])
def front(request: pytest.FixtureRequest, browser: Browser, studio: Host) -> Iterator[Front]:
    """A page whose film of three shots is made, in each renderer; its takes are removed at the end."""
    with opened(browser, studio) as page:
        page.load(json.loads(TEMPLATE.read_text("utf-8")))
        page.page.evaluate(WIDGETS, [SCRIPT, 64, next(SEEDS)])
        page.page.evaluate(SLOW)
        page.set_renderer(request.param)
        assert page.queue(180)["type"] == "execution_success"
        yield page
        for take in takes(studio):
            studio.post(address(take["name"]) + "/delete", {})
        assert page.own_errors() == []


def takes(host: Host) -> list[dict[str, Any]]:
    return host.get("/longlive/takes")["takes"]


def address(name: str) -> str:
    return "/longlive/takes/" + name.replace("/", "%2F").replace(" ", "%20")


def press(front: Front, *keys: str) -> None:
    """Presses keys on the cards."""
    front.page.locator(".ll-film").focus()
    for key in keys:
        front.page.keyboard.press(key)


def cards(front: Front, state: str, number: int) -> None:
    """Waits until so many cards have a state."""
    wait = "([state, count]) => document.querySelectorAll(`.ll-card.ll-${state}`).length === count"
    front.page.wait_for_function(wait, arg=[state, number], timeout=LIMIT)


def test_a_shot_is_rerolled_compared_and_chosen(front: Front, studio: Host) -> None:
    """An edit marks what a run will make; the run makes that only, and an earlier version comes back unsampled."""
    cards(front, "made", 3)
    front.page.locator(".ll-card .ll-still").nth(2).wait_for(timeout=LIMIT)
    press(front, "End", "ArrowLeft", "d")
    cards(front, "unmade", 2)
    plan = front.page.locator(".ll-plan")
    plan.wait_for(timeout=LIMIT)
    assert "shots 2 to 3, 2 of 3 blocks" in plan.inner_text()
    assert "@seed=" in front.page.evaluate(TEXT)
    assert front.queue(180)["type"] == "execution_success"
    cards(front, "made", 3)
    take = takes(studio)[0]
    versions = [len(shot["versions"]) for shot in studio.get(address(take["name"]))["shots"]]
    assert versions == [1, 2, 2]
    front.page.locator('[data-tool="versions"]:enabled').wait_for(timeout=LIMIT)  # the page has read the take
    press(front, "v")
    choices = front.page.locator(".ll-version")
    choices.first.wait_for(timeout=LIMIT)
    assert choices.count() == 2
    choices.first.click()
    front.page.wait_for_function(f"!({TEXT})().includes('@seed=')", timeout=LIMIT)
    cards(front, "made", 3)
    assert front.queue(180)["type"] == "execution_success"
    assert [len(shot["versions"]) for shot in studio.get(address(take["name"]))["shots"]] == versions


def test_several_versions_are_made_on_the_card_and_one_is_chosen(front: Front, studio: Host) -> None:
    """Each appears as a picture when it is made, beside the film; a run takes the chosen one from the take."""
    cards(front, "made", 3)
    front.page.locator('[data-tool="versions"]:enabled').wait_for(timeout=LIMIT)  # the page has read the take
    press(front, "Home", "ArrowRight", "v")
    dialog = front.page.get_by_role("dialog", name="Versions of shot 2")
    dialog.get_by_label("Number of versions").fill("17")
    dialog.get_by_role("button", name="Make versions").click()
    dialog.get_by_text("1 to 16 versions").wait_for(timeout=LIMIT)
    dialog.get_by_label("Number of versions").fill("2")
    dialog.get_by_role("button", name="Make versions").click()
    dialog.get_by_role("status").filter(has_text="2 · ").wait_for(timeout=LIMIT)
    dialog.locator(".ll-version .ll-still").nth(2).wait_for(timeout=LIMIT)
    dialog.get_by_role("button", name="Make versions").wait_for(timeout=LIMIT)
    take = takes(studio)[0]
    assert [len(shot["versions"]) for shot in studio.get(address(take["name"]))["shots"]] == [1, 3, 1]
    assert dialog.get_by_role("radio").count() == 3
    if AXE.is_file():
        front.page.add_script_tag(path=AXE)
        faults = front.page.evaluate("async () => (await axe.run({ include: [['.ll-editor']] })).violations")
        assert [fault["id"] for fault in faults if fault["impact"] in ("serious", "critical")] == []
    dialog.get_by_role("radio", name="Version 3").click()
    front.page.wait_for_function(f"({TEXT})().includes('@seed=2')", timeout=LIMIT)
    cards(front, "unmade", 1)  # the shot after it
    assert front.queue(180)["type"] == "execution_success"
    shots = studio.get(address(take["name"]))["shots"]
    assert [shot["chosen"] for shot in shots] == [0, 2, 1] and len(takes(studio)) == 1


def test_versions_are_stopped(front: Front, studio: Host) -> None:
    """The versions that are sampled stay, which may be all, as they are sampled at once; nothing waits in the queue."""
    cards(front, "made", 3)
    front.page.locator('[data-tool="versions"]:enabled').wait_for(timeout=LIMIT)
    press(front, "Home", "v")
    dialog = front.page.get_by_role("dialog", name="Versions of shot 1")
    dialog.get_by_label("Number of versions").fill("16")
    dialog.get_by_role("button", name="Make versions").click()
    dialog.locator(".ll-version .ll-still").nth(1).wait_for(timeout=LIMIT)
    dialog.get_by_role("button", name="Stop").click()
    dialog.get_by_role("button", name="Make versions").wait_for(timeout=LIMIT)
    versions = studio.get(address(takes(studio)[0]["name"]))["shots"][0]["versions"]
    assert 2 < len(versions) <= 17 and all(version["blocks"] == 1 for version in versions)
    assert studio.get("/queue") == {"queue_running": [], "queue_pending": []}
    front.page.keyboard.press("Escape")
    dialog.wait_for(state="detached", timeout=LIMIT)


def test_a_locked_shot_stays(front: Front, studio: Host) -> None:
    """The lock of a card is the take's, and a run leaves that shot unchanged."""
    cards(front, "made", 3)
    front.page.locator('[data-tool="lock"]').wait_for(timeout=LIMIT)  # the page has read the take
    press(front, "End", "l")
    front.page.locator(".ll-card .pi-lock").wait_for(timeout=LIMIT)
    take = takes(studio)[0]
    assert [shot["locked"] for shot in studio.get(address(take["name"]))["shots"]] == [False, False, True]
    edit = f"(text) => {{ {SET}('LongLiveShotScript', 'script', text) }}"
    front.page.evaluate(edit, SCRIPT.replace("circles", "rests"))
    plan = front.page.locator(".ll-plan").filter(has_text="shot 3 is locked: unlock it")
    plan.wait_for(timeout=LIMIT)
    front.page.evaluate(edit, SCRIPT)
    plan.wait_for(state="detached", timeout=LIMIT)
    press(front, "Home", "ArrowRight", "d")
    cards(front, "unmade", 1)
    assert front.queue(180)["type"] == "execution_success"
    shots = studio.get(address(take["name"]))["shots"]
    assert [len(shot["versions"]) for shot in shots] == [1, 2, 1]
    assert shots[2]["spliced"]


@pytest.mark.parametrize(
    ("kind", "name", "other"),
    [
        ("LongLiveStreamingSampler", "seed", 999_999),
        ("LongLiveStreamingSampler", "width", 96),
        ("LongLiveSinkMemory", "window", 24),
    ],
)
def test_other_settings_make_another_film(front: Front, kind: str, name: str, other: int) -> None:
    """Cards of a film with another seed, size or memory are not made; set back, they are those of the take again."""
    cards(front, "made", 3)
    value = f"""() => app.graph.nodes.find(({{ comfyClass }}) => comfyClass === "{kind}").widgets
        .find(({{ name }}) => name === "{name}").value"""
    before = front.page.evaluate(value)
    front.page.evaluate(EDIT, [kind, name, other])
    cards(front, "unmade", 3)
    front.page.locator(".ll-plan").filter(has_text="shots 1 to 3, 3 of 3 blocks").wait_for(timeout=LIMIT)
    front.page.evaluate(EDIT, [kind, name, before])
    cards(front, "made", 3)
    front.page.locator(".ll-plan").wait_for(state="detached", timeout=LIMIT)


def test_the_tab_lists_changes_and_deletes_a_take(front: Front, studio: Host) -> None:
    """A reroll there is an edit of the script on the canvas, so that a run makes it; a deleted take is gone."""
    take = takes(studio)[0]
    front.page.evaluate("() => app.extensionManager.sidebarTab.toggleSidebarTab('longlive-takes')")
    row = front.page.locator(f'[data-take="{take["name"]}"]')
    row.wait_for(timeout=LIMIT)
    row.locator(".longlive-take-head").click()
    row.locator(".longlive-take-version").nth(2).wait_for(timeout=LIMIT)
    cards(front, "made", 3)
    row.get_by_role("button", name="Reroll shot 2 alone").click()
    front.page.wait_for_function(f"({TEXT})().includes('@seed=')", timeout=LIMIT)
    cards(front, "unmade", 1)
    assert [shot["locked"] for shot in studio.get(address(take["name"]))["shots"]] == [False, False, True]
    row.hover()
    title, tools = (row.locator(f".longlive-take-{part}").bounding_box() for part in ("title", "tools"))
    assert title is not None and tools is not None and title["y"] + title["height"] <= tools["y"] + 1  # not on it
    disposition = {"Content-Disposition": 'attachment; filename="a%20film.otio"'}
    front.page.route("**/timeline", lambda route: route.fulfill(body="{}", headers=disposition))
    with front.page.expect_download(timeout=LIMIT) as saved:
        row.get_by_role("button", name="Export the edit as OpenTimelineIO").click()
    assert saved.value.suggested_filename == "a film.otio"
    row.hover()
    row.get_by_role("button", name="Delete the take").click()
    front.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    row.wait_for(state="detached", timeout=LIMIT)
    assert take["name"] not in {left["name"] for left in takes(studio)}
    front.page.evaluate("() => app.extensionManager.sidebarTab.toggleSidebarTab('longlive-takes')")
