"""`longlive train lora`: trains a LoRA on videos of one's own, with arguments or the settings of a TOML file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import STOPPED, stop_signals
from .plan import parse_size
from .ranks import check_own_processes, led_ranks
from .train_run import CORE_LORA_FILE, LORA_FILE, find_device, run_stage, write_loras

if TYPE_CHECKING:
    import torch

    from ..mini import Mini
    from ..parallel import Ranks
    from ..training.clip_cache import EncodedClip
    from ..training.clip_ranks import LedEncoder, RankEncoder
    from ..training.clip_scan import Scan
    from ..training.settings import LoraRun

# Arguments that replace a setting of the file, and the table of the setting.
OWN = ("base", "lora", "rank", "size", "blocks", "clips", "prior", "prior_weight", "cache")
TABLES = dict.fromkeys(OWN, "") | {
    "steps": "trainer",
    "seed": "trainer",
    "lr": "optimiser",
    "offload": "optimiser",
    "checkpointing": "ar",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command. A setting that is not given sets no attribute of the namespace."""
    data = (
        "a folder of videos with captions of the same names (.txt), a JSONL file of video_path and caption, or a video "
        "with its caption; a caption may be a shot script. Or all settings: `train init lora` prints them"
    )
    parser.add_argument("data", type=Path, metavar="DATA|CONFIG.toml", help=data)

    def add(name: str, text: str, **options: Any) -> None:  # noqa: ANN401
        parser.add_argument(name, default=argparse.SUPPRESS, help=text, **options)

    add("--base", "mini (the default), a folder that `train mini` made, or a causal checkpoint of its width")
    add("--rank", "rank of the LoRA (32)", type=int)
    add("--steps", "number of steps (1000)", type=int)
    add("--lr", "learning rate at the beginning (1e-4)", type=float)
    add("--size", "pixels, multiples of 32; clips of another shape get about this area (the model's)", metavar="HxW")
    add("--blocks", "longest training clip in blocks of 32 frames (4)", type=int)
    add("--clips", "clips in each part of a batch (1)", type=int)
    prior = (
        "more videos, as for DATA, that every second step learns from: the LoRA leaves what the base makes of their "
        "prompts as it is. Films that the base has made serve best"
    )
    add("--prior", prior, type=Path, metavar="DATA")
    add("--prior-weight", "weight of their loss (1)", type=float, metavar="WEIGHT")
    add("--seed", "seed of the run (0)", type=int)
    add("--checkpointing", "compute activations again in the backward pass: less memory, slower", action="store_true")
    add("--offload", "keep AdamW's moments in host memory: less of the card, slower", action="store_true")
    add("--lora", "a LoRA file to train further", type=Path, metavar="FILE")
    add("--cache", "folder of encoded clips (DIR/cache)", type=Path, metavar="DIR")
    gpus = "encode the clips by N processes, one for each GPU: 1, 2, 4 or 8 (1); training has one"
    parser.add_argument("--encode-gpus", type=int, default=1, metavar="N", help=gpus)
    out = (
        f"folder of log, loss curves, checkpoints and the LoRA ({LORA_FILE}, and {CORE_LORA_FILE} for core's loader); "
        "a run that is in it already is resumed"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help=out)
    parser.add_argument("--device", default="cpu", help="device to train on, such as cuda (cpu)")


def run(args: argparse.Namespace) -> int:
    """Trains; returns the exit code. The first Ctrl-C keeps the clips that are encoded, or saves a checkpoint.

    Raises ValueError for settings, data, models and a memory that do not fit, before work starts.
    """
    from ..training.clip_files import read_clip_files
    from ..training.clip_scan import scan_videos
    from ..training.lora_memory import check_memory
    from ..training.lora_run import check_peft
    from ..video.clip import ClipStopped

    device, settings = find_device(args.device), read_run(args)
    check_own_processes(args.encode_gpus, "--encode-gpus")
    check_peft()
    sets = [read_clip_files(data) for data in (settings.data, settings.prior) if data is not None]
    mini = _load_base(settings)
    _check_start(settings, mini)
    try:
        with stop_signals() as should_stop:
            height, width = settings.size or (mini.pixel_size, mini.pixel_size)
            scans = [scan_videos(files, height * width, settings.blocks, should_stop) for files in sets]
            for note in chain.from_iterable(scan.notes for scan in scans):
                print(f"note: {note}", flush=True)
            check_memory(settings, scans, mini.model, device)
            with _encoder(args, settings, scans, mini) as led:
                clips, *prior = (_encode(settings, scan, mini, args.out, should_stop, led) for scan in scans)
    except ClipStopped:
        print("stopped; the same command goes on, and encodes no clip again")
        return STOPPED
    return _train(settings, clips, prior[0] if prior else (), mini, args.out, device)


def read_run(args: argparse.Namespace) -> LoraRun:
    """Returns the settings: those of a TOML file, or the defaults for DATA, with the arguments in their place.

    Raises ValueError for a value out of range, and as `read_settings`.
    """
    from ..training.settings import LoraRun
    from ..training.toml_settings import read_settings

    settings = read_settings(LoraRun, args.data) if args.data.suffix == ".toml" else LoraRun(data=args.data)
    given = {name: getattr(args, name) for name in TABLES if hasattr(args, name)}
    if "size" in given:
        given["size"] = parse_size(given["size"])
    for name, value in given.items():
        table = TABLES[name]
        changed = {table: replace(getattr(settings, table), **{name: value})} if table else {name: value}
        settings = replace(settings, **changed)
    return settings


def _load_base(settings: LoraRun) -> Mini:
    from ..render.load_model import load_model, model_notes

    mini = load_model(settings.base)
    for note in model_notes(settings.base):
        print(f"note: {note}")
    return mini


def _check_start(settings: LoraRun, mini: Mini) -> None:
    """Raises CheckpointError if the LoRA to train further does not fit the run; no clip is encoded before."""
    from ..model import CausalWan
    from ..training.lora import add_adapter, load_adapter

    if settings.lora is not None:
        empty = CausalWan(mini.model.config, device="meta")
        add_adapter(empty, "lora", settings.settings)
        load_adapter(empty, "lora", settings.lora)


@contextmanager
def _encoder(
    args: argparse.Namespace, settings: LoraRun, scans: Sequence[Scan], mini: Mini
) -> Generator[LedEncoder | None, None, None]:
    """What encodes clips by `--encode-gpus` processes; None for one, or if no clip is left to encode."""
    from ..training.clip_cache import all_encoded
    from ..training.clip_ranks import LedEncoder
    from ..training.films import encoder_digest

    folder, digest = settings.cache or args.out / "cache", encoder_digest(mini.vae)
    if args.encode_gpus == 1 or all(all_encoded(scan, digest, folder) for scan in scans):
        yield None
        return
    kind = args.device.partition(":")[0]
    with led_ranks(args.encode_gpus, None, "clips that are encoded stay, and the same command goes on") as leader:
        own = mini.vae.to(leader.ranks.device if kind == "cuda" else "cpu")
        yield LedEncoder(leader, own, load_encoder, settings.base, kind)


def load_encoder(ranks: Ranks, base: str, kind: str) -> RankEncoder:
    """The VAE of a base on another rank. kind: cuda for its GPU, or cpu."""
    from ..render.load_model import load_model
    from ..training.clip_ranks import RankEncoder

    return RankEncoder(load_model(base).vae.to(ranks.device if kind == "cuda" else "cpu"))


def _encode(
    settings: LoraRun,
    scan: Scan,
    mini: Mini,
    out: Path,
    should_stop: Callable[[], bool],
    led: LedEncoder | None,
) -> tuple[EncodedClip, ...]:
    from ..training.clip_cache import encode_videos
    from ..training.films import encoder_digest

    prompts = {block.prompt for video in scan.videos for layout in video.clips for block in layout}
    if unknown := sorted({word for prompt in prompts for word in mini.unknown_words(prompt)}):
        print(f"note: to the text encoder of LongLive Mini these words are all the same: {', '.join(unknown)}")
    folder, channels = settings.cache or out / "cache", mini.model.config.channels
    log = partial(print, flush=True)
    return encode_videos(scan, mini.vae, encoder_digest(mini.vae), channels, folder, log, should_stop, led)


def _train(
    settings: LoraRun,
    clips: tuple[EncodedClip, ...],
    prior: tuple[EncodedClip, ...],
    mini: Mini,
    out: Path,
    device: torch.device,
) -> int:
    from ..render.load_model import weights_fingerprint
    from ..training.lora_run import lora_stage
    from ..training.stage import Origin

    base = Origin(Path(settings.base).name, weights_fingerprint(mini, ()))
    stage = lora_stage(settings, clips, prior, mini.model, mini.encode_text, base, device)
    write = partial(write_loras, stage, stage.trained[0].name, out, base.name, settings.data.name)
    return run_stage(stage, settings.trainer, out, device, write)
