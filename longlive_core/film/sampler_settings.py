"""The settings for sampling a film's blocks; the command line and ComfyUI start generations with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from ..memory import DEFAULT_MEMORY, MemoryConfig, Pools, TextEncoder
from ..model import FlowModel
from ..model.attention import Attention
from ..model.cuda_graph import Capture, cuda_capture
from ..sampling import Generation, KnownLatents, NoiseSource, Seam, Step, block_noise, generate
from ..sampling.generate import check_cast_loaded
from ..script import BlockPlan
from ..script.storyboard import storyboard_blocks
from ..take.settings import Settings
from ..types import Block

OnStep = Callable[[Step], None]
ShouldStop = Callable[[], bool]
StartGeneration = Callable[[BlockPlan, KnownLatents, OnStep | None, ShouldStop | None], Generation]
"""Starts a generation of a plan. The generation calls the second argument for the given latents of every block."""


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """The settings that change the bits of a block, apart from the model and the text.

    size: (height, width) in latent cells. noise: replaces the noise from the seeds. seam: see `generate`.
    cuda_graphs: whether steady blocks are CUDA graphs where they can be, which changes no bit; see `GraphedModel`.
    cast: the blocks of cast files, see `generate`.
    """

    size: tuple[int, int]
    memory: MemoryConfig = DEFAULT_MEMORY
    seed: int = 0
    steps: int = 4
    guidance: float = 1.0
    negative: str = ""
    noise: NoiseSource | None = None
    seam: Seam = "plain"
    cuda_graphs: bool = False
    cast: Sequence[Block] = ()

    @property
    def recorded(self) -> Settings:
        """The settings that a take records, apart from the size."""
        names = ("seed", "steps", "guidance", "negative", "seam")
        return {**{name: getattr(self, name) for name in names}, **asdict(self.memory)}

    @property
    def noise_source(self) -> NoiseSource:
        """The noise of the film, from its seeds unless `noise` replaces it."""
        return self.noise or block_noise(self.seed)

    def check_plan(self, plan: BlockPlan) -> None:
        """Raises ValueError if a shot recalls more than the KV cache holds, or a cast file that is not loaded."""
        self.memory.check_recalled(plan.blocks, plan.block_frames)
        for block in plan.blocks:
            check_cast_loaded(block, len(self.cast))

    def start(
        self,
        model: FlowModel,
        text: TextEncoder,
        plan: BlockPlan,
        known: KnownLatents | None = None,
        on_step: OnStep | None = None,
        should_stop: ShouldStop | None = None,
        *,
        batch: int = 1,
        noise: NoiseSource | None = None,
        attention: Attention | None = None,
        pools: Pools | None = None,
        free: Callable[[], None] | None = None,
        capture: Capture | None = None,
    ) -> Generation:
        """Starts a generation of the plan; parameters and errors are those of `generate`.

        noise: replaces the noise of the settings. capture: by default CUDA graphs, if the settings want them.
        """
        noise = noise or self.noise
        return generate(
            model,
            plan,
            text,
            self.memory,
            size=self.size,
            steps=self.steps,
            seed=self.seed if noise is None else None,
            guidance=self.guidance,
            negative=self.negative,
            batch=batch,
            seam=self.seam,
            known=known,
            noise=noise,
            cast=self.cast,
            attention=attention,
            pools=pools,
            on_step=on_step,
            should_stop=should_stop,
            free=free,
            capture=capture or (cuda_capture(model.device) if self.cuda_graphs else None),
        )


def storyboard_noise(film: BlockPlan, noise: NoiseSource, after: int = 0) -> NoiseSource:
    """The noise source of a storyboard, which gives each block the noise of the same block of the film."""
    blocks = storyboard_blocks(film, after)
    return lambda spec, shape: noise(blocks[spec.index], shape)
