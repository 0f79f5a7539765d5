"""The gate of FP8 attention: which layers use it, and what the user is told."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from longlive.longlive_core.model import fp8_gate
from longlive.longlive_core.model.attention import AttentionByLayer, torch_attention
from longlive.longlive_core.model.fp8_attention import emulate_fp8_attention
from longlive.longlive_core.model.fp8_gate import choose_attention, layer_cosines
from torch import Tensor

from ..conftest import Tiny


class Fake:
    """A backend whose answer in each layer of a model of two is changed."""

    name = "fake"

    def __init__(self, *changes: Callable[[Tensor], Tensor]) -> None:
        self._changes, self.calls = changes, 0

    def supports(self, device: torch.device, head_dim: int) -> bool:  # noqa: ARG002
        return True

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        change = self._changes[self.calls % len(self._changes)]
        self.calls += 1
        return change(torch_attention(q, k, v))


def install(monkeypatch: pytest.MonkeyPatch, backend: Fake | None) -> None:
    monkeypatch.setattr(fp8_gate, "find_fp8_attention", lambda *_: backend)


def test_e4m3_passes_in_every_layer(tiny: Tiny) -> None:
    """What the rounding alone does is far above the limit, so that only what is wrong falls below."""
    cosines = layer_cosines(tiny.model, torch_attention, emulate_fp8_attention)
    assert len(cosines) == 2 and all(0.999 < cosine < 1 for cosine in cosines)
    assert layer_cosines(tiny.model, torch_attention, torch_attention) == pytest.approx((1, 1), abs=1e-9)


@pytest.mark.parametrize(
    "change", [lambda x: x.flip(1), lambda x: 1.2 * x, lambda x: x * torch.nan], ids=["order", "scale", "nan"]
)
def test_a_layer_that_fails_falls_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tiny: Tiny, change: Callable[[Tensor], Tensor]
) -> None:
    """A wrong order, a wrong scale and NaN are found, in their layer only, and one line of the log names it."""
    backend = Fake(lambda x: x, change)
    install(monkeypatch, backend)
    with caplog.at_level(logging.INFO):
        choice = choose_attention(tiny.model, torch_attention, "fp8")
    assert isinstance(choice.function, AttentionByLayer)
    assert (choice.function.usual, dict(choice.function.layers)) == (torch_attention, {0: backend})
    assert [record.message for record in caplog.records] == list(choice.notes)
    assert choice.notes[0].startswith("fp8 attention: fake in 1 of 2 layers; below a cosine of 0.995 and as before")


def fail(x: Tensor) -> Tensor:
    raise RuntimeError(f"no kernel for {list(x.shape)}")


@pytest.mark.parametrize(
    ("backend", "note"),
    [
        (None, "none is installed for cpu with heads of 24 channels"),
        (Fake(fail), "fake cannot be used (RuntimeError: no"),
    ],
)
def test_without_a_package_that_works_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, backend: Fake | None, note: str
) -> None:
    """The film is made as without the setting, and the note says why."""
    install(monkeypatch, backend)
    choice = choose_attention(tiny.model, torch_attention, "fp8")
    assert choice.function is torch_attention and note in choice.notes[0]


def test_it_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> None:
    """The model is not run for the usual attention, and another word is refused."""
    install(monkeypatch, Fake(fail))
    choice = choose_attention(tiny.model, torch_attention, "usual")
    assert (choice.function, choice.notes) == (torch_attention, ())
    with pytest.raises(ValueError, match="attention 'int8' is not known; choose one of usual, fp8"):
        choose_attention(tiny.model, torch_attention, "int8")  # pyright: ignore[reportArgumentType]


def test_a_film_uses_it_in_self_attention_of_its_layers_only(tiny: Tiny) -> None:
    """Cross-attention and other layers keep the usual one. Two blocks of two steps and a clean pass: six calls."""
    backend = Fake(lambda x: x)
    attention = AttentionByLayer(torch_attention, {0: backend})
    assert torch.equal(tiny.film("A A", attention=attention), tiny.film("A A"))
    assert backend.calls == 6
