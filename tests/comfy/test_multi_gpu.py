"""LongLive Multi-GPU: processes of the server share a film, equal to one process, and never outlive their work."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.take import Take

from .graphs import MEMORY, MINI, SAMPLER, Prompt, film, film_frames, kept_latent, latent, latents, node, save_lora
from .host import Host, Start
from .run import Event, Run

pytestmark = pytest.mark.comfy

# Steps that may end while an interrupt travels.
UNDER_WAY = 8
DOES = ((1, "sways"), (2, "rests"))
SHARE, LORA, TAKE = "50", "51", "52"
PATIENCE = 120
LONG = "\n".join(f"Shot {number} (4s): a big red ring {does} in front of a plain wall" for number, does in DOES)


@pytest.fixture(scope="module")
def host(start: Start) -> Iterator[Host]:
    """A server of its own, whose processes nobody else starts or ends."""
    with start() as own:
        yield own


def shared(prompt: Prompt, model: str = MINI, **more: object) -> Prompt:
    """The prompt, whose sampler has the MODEL of a node through LongLive Multi-GPU. more: inputs of that node."""
    sampler = {**prompt[SAMPLER], "inputs": {**prompt[SAMPLER]["inputs"], "model": [SHARE, 0]}}
    return {**prompt, SHARE: node("LongLiveMultiGPU", model=[model, 0], gpus="2", **more), SAMPLER: sampler}


def children(pid: int) -> list[int]:
    """The processes that a process has started and that run, by their ids."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def workers(host: Host) -> list[int]:
    """The processes of the ranks, which are those of Python's spawn."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(host.process.pid)}
    return sorted(pid for pid, line in lines.items() if b"spawn_main" in line)


def runs(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def settled(reached: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether a state is reached within seconds."""
    end = time.monotonic() + seconds
    while not (now := reached()) and time.monotonic() < end:
        time.sleep(0.02)
    return now


@dataclass
class At:
    """Does something when the sampler has reported so many steps of the film; remembers when."""

    steps: int
    action: Callable[[], object]
    done: float | None = None

    def __call__(self, run: Run, _: Event) -> None:
        states = run.progress[SAMPLER]
        if self.done is None and states and states[-1]["value"] >= self.steps:
            self.done = time.monotonic()
            self.action()

    def since(self) -> float:
        """Seconds since then."""
        assert self.done is not None
        return time.monotonic() - self.done


def test_a_shared_film_is_that_of_one_process(host: Host) -> None:
    """Two processes make the latents of one, to the bit; another film of the MODEL is made by the same processes."""
    alone = host.run(latent(seed=5), PATIENCE)
    together = host.run(shared(latent(seed=5)), PATIENCE)
    assert alone.ok and together.ok, together.error
    assert torch.equal(latents(host, alone), latents(host, together))
    before = workers(host)
    assert len(before) == 2
    again = host.run(shared(latent(seed=6)), PATIENCE)
    assert again.ok, again.error
    assert workers(host) == before


@pytest.mark.parametrize(
    "settings", [{"guidance": 2.0, "kv_format": "nvfp4", "seam": "align"}, {"storyboard": "first", "kv_format": "fp8"}]
)
def test_settings_of_a_shared_film(host: Host, settings: dict[str, object]) -> None:
    """Guidance, aligned seams, storyboards and KV caches in few bits: the film is that of one process, to the bit."""
    prompt = latent(seed=8, **{name: value for name, value in settings.items() if name != "kv_format"})
    prompt[MEMORY]["inputs"]["kv_format"] = settings["kv_format"]
    alone, together = host.run(prompt, PATIENCE), host.run(shared(prompt), PATIENCE)
    assert alone.ok and together.ok, together.error
    assert torch.equal(latents(host, alone), latents(host, together))


def test_split_guidance(host: Host) -> None:
    """A process for each branch: the film is that of one process, to the bit; one without guidance is refused."""
    alone = host.run(latent(seed=8, guidance=2.0), PATIENCE)
    split = host.run(shared(latent(seed=8, guidance=2.0), split_guidance=True), PATIENCE)
    assert alone.ok and split.ok, split.error
    assert torch.equal(latents(host, alone), latents(host, split))
    assert split.outputs[SHARE]["text"][0].endswith("; each half has a branch of guidance")
    refused = host.run(shared(latent(seed=8), split_guidance=True), PATIENCE)
    assert refused.error is not None and refused.error["node_id"] == SAMPLER
    assert "set another guidance, or turn split_guidance off" in refused.error["exception_message"]


@pytest.mark.parametrize("mode", ["merge", "bypass"])
def test_a_lora_is_shared_as_its_node_applied_it(host: Host, mode: str) -> None:
    """The processes read the LoRA of our node from its file, before this node and behind it; others end before.

    Merged, the film is that of one process, to the bit. Beside the layers, core multiplies in another order.
    """
    name = save_lora(host, "shared.safetensors", {"blocks.0.self_attn.q": (192, 192), "blocks.1.ffn.0": (768, 192)})
    before = workers(host)

    def lora(model: str) -> Prompt:
        return {LORA: node("LongLiveDMDLora", model=[model, 0], lora_name=name, strength=0.7, mode=mode)}

    alone = {**latent(seed=9, model=[LORA, 0]), **lora(MINI)}
    ahead = {**shared(latent(seed=9), LORA), **lora(MINI)}
    behind = {**shared(latent(seed=9)), **lora(SHARE)}
    behind[SAMPLER]["inputs"]["model"] = [LORA, 0]
    runs = [host.run(prompt, PATIENCE) for prompt in (alone, ahead, behind)]
    assert all(run.ok for run in runs), [run.error for run in runs]
    one, two, three = (latents(host, run) for run in runs)
    assert not torch.equal(one, latents(host, host.run(latent(seed=9), PATIENCE)))
    assert torch.equal(two, three)
    assert torch.equal(one, two) if mode == "merge" else (one - two).norm() < 1e-3 * one.norm()
    assert len(workers(host)) == 2 and not set(workers(host)) & set(before)


def test_what_cannot_be_shared_is_refused(host: Host) -> None:
    """A LoRA of another loader has no file that is known: the run ends at this node, and says what to use."""
    name = save_lora(host, "other.safetensors", {"blocks.0.self_attn.q": (192, 192)})
    other = {LORA: node("LoraLoaderModelOnly", model=[MINI, 0], lora_name=name, strength_model=1.0)}
    run = host.run({**shared(latent(), LORA), **other}, PATIENCE)
    assert run.error is not None and run.error["node_id"] == SHARE
    assert "LongLive DMD LoRA" in run.error["exception_message"]


def test_a_cancelled_film_goes_on(host: Host) -> None:
    """A cancel ends the run with the step under way and leaves the processes; queued again, the film goes on."""
    cancel = At(6, host.interrupt)
    run = host.run(shared(film(LONG, 7)), PATIENCE, on_event=cancel)
    assert run.interrupted and cancel.since() < 3.0  # of which all but a step is the machine's other work
    steps = [state["value"] for state in run.progress[SAMPLER] if state["state"] == "running"]
    assert max(steps) <= 6 + UNDER_WAY
    kept = workers(host)
    assert len(kept) == 2
    again = host.run(shared(film(LONG, 7)), PATIENCE)
    assert again.ok, again.error
    assert any("finished already" in line for line in again.texts[SAMPLER])
    assert workers(host) == kept
    whole = host.run(film(LONG, 7), PATIENCE)
    assert torch.equal(film_frames(host, again), film_frames(host, whole))


def test_a_take_goes_on_with_several_processes(host: Host) -> None:
    """A take that one process began is finished by two, as one would have; they make versions of its shots at once."""

    def in_take(prompt: Prompt) -> Prompt:
        take = node("LongLiveSaveTake", stream=[SAMPLER, 0], name_prefix="takes/shared")
        return {**prompt, TAKE: take, **kept_latent([TAKE, 0])}

    cancel = At(10, host.interrupt)
    begun = host.run(in_take(latent(seed=12)), PATIENCE, on_event=cancel)
    assert begun.interrupted
    ended = host.run(in_take(shared(latent(seed=12))), PATIENCE)
    assert ended.ok, ended.error
    assert any("finished already" in line for line in ended.texts[SAMPLER])
    assert torch.equal(latents(host, ended), latents(host, host.run(latent(seed=12), PATIENCE)))
    versions = node("LongLiveShotVersions", stream=[TAKE, 0], vae=[MINI, 2], shot=2, versions=2)
    made = host.run({**in_take(shared(latent(seed=12))), "53": versions}, PATIENCE)
    assert made.ok, made.error
    (folder,) = (host.base / "output" / "takes").glob("shared*")
    assert len(Take.load(folder).shots[1].versions) == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run(host: Host, rank: int) -> None:
    """The run ends within seconds with the reason, and the other process too; the next run makes the film."""
    kill = At(6, lambda: os.kill(workers(host)[rank], signal.SIGKILL))
    run = host.run(shared(film(LONG, 20 + rank)), PATIENCE, on_event=kill)
    assert run.error is not None and kill.since() < 5.0
    assert f"rank {rank} of 2 was ended by SIGKILL" in run.error["exception_message"]
    assert settled(lambda: workers(host) == [])
    again = host.run(shared(film(LONG, 20 + rank)), PATIENCE)
    assert again.ok, again.error
    assert any("finished already" in line for line in again.texts[SAMPLER])
    assert torch.equal(film_frames(host, again), film_frames(host, host.run(film(LONG, 20 + rank), PATIENCE)))


def test_unloaded_models_end_the_processes(host: Host) -> None:
    """When the host frees its models, the processes end; the next film starts others."""
    assert host.run(shared(latent(seed=31)), PATIENCE).ok
    assert len(workers(host)) == 2
    host.post("/free", {"unload_models": True})
    assert settled(lambda: workers(host) == [])
    again = host.run(shared(latent(seed=32)), PATIENCE)
    assert again.ok, again.error


@pytest.mark.parametrize("steps", [0, 12])
def test_no_process_outlives_a_killed_server(start: Start, steps: int) -> None:
    """Kill -9 of the server, while processes start or while they work: all of them are gone within seconds."""
    with start() as own:
        own.queue(shared(film(LONG, 1)))
        assert settled(lambda: len(workers(own)) == 2)
        time.sleep(0.3 * steps)
        left = children(own.process.pid)
        own.process.kill()
        own.process.wait()
        assert settled(lambda: not any(runs(pid) for pid in left)), [pid for pid in left if runs(pid)]
