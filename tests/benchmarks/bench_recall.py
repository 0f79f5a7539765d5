"""Recalled blocks on LongLive Mini: a hero who was away, two heroes in turn, a place, and what a recalled block costs.

    python tests/benchmarks/bench_recall.py --films 16 --out output/recall

Shot 1 shows one hero and is the global sink, shot 2 introduces another one and keeps its block, and shot 3 does not
describe him: it is the shot after his first. All further shots describe a third hero. After 1, 5, 10 and 30 of them
comes a shot that describes no hero: it recalls the kept block at its original position or at that before the shot, or
recalls nothing. Every shot has one block, and the compared shots have the same noise. A figure is the share of films
whose shot shows the colour, or the shape, of the kept hero, with its 95 % interval over films; chance is 1 of 8 colours
and 1 of 4 shapes.

With `--alone` the window holds two blocks and no sinks, so that a recalled block is the only one beside the new one.

Of two heroes in turn, the kept hero and the third one are recalled four times by turns; `confused` shows the other's.
For the place, after five shots, the last shot describes its hero and no wall; chance is 1 of 6 colours and of 3
patterns.

`--cost` makes films of 200 blocks in shots of four that recall 0 to 4 blocks, two sets of them by turns, 64x64 pixels,
a window of 8 blocks: median CPU seconds of a block, early and late, and of the first block of a shot, bytes of K/V,
and the growth of the process from block 50 to 199. `recall_0.png` has a row for each film: the kept shot, then, for
each gap, both positions and none. `recall_plot.png` has the default position beside none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from longlive.longlive_core.evaluation.bootstrap import estimate
from longlive.longlive_core.evaluation.measures import look_at
from longlive.longlive_core.evaluation.plots import PER_CENT, bars
from longlive.longlive_core.evaluation.windows import Frames, Window, decode_windows
from longlive.longlive_core.memory import DEFAULT_MEMORY, MemoryConfig
from longlive.longlive_core.memory.config import RECALL_POSITIONS
from longlive.longlive_core.mini import LATENT_SIZE, Mini
from longlive.longlive_core.render.load_model import load_model
from longlive.longlive_core.sampling import Generation, Snapshot, generate
from longlive.longlive_core.script import BlockPlan
from longlive.longlive_core.training import captions, world
from longlive.longlive_core.types import BLOCK_FRAMES, Block, BlockSpec, LatentShape
from longlive.longlive_core.video.canvas import Axes, Canvas
from PIL import Image
from process_memory import memory_mb

GAPS = (1, 5, 10, 30)
KEPT, AFTER, AWAY = 1, 2, 3
ARMS = ("original", "before the shot", "not recalled")
ALONE = MemoryConfig(window=2 * BLOCK_FRAMES, sink=0)
TURNS_AFTER, PLACE_GAP = 10, 5
CUT = "The scene transitions. "
COST_BLOCKS, COST_SHOT, COST_SIZE = 200, 4, (4, 4)


@dataclass(frozen=True)
class Script:
    """The heroes and shots of a film, and its prompts; the film may end after any shot."""

    heroes: tuple[world.Hero, world.Hero, world.Hero]
    shots: tuple[world.WorldShot, ...]
    prompts: tuple[str, ...]
    unnamed: tuple[str, ...]
    wall_less: tuple[str, ...]
    seed: int

    @classmethod
    def make(cls, index: int) -> Script:
        """Script `index`: three heroes that differ in colour and shape, and walls that differ from shot to shot."""
        rng = np.random.default_rng((7_220_260_117, 18, index))
        colours, shapes = rng.permutation(list(world.COLOURS))[:3], rng.permutation(world.SHAPES)[:3]
        sizes = rng.choice(list(world.SIZES), 3)
        heroes = tuple(world.Hero(*looks) for looks in zip(shapes, colours, sizes, strict=True))
        shots: list[world.WorldShot] = []
        for number in range(AWAY + GAPS[-1] + 4):
            shot = world.sample_shot(rng, 32 if number else 29)
            while shots and shot.background == shots[-1].background:
                shot = world.sample_shot(rng, 32)
            shots.append(shot)
        named = [heroes[0], heroes[1], None, *[heroes[2]] * (len(shots) - AWAY)]
        prompts = [captions.caption(hero, shot, rng) for hero, shot in zip(named, shots, strict=True)]
        unnamed = [captions.caption(None, shot, rng) for shot in shots]
        wall_less = [captions.caption(heroes[2], shot, rng, walled=False) for shot in shots]
        return cls(heroes, tuple(shots), tuple(prompts), tuple(unnamed), tuple(wall_less), 900_000 + index)  # type: ignore[arg-type]

    def plan(self, ends: dict[int, tuple[str, tuple[int, ...]]], blocks: int) -> BlockPlan:
        """The first blocks of the film. ends: other prompts of some shots, and what they recall."""
        specs: list[BlockSpec] = []
        for shot in range(blocks):
            prompt, recalled = ends.get(shot, (self.prompts[shot], ()))
            text = CUT + prompt if shot else prompt
            specs.append(BlockSpec(shot, shot, text, shot > 0, None, shot * BLOCK_FRAMES, BLOCK_FRAMES, recalled))
        return BlockPlan(tuple(specs), 24.0, BLOCK_FRAMES)


class Bench:
    """Films of scripts, of which only the last shots differ: the rest of each is sampled once."""

    def __init__(self, mini: Mini, memory: MemoryConfig) -> None:
        original, before = (replace(memory, recall_position=position) for position in RECALL_POSITIONS)
        self.mini, self.arms = mini, dict(zip(ARMS, (original, before, memory), strict=True))
        self.right: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.rows: list[Frames] = []

    def run(self, index: int) -> None:
        """Makes the films of a script and looks at them."""
        script, done, states = Script.make(index), list[Block](), dict[int, Snapshot]()
        whole = self._start(script.plan({}, AWAY + GAPS[-1]), script, self.arms[ARMS[-1]])
        for number in range(AWAY + GAPS[-1] + 1):
            if number - AWAY in GAPS:
                states[number] = whole.snapshot()
            if number < AWAY + GAPS[-1]:
                done.append(next(whole))
        self._look(script, script.heroes[1], done[KEPT], "its first shot")
        self._look(script, script.heroes[1], done[AFTER], "the shot after its first")
        strip = [self._frames(done[KEPT])]
        for gap in GAPS:
            at = AWAY + gap
            for arm, memory in self.arms.items():
                ends = {at: (script.unnamed[at], (KEPT,) if arm != ARMS[-1] else ())}
                (block,) = self._end(script, states[at], done, ends, memory)
                self._look(script, script.heroes[1], block, f"{arm}, {gap} away")
                strip.append(self._frames(block))
                if gap == PLACE_GAP:
                    ends = {at: (script.wall_less[at], (KEPT,) if arm != ARMS[-1] else ())}
                    (block,) = self._end(script, states[at], done, ends, memory)
                    self._look(script, script.heroes[2], block, f"{arm}, {gap} away", place=script.shots[KEPT])
        self.rows.append(np.concatenate([frames[8] for frames in strip], axis=1))
        self._turns(script, states[AWAY + TURNS_AFTER], done)

    def _turns(self, script: Script, state: Snapshot, done: list[Block]) -> None:
        """Recalls the kept hero and the third hero by turns."""
        at, turns = AWAY + TURNS_AFTER, (KEPT, AWAY, KEPT, AWAY)
        for arm, memory in self.arms.items():
            ends = {
                at + i: (script.unnamed[at + i], (kept,) if arm != ARMS[-1] else ()) for i, kept in enumerate(turns)
            }
            blocks = self._end(script, state, done, ends, memory)
            for block, kept in zip(blocks, turns, strict=True):
                mine, other = (script.heroes[i] for i in ((1, 2) if kept == KEPT else (2, 1)))
                self._look(script, mine, block, f"in turn, {arm}")
                self._look(script, other, block, f"in turn, {arm}: confused")

    def _start(self, plan: BlockPlan, script: Script, memory: MemoryConfig, **more: object) -> Generation:
        return generate(
            self.mini.model,
            plan,
            self.mini.encode_text,
            memory,
            size=LATENT_SIZE,
            seed=script.seed,
            seam="align",
            **more,  # type: ignore[arg-type]
        )

    def _end(
        self,
        script: Script,
        state: Snapshot,
        done: list[Block],
        ends: dict[int, tuple[str, tuple[int, ...]]],
        memory: MemoryConfig,
    ) -> list[Block]:
        """The last blocks of a film that goes on from a state."""
        state = replace(state, kind={**state.kind, "memory": str(memory)})  # the state recalls nothing yet
        plan = script.plan(ends, max(ends) + 1)
        return list(self._start(plan, script, memory, resume=state, known=lambda spec: _known(done, state, spec)))

    def _frames(self, block: Block) -> Frames:
        centre = block.start + block.frames // 2
        ((_, frames),) = decode_windows(self.mini.vae, [block], [Window(block.shot, block.index, centre)])
        return frames

    def _look(
        self, script: Script, hero: world.Hero, block: Block, row: str, place: world.WorldShot | None = None
    ) -> None:
        """Notes whether the middle of a block shows a hero, or the wall of a place."""
        shot = block.shot
        shots = list(script.shots)
        if place is not None:
            shots[shot] = replace(place, frames=shots[shot].frames)
        window = Window(shot, block.index, block.start + block.frames // 2, "middle")
        look = look_at(world.WorldFilm(hero, tuple(shots)), window, self._frames(block))
        for name in ("colour", "shape") if place is None else ("background", "pattern"):
            self.right[row, name].append(float(look.correct[name]))


def _known(done: list[Block], state: Snapshot, spec: BlockSpec) -> torch.Tensor | None:
    return done[spec.index].latents if spec.index < state.next_block else None


def read_looks(folder: Path) -> dict[tuple[str, str], list[float]]:
    """The looks of all runs in a folder."""
    right: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path in sorted(folder.glob("looks_*.json")):
        for row, name, hits in json.loads(path.read_text()):
            right[row, name] += hits
    return right


def table(right: dict[tuple[str, str], list[float]]) -> Iterator[str]:
    """The shares as a Markdown table, with their intervals and the distance of the lower end from the shot after."""
    yield "| shot | colour | shape | wall colour | wall pattern |\n|---|---|---|---|---|"
    for row in dict.fromkeys(row for row, _ in right):
        cells: list[str] = []
        for name in ("colour", "shape", "background", "pattern"):
            looks = right.get((row, name), [])
            figure = estimate([(look, 1) for look in looks])
            cells.append(
                f"{100 * figure.value:.0f} [{100 * figure.low:.0f}, {100 * figure.high:.0f}]" if looks else "–"
            )
        yield f"| {row} | {' | '.join(cells)} |"


def plot(right: dict[tuple[str, str], list[float]]) -> Image.Image:
    """Bars of the colour and the shape of the kept hero with their intervals: the shot after, then each gap."""
    series = {
        f"{name}, {text}": [
            estimate([(look, 1) for look in right[row, name]])
            for row in ("the shot after its first", *(f"{arm}, {gap} away" for gap in GAPS))
        ]
        for text, arm in (("recalled", ARMS[1]), ("not recalled", ARMS[2]))
        for name in ("colour", "shape")
    }
    canvas = Canvas(380, "The kept hero, recalled before the shot or not", list(series))
    groups = ("shot after", *(f"{gap} away" for gap in GAPS))
    axes = Axes(58, 98, 885, 340, (0, len(groups)), (0, 100))
    canvas.grid(axes, PER_CENT, ".0f", "% of films")
    bars(canvas, axes, groups, list(series.values()))
    return canvas.image()


def cost(mini: Mini) -> Iterator[str]:
    """A line for each number of recalled blocks."""
    yield (
        "| recalled blocks | CPU seconds a block, 20 to 79 | 140 to 199 | first block of a shot | K/V, KiB "
        "| growth, blocks 50 to 199, MB |"
    )
    yield "|---|---|---|---|---|---|"
    memory = MemoryConfig(window=8 * BLOCK_FRAMES)
    for count in range(5):
        specs = [
            BlockSpec(
                i,
                i // COST_SHOT,
                "it sways",
                i > 0 and i % COST_SHOT == 0,
                None,
                i * BLOCK_FRAMES,
                BLOCK_FRAMES,
                _recalled_at_cost(i // COST_SHOT, count),
            )
            for i in range(COST_BLOCKS)
        ]
        plan, seconds, grown = BlockPlan(tuple(specs), 24.0, BLOCK_FRAMES), list[float](), list[float]()
        film = generate(mini.model, plan, mini.encode_text, memory, size=COST_SIZE, steps=2, seam="align")
        while not film.done:
            began = time.process_time()
            next(film)
            seconds.append(time.process_time() - began)
            grown.append(memory_mb("VmRSS"))
        early, late = (statistics.median(seconds[i : i + 60]) for i in (20, 140))
        first = statistics.median(seconds[20::COST_SHOT])
        size = memory.bytes(mini.model.config, LatentShape(1, 48, BLOCK_FRAMES, *COST_SIZE))
        growth = grown[199] - grown[50]
        yield f"| {count} | {early:.3f} | {late:.3f} | {first:.3f} | {size / 1024:.0f} | {growth:.1f} |"


def _recalled_at_cost(shot: int, count: int) -> tuple[int, ...]:
    """The blocks 1 to `count` or those after them, by turns, so that every shot enters all of its own."""
    first = 1 + count * (shot % 2)
    return tuple(range(first, first + count)) if shot > 2 else ()


def main() -> None:
    """Makes the films, prints the tables and writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=16, help="0 prints the table of what is in the folder")
    parser.add_argument("--first", type=int, default=0, help="number of the first script, for runs side by side")
    parser.add_argument("--alone", action="store_true", help="a window of two blocks without sinks")
    parser.add_argument("--cost", action="store_true", help="only what a recalled block costs")
    parser.add_argument("--model", default="mini", help='"mini" or a folder that `longlive train mini` made')
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    mini = load_model(args.model)
    with torch.inference_mode():
        if args.cost:
            for line in cost(mini):
                print(line, flush=True)
            return
        bench = Bench(mini, ALONE if args.alone else DEFAULT_MEMORY)
        for index in range(args.first, args.first + args.films):
            bench.run(index)
            # After every film, so that a run may be ended at any time, and others be added to it.
            Image.fromarray(np.concatenate(bench.rows)).save(args.out / f"recall_{args.first}.png")
            hits = [[row, name, looks] for (row, name), looks in bench.right.items()]
            (args.out / f"looks_{args.first}.json").write_text(json.dumps(hits))
    looks = read_looks(args.out)
    plot(looks).save(args.out / "recall_plot.png")
    print("\n".join(table(looks)))


if __name__ == "__main__":
    main()
