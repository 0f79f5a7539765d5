"""`--lora`, once or several times, with strengths: what is applied, recorded and resumed."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.arguments import add_output_arguments, add_setting_arguments, given_settings
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.film.sampler_settings import SamplerSettings
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.render.load_model import (
    change_linears,
    load_model,
    model_notes,
    read_loras,
    weights_fingerprint,
)
from longlive.longlive_core.weights import CheckpointError, LoraFile, convert_checkpoint, inspect_checkpoint
from safetensors.torch import save_file
from torch import nn


def save_lora(path: Path, seed: int) -> Path:
    draw = torch.Generator().manual_seed(seed)
    modules = load_mini().model.named_modules()
    layers = {n: m for n, m in modules if isinstance(m, nn.Linear) and n.startswith("blocks.")}
    halves = {f"{n}.lora_A.weight": torch.randn(2, m.in_features, generator=draw) for n, m in layers.items()}
    halves |= {f"{n}.lora_B.weight": torch.randn(m.out_features, 2, generator=draw) for n, m in layers.items()}
    save_file(halves, path)
    return path


def parsed(*words: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_setting_arguments(parser)
    add_output_arguments(parser)
    return given_settings(parser.parse_args(list(words)))


@pytest.mark.parametrize(
    ("words", "loras"),
    [
        ([], ()),
        (["--lora", "a.safetensors"], (("a.safetensors", 1.0),)),
        (["--lora", "a.safetensors", "--strength", "0.5"], (("a.safetensors", 0.5),)),
        (["--lora", "a.pt:0.8", "--lora", "b.pt"], (("a.pt", 0.8), ("b.pt", 1.0))),
        (["--lora", "a.pt:0.8", "--lora", "b.pt", "--strength", "2"], (("a.pt", 0.8), ("b.pt", 2.0))),
    ],
)
def test_the_command_line_names_loras(words: list[str], loras: tuple[tuple[str, float], ...]) -> None:
    """Each has its own strength, else that of --strength, else 1."""
    settings = RenderSettings.of(None, Path("film.mp4"), parsed(*words))
    assert settings.loras == tuple(LoraFile(Path(name), strength) for name, strength in loras)


def test_two_loras_run_beside_the_layers(tmp_path: Path) -> None:
    """Each has a note with its own layers, and a layer adds both."""
    a, b = (save_lora(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate("ab"))
    files = [LoraFile(a, 0.5), LoraFile(b)]
    model, plain = load_mini().model, load_mini().model
    notes = change_linears(model, False, read_loras("mini", files))
    assert [note.split("; ")[0] for note in notes] == [
        "lora a.safetensors, strength 0.5, beside the layers: 60 of 60 layers",
        "lora b.safetensors, strength 1, beside the layers: 60 of 60 layers",
    ]
    name, x = "blocks.2.ffn.0", torch.randn(3, 192)
    both = plain.get_submodule(name)(x)
    for lora, strength in read_loras("mini", files):
        both = both + strength * x @ lora.layers[name].change(torch.zeros(())).T
    torch.testing.assert_close(model.get_submodule(name)(x), both, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_film_of_two_loras_is_resumed_with_both(tmp_path: Path) -> None:
    """The take records files and strengths; another strength, order or number of LoRAs is another film."""
    a, b = save_lora(tmp_path / "a.safetensors", 1), save_lora(tmp_path / "b.safetensors", 2)
    script = tmp_path / "script.txt"
    script.write_text("Shot 1 (1 block): a big red ring rests in the middle\n")
    film = ["-o", str(tmp_path / "film.mp4"), "--size", "32x32", "--steps", "1"]
    assert main(["render", str(script), *film, "--lora", f"{a}:0.01", "--lora", f"{b}:0.02"]) == 0
    take = tmp_path / "film.take"
    resumed = RenderSettings.resumed(take)
    assert resumed.loras == (LoraFile(a.resolve(), 0.01), LoraFile(b.resolve(), 0.02))
    Job(resumed)
    for words in ([f"{a}:0.01"], [f"{a}:0.01", f"{b}:0.03"], [f"{b}:0.02", f"{a}:0.01"]):
        given = {"lora": words}
        with pytest.raises(ValueError, match="weights"):
            Job(RenderSettings.resumed(take, given=given))


def test_one_lora_is_recorded_as_ever(tmp_path: Path) -> None:
    """Takes of one LoRA keep their two settings, the path and the strength."""
    given = parsed("--lora", f"{tmp_path / 'a.pt'}:0.25")
    settings = RenderSettings.of(None, Path("film.mp4"), given)
    recorded = settings.recorded(SamplerSettings((2, 2)), "")
    assert (recorded["lora"], recorded["strength"]) == (str(tmp_path / "a.pt"), 0.25)
    again = RenderSettings.of(None, Path("film.mp4"), recorded)
    assert again.loras == settings.loras


def test_a_model_that_may_be_the_ordinary_wan_is_noted(tmp_path: Path) -> None:
    """A checkpoint that does not say so is rendered with a note; one that does, or Mini, without."""
    mini = load_mini().model
    state = {n: t.contiguous() for n, t in mini.state_dict().items()}
    save_file(state, tmp_path / "silent.safetensors")
    save_file(state, tmp_path / "known.safetensors", {"longlive": json.dumps({"causal": True})})
    assert "does not say whether it is LongLive" in model_notes(str(tmp_path / "silent.safetensors"))[0]
    assert model_notes(str(tmp_path / "known.safetensors")) == model_notes("mini") == ()


def test_a_folder_of_a_sharded_model_is_a_checkpoint(tmp_path: Path) -> None:
    """`--model` takes the folder, and seams are those of a checkpoint."""
    state = {n: t.contiguous() for n, t in load_mini().model.state_dict().items()}
    names = sorted(state)
    for part, own in enumerate((names[::2], names[1::2]), 1):
        save_file({n: state[n] for n in own}, tmp_path / f"m-{part:05}-of-00002.safetensors")
    loaded = load_model(str(tmp_path)).model.state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in state.items())
    assert RenderSettings(None, Path("film.mp4"), str(tmp_path)).sampled_seam == "plain"


def test_a_merged_lora_is_not_added_again(tmp_path: Path) -> None:
    """A film with a LoRA that its model has already is asked about before any work."""
    save_file({n: t.contiguous() for n, t in load_mini().model.state_dict().items()}, tmp_path / "m.safetensors")
    lora = LoraFile(save_lora(tmp_path / "a.safetensors", 1))
    convert_checkpoint(tmp_path / "m.safetensors", tmp_path / "merged.safetensors", format="bf16", loras=[lora])
    with pytest.raises(CheckpointError, match=r"has the lora a\.safetensors merged already.*leave it out"):
        read_loras(str(tmp_path / "merged.safetensors"), [lora])
    assert len(read_loras("mini", [lora])) == 1


def test_loras_in_folders_are_told_apart(tmp_path: Path) -> None:
    """Files that all have peft's name are known by their folders, given as the folder or as the file."""
    save_file({n: t.contiguous() for n, t in load_mini().model.state_dict().items()}, tmp_path / "m.safetensors")
    for seed, folder in enumerate(("ink", "oil")):
        (tmp_path / folder).mkdir()
        save_lora(tmp_path / folder / "adapter_model.safetensors", seed)
    out, ink = tmp_path / "merged.safetensors", LoraFile(tmp_path / "ink")
    convert_checkpoint(tmp_path / "m.safetensors", out, format="bf16", loras=[ink])
    for path in (ink.path, ink.path / "adapter_model.safetensors"):
        with pytest.raises(CheckpointError, match="has the lora ink merged already"):
            read_loras(str(out), [LoraFile(path)])
    assert len(read_loras(str(out), [LoraFile(tmp_path / "oil" / "adapter_model.safetensors")])) == 1


def test_a_film_knows_the_configuration_of_its_lora(tmp_path: Path) -> None:
    """The alpha beside a LoRA changes what it adds, and so the fingerprint of the film's weights."""
    path, config = save_lora(tmp_path / "adapter_model.safetensors", 1), tmp_path / "adapter_config.json"
    prints = set[str]()
    for alpha in (2, 16):
        config.write_text(json.dumps({"peft_type": "LORA", "lora_alpha": alpha}))
        prints.add(weights_fingerprint(load_mini(), read_loras("mini", [LoraFile(path)])))
    assert len(prints) == 2


@pytest.mark.linux
def test_a_pipe_for_a_lora_is_refused(tmp_path: Path) -> None:
    """It is refused before anything reads it."""
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "script.txt").write_text("Shot 1 (1 block): a ring\n")
    settings = {"lora": [str(tmp_path / "pipe.safetensors")]}
    with pytest.raises(CheckpointError, match="no regular file"):
        Job(RenderSettings.of(tmp_path / "script.txt", tmp_path / "film.mp4", settings))


def test_verify_refuses_what_is_no_recorded_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing verified is no success."""
    save_file({"x": torch.zeros(1)}, tmp_path / "style.safetensors")
    assert main(["verify", str(tmp_path / "style.safetensors")]) == 2
    assert "no recorded run" in capsys.readouterr().err


def test_convert_merges_several_and_marks_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`convert --lora A:0.5 --lora B --causal` reports each LoRA, and OUT says that it is causal."""
    save_file({n: t.contiguous() for n, t in load_mini().model.state_dict().items()}, tmp_path / "m.safetensors")
    a, b = save_lora(tmp_path / "a.safetensors", 1), save_lora(tmp_path / "b.safetensors", 2)
    words = ["convert", str(tmp_path / "m.safetensors"), str(tmp_path / "out.safetensors"), "--format", "bf16"]
    assert main([*words, "--lora", f"{a}:0.5", "--lora", str(b), "--causal"]) == 0
    assert capsys.readouterr().out.count("lora merged: 60 of 60 layers") == 2
    assert inspect_checkpoint(tmp_path / "out.safetensors").causal is True
    assert main([*words[:2], str(tmp_path / "x.safetensors"), "--lora", f"{a}:loud"]) == 2
    assert "strength 'loud' is no number" in capsys.readouterr().err
