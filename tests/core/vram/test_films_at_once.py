"""How many films a device holds at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.model import WAN22_TI2V_5B
from longlive.longlive_core.types import LatentShape
from longlive.longlive_core.units import GIB
from longlive.longlive_core.vram.films_at_once import MAX_FILMS, FilmSize, films_at_once
from longlive.longlive_core.vram.planner import plan_vram

SIZE = FilmSize(WAN22_TI2V_5B, MemoryConfig(), LatentShape(1, 48, 8, 44, 80))


def test_a_film_more_takes_what_the_first_took() -> None:
    """K/V, scratch and activations grow with the films, also with guidance, quantised K/V and aligned seams."""
    for size in (SIZE, replace(SIZE, branches=2), replace(SIZE, memory=MemoryConfig(kv_format="nvfp4"), align=True)):
        assert size.bytes(3) == 3 * size.bytes(1) > 0


def test_as_many_films_as_fit_and_at_least_one() -> None:
    """To the byte; and all of them if nobody knows how much memory there is."""
    two = SIZE.bytes(2)
    assert [films_at_once(4, SIZE, free).fits for free in (0, two - 1, two, 4 * two, None)] == [1, 1, 2, 4, 4]


def test_the_line_names_what_more_would_need() -> None:
    assert (
        films_at_once(4, SIZE, SIZE.bytes(2)).text
        == "2 films at once: 4 would need 44.4 GB of 22.2 GB beside the weights"
    )
    assert films_at_once(2, SIZE, None).text == "2 films at once: 22.2 GB beside the weights"


@pytest.mark.parametrize("wanted", [-1, 0, MAX_FILMS + 1, 1000])
def test_a_number_of_films_out_of_bounds_is_refused(wanted: int) -> None:
    with pytest.raises(ValueError, match=f"{wanted} films of one script: make 1 to {MAX_FILMS} at a time"):
        films_at_once(wanted, SIZE, None)
    with pytest.raises(ValueError, match="1 to"):
        plan_vram(24 * GIB, (704, 1280), films=wanted)


def test_the_plan_of_a_card_says_how_many_films_it_holds() -> None:
    """A larger card holds more of them, in what the weights leave; one film needs no line."""
    counts = [plan_vram(card * GIB, (480, 832), "bf16", "nvfp4", films=4).at_once.fits for card in (24, 32, 80)]
    assert counts == sorted(counts) and counts[0] >= 1 and counts[-1] == 4
    assert "films at once" in plan_vram(80 * GIB, (480, 832), films=4).text()
    assert "at once" not in plan_vram(80 * GIB, (480, 832)).text()
