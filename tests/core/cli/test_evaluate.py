"""`longlive eval` from the command line."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.evaluation import arm_films
from longlive.longlive_core.mini import Mini, load_mini
from longlive.longlive_core.training.lora import LoraCard, LoraSettings, add_adapter, save_lora


def test_a_lora_is_evaluated_with_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that makes the films has the LoRA of `--lora` beside its layers, at its strength."""
    settings, seen = LoraSettings(4, 4.0), list[Mini]()
    weights = add_adapter(load_mini().model, "generator", settings)
    torch.manual_seed(0)
    for weight in weights.parameters():
        torch.nn.init.normal_(weight)
    save_lora(tmp_path / "random.safetensors", weights, settings, LoraCard("mini", "none", 0, 4, 8.0))

    def stop(mini: Mini, *_: object, **__: object) -> None:
        seen.append(mini)
        raise KeyboardInterrupt

    monkeypatch.setattr(arm_films, "evaluate_arms", stop)
    words = ["eval", "mini", "--films", "1", "--no-extra", "--out", str(tmp_path)]
    file = str(tmp_path / "random.safetensors")
    for lora in ([], ["--lora", f"{file}:0.5"], ["--lora", file]):
        with suppress(KeyboardInterrupt, SystemExit):
            main([*words, *lora])
    x = torch.ones(1, seen[0].model.config.dim)
    plain, half, whole = (mini.model.blocks[0].self_attn.q(x) for mini in seen)
    assert torch.linalg.vector_norm(half - plain) > 1
    torch.testing.assert_close(whole - plain, 2 * (half - plain), rtol=1e-3, atol=1e-4)
