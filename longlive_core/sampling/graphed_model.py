"""A model whose calls in steady blocks are CUDA graphs: the host starts a whole pass by one call.

A block is steady once the window is full. From then on its calls differ in numbers only, which are all on the device:

    latents, timesteps, positions, slot   copied into the tensors of the graph before each call
    K/V of the prompt                     copied when the prompt changes
    K/V of the window                     every slot is attended, in place; only the slot that is written differs

There is a graph for each kind of call: a step, one with a frame in front (`seam: align`), and the clean pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..memory import BlockKVCache, MemoryConfig
from ..memory.formats import Pool
from ..memory.pool import Slot
from ..memory.prompts import PromptKV
from ..model import FlowModel, KeyValue, KVCache, TextKVCache
from ..model.cuda_graph import Capture
from ..model.linears import BypassLinear
from ..oom import is_out_of_memory

log = logging.getLogger(__name__)

Pass = Callable[[Tensor, Tensor, TextKVCache, KVCache, Tensor], Tensor | None]
"""`CausalWan.forward` or `CausalWan.write_kv`."""


def obstacle(model: FlowModel, memory: MemoryConfig) -> str | None:
    """Why no call of this model can be a CUDA graph, or None."""
    if not isinstance(model, nn.Module):
        return "another program runs the layers of this model"
    if any(isinstance(layer, BypassLinear) for layer in model.modules()):
        return "LoRAs beside its layers have strengths that may change"
    if any(tensor.device != model.device for tensor in (*model.parameters(), *model.buffers())):
        return "not all of its weights are on the device"
    return "relative RoPE rotates other keys in each block" if memory.relative_rope else None


def graph_notes(model: FlowModel, memory: MemoryConfig) -> tuple[str, ...]:
    """What the user should know who wants CUDA graphs: nothing, or why there are none."""
    reason = obstacle(model, memory) if model.device.type == "cuda" else f"{model.device.type} has none"
    return () if reason is None else (f"no CUDA graphs: {reason}",)


class GraphedModel:
    """A `FlowModel` that computes what `model` computes. Calls that are not steady run as they are.

    Once the device runs out of memory, or a call cannot be recorded, all calls run as they are.
    """

    def __init__(self, model: FlowModel, capture: Capture) -> None:
        self._model = model
        self._capture: Capture | None = capture
        self._prompts: dict[Pool, StaticPrompt] = {}
        self._calls: dict[tuple[Pool, torch.Size, bool], StaticCall] = {}
        self.config, self.dtype, self.device = model.config, model.dtype, model.device

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GraphedModel) and self._model == other._model

    def __hash__(self) -> int:
        return hash(self._model)

    def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
        """See `CausalWan.forward`."""
        call = self._replayed(self._model, x, t, text, kv, positions)
        return self._model(x, t, text, kv, positions) if call is None else call.result()

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        """See `CausalWan.write_kv`."""
        if self._replayed(self._model.write_kv, x, t, text, kv, positions) is None:
            self._model.write_kv(x, t, text, kv, positions)

    def text_kv(self, text: Tensor) -> Sequence[KeyValue]:
        """See `CausalWan.text_kv`."""
        return self._model.text_kv(text)

    def _replayed(
        self, run: Pass, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor
    ) -> StaticCall | None:
        """The call that did what `run` does; None if nothing was done."""
        capture = self._capture
        if capture is None or not isinstance(kv, BlockKVCache) or not isinstance(text, PromptKV) or not kv.is_steady:
            return None
        try:
            prompt = self._prompts.setdefault(kv.pool, StaticPrompt())
            prompt.set(text)
            key = kv.pool, x.shape, kv.clean
            if key not in self._calls:
                self._calls[key] = StaticCall(run, x, t, prompt.kv, kv, positions)
                log.info("CUDA graphs: one for %s of %s", "clean passes" if kv.clean else "steps", tuple(x.shape))
            self._calls[key].run(x, t, kv.slot, positions, capture)
        except (RuntimeError, MemoryError) as error:
            # What the graphs hold is free for the second attempt, which runs as it is.
            self._capture = None
            self._calls.clear()
            self._prompts.clear()
            log.info("CUDA graphs are off for the rest of this film: %s", str(error).partition("\n")[0])
            if is_out_of_memory(error):
                raise
            return None
        return self._calls[key]


class StaticPrompt:
    """A prompt's K/V at addresses that stay."""

    def __init__(self) -> None:
        self._given: PromptKV | None = None
        self._kv: PromptKV | None = None

    @property
    def kv(self) -> PromptKV:
        """The copy of what was set last."""
        assert self._kv is not None
        return self._kv

    def set(self, text: PromptKV) -> None:
        """Copies the K/V of a prompt, unless it was set last."""
        if self._given is text:
            return
        if self._kv is None:
            self._kv = replace(text, layers=tuple(KeyValue(*(x.clone() for x in kv)) for kv in text.layers))
        for own, given in zip(self._kv.layers, text.layers, strict=True):
            for target, source in zip(own, given, strict=True):
                target.copy_(source)
        self._given = text


class StaticCall:
    """One kind of call with inputs and result at addresses that stay, and its graph once it has run."""

    def __init__(self, run: Pass, x: Tensor, t: Tensor, text: PromptKV, kv: BlockKVCache, positions: Tensor) -> None:
        """The first inputs, of which those that change are copied."""
        self._slot = torch.zeros(1, dtype=torch.int64, device=x.device)
        self._inputs = x.clone(), t.clone(), positions.clone()
        self._run, self._text, self._kv = run, text, replace(kv, slot=self._slot)
        self._result: Tensor | None = None
        self._replay: Callable[[], None] | None = None

    def run(self, x: Tensor, t: Tensor, slot: Slot, positions: Tensor, capture: Capture) -> None:
        """Runs the call for these inputs."""
        for own, given in zip(self._inputs, (x, t, positions), strict=True):
            own.copy_(given)
        self._slot.fill_(slot)
        if self._replay is None:
            self._work()  # what is made in a first call, such as compiled kernels and plans, is no part of the graph
            self._result = None
            self._replay = capture(self._work)
        self._replay()

    def result(self) -> Tensor:
        """A copy of the result: the next run overwrites it."""
        assert self._result is not None
        return self._result.clone()

    def _work(self) -> None:
        x, t, positions = self._inputs
        self._result = self._run(x, t, self._text, self._kv, positions)
