"""Selection of the implementation: eager on a CPU, Triton if it passes its self-test, and reasons for refusals."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from longlive import kernels
from longlive.kernels import OPS, registry, use_backend, warm_up
from longlive.kernels.registry import Limits, NoBackendError, Op, TritonBackend, triton_backend
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

CPU = torch.device("cpu")


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without Triton: importing it fails as if it were not installed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "triton" or ".kernels.triton" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    triton_backend.cache_clear()
    yield
    triton_backend.cache_clear()


def reset_self_test(op: Op[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op, "_self_tests", {})


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op_passes_its_self_test(op: Op[..., Any]) -> None:
    """Triton's implementation of every op agrees with the eager one on the sample."""
    pytest.importorskip("triton")
    assert op.passes_self_test(CPU)


def test_warming_up_tests_every_op_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """On a GPU all ops are tested, which compiles them, and one line says how long it took; later calls do nothing."""
    tested: list[str] = []
    monkeypatch.setattr(Op, "passes_self_test", lambda op, device: bool(tested.append(f"{op.name} {device}")) or True)
    monkeypatch.setattr(warm_up, "triton_backend", lambda: TritonBackend(ModuleType("triton")))
    warm_up.compile_all.cache_clear()
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: None)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            warm_up.warm_up(torch.device("cuda:0"))
    warm_up.compile_all.cache_clear()
    assert tested == [f"{op.name} cuda:0" for op in OPS]
    (line,) = [record.message for record in caplog.records]
    assert line.startswith(f"kernels: {len(OPS)} of {len(OPS)} compiled and tested on cuda:0 in ")


def test_a_cpu_needs_no_warming_up() -> None:
    """Nothing is compiled for a CPU."""
    assert warm_up.warm_up(CPU) == 0


def test_a_cpu_tensor_runs_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """An op runs eager on a CPU tensor and does not even import Triton."""
    # Triton's interpreter takes CPU tensors, with results that may be equal.
    monkeypatch.setattr(registry, "triton_backend", lambda: pytest.fail("Triton is imported"))
    x = torch.randn(2, 3, 8)
    assert torch.equal(kernels.rms_norm(x, torch.ones(8), 1e-6), kernels.rms_norm.eager(x, torch.ones(8), 1e-6))


def test_triton_starts_on_the_gpu_of_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel and its self-test run with the GPU of their tensors as the current one, as on a card that decodes."""
    current, at = ["cuda:0"], list[str]()

    @contextmanager
    def on(device: torch.device) -> Generator[None, None, None]:
        current.append(str(device))
        yield
        current.pop()

    def kernel(x: Tensor) -> Tensor:
        at.append(current[-1])
        return x

    kernel.__name__ = "gelu_tanh"
    module = ModuleType("triton")
    vars(module).update(DEVICES=("cuda",), gelu_tanh=kernel)
    monkeypatch.setattr(registry, "triton_backend", lambda: TritonBackend(module))
    monkeypatch.setattr(torch.cuda, "device", on)
    sample = (torch.ones(3),)
    monkeypatch.setitem(registry.SAMPLES, "gelu_tanh", lambda _device: sample)
    op, gpu = Op(kernel, Limits()), torch.device("cuda:1")
    with FakeTensorMode():
        x = torch.empty(3, device=gpu)
    # The self-test runs this kernel twice: as Triton's, and as the eager one.
    assert op.passes_self_test(gpu) and at == ["cuda:1", "cuda:0"]
    assert op(x) is x and at[2:] == ["cuda:1"]


@pytest.mark.usefixtures("no_triton")
def test_without_triton_all_works_and_the_line_says_so() -> None:
    """An op runs eager without Triton, and where Triton is selected the error says that it is not installed."""
    assert triton_backend().module is None and triton_backend().unavailable == "Triton is not installed"
    assert kernels.gelu_tanh(torch.ones(3)).shape == (3,)
    with use_backend("triton"), pytest.raises(NoBackendError, match="gelu_tanh cannot run: triton: Triton is not inst"):
        kernels.gelu_tanh(torch.ones(3))


def test_a_broken_triton_is_a_reason_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """An op runs eager if Triton cannot be imported, and the error of the import is the reason."""

    def broken(*_: object) -> None:
        raise OSError("libtriton.so: undefined symbol")

    monkeypatch.setattr(registry, "import_module", broken)
    triton_backend.cache_clear()
    try:
        assert triton_backend().unavailable == "Triton cannot be used (OSError: libtriton.so: undefined symbol)"
        assert kernels.gelu_tanh(torch.ones(3)).shape == (3,)
    finally:
        triton_backend.cache_clear()


def test_a_miscompiled_kernel_falls_back_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A kernel that fails its self-test is not used, and a log has one line about it."""
    pytest.importorskip("triton")
    op = kernels.gelu_tanh
    reset_self_test(op, monkeypatch)
    monkeypatch.setattr(triton_backend().module, "gelu_tanh", torch.neg)
    with caplog.at_level(logging.WARNING), use_backend("triton"):
        for _ in range(2):
            with pytest.raises(NoBackendError, match="its self-test failed on cpu"):
                op(torch.ones(3))
    assert [record.message for record in caplog.records if "gelu_tanh falls back to eager on cpu" in record.message]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (torch.ones(1, 2, 8, dtype=torch.float64), r"dtype torch\.float64, but it takes torch\.float32"),
        (torch.ones(1, 1, 20_000), "last dimension 20000, but it takes at most 16384"),
        (torch.ones(1, 2, 8, requires_grad=True), "a gradient is required"),
    ],
)
def test_a_refusal_names_the_limit(x: Tensor, why: str) -> None:
    """A tensor that Triton's kernel does not take is refused with the limit, where Triton is selected."""
    pytest.importorskip("triton")
    with use_backend("triton"), pytest.raises(NoBackendError, match=why):
        kernels.rms_norm(x, torch.ones(x.shape[-1]), 1e-6)


def test_the_choice_ends_with_its_block() -> None:
    """A selected backend holds within its block only; after it the selection around it is back."""
    pytest.importorskip("triton")
    x = torch.ones(1, 2, 8, dtype=torch.float64)  # refused by Triton
    with use_backend("triton"):
        with use_backend("eager"):
            assert torch.equal(kernels.rms_norm(x, torch.ones(8), 0.0), x)
        with pytest.raises(NoBackendError):
            kernels.rms_norm(x, torch.ones(8), 0.0)
    assert torch.equal(kernels.rms_norm(x, torch.ones(8), 0.0), x)


def test_a_compiler_sees_plain_torch() -> None:
    """torch.compile of a model must not break its graph at every op."""

    def twice(x: Tensor) -> Tensor:
        return 2 * kernels.rms_norm(x, torch.ones(8), 1e-6)

    x = torch.randn(2, 3, 8)
    assert torch.allclose(torch.compile(twice, backend="eager", fullgraph=True)(x), twice(x))
