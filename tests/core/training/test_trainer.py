"""The trainer: its updates are the recorded ones, and a run that is killed or stopped goes on to the bit."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.training import trainer as trainer_module
from longlive.longlive_core.training.checkpoint import DiskFullError
from longlive.longlive_core.training.log import TrainingLog
from longlive.longlive_core.training.optim import Optimiser, WeightAverage, lr_scale
from longlive.longlive_core.training.stage import Loss, OptimiserSettings, Origin, Trained
from longlive.longlive_core.training.trainer import CHECKPOINTS, NotFiniteLossError, Trainer
from longlive.longlive_core.training.trainer_settings import TrainerSettings
from safetensors.torch import load_file
from torch import Tensor, nn

from ..full_disk import files_no_larger_than
from .toy import ADAMW, SETTINGS, ToyStage

# What differs between two runs of equal losses.
LENGTHS = ("seconds", "steps")


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plot takes longer than all the rest of a toy run; test_log.py tests it."""
    monkeypatch.setattr(trainer_module, "save_plot", lambda *_: None)


def run(folder: Path, stage: ToyStage | None = None, **changes: Any) -> Trainer:  # noqa: ANN401
    """Trains a toy stage in a folder up to its last step."""
    trainer = Trainer(stage or ToyStage(), replace(SETTINGS, **changes), folder)
    assert trainer.run()
    return trainer


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of a log without times and the length of the run."""
    return [{k: v for k, v in line.items() if k not in LENGTHS} for line in TrainingLog(folder).lines()]


def bits(trainer: Trainer) -> dict[str, Tensor]:
    """All weights and averages of a toy run."""
    stage = trainer.stage
    assert isinstance(stage, ToyStage)
    averages = {f"{n}.{k}": v for n, average in trainer.averages.items() for k, v in average.weights.items()}
    return {**stage.model.state_dict(), **{f"c.{k}": v for k, v in stage.critic.state_dict().items()}, **averages}


def assert_same_run(one: Trainer, other: Trainer) -> None:
    """Two runs have equal losses, weights and averages, to the bit."""
    assert logged(one.folder) == logged(other.folder)
    mine, theirs = bits(one), bits(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def after(calls: int) -> Callable[[], bool]:
    """A `should_stop` that stops from a call on."""
    answers: Iterator[bool] = chain(repeat(False, calls), repeat(True))
    return lambda: next(answers)


class Given:
    """A stage whose gradients are given: the loss is their product with the parameter."""

    name = "given"
    origins: Mapping[str, Origin] = {}

    def __init__(self, start: Tensor, gradients: Tensor, optimiser: OptimiserSettings) -> None:
        self.module = nn.Module()
        self.module.p = nn.Parameter(start.clone())
        self.gradients = gradients
        self.trained = (Trained("model", self.module, optimiser),)

    def loss(self, name: str, step: int, part: int, /) -> Loss:
        """A loss with the gradient of a step, or of a part of it."""
        assert name == "model"
        gradient = self.gradients[step] if self.gradients.ndim == 2 else self.gradients[step, part]
        return Loss((gradient * self.module.p).sum())

    def validation_loss(self, _: int, /) -> dict[str, float]:
        """None."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """None."""
        return {}

    def load_state_dict(self, _: dict[str, Any], /) -> None:
        """Nothing to restore."""


def test_updates_and_average_are_those_of_the_reference(golden: Callable[[str], Path], tmp_path: Path) -> None:
    """Five AdamW steps and the average of weights equal the recorded ones."""
    recorded = load_file(golden("train/tables"))
    optimiser = OptimiserSettings(lr=0.01, betas=(0.0, 0.999), clip=10.0, ema_decay=0.99)
    stage = Given(recorded["opt.p0"], recorded["opt.grads"], optimiser)
    for step in range(5):
        trainer = Trainer(stage, TrainerSettings(steps=step + 1), tmp_path)
        trainer.run()
        assert torch.allclose(stage.module.p, recorded["opt.params"][step], rtol=1e-6, atol=0)
        assert torch.allclose(trainer.averages["model"].weights["p"], recorded["opt.ema"][step], rtol=1e-6, atol=0)


def test_the_average_begins_before_the_update_of_its_first_step(tmp_path: Path) -> None:
    """The average is a copy from before the first step ≥ ema_start, which also updates it."""
    optimiser = OptimiserSettings(lr=0.1, ema_decay=0.75, ema_start=2)
    stage = Given(torch.ones(3), torch.ones(3, 3), optimiser)
    weights = [torch.ones(3)]
    for steps in (1, 2, 3):
        trainer = Trainer(stage, TrainerSettings(steps=steps), tmp_path)
        trainer.run()
        weights.append(stage.module.p.detach().clone())
        assert ("model" in trainer.averages) == (steps == 3)
    assert torch.allclose(trainer.averages["model"].weights["p"], 0.75 * weights[2] + 0.25 * weights[3])


def test_the_average_is_float32_and_apart_from_the_weights() -> None:
    """The average of bf16 weights is kept in float32, where small changes are not lost; frozen weights have none."""
    module = nn.Linear(2, 2).to(torch.bfloat16)
    module.bias.requires_grad_(False)
    average = WeightAverage(module, 0.999)
    before = average.weights["weight"].clone()
    module.weight.data += 1
    average.update(module)
    assert set(average.weights) == {"weight"} and before.dtype == torch.float32
    assert torch.allclose(average.weights["weight"] - before, torch.full((2, 2), 1e-3), rtol=0.05)
    single = nn.Linear(2, 2)
    alone = WeightAverage(single, 0.5).weights["weight"].clone()
    single.weight.data += 1
    assert not torch.equal(alone, single.weight)


def test_gradients_are_clipped_by_their_global_norm(tmp_path: Path) -> None:
    """The log shows the norm before clipping; the second moment that of clipped gradients."""
    stage = Given(torch.zeros(4), torch.full((1, 4), 50.0), OptimiserSettings(lr=0.01, clip=10.0))
    trainer = Trainer(stage, TrainerSettings(steps=1), tmp_path)
    trainer.run()
    assert logged(tmp_path)[0]["model.norm"] == 100.0
    moment = trainer._parts["model"].state_dict(gradients=False)["optimiser"][0]["exp_avg_sq"]
    assert torch.allclose(moment, torch.full((4,), 0.001 * 5.0**2), rtol=1e-4)


def test_parts_of_a_batch_are_averaged(tmp_path: Path) -> None:
    """Accumulation over four parts updates like one batch with the mean of their gradients."""
    gradients = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    optimiser = OptimiserSettings(lr=0.01, betas=(0.9, 0.99), clip=0.5)
    parts, whole = (Given(torch.ones(5), g, optimiser) for g in (gradients, gradients.mean(1)))
    Trainer(parts, TrainerSettings(steps=3, accumulation=4), tmp_path / "parts").run()
    Trainer(whole, TrainerSettings(steps=3), tmp_path / "whole").run()
    assert torch.allclose(parts.module.p, whole.module.p, rtol=1e-6)
    for one, other in zip(logged(tmp_path / "parts"), logged(tmp_path / "whole"), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_each_part_is_updated_when_due_with_gradients_of_its_own(tmp_path: Path) -> None:
    """A part with `every` 2 is updated on steps 0, 2, … and no gradient of another part's loss reaches it."""

    class Leaky(ToyStage):
        def loss(self, name: str, step: int, part: int, /) -> Loss:
            loss = super().loss(name, step, part)
            leak = 1e3 * self.critic.weight.sum()
            return replace(loss, value=loss.value + (leak - leak.detach())) if name == "model" else loss

    leaky, clean = run(tmp_path / "leaky", Leaky(), steps=4), run(tmp_path / "clean", steps=4)
    assert_same_run(leaky, clean)
    assert ["critic.loss" in line for line in logged(tmp_path / "clean")] == [True, False, True, False]


def test_the_learning_rate_rises_then_falls() -> None:
    """The warm-up is linear to 1; the cosine ends near `final_scale`, and 1 is constant."""
    settings = OptimiserSettings(lr=1.0, warmup=4, final_scale=0.1)
    scales = [lr_scale(settings, step, 1000) for step in range(1000)]
    assert scales[:4] == [0.25, 0.5, 0.75, 1.0]
    assert scales[4] > 0.99 and scales[500] == pytest.approx(0.55) and scales[-1] == pytest.approx(0.1, abs=1e-4)
    assert lr_scale(OptimiserSettings(lr=1.0), 700, 1000) == 1.0
    longer = replace(settings, horizon=2000)
    assert [lr_scale(longer, step, 1000) for step in (600, 999)] == [
        lr_scale(settings, step, 2000) for step in (600, 999)
    ]
    assert lr_scale(replace(settings, horizon=500), 700, 1000) == pytest.approx(0.1)


def test_bf16_is_of_the_forward_pass_only(tmp_path: Path) -> None:
    """With bf16 the forward pass is in bf16; weights and optimiser stay float32."""
    seen: list[torch.dtype] = []
    stage = ToyStage()
    stage.model.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    trainer = run(tmp_path, stage, steps=1, precision="bf16")
    assert set(seen) == {torch.bfloat16}
    assert {value.dtype for value in bits(trainer).values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("parts", [0, 1, 2, 3, 4, 5, 9, 13, 23, 35])
def test_a_stopped_run_goes_on_to_the_bit(tmp_path: Path, parts: int) -> None:
    """A run that is stopped between any two parts, and resumed with new objects, equals an uninterrupted one."""
    whole = run(tmp_path / "whole")
    first = Trainer(ToyStage(), SETTINGS, tmp_path / "stopped", should_stop=after(parts))
    assert not first.run()
    assert_same_run(run(tmp_path / "stopped"), whole)


def test_moments_in_host_memory_change_no_bit(tmp_path: Path) -> None:
    """An offloaded optimiser has its parameters and moments on the CPU apart from the model's; a run with it, stopped
    and resumed, equals one without it on a CPU."""
    offloaded = replace(ADAMW, offload=True)
    whole = run(tmp_path / "whole")
    first = Trainer(ToyStage(optimiser=offloaded), SETTINGS, tmp_path / "stopped", should_stop=after(9))
    assert not first.run()
    resumed = run(tmp_path / "stopped", ToyStage(optimiser=offloaded))
    assert_same_run(resumed, whole)
    model = nn.Linear(2, 2)
    own = {p.data_ptr() for group in _groups(Optimiser(model, offloaded)) for p in group}
    assert len(own) == 2 and not own & {p.data_ptr() for p in model.parameters()}


def _groups(optimiser: Optimiser) -> list[list[nn.Parameter]]:
    return [group["params"] for adam, _ in optimiser._optimisers.values() for group in adam.param_groups]


def test_a_run_stopped_again_and_again_goes_on_to_the_bit(tmp_path: Path) -> None:
    """A run that is stopped after every part equals an uninterrupted one."""
    whole = run(tmp_path / "whole", steps=2)
    settings, stops = replace(SETTINGS, steps=2, keep=1), 0
    while not Trainer(ToyStage(), settings, tmp_path / "stopped", should_stop=after(1)).run():
        stops += 1
        assert stops < 50
    assert stops == 5
    assert_same_run(Trainer(ToyStage(), settings, tmp_path / "stopped"), whole)


@pytest.mark.slow
@pytest.mark.linux
def test_a_killed_run_goes_on_to_the_bit(tmp_path: Path, root: Path) -> None:
    """A run that is killed five times at random moments ends with the losses and weights of an uninterrupted one."""
    steps, rng = 60, random.Random(7)
    whole = run(tmp_path / "whole", steps=steps, save_every=1)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "longlive").symlink_to(root)
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'path')!r}); import runpy; runpy.run_path(sys.argv[0])"
    script, folder = Path(__file__).with_name("toy.py"), tmp_path / "killed"
    command = [sys.executable, "-c", code.replace("sys.argv[0]", repr(str(script)) + ", run_name='__main__'")]
    killed: list[int] = []
    while len(killed) < 5:
        process = subprocess.Popen([*command, str(folder), str(steps)])
        target = rng.randrange(max(killed, default=0) + 1, steps - 20 + 4 * len(killed))
        while process.poll() is None and len(TrainingLog(folder).lines()) < target:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
        killed.append(len(TrainingLog(folder).lines()))
    assert_same_run(run(folder, steps=steps, save_every=1), whole)


def test_log_lines_after_the_checkpoint_are_cut(tmp_path: Path) -> None:
    """On resume, lines after the checkpoint's step and half a line are gone, so that each step has one line."""
    whole = run(tmp_path / "whole", steps=12)
    run(tmp_path / "cut", steps=4)
    log = TrainingLog(tmp_path / "cut")
    log.append({"step": 5, "steps": 12, "seconds": 1.0, "model.loss": 9.0})
    with log.path.open("a") as file:
        file.write('{"step": 6, "ste')
    resumed = run(tmp_path / "cut", steps=12)
    assert [line["step"] for line in logged(tmp_path / "cut")] == list(range(1, 13))
    assert_same_run(resumed, whole)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, bad: float) -> None:
    """NaN or infinity names the step, the batch and the kept checkpoint, and changes nothing that is stored."""
    stage = ToyStage(spoil=lambda step, loss: loss * bad if step == 6 else loss)
    trainer = Trainer(stage, SETTINGS, tmp_path)
    with pytest.raises(NotFiniteLossError, match=r"step 6: the loss is .* in 'model' on rows 6\.0; .*step 4 is kept"):
        trainer.run()
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == ["step-00000004"]
    assert_same_run(run(tmp_path), run(tmp_path / "whole"))


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    """A finite loss with an infinite gradient does not reach the weights."""
    stage = ToyStage(spoil=lambda step, loss: (loss - loss.detach()).abs().sqrt() + 1 if step == 2 else loss)
    before = run(tmp_path / "before", steps=2)
    trainer = Trainer(stage, SETTINGS, tmp_path / "bad")
    with pytest.raises(
        NotFiniteLossError, match=r"step 2: the gradient norm is nan in 'model' on rows 2\.0, rows 2\.1;"
    ):
        trainer.run()
    assert torch.equal(stage.model.weight, bits(before)["weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stage: setattr(stage, "name", "ar"), "of stage 'toy', not 'ar'"),
        (lambda stage: setattr(stage, "trained", stage.trained[:1]), r"trained parts \['critic', 'model'\], not"),
        (lambda stage: stage.model.bias.requires_grad_(False), r"'model' has other weights \(bias\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, change: Callable[[ToyStage], object], message: str
) -> None:
    """A checkpoint of another stage, of other trained parts or of another model is refused before work starts."""
    run(tmp_path, steps=1)
    stage = ToyStage()
    change(stage)
    with pytest.raises(ValueError, match=message):
        Trainer(stage, SETTINGS, tmp_path)


def test_a_checkpoint_of_another_shape_or_seed_is_refused(tmp_path: Path) -> None:
    """Another width and another seed are named."""
    run(tmp_path, steps=1)
    with pytest.raises(ValueError, match=r"'weight' of shape \(2, 4\), not \(2, 6\)"):
        Trainer(ToyStage(width=6), SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="of seed 5, not 6"):
        Trainer(ToyStage(), replace(SETTINGS, seed=6), tmp_path)


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    """Data are compared by content, not by name. A checkpoint that does not name its data goes on."""

    def stage(**origins: Origin) -> ToyStage:
        toy = ToyStage()
        toy.origins = origins
        return toy

    run(tmp_path, steps=1)
    run(tmp_path, stage(data=Origin("films", "12")), steps=2)
    run(tmp_path, stage(data=Origin("renamed", "12")), steps=3)
    with pytest.raises(ValueError, match=r"of data 'renamed \(12\)', not 'films \(34\)': choose another folder"):
        Trainer(stage(data=Origin("films", "34")), SETTINGS, tmp_path)


@pytest.mark.parametrize("parts", [1, 5, 9, 23])
def test_a_stopped_run_with_muon_goes_on_to_the_bit(tmp_path: Path, parts: int) -> None:
    """Muon's momentum and AdamW's moments are resumed."""
    muon = replace(ADAMW, muon_lr=0.02)
    whole = run(tmp_path / "whole", ToyStage(optimiser=muon))
    assert not Trainer(ToyStage(optimiser=muon), SETTINGS, tmp_path / "stopped", should_stop=after(parts)).run()
    assert_same_run(run(tmp_path / "stopped", ToyStage(optimiser=muon)), whole)


def test_muon_updates_kernels_and_adamw_vectors() -> None:
    """The step of a kernel is that of torch's Muon on its flattened matrix, that of a vector is AdamW's."""
    torch.manual_seed(0)
    settings = OptimiserSettings(lr=0.1, muon_lr=0.02, betas=(0.9, 0.99), weight_decay=0.01)
    ours, theirs = (nn.Conv2d(3, 4, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    matrix = nn.Parameter(theirs.weight.data.view(4, -1))
    adam = torch.optim.AdamW([theirs.bias], lr=0.05, betas=(0.9, 0.99), weight_decay=0.01)
    muon = torch.optim.Muon([matrix], lr=0.01, momentum=0.95, weight_decay=0.01)
    optimiser = Optimiser(ours, settings)
    for _ in range(3):
        for module in (ours, theirs):
            module(torch.ones(1, 3, 5, 5)).square().sum().backward()
        assert theirs.weight.grad is not None
        matrix.grad = theirs.weight.grad.view_as(matrix)
        optimiser.step(0.5)
        adam.step()
        muon.step()
        theirs.zero_grad()
        assert ours.weight.grad is None
    assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


def test_a_run_keeps_its_optimisers(tmp_path: Path) -> None:
    """Checkpoints of AdamW are refused by a run with Muon, and the other way round."""
    muon = replace(ADAMW, muon_lr=0.02)
    for name, before, now in (("a", ADAMW, muon), ("b", muon, ADAMW)):
        run(tmp_path / name, ToyStage(optimiser=before), steps=1)
        with pytest.raises(ValueError, match="set or unset 'muon_lr' as before"):
            Trainer(ToyStage(optimiser=now), SETTINGS, tmp_path / name)


def test_without_a_limit_gradients_are_not_clipped(tmp_path: Path) -> None:
    """`clip` that is not set leaves gradients as they are; one that is not finite still ends the run."""
    stage = Given(torch.zeros(4), torch.full((1, 4), 50.0), OptimiserSettings(lr=0.01, clip=None))
    trainer = Trainer(stage, TrainerSettings(steps=1), tmp_path)
    trainer.run()
    moment = trainer._parts["model"].state_dict(gradients=False)["optimiser"][0]["exp_avg_sq"]
    assert torch.allclose(moment, torch.full((4,), 0.001 * 50.0**2), rtol=1e-4)
    bad = Given(torch.zeros(4), torch.full((1, 4), math.inf), OptimiserSettings(lr=0.01, clip=None, muon_lr=0.1))
    with pytest.raises(NotFiniteLossError, match=r"rate \(0\.01, Muon 0\.1\)"):
        Trainer(bad, TrainerSettings(steps=1), tmp_path / "bad").run()


def test_stopped_within_a_step_keeps_its_accumulation(tmp_path: Path) -> None:
    """A run that was stopped between parts is not resumed with another number of parts."""
    assert not Trainer(ToyStage(), SETTINGS, tmp_path, should_stop=after(1)).run()
    with pytest.raises(ValueError, match="accumulation 2, not 3"):
        Trainer(ToyStage(), replace(SETTINGS, accumulation=3), tmp_path)


@pytest.mark.linux
def test_a_disk_that_fills_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """The error says where and how much, and the run goes on from the checkpoint before."""
    trainer = Trainer(ToyStage(), SETTINGS, tmp_path)
    run(tmp_path, steps=4)
    trainer = Trainer(ToyStage(), SETTINGS, tmp_path)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with files_no_larger_than(5000), pytest.raises(DiskFullError) as caught:
        trainer.run()
    for words in ("step-00000008", "free disk space", "last checkpoint, which is kept"):
        assert words in str(caught.value)
    assert " kB)" in str(caught.value)
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == ["step-00000004"]
    assert_same_run(run(tmp_path), run(tmp_path / "whole"))


def test_a_disk_that_is_too_small_is_found_before_work_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose checkpoints do not fit does not begin."""
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(DiskFullError, match=r"checkpoints \(.* kB\): the disk has 0\.1 kB free"):
        Trainer(ToyStage(), SETTINGS, tmp_path)


def test_nothing_to_train_and_half_precision_are_refused(tmp_path: Path) -> None:
    """A stage without trainable weights, or with trained weights in bf16, is refused."""
    frozen = ToyStage()
    frozen.model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter requires gradients"):
        Trainer(frozen, SETTINGS, tmp_path)
    half = ToyStage()
    half.model.to(torch.bfloat16)
    with pytest.raises(ValueError, match="must be float32"):
        Trainer(half, SETTINGS, tmp_path)


def test_global_random_numbers_are_left_alone(tmp_path: Path) -> None:
    """The trainer draws nothing from the global generators."""
    stage = ToyStage()
    before, python = torch.get_rng_state(), random.getstate()
    run(tmp_path, stage, steps=2)
    assert torch.equal(torch.get_rng_state(), before) and random.getstate() == python
    assert ADAMW.ema_decay == 0.9
