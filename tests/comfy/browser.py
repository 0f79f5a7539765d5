"""The real front-end in a headless Chromium, driven through what it offers to a user and to extensions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .host import Host
from .run import Json

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page

OWN = "/extensions/longlive/"
# The front-end shows its spinner from its first line to the end of the first-run dialog.
READY = "() => window.app && app.extensionManager.spinner === false"
# A queued prompt's end, or the refusal, as one object.
QUEUE = """async (limit) => {
    const ends = ["execution_success", "execution_error", "execution_interrupted"]
    const end = new Promise((resolve, reject) => {
        ends.forEach((type) => app.api.addEventListener(type, (event) => resolve({ ...event.detail, type })))
        setTimeout(() => reject(new Error(`the prompt was not over after ${limit} seconds`)), limit * 1000)
    })
    await app.queuePrompt(0)
    const errors = app.extensionManager.lastNodeErrors
    return errors && Object.keys(errors).length ? { type: "refused", node_errors: errors } : await end
}"""


@dataclass(frozen=True)
class Complaint:
    """An error in the browser's console, or an uncaught one: its text, with the stack, and the address it came from."""

    text: str
    source: str


class Front:
    """One page with the front-end open on an empty graph; `page` is Playwright's, for what is not here."""

    def __init__(self, page: Page, host: Host) -> None:
        self.page = page
        self.host = host
        self.errors: list[Complaint] = []
        page.on("console", self._hear)
        page.on("pageerror", self._hear_uncaught)

    def open(self) -> None:
        """Open the front-end as a new user finds it, wait until it is ready and close the templates it offers."""
        # Settings live on the server and outlast a page: begin every page from the same ones.
        self.host.post("/settings", {"Comfy.TutorialCompleted": False, "Comfy.VueNodes.Enabled": False})
        self.page.goto(self.host.url)
        self.page.wait_for_function(READY, timeout=60_000)
        self.dismiss(wait=5)

    def dismiss(self, wait: float = 0) -> None:
        """Close every dialog with Escape; wait so many seconds for the first one to show."""
        from playwright.sync_api import TimeoutError as Late

        dialog = self.page.locator("[role=dialog]:visible")
        with suppress(Late):
            if wait:
                dialog.first.wait_for(timeout=wait * 1000)
            for _ in range(10):
                if not dialog.count():
                    return
                self.page.keyboard.press("Escape")
                dialog.first.wait_for(state="hidden", timeout=2000)

    def load(self, workflow: Json) -> None:
        """Load a workflow as dropping its file does."""
        self.page.evaluate("async (workflow) => { await app.loadGraphData(workflow) }", workflow)
        self._settle()

    def to_api(self) -> dict[str, Json]:
        """The prompt in API form that the front-end makes of the graph."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def to_workflow(self) -> Json:
        """The graph as the front-end saves it."""
        return self.page.evaluate("() => app.graph.serialize()")

    def set_renderer(self, renderer: Literal["classic", "vue"]) -> None:
        """Draw the nodes on the canvas (`classic`), or as elements of the page (`vue`: Nodes 2.0)."""
        setting = "async (on) => { await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on) }"
        self.page.evaluate(setting, renderer == "vue")
        drawn = "(on) => document.querySelectorAll('[data-node-id]').length === (on ? app.graph.nodes.length : 0)"
        self.page.wait_for_function(drawn, arg=renderer == "vue")
        self._settle()

    def queue(self, timeout: float = 120) -> Json:
        """Queue the graph and wait for its end.

        `type` of the result is `execution_success`, `execution_error`, `execution_interrupted` or, with `node_errors`,
        `refused`.
        """
        return self.page.evaluate(QUEUE, timeout)

    def open_templates(self, category: str = "All Templates") -> Locator:
        """The dialog of templates, at a category; a template's card has the test id `template-workflow-<name>`."""
        self.page.evaluate("async () => { await app.extensionManager.command.execute('Comfy.BrowseTemplates') }")
        dialog = self.page.locator("[role=dialog]:visible")
        # A new user's dialog opens on a category that may be empty.
        dialog.get_by_text(category, exact=True).first.click()
        dialog.get_by_test_id("template-workflows-content").wait_for()
        return dialog

    def open_help(self, node: int | str) -> str:
        """Select a node, press its info button and return the text of its help page."""
        select = "(id) => { app.canvas.deselectAll(); app.canvas.selectNode(app.graph.getNodeById(id)) }"
        self.page.evaluate(select, node)
        self.page.get_by_test_id("info-button").click()
        return (
            self.page.locator(".node-help-content:visible").locator(".markdown-content, .fallback-content").inner_text()
        )

    def screenshot(self, path: Path) -> Path:
        """The page as it is now, as PNG."""
        self._settle()
        self.page.screenshot(path=path)
        return path

    def own_errors(self) -> list[Complaint]:
        """The errors that name a file of this node pack.

        A help page in the user's language that is absent is none: the front-end asks for it before the one in English.
        """
        own = [error for error in self.errors if OWN in error.source or OWN in error.text]
        return [error for error in own if not (OWN + "docs/" in error.source and error.source.endswith("/en.md"))]

    def _settle(self) -> None:
        frame = "new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)))"
        self.page.evaluate(f"async () => {{ app.canvas.setDirty(true, true); await {frame} }}")

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(Complaint(message.text, message.location["url"]))

    def _hear_uncaught(self, error: Error) -> None:
        self.errors.append(Complaint(f"{error.message}\n{error.stack or ''}", self.page.url))


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium of this machine, headless. Raises ImportError without Playwright, FileNotFoundError without it."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise FileNotFoundError("no chromium on the PATH: install it to test in the browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, host: Host) -> Iterator[Front]:
    """A fresh page of the front-end of `host`, without anything an earlier page stored."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, locale="en-US")
    try:
        front = Front(context.new_page(), host)
        front.open()
        yield front
    finally:
        context.close()
