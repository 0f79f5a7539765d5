"""What a LoRA of `tests/core/training/taught_world.py` has taught: a ninth colour, lime, and a fifth shape, a cross.

    python tests/core/training/taught_world.py output/taught 20 64
    longlive train lora output/taught --prior output/taught_known --prior-weight 4 --steps 1100 --lr 1.5e-3 --clips 2 \\
        --out output/taught_lora
    python tests/benchmarks/bench_taught.py --lora output/taught_lora/lora.safetensors --out output/taught_films

Each film has two shots of a block; the second does not name the hero. A look is the middle of a shot. A row is a kind
of hero: colour and shape are the shares of looks at which they are right, of shot 1 and of shot 2. Shots are held out:
their random numbers are others than those of the clips. `looks.png` has a column for each look: shot 1 and shot 2.

The embedded VAE draws lime as (167, 212, 73), its mean over three of its clips; a colour is right where the nearest of
the nine is the one that was asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from longlive.longlive_core.evaluation import probe
from longlive.longlive_core.evaluation.components import largest_component
from longlive.longlive_core.evaluation.formats import Format, quantize_weights
from longlive.longlive_core.mini import LATENT_SIZE, Mini
from longlive.longlive_core.render.load_model import change_linears, load_model, read_loras
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.training import world
from longlive.longlive_core.training.captions import shot_phrase
from longlive.longlive_core.vae import DecodeStream
from longlive.longlive_core.weights import LoraFile
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core" / "training"))
import taught_world as taught

DRAWN = {**world.COLOURS, taught.LIME: (167, 212, 73)}
LOOK = 14  # video frame in the middle of a block's shot
KINDS = ((taught.LIME, taught.CROSS), (taught.LIME, None), (None, taught.CROSS), (None, None))


def read_look(frame: NDArray[np.uint8]) -> tuple[str | None, str | None]:
    """Colour and shape of the hero in a frame; None if there is none."""
    pixels = frame.astype(np.float32)
    _, background = probe._background(pixels)
    offset = pixels - background
    mask = largest_component(probe._distance(offset, offset.mean(axis=-1)) > probe.HERO_DISTANCE)
    if (area := float(mask.sum())) < 100:
        return None, None
    colour = probe._colour(pixels, mask)
    share = (offset @ (colour - background)) / np.square(colour - background).sum()
    mask = largest_component(share > 0.5)
    area = float(mask.sum())
    signature = probe._signature(mask.astype(np.float32), probe._centre(mask), area)
    overlaps = probe._overlaps(signature, _references())
    table = np.array(list(DRAWN.values()), dtype=np.float32)
    return probe._nearest(colour, table, tuple(DRAWN)), taught.SHAPES[int(overlaps.argmax())]


def _references() -> NDArray[np.bool_]:
    middle = np.full((1, 2), world.SIZE / 2, dtype=np.float32)
    masks = [taught.mask(shape, "big", middle)[0] for shape in taught.SHAPES]
    return np.stack([probe._signature(mask, (64.0, 64.0), float(mask.sum())) for mask in masks])


def film(mini: Mini, colour: str, shape: str, index: int, steps: int) -> list[NDArray[np.uint8]]:
    """The looks at a film of two shots of a hero."""
    rng = np.random.default_rng((77, 902, index))
    size = list(world.SIZES)[rng.integers(2)]
    first, second = (shot_phrase(world.sample_shot(rng, 29), rng) for _ in range(2))
    script = ShotScript.parse(f"Shot 1 (1 block): a {size} {colour} {shape} {first}\nShot 2 (1 block): it {second}")
    stream = DecodeStream(mini.vae)
    for block in generate(mini.model, script.plan(), mini.encode_text, size=LATENT_SIZE, steps=steps, seed=index):
        stream.feed(block.latents)
    frames = torch.cat(stream.flush()).numpy()
    return [frames[LOOK], frames[29 + LOOK + 3]]


def main() -> None:
    """Makes the films, prints the table and writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--lora", action="append", default=[])
    parser.add_argument("--nvfp4", action="store_true", help="weights in NVFP4, the LoRAs beside them")
    parser.add_argument("--steps", type=int, default=4, help="sampling steps")
    parser.add_argument("--films", type=int, default=8, help="films of each kind")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    mini = quantize_weights(load_model(args.model), Format("weights", weights="nvfp4" if args.nvfp4 else "bf16"))
    change_linears(mini.model, False, read_loras(args.model, [LoraFile.parse(text, None) for text in args.lora]))
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[NDArray[np.uint8]] = []
    print("| hero | colour, shot 1 | shape, shot 1 | colour, shot 2 | shape, shot 2 |\n|---|---|---|---|---|")
    for colour, shape in KINDS:
        right, looks = defaultdict[tuple[int, str], int](int), list[NDArray[np.uint8]]()
        for index in range(args.films):
            asked = colour or list(world.COLOURS)[index % 8], shape or world.SHAPES[index % 4]
            for shot, frame in enumerate(film(mini, *asked, index, args.steps)):
                looks.append(frame)
                for what, value, wanted in zip(("colour", "shape"), read_look(frame), asked, strict=True):
                    right[shot, what] += value == wanted
        shares = [f"{100 * right[shot, what] / args.films:.0f} %" for shot in (0, 1) for what in ("colour", "shape")]
        print(f"| {colour or 'a known colour'}, {shape or 'a known shape'} | {' | '.join(shares)} |", flush=True)
        rows.append(np.concatenate(looks, axis=1))
    Image.fromarray(np.concatenate(rows)).save(args.out / "looks.png")


if __name__ == "__main__":
    main()
