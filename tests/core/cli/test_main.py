"""The command line: one line and code 2 for whatever is wrong, before any work; 130 and a playing film on Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.cli.progress_bar import format_progress
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import WAN22_TI2V_5B, CausalWan, WanConfig
from longlive.longlive_core.render.write_film import Progress
from longlive.longlive_core.types import BlockSpec
from longlive.longlive_core.vae import VAEConfig
from longlive.longlive_core.video import read_video
from longlive.longlive_core.weights import load_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SCRIPT = "Shot 1 (1 block): the hero\nShot 2 (1.4s): the hero zooms\n"
MODEL = WanConfig(dim=48, ffn_dim=96, num_heads=2, num_layers=1, freq_dim=32, text_dim=32, text_len=16)
VAE = VAEConfig(dim=4, dec_dim=4, num_res_blocks=1, mean=(0.0,) * 48, std=(1.0,) * 48)

Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    Mini.random(0, ["the", "hero"], MODEL, VAE).save(folder)
    return folder


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "script.txt").write_text(SCRIPT)
    return tmp_path / "script.txt"


def longlive(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Outcome:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_render_makes_a_film_with_everything_beside_it(
    capsys: pytest.CaptureFixture[str], script: Path, folder: Path, tmp_path: Path
) -> None:
    """`longlive render` writes the film, its contact sheet and its take, and prints notes and progress."""
    film = tmp_path / "film.mp4"
    words = ("render", script, "-o", film, "--model", folder, "--size", "64x32", "--steps", "1")
    code, out, err = longlive(capsys, *words, "--contact-sheet")
    assert code == 0
    assert read_video(film).shape == (61, 64, 32, 3)
    assert (tmp_path / "film.png").is_file()
    assert len(list((tmp_path / "film.take").rglob("block_*.safetensors"))) == 2
    assert "note: shot 2: 1.4 s becomes 1 block, 1.33 s" in out
    assert "note: shot 2: the model does not know zooms" in out
    assert "2 shots, 2 blocks, 2.5 s at 24 fps" in out
    assert re.search(r"film\.mp4: 2\.5 s, made at \d+ frames per second", out)
    assert "shot 1/2  block 1/2" in err


def test_the_same_seed_makes_the_same_file(
    capsys: pytest.CaptureFixture[str], script: Path, folder: Path, tmp_path: Path
) -> None:
    """The same seed makes the same file byte for byte, and another seed makes another film."""
    common = ("render", script, "--model", folder, "--size", "32x32", "--steps", "1", "-o")
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert longlive(capsys, *common, tmp_path / f"{name}.mp4", "--seed", str(seed))[0] == 0
    a, b, c = ((tmp_path / f"{name}.mp4").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "100x128"], r"size 100x128.*multiples of 32 up to 128; try 96x128"),
        (["--size", "256x128"], r"size 256x128.*up to 128; try 128x128"),
        (["--size", "0x32"], r"size 0x32.*try 32x32"),
        (["--size", "big"], r"size 'big' is not HEIGHTxWIDTH.*128x128"),
        (["--window", "16"], r"window 16 is too short for a sink of 8.*24 or more"),
        (["--window", "30"], r"window 30 is not a multiple of the block, 8.*try 32"),
        (["--sink", "4"], r"sink 4 is not a multiple of the block"),
        (["--window", "-8"], r"window -8"),
        (["--steps", "0"], r"steps 0 is outside 1"),
        (["--steps", "1001"], r"steps 1001 is outside"),
        (["--seed", "-1"], r"seed -1 is outside 0"),
        (["--seed", str(2**64)], r"seed 18446744073709551616 is outside"),
        (["--kv-format", "int3"], r"kv_format 'int3'.*choose one of"),
        (["--threads", "0"], r"--threads 0 must be at least 1"),
        (["--model", "nowhere.safetensors"], r"nowhere\.safetensors does not exist"),
        (["--resume", "nowhere"], r"nowhere is not a take"),
        (["--resume", "nowhere", "--no-take"], r"leave one of them out"),
        (["-o", "nowhere/film.mp4"], r"folder nowhere does not exist"),
        (["-o", "film.webm", "--codec", "h264"], r"a film in h264 is an mp4; name it film\.mp4"),
        (["-o", "/dev/null/film.mp4"], r"/dev/null does not exist|Not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_settings_are_one_line_before_any_work(
    capsys: pytest.CaptureFixture[str], script: Path, folder: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    """A setting that cannot run ends `longlive render` with code 2 and one line, and no film is written."""
    film = tmp_path / "film.mp4"
    code, out, err = longlive(capsys, "render", script, "-o", film, "--model", folder, *words)
    assert code == 2
    assert re.fullmatch(rf"longlive: .*({message}).*\n", err), err
    assert out == ""
    assert not film.exists()


@pytest.mark.parametrize("text", ["", "# nothing\n", "Shot 1 (0s): the hero\n"])
def test_a_bad_script_is_one_line_with_its_place(
    capsys: pytest.CaptureFixture[str], script: Path, folder: Path, tmp_path: Path, text: str
) -> None:
    """A script error ends `longlive render` with code 2 and one line that gives line and column."""
    script.write_text(text)
    code, _, err = longlive(capsys, "render", script, "-o", tmp_path / "film.mp4", "--model", folder)
    assert code == 2
    assert re.fullmatch(r"longlive: line \d+, column \d+: .+\n", err), err


def test_a_full_size_checkpoint_is_sent_to_comfyui(
    capsys: pytest.CaptureFixture[str], script: Path, tmp_path: Path
) -> None:
    """A header with the tensors of LongLive 5B: the width of its text is known before anything is loaded."""
    with torch.device("meta"):
        shapes = {name: list(value.shape) for name, value in CausalWan(WAN22_TI2V_5B).state_dict().items()}
    header = json.dumps({n: {"dtype": "BF16", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}).encode()
    (tmp_path / "5b.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    code, _, err = longlive(capsys, "render", script, "-o", tmp_path / "f.mp4", "--model", tmp_path / "5b.safetensors")
    assert code == 2
    assert re.search(r"text of width 4096 .*ComfyUI", err), err


def test_a_transformer_alone_loads_as_a_checkpoint(folder: Path) -> None:
    """The transformer file of a model folder loads as a checkpoint of its own, with its config."""
    assert load_checkpoint(folder / "transformer.safetensors", dtype=torch.float32).config == MODEL


def test_traceback_shows_where_an_error_came_from(script: Path, folder: Path) -> None:
    """With `--traceback` the command line raises the error itself instead of printing one line."""
    with pytest.raises(ValueError, match=r"a film in .* is an mp4"):
        main(["--traceback", "render", str(script), "-o", "film.avi", "--model", str(folder)])


def cpu_seconds(process: int) -> float:
    """What a running process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_cpu_seconds() -> float:
    """What this process's finished children have used."""
    import resource  # Windows has none.

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.linux
@pytest.mark.slow
@pytest.mark.parametrize("take", [False, True])
def test_ctrl_c_ends_within_a_second_with_a_playing_film(
    script: Path, folder: Path, tmp_path: Path, root: Path, take: bool
) -> None:
    """The printed command that resumes the film, run as it is, makes the rest."""
    total = 29 + 7 * 32
    script.write_text("Shot 1 (8 blocks): the hero\n")
    (tmp_path / "import").mkdir()
    (tmp_path / "import" / "longlive").symlink_to(root)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "import"), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "longlive.longlive_core.cli"]
    words = ["render", script, "-o", "film.mp4", "--model", folder, "--size", "32x32", "--steps", "1"]
    before = children_cpu_seconds()
    with subprocess.Popen(
        [*program, *words, *([] if take else ["--no-take"])],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (tmp_path / "film.mp4").exists() or (tmp_path / "film.mp4").stat().st_size < 4_000:
            assert process.poll() is None
            time.sleep(0.02)
        spent = cpu_seconds(process.pid)
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        out, err = process.communicate(timeout=30)
        took = time.monotonic() - asked
    spent = children_cpu_seconds() - before - spent
    assert process.returncode == 130, err
    assert "Traceback" not in err
    # A second of its own; a machine that is busy with other things may stretch it.
    assert spent < 1.0
    assert took < 10.0
    frames = len(read_video(tmp_path / "film.mp4"))
    assert 0 < frames < total
    assert f"film.mp4 plays: {frames} of {total} frames" in out
    command = re.search(r"^  longlive (.*)$", out, re.MULTILINE)
    if not take:
        assert command is None and "without --no-take can be resumed" in out
        assert not (tmp_path / "film.take").exists()
        return
    assert command is not None
    assert command[1] == "render --resume film.take"
    subprocess.run([*program, *command[1].split()], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert len(read_video(tmp_path / "film.mp4")) == total


def test_verify_judges_every_file_and_fails_beyond_tolerance(
    capsys: pytest.CaptureFixture[str], golden: Callable[[str], Path], tmp_path: Path
) -> None:
    """`longlive verify` reports every run; one that is beyond its tolerance or missing fails, with code 1."""
    good = golden("generate_steps2")
    code, out, _ = longlive(capsys, "verify", good, golden("weights_tiny"))
    assert code == 0
    assert re.search(r"generate_steps2\.safetensors +\d\.\de-0[678] +\d\.\de-0[678] +agree +ok", out), out
    assert re.search(r"weights_tiny\.safetensors.*skipped: .+", out)
    assert "1 ok, 0 failed, 1 skipped" in out

    tensors, metadata = load_file(good), _metadata(good)
    tensors["output"] = tensors["output"] + 1e-3
    save_file(tensors, tmp_path / good.name, metadata)
    shutil.copy(golden("weights_tiny"), tmp_path)
    code, out, _ = longlive(capsys, "verify", tmp_path / good.name, tmp_path / "nothing.safetensors")
    assert code == 1
    assert "2 failed" in out


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_the_progress_line_tells_shot_block_pace_and_time_left() -> None:
    """The progress line shows shot, block, share done, frames per second and the time left."""
    block = BlockSpec(6, 1, "", False, None, 48, 8)
    line = format_progress(Progress(block, blocks=15, shots=4, video_frames=240, total=480, seconds=3.0))
    assert line.split() == [
        "shot",
        "2/4",
        "block",
        "7/15",
        f"[{'#' * 12}{'.' * 12}]",
        "50%",
        "80",
        "fps",
        "0:03",
        "left",
    ]
    start = Progress(block, blocks=15, shots=4, video_frames=10, total=720_010, seconds=1.0)
    assert format_progress(start).endswith("20:00:00 left")


@pytest.mark.parametrize("words", [["--help"], ["render", "--help"], ["verify", "--help"], ["train", "--help"]])
def test_help_is_there(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """`--help` of the program and of a command prints its usage and exits with code 0."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: longlive", *words[:-1]]))


def test_versions_of_a_retake_name_their_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`retake --versions` of earlier versions is refused with the command that does it now."""
    assert main(["retake", "my film.take", "--shot", "2", "--versions", "4"]) == 2
    assert "longlive cover 'my film.take' --shot 2 --takes 4" in capsys.readouterr().err
