"""The VRAM planner: its verdicts are those of the recorded table, its advice is true, and its text adds up."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
from longlive.longlive_core.cli.plan import add_arguments, parse_size, parse_vram, plan_text
from longlive.longlive_core.vram.advice import SMALL_WINDOW
from longlive.longlive_core.vram.budget import WEIGHT_BYTES
from longlive.longlive_core.vram.planner import CARDS, COMMON_CARDS, GIB, cards_text, plan_vram

LARGE, SMALL = (704, 1280), (480, 832)


@dataclass(frozen=True)
class Row:
    """A verdict of the recorded table. ours: this code's verdict where it differs, with `why`."""

    card: int
    size: tuple[int, int]
    weights: str
    kv: str
    vae: str
    fits: bool
    ours: bool | None = None
    why: str = ""
    sequential: bool = False
    window: int = 32

    def __str__(self) -> str:
        return (
            f"{self.card} GB {self.size[0]}p {self.weights} {self.kv} {self.vae}{' seq' * self.sequential}{self.window}"
        )


TABLE = [
    Row(8, LARGE, "nvfp4", "nvfp4", "tiny", False),
    Row(8, LARGE, "nvfp4", "nvfp4", "tiny", True, window=24),
    Row(8, SMALL, "nvfp4", "nvfp4", "tiny", True),
    Row(12, LARGE, "nvfp4", "nvfp4", "light", True),
    Row(12, LARGE, "nvfp4", "nvfp4", "tiny", True),
    Row(12, LARGE, "nvfp4", "nvfp4", "full", False),
    Row(12, LARGE, "nvfp4", "nvfp4", "full", True, sequential=True),
    Row(12, SMALL, "nvfp4", "fp8", "full", True),
    Row(12, SMALL, "fp8", "fp8", "full", True, ours=False, why="its sum is the one with NVFP4 weights"),
    Row(16, LARGE, "fp8", "fp8", "light", True),
    Row(16, LARGE, "nvfp4", "nvfp4", "full", True),
    Row(16, SMALL, "bf16", "bf16", "tiny", True),
    Row(24, LARGE, "fp8", "fp8", "full", True),
    Row(24, LARGE, "bf16", "fp8", "tiny", True),
    Row(24, LARGE, "bf16", "bf16", "tiny", True),
    Row(24, SMALL, "bf16", "bf16", "full", True),
    Row(32, LARGE, "nvfp4", "bf16", "full", True),
]


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_the_recorded_table(row: Row) -> None:
    """The verdicts on cards from 8 to 32 GB are those of the table, except one that is marked."""
    plan = plan_vram(
        row.card * GIB, row.size, row.weights, row.kv, row.window, row.vae, sequential=row.sequential
    )  # fmt: skip
    assert plan.budget.fits == (row.fits if row.ours is None else row.ours), plan.text()
    assert (row.ours is None) == (not row.why)


def test_the_marginal_card() -> None:
    """16 GB with everything in NVFP4 and the full VAE is a matter of a third of a GB."""
    plan = plan_vram(16 * GIB, LARGE, "nvfp4", "nvfp4")
    assert 0 < 16 * GIB - plan.budget.total < 4e8


def test_formats_are_the_best_that_fit() -> None:
    """Formats that are not given are the best that fit: the KV cache is quantised before the weights."""
    quality = list(WEIGHT_BYTES)
    chosen = [plan_vram(card * GIB, LARGE, vae="tiny").budget for card in (10, 12, 16, 20, 24)]
    assert [(b.weights, b.kv_format) for b in chosen] == [
        ("nvfp4", "nvfp4"), ("fp8", "nvfp4"), ("bf16", "nvfp4"), ("bf16", "fp8"), ("bf16", "bf16")
    ]  # fmt: skip
    for card in COMMON_CARDS:
        budget = plan_vram(card * GIB, SMALL).budget
        chosen_rank = quality.index(budget.weights), quality.index(budget.kv_format)
        better = [(w, k) for w in quality for k in quality if (quality.index(w), quality.index(k)) < chosen_rank]
        assert not any(replace(budget, weights=w, kv_format=k).fits for w, k in better)


def test_a_given_format_is_used() -> None:
    """A format that is given is not changed, whether the film fits or not."""
    plan = plan_vram(8 * GIB, LARGE, "bf16", "bf16")
    assert (plan.budget.weights, plan.budget.kv_format, plan.budget.fits) == ("bf16", "bf16", False)


def test_advice_is_true() -> None:
    """Each change saves the stated bytes and is enough where stated; changes that are enough come first."""
    plan = plan_vram(24 * GIB, LARGE, "bf16", "bf16")
    assert not plan.budget.fits
    assert [advice.fits for advice in plan.advice] == sorted((advice.fits for advice in plan.advice), reverse=True)
    given = {advice.change: advice for advice in plan.advice}
    changes: dict[str, dict[str, Any]] = {
        "nvfp4 KV": {"kv_format": "nvfp4"},
        "q2 KV (coarse)": {"kv_format": "q2"},
        "nvfp4 weights": {"weights": "nvfp4"},
        "tiny VAE": {"vae": "tiny"},
        "decoding after sampling": {"sequential": True},
        f"window of {SMALL_WINDOW} frames": {"window": SMALL_WINDOW},
        "size 480x832": {"size": SMALL},
    }
    assert set(changes) <= set(given)
    for name, fields in changes.items():
        after = replace(plan.budget, **fields)
        assert (given[name].saves, given[name].fits) == (plan.budget.total - after.total, after.fits), name
    assert next(iter(given)) == "nvfp4 KV"
    assert "fp8 KV" not in given, "fp8 is not enough, so the next smaller format is advised"


def test_two_bits_are_advised_and_not_chosen() -> None:
    """The formats that are chosen by themselves do not include q2, however small the card; with it none is advised."""
    chosen = {plan_vram(card * GIB, size).budget.kv_format for card in CARDS for size in (LARGE, SMALL)}
    assert "q2" not in chosen
    plan = plan_vram(6 * GIB, LARGE, "nvfp4", "q2")
    assert plan.budget.kv_format == "q2" and not any("KV" in advice.change for advice in plan.advice)


def test_layers_in_host_memory() -> None:
    """As few layers as possible stay in host memory; their bytes are listed, but not counted on the card."""
    plan = plan_vram(15 * GIB, LARGE, "nvfp4", "nvfp4")
    (change,) = (advice.change for advice in plan.advice if "host memory" in advice.change)
    layers = int(change.split()[0])
    assert replace(plan.budget, streamed=layers).fits
    assert not replace(plan.budget, streamed=layers - 1).fits
    (away,) = (p for p in replace(plan.budget, streamed=layers).parts if p.name == "weights in host memory")
    assert away.placement == "offloaded"


def test_advice_together() -> None:
    """If no single change is enough, the smallest sufficient combination comes first; all its changes are needed."""
    plan = plan_vram(8 * GIB, LARGE)
    assert plan.advice[0].change == f"tiny VAE, window of {SMALL_WINDOW} frames"
    assert [advice.fits for advice in plan.advice] == [True] + [False] * (len(plan.advice) - 1)
    assert replace(plan.budget, vae="tiny", window=SMALL_WINDOW).fits


def test_no_advice_if_it_fits() -> None:
    """A film that fits needs no advice."""
    assert plan_vram(80 * GIB, LARGE).advice == ()


@pytest.mark.slow
@pytest.mark.parametrize("size", [LARGE, SMALL])
@pytest.mark.parametrize("formats", [("bf16", "bf16"), ("nvfp4", "nvfp4")])
def test_the_smallest_card(size: tuple[int, int], formats: tuple[str, str]) -> None:
    """The smallest card holds the film, and the next smaller one does not."""
    card = plan_vram(4 * GIB, size, *formats).smallest_card
    assert card is not None
    assert plan_vram(card * GIB, size, *formats).budget.fits
    assert not plan_vram(CARDS[CARDS.index(card) - 1] * GIB, size, *formats).budget.fits
    assert plan_vram(4 * GIB, (4096, 4096), *formats).smallest_card is None


def test_the_text_adds_up() -> None:
    """The table's resident rows add up to its total; verdict and advice follow."""
    plan = plan_vram(12 * GIB, LARGE)
    text = plan.text()
    rows = re.findall(r"^.{26} +(\d+\.\d\d)  (\w+)", text, re.MULTILINE)
    resident = sum(float(amount) for amount, where in rows if where == "resident")
    (total,) = (float(amount) for amount, where in rows if where == "of")
    assert resident == pytest.approx(total, abs=0.01 * len(rows))
    assert f"{(plan.budget.total - 12 * GIB) / 1e9:.2f} GB too much; without changes it needs a card of 16 GB." in text
    assert all(f"  {advice.change} " in text for advice in plan.advice)
    assert max(map(len, text.splitlines())) <= 79
    assert "It fits, with" in plan_vram(12 * GIB, LARGE, vae="tiny").text()


@pytest.mark.parametrize("kv_format", ["bf16", "fp8", "nvfp4", "q2"])
@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_cards_in_a_line(size: tuple[int, int], kv_format: str) -> None:
    """Every card in the text holds the film with the stated formats, and no smaller common card holds it at all."""
    found = re.findall(r"(\d+) GB \((\w+)[^,]*, (\w+)", cards_text(size, kv_format, 32))
    assert found
    for card, weights, vae in found:
        assert plan_vram(int(card) * GIB, size, weights, kv_format, vae=vae).budget.fits
    for card in COMMON_CARDS[: COMMON_CARDS.index(int(found[0][0]))]:
        assert not plan_vram(card * GIB, size, "nvfp4", kv_format, vae="tiny").budget.fits
    assert cards_text((2048, 2048), kv_format, 256) == "more than 32 GB"


@pytest.mark.parametrize(("text", "value"), [("12GB", 12), ("12", 12), ("16 GiB", 16), ("7.5g", 7.5), ("24gb", 24)])
def test_cards_are_sold_in_gib(text: str, value: float) -> None:
    """The memory of a card is read in units of 2^30 bytes, with or without a unit."""
    assert parse_vram(text) == value * 2**30


@pytest.mark.parametrize("text", ["", "GB", "0GB", "-8GB", "12TB", "12,5GB", "nan"])
def test_no_card(text: str) -> None:
    """Other text is refused with an example."""
    with pytest.raises(ValueError, match="as in 12GB"):
        parse_vram(text)


@pytest.mark.parametrize("text", ["704", "704x", "x1280", "704*1280", "704x1280x3"])
def test_no_size(text: str) -> None:
    """Other text is refused with the expected form."""
    with pytest.raises(ValueError, match="HEIGHTxWIDTH"):
        parse_size(text)


def test_aligned_seams_are_planned() -> None:
    """The plan has their bytes and says what they cost in time; plain seams are advised where that makes room."""
    plain = plan_vram(80 * GIB, LARGE, "bf16", "bf16")
    aligned = plan_vram(80 * GIB, LARGE, "bf16", "bf16", align=True)
    assert "9/8 of the tokens" in aligned.text() and "seam" not in plain.text().lower()
    between = plan_vram((plain.budget.total + aligned.budget.total) // 2, LARGE, "bf16", "bf16", align=True)
    advice = {item.change: item for item in between.advice}
    assert advice["plain seams"].fits and advice["plain seams"].saves == aligned.budget.total - plain.budget.total


def test_the_command() -> None:
    """The arguments of the command reach the planner, and their defaults are the planner's."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert plan_text(parser.parse_args(["--vram", "12GB"])) == plan_vram(12 * GIB, LARGE).text()
    words = "--vram 8 --size 480x832 --weights fp8 --kv nvfp4 --window 24 --vae tiny --sequential --guidance"
    words += " --seam align --cuda-graphs"
    options = {"sequential": True, "guidance": True, "align": True, "graphs": True}
    plan = plan_vram(8 * GIB, SMALL, "fp8", "nvfp4", 24, "tiny", **options)
    assert plan_text(parser.parse_args(words.split())) == plan.text()


def test_several_cards() -> None:
    """The plan is that of the card with the most, says how many share the film, and where the VAE is."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)

    def text(words: str) -> str:
        return plan_text(parser.parse_args(["--vram", "20GB", "--weights", "bf16", "--kv", "bf16", *words.split()]))

    plan = plan_vram(20 * GIB, LARGE, "bf16", "bf16", ranks=2, decoder="other card")
    assert text("--gpus 2 --decode-gpu 2") == plan.text()
    assert "a card of 20 GB, one of 2 that share each block" in plan.text() and "other card" in plan.text()
    assert text("--gpus 2 --decode-gpu 1") == text("--gpus 2 --decode-gpu 0") == text("--gpus 2")
    assert "offloaded" in text("--gpus 2 --decode-gpu cpu").partition("VAE")[2].partition("text encoder")[0]
    assert plan.budget.fits and not plan_vram(20 * GIB, LARGE, "bf16", "bf16", ranks=2).budget.fits
    split = plan_vram(20 * GIB, LARGE, "bf16", "bf16", ranks=2, guidance=True, split=True)
    assert text("--gpus 4 --guidance --split-guidance") == split.text()
    assert "one of 2 that share each block, and for each branch of guidance" in split.text()
    with pytest.raises(ValueError, match="1 rank cannot split guidance"):
        text("--guidance --split-guidance")
    with pytest.raises(ValueError, match="--decode-gpu last: give the index of a card, as in 2 for one more"):
        text("--gpus 2 --decode-gpu last")
