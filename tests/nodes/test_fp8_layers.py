"""`fp8 fast`: layers whose weights the host keeps compute what the command line's FP8 layers do, with as few ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from longlive.kernels import quantize_fp8_rows
from longlive.longlive_core.model import CausalWan
from longlive.longlive_core.model.layers import Layer
from longlive.longlive_core.model.linears import BypassLinear, linear_layers, quantize_linears
from torch import Tensor

from ..core.model.fp8_block import SMALL, count_calls, run
from .fake_host import fake_host


class Quantised(torch.Tensor):
    """The host's tensor of several: numbers, the name of a layout and its parameters."""

    @staticmethod
    def __new__(cls, qdata: Tensor, _: str, params: Any) -> Quantised:  # noqa: ANN001, ANN401
        return torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, params.orig_shape, dtype=params.orig_dtype, device=qdata.device, requires_grad=False
        )

    def __init__(self, qdata: Tensor, layout: str, params: Any) -> None:  # noqa: ANN401
        self._qdata, self._layout_cls, self._params = qdata, layout, params

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        me = args[0]
        if func is torch.ops.aten.detach.default:
            return cls(me._qdata, me._layout_cls, me._params)
        if func is torch.ops.aten._to_copy.default:
            scale = me._params.scale.to(kwargs["device"])
            params = SimpleNamespace(**{**vars(me._params), "scale": scale})
            return cls(me._qdata.to(kwargs["device"]), me._layout_cls, params)
        raise NotImplementedError(func)


@pytest.fixture
def host() -> Iterator[Callable[[str], Any]]:
    with fake_host() as load:
        quant_ops, ops = load("comfy.quant_ops"), load("comfy.ops")
        quant_ops.QuantizedTensor = Quantised
        quant_ops.TensorCoreFP8Layout = SimpleNamespace(Params=SimpleNamespace)
        quant_ops.register_layout_class = lambda *_: None
        ops.run_every_op = lambda: None
        yield load


def models(host: Callable[[str], Any]) -> tuple[CausalWan, CausalWan]:
    """A model in FP8 as the command line makes it, and the same with weights that the host keeps."""
    torch.manual_seed(0)
    plain, hosted = CausalWan(SMALL).requires_grad_(False), CausalWan(SMALL).requires_grad_(False)
    hosted.load_state_dict(plain.state_dict())
    quantize_linears(plain, "fp8")
    module = host("longlive.nodes.fp8_model")
    state = dict(hosted.state_dict())
    checkpoint = SimpleNamespace(linears={n: x.weight.shape for n, x in linear_layers(hosted).items()}, quantized={})
    cpu = torch.device("cpu")
    module.host_fp8_layers(hosted, module.take_fp8_layers(checkpoint, state, cpu, cpu), torch.float32)
    assert not any(name.startswith("blocks.") and "norm" not in name and "modulation" not in name for name in state)
    return plain, hosted


def block(model: CausalWan) -> Layer:
    first = model.blocks[0]
    assert isinstance(first, Layer)
    return first


def test_a_pass_is_the_command_lines_with_as_few_ops(
    host: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; q, k and v are one product, and only the outputs of both attentions are quantised by an op."""
    plain, hosted = models(host)
    wanted = run(block(plain))
    calls = count_calls(monkeypatch)
    assert torch.equal(run(block(hosted)), wanted)
    assert calls == {"quantize": 2, "product": 6}


def test_layers_have_the_names_of_the_file(host: Callable[[str], Any]) -> None:
    """LoRAs find every layer by its own name and shape, though the host keeps one matrix for q, k and v."""
    _, hosted = models(host)
    state, weights = hosted.state_dict(), host("longlive.nodes.fp8_linear").FP8Weights
    names = {name for name, _ in CausalWan(SMALL).named_parameters()}
    assert names <= set(state) and all(name.endswith("weight_scale") for name in set(state) - names)
    layers = {name: layer for name, layer in linear_layers(hosted).items() if name.startswith("blocks.")}
    assert len(layers) == 10 and all(
        state[f"{name}.weight"].shape == layer.weight.shape == (layer.out_features, layer.in_features)
        and torch.equal(state[f"{name}.bias"], layer.bias)
        for name, layer in layers.items()
    )
    assert sum(isinstance(module, weights) for module in hosted.modules()) == 7


def test_weights_elsewhere_come_once_for_each_product(
    host: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the host lends for a product goes back before the next one, and stays quantised on its way."""
    plain, hosted = models(host)
    wanted, ops, lent = run(block(plain)), host("comfy.ops"), list[object]()
    there = {module: module.weight for module in hosted.modules() if hasattr(module, "rows")}

    def cast(module: Any, **how: Any) -> tuple[Any, Any, object]:  # noqa: ANN401
        assert not lent and how["offloadable"] and how["dtype"] == module.weight.dtype
        lent.append(module)
        return there[module], module.bias, "lent"

    def give_back(module: object, _weight: object, _bias: object, ticket: object) -> None:
        assert ticket == "lent" and lent.pop() is module
        given.append(module)

    given = list[object]()
    ops.cast_bias_weight, ops.uncast_bias_weight = cast, give_back
    for module in there:
        module.weight = torch.nn.Parameter(module.weight.to("meta"), requires_grad=False)
    calls = count_calls(monkeypatch)
    assert torch.equal(run(block(hosted)), wanted)
    assert len(given) == calls["product"] == 6


def lora(module: Any, name: str) -> Any:  # noqa: ANN401
    """Core's adapter of a LoRA for a layer of the small model."""
    torch.manual_seed(len(name))
    adapter = module.LoRAAdapter()
    adapter.weights, adapter.multiplier = (torch.randn(64, 4), torch.randn(4, 64), 2.0, None, None, None), 0.5
    return adapter


def test_a_lora_beside_a_layer_is_one_more_product(host: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the command line, to the bit: it reads what the rows round, which are made once for q, k and v."""
    plain, hosted = models(host)
    hooks = host("longlive.nodes.lora_hook")
    for name in ("q", "o"):
        adapter, attn = lora(hooks, name), block(plain).self_attn
        up, down, alpha = adapter.weights[:3]
        setattr(attn, name, BypassLinear(getattr(attn, name), down, up, alpha / 4, 0.5))
        hooks.LoraHook.on(getattr(block(hosted).self_attn, name)).adapters.append(adapter)
    wanted = run(block(plain))
    calls = count_calls(monkeypatch)
    assert torch.equal(run(block(hosted)), wanted)
    assert calls == {"quantize": 3, "product": 8}


def test_what_others_put_around_a_layer_gets_its_input(host: Callable[[str], Any]) -> None:
    """A hook of another node and core's bypass read the input themselves, which therefore is a plain tensor."""
    plain, hosted = models(host)
    seen, attn = list[object](), block(hosted).self_attn
    attn.q.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    before = attn.v.forward
    attn.v.forward = lambda x: seen.append(x) or before(x)
    torch.testing.assert_close(run(block(hosted)), run(block(plain)), rtol=1e-5, atol=1e-5)
    assert len(seen) == 2 and all(isinstance(x, Tensor) for x in seen)


def test_a_merged_lora_is_refused(host: Callable[[str], Any]) -> None:
    """Changes of FP8 weights or biases would be lost in silence: the message names a layer and what to do."""
    _, hosted = models(host)
    check = host("longlive.nodes.fp8_model").check_patches
    for part in ("weight", "bias"):
        patcher = SimpleNamespace(model=torch.nn.ModuleDict({"diffusion_model": hosted}), patches={})
        assert check(patcher) is patcher
        patcher.patches = {f"diffusion_model.blocks.0.ffn.0.{part}": [], "diffusion_model.blocks.0.norm3.weight": []}
        with pytest.raises(ValueError, match=r"1 of its layers \(such as diffusion_model.blocks.0.ffn.0\).*bypass"):
            check(patcher)


def test_an_fp8_file_keeps_its_numbers(host: Callable[[str], Any]) -> None:
    """One scale, or one for each row; other layers of the file become floats. A scale of inputs is refused."""
    take, cpu = host("longlive.nodes.fp8_model").take_fp8_layers, torch.device("cpu")
    codes, scales = quantize_fp8_rows(torch.randn(8, 16))
    checkpoint = SimpleNamespace(
        linears={"blocks.0.ffn.0": (8, 16), "blocks.0.ffn.2": (8, 16), "head.head": (8, 16)},
        quantized={"blocks.0.ffn.0": "fp8", "blocks.0.ffn.2": "fp8", "head.head": "fp8"},
    )
    state = {
        f"{name}.{part}": x for name in checkpoint.linears for part, x in (("weight", codes), ("bias", scales[:, 0]))
    }
    state |= {"blocks.0.ffn.0.weight_scale": torch.tensor(0.5), "blocks.0.ffn.2.weight_scale": scales}
    layers = take(checkpoint, dict(state), cpu, cpu)
    assert all(torch.equal(layer.get_buffer("values").float(), codes.float()) for layer in layers.values())
    assert torch.equal(layers["blocks.0.ffn.0"].get_buffer("scales"), torch.full((8, 1), 0.5))
    assert torch.equal(layers["blocks.0.ffn.2"].get_buffer("scales"), scales)
    rest = dict(state)
    take(checkpoint, rest, cpu, cpu)
    assert set(rest) == {"head.head.weight", "head.head.bias"}
    assert torch.equal(rest["head.head.weight"], codes.bfloat16())
    with pytest.raises(ValueError, match=r"blocks\.0\.ffn\.0 has a pre_quant_scale"):
        take(checkpoint, {**state, "blocks.0.ffn.0.pre_quant_scale": scales}, cpu, cpu)


def test_other_formats_are_refused_before_they_are_read(host: Callable[[str], Any]) -> None:
    """NVFP4 and E5M2 would be rounded twice: the message names the file, a layer and the remedy."""
    check = host("longlive.nodes.fp8_model").check_fp8
    for form, dtype in (("nvfp4", "U8"), ("fp8", "F8_E5M2"), ("fp8", "F8_E4M3")):
        source = SimpleNamespace(
            specs={"a.weight": SimpleNamespace(dtype=dtype)}, path=SimpleNamespace(name="x.safetensors")
        )
        names = {"blocks.0.ffn.0.weight": "a.weight"}
        checkpoint = SimpleNamespace(source=source, names=names, quantized={"blocks.0.ffn.0": form})
        if dtype == "F8_E4M3":
            check(checkpoint)
            continue
        with pytest.raises(ValueError, match=rf"x\.safetensors has layers in {form} \({dtype}, such as blocks.*bf16"):
            check(checkpoint)


def test_a_card_without_fp8_is_told_so(host: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line; with FP8 products there is none."""
    notes = host("longlive.nodes.fp8_model").fp8_notes
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "RTX 3090")
    for arch, told in (((8, 6), 1), ((8, 9), 0), ((12, 0), 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, arch=arch: arch)
        assert len(notes(torch.device("cuda"))) == told
    (note,) = notes(torch.device("cpu"))
    assert "cpu has no FP8 products" in note and "\n" not in note
