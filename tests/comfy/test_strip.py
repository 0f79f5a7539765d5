"""The strip of shots under a script: what it shows, every edit by mouse and keyboard, and what the host does to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from .browser import Front
from .host import ROOT, Host

if TYPE_CHECKING:
    from playwright.sync_api import Locator

pytestmark = [pytest.mark.comfy, pytest.mark.slow]

Renderer = Literal["classic", "vue"]
AXE = ROOT / "tests" / "web" / "node_modules" / "axe-core" / "axe.min.js"
THREE = "hero: a red fox\n\nShot 1 (4s): {hero} wakes\nShot 2 (4s): {hero} runs\nShot 3 (4s): night\n"
SIXTY = "".join(f"Shot {number} (4s): scene {number}\n" for number in range(1, 61))
NODE = 'app.graph.nodes.find(({ comfyClass }) => comfyClass === "LongLiveShotScript")'
VALUES = f"() => Object.fromEntries(({NODE}?.widgets ?? []).map(({{ name, value }}) => [name, value]))"
ADD = """() => {
    const node = LiteGraph.createNode("LongLiveShotScript")
    app.graph.add(node)
    node.pos = [100, 100]
    node.setSize([640, 640])
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [0, 0]
}"""
SET = f"""(script) => {{
    const widget = {NODE}.widgets.find(({{ name }}) => name === "script")
    app.canvas.emitBeforeChange()
    widget.value = script
    widget.callback?.(script)
    app.canvas.emitAfterChange()
}}"""


class Strip:
    """The strip of the only ShotScript of a page."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.page = front.page
        self.element = self.page.locator(".longlive-strip")
        self.list = self.element.get_by_role("listbox")
        self.cards = self.list.get_by_role("option")

    def script(self) -> str:
        """The text in the widget."""
        return self.page.evaluate(VALUES)["script"]

    def write(self, script: str, shots: int) -> None:
        """Sets the text, and waits until the strip has so many shots."""
        self.page.evaluate(SET, script)
        self.wait_shots(shots)

    def wait_shots(self, shots: int) -> None:
        """Waits until the strip has so many shots."""
        self.page.wait_for_function(
            "(count) => document.querySelector('.longlive-strip [role=option]')?.ariaSetSize === String(count)",
            arg=shots,
        )

    def wait_line(self, line: str) -> None:
        """Waits until the script has a line."""
        has = f"(line) => ({VALUES})().script.split('\\n').includes(line)"
        try:
            self.page.wait_for_function(has, arg=line, timeout=10_000)
        except Exception as error:
            raise AssertionError(f"no line {line!r} in:\n{self.script()}") from error

    def card(self, number: int) -> Locator:
        """The card of a shot."""
        return self.list.locator(f"[aria-posinset='{number}']")

    def button(self, name: str) -> Locator:
        """A button, by the beginning of its name."""
        return self.element.locator(f"button[aria-label^='{name}']").first

    def focus(self) -> None:
        """Gives the list the focus, with the first shot selected."""
        self.card(1).click()
        self.list.focus()


@pytest.fixture(params=["classic", "vue"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    """Each test runs in both renderers."""
    return request.param


@pytest.fixture
def strip(page: Front, renderer: Renderer) -> Strip:
    """A page with one ShotScript of three shots."""
    page.page.evaluate(ADD)
    page.set_renderer(renderer)
    strip = Strip(page)
    strip.write(THREE, 3)
    return strip


def test_the_strip_shows_the_script(strip: Strip) -> None:
    """One card a shot with its length and text, style and names, and the film's length; the file has no widget more."""
    labels = [strip.card(number).get_attribute("aria-label") or "" for number in (1, 2, 3)]
    assert labels[0] == "Shot 1, 3.9 s, {hero} wakes, not made yet"
    assert labels[1] == "Shot 2, 4 s, {hero} runs, cut, not made yet"
    assert "11.9 s · 3 shots · 9 blocks" in strip.element.inner_text()
    assert strip.button("{hero}: a red fox").count() == 1
    (node,) = strip.front.to_workflow()["nodes"]
    assert node["widgets_values"] == [THREE, 4, 24]
    assert strip.front.own_errors() == []


def test_every_edit_by_keyboard(strip: Strip) -> None:
    """Each key changes the script as it says, and the next key acts on the shot that was edited."""
    strip.focus()
    press = strip.page.keyboard.press
    for key, line in [
        ("+", "Shot 1 (5.2s): {hero} wakes"),
        ("-", "Shot 1 (4s): {hero} wakes"),
        ("Alt+ArrowRight", "Shot 2 (4s): {hero} wakes"),
        ("c", "Shot 2 (4s) continue: {hero} wakes"),
        ("Control+d", "Shot 3 (4s) continue: {hero} wakes"),
        ("x", "Shot 4 (1.3s) continue: {hero} wakes"),
    ]:
        press(key)
        strip.wait_line(line)
    press("Delete")
    strip.wait_shots(4)
    press("End")
    press("s")
    strip.page.keyboard.type("42")
    press("Enter")
    strip.wait_line("Shot 4 (4s): night @seed=42")
    press("Enter")
    strip.page.keyboard.type("day | {hero} sleeps")
    press("Enter")
    strip.wait_line("Shot 4 (4s): day \\| {hero} sleeps @seed=42")
    press("Home")
    press("n")
    strip.page.locator(".ll-editor textarea").wait_for()
    strip.page.keyboard.type("(2s) a lake")
    press("Enter")
    strip.wait_line("Shot 2 (2s): a lake")
    assert strip.page.evaluate("() => app.graph.nodes.length") == 1
    assert strip.front.own_errors() == []


def test_every_edit_by_mouse(strip: Strip) -> None:
    """Cards are dragged to another place, edges to another length, and each button does what it says."""
    mouse = strip.page.mouse

    def drag(card: Locator, x: float, at: Callable[[Any], float]) -> None:
        box = card.bounding_box()
        assert box
        mouse.move(at(box), box["y"] + 30)
        mouse.down()
        mouse.move(at(box) + x / 2, box["y"] + 30, steps=4)
        mouse.move(at(box) + x, box["y"] + 30, steps=4)
        mouse.up()

    width = strip.card(1).bounding_box()["width"]  # pyright: ignore[reportOptionalSubscript]
    drag(strip.card(1), width * 1.2, lambda box: box["x"] + box["width"] / 2)
    strip.wait_line("Shot 2 (4s): {hero} wakes")
    drag(strip.card(2), width / 3 * 2, lambda box: box["x"] + box["width"] - 2)
    strip.wait_line("Shot 2 (6.7s): {hero} wakes")
    for name, line in [
        ("Begin with", ""),
        ("Continue the shot", "Shot 2 (6.7s) continue: {hero} wakes"),
        ("Begin with a cut", "Shot 2 (6.7s): {hero} wakes"),
        ("Duplicate", "Shot 3 (6.7s): {hero} wakes"),
        ("One block shorter", "Shot 3 (5.3s): {hero} wakes"),
        ("Move later", "Shot 4 (5.3s): {hero} wakes"),
    ]:
        if line:
            strip.button(name).click()
            strip.wait_line(line)
    strip.button("Delete").click()
    strip.wait_shots(3)
    strip.button("Add a style").click()
    strip.page.keyboard.type("ink")
    strip.page.keyboard.press("Enter")
    strip.wait_line("style: ink")
    strip.button("{hero}").click()
    strip.page.locator(".ll-editor textarea").fill("a blue fox")
    strip.page.locator(".ll-editor button[type=submit]").click()
    strip.wait_line("hero: a blue fox")
    assert strip.page.evaluate("() => app.graph.nodes.length") == 1
    assert strip.front.own_errors() == []


def test_a_typo_is_warned_about_and_mended_by_its_button(strip: Strip) -> None:
    """The warning shows while typing, its card is marked, and the button writes what it says."""
    strip.write(THREE.replace("Shot 2", "Sht 2"), 3)
    fix = strip.element.get_by_role("button", name="Write “Shot 2”")
    fix.wait_for()
    assert "looks like a header (Sht 2)" in strip.element.inner_text()
    assert "has a warning" in (strip.card(2).get_attribute("aria-label") or "")
    fix.click()
    strip.wait_line("Shot 2 (4s): {hero} runs")
    fix.wait_for(state="detached")
    assert strip.script() == THREE


def test_the_last_cards_stay_while_a_script_has_an_error(strip: Strip) -> None:
    """The error has its line, its remedy and a button; a refused edit says why."""
    strip.page.evaluate(SET, THREE.replace("{hero} runs", "{heroo} runs"))
    fix = strip.element.get_by_role("button", name="Write “{hero}”")
    fix.wait_for()
    assert "line 4" in strip.element.inner_text()
    assert "unknown name {heroo}" in strip.element.inner_text()
    assert strip.cards.count() == 3
    fix.click()
    strip.wait_line("Shot 2 (4s): {hero} runs")
    strip.button("{hero}").click()
    strip.page.locator(".ll-editor textarea").fill("")
    strip.page.locator(".ll-editor button[type=submit]").click()
    alert = strip.page.locator(".ll-editor [role=alert]")
    alert.filter(has_text="unknown name {hero}").wait_for()
    assert strip.script() == THREE


def test_sixty_shots_are_few_cards(strip: Strip) -> None:
    """Only cards in view are in the document; the last one is reached by a key."""
    strip.write(SIXTY, 60)
    assert strip.cards.count() < 20
    strip.focus()
    strip.page.keyboard.press("End")
    strip.card(60).wait_for()
    assert strip.list.get_attribute("aria-activedescendant") == strip.card(60).get_attribute("id")
    strip.page.keyboard.press("Alt+Home")  # not a key of the strip
    strip.page.keyboard.press("Delete")
    strip.wait_shots(59)


def test_one_edit_is_one_step_of_undo_and_the_focus_returns(strip: Strip) -> None:
    """Undo and redo restore the text, the cards, the selected shot and the focus."""
    strip.focus()
    strip.page.keyboard.press("ArrowRight")
    strip.page.keyboard.press("Control+d")
    strip.wait_shots(4)
    strip.page.keyboard.press("+")
    strip.wait_line("Shot 3 (5.3s): {hero} runs")
    strip.page.wait_for_timeout(300)
    focused = "() => document.activeElement?.getAttribute('role')"
    for key, line, shots in [
        ("Control+z", "Shot 3 (4s): {hero} runs", 4),
        ("Control+z", "Shot 3 (4s): night", 3),
        ("Control+y", "Shot 3 (4s): {hero} runs", 4),
        ("Control+y", "Shot 3 (5.3s): {hero} runs", 4),
    ]:
        strip.page.keyboard.press(key)
        strip.wait_line(line)
        strip.wait_shots(shots)
        strip.page.wait_for_function(f"{focused[6:]} === 'listbox'")
    strip.wait_shots(4)
    strip.page.keyboard.press("-")
    strip.wait_line("Shot 3 (4s): {hero} runs")
    assert strip.front.own_errors() == []


def test_save_reload_copy_and_paste_shift_no_value(strip: Strip) -> None:
    """The values of the widgets stay where they are, and the strip of each node shows its own script."""
    saved = strip.front.to_workflow()
    strip.front.load(saved)
    strip.wait_shots(3)
    assert strip.page.evaluate(VALUES) | {"longlive_strip": None} == {
        "script": THREE,
        "default_seconds": 4,
        "fps": 24,
        "longlive_strip": None,
    }
    strip.page.evaluate(f"""() => {{
        app.canvas.selectNode({NODE})
        app.canvas.copyToClipboard()
        app.canvas.pasteFromClipboard()
    }}""")
    strip.page.wait_for_function("() => document.querySelectorAll('.longlive-strip').length === 2")
    values = "() => app.graph.nodes.map(({ widgets }) => widgets[0].value)"
    assert strip.page.evaluate(values) == [THREE, THREE]
    inputs = [one["inputs"] for one in strip.front.to_api().values()]
    assert inputs == [{"script": THREE, "default_seconds": 4, "fps": 24}] * 2


def test_inside_a_subgraph_and_back(strip: Strip) -> None:
    """The strip works inside a subgraph, and after it is unpacked."""
    strip.page.evaluate(f"""() => {{
        const {{ subgraph, node }} = app.graph.convertToSubgraph(new Set([{NODE}]))
        window.subgraphNode = node
        app.canvas.openSubgraph(subgraph, node)
    }}""")
    strip.element.wait_for()
    strip.wait_shots(3)
    strip.focus()
    strip.page.keyboard.press("Control+d")
    strip.wait_shots(4)
    strip.page.evaluate("""() => {
        app.canvas.setGraph(app.rootGraph)
        app.rootGraph.unpackSubgraph(window.subgraphNode)
    }""")
    strip.wait_line("Shot 2 (4s): {hero} wakes")
    strip.wait_shots(4)
    assert strip.front.own_errors() == []


def test_a_script_over_a_wire_is_said(strip: Strip) -> None:
    """The strip shows no shots of a text that is not used, and shows them again when the wire is cut."""
    strip.page.evaluate(f"""() => {{
        const text = LiteGraph.createNode("PrimitiveStringMultiline"), shots = {NODE}
        app.graph.add(text)
        text.pos = [900, 100]
        text.connect(0, shots, shots.findInputSlot("script"))
    }}""")
    strip.element.get_by_text("The script comes over a wire").wait_for()
    assert not strip.list.is_visible()
    strip.page.evaluate(f"() => {{ const shots = {NODE}; shots.disconnectInput(shots.findInputSlot('script')) }}")
    strip.card(3).wait_for()
    assert strip.list.is_visible()


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_the_strip_has_no_serious_fault_of_accessibility(strip: Strip, palette: str) -> None:
    """axe-core finds nothing serious in the cards, the warnings and the editor."""
    if not AXE.is_file():
        pytest.skip("no axe-core: run `npm install` in tests/web")
    strip.page.evaluate("async (id) => { await app.extensionManager.setting.set('Comfy.ColorPalette', id) }", palette)
    strip.page.add_script_tag(path=AXE)
    strip.write(THREE.replace("Shot 2", "Sht 2"), 3)
    strip.element.get_by_role("button", name="Write “Shot 2”").wait_for()
    check = "async () => (await axe.run({ include: [['.longlive-strip']] })).violations"
    for editor in (False, True):
        if editor:
            strip.button("Edit the text").click()
        found = [
            (fault["id"], fault["nodes"][0]["html"][:200], fault["nodes"][0]["failureSummary"])
            for fault in strip.page.evaluate(check)
            if fault["impact"] in ("serious", "critical")
        ]
        assert found == []
    strip.page.evaluate("async () => { await app.extensionManager.setting.set('Comfy.ColorPalette', 'dark') }")


def answer(comfy: Host, path: str, body: object, **headers: str) -> tuple[int, Any]:
    """The status and the JSON that a route answers with."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request(comfy.url + path, data, {"Content-Type": "application/json", **headers})
    try:
        with urlopen(request, timeout=60) as found:
            return found.status, json.loads(found.read())
    except HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def test_the_routes_read_and_edit_a_script(comfy: Host) -> None:
    """The reading has every shot with its place; an edit answers with the text and its reading; errors are answers."""
    status, body = answer(comfy, "/longlive/script", {"script": THREE, "fps": 12})
    assert status == 200
    assert [shot["header"]["line"] for shot in body["outline"]["shots"]] == [3, 4, 5]
    assert body["outline"]["names"] == [["hero", "a red fox"]]
    status, body = answer(comfy, "/longlive/script", {"script": "Shot 1 (4): a"})
    assert (status, body["error"]["fix"]["text"], body["error"]["column"]) == (200, "4s", 9)
    edit = {"kind": "move", "shot": 3, "to": 1}
    status, body = answer(comfy, "/longlive/script/edit", {"script": THREE, "edit": edit})
    assert (status, body["selected"]) == (200, 1)
    assert (
        body["script"].split("\n")[2]
        == "Shot 1 (4s): night"
        == body["outline"]["shots"][0]["text"].join(["Shot 1 (4s): ", ""])
    )
    status, body = answer(comfy, "/longlive/script/edit", {"script": "a", "edit": {"kind": "delete", "shot": 1}})
    assert (status, body["error"]["what"]) == (200, "a script needs one shot")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("", {"script": "a"}, {"Sec-Fetch-Site": "cross-site"}, 403),
        ("", {"script": "a"}, {"Origin": "https://example.com"}, 403),
        ("/edit", {"script": "a", "edit": {"kind": "delete", "shot": 1}}, {"Sec-Fetch-Site": "same-site"}, 403),
        ("", {"script": "a" * 2**21}, {}, 413),
        ("/edit", {"script": "a" * 2**21}, {}, 413),
        ("", b"{", {}, 400),
        ("", {"script": 3}, {}, 400),
        ("", {"script": "a", "fps": 0}, {}, 400),
        ("", {"script": "a", "fps": True}, {}, 400),
        ("", {"script": "a", "default_seconds": "4"}, {}, 400),
        ("", b'{"script": "a", "fps": NaN}', {}, 400),
        ("/edit", {"script": "a"}, {}, 400),
        ("/edit", {"script": "a", "edit": {"kind": "run", "code": "1"}}, {}, 400),
    ],
)
def test_the_routes_refuse(comfy: Host, path: str, body: object, headers: dict[str, str], status: int) -> None:
    """Other origins, large bodies and malformed ones get an error that says why."""
    found, content = answer(comfy, f"/longlive/script{path}", body, **headers)
    # Pages of other servers are refused by the host itself, without a word.
    assert found == status and (status == 403 or content["error"])


def test_screenshots_are_of_the_whole_strip(strip: Strip, tmp_path: Path) -> None:
    """The strip has its height in both renderers, and the text above keeps room."""
    box = strip.element.bounding_box()
    assert box and 250 < box["height"] < 300
    text = strip.page.locator("textarea:visible").first.bounding_box()
    assert text and text["height"] > 150
    strip.front.screenshot(tmp_path / "strip.png")
