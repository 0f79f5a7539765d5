"""A tiny run of autoregressive training, and a recorded step of it, that several processes share."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from longlive.longlive_core.evaluation.recorded import RecordedRun
from longlive.longlive_core.evaluation.result import Result
from longlive.longlive_core.evaluation.verify_dmd import verify_dmd
from longlive.longlive_core.evaluation.verify_training import load_training_model, recorded_batch, recorded_draws
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.parallel import Mesh, all_sum, make_mesh
from longlive.longlive_core.training.ar import ar_step
from longlive.longlive_core.training.ar_inputs import ARBatch, ar_inputs
from longlive.longlive_core.training.ar_settings import ARSettings
from longlive.longlive_core.training.ar_stage import ARStage
from longlive.longlive_core.training.schedule import TimestepTable
from longlive.longlive_core.training.sharding import whole
from longlive.longlive_core.training.stage import OptimiserSettings
from longlive.longlive_core.training.trainer import Trainer
from longlive.longlive_core.training.trainer_settings import TrainerSettings
from longlive.longlive_core.training.workers import Workers
from torch import Tensor

BLOCKS, CELLS, TEXT = 4, (4, 6), (4, 16)
SETTINGS = TrainerSettings(steps=4, seed=5, accumulation=2, save_every=2, validate_every=2)
OPTIMISER = OptimiserSettings(lr=1e-3, betas=(0.9, 0.99), ema_decay=0.9, ema_start=1, clip=1.0)


@dataclass
class Films:
    """A source of random films of four blocks, whose last latent frame does not count.

    kill_at: the batch before which this process is killed, counted from 0; −1 is none.
    """

    kill_at: int = -1
    count: int = 0

    def batch(self, rng: np.random.Generator, /) -> ARBatch:
        """Returns a batch of one film."""
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1
        generator = torch.Generator().manual_seed(int(rng.integers(2**40)))
        clean = torch.randn(1, 4, 2 * BLOCKS, *CELLS, generator=generator)
        text = torch.randn(2, *TEXT, generator=generator)
        mask = torch.ones(1, 2 * BLOCKS)
        mask[:, -1] = 0
        cuts = tuple(block == 2 for block in range(BLOCKS))
        return ARBatch(clean, text, torch.tensor([[0, 0, 1, 1]]), torch.arange(2 * BLOCKS), cuts, mask=mask)


def train(_: Mesh, __: Path, run: Path, sequence: int, steps: int, shard: bool, kill_at: int = -1) -> dict[str, Tensor]:
    """Trains in a folder, which may hold a run of another number of processes; returns weights and their average.

    kill_at: of the second process, see `Films`.
    """
    mesh = make_mesh(sequence)
    torch.manual_seed(0)
    config = WanConfig(dim=96, ffn_dim=64, num_heads=4, num_layers=2, freq_dim=32, text_dim=16, text_len=5, channels=4)
    model = CausalWan(config).requires_grad_(True)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    data, sequence = mesh.data, mesh.sequence
    workers = Workers(data.rank * sequence.size + sequence.rank, data.size * sequence.size, sequence)
    films = Films(kill_at if workers.rank == 1 else -1)
    stage = ARStage(
        model, films, ARSettings(block_frames=2, checkpointing=True), OPTIMISER, 5, validation=films,
        validation_batches=2, ranks=sequence,
    )  # fmt: skip
    trainer = Trainer(stage, replace(SETTINGS, steps=steps, shard=shard), run, workers=workers)
    assert trainer.run()
    weights = whole(dict(model.named_parameters()))
    return weights | {f"average.{name}": value for name, value in whole(trainer.averages["model"].weights).items()}


def balanced_step(
    mesh: Mesh, _: Path, file: Path, mask: Tensor | None, checkpointing: bool
) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss and gradients of the own share of a recorded step, the flow of all, and the mean gradients of the ranks."""
    recorded, ranks = RecordedRun.load(file), mesh.sequence
    model, batch = load_training_model(recorded), replace(recorded_batch(recorded), mask=mask)
    settings = ARSettings(block_frames=recorded.metadata["run"]["block_frames"], checkpointing=checkpointing)
    with torch.enable_grad():
        inputs = ar_inputs(batch, recorded_draws(recorded), settings, TimestepTable.shifted(settings.shift))
        step = ar_step(model, batch, inputs, settings, ranks)
        step.loss.backward()
    own = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    return step.loss.detach(), step.flow, own, {name: all_sum(g, ranks) / ranks.size for name, g in own.items()}


def distillation_step(mesh: Mesh, _: Path, file: Path) -> Result:
    """The verification of a recorded step of distillation whose calls the ranks share."""
    return verify_dmd(RecordedRun.load(file), mesh.sequence)
