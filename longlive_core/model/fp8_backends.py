"""Packages with attention in FP8, each behind a class of the same shape; see `FP8Attention`. None is imported here."""

from __future__ import annotations

import threading
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ...kernels import quantize_fp8_heads

P_MAX = 448.0
"""Scale of the softmax's weights, which lie in [0, 1], before they are rounded to E4M3."""


def installed(package: str) -> bool:
    """Whether a package can be imported. It is not."""
    return find_spec(package) is not None


def capability(device: torch.device) -> tuple[int, int]:
    """The compute capability of an NVIDIA GPU; (0, 0) for other devices."""
    if device.type != "cuda" or torch.version.hip is not None:
        return 0, 0
    return torch.cuda.get_device_capability(device)


class FlashAttention3:
    """FlashAttention-3 by its own package: one scale for each head of q, k and v."""

    name = "FlashAttention-3"

    def supports(self, device: torch.device, head_dim: int) -> bool:
        """On Hopper, with heads of 64, 128 or 256 channels."""
        return capability(device)[0] == 9 and head_dim in (64, 128, 256) and installed("flash_attn_interface")

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        package: Any = import_module("flash_attn_interface")
        (q, q_scale), (k, k_scale), (v, v_scale) = (quantize_fp8_heads(x) for x in (q, k, v))
        scales = {"q_descale": _of_heads(q_scale), "k_descale": _of_heads(k_scale), "v_descale": _of_heads(v_scale)}
        out: Tensor | tuple[Tensor, ...] = package.flash_attn_func(q, k, v, causal=False, **scales)
        return out if isinstance(out, Tensor) else out[0]  # older versions return the sums too


class TorchQuantized:
    """FlashAttention-3 by PyTorch's own op, in a process where the user activated it: that changes every attention."""

    name = "PyTorch's quantised attention"

    def supports(self, device: torch.device, head_dim: int) -> bool:
        """On Hopper, where `torch.nn.attention` says that FlashAttention-3 is active."""
        if capability(device)[0] != 9 or head_dim not in (64, 128, 256):
            return False
        active: Any = getattr(torch.nn.attention, "current_flash_attention_impl", None)
        return active is not None and active() == "FA3"

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (q, q_scale), (k, k_scale), (v, v_scale) = (quantize_fp8_heads(x) for x in (q, k, v))
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        # PyTorch has no public function for it yet.
        op: Any = torch.ops.aten._scaled_dot_product_flash_attention.quantized
        return op(*heads_first, _of_heads(q_scale), _of_heads(k_scale), _of_heads(v_scale))[0].transpose(1, 2)


class SageAttention:
    """SageAttention 2, which has q and k in INT8, centres k and has only v and the softmax's weights in E4M3."""

    name = "SageAttention"

    def supports(self, device: torch.device, head_dim: int) -> bool:
        """On Ada, Hopper and consumers' Blackwell, with up to 128 channels a head."""
        return capability(device) in ((8, 9), (9, 0), (12, 0)) and head_dim <= 128 and installed("sageattention")

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        package: Any = import_module("sageattention")
        return package.sageattn(q, k, v, tensor_layout="NHD", is_causal=False)


class CuDNN:
    """cuDNN by its Python front end, on the libcudnn of PyTorch.

    It has one scale for a whole tensor. Those of k's heads are multiplied into q before that is quantised, and those
    of v's heads into the output, which is an E4M3 tensor: Hopper has no other. In units of v's codes it is a mean of
    numbers up to 448, so that it needs no scale.
    """

    name = "cuDNN"

    def __init__(self) -> None:
        # A handle of cuDNN, with the plans that were built with it, belongs to one thread.
        self._local = threading.local()

    def supports(self, device: torch.device, head_dim: int) -> bool:
        """On Hopper and on Blackwell of data centres, with up to 128 channels a head, a multiple of 16."""
        fits = head_dim <= 128 and head_dim % 16 == 0
        return capability(device)[0] in (9, 10) and fits and installed("cudnn")

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (k8, k_scale), (v8, v_scale) = quantize_fp8_heads(k), quantize_fp8_heads(v)
        scaled = (q.float() * k_scale).to(q.dtype)
        q8, q_scale = quantize_fp8_heads(scaled.reshape(1, -1, 1, q.shape[-1]))
        out = self._plan(q, k).run(q8.view(q.shape), k8, v8, q_scale)
        return (out.float() * v_scale).to(q.dtype)

    def _plan(self, q: Tensor, k: Tensor) -> CuDNNPlan:
        """This thread's plan for these shapes."""
        local = self._local
        if not hasattr(local, "plans"):
            local.plans = {}
        key = (q.device, tuple(q.shape), k.shape[1])
        if key not in local.plans:
            local.plans[key] = CuDNNPlan(*key)
        return local.plans[key]


class CuDNNPlan:
    """A graph of cuDNN for q `[B, L, H, D]` and `length` keys, with the tensors that it takes beside q, k and v.

    Raises what the front end raises for a graph that cuDNN does not have, a subclass of RuntimeError.
    """

    def __init__(self, device: torch.device, shape: tuple[int, ...], length: int) -> None:
        self._front: Any = import_module("cudnn")
        self._device, self._shape = device, shape
        with torch.cuda.device(device):
            self._handle = self._front.create_handle()
            self._graph, self._ports = self._build(length)
            self._workspace = torch.empty(max(1, self._graph.get_workspace_size()), dtype=torch.uint8, device=device)
        one = torch.ones(1, 1, 1, 1, device=device)
        self._fixed = {name: one for name in ("k_scale", "v_scale", "out_scale")}
        self._fixed |= {"p_scale": P_MAX * one, "p_descale": one / P_MAX}
        # What cuDNN writes beside the output.
        self._fixed |= {"p_largest": torch.empty_like(one), "out_largest": torch.empty_like(one)}

    def run(self, q: Tensor, k: Tensor, v: Tensor, q_scale: Tensor) -> Tensor:
        """E4M3 q `[B, L, H, D]`, k and v `[B, M, H, D]`, and q's scale `[1, 1, 1, 1]` → E4M3 `[B, L, H, D]`."""
        out = torch.empty(self._shape, dtype=torch.float8_e4m3fn, device=self._device)
        tensors = {"q": q, "k": k, "v": v, "q_scale": q_scale, "out": out, **self._fixed}
        stream = torch.cuda.current_stream(self._device).cuda_stream
        with torch.cuda.device(self._device):
            self._front.set_stream(handle=self._handle, stream=stream)
            pack = {port: tensors[name] for name, port in self._ports.items()}
            self._graph.execute(pack, self._workspace, handle=self._handle)
        return out

    def _build(self, length: int) -> tuple[Any, dict[str, Any]]:
        """The graph, and its tensors by name."""
        front, (batch, queries, heads, width) = self._front, self._shape
        e4m3, single = front.data_type.FP8_E4M3, front.data_type.FLOAT
        graph = front.pygraph(
            io_data_type=e4m3, intermediate_data_type=single, compute_data_type=single, handle=self._handle
        )

        def layout(tokens: int) -> dict[str, list[int]]:
            row = heads * width
            return {"dim": [batch, heads, tokens, width], "stride": [tokens * row, width, row, 1]}

        scalar = {"dim": [1, 1, 1, 1], "stride": [1, 1, 1, 1]}
        ports = {
            name: graph.tensor(name=name, data_type=e4m3, **layout(n))
            for name, n in (("q", queries), ("k", length), ("v", length))
        }
        for name in ("q_scale", "k_scale", "v_scale", "p_scale", "p_descale", "out_scale"):
            ports[name] = graph.tensor(name=name, data_type=single, **scalar)
        out, _, p_largest, out_largest = graph.sdpa_fp8(
            q=ports["q"],
            k=ports["k"],
            v=ports["v"],
            descale_q=ports["q_scale"],
            descale_k=ports["k_scale"],
            descale_v=ports["v_scale"],
            descale_s=ports["p_descale"],
            scale_s=ports["p_scale"],
            scale_o=ports["out_scale"],
            is_inference=True,
            attn_scale=width**-0.5,
            name="attention",
        )
        size = layout(queries)
        out.set_output(True).set_dim(size["dim"]).set_stride(size["stride"]).set_data_type(e4m3)
        for maximum in (p_largest, out_largest):
            maximum.set_output(True).set_dim(scalar["dim"]).set_stride(scalar["stride"]).set_data_type(single)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([front.heur_mode.A, front.heur_mode.FALLBACK])
        graph.check_support()
        graph.build_plans()
        return graph, {**ports, "out": out, "p_largest": p_largest, "out_largest": out_largest}


def _of_heads(scales: Tensor) -> Tensor:
    """Scales `[B, 1, H, 1]` as `[B, H]`."""
    return scales[:, 0, :, 0].contiguous()
