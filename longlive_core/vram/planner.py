"""Plans the VRAM of a film: whether it fits a card, the best formats that fit, and otherwise what to change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..model import WAN22_TI2V_5B, WanConfig
from ..sampling.seam import OVERLAP
from ..units import GB, GIB
from .advice import KV_BY_QUALITY, Advice, advise
from .budget import WEIGHT_BYTES, Budget, Part, Placement
from .films_at_once import FilmsAtOnce, FilmSize, check_films, films_at_once

CARDS = (6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 80)
"""Memory of the graphics cards that are sold, GiB."""
COMMON_CARDS = (8, 12, 16, 24, 32)


@dataclass(frozen=True, slots=True)
class VRAMPlan:
    """The VRAM budget of a film on a card. advice: what to change if it does not fit; see `advise`.

    films: the number of films that are wanted at once.
    """

    budget: Budget
    advice: tuple[Advice, ...]
    films: int = 1

    @property
    def smallest_card(self) -> int | None:
        """Memory in GiB of the smallest card that holds the film without changes; None if no card does."""
        return smallest_card(self.budget.total)

    @property
    def verdict(self) -> str:
        """Whether the film fits, in one sentence."""
        return verdict(self.budget.total, self.budget.vram)

    @property
    def at_once(self) -> FilmsAtOnce:
        """How many films are sampled at once, in what the card has left beside everything that they share."""
        budget = self.budget
        size = FilmSize(
            budget.model,
            budget.memory,
            budget.block,
            branches=budget.branches,
            align=budget.align,
            ranks=budget.ranks,
            graphs=budget.graphs and budget.ranks == 1 and not budget.split,
        )
        resident = sum(part.bytes for part in budget.parts if part.placement == "resident")
        return films_at_once(self.films, size, max(0, budget.vram - resident + size.bytes(1)))

    def text(self) -> str:
        """The plan as text: a table of the parts, the verdict and the advice."""
        (height, width), vram, ranks = self.budget.size, self.budget.vram, self.budget.ranks
        cards = f"a card of {vram / GIB:g} GB"
        if ranks > 1:
            cards = f"{cards}, one of {ranks} that share each block"
        if self.budget.split:
            cards = f"{cards}{', and ' if ranks > 1 else ', one '}for each branch of guidance"
        lines = [f"{height}x{width} pixels (height x width), {cards}", ""]
        lines += [*parts_table(self.budget.parts, self.budget.total, vram), "", self.verdict]
        if self.films > 1 and self.budget.fits:
            lines.append(f"{self.at_once.text}.")
        if self.budget.recalled:
            lines += [
                f"Recalled blocks: {self.budget.recalled} of the {self.budget.recallable} that fit beside the sinks; "
                "they take slots of the window."
            ]
        if self.budget.align:
            frames = self.budget.block.frames
            lines += [f"Aligned seams: a block that continues another takes {frames + OVERLAP}/{frames} of the tokens."]
        return "\n".join([*lines, *advice_table(self.advice)])


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
    align: bool = False,
    films: int = 1,
    recalled: int = 0,
    ranks: int = 1,
    decoder: Placement = "resident",
    split: bool = False,
    graphs: bool = False,
) -> VRAMPlan:
    """Plans a film of `size` (height, width) in pixels on a card with `vram_bytes`. Other arguments as in `Budget`.

    weights, kv_format: None chooses the best that fits, otherwise the smallest. The KV cache is quantised before the
    weights: with LongLive 2.0's own NVFP4, rounding the cache changes a pass by 0.8 %, rounding weights and activations
    by 6.5 %. films: wanted at once; the formats are those of one film. Raises ValueError as `Budget` and `check_films`.
    """
    check_films(films)
    options: dict[str, Any] = {
        "model": model,
        "align": align,
        "recalled": recalled,
        "ranks": ranks,
        "decoder": decoder,
        "split": split,
        "graphs": graphs,
    }
    budgets = [
        Budget(vram_bytes, size, w, kv, window, vae, sequential, guidance, **options)
        for w, kv in product(_choices(weights, WEIGHT_BYTES), _choices(kv_format, KV_BY_QUALITY))
    ]
    budget = next((budget for budget in budgets if budget.fits), budgets[-1])
    return VRAMPlan(budget, () if budget.fits else advise(budget), films)


def smallest_card(total: int) -> int | None:
    """Memory in GiB of the smallest card that holds so many bytes; None if no card does."""
    return next((card for card in CARDS if total <= card * GIB), None)


def verdict(total: int, vram: int) -> str:
    """Whether `total` bytes fit a card, in one sentence."""
    if vram >= total:
        return f"It fits, with {_gb(vram - total)} GB to spare."
    smallest = smallest_card(total)
    card = "no card holds it" if smallest is None else f"it needs a card of {smallest} GB"
    return f"It does not fit: {_gb(total - vram)} GB too much; without changes {card}."


def parts_table(parts: Iterable[Part], total: int, vram: int) -> list[str]:
    """The lines of a table of parts and their peak."""
    rows = [(part.name, _gb(part.bytes), part.placement) for part in parts]
    rows.append(("peak on the card", _gb(total), f"of {_gb(vram)}"))
    return [f"{'':<26}{'GB':>7}", *(f"{name:<26}{amount:>7}  {placement}" for name, amount, placement in rows)]


def advice_table(advice: Iterable[Advice]) -> list[str]:
    """The lines of a table of changes, after an empty line; none without advice."""
    table = [f"  {a.change:<48}{_gb(a.saves):>7}  {'enough' if a.fits else ''}".rstrip() for a in advice]
    return ["", f"  {'Change':<48}{'GB less':>7}", *table] if table else []


def cards_text(size: tuple[int, int], kv_format: str, window: int) -> str:
    """The common cards that hold a film, with the best weights and VAE on each, in one line.

    size: (height, width) in pixels. `12 GB (nvfp4 weights, tiny VAE), 24 GB (bf16, full)` omits cards that allow no
    better weights or VAE than the card before.
    """
    cards: list[str] = []
    best = None
    for card in COMMON_CARDS:
        budget = _best(card, size, kv_format, window)
        if budget is not None and (budget.weights, budget.vae) != best:
            best = budget.weights, budget.vae
            cards.append(f"{card} GB ({best[0]}{'' if cards else ' weights'}, {best[1]}{'' if cards else ' VAE'})")
    return ", ".join(cards) or f"more than {COMMON_CARDS[-1]} GB"


def _best(card: int, size: tuple[int, int], kv_format: str, window: int) -> Budget | None:
    """The best film on a card of so many GiB. The weights are quantised before the full VAE is given up."""
    choices = (
        Budget(card * GIB, size, weights, kv_format, window, vae)
        for vae, weights in product(("full", "tiny"), WEIGHT_BYTES)
    )
    return next((choice for choice in choices if choice.fits), None)


def _choices(chosen: str | None, names: Iterable[str]) -> Iterable[str]:
    return names if chosen is None else (chosen,)


def _gb(count: int) -> str:
    return f"{count / GB:.2f}"
