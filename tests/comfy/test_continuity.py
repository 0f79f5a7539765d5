"""The continuity of made shots on their cards: a score, and a mark with the reason where it is low."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from .browser import opened
from .graphs import FILM, SAMPLER, Prompt, decoded, stream
from .host import Host, Start
from .run import Json
from .test_cards import LIMIT, TEMPLATE, WIDGETS, address, cards, takes
from .test_kept_takes import canvas

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.comfy

SCRIPT = """Shot 1 (1 block): a big red ring rests in the middle against a plain navy wall
Shot 2 (1 block): the same ring rests on the left against a plain navy wall
Shot 3 (1 block): a big green square rests in the middle against a plain navy wall
"""


@pytest.fixture(scope="module")
def studio(start: Start) -> Iterator[Host]:
    """A server whose films keep their takes."""
    with start(keep=True) as host:
        yield host


def film(seed: int) -> Prompt:
    prompt = stream(SCRIPT, seed=seed, width=128, height=128, steps=4, seam="auto")
    return {**prompt, FILM: decoded([SAMPLER, 0])}


def report(host: Host, take: str) -> Json:
    """The report, as soon as the host has put its prompt away, which it does after it says that it is over."""
    for _ in range(100):
        if not (found := host.get(address(take) + "/continuity")).get("waiting"):
            break
        time.sleep(0.1)
    return found


def test_the_report_is_of_the_film_as_it_is(studio: Host) -> None:
    """Every shot has a score, and a low one its measures; it is kept in the take, until the film is another one."""
    run = studio.run(film(3), 120, extra_data=canvas())
    assert run.ok, run.error
    (take,) = [one["name"] for one in takes(studio)]
    first = report(studio, take)
    assert [shot["shot"] for shot in first["shots"]] == [1, 2, 3] and first["limit"] == 0.8
    low = first["shots"][2]
    assert low["score"] < 0.8 and {"measure": "identity", "shots": [1], "files": []}.items() <= low["faults"][0].items()
    assert first["shots"][0]["faults"] == []
    kept = studio.base / "output" / take / "continuity.json"
    changed = json.loads(kept.read_text())
    changed["report"]["shots"][0]["score"] = 0.123
    kept.write_text(json.dumps(changed))
    studio.post(address(take) + "/lock", {"shot": 1, "locked": True})
    assert report(studio, take)["shots"][0]["score"] == 0.123  # not worked out again
    kept.unlink()
    studio.post(address(take) + "/retake", {"shot": 2, "seed": 9})
    assert report(studio, take)["shots"] == [] and not kept.exists()
    studio.post(address(take) + "/delete", {})
    assert not kept.parent.exists()


@pytest.mark.parametrize("renderer", ["classic", "vue"])
def test_the_cards_show_scores_and_mark_low_ones(
    browser: Browser, studio: Host, renderer: Literal["classic", "vue"], tmp_path: Path
) -> None:
    """As soon as the film is made; the reason is in the tip and in the card's name, and an edited shot has none."""
    with opened(browser, studio) as page:
        page.load(json.loads(TEMPLATE.read_text("utf-8")))
        page.page.evaluate(WIDGETS, [SCRIPT, 128, 3 + len(renderer)])
        page.set_renderer(renderer)
        assert page.queue(180)["type"] == "execution_success"
        cards(page, "made", 3)
        scores = page.page.locator(".ll-card .ll-score")
        scores.nth(2).wait_for(timeout=LIMIT)
        assert scores.count() == 3
        low = page.page.locator(".ll-card").nth(2).locator(".ll-low")
        reason = "identity: its subject has other colours than that of shot 1"
        assert reason in (low.get_attribute("title") or "")
        assert reason in (page.page.locator(".ll-card").nth(2).get_attribute("aria-label") or "")
        assert (scores.first.get_attribute("title") or "").startswith("Continuity ")
        page.screenshot(tmp_path / f"continuity_{renderer}.png")
        page.page.locator(".ll-film").focus()
        for key in ("End", "d"):
            page.page.keyboard.press(key)
        cards(page, "unmade", 1)
        page.page.wait_for_function("() => document.querySelectorAll('.ll-score').length === 2", timeout=LIMIT)
        assert page.own_errors() == []
