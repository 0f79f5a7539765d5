"""Faults put into the code one at a time: the tests named beside each one must fail.

    python tests/mutants.py             all of them
    python tests/mutants.py lora seed   those whose description has one of these words

Each fault is a text that stands once in the code and what replaces it, in a throw-away copy of the tree. A text that
the code no longer has, or has twice, ends the run: the list below is to follow the code. Exits with 1 where a fault
survives its tests.
"""

# ruff: noqa: E501 (one line a fault)

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CODE = ("longlive_core", "kernels")


class Mutant(NamedTuple):
    """A fault in words, the text that it replaces and by what, and the tests: `window` for `test_window.py`."""

    fault: str
    old: str
    new: str
    tests: str


FILM = "unipc window generate film own_golden"
TAKE = "take_film retake append"
LORA = "lora linears checkpoint convert"
VAE = "vae vae_stage own_golden"
FORMS = "forms reading"
SCRIPT = "script block_plan properties from_plan append"

# fmt: off
MUTANTS = (
    # take/
    Mutant("choose never marks a splice", "spliced=not fits", "spliced=False", TAKE),
    Mutant("a locked shot is retaken", "if shot.locked:", "if False:", TAKE),
    Mutant("an edited script moves a locked shot", "(moved and not shot.locked)", "moved", TAKE),
    Mutant("a carried block may follow others", "record is None or record.history != history:\n            return\n", "record is None:\n            return\n", TAKE),
    Mutant("a retake ripples into a locked shot", "not following.locked and (moved", "(moved", TAKE),
    Mutant("a lock on disk is lost where versions meet", "versions=disk.versions, locked=disk.locked", "versions=disk.versions", TAKE),
    Mutant("a history forgets what was before", "{self.digest}/{block}", "{block}", TAKE),
    Mutant("a block's digest is of its first frame", "latents.contiguous().numpy().tobytes()", "latents[:, :, :1].contiguous().numpy().tobytes()", TAKE),
    Mutant("a claim is not exclusive", 'path.open("x", encoding="utf-8")', 'path.open("w", encoding="utf-8")', "claim"),
    Mutant("the claim of a holder that is gone stays", "                    _remove(older)\n", "                    pass\n", "claim"),
    Mutant("a heart beats for another's claim", "            if file.read() != text:\n                return\n", "            file.read()\n", "claim"),
    Mutant("a block is stored without a check of the lock", "            self._check()\n            save_block(path", "            save_block(path", "claim"),
    Mutant("a film is not looked at under its lock", "        if self._is_unfinished(take):\n            return lock\n", "        return lock\n", "work"),
    Mutant("a shot is taken over after another sink", "            if record.history != history:\n                break\n", "", "sample_ahead"),
    Mutant("append leaves a shot with a time on the clock", "shot.duration is None or shot.start is not None", "shot.duration is None", TAKE),
    Mutant("a copied take writes the original's film", "if Path(name).with_suffix(SUFFIX).name != folder.name:", "if False:", "own_film"),
    Mutant("a still stays where its text changed", "return spec.prompt, spec.seed, spec.cut, spec.frames", "return spec.seed, spec.cut, spec.frames", "board"),
    Mutant("a live script passes a stored beginning by", "if not self._storyboard and stored != spec:", "if False:", "board"),
    Mutant("blocks are kept behind another beginning", "elif not torch.equal(stored.latents, block.latents):", "elif False:", "board"),
    Mutant("another version is accepted too", "return self.accepted == self.chosen", "return self.accepted is not None", "board"),
    # video/
    Mutant("HLG has no system gamma", "scene * luminance.pow(0.2)[..., None]", "scene", "clip"),
    Mutant("light stays in the primaries of the video", " @ _to_bt709(colours.primaries).T", "", "clip"),
    Mutant("a clip's sound begins with its file", "round((time - start) * rate)", "round(time * rate)", "clip_sound"),
    Mutant("the header is written before the index", "key=lambda piece: piece[0] < self.size", "key=lambda piece: piece[0] >= self.size", "finished"),
    Mutant("pictures of a webm are early", " - round(early / self._tick * FINE)", "", "audio"),
    # memory/, kernels/: 2 bits
    Mutant("centroids of q2 are fitted to numbers that are not whole", "whole = (residual / step).round_()", "whole = residual / step", "q2_store"),
    Mutant("a head of q2 takes the step of all heads", "x.abs().amax((1, 3), keepdim=True)", "x.abs().amax((1, 2, 3), keepdim=True).expand(-1, -1, x.shape[2], -1)", "q2_store"),
    Mutant("channels of q2 have no spread of their own", "channels = spread.to(", "channels = torch.ones_like(spread).to(", "q2_store"),
    Mutant("q2 takes more than five bytes", "BUDGET = 5 / 32", "BUDGET = 6 / 32", "q2_store"),
    Mutant("q2 is chosen by the planner", 'KV_BY_QUALITY = ("bf16", "fp8", "nvfp4")', 'KV_BY_QUALITY = ("bf16", "fp8", "nvfp4", "q2")', "planner"),
    # memory/
    Mutant("a sink too many is never evicted", "not self._is_sink(other) and other not", "other > self.sinks and other not", FILM),
    # cast files
    Mutant("a cast block has a position of its own", "recalls_anew and recalled.index >= 0:", "recalls_anew:", "cast_blocks"),
    Mutant("a cast block stays in its slot", "again or b < 0 or b not in", "again or b not in", "recall_window"),
    Mutant("a cast block enters behind sinks that are not there", "Move(len(self.held_sinks)", "Move(self.sinks", "recall_window"),
    Mutant("a short film has no slot for its cast", "len(plan.blocks) + len(cast)", "len(plan.blocks)", "cast_blocks"),
    Mutant("a storyboard has no cast", "if r in index or r < 0)", "if r in index)", "cast_words"),
    Mutant("added shots bring a cast", "if file not in script.cast]", "if False]", "cast_words"),
    Mutant("a cast has the name of its path", 'cast_facts(find_cast(file, Path(path).parent)).get("name", "")', "name_of_path(file)", "cast_files"),
    Mutant("a cast of another model or size fits", "        cast.check(self.recorded, self.transformer)\n", "", "cast_files"),
    Mutant("a take has no copy of its cast", "storyboard=self._storyboard)\n            self._cast.save(take)", "storyboard=self._storyboard)", "cast_files"),
    Mutant("a take goes on with another cast", "if cast.recorded != (", "if cast.recorded is None and (", "cast_files"),
    Mutant("an unknown transformer fits", 'if was != now or now == "not known":', "if was != now:", "cast_files"),
    Mutant("an edit writes what is wired into the text", "script.cast[len(given) :]", "script.cast", "cast_words"),
    Mutant("a live script changes its cast", "if script.cast != self.script.cast:", "if False:", "live_script"),
    Mutant("another prompt is the same cast", ".encode(), self.prompt.encode()]", ".encode()]", "cast_files"),
    Mutant("a cut is pinned before it is denoised", "self.window.begin(block.index, ", "self.window.pin = block.index if block.cut and self.config.pins_shots else self.window.pin; self.window.begin(block.index, ", FILM),
    Mutant("an unfinished block counts as made", "self._next if self.current is None else self.current", "self._next", FILM),
    Mutant("recache keeps sinks that are yet to come", "*range(min(self.sinks, current))", "*range(self.sinks)", FILM),
    Mutant("clean recache forgets blocks with sinks off", "self.config.shot_clean_recache and self.config.pins_shots", "self.config.shot_clean_recache", FILM),
    Mutant("t_scale leaves the cuts' offset alone", "(frame + self.rope_offset * cuts) * self.t_scale", "frame * self.t_scale + self.rope_offset * cuts", FILM),
    Mutant("relative RoPE by the film's frames", "rank[block] * shape.frames + frame", "block * shape.frames + frame", FILM),
    Mutant("relative RoPE puts queries in the last slot", "slice(slot * tokens, (slot + 1) * tokens)", "slice((len(blocks) - 1) * tokens, len(blocks) * tokens)", FILM),
    Mutant("prompts leave memory by arrival, not by use", "self._kv.move_to_end(prompt)", "pass", FILM),
    Mutant("NVFP4 values are centred like keys", "store(shape, device, False)", "store(shape, device, centred)", "pool budget generate"),
    Mutant("NVFP4 keys lose one mean of all heads", "x.float().mean(1, keepdim=True)", "x.float().mean((1, 2), keepdim=True)", "pool budget generate"),
    # sampling, generation, snapshot
    Mutant("shot seed 0 is no seed", "{seed}/{shot_seed}/{block}/{row}", "{seed}/{shot_seed or None}/{block}/{row}", FILM),
    Mutant("a shot's seed replaces the film's", "{seed}/{shot_seed}/{block}/{row}", "{seed if shot_seed is None else shot_seed}/{block}/{row}", FILM),
    Mutant("a known frame is shown at the noise level", "timesteps[:, :known] = 0", "pass", FILM),
    Mutant("a preview has noise where the frame is known", "x0 = _replace_known(x - self._schedule.sigmas[index] * flow, known)", "x0 = x - self._schedule.sigmas[index] * flow", FILM),
    Mutant("the clean pass is not at t = 0", "self._timesteps(0.0, block.frames)", "self._timesteps(1.0, block.frames)", FILM),
    Mutant("guidance below 1 has no second branch", "None if guidance == 1.0 else negative", "None if guidance <= 1.0 else negative", FILM),
    Mutant("a continued shot moves the film in time", "accumulate(int(block.cut) for block in plan.blocks)", "block.shot for block in plan.blocks", FILM),
    Mutant("a snapshot's digest is of its first tensor", "tensor.contiguous().flatten().view(torch.uint8).numpy().data", "next(iter(tensors.values())).contiguous().flatten().view(torch.uint8).numpy().data", FILM),
    Mutant("a snapshot fits another memory of that window", "str(self._cache.config)", 'f"window={self._cache.config.window}"', FILM),
    Mutant("a snapshot at the film's end is refused", "snapshot.next_block > len(self.plan.blocks)", "snapshot.next_block >= len(self.plan.blocks)", FILM),
    # weights/
    Mutant("an alpha pattern matches any ending", r"(?:.*\.)?(?:{pattern})", ".*(?:{pattern})", LORA),
    Mutant("a LoRA beside a layer forgets its rank", "return self.alpha / self.rank", "return self.alpha", LORA),
    Mutant("a name loses one prefix only", r"*?(?=(?:blocks", r"?(?=(?:blocks", LORA),
    Mutant("a second LoRA replaces the first", "BypassLinear(layer, down, up", "BypassLinear(base_of(layer), down, up", LORA),
    Mutant("DoRA forgets its magnitudes", "return self.magnitude.to(weight) / (weight", "return 1.0 / (weight", LORA),
    Mutant("FourOverSix weights with the scale of 448", 'denominator_of("mse"))', 'denominator_of("static_6"))', LORA),
    Mutant("FP8 weights use half of their range", "FP8_MAX = 448.0", "FP8_MAX = 240.0", LORA),
    Mutant("the FP8 weights of a file are multiplied as floats", '            layer.activations = "fp8"\n            return layer\n', "            return layer\n", "fp8"),
    # vae/
    Mutant("the encoder gives the variance for the mean", "return moments.chunk(2, dim=1)[0], state", "return moments.chunk(2, dim=1)[1], state", VAE),
    Mutant("the second latent frame sees the first doubled", "cache.store(x.new_zeros(x.shape[0], 2, *x.shape[2:]))", "cache.store(x.repeat(1, 2, 1, 1, 1))", VAE),
    Mutant("the encoder pads left and top", "(0, 0, 0, 1, 0, 1)", "(0, 0, 1, 0, 1, 0)", VAE),
    Mutant("the encoder's average pads at the end", "(-x.shape[1] % time, 0)", "(0, -x.shape[1] % time)", VAE),
    Mutant("a shortcut forgets its bias", "conv2.bias + self.shortcut.bias", "conv2.bias", VAE),
    # script/
    Mutant("half a block is rounded down", "floor(blocks + Fraction(1, 2))", "ceil(blocks - Fraction(1, 2))", SCRIPT),
    Mutant("the first block is a cut", "requested.number > 1 and not requested.shot.continues", "not requested.shot.continues", SCRIPT),
    Mutant("half a block is too short", "blocks * 2 < 1", "blocks * 2 <= 1", SCRIPT),
    Mutant("a moment in blocks forgets the first frame", "max(frames - (TIME_FACTOR - 1), Fraction(0))", "max(frames, Fraction(0))", SCRIPT),
    Mutant("a line that headers do not count is a shot", "(belongs and not counts)", "(counts and not belongs)", FORMS),
    Mutant("clocks without brackets are lengths", "if not bare or bare[0].timing.start is None:", "if bare:", FORMS),
    Mutant("remarks around a list are shots", "aside = aside or (begins and", "aside = aside and (begins and", FORMS),
    # evaluation/, render/: continuity
    Mutant("a place is not compared with the recalled one", 'places = [facts.blocks[index].place for index in references.place if index in facts.blocks]', 'places = [block.place for block in own]', "continuity"),
    Mutant("the best block of a shot decides", "max(0.0, 1 - max(nearest) / scale)", "max(0.0, 1 - min(nearest) / scale)", "continuity"),
    Mutant("a cut within a shot is none", "== blocks[0].cut and not inside)", "== blocks[0].cut)", "continuity"),
    Mutant("colours of the border are the subject's", "(outside < RARE * everywhere)", "(outside > RARE * everywhere)", "continuity"),
    Mutant("similarity counts beside identity", 'similarity is not None and scores["identity"] is None and brought_back', "similarity is not None and brought_back", "features"),
    Mutant("a model with random weights is taken", 'if missing := sorted(info["missing_keys"]):', "if missing := ():", "features"),
    Mutant("the worst version comes first", "key=lambda item: item[1], reverse=True", "key=lambda item: item[1]", "versions_job"),
    Mutant("a worse version is put into the film", "best = max(scores,", "best = min(scores,", "remake"),
    Mutant("more shots than --most are made again", "sorted(chosen[:most])", "sorted(chosen)", "remake"),
    # training/
    Mutant("the average begins after its first update", "and self.average is None and step >=", "and self.average is None and step >", "trainer"),
    Mutant("the average moves by its decay", "alpha=1 - self.decay", "alpha=self.decay", "trainer"),
    Mutant("the average of float32 weights is the weights", "p.detach().clone().float()", "p.detach().float()", "trainer"),
    Mutant("parts of a batch are summed", "share = 1 / self.settings.accumulation", "share = 1.0", "trainer"),
    Mutant("gradients of another part's loss are kept", "            trained.module.zero_grad()", "            pass", "trainer"),
    Mutant("the optimiser's state is not resumed", '{**optimiser.state_dict(), "state": state}', "optimiser.state_dict()", "trainer"),
    Mutant("the average is not resumed", 'self.average.load_state_dict(saved["average"])', "pass", "trainer"),
    Mutant("the stage's state is not resumed", 'self.stage.load_state_dict(state["stage_state"])', "pass", "trainer"),
    Mutant("gradients within a step are not saved", "gradients=self._position.part > 0", "gradients=False", "trainer"),
    Mutant("the log is not cut", "        self._log.cut(self.step)", "        pass", "trainer"),
    Mutant("a NaN loss is trained on", "if not math.isfinite(value):", "if False:", "trainer"),
    Mutant("a NaN gradient is trained on", "if not math.isfinite(norm):", "if False:", "trainer"),
    Mutant("a checkpoint of another stage is loaded", 'self._check_same("stage", state["stage"], self.stage.name)', "pass", "trainer"),
    Mutant("a run goes on with other data", "if before.digest != own.digest:", "if False:", "trainer"),
    Mutant("a run goes on with other optimisers", "if states.keys() != self._optimisers.keys():", "if False:", "trainer"),
    Mutant("the cosine ignores its horizon", "steps if settings.horizon is None else settings.horizon", "steps", "trainer"),
    Mutant("the parts of a step share their noise", "+ 2_654_435_761 * part", "", "vae_stage"),
    Mutant("the parts of a step share their clips", "range(part * phase.batch, (part + 1) * phase.batch)", "range(phase.batch)", "vae_stage"),
    Mutant("a phase goes on from another start", "fingerprint(tensor_bytes(p) for p in vae.state_dict().values())", "self.name", "vae_stage"),
    Mutant("video starts from random weights of the past", "            inflate(vae)", "            pass", "vae_stage"),
    Mutant("nobody looks for space on the disk", "    if free < size:\n        raise OSError(errno", "    if False:\n        raise OSError(errno", "trainer"),
    Mutant("a stop is asked for once a step", "self.should_stop is not None and self.should_stop()", "self.should_stop is not None and self._position == _Position() and self.should_stop()", "trainer"),
    Mutant("a checkpoint is written under its own name", "partial = target.with_name(target.name + PARTIAL)", "partial = target", "training_checkpoint"),
    Mutant("ranks divide by the count of all", ".clamp(min=1) / ranks.size", ".clamp(min=1)", "balanced_sp"),
    Mutant("a rank has the first rank's prompts", "batch.prompts[:, blocks]", "batch.prompts[:, : blocks.stop - blocks.start]", "balanced_sp"),
    Mutant("both groups of ranks have the prompt's branch", "return first if branch.mesh.data.rank == 0 else (pool, layers, *first[2:])", "return first if branch.mesh.data.rank == 0 else (pool, first[1], *first[2:])", "rank_films"),
    Mutant("a window of a clip keeps its halo", "Share(len(part), (part.shape[1], part.shape[2]), group[piece.clip].shape, piece.drop)", "Share(len(part), (part.shape[1], part.shape[2]), group[piece.clip].shape)", "clip_ranks"),
    Mutant("a gathered flow has the gradient of one rank", "ctx.ranks.size * grads[0].narrow", "grads[0].narrow", "balanced_sp"),
    Mutant("damage is not looked for", "or _digest(path / name) != digest", "", "training_checkpoint"),
    Mutant("one checkpoint too few is kept", "len(older) - self.keep + 1)", "len(older) - self.keep + 2)", "training_checkpoint"),
    Mutant("a full disk leaves half a checkpoint", "                shutil.rmtree(partial, ignore_errors=True)\n                raise", "                raise", "training_checkpoint"),
    Mutant("an unknown key of a table is ignored", "        if key not in entries:", "        if False:", "settings"),
    Mutant("a table that is given in part forgets the defaults", "default if base is None else getattr(base, field.name)", "default", "settings"),
    Mutant("true is a number", "or (isinstance(value, bool) and kind is not bool)", "", "settings"),
)
# fmt: on


def the_file(tree: Path, folders: tuple[str, ...], pattern: str, text: str = "") -> Path:
    """The one file in these folders with that name and, once, that text."""
    files = [path for folder in folders for path in sorted((tree / folder).rglob(pattern))]
    found = [path for path in files if not text or text in path.read_text("utf-8")]
    if len(found) != 1 or (text and found[0].read_text("utf-8").count(text) != 1):
        raise SystemExit(f"{text or pattern!r} must be there once: {', '.join(map(str, found)) or 'it is nowhere'}")
    return found[0]


def files_of(tree: Path, tests: str) -> list[Path]:
    """The files of these tests: `window` is `test_window.py`."""
    return [the_file(tree, ("tests/core", "tests/kernels"), f"test_{name}.py") for name in tests.split()]


def fails(tree: Path, tests: str) -> bool:
    """Whether one of these tests fails in `tree`."""
    paths = files_of(tree, tests)
    ran = subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", *map(str, paths)], cwd=tree, capture_output=True)
    if ran.returncode not in (0, 1):  # nothing was tested: the fault is one of syntax, or a test file is broken
        raise SystemExit(f"{tests}: the tests did not run\n{ran.stdout.decode()[-2000:]}")
    return ran.returncode == 1


def killed(tree: Path, mutant: Mutant) -> bool:
    """Whether its tests fail with the fault in `tree`, which is as before when this returns."""
    path = the_file(tree, CODE, "*.py", mutant.old)
    whole = path.read_text("utf-8")
    path.write_text(whole.replace(mutant.old, mutant.new), "utf-8")
    failed = fails(tree, mutant.tests)
    path.write_text(whole, "utf-8")
    return failed


def main(words: list[str]) -> int:
    """Prints a line for each fault and the tally."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.fault for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / ROOT.name
        left_out = shutil.ignore_patterns(".*", "__pycache__", "shared", "output")
        shutil.copytree(ROOT, tree, ignore=left_out, symlinks=True)
        for tests in dict.fromkeys(mutant.tests for mutant in chosen):
            if fails(tree, tests):
                raise SystemExit(f"{tests}: the tests fail without a fault")
        survived = 0
        for mutant in chosen:
            dead = killed(tree, mutant)
            survived += not dead
            print(f"{'killed' if dead else 'SURVIVED':8}  {mutant.fault}", flush=True)
    print(f"{survived} of {len(chosen)} survived")
    return min(survived, 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
