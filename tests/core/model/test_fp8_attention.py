"""Attention in FP8: its arithmetic against the formula in float64, and packages of a GPU replaced by ones that compute
what these get, by their signatures."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from longlive.longlive_core.model import fp8_attention, fp8_backends
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.model.fp8_attention import emulate_fp8_attention, find_fp8_attention
from longlive.longlive_core.model.fp8_backends import CuDNN, FlashAttention3, SageAttention, TorchQuantized
from torch import Tensor

GPU = torch.device("cuda:0")
E4M3 = torch.float8_e4m3fn
PACKAGES = ("cudnn", "flash_attn_interface", "sageattention")


def inputs(batch: int, queries: int, keys: int, heads: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v in bfloat16; heads differ in size, and tokens have a part in common, as those of a model have."""
    generator = torch.Generator().manual_seed(0)
    size = torch.linspace(-3, 3, heads).exp2()[:, None]

    def part(tokens: int, size: Tensor = size) -> Tensor:
        x = torch.randn(batch, tokens, heads, width, generator=generator)
        return ((x + 0.5) * size).bfloat16()

    return part(queries, 1 / size), part(keys), part(keys)


def relative(x: Tensor, y: Tensor) -> float:
    """Relative L2 difference, in float64."""
    return float((x.double() - y.double()).norm() / y.double().norm())


def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """x `[B, L, H, D]` in E4M3 with a scale for each head, both in float64, `[B, H, …]`."""
    x = x.double().transpose(1, 2)
    scale = x.abs().amax((2, 3), keepdim=True) / 448
    return (x / scale).to(E4M3).double(), scale


def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √D) v of rounded q, k and v with rounded weights, in float64."""
    (q, q_scale), (k, k_scale), (v, v_scale) = rounded(q), rounded(k), rounded(v)
    scores = (q * q_scale) @ (k * k_scale).transpose(2, 3) / q.shape[-1] ** 0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return (((448 * weights).to(E4M3).double() / 448) @ (v * v_scale) / weights.sum(-1, keepdim=True)).transpose(1, 2)


@pytest.mark.parametrize("shape", [(1, 40, 200, 24, 128), (2, 3, 7, 3, 20), (1, 1, 1, 1, 8), (1, 130, 129, 6, 32)])
def test_the_arithmetic_is_that_of_the_formula(shape: tuple[int, int, int, int, int]) -> None:
    """At the widths of the 5B model and at odd ones it is off by less than bfloat16 rounds, far less than E4M3 does."""
    q, k, v = inputs(*shape)
    value = emulate_fp8_attention(q, k, v)
    assert (value.shape, value.dtype) == (q.shape, torch.bfloat16)
    assert relative(value, formula(q, k, v)) < 3e-3
    exact = torch_attention(*(x.double() for x in (q, k, v)))
    assert 5e-3 < relative(value, exact) < 0.1


def test_an_output_in_e4m3_is_rounded_once_more() -> None:
    """Every output is a number of E4M3 times the scale of v's head, up to bfloat16."""
    q, k, v = inputs(1, 20, 40, 4, 16)
    value, scale = emulate_fp8_attention(q, k, v, rounded=True), v.float().abs().amax((1, 3), keepdim=True) / 448
    codes = (value.float() / scale).to(E4M3).float()
    torch.testing.assert_close(value.float(), codes * scale, rtol=2**-8, atol=0)
    assert 1e-2 < relative(value, emulate_fp8_attention(q, k, v)) < 0.05


def test_queries_are_computed_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many does not change the result: a film of any size fits in memory."""
    qkv = inputs(2, 37, 50, 3, 16)
    whole = emulate_fp8_attention(*qkv)
    monkeypatch.setattr(fp8_attention, "_NUMBERS", 50 * 6 * 10)
    torch.testing.assert_close(emulate_fp8_attention(*qkv), whole, rtol=2**-8, atol=0)


def test_a_cpu_emulates_and_nothing_is_imported() -> None:
    """The output is in the dtype of the model, and packages are looked for, not loaded."""
    found = find_fp8_attention("cpu", 32)
    assert found is not None and found.name == "emulated"
    q, k, v = (x.float() for x in inputs(1, 4, 9, 2, 32))
    assert found(q, k, v).dtype == torch.float32
    assert not any(package in sys.modules for package in PACKAGES)


def on_gpu(monkeypatch: pytest.MonkeyPatch, arch: tuple[int, int], **packages: object) -> None:
    """A GPU of this compute capability, and a machine on which only these packages are installed."""
    monkeypatch.setattr(fp8_backends, "capability", lambda device: arch if device.type == "cuda" else (0, 0))
    monkeypatch.setattr(fp8_backends, "installed", lambda package: package in packages)
    for name, functions in packages.items():
        module = ModuleType(name)
        vars(module).update(vars(functions))
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    ("arch", "packages", "width", "name"),
    [
        ((9, 0), PACKAGES, 128, "cuDNN"),
        ((9, 0), PACKAGES[1:], 128, "FlashAttention-3"),
        ((9, 0), PACKAGES[2:], 128, "SageAttention"),
        ((9, 0), PACKAGES, 256, "FlashAttention-3"),
        ((10, 0), PACKAGES, 128, "cuDNN"),
        ((8, 9), PACKAGES, 128, "SageAttention"),
        ((12, 0), PACKAGES, 128, "SageAttention"),
        ((12, 0), PACKAGES[:2], 128, None),
        ((8, 0), PACKAGES, 128, None),
        ((9, 0), (), 128, None),
        ((9, 0), PACKAGES[:1], 72, None),
    ],
)
def test_a_package_is_chosen_by_the_card_and_the_heads(
    monkeypatch: pytest.MonkeyPatch, arch: tuple[int, int], packages: tuple[str, ...], width: int, name: str | None
) -> None:
    """What is installed and fits is taken in the order of preference; on a GPU nothing is emulated."""
    on_gpu(monkeypatch, arch, **{package: SimpleNamespace() for package in packages})
    found = find_fp8_attention(GPU, width)
    assert (found and found.name) == name


def test_pytorchs_own_op_is_used_only_where_the_user_activated_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """To activate FlashAttention-3 changes every attention of the process, so that it is left to the user."""
    on_gpu(monkeypatch, (9, 0))
    active: list[str | None] = [None]
    monkeypatch.setattr(torch.nn.attention, "current_flash_attention_impl", lambda: active[0], raising=False)
    assert not TorchQuantized().supports(GPU, 128)
    active[0] = "FA3"
    assert TorchQuantized().supports(GPU, 128) and not TorchQuantized().supports(GPU, 96)


def dequantised(q: Tensor, k: Tensor, v: Tensor, scales: tuple[Tensor, ...]) -> Tensor:
    """Attention `[B, L, H, D]` of E4M3 numbers with scales `[B, H]`."""
    assert all(x.dtype == E4M3 and x.is_contiguous() for x in (q, k, v))
    assert all(scale.shape == (q.shape[0], q.shape[2]) and scale.dtype == torch.float32 for scale in scales)
    return torch_attention(
        *(x.float() * s[:, None, :, None] for x, s in zip((q, k, v), scales, strict=True))
    ).bfloat16()


@pytest.mark.parametrize("with_sums", [False, True])
def test_flash_attention_3_gets_codes_and_their_scales(monkeypatch: pytest.MonkeyPatch, with_sums: bool) -> None:
    """It takes `[B, L, H, D]`; versions that return the sums of rows too are understood."""

    def flash(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, **scales: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        assert not causal
        out = dequantised(q, k, v, (scales["q_descale"], scales["k_descale"], scales["v_descale"]))
        return (out, out) if with_sums else out

    on_gpu(monkeypatch, (9, 0), flash_attn_interface=SimpleNamespace(flash_attn_func=flash))
    q, k, v = inputs(2, 5, 11, 3, 64)
    assert relative(FlashAttention3()(q, k, v), formula(q, k, v)) < 0.02


def test_pytorchs_own_op_gets_heads_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its private op takes `[B, H, L, D]`; the real one has the signature that it is called with."""

    def op(q: Tensor, k: Tensor, v: Tensor, *scales: Tensor) -> tuple[Tensor, None]:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return dequantised(q, k, v, scales).transpose(1, 2), None

    real = torch.ops.aten._scaled_dot_product_flash_attention
    if "quantized" in real.overloads():
        names = [argument.name for argument in real.quantized._schema.arguments]  # pyright: ignore[reportPrivateUsage]
        assert names[:6] == ["query", "key", "value", "q_descale", "k_descale", "v_descale"]
    aten = SimpleNamespace(_scaled_dot_product_flash_attention=SimpleNamespace(quantized=op))
    monkeypatch.setattr(torch, "ops", SimpleNamespace(aten=aten))
    q, k, v = inputs(1, 5, 11, 3, 64)
    assert relative(TorchQuantized()(q, k, v), formula(q, k, v)) < 0.02


def test_sage_attention_gets_what_the_model_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """It quantises by itself, and is told that tokens come before heads and nothing is masked."""

    def sage(q: Tensor, k: Tensor, v: Tensor, *, tensor_layout: str, is_causal: bool) -> Tensor:
        assert (tensor_layout, is_causal) == ("NHD", False)
        return torch_attention(q, k, v)

    on_gpu(monkeypatch, (8, 9), sageattention=SimpleNamespace(sageattn=sage))
    qkv = inputs(1, 5, 11, 3, 64)
    assert torch.equal(SageAttention()(*qkv), torch_attention(*qkv))


class Port:
    """A tensor of cuDNN's graph: the setters of an output return the port."""

    def __init__(self, **about: Any) -> None:  # noqa: ANN401
        self.about = about

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if not name.startswith("set_"):
            raise AttributeError(name)
        return lambda value: self.about.update({name.removeprefix("set_"): value}) or self


class Graph:
    """A graph of cuDNN that computes `sdpa_fp8` with one scale for each tensor."""

    made = 0

    def __init__(self, **_: Any) -> None:  # noqa: ANN401
        Graph.made += 1

    def tensor(self, **about: Any) -> Port:  # noqa: ANN401
        return Port(**about)

    def sdpa_fp8(self, *, is_inference: bool, attn_scale: float, **ports: Any) -> tuple[Port, None, Port, Port]:  # noqa: ANN401
        assert is_inference
        self.ports, self.factor, self.outputs = ports, attn_scale, (Port(), Port(), Port())
        return self.outputs[0], None, *self.outputs[1:]

    def get_workspace_size(self) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return lambda *_: None

    def execute(self, pack: dict[Port, Tensor], workspace: Tensor, *, handle: str) -> None:
        assert handle == "handle" and workspace.numel() == 1
        given = {name: pack[port] for name, port in self.ports.items() if isinstance(port, Port)}
        for name in "qkv":
            dim, stride = self.ports[name].about["dim"], self.ports[name].about["stride"]
            view = given[name].transpose(1, 2)
            assert (list(view.shape), list(view.stride())) == (dim, stride) and view.dtype == E4M3
        q, k, v = (given[x].float().transpose(1, 2) * given[f"descale_{x}"] for x in "qkv")
        weights = (q @ k.transpose(2, 3) * self.factor).softmax(-1)
        weights = (weights * given["scale_s"]).to(E4M3).float() * given["descale_s"]
        out = pack[self.outputs[0]]
        out.copy_((weights @ v * given["scale_o"]).transpose(1, 2).to(E4M3))
        assert list(out.transpose(1, 2).shape) == self.outputs[0].about["dim"]
        assert self.outputs[0].about["output"] and all(port in pack for port in self.outputs)


def test_cudnn_gets_one_scale_for_each_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scales of k's heads are in q and those of v's heads in the output; a plan is built once for a shape."""
    streams: list[dict[str, object]] = []
    front = SimpleNamespace(
        pygraph=Graph,
        data_type=SimpleNamespace(FP8_E4M3="e4m3", FLOAT="float"),
        heur_mode=SimpleNamespace(A=0, FALLBACK=1),
        create_handle=lambda: "handle",
        set_stream=lambda **given: streams.append(given),
    )
    on_gpu(monkeypatch, (9, 0), cudnn=front)
    cuda = SimpleNamespace(device=lambda _: nullcontext(), current_stream=lambda _: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(Graph, "made", 0)
    backend, (q, k, v) = CuDNN(), inputs(2, 5, 11, 6, 64)
    value = backend(q, k, v)
    assert (value.shape, value.dtype) == (q.shape, q.dtype)
    assert relative(value, torch_attention(*(x.double() for x in (q, k, v)))) < 0.06
    backend(q, k, v)
    assert Graph.made == 1
    backend(q, k[:, :7], v[:, :7])
    assert Graph.made == 2 and streams == [{"handle": "handle", "stream": 0}] * 3
