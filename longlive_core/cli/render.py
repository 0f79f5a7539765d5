"""`longlive render`: its arguments, and how to resume a film that was stopped."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..memory import KV_FORMATS
from ..pipeline.stages import MODES
from ..render.settings import FILE_SETTINGS, MEMORY_SETTINGS, OUTPUT_SETTINGS, RenderSettings
from ..script import ShotScript
from ..take import Take
from ..video import CODECS, QUALITIES
from ..video.codecs import codec_named

if TYPE_CHECKING:
    from ..render.job import Job

SAMPLING_SETTINGS = ("strength", "fp8", "seed", "steps", "size", "guidance", "negative")
SETTINGS = (*FILE_SETTINGS, *SAMPLING_SETTINGS, *MEMORY_SETTINGS, *OUTPUT_SETTINGS)


def add_arguments(part: argparse.ArgumentParser) -> None:
    """Everything that `render_settings` reads. Settings that are not given are absent: a take brings its own."""
    part.add_argument("script", type=Path, nargs="?", help="a ShotScript file; not needed with --resume")
    add_output_arguments(part)
    part.add_argument("--resume", type=Path, metavar="TAKE", help="go on with a film: the FILM.take of its render")
    part.add_argument("--no-take", action="store_true", help="keep no blocks in FILM.take: nothing to resume or retake")
    part.add_argument("--no-snapshots", action="store_true", help="keep no memory in it: a retake remembers anew first")
    add_setting_arguments(part)


def add_setting_arguments(part: argparse.ArgumentParser) -> None:
    """What a new film is made with."""
    setting = part.add_argument_group("settings, which a take keeps")

    def add(name: str, text: str, **options: Any) -> None:  # noqa: ANN401
        setting.add_argument(name, default=argparse.SUPPRESS, help=text, **options)

    add("--model", "mini (the default), a folder that `train mini` made, or a checkpoint")
    add("--lora", "a LoRA, run beside the layers", type=Path, metavar="FILE")
    add("--strength", "of the LoRA (1)", type=float)
    add("--fp8", "weights and activations of linear layers in FP8, row by row", action="store_true")
    add("--seed", "of the film (0)", type=int)
    add("--steps", "model calls a block; distilled models use 2, 3 or 4 (4)", type=int)
    add("--size", "pixels, multiples of 32 (the model's own)", metavar="HxW")
    add("--window", "latent frames of memory, sinks included (32)", type=int)
    add("--sink", "latent frames at the start that are never forgotten (8)", type=int)
    add("--no-shot-sink", "do not keep the first block of the current shot", action="store_false", dest="shot_sink")
    add("--rope-offset", "latent frames of time that a cut adds (8)", type=float)
    add("--kv-format", f"how memory is kept: {', '.join(KV_FORMATS)} (bf16)")
    add("--guidance", "1 is off; above, --negative is steered away from (1)", type=float)
    add("--negative", "what the film should not be like", metavar="TEXT")


def add_output_arguments(part: argparse.ArgumentParser) -> None:
    """What a render and a retake share."""
    part.add_argument("-o", "--output", type=Path, metavar="FILM.mp4", help="the film (of a take: beside it)")
    kinds = "h264, h265, av1 (FILM.mp4), vp9 (FILM.webm), prores (FILM.mov), png (a folder FILM of pictures)"
    kinds = f"{kinds} (by FILM's name, else h264)"
    part.add_argument("--codec", choices=list(CODECS), default=argparse.SUPPRESS, help=kinds)
    part.add_argument("--quality", choices=list(QUALITIES), default=argparse.SUPPRESS, help="of the film's file (high)")
    part.add_argument(
        "--preview",
        action="store_true",
        help="only a storyboard, the first block of every shot (FILM.preview.mp4, .png); the film can begin with these",
    )
    part.add_argument("--contact-sheet", action="store_true", help="also a picture with one still per shot (FILM.png)")
    part.add_argument(
        "--decode",
        choices=MODES,
        default="async",
        help="async: while sampling goes on; sequential: in turn with it; off: when all is sampled (async)",
    )
    part.add_argument("--threads", type=int, help="CPU threads (as many as torch likes)")


def given_settings(args: argparse.Namespace, names: Sequence[str] = SETTINGS) -> dict[str, Any]:
    """Those of the settings that the user names; the film's name may say the codec."""
    codec = None if args.output is None else codec_named(args.output)
    named = {} if codec is None else {"codec": codec}
    return {**named, **{name: getattr(args, name) for name in names if hasattr(args, name)}}


def render_settings(args: argparse.Namespace) -> RenderSettings:
    """The settings in the arguments. Raises ValueError, also for settings or a script other than the resumed take's."""
    given = given_settings(args)
    if args.resume is not None:
        if args.no_take:
            raise ValueError("--resume goes on with a take, --no-take keeps none; leave one of them out")
        if args.script is not None:
            _check_script(Take.load(args.resume), ShotScript.read(args.script))
        return RenderSettings.resumed(
            args.resume, args.output, given, contact_sheet=args.contact_sheet, decode=args.decode
        )
    if args.script is None:
        raise ValueError("a film needs a SCRIPT, or --resume with the take of one that was begun")
    if args.output is None:
        raise ValueError("name the film: -o FILM.mp4")
    return RenderSettings.of(
        args.script,
        args.output,
        given,
        contact_sheet=args.contact_sheet,
        decode=args.decode,
        take=not args.no_take,
        snapshots=not args.no_snapshots,
    )


def how_to_resume(args: argparse.Namespace, job: Job) -> str:
    """What to type to get the rest of a film that was stopped."""
    if job.take is None:
        return "stopped; a render without --no-take can be resumed"
    return f"stopped; this makes the rest:\n  {_resume(args, job, job.take, preview=args.preview)}"


def how_to_go_on(args: argparse.Namespace, job: Job) -> str:
    """What to type once a preview is made: to get the film, or another beginning of a shot."""
    if job.take is None:
        return ""
    retake = shlex.join(["longlive", "retake", str(job.take.folder)])
    return (
        f"{job.sheet_path} shows it; this makes the film whose shots begin so:\n"
        f"  {_resume(args, job, job.take, preview=False)}\n"
        f"and this another beginning of shot N:\n  {retake} --shot N --preview"
    )


def _resume(args: argparse.Namespace, job: Job, take: Take, *, preview: bool) -> str:
    command = ["longlive", "render", "--resume", str(take.folder)]
    if preview:
        command.append("--preview")
    if job.settings.output != take.film:
        command += ["-o", str(job.settings.output)]
    for name in OUTPUT_SETTINGS:
        if getattr(job.settings, name) != take.output.get(name):
            command += [f"--{name}", getattr(job.settings, name)]
    if args.contact_sheet:
        command.append("--contact-sheet")
    if args.decode != "async":
        command += ["--decode", args.decode]
    if args.threads is not None:
        command += ["--threads", str(args.threads)]
    return shlex.join(command)


def _check_script(take: Take, script: ShotScript) -> None:
    if script == take.script:
        return
    lines = zip(take.script.format().splitlines(), script.format().splitlines(), strict=False)
    was, now = next(((was, now) for was, now in lines if was != now), ("", "another number of shots"))
    raise ValueError(
        f"{take.folder} is a film of another script: it has '{was}', this one '{now}'; leave the script out to go on "
        "with it, `longlive retake` changes a shot"
    )
