"""Whose attention a MODEL uses: ours on Hopper and data centres' Blackwell, unless somebody chose another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from longlive.longlive_core.model.attention import Attention, cuda_attention, torch_attention
from torch import Tensor

from .fake_host import fake_host

OVERRIDE = {"optimized_attention_override": "a node's"}


@pytest.fixture
def host() -> Iterator[Callable[[str], Any]]:
    with fake_host() as load:
        load("comfy.model_patcher").create_model_options_clone = dict
        load("comfy.patcher_extension").merge_nested_dicts = lambda *_, **__: None
        yield load


def attention_of(
    host: Callable[[str], Any], device: str, options: dict[str, Any], form: str | None = None
) -> Attention:
    """The attention of a MODEL on a device with these options. form: what the loader attached to it."""
    patcher = SimpleNamespace(
        model=SimpleNamespace(diffusion_model=SimpleNamespace(config=None), get_dtype_inference=lambda: torch.bfloat16),
        model_options={"transformer_options": dict(options)},
        wrappers={},
        load_device=torch.device(device),
        get_attachment=lambda name: form if name == "longlive_attention" else None,
    )
    return host("longlive.nodes.model").HostedModel(patcher, None).attention


@pytest.mark.parametrize(
    ("arch", "chosen", "options", "ours"),
    [
        ((9, 0), "attention_pytorch", {}, True),
        ((10, 0), "attention_pytorch", {}, True),
        ((8, 9), "attention_pytorch", {}, False),
        ((12, 0), "attention_pytorch", {}, False),
        ((9, 0), "attention_sage", {}, False),
        ((9, 0), "attention_pytorch", OVERRIDE, False),
    ],
)
def test_ours_replaces_the_hosts_default_only(
    monkeypatch: pytest.MonkeyPatch,
    host: Callable[[str], Any],
    arch: tuple[int, int],
    chosen: str,
    options: dict[str, Any],
    ours: bool,
) -> None:
    """A flag of the user, such as Sage, and a node's override are kept, and so is the host's choice on other cards."""
    module = host("comfy.ldm.modules.attention")
    calls: list[dict[str, Any]] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, *, transformer_options: dict[str, Any]) -> Tensor:
        calls.append(transformer_options)
        assert heads == 2 and [x.shape for x in (q, k, v)] == [(1, 3, 16), (1, 5, 16), (1, 5, 16)]
        return q

    # The host's default is one of its functions by another name.
    module.attention_pytorch = attend if chosen == "attention_pytorch" else lambda *_: None
    module.optimized_attention = attend
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: arch)
    attention = attention_of(host, "cuda:0", options)
    assert (attention is cuda_attention) is ours
    if not ours:
        q, kv = torch.randn(1, 3, 2, 8), torch.zeros(1, 5, 2, 8)
        assert torch.equal(attention(q, kv, kv), q)
        assert len(calls) == 1 and calls[0].get("optimized_attention_override") == options.get(
            "optimized_attention_override"
        )


def test_a_cpu_has_pytorchs_unless_a_node_overrides_it(host: Callable[[str], Any]) -> None:
    """The host's default for a CPU is slower."""
    assert attention_of(host, "cpu", {}) is torch_attention
    assert attention_of(host, "cpu", OVERRIDE) is not torch_attention


def test_fp8_is_gated_where_the_loader_was_told_so(host: Callable[[str], Any]) -> None:
    """The gate gets the MODEL itself and the attention that layers fall back to; without the attachment it is off."""
    given: list[tuple[Any, ...]] = []
    module = host("longlive.nodes.model")
    module.choose_attention = lambda *args: given.append(args) or SimpleNamespace(function="gated")
    assert attention_of(host, "cpu", {}, "fp8") == "gated"
    assert attention_of(host, "cpu", {}) == "gated"
    assert [args[1:] for args in given] == [(torch_attention, "fp8"), (torch_attention, "usual")]
    assert all(isinstance(args[0], module.HostedModel) for args in given)
