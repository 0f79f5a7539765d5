"""The node for the settings of the KV cache: window, sinks and format."""

from __future__ import annotations

from comfy_api.latest import io

from ..longlive_core.memory import KV_FORMATS, MemoryConfig
from ..longlive_core.memory.config import RECALL_POSITIONS, RecallPosition
from ..longlive_core.mini import LATENT_SIZE, MINI_DIT
from ..longlive_core.model import WAN22_TI2V_5B, WanConfig
from ..longlive_core.types import BLOCK_FRAMES, LATENT_CHANNELS, SPACE_FACTOR, LatentShape
from ..longlive_core.units import format_bytes, plural
from ..longlive_core.vram.planner import cards_text
from .checks import passed
from .types import CATEGORY, MemoryType

SIZES: tuple[tuple[str, WanConfig, tuple[int, int]], ...] = (
    ("5B", WAN22_TI2V_5B, (704 // SPACE_FACTOR, 1280 // SPACE_FACTOR)),
    ("5B", WAN22_TI2V_5B, (480 // SPACE_FACTOR, 832 // SPACE_FACTOR)),
    ("Mini", MINI_DIT, LATENT_SIZE),
)

WINDOW = "Latent frames that a block attends to, including the sinks and the block itself."
GLOBAL_SINK = "Latent frames at the start of the film that stay in memory to its end. 0 turns off both sinks."


class SinkMemory(io.ComfyNode):
    """Settings of the KV cache: window, sinks and number format."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveSinkMemory",
            display_name="LongLive Sink Memory",
            category=CATEGORY,
            description="Sets what a block attends to: the newest latent frames, the first block of the film (global "
            "sink) and the first block of the current shot (shot sink). The memory needed does not grow with the film.",
            search_aliases=["longlive", "kv cache", "attention sink", "context window", "consistency", "memory"],
            inputs=[
                _frames("window", 32, (16, 256), WINDOW),
                _frames("global_sink", 8, (0, 64), GLOBAL_SINK),
                io.Boolean.Input(
                    "shot_sink",
                    default=True,
                    tooltip="Whether the first block of the current shot stays in memory until the next cut.",
                ),
                io.Float.Input(
                    "rope_offset",
                    default=8.0,
                    min=0.0,
                    max=256.0,
                    step=1.0,
                    tooltip="Latent frames by which a cut advances the rotary time position. The model was trained "
                    "with 8.",
                ),
                io.Combo.Input(
                    "kv_format",
                    options=list(KV_FORMATS),
                    default="bf16",
                    tooltip="Number format of the stored keys and values. Relative to bf16, fp8 takes about half the "
                    "memory, nvfp4 28 %, q2 15 % with the coarsest rounding, float32 twice as much.",
                ),
                io.Boolean.Input(
                    "clean_recache",
                    default=False,
                    advanced=True,
                    tooltip="At a cut, empties the memory except for the global sink.",
                ),
                io.Combo.Input(
                    "recall_position",
                    options=list(RECALL_POSITIONS),
                    default="before_shot",
                    optional=True,
                    advanced=True,
                    tooltip="Where a recalled block stands in time. original: where it is in the film. before_shot: "
                    "right in front of the shot that recalls it. A block of a cast file is always in front of the "
                    "shot.",
                ),
            ],
            outputs=[
                MemoryType.Output(
                    display_name="MEMORY",
                    tooltip="For LongLive Streaming Sampler, LongLive Shot and LongLive Extend Video.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The size of the memory at common film sizes, and the cards on which it fits, as text.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, window: int | None = None, global_sink: int | None = None) -> bool:
        if window is None or global_sink is None:
            return True
        return passed(MemoryConfig(window=window, sink=global_sink).check(BLOCK_FRAMES))

    @classmethod
    def execute(
        cls,
        window: int,
        global_sink: int,
        shot_sink: bool,
        rope_offset: float,
        kv_format: str,
        clean_recache: bool,
        recall_position: RecallPosition = "original",  # of workflows that were saved before there was the widget
    ) -> io.NodeOutput:
        memory = MemoryConfig(
            window=window,
            sink=global_sink,
            shot_sink=shot_sink,
            rope_offset=rope_offset,
            kv_format=kv_format,
            shot_clean_recache=clean_recache,
            recall_position=recall_position,
        )
        memory.check(BLOCK_FRAMES)
        return io.NodeOutput(memory, describe(memory))


def describe(memory: MemoryConfig) -> str:
    """Lists the size of the KV cache at common resolutions, the cards that fit the full model, and what fits beside it.

    The last line says how many blocks a shot can recall.
    """
    lines = [f"{memory.window} latent frames in {memory.kv_format}, in addition to the weights:"]
    for name, model, (height, width) in SIZES:
        needed = memory.bytes(model, LatentShape(1, LATENT_CHANNELS, BLOCK_FRAMES, height, width))
        pixels = height * SPACE_FACTOR, width * SPACE_FACTOR
        lines.append(f"{name} at {pixels[1]}x{pixels[0]}: {format_bytes(needed)}")
        if model == WAN22_TI2V_5B:
            lines.append(f"cards: {cards_text(pixels, memory.kv_format, memory.window)}")
    fits = memory.recallable(BLOCK_FRAMES)
    lines.append(f"a shot can recall {plural(fits, 'block')} (@recall)" if fits > 0 else "no slot for a recalled block")
    return "\n".join(lines)


def _frames(name: str, default: int, limits: tuple[int, int], tooltip: str) -> io.Int.Input:
    return io.Int.Input(name, default=default, min=limits[0], max=limits[1], step=BLOCK_FRAMES, tooltip=tooltip)
