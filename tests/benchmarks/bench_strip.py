"""From a keystroke in a script to the redrawn strip of shots, in a real ComfyUI and both renderers.

    COMFYUI_PATH=… COMFYUI_PYTHON=… python tests/benchmarks/bench_strip.py [--shots 60] [--keys 100]

Types into shot 1 of a script and prints, for each renderer, the milliseconds from the key to the card with the new text
in the document (median and worst), and to the frame after it. No time is printed where a card does not follow the text.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from comfy.browser import Front, chromium, opened  # noqa: E402
from comfy.host import checkout, serve  # noqa: E402
from comfy.test_strip import ADD, SET  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Times of the next key: when shot 1's card has as many letters as the text, and the frame after that.
WATCH = """(letters) => {
    window.drawn = new Promise((resolve) => {
        let pressed
        addEventListener("keydown", () => { pressed = performance.now() }, { capture: true, once: true })
        const reel = document.querySelector(".ll-reel")
        const observer = new MutationObserver(() => {
            const card = reel.querySelector("[aria-posinset='1']")
            if (card?.title.length !== letters) return
            observer.disconnect()
            const drawn = performance.now() - pressed
            requestAnimationFrame(() => resolve([drawn, performance.now() - pressed]))
        })
        observer.observe(reel, { childList: true, subtree: true })
    })
}"""
TEXT = "a big red ring sways on the left in front of a striped navy wall"


def script(shots: int) -> str:
    """A script of shots of 4 s."""
    return "".join(f"Shot {number} (4s): {TEXT}\n" for number in range(1, shots + 1))


def key_times(page: Page, keys: int) -> list[tuple[float, float]]:
    """Types into the first line and returns, for each key, the milliseconds to the card and to the frame after it."""
    area = page.locator("textarea:visible").first
    area.click()
    area.evaluate("(text) => { const end = text.value.indexOf('\\n'); text.setSelectionRange(end, end) }")
    times: list[tuple[float, float]] = []
    for key in range(keys):
        page.evaluate(WATCH, len(TEXT) + key + 1)
        page.keyboard.press("x")
        times.append(tuple(page.evaluate("async () => await window.drawn")))
        page.wait_for_timeout(30)
    return times


def measure(front: Front, renderer: Literal["classic", "vue"], shots: int, keys: int) -> None:
    """Prints the times in one renderer."""
    front.page.evaluate(ADD)
    front.page.evaluate(SET, script(shots))
    front.set_renderer(renderer)
    front.page.wait_for_selector(f".ll-reel [aria-setsize='{shots}']")
    front.page.wait_for_timeout(1000)
    drawn, framed = zip(*key_times(front.page, keys), strict=True)
    print(
        f"{renderer}: {shots} shots, {keys} keys: card {median(drawn):.0f} ms, worst {max(drawn):.0f}; "
        f"frame {median(framed):.0f} ms, worst {max(framed):.0f}",
        flush=True,
    )


def main() -> None:
    """Measures both renderers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=60, help="shots of the script (default: %(default)s)")
    parser.add_argument("--keys", type=int, default=100, help="keys to type (default: %(default)s)")
    options = parser.parse_args()
    folder = checkout()
    if folder is None:
        sys.exit("no ComfyUI: set COMFYUI_PATH to a checkout")
    with tempfile.TemporaryDirectory() as base, serve(folder, Path(base)) as host, chromium() as browser:
        for renderer in ("classic", "vue"):
            with opened(browser, host) as front:
                measure(front, renderer, options.shots, options.keys)


if __name__ == "__main__":
    main()
