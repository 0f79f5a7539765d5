"""What a film's drawing does where memory runs out and models move, shown on a CPU with the host's parts replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .graphs import in_host
from .host import ROOT

pytestmark = pytest.mark.comfy

HEAD = """
import importlib.util, json, logging, threading
from contextlib import suppress
from pathlib import Path
from dataclasses import replace
from types import SimpleNamespace as Some
import torch
import comfy.model_management as management
from server import PromptServer

root = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("longlive", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["longlive"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["longlive"])
PromptServer.instance = Some(app={}, client_id=None)
from longlive.nodes import async_decode, film_spec as film_specs, preview as previews, routes, run_stream
from longlive.nodes.films import Films
from longlive.nodes.mini import mini_model
from longlive.nodes.device_lock import DeviceLock
from longlive.nodes.types import Stream
from longlive.longlive_core.film import sampler_settings
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.sampler_settings import SamplerSettings
from longlive.longlive_core.memory import DEFAULT_MEMORY
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.oom import OutOfMemoryError
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.types import LatentShape

films = PromptServer.instance.app[routes.FILMS] = Films(lambda *_: None)
previews.get_progress_state = lambda: Some(update_progress=lambda *_: None, finish_progress=lambda *_: None)
plan = ShotScript.parse("Shot 1 (4 blocks): a ring").plan(24.0)
film = Film.from_latents(plan, torch.zeros(1, 48, plan.latent_frames, 4, 4))
model = mini_model(load_mini())
asked = []


class Unsure(Film):
    @property
    def needs_model(self):
        asked.append(True)
        return True


def stream(film=film, script=None):
    lock = DeviceLock(model.load_device)
    spec = film_specs.FilmSpec(model, {}, plan, LatentShape(1, 48, 8, 4, 4), SamplerSettings((4, 4)), lock)
    return Stream(film, spec, "5", "Sampler", live=script)


def unsure():
    film = Unsure(plan, None)
    film.adopt(Film.from_latents(plan, torch.zeros(1, 48, plan.latent_frames, 4, 4)).finished_blocks())
    return film
"""


def shown(code: str, *arguments: object) -> Any:  # noqa: ANN401
    """What the code prints last, as JSON."""
    return json.loads(in_host(HEAD + code, ROOT, *arguments).splitlines()[-1])


def test_memory_that_ran_out_is_freed() -> None:
    """The models are unloaded however the error comes: raised here, or in a stage with the allocator's own as cause.

    Another error leaves them where they are.
    """
    code = """
unloaded = []
management.unload_all_models = lambda: unloaded.append(True)

def unloads(error, cause=None):
    before = len(unloaded)
    with suppress(RuntimeError, ValueError), run_stream.StreamRun(stream()):
        raise error from cause
    return len(unloaded) - before

print(json.dumps([
    unloads(torch.OutOfMemoryError("CUDA out of memory")),
    unloads(RuntimeError("Sampler (node 5): no"), torch.OutOfMemoryError("")),
    unloads(RuntimeError("Sampler (node 5): no"), OutOfMemoryError("no")),
    unloads(RuntimeError("NaN"), ValueError("no")),
    unloads(RuntimeError("NaN")),
]))
"""
    assert shown(code) == [1, 1, 1, 0, 0]


def test_a_preview_without_room_ends_no_film() -> None:
    """It is tried until it runs out of memory, then the latents' colours are shown; the log says so once."""
    code = """
tried, notes, last = [], [], len(plan.blocks) - 1

def preview(block):
    tried.append(block.index)
    if block.index:
        raise OutOfMemoryError("decoding latent frame 9 ran out of memory")
    return torch.zeros(8, 4, 4, 3, dtype=torch.uint8)

previews.log.addHandler(logging.Handler())
previews.log.warning = lambda text, *_: notes.append(text)
with run_stream.StreamRun(stream(), preview=preview) as one:
    made = [block.index for block in one]
print(json.dumps([made, tried, notes]))
"""
    made, tried, notes = shown(code)
    assert made == [0, 1, 2, 3] and tried == [0, 1]
    assert notes == ["LongLive: the preview VAE ran out of memory; the preview shows colours computed from the latents"]


def test_a_preview_shows_eight_frames_of_a_second() -> None:
    """Of a block's 32 frames every third one is shown, in whatever pieces they are decoded; of latent frames all."""
    code = """
run = stream()
shows = previews.StreamPreview(run, previews.LatentColours(run.latent_format))
numbered = [torch.full((1, 4, 4, 3), number, dtype=torch.uint8) for number in range(32)]
shown = []
for size in (32, 4, 5):
    for start in range(0, 32, size):
        shows.decoded(plan.blocks[size % 4], torch.cat(numbered[start : start + size]))
    shown.append([picture.getpixel((0, 0))[0] for picture in shows._frames])
    shows._decoded = None
shows.block(next(iter(film.run())))
print(json.dumps([*shown, len(shows._frames)]))
"""
    whole, fours, fives, latents = shown(code)
    assert whole == fours == fives == list(range(0, 32, 3))
    assert latents == 8


def test_what_is_left_to_make_is_asked_once() -> None:
    """A film on disk reads its blocks for the answer: a drawing of four blocks asks once."""
    code = """
made = []
for mode in ("async", "sequential", "off"):
    with run_stream.StreamRun(stream(unsure()), mode=mode) as one:
        made += [block.index for block in one.shown(one.stage("sampling", one.blocks()))]
    made.append(len(asked))
print(json.dumps(made))
"""
    assert shown(code) == [0, 1, 2, 3, 1, 0, 1, 2, 3, 2, 0, 1, 2, 3, 3]


def test_models_that_were_pushed_out_come_back() -> None:
    """A text encoded while the film is made: nobody else is given the device, and all that was loaded is loaded again.

    Sampling and decoding share the device where all weights stay there, and take turns where they move. Where memory
    runs out, models go that the drawing has no use for.
    """
    code = """
calls, freed, kept = [], [], {}
names = lambda models: [one.name for one in models]
management.load_models_gpu = lambda models, memory_required: calls.append([names(models), memory_required])
management.free_memory = lambda memory, device, keep_loaded: freed.append(names(one.model for one in keep_loaded))
management.get_free_memory = lambda _: 100

def patcher(name, **more):
    still = Some(model_lowvram=False)
    return Some(**{"name": name, "model_patches_models": list, "is_dynamic": lambda: False, "model": still, **more})

dit, vae, clip = (patcher(name) for name in ("dit", "vae", "clip"))
management.current_loaded_models = [Some(model=one) for one in (clip, dit, vae)]
lock = DeviceLock(torch.device("meta"))
lock.load([dit, vae], 9)
spec = film_specs.FilmSpec(model, {"a": 1}, plan, LatentShape(1, 48, 8, 4, 4), SamplerSettings((4, 4)), lock)

def encode(prompt):
    def other():
        if lock._lock.is_free():
            free.append(True)
    free = []
    thread = threading.Thread(target=other)
    thread.start()
    thread.join(10)
    return prompt + str(free)

spec = replace(spec, encode=encode)
text = [spec.text("a"), spec.text("b")]
sampler_settings.generate = lambda *_, **more: kept.update(more)
spec(plan, None, None, None)
kept["free"]()
lock.end_run()
lock.reload()

def beside(*models):
    # Whether weights stay, whether another thread works at the same time, and the same once all weights are there.
    lock.load(models, 9)
    def shared():
        with lock.work():
            other = threading.Thread(target=lambda: worked.append(lock.work().__enter__()), daemon=True)
            other.start()
            other.join(0.3)
            return not other.is_alive()
    worked = []
    found = [lock.stays, shared()]
    for one in models:
        one.loaded_size = one.model_size
    return [*found, shared()]

def streamed(size):
    return patcher("streamed", is_dynamic=lambda: True, model_size=lambda: size, loaded_size=lambda: 0)

dit.model_size = dit.loaded_size = lambda: 50
low = patcher("low", model=Some(model_lowvram=True), model_size=lambda: 1)
taken = []
for models in ([dit], [dit, streamed(80)], [streamed(99)], [low]):
    lock = DeviceLock(torch.device("meta"))
    taken.append(beside(*models))
print(json.dumps([text, calls[:2], freed, taken]))
"""
    text, calls, freed, taken = shown(code)
    assert text == [1, "b[]"]
    assert calls == [[["dit", "vae"], 9]] * 2
    assert freed == [["dit", "vae"]]
    resident, fits, moving, low = taken
    assert resident == [True, True, True] and fits == [True, False, True]
    assert moving == low == [False, False, False]


def test_a_film_that_cannot_be_drawn_leaves_no_file(tmp_path: Path) -> None:
    """What is refused before the drawing begins leaves no empty film with a number of its own."""
    code = """
import folder_paths
folder_paths.set_output_directory(sys.argv[2])

def refuse(*_, **__):
    raise ValueError("no take")

async_decode.StreamRun = refuse
async_decode.decoder = async_decode.slice_bytes = async_decode.decoder_patcher = lambda *_: None
with suppress(ValueError):
    async_decode.AsyncDecode.hidden = Some(unique_id="1")
    async_decode.AsyncDecode.execute(stream(), Some(patcher=model), "film", "h264", "high")
print(json.dumps([path.name for path in Path(sys.argv[2]).iterdir()]))
"""
    assert shown(code, tmp_path) == []


def test_a_script_is_read_beside_the_server() -> None:
    """A change is parsed in a thread, so that a long one holds nobody up; one that is too long is not read at all."""
    code = """
import asyncio
import io
from aiohttp import web
threads = []
wrong = Some(version=1, begun=0, script=Some(shots=()), change=lambda *_: threads.append(threading.current_thread()))
from longlive.nodes.routes.films import FilmRoutes
scripts = FilmRoutes(films)

async def post(body, **headers):
    left = io.BytesIO(body)
    async def read(most):
        return left.read(min(most, 2**16))  # a body arrives in pieces
    request = Some(match_info={"key": "12:5"}, query={}, headers=headers, content=Some(read=read))
    with films.making(stream()) as film:
        film.scripts = {"12:5": wrong}
        try:
            return (await scripts.change(request)).status
        except web.HTTPException as error:
            return error.status

async def main():
    good = json.dumps({"script": "Shot 1: a ring"}).encode()
    proxied = {"Sec-Fetch-Site": "same-origin", "Origin": "https://studio.example", "Host": "127.0.0.1:8188"}
    return [await post(good, **proxied), await post(b" " * (2**24 + 1)), await post(b"[" * 100_000)]

codes = asyncio.run(main())
print(json.dumps([codes, [thread is threading.main_thread() for thread in threads]]))
"""
    assert shown(code) == [[200, 413, 400], [False]]
