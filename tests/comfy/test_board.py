"""The storyboard on a real page: stills on the cards before the film, rerolled, edited and accepted, then the film."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import TYPE_CHECKING

import pytest
import torch
from longlive.longlive_core.script.storyboard import storyboard_blocks
from longlive.longlive_core.take import Take
from safetensors.torch import load_file
from torch import Tensor

from .browser import Front, opened
from .host import Host, Start
from .test_cards import EDIT, LIMIT, SEEDS, SET, SLOW, TEMPLATE, TEXT, WIDGETS, address, cards, press, takes
from .test_strip import AXE

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.comfy, pytest.mark.slow]

SCRIPT = """hero: a big red ring

Shot 1 (2 blocks): {hero} sways on the left in front of a striped navy wall
Shot 2 (2 blocks): {hero} bobs in the middle against a plain wine wall
Shot 3 (2 blocks): the hero circles at the top in front of a checked forest background
"""
BUTTON = ".ll-storyboard"
IDLE = ".ll-storyboard:not(.ll-running)"


@pytest.fixture(scope="module")
def studio(start: Start) -> Iterator[Host]:
    """A server whose films keep their takes."""
    with start(keep=True) as host:
        yield host


@pytest.fixture(params=["classic", "vue"])
def front(request: pytest.FixtureRequest, browser: Browser, studio: Host) -> Iterator[Front]:
    """A page with a film of three shots that is not made yet, in each renderer; its takes are removed at the end."""
    with opened(browser, studio) as page:
        page.load(json.loads(TEMPLATE.read_text("utf-8")))
        page.page.evaluate(WIDGETS, [SCRIPT, 64, 1000 + next(SEEDS)])
        page.set_renderer(request.param)
        yield page
        for take in takes(studio):
            studio.post(address(take["name"]) + "/delete", {})
        assert page.own_errors() == []


def take_of(host: Host) -> Take:
    """The newest take."""
    return Take.load(host.base / "output" / takes(host)[0]["name"])


def openings(take: Take) -> list[Tensor]:
    """The latents of the first block of every shot."""
    return [load_file(take.path(spec))["latents"].clone() for spec in storyboard_blocks(take.plan)]


def same(one: list[Tensor], other: list[Tensor]) -> list[bool]:
    return [torch.equal(first, second) for first, second in zip(one, other, strict=True)]


def until(done: Callable[[], bool]) -> None:
    """Waits until something is so on the server."""
    end = monotonic() + LIMIT / 1000
    while not done():
        assert monotonic() < end, "it did not come about"
        sleep(0.2)


def make_board(front: Front) -> None:
    """Presses the button of the storyboard, and waits for a still on every card."""
    front.page.locator(IDLE).click()
    boarded(front)


def boarded(front: Front, number: int = 3) -> None:
    """Waits until the storyboard has so many stills, and is not being made."""
    cards(front, "board", number)
    stills = "(count) => document.querySelectorAll('.ll-card.ll-board .ll-still').length === count"
    front.page.wait_for_function(stills, arg=number, timeout=LIMIT)
    front.page.locator(IDLE).wait_for(timeout=LIMIT)


def assert_accessible(front: Front) -> None:
    """axe-core finds nothing serious in the strip."""
    if not AXE.is_file():
        return
    front.page.add_script_tag(path=AXE)
    faults = front.page.evaluate("async () => (await axe.run({ include: [['.longlive-strip']] })).violations")
    assert [fault["id"] for fault in faults if fault["impact"] in ("serious", "critical")] == []


def test_the_film_begins_with_the_storyboard(front: Front, studio: Host) -> None:
    """Stills first, one rerolled, all accepted, then the film: its blocks equal the storyboard's to the bit."""
    make_board(front)
    take = take_of(studio)
    first = openings(take)
    assert take.block_count() == 3
    press(front, "Home", "ArrowRight", "d")
    front.page.wait_for_function(f"({TEXT})().includes('@seed=')", timeout=LIMIT)
    until(lambda: len(take_of(studio).shots[1].versions) == 2 and take_of(studio).block_count() == 3)
    boarded(front)
    rerolled = openings(take_of(studio))
    assert same(first, rerolled) == [True, False, True]
    press(front, "Home", "a")
    front.page.locator(".ll-accepted").wait_for(timeout=LIMIT)
    assert ", on the storyboard, accepted" in (front.page.locator(".ll-card").first.get_attribute("aria-label") or "")
    press(front, "Home", " ")
    front.page.locator(".ll-large img").wait_for(timeout=LIMIT)
    front.page.keyboard.press("ArrowRight")
    large = front.page.get_by_role("dialog", name="Shot 2")
    large.wait_for(timeout=LIMIT)
    assert large.locator("img").get_attribute("src") == front.page.locator(".ll-still").nth(1).get_attribute("src")
    front.page.keyboard.press("Escape")
    large.wait_for(state="detached", timeout=LIMIT)
    row = front.page.locator(".ll-plan")
    row.get_by_text("1 of 3 stills accepted").wait_for(timeout=LIMIT)
    row.get_by_role("button", name="Accept all").click()
    row.get_by_text("3 of 3 stills accepted").wait_for(timeout=LIMIT)
    assert [shot.is_accepted for shot in take_of(studio).shots] == [True] * 3
    assert_accessible(front)
    row.get_by_role("button", name="Make the film").click()
    cards(front, "made", 3)
    take = take_of(studio)
    assert take.complete and all(same(openings(take), rerolled))


def test_a_cancelled_storyboard_goes_on(front: Front, studio: Host) -> None:
    """The button cancels while stills are made; those that are there stay, and the next press makes the others."""
    many = SCRIPT + "".join(f"Shot {number} (2 blocks): the hero waits\n" for number in range(4, 13))
    front.page.evaluate(WIDGETS, [many, 128, 2000 + next(SEEDS)])
    front.page.evaluate(SLOW)
    front.page.wait_for_function("() => document.querySelector('.ll-card')?.ariaSetSize === '12'", timeout=LIMIT)
    front.page.locator(IDLE).click()
    front.page.locator(".ll-card.ll-board").first.wait_for(timeout=LIMIT)
    front.page.locator(f"{BUTTON}.ll-running").click()
    front.page.locator(IDLE).wait_for(timeout=LIMIT)
    front.page.wait_for_function("() => !document.querySelector('.ll-card.ll-making')", timeout=LIMIT)
    take = take_of(studio)
    assert 1 <= take.block_count() < 12
    before = {path: path.stat().st_mtime_ns for path in take.folder.rglob("*.safetensors")}
    make_board_of(front, 12)
    assert take.block_count() == 12 and all(path.stat().st_mtime_ns == time for path, time in before.items())


def make_board_of(front: Front, number: int) -> None:
    """As `make_board`, for more cards than can be seen at once."""
    front.page.locator(IDLE).click()
    front.page.locator(".ll-plan").get_by_text(f"of {number} stills accepted").wait_for(timeout=3 * LIMIT)
    front.page.locator(IDLE).wait_for(timeout=LIMIT)


def test_an_edit_after_the_storyboard_makes_its_still_only(front: Front, studio: Host) -> None:
    """A changed text, another length and another place leave the stills of the other shots, in the film too."""
    make_board(front)
    first = openings(take_of(studio))
    write = f"(text) => {{ {SET}('LongLiveShotScript', 'script', text) }}"
    edited = SCRIPT.replace("circles", "rests").replace("Shot 2 (2 blocks)", "Shot 2 (3 blocks)")
    front.page.evaluate(write, edited)
    cards(front, "unmade", 1)
    assert front.page.locator(".ll-card.ll-board .ll-still").count() == 2
    make_board(front)
    second = openings(take_of(studio))
    assert same(first, second) == [True, True, False]
    press(front, "End", "Alt+ArrowLeft")
    boarded(front)
    front.page.wait_for_function(f"({TEXT})().includes('Shot 2 (2 blocks): the hero rests')", timeout=LIMIT)
    assert front.queue(180)["type"] == "execution_success"
    film = take_of(studio)
    assert film.complete and all(same(openings(film), [second[0], second[2], second[1]]))


def test_a_storyboard_is_that_of_its_seed(front: Front) -> None:
    """With another seed no shot is on the storyboard, because the film begins with other blocks; set back, all are."""
    make_board(front)
    value = """() => app.graph.nodes.find(({ comfyClass }) => comfyClass === "LongLiveStreamingSampler").widgets
        .find(({ name }) => name === "seed").value"""
    seed = front.page.evaluate(value)
    front.page.evaluate(EDIT, ["LongLiveStreamingSampler", "seed", seed + 500_000])
    cards(front, "unmade", 3)
    front.page.evaluate(EDIT, ["LongLiveStreamingSampler", "seed", seed])
    boarded(front)


def test_what_cannot_have_a_storyboard_is_said(front: Front, studio: Host) -> None:
    """Without a decoder nothing is queued, and the page says what to connect."""
    decode = "app.graph.nodes.find(({ comfyClass }) => comfyClass === 'LongLiveAsyncDecode')"
    front.page.evaluate(f"() => app.graph.remove({decode})")
    front.page.locator(IDLE).click()
    front.page.get_by_text("connect LongLive Streaming Sampler and LongLive Async Decode").first.wait_for(timeout=LIMIT)
    assert studio.get("/queue") == {"queue_running": [], "queue_pending": []}
    front.page.locator(IDLE).wait_for(timeout=LIMIT)
