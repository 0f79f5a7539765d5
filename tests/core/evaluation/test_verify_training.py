"""Verification of recorded training runs: correct files agree, altered ones fail, and start images are understood.

The reference's files are not in the repository. So files of the same form are made here, from formulas written out
again, on the small weights that every clone has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.evaluation.recorded import TRAINING_FORMAT, RecordedRun
from longlive.longlive_core.evaluation.verify import Result, verify_file
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.training.teacher_forcing import teacher_forced_flow
from safetensors.torch import save_file
from torch import Tensor

GRADIENTS = ("blocks.0.self_attn.q.weight", "blocks.1.ffn.2.bias", "head.head.bias")
INDEX = torch.tensor([[900, 900, 500, 500, 245, 245, 55, 55]])


@pytest.fixture
def recorded(golden: Callable[[str], Path]) -> Callable[[str], Path]:
    """The path of a recorded training run by its name. Skips the test where there is none."""

    def path(name: str) -> Path:
        found = golden("weights_tiny").parent / "train" / f"{name}.safetensors"
        if not found.is_file():
            pytest.skip(f"{name} is not here: set LONGLIVE_GOLDEN to the whole set of recorded runs")
        return found

    return path


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Path:
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, path, text)
    return path


def altered(path: Path, folder: Path, tensor: str) -> Result:
    """The result for a copy of a file with one number altered by a hundredth, an integer by one."""
    case = RecordedRun.load(path)
    value = case.tensors[tensor].clone()
    value.view(-1)[-1] += 0.01 if value.is_floating_point() else 1
    return verify_file(save(folder / "altered.safetensors", {**case.tensors, tensor: value}, case.metadata))


@pytest.fixture(scope="module")
def small(root: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and weights of the model of this project's own recorded runs."""
    metadata = RecordedRun.load(root / "tests" / "golden" / "teacher_forcing.safetensors").metadata["model"]
    return metadata, RecordedRun.load(root / "tests" / "golden" / "weights_small.safetensors").tensors


def image_step(small: tuple[dict[str, Any], dict[str, Tensor]], folder: Path, *, initial: bool) -> Path:
    """Records a step with a start image. initial: with the latent of the image, and other latents in frame 0."""
    description, weights = small
    generator = torch.Generator().manual_seed(3)
    clean, noise = torch.randn(2, 1, 8, 4, 4, 6, generator=generator)
    text = torch.randn(4, 8, 16, generator=generator)
    base = torch.linspace(1, 0, 1001)[:1000]
    sigmas = 5 * base / (1 + 4 * base)
    bell = torch.exp(-2 * (sigmas - 0.5) ** 2) - torch.exp(torch.tensor(-0.5))
    weight = bell / bell.mean()
    entries = INDEX.clone()
    entries[:, 0] = 999
    timestep = 1000 * sigmas[INDEX]
    timestep[:, 0] = 0
    sigma = sigmas[entries][..., None, None, None]
    noisy, target = (1 - sigma) * clean + sigma * noise, noise - clean
    noisy[:, 0], target[:, 0] = clean[:, 0], 0
    model = CausalWan(WanConfig.from_mapping(description))
    model.load_state_dict(weights)
    flow = teacher_forced_flow(
        model, clean.transpose(1, 2), noisy.transpose(1, 2)[:, None], timestep[:, None], text, torch.arange(4)[None],
        torch.arange(8), 2,
    )[:, 0].transpose(1, 2)  # fmt: skip
    frame_loss = weight[entries] * (flow - target).square().mean((2, 3, 4))
    loss = frame_loss[:, 1:].sum() / 7
    loss.backward()
    parameters = dict(model.named_parameters())
    tensors = {
        "clean": clean, "noise": noise, "index": INDEX, "prompt_embeds": text, "timestep": timestep, "noisy": noisy,
        "context": clean, "flow": flow.detach(), "x0": (noisy - sigma * flow).detach(), "loss": loss.detach()[None],
    }  # fmt: skip
    tensors |= {f"grad.{name}": gradient for name in GRADIENTS if (gradient := parameters[name].grad) is not None}
    if initial:
        tensors |= {"initial_latent": clean[:, :1], "clean": torch.cat((clean[:, :1] + 1, clean[:, 1:]), dim=1)}
    run = {"block_frames": 2, "i2v": True, "error_recycling": False, "dtype": "float32"}
    metadata = {"format": TRAINING_FORMAT, "kind": "ar_step", "weights": "w.safetensors", "run": run}
    save(folder / "w.safetensors", weights, {})
    return save(folder / "image.safetensors", tensors, {**metadata, "model": description})


@pytest.mark.parametrize("initial", [False, True])
def test_a_step_with_a_start_image_agrees(
    small: tuple[dict[str, Any], dict[str, Tensor]], tmp_path: Path, initial: bool
) -> None:
    """Frame 0 is the image at t = 0, without noise, target and loss; the loss is the mean over the other seven."""
    path = image_step(small, tmp_path, initial=initial)
    result = verify_file(path)
    assert result.verdict == "ok" and "worst of 3 gradients" in result.note, result
    without = RecordedRun.load(path)
    without.metadata["run"]["i2v"] = False
    result = verify_file(save(path, without.tensors, without.metadata))
    assert result.verdict == "failed" and "timestep differs" in result.note and "loss differs" in result.note


@pytest.mark.parametrize("tensor", ["noise", "context", "noisy", "flow", "x0", "loss", f"grad.{GRADIENTS[1]}"])
def test_one_altered_number_of_a_step_fails(
    small: tuple[dict[str, Any], dict[str, Tensor]], tmp_path: Path, tensor: str
) -> None:
    """One altered number of an input, an output or a gradient fails."""
    assert altered(image_step(small, tmp_path, initial=False), tmp_path, tensor).verdict == "failed"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_step_in_another_dtype_is_skipped(
    small: tuple[dict[str, Any], dict[str, Tensor]], tmp_path: Path, dtype: str
) -> None:
    """A step in low precision is skipped, and the note names the reason."""
    case = RecordedRun.load(image_step(small, tmp_path, initial=False))
    case.metadata["run"]["dtype"] = dtype
    result = verify_file(save(case.path, case.tensors, case.metadata))
    assert result.verdict == "skipped" and dtype in result.note


def test_error_recycling_agrees(recorded: Callable[[str], Path]) -> None:
    """Injected and stored errors of the reference agree, and so do flow, loss and gradients."""
    result = verify_file(recorded("ar_error_recycling"))
    assert result.verdict == "ok", result
    assert "injected: noise, latent, context; compared 8 stored errors" in result.note


@pytest.mark.parametrize("tensor", ["buffer.noise.12", "context_delta", "latent_used", "stored.noise.45.0"])
def test_an_altered_error_fails(recorded: Callable[[str], Path], tmp_path: Path, tensor: str) -> None:
    """One altered number of an error in the buffers, of an injected one or of a stored one fails."""
    assert altered(recorded("ar_error_recycling"), tmp_path, tensor).verdict == "failed"


def test_another_python_seed_fails(recorded: Callable[[str], Path], tmp_path: Path) -> None:
    """Other random draws inject other errors."""
    case = RecordedRun.load(recorded("ar_error_recycling"))
    case.metadata["run"]["python_seed"] = 32
    assert verify_file(save(tmp_path / "case.safetensors", case.tensors, case.metadata)).verdict == "failed"


def test_a_missing_stored_error_fails(recorded: Callable[[str], Path], tmp_path: Path) -> None:
    """A step must store as many errors as are recorded."""
    case = RecordedRun.load(recorded("ar_error_recycling"))
    del case.tensors["stored.latent.45.0"]
    result = verify_file(save(tmp_path / "case.safetensors", case.tensors, case.metadata))
    assert result.verdict == "failed" and "8 errors were stored, and 7 are recorded" in result.note


def test_balanced_sequence_parallelism_agrees(recorded: Callable[[str], Path]) -> None:
    """All gradients, the masks of 1, 2 and 4 ranks, and losses and gradients of single ranks agree."""
    result = verify_file(recorded("balanced_sp"))
    assert result.verdict == "ok" and "worst of 69 gradients" in result.note, result
    assert "93 tensors" in result.note and "not compared" not in result.note


@pytest.mark.parametrize(
    "tensor",
    [
        "frame_loss",
        "grad.head.modulation",
        "local_grad.sp4.rank2.blocks.1.ffn.2.weight",
        "loss.sp4",
        "mask.sp2",
        "weight",
    ],
)
def test_an_altered_number_of_a_rank_fails(recorded: Callable[[str], Path], tmp_path: Path, tensor: str) -> None:
    """One altered number of a mask, of a loss or of a gradient fails."""
    assert altered(recorded("balanced_sp"), tmp_path, tensor).verdict == "failed"


def test_tables_agree(recorded: Callable[[str], Path]) -> None:
    """Every recorded table agrees, and none is unknown."""
    result = verify_file(recorded("tables"))
    assert result.verdict == "ok" and result.note == "30 tables agree", result


@pytest.mark.parametrize(
    "tensor",
    [
        "ar.sigma_of_index_bf16", "ar.weight_of_index", "dmd.t_of_draw", "er.bucket_read.shards4", "er.trace", "halo",
        "opt.ema", "opt.params", "rollout.x0_sigma.3", "sample.independent_first_frame", "sample.uniform",
    ],
)  # fmt: skip
def test_one_altered_entry_of_a_table_fails(recorded: Callable[[str], Path], tmp_path: Path, tensor: str) -> None:
    """One altered entry fails, and its table is named."""
    result = altered(recorded("tables"), tmp_path, tensor)
    assert result.verdict == "failed" and tensor in result.note


def test_tables_without_the_reference(tmp_path: Path) -> None:
    """Tables of hand-computed entries agree, an unknown one is named, and a file of unknown ones fails."""
    known = {
        "rollout.timesteps.2": torch.tensor([999.0, 833.0]),
        "er.bucket_read.shards1": torch.arange(50, dtype=torch.int32)[None],
        "halo": torch.tensor([[96, 4, 28, 2, 48, 72, 20, 76, 285, 209, 29]], dtype=torch.int32),
    }
    metadata = {"format": TRAINING_FORMAT, "kind": "tables"}
    result = verify_file(save(tmp_path / "t.safetensors", {**known, "new.table": torch.ones(1)}, metadata))
    assert result.verdict == "ok" and result.note == "3 tables agree; this version does not know new.table"
    assert verify_file(save(tmp_path / "t.safetensors", {"new.table": torch.ones(1)}, metadata)).verdict == "failed"


def test_later_kinds_of_training_are_skipped_by_name(tmp_path: Path) -> None:
    """A training run of an unknown kind is skipped, even if the kind of another format has its name."""
    for kind in ("audio", "vae"):
        path = save(tmp_path / "new.safetensors", {"x": torch.ones(1)}, {"format": TRAINING_FORMAT, "kind": kind})
        result = verify_file(path)
        assert (result.verdict, result.kind) == ("skipped", kind) and f"'{kind}'" in result.note
