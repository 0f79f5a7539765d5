"""Cast files on the canvas: a block of one film recalled in another, as the command line does it, to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.memory import DEFAULT_MEMORY, RECALL_POSITIONS, MemoryConfig
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take
from longlive.longlive_core.take.cast_file import Card
from longlive.longlive_core.take.history import read_blocks
from torch import Tensor

from .browser import Front
from .graphs import MEMORY, MINI, SAMPLER, SHOTS, Prompt, kept_latent, node, save_lora, save_model, say_mini, stream
from .host import Host, Refused, Start
from .run import Run
from .test_kept_takes import canvas

pytestmark = pytest.mark.comfy

FIRST = """Shot 1 (1 block): a big red ring sways on the left in front of a plain forest wall @seed=3
Shot 2 (2 blocks): a small blue square rests in the middle against a striped navy wall @seed=4
"""
SECOND = """Shot 1 (1 block): a big green circle rests in the middle against a plain wine wall
Shot 2 (1 block) @recall=hero: the same hero sways on the left in front of a plain forest wall
"""
HEADER = "cast: hero.cast.safetensors\n"
SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 5}
SAVE, TAKE = "30", "20"


@dataclass(frozen=True)
class Films:
    """The films that the command line made: one that the cast is from, and by KV format those that recall it."""

    folder: Path
    first: Take
    second: dict[str, Take]


def job(folder: Path, name: str, script: str, memory: MemoryConfig = DEFAULT_MEMORY) -> Take:
    (folder / f"{name}.txt").write_text(script)
    files = (folder / f"{name}.txt", folder / f"{name}.mp4")
    made = Job(RenderSettings(*files, size="64x64", steps=2, seed=5, memory=memory))
    assert made.run() and made.take is not None
    return made.take


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    folder = tmp_path_factory.mktemp("films")
    first = job(folder, "first", FIRST)
    save = ["cast", "save", str(first.folder), "--shot", "2", "--block", "2"]
    assert main([*save, "-o", str(folder / "hero.cast.safetensors")]) == 0
    memories = {kv_format: MemoryConfig(kv_format=kv_format) for kv_format in ("bf16", "nvfp4")}
    second = {name: job(folder, name, HEADER + SECOND, memory) for name, memory in memories.items()}
    return Films(folder, first, second)


@pytest.fixture(scope="module")
def host(start: Start, films: Films) -> Iterator[Host]:
    """A server with the cast file, whose films keep their takes."""
    with start(keep=True) as own:
        (own.base / "input" / "cast" / "rooms").mkdir(parents=True)
        for path in ("hero.cast.safetensors", "rooms/other.cast.safetensors"):
            (own.base / "input" / "cast" / path).write_bytes((films.folder / "hero.cast.safetensors").read_bytes())
        (own.base / "input" / "secret.cast.safetensors").write_bytes(b"x")
        save_model(own, "mini.safetensors", load_mini().model.state_dict(), say_mini())
        save_lora(own, "small.safetensors", {"blocks.0.self_attn.q": (192, 192)})
        yield own


@pytest.fixture
def placed(comfy: Host, films: Films) -> None:
    """The cast file on the server of the page."""
    folder = comfy.base / "input" / "cast"
    folder.mkdir(exist_ok=True)
    (folder / "hero.cast.safetensors").write_bytes((films.folder / "hero.cast.safetensors").read_bytes())


def taken(script: str, name: str, kv_format: str = "bf16", **sampler: object) -> Prompt:
    """A film that is stored in a take under a name."""
    prompt = stream(script, **{**SMALL, "seam": "auto", **sampler})
    prompt[MEMORY]["inputs"]["kv_format"] = kv_format
    prompt[TAKE] = node("LongLiveSaveTake", stream=[SAMPLER, 0], name_prefix=f"takes/{name}")
    return {**prompt, **kept_latent([TAKE, 0])}


def wired(prompt: Prompt, file: str = "hero.cast.safetensors", name: str = "", before: object = None) -> Prompt:
    """The prompt with a LongLive Cast at its script."""
    prompt["40"] = node("LongLiveCast", cast_name=file, name=name, **({} if before is None else {"cast": before}))
    prompt[SHOTS]["inputs"]["cast"] = ["40", 0]
    return prompt


def take(host: Host, name: str) -> Take:
    return Take.load(host.base / "output" / "takes" / f"{name}_00001.take")


def blocks(take: Take) -> list[Tensor]:
    return [block.latents for block, _ in read_blocks(take)]


def alike(one: Take, two: Take) -> bool:
    return all(torch.equal(a, b) for a, b in zip(blocks(one), blocks(two), strict=True))


def done(run: Run) -> Run:
    assert run.ok, run.error
    return run


@pytest.mark.parametrize("kv_format", ["bf16", "nvfp4"])
def test_a_film_of_the_canvas_is_that_of_the_command_line(host: Host, films: Films, kv_format: str) -> None:
    """With the file named above the first shot or wired to it, bit for bit; the recall changes the shot."""
    done(host.run(taken(HEADER + SECOND, f"header_{kv_format}", kv_format)))
    done(host.run(wired(taken(SECOND, f"wire_{kv_format}", kv_format))))
    expected = films.second[kv_format]
    for name in ("header", "wire"):
        made = take(host, f"{name}_{kv_format}")
        assert alike(made, expected) and made.settings["cast"] == expected.settings["cast"]
    done(host.run(taken(SECOND.replace(" @recall=hero", ""), f"plain_{kv_format}", kv_format)))
    assert not torch.equal(blocks(take(host, f"plain_{kv_format}"))[1], blocks(expected)[1])


def test_a_recalled_block_stands_where_the_widget_says(host: Host, films: Films) -> None:
    """`recall_position` of LongLive Sink Memory is that of the command line, and original where a graph has none."""
    script = "Shot 1 (2 blocks) @keep=hero@2: a ring\nShot 2 (2 blocks): a wall\nShot 3 (1 block) @recall=hero: it\n"
    prompt = taken(script, "before_shot")
    prompt[MEMORY]["inputs"]["recall_position"] = "before_shot"
    done(host.run(prompt))
    done(host.run(taken(script, "original")))
    for position in RECALL_POSITIONS:
        expected = job(films.folder, position, script, MemoryConfig(recall_position=position))
        assert [alike(take(host, other), expected) for other in RECALL_POSITIONS] == [
            other == position for other in RECALL_POSITIONS
        ]


def test_chained_files_have_names_of_their_own(host: Host, films: Films) -> None:
    """Files are recalled by the names on their nodes; of two, the one that is recalled counts."""
    prompt = taken(SECOND.replace("@recall=hero", "@recall=hall"), "chained")
    prompt["41"] = node("LongLiveCast", cast_name="rooms/other.cast.safetensors", name="")
    done(host.run(wired(prompt, name="hall", before=["41", 0])))
    made = take(host, "chained")
    assert [file.name for file in made.script.cast] == ["hero", "hall"] and alike(made, films.second["bf16"])


def test_a_block_saved_on_the_canvas_is_that_of_the_command_line(host: Host, films: Films) -> None:
    """Latents, prompt and digest; the command line recalls it, and a script is wired to it at once. Only the film up to
    the block is made."""
    prompt = stream(FIRST, **{**SMALL, "seam": "auto"})
    prompt[SAVE] = node("LongLiveSaveCast", stream=[SAMPLER, 0], vae=[MINI, 2], shot=2, block=2, name="friend")
    run = done(host.run(prompt))
    path = host.base / "input" / "cast" / "friend.cast.safetensors"
    card, expected = Card.load(path), Card.load(films.folder / "hero.cast.safetensors")
    assert card.digest == expected.digest and card.still is not None and card.still.shape == (64, 64, 3)
    assert len(run.outputs[SAVE]["images"]) == 1 and "@recall=friend" in run.outputs[SAVE]["text"][0]
    (films.folder / path.name).write_bytes(path.read_bytes())
    script = SECOND.replace("@recall=hero", "@recall=friend")
    assert alike(job(films.folder, "friend", f"cast: {path.name}\n{script}"), films.second["bf16"])
    both = taken(script, "saved")
    both["50"] = {**stream(FIRST)[SHOTS]}
    both["51"] = node("LongLiveEncodeShots", clip=[MINI, 1], shots=["50", 0], negative="")
    both["52"] = {**both[SAMPLER], "inputs": {**both[SAMPLER]["inputs"], "conditioning": ["51", 0]}}
    both[SAVE] = {**prompt[SAVE], "inputs": {**prompt[SAVE]["inputs"], "stream": ["52", 0]}}
    both[SHOTS]["inputs"]["cast"] = [SAVE, 0]
    done(host.run(both))
    assert alike(take(host, "saved"), films.second["bf16"])
    prompt[SAVE]["inputs"]["block"] = 3
    assert "block 3: shot 2 has 2, numbered from 1" in str(host.run(prompt).error)


def test_a_take_goes_on_without_the_file(host: Host, films: Films) -> None:
    """It has a copy, from which a film that is loaded or retaken recalls; one on the canvas keeps such a take, too."""
    name = "copied.cast.safetensors"
    file = host.base / "input" / "cast" / name
    file.write_bytes((films.folder / "hero.cast.safetensors").read_bytes())
    done(host.run(taken(f"cast: hero={name}\n{SECOND}", "kept")))
    kept = stream(f"cast: hero={name}\n{SECOND}", **{**SMALL, "seam": "auto"})
    kept["6"] = node(
        "LongLiveAsyncDecode", stream=[SAMPLER, 0], vae=[MINI, 2], filename_prefix="kept", codec="h264", quality="high"
    )
    done(host.run(kept, extra_data=canvas()))
    own = next(path for path in (host.base / "output" / "takes" / "auto").iterdir())
    assert alike(Take.load(own), films.second["bf16"])
    made = take(host, "kept")
    made.path(made.plan.blocks[1]).unlink()
    file.unlink()
    links = {"model": [MINI, 0], "clip": [MINI, 1]}
    load = node("LongLiveLoadTake", take="takes/kept_00001.take", **links)
    loaded = {MINI: node("LongLiveMini"), TAKE: load, **kept_latent([TAKE, 0])}
    done(host.run(loaded))
    assert alike(made, films.second["bf16"])
    retake = node("LongLiveRetake", take=[TAKE, 2], **links, shot=2, seed=9, prompt="", mode="ripple")
    done(host.run({MINI: node("LongLiveMini"), TAKE: load, "21": retake, **kept_latent(["21", 0])}))
    retaken = take(host, "kept")
    assert retaken.shots[1].versions[retaken.shots[1].chosen].seed == 9 and not alike(retaken, films.second["bf16"])


def test_a_film_goes_on_with_the_cast_of_the_one_before(host: Host) -> None:
    """Another sampler that continues it recalls the same files; other files are refused, since shots count them."""
    prompt = taken(HEADER + SECOND, "chain")
    prompt["50"] = node("LongLiveShotScript", script=HEADER + SECOND, default_seconds=4.0, fps=24.0)
    prompt["51"] = node("LongLiveEncodeShots", clip=[MINI, 1], shots=["50", 0], negative="")
    inputs = {**prompt[SAMPLER]["inputs"], "conditioning": ["51", 0], "state": [SAMPLER, 1]}
    prompt["52"] = {**prompt[SAMPLER], "inputs": inputs}
    prompt[TAKE]["inputs"]["stream"] = ["52", 0]
    done(host.run(prompt))
    made = take(host, "chain")
    assert [block.recalled for block in made.plan.blocks] == [(), (-1,), (), (-1,)] and len(blocks(made)) == 4
    prompt["50"]["inputs"]["script"] = "cast: hero=hero.cast.safetensors, b=hero.cast.safetensors\n" + SECOND
    prompt[TAKE]["inputs"]["name_prefix"] = "takes/other"
    assert "give both scripts the same cast files in the same order" in str(host.run(prompt).error)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("../secret.cast.safetensors", "outside the folder of cast files: put it into"),
        ("/etc/x.safetensors", "outside the folder of cast files: put it into"),
        ("none.cast.safetensors", "does not exist; check the path, or make it with"),
    ],
)
def test_files_outside_the_folder_are_refused(host: Host, file: str, reason: str) -> None:
    """Before anything runs, with the line in the script; the node and the route refuse them alike."""
    for prompt in (taken(f"\ncast: {file}\n{SECOND}", "refused"), wired(taken(SECOND, "refused"), file)):
        with pytest.raises(Refused) as refused:
            host.queue(prompt)
        assert reason in json.dumps(refused.value.node_errors)
    with pytest.raises(HTTPError):
        host.get(f"/longlive/casts?file={file}")


def test_another_model_is_refused_with_the_reason(host: Host, films: Films) -> None:
    """A LoRA, another size, a file of other weights: the sampler names what differs and what to do."""
    card, folder = Card.load(films.folder / "hero.cast.safetensors"), host.base / "input" / "cast"
    others = {"weights": "another", "transformer": "another"}
    replace(card, made_by={**card.made_by, **others}).save(folder / "another.cast.safetensors")
    wrong = host.run(wired(taken(SECOND, "wrong"), "another.cast.safetensors", "hero"))
    assert "the cast 'hero' (first.mp4, shot 2, block 2) is of another model or LoRA" in str(wrong.error)
    assert "render with --size 64x64" in str(host.run(taken(HEADER + SECOND, "wrong", width=96)).error)
    lora = taken(HEADER + SECOND, "wrong", model=["9", 0])
    lora["9"] = node("LongLiveDMDLora", model=[MINI, 0], lora_name="small.safetensors", strength=1.0, mode="auto")
    assert "use it where it was made, or save a block of a film of this model here" in str(host.run(lora).error)
    same = taken(HEADER + SECOND, "loaded", model=["9", 0])
    same["9"] = node("LongLiveModelLoader", model_name="mini.safetensors", precision="auto")
    done(host.run(same))
    assert alike(take(host, "loaded"), films.second["bf16"])


def test_a_wire_of_another_kind_is_refused(host: Host) -> None:
    """The node checks types itself, because it asks what is connected; a misspelt name ends the run at the script."""
    prompt = taken(SECOND, "kind")
    prompt[SHOTS]["inputs"]["cast"] = [MINI, 0]
    with pytest.raises(Refused) as refused:
        host.queue(prompt)
    assert "cast takes LONGLIVE_CAST, not MODEL" in json.dumps(refused.value.node_errors)
    run = host.run(wired(taken(SECOND.replace("@recall=hero", "@recall=hera"), "kind")))
    assert run.error is not None and run.error["node_id"] == SHOTS
    assert "write @recall=hero" in run.error["exception_message"]


@pytest.mark.parametrize("renderer", ["classic", "vue"])
def test_the_node_shows_its_file_and_the_strip_knows_it(
    placed: None,  # noqa: ARG001 (before the page, which lists the files)
    page: Front,
    renderer: Literal["classic", "vue"],
    tmp_path: Path,
) -> None:
    """Picture, name, prompt and origin before anything runs; a shot that recalls it is no mistake while it is wired."""
    page.page.evaluate(
        """([script]) => {
            const [shots, cast] = ["LongLiveShotScript", "LongLiveCast"].map((type) => LiteGraph.createNode(type))
            app.graph.add(shots)
            app.graph.add(cast)
            shots.pos = [620, 160]
            cast.pos = [120, 160]
            const set = (node, name, value) => {
                const widget = node.widgets.find((widget) => widget.name === name)
                widget.value = value
                widget.callback?.(value)
            }
            set(cast, "cast_name", "hero.cast.safetensors")
            set(shots, "script", script)
        }""",
        [SECOND],
    )
    page.set_renderer(renderer)
    card, strip = page.page.locator(".longlive-cast"), page.page.locator(".longlive-strip")
    card.get_by_text("@recall=hero").wait_for()
    card.get_by_text("first.mp4, shot 2, block 2").wait_for()
    picture = card.locator("img")
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 64
    strip.get_by_text("which no earlier shot keeps").wait_for()
    page.page.evaluate("""() => {
        const find = (type) => app.graph.nodes.find(({ comfyClass }) => comfyClass === type)
        const [shots, cast] = [find("LongLiveShotScript"), find("LongLiveCast")]
        cast.connect(0, shots, shots.findInputSlot("cast"))
    }""")
    strip.get_by_text("which no earlier shot keeps").wait_for(state="detached")
    assert strip.locator(".ll-card").count() == 2
    page.screenshot(tmp_path / f"cast_{renderer}.png")
    assert page.own_errors() == []
