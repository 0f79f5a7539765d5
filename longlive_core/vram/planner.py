"""Whether a film fits a card, the best formats that do, and what to change where none does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from ..model import WAN22_TI2V_5B, WanConfig
from .advice import KV_BY_QUALITY, Advice, advise
from .budget import WEIGHT_BYTES, Budget, Part

GIB = 2**30
# Sizes that cards are sold in, GiB.
CARDS = (6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 80)
COMMON_CARDS = (8, 12, 16, 24, 32)


@dataclass(frozen=True, slots=True)
class VRAMPlan:
    """A film's parts on a card. advice: what to change where it does not fit, what is enough and costs least first."""

    budget: Budget
    advice: tuple[Advice, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.budget.parts

    @property
    def total(self) -> int:
        """Bytes of the card that are needed at a time."""
        return self.budget.total

    @property
    def fits(self) -> bool:
        return self.total <= self.budget.vram

    @property
    def smallest_card(self) -> int | None:
        """GiB of the smallest card sold that holds the film as it is; None where there is none."""
        return next((card for card in CARDS if self.total <= card * GIB), None)

    @property
    def verdict(self) -> str:
        """One sentence."""
        spare = self.budget.vram - self.total
        if spare >= 0:
            return f"It fits, with {_gb(spare)} GB to spare."
        card = "no card sold holds it" if self.smallest_card is None else f"it needs a card of {self.smallest_card} GB"
        return f"It does not fit: {_gb(-spare)} GB too much; as it is, {card}."

    def text(self) -> str:
        """A table of the parts, the verdict and the advice."""
        (height, width), vram = self.budget.size, self.budget.vram
        rows = [(part.name, _gb(part.bytes), part.where) for part in self.parts]
        rows.append(("on the card at a time", _gb(self.total), f"of {_gb(vram)}"))
        table = [f"{name:<26}{amount:>7}  {where}" for name, amount, where in rows]
        lines = [f"{height}x{width} pixels (height x width), a card of {vram / GIB:g} GB", ""]
        lines += [f"{'':<26}{'GB':>7}", *table, "", self.verdict]
        if self.advice:
            table = [f"  {a.change:<48}{_gb(a.saves):>7}  {'enough' if a.fits else ''}".rstrip() for a in self.advice]
            lines += ["", f"  {'What would save':<48}{'GB':>7}", *table]
        return "\n".join(lines)


def plan_vram(
    vram_bytes: int,
    size: tuple[int, int],
    weights: str | None = None,
    kv_format: str | None = None,
    window: int = 32,
    vae: str = "full",
    *,
    sequential: bool = False,
    guidance: bool = False,
    model: WanConfig = WAN22_TI2V_5B,
) -> VRAMPlan:
    """Plans a film of `size` (height, width) in pixels on a card of so many bytes; the rest as in `Budget`.

    weights, kv_format: None takes the best that fits, else the smallest. The memory's format is given up first:
    in LongLive 2.0's own NVFP4 rounding memory changes a pass by 0.8 %, rounding weights and activations by 6.5 %.
    Raises ValueError as `Budget` does.
    """
    budgets = [
        Budget(vram_bytes, size, w, kv, window, vae, sequential, guidance, model=model)
        for w, kv in product(_these(weights, WEIGHT_BYTES), _these(kv_format, KV_BY_QUALITY))
    ]
    budget = next((budget for budget in budgets if budget.fits), budgets[-1])
    return VRAMPlan(budget, () if budget.fits else advise(budget))


def cards_text(size: tuple[int, int], kv_format: str, window: int) -> str:
    """Which common cards hold a film with this memory, and the best weights and VAE on each: one line.

    `12 GB (nvfp4 weights, tiny VAE), 24 GB (bf16, full)` leaves out cards that take no more than the one before.
    """
    told: list[str] = []
    known = None
    for card in COMMON_CARDS:
        best = _best(card, size, kv_format, window)
        if best is not None and (best.weights, best.vae) != known:
            known = best.weights, best.vae
            told.append(f"{card} GB ({best.weights}{'' if told else ' weights'}, {best.vae}{'' if told else ' VAE'})")
    return ", ".join(told) or f"more than {COMMON_CARDS[-1]} GB"


def _best(card: int, size: tuple[int, int], kv_format: str, window: int) -> Budget | None:
    """Weights are given up before the full VAE, whose pixels everybody sees."""
    choices = [
        Budget(card * GIB, size, weights, kv_format, window, vae)
        for vae in ("full", "tiny")
        for weights in WEIGHT_BYTES
    ]
    return next((choice for choice in choices if choice.fits), None)


def _these(chosen: str | None, known: Iterable[str]) -> Iterable[str]:
    return known if chosen is None else (chosen,)


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f}"
