"""A ComfyUI for the tests marked `comfy`, and a browser in front of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .browser import Front, chromium, opened
from .host import Host, Start, checkout, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def comfy_path() -> Path:
    """The ComfyUI checkout. Without one the test is skipped; a COMFYUI_PATH that is none fails it."""
    folder = checkout()
    if folder is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH to a checkout")
    return folder


@pytest.fixture(scope="session")
def start(comfy_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Start another server, for a test that needs its own: `with start("--some-argument") as host`."""

    def start_one(*arguments: str, **options: object) -> AbstractContextManager[Host]:
        return serve(comfy_path, tmp_path_factory.mktemp("comfy"), *arguments, **options)

    return start_one


@pytest.fixture(scope="session")
def comfy(start: Start) -> Iterator[Host]:
    """The server that the tests share, with this repository as a node pack."""
    with start() as host:
        yield host


@pytest.fixture(scope="session")
def browser(comfy_path: Path) -> Iterator[Browser]:  # noqa: ARG001
    """One Chromium for all pages. Without it the test is skipped, unless COMFYUI_PATH asks for all tests."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(chromium())
        except (ImportError, FileNotFoundError) as error:
            if "COMFYUI_PATH" in os.environ:
                raise
            pytest.skip(f"no browser: {error}")
        yield running


@pytest.fixture
def page(browser: Browser, comfy: Host) -> Iterator[Front]:
    """A fresh page with the front-end of the shared server, on an empty graph."""
    with opened(browser, comfy) as front:
        yield front


@pytest.fixture(scope="session")
def tell() -> Iterator[Callable[[str, str], None]]:
    """Gathers messages and figures in the file LONGLIVE_MESSAGES, for those who want to read them."""
    notes: list[str] = []
    yield lambda what, message: notes.append(f"## {what}\n{message.strip()}\n")
    if "LONGLIVE_MESSAGES" in os.environ:
        Path(os.environ["LONGLIVE_MESSAGES"]).write_text("\n".join(notes), "utf-8")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the server's log under a failed test."""
    report = yield
    host = getattr(item, "funcargs", {}).get("comfy")
    if report.failed and isinstance(host, Host):
        report.sections.append(("ComfyUI log", host.tail()))
    return report
