"""Arguments of several commands: the settings of a film (render, extend) and its output (also retake)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..memory import KV_FORMATS, RECALL_POSITIONS
from ..model.fp8_gate import ATTENTION_FORMATS
from ..pipeline.decode_device import decode_device
from ..pipeline.stages import MODES
from ..render.settings import FILE_SETTINGS, MEMORY_SETTINGS, OUTPUT_SETTINGS
from ..sampling import SEAMS
from ..video import CODECS, QUALITIES
from ..video.codecs import codec_named

SAMPLING_SETTINGS = ("strength", "fp8", "attention", "seed", "steps", "size", "guidance", "negative", "seam")
SETTINGS = (*FILE_SETTINGS, *SAMPLING_SETTINGS, *MEMORY_SETTINGS, *OUTPUT_SETTINGS)


def add_setting_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the settings of a new film. An option that is not given sets no attribute of the namespace.

    A resumed film thus keeps the setting in its take.
    """
    group = parser.add_argument_group("settings of the film, stored in its take (defaults in parentheses)")

    def add(name: str, text: str, **options: Any) -> None:  # noqa: ANN401
        group.add_argument(name, default=argparse.SUPPRESS, help=text, **options)

    add("--model", "mini (the default), a folder that `train mini` made, or a checkpoint")
    lora = "a LoRA file, applied without merging it into the weights; may be given several times: the LoRAs add up"
    add("--lora", lora, action="append", metavar="FILE[:STRENGTH]")
    add("--strength", "strength of LoRAs that are given without one (1)", type=float)
    add("--fp8", "run linear layers in FP8 (W8A8), with one scale per weight row and per token", action="store_true")
    attention = (
        "usual, or fp8: self-attention in E4M3 in the layers where a probe finds little change; a CPU emulates it"
    )
    add("--attention", f"{attention} (usual)", choices=ATTENTION_FORMATS)
    add("--seed", "seed of the film (0)", type=int)
    add("--steps", "denoising steps per block, default 4; distilled models use 2, 3 or 4", type=int)
    add("--size", "height and width in pixels, multiples of 32 (the model's largest)", metavar="HxW")
    add("--window", "latent frames in the KV cache, including the sinks (32)", type=int)
    add("--sink", "latent frames at the film's start that are never evicted (8)", type=int)
    add("--no-shot-sink", "do not pin the first block of the current shot", action="store_false", dest="shot_sink")
    independent = "shots see the film's start and themselves only, no shot before them"
    add("--independent-shots", independent, action="store_true")
    add("--rope-offset", "latent frames by which every cut moves the RoPE time forward (8)", type=float)
    recall = (
        "RoPE position of blocks that @recall brings back: their own in the film, or in front of the shot (before_shot)"
    )
    add("--recall-position", recall, choices=RECALL_POSITIONS)
    add("--kv-format", f"format of the KV cache: {', '.join(KV_FORMATS)} (bf16)")
    add("--guidance", "scale of classifier-free guidance, with --negative as the negative prompt (1: off)", type=float)
    add("--negative", "the negative prompt", metavar="TEXT")
    seams = "align: fit each block to the last frame before it; plain: do not (align; plain for a checkpoint)"
    add("--seam", seams, choices=SEAMS)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the output file, the choice of a preview, the number of GPUs, and the `add_file_arguments`."""
    output = "the film's file; with a take, by default its own file beside it"
    parser.add_argument("-o", "--output", type=Path, metavar="FILM.mp4", help=output)
    preview = "make only the first block of every shot, as FILM.preview.mp4 and .png; a later render reuses them"
    parser.add_argument("--preview", action="store_true", help=preview)
    gpus = "share each block among N processes, one for each GPU: 1, 2, 4 or 8 (1); without GPUs they share the CPU"
    parser.add_argument("--gpus", type=int, metavar="N", help=gpus)
    split = "with --guidance and --gpus: one half of the GPUs has the prompt's branch, the other the negative prompt's"
    parser.add_argument("--split-guidance", action="store_true", help=f"{split} (CFG parallel)")
    add_file_arguments(parser)


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the encoding of a film's file, the choice of stills, and how it is computed."""
    codecs = "FILM.mp4: h264, h265 or av1; FILM.webm: vp9; FILM.mov: prores; FILM without extension: png pictures"
    codecs = f"{codecs}; default: by FILM's extension, else h264"
    parser.add_argument("--codec", choices=list(CODECS), default=argparse.SUPPRESS, help=codecs)
    quality = "encoding quality of the file (high)"
    parser.add_argument("--quality", choices=list(QUALITIES), default=argparse.SUPPRESS, help=quality)
    parser.add_argument("--contact-sheet", action="store_true", help="also write one still per shot (FILM.png)")
    modes = "async: decode during sampling; sequential: after each block; off: after the whole film (async)"
    parser.add_argument("--decode", choices=MODES, default="async", help=modes)
    device = (
        "GPU that decodes: its index, last, or cpu (the device that samples); one beyond those of --gpus is free for it"
    )
    parser.add_argument("--decode-gpu", metavar="INDEX", help=device)
    parser.set_defaults(leader=None, split_guidance=False)
    graphs = "start passes of steady blocks, and the decoder, as CUDA graphs where nothing is in the way (off)"
    parser.add_argument("--cuda-graphs", action="store_true", help=graphs)
    parser.add_argument("--threads", type=int, help="number of CPU threads (torch's default)")


def given_settings(args: argparse.Namespace, names: Sequence[str] = SETTINGS) -> dict[str, Any]:
    """Returns the settings that the user gave, with the codec of the file's extension unless --codec is given."""
    codec = None if args.output is None else codec_named(args.output)
    named = {} if codec is None else {"codec": codec}
    return {**named, **{name: getattr(args, name) for name in names if hasattr(args, name)}}


def unrecorded_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings that a take does not record. Raises ValueError as `decode_device`."""
    device = None if args.decode_gpu is None else decode_device(args.decode_gpu)
    return {
        "contact_sheet": args.contact_sheet,
        "decode": args.decode,
        "decode_device": device,
        "split_guidance": args.split_guidance,
        "cuda_graphs": args.cuda_graphs,
    }
