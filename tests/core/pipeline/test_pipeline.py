"""Stages in threads: their bound, their end and their errors; and a film's stages with every fault put into them."""

from __future__ import annotations

import gc
import random
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from weakref import ref

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import CausalWan
from longlive.longlive_core.oom import OutOfMemoryError, is_out_of_memory, retry_on_oom
from longlive.longlive_core.pipeline.stages import MODES, Mode, Pipeline, Stage, StageError, staged
from longlive.longlive_core.render.write_film import Progress, Render
from longlive.longlive_core.sampling.generate import NotFiniteError, generate
from longlive.longlive_core.script import ShotScript
from longlive.longlive_core.transfer import HostCopy
from longlive.longlive_core.types import Block
from longlive.longlive_core.vae import DecodeStream, State, WanVAE
from longlive.longlive_core.video import VideoWriter, read_video
from torch import Tensor

from ..full_disk import files_no_larger_than
from ..takes import BLOCKS, MODEL, SCRIPT, VAE, after

FRAMES = 29 + (BLOCKS - 1) * 32
SIZE = (4, 4)
STEPS = 2


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Whoever failed, and however the consumer went."""
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("longlive-")] == []


def bounded(work: Callable[[], Any], seconds: float = 60) -> Any:  # noqa: ANN401
    """What `work` returns or raises; fails rather than hang."""
    ended: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            ended.append((True, work()))
        except BaseException as error:
            ended.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert ended, f"still at work after {seconds} s"
    good, value = ended[0]
    if good:
        return value
    raise value


def settled_count(count: Callable[[], int]) -> int:
    """The count, once it has stood still for a while."""
    last, since = count(), perf_counter()
    while perf_counter() - since < 0.2:
        sleep(0.01)
        if count() != last:
            last, since = count(), perf_counter()
    return last


class Numbers:
    """Counts up to `total`; `made` is how many were handed on. Fails at `bad`."""

    def __init__(self, total: int = 1_000_000, bad: int | None = None) -> None:
        self.total, self.bad, self.made, self.closed = total, bad, 0, False

    def __iter__(self) -> Iterator[int]:
        try:
            for number in range(self.total):
                if number == self.bad:
                    raise ZeroDivisionError(f"number {number}")
                self.made += 1
                yield number
        finally:
            self.closed = True


def doubled(items: Iterable[int], bad: int | None = None) -> Iterator[int]:
    for item in items:
        if item == bad:
            raise ZeroDivisionError(f"double {item}")
        yield 2 * item


def chain(line: Pipeline, numbers: Numbers, bad: int | None = None) -> Stage[int]:
    """Three stages, one item ahead each."""
    first = line.stage("first", numbers)
    return line.stage("third", doubled(line.stage("second", doubled(first, bad))))


def test_stages_hand_on_everything_in_order() -> None:
    """Stages hand on every item, in order."""
    with Pipeline() as line:
        assert bounded(lambda: list(chain(line, Numbers(50)))) == [4 * i for i in range(50)]


@pytest.mark.slow
def test_a_slow_consumer_holds_every_stage_up() -> None:
    """One finished item of each stage waits, and one is in each hand behind the first."""
    numbers = Numbers()
    with Pipeline() as line:
        third = chain(line, numbers)
        for taken in range(4):
            assert settled_count(lambda: numbers.made) <= taken + 3 + 2
            assert next(third) == 4 * taken
    assert numbers.closed


@pytest.mark.parametrize(("bad", "stage"), [((5, None), "first"), ((None, 5), "second")])
def test_an_error_comes_once_behind_the_good_items(bad: tuple[int | None, int | None], stage: str) -> None:
    """It names its stage, its cause has its own traceback, and what came before it is not lost."""
    numbers, got = Numbers(bad=bad[0]), list[int]()
    with Pipeline() as line:
        third = chain(line, numbers, bad[1])
        with pytest.raises(StageError, match=rf"^{stage}: (number|double) 5$") as raised:
            bounded(lambda: got.extend(third))
        assert got == [0, 4, 8, 12, 16]
        assert list(third) == [] and third.done
    cause = raised.value.__cause__
    assert isinstance(cause, ZeroDivisionError) and raised.value.stage == stage
    entry = cause.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    assert entry is not None and entry.tb_frame.f_code.co_name == ("__iter__" if stage == "first" else "doubled")
    assert numbers.closed


def test_a_failed_stage_stops_those_before_it_while_nobody_looks() -> None:
    """A stage that fails stops the stages before it, though no consumer takes an item."""
    numbers = Numbers()
    with Pipeline() as line:
        chain(line, numbers, bad=1)
        assert settled_count(lambda: numbers.made) <= 4 and numbers.closed


def test_a_system_error_is_told_in_words() -> None:
    """An OSError in a stage is one line with the stage, the path and the reason, without its number."""

    def missing() -> Iterator[int]:
        raise FileNotFoundError(2, "No such file", "/films/a.mp4")
        yield 0

    with pytest.raises(StageError, match=r"^reading: /films/a\.mp4: No such file$"):
        list(staged("reading", missing()))


def test_an_abandoned_iterator_ends_its_stages() -> None:
    """An iterator over stages that is closed early ends every stage and closes the source."""
    numbers = Numbers()

    def some() -> Iterator[int]:
        with Pipeline() as line:
            yield from chain(line, numbers)

    items = some()
    assert next(items) == 0
    bounded(items.close)  # type: ignore[attr-defined]
    assert numbers.closed


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stage_computes_as_who_begins_it(threads: int) -> None:
    """With as many threads in an operation: `--threads` holds for all stages, and bits do not depend on the mode."""
    torch.set_num_threads(threads)
    # A new thread would take over the number that was set last, whoever set it.
    other = threading.Thread(target=torch.set_num_threads, args=(threads + 1,))
    other.start()
    other.join()
    with Pipeline() as line:
        assert list(line.stage("counting", (torch.get_num_threads() for _ in range(1)))) == [threads]


def test_leaving_at_random_moments_never_hangs() -> None:
    """A pipeline that is left at any moment ends its stages and closes the source, if it was begun."""
    rng = random.Random(7)
    for _ in range(40):
        numbers, moment = Numbers(), rng.random() * 0.01

        def leave(numbers: Numbers = numbers, moment: float = moment) -> None:
            with Pipeline() as line:
                third, end = chain(line, numbers), perf_counter() + moment
                while perf_counter() < end:
                    third.take(0.001)

        bounded(leave, 10)
        assert numbers.closed or numbers.made == 0, moment


def test_nothing_holds_what_passed_through() -> None:
    """Items are gone when their consumer lets them go, and all of them after the end: no cycle keeps latents."""

    class Latents:
        pass

    held: list[ref[Latents]] = []

    def make() -> Iterator[Latents]:
        for _ in range(5):
            item = Latents()
            held.append(ref(item))
            yield item
            del item
        raise RuntimeError("went wrong")

    def run() -> None:
        with Pipeline() as line:
            items = line.stage("second", (item for item in line.stage("first", make())))
            taken = next(items)
            assert held[0]() is taken
            while len(held) < 3:
                sleep(0.01)
        del taken
        assert [item() for item in held if item() is not None] == [] and items.done is False
        with Pipeline() as line:
            try:
                list(line.stage("second", (item for item in line.stage("first", make()))))
            except StageError:
                return

    gc.collect()
    gc.disable()
    try:
        run()
        assert [item() for item in held if item() is not None] == []
    finally:
        gc.enable()


# Room in memory.


def full(kind: type[Exception] = torch.OutOfMemoryError) -> Exception:
    return kind("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (full(), True),
        (full(RuntimeError), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_is_out(error: Exception, expected: bool) -> None:
    """Out-of-memory errors of CUDA, cuBLAS, PyTorch's CPU allocator and Python count as such; other errors do not."""
    assert is_out_of_memory(error) is expected


def test_work_is_done_once_more_after_freeing() -> None:
    """The first attempt's tensors are freed before the retry frees memory."""
    kept: list[ref[Numbers]] = []
    freed: list[bool] = []

    def work() -> str:
        mine = Numbers()
        kept.append(ref(mine))
        if len(kept) == 1:
            raise full()
        return "done"

    assert retry_on_oom(work, lambda: freed.append(kept[0]() is None)) == "done"
    assert freed == [True]


def test_twice_without_room_is_told_with_remedies() -> None:
    """A second out-of-memory error names the work, the cause and remedies; any other error is raised unchanged."""

    def work() -> None:
        raise full()

    with pytest.raises(
        OutOfMemoryError, match=r"^decoding latent frame 3 ran out of memory.*2\.00 GiB.*smaller.*nvfp4"
    ):
        retry_on_oom(work, lambda: None, "decoding latent frame 3")
    with pytest.raises(ValueError, match="another"):
        retry_on_oom(lambda: (_ for _ in ()).throw(ValueError("another")))


# A film.


@pytest.fixture(scope="module")
def whole(mini: Mini) -> Tensor:
    """Every frame, with no stage in a thread and nothing written."""
    stream = DecodeStream(mini.vae)
    for block in film(mini):
        stream.feed(block.latents)
    return torch.cat(stream.flush())


@pytest.fixture(scope="module")
def played(mini: Mini, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """The frames as the whole film's file plays them."""
    path = tmp_path_factory.mktemp("whole") / "film.mp4"
    assert make(mini, path).run(film(mini))
    return read_video(path)


def film(mini: Mini, **options: Any) -> Iterator[Block]:  # noqa: ANN401
    plan = ShotScript.parse(SCRIPT).plan()
    return generate(mini.model, plan, mini.encode_text, size=SIZE, steps=STEPS, **options)


def make(mini: Mini, path: Path, mode: Mode = "async", **options: Any) -> Render:  # noqa: ANN401
    return Render(ShotScript.parse(SCRIPT).plan(), mini.vae, path, size=SIZE, mode=mode, **options)


def check(render: Render, path: Path, played: Tensor) -> int:
    """The frames in the file are counted, and they are the beginning of the whole film."""
    frames = read_video(path)
    assert len(frames) == render.video_frames
    assert torch.equal(frames, played[: len(frames)])
    return len(frames)


class FragileVAE(WanVAE):
    """Raises `error` when it decodes latent frame `bad`, as often as `times`."""

    bad, times, error, decoded = -1, 0, RuntimeError("the decoder broke"), 0

    def decode_chunk(self, latents: Tensor, state: State | None) -> tuple[Tensor, State]:
        if self.decoded == self.bad and self.times > 0:
            self.times -= 1
            raise self.error
        self.decoded += 1
        return super().decode_chunk(latents, state)


def fragile(mini: Mini, bad: int, times: int, error: Exception) -> Mini:
    vae = FragileVAE(VAE).requires_grad_(False)
    vae.load_state_dict(mini.vae.state_dict())
    vae.bad, vae.times, vae.error = bad, times, error
    return replace(mini, vae=vae)


modes = pytest.mark.parametrize("mode", MODES)


@pytest.mark.slow
@modes
def test_every_mode_makes_the_same_film(
    mini: Mini, tmp_path: Path, whole: Tensor, played: Tensor, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, before and after encoding; progress is reported in order, in the caller's thread."""
    pieces: list[Tensor] = []
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, frames: (pieces.append(frames), write(self, frames))[1])
    told: list[tuple[int, str]] = []

    def tell(progress: Progress) -> None:
        told.append((progress.video_frames, threading.current_thread().name))

    render = make(mini, tmp_path / "a.mp4", mode, on_progress=tell)
    assert render.run(film(mini)) and check(render, tmp_path / "a.mp4", played) == FRAMES
    assert torch.equal(torch.cat(pieces), whole)
    here = threading.current_thread().name
    assert told == [(1 + 4 * i, here) for i in range(8 * BLOCKS)]


@pytest.mark.slow
@modes
def test_a_decoder_that_breaks(mini: Mini, tmp_path: Path, played: Tensor, mode: Mode) -> None:
    """An error of the decoder is raised with its stage, and every frame that was decoded is in the file."""
    broken = fragile(mini, 19, 1, RuntimeError("the decoder broke"))
    render = make(broken, tmp_path / "a.mp4", mode)
    with pytest.raises(StageError, match=r"^decoding: the decoder broke$"):
        bounded(lambda: render.run(film(mini)))
    assert check(render, tmp_path / "a.mp4", played) == 1 + 4 * 18


@pytest.mark.slow
@modes
def test_an_encoder_that_breaks(
    mini: Mini, tmp_path: Path, played: Tensor, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the encoder is raised with its stage, and every frame that was encoded is in the file."""
    write = VideoWriter.write

    def breaking(self: VideoWriter, frames: Tensor) -> None:
        if self.frames > 60:
            raise RuntimeError("the encoder broke")
        write(self, frames)

    monkeypatch.setattr(VideoWriter, "write", breaking)
    render = make(mini, tmp_path / "a.mp4", mode)
    with pytest.raises(StageError, match=r"^writing: the encoder broke$"):
        bounded(lambda: render.run(film(mini)))
    assert check(render, tmp_path / "a.mp4", played) == 61


@pytest.mark.linux
@pytest.mark.slow
@modes
def test_a_full_disk(mini: Mini, tmp_path: Path, played: Tensor, mode: Mode) -> None:
    """A full disk raises an error with stage and file, and the file plays the beginning of the film."""
    render = make(mini, tmp_path / "a.mp4", mode)
    with (
        files_no_larger_than(100_000),
        pytest.raises(StageError, match=r"^writing: .*a\.mp4: the film stopped growing"),
    ):
        bounded(lambda: render.run(film(mini)))
    frames = read_video(tmp_path / "a.mp4")
    assert 0 < len(frames) < FRAMES and torch.equal(frames, played[: len(frames)])


class NanModel(CausalWan):
    """Gives NaN from a given model call on."""

    bad_from, calls = 0, 0

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:  # type: ignore[override]
        self.calls += 1
        flow = super().forward(x, *rest)  # type: ignore[arg-type]
        return flow if self.calls <= self.bad_from else flow * float("nan")


@pytest.mark.slow
@modes
def test_nan_from_the_model(mini: Mini, tmp_path: Path, played: Tensor, mode: Mode) -> None:
    """The blocks before it are decoded, whatever the mode."""
    model = NanModel(MODEL).requires_grad_(False)
    model.load_state_dict(mini.model.state_dict())
    model.bad_from = 3 * STEPS
    render = make(mini, tmp_path / "a.mp4", mode)
    with pytest.raises(StageError, match=r"^sampling: block 3 \(shot 3.*NaN or infinite") as raised:
        bounded(lambda: render.run(film(replace(mini, model=model))))
    assert isinstance(raised.value.__cause__, NotFiniteError)
    assert check(render, tmp_path / "a.mp4", played) == 29 + 2 * 32


@pytest.mark.slow
@modes
@pytest.mark.parametrize("bad", [0, 19])
def test_memory_that_runs_out_once_costs_nothing(
    mini: Mini, tmp_path: Path, played: Tensor, mode: Mode, bad: int
) -> None:
    """A decoder that runs out of memory once is called again, and the film is the same to the bit."""
    render = make(fragile(mini, bad, 1, full()), tmp_path / "a.mp4", mode)
    assert bounded(lambda: render.run(film(mini)))
    assert check(render, tmp_path / "a.mp4", played) == FRAMES


@pytest.mark.slow
@modes
def test_memory_that_runs_out_twice_is_told(mini: Mini, tmp_path: Path, played: Tensor, mode: Mode) -> None:
    """A decoder that runs out of memory twice raises an error with the latent frame; all before it is in the file."""
    render = make(fragile(mini, 19, 2, full()), tmp_path / "a.mp4", mode)
    with pytest.raises(StageError, match=r"^decoding: decoding latent frame 19 ran out of memory") as raised:
        bounded(lambda: render.run(film(mini)))
    assert isinstance(raised.value.__cause__, OutOfMemoryError)
    assert check(render, tmp_path / "a.mp4", played) == 1 + 4 * 18


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["async", "sequential"])
def test_a_slow_consumer_bounds_the_blocks_in_flight(mini: Mini, tmp_path: Path, mode: Mode) -> None:
    """While a frame is shown for ever, sampling halts a few blocks ahead."""
    made: list[int] = []
    gate = threading.Event()

    def blocks() -> Iterator[Block]:
        for block in film(mini):
            made.append(block.index)
            yield block

    render = make(mini, tmp_path / "a.mp4", mode, on_progress=lambda _: gate.wait(30) and None)
    thread = threading.Thread(target=lambda: render.run(blocks()), daemon=True)
    thread.start()
    try:
        assert 1 <= settled_count(lambda: len(made)) <= 4
    finally:
        gate.set()
        thread.join(60)
    assert len(made) == BLOCKS and render.complete


@pytest.mark.slow
@modes
def test_a_consumer_that_is_gone(
    mini: Mini, tmp_path: Path, played: Tensor, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is raised unchanged, and all decoded frames are in the file."""
    decoded: list[int] = []
    copies = DecodeStream.copies

    def count(self: DecodeStream) -> list[HostCopy]:
        made = copies(self)
        decoded.extend(len(copy.tensor) for copy in made)
        return made

    monkeypatch.setattr(DecodeStream, "copies", count)

    def leave(progress: Progress) -> None:
        if progress.video_frames > 40:
            raise KeyboardInterrupt

    render = make(mini, tmp_path / "a.mp4", mode, on_progress=leave)
    with pytest.raises(KeyboardInterrupt):
        bounded(lambda: render.run(film(mini)))
    assert 40 < sum(decoded) == check(render, tmp_path / "a.mp4", played) < FRAMES


@pytest.mark.slow
@modes
@pytest.mark.parametrize("calls", [0, 1, 9, 30])
def test_a_stop_before_a_latent_frame(mini: Mini, tmp_path: Path, played: Tensor, mode: Mode, calls: int) -> None:
    """Exactly what was decoded before it is in the file."""
    render = make(mini, tmp_path / "a.mp4", mode, should_stop=after(calls))
    assert not bounded(lambda: render.run(film(mini)))
    assert check(render, tmp_path / "a.mp4", played) == (1 + 4 * (calls - 1) if calls else 0)


@pytest.mark.slow
@modes
def test_stops_at_random_moments(mini: Mini, tmp_path: Path, played: Tensor, mode: Mode) -> None:
    """A film that is stopped at any moment has the beginning of the whole film in its file."""
    rng = random.Random(7)
    for number in range(6):
        asked = threading.Event()
        path = tmp_path / f"{number}.mp4"
        render = make(mini, path, mode, should_stop=asked.is_set)
        timer = threading.Timer(rng.random() * 0.5, asked.set)
        timer.start()
        bounded(lambda render=render, asked=asked: render.run(film(mini, should_stop=asked.is_set)))
        timer.cancel()
        timer.join()
        check(render, path, played)


@pytest.mark.slow
def test_the_first_latent_frame_is_written_before_its_block_is_decoded(
    mini: Mini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding continues only after its first frame is in the file."""
    written = threading.Event()
    write, feed = VideoWriter.write, DecodeStream.feed
    waited: list[bool] = []

    def tell(self: VideoWriter, frames: Tensor) -> None:
        write(self, frames)
        written.set()

    def hold(self: DecodeStream, latents: Tensor) -> None:
        if self.state is not None and not waited:
            waited.append(written.wait(20))
        feed(self, latents)

    monkeypatch.setattr(VideoWriter, "write", tell)
    monkeypatch.setattr(DecodeStream, "feed", hold)
    assert make(mini, tmp_path / "a.mp4").run(film(mini))
    assert waited == [True]


@pytest.fixture
def words(mini: Mini, tmp_path: Path) -> list[str]:
    """A command line that renders the film."""
    mini.save(tmp_path / "mini", torch.float32)
    (tmp_path / "script.txt").write_text(SCRIPT)
    film = ["render", str(tmp_path / "script.txt"), "-o", str(tmp_path / "film.mp4"), "--no-take", "--seam", "plain"]
    return [*film, "--model", str(tmp_path / "mini"), "--size", "64x64", "--steps", str(STEPS)]


@pytest.mark.linux
@pytest.mark.slow
@modes
def test_the_command_line_says_it_in_one_line(
    words: list[str], mode: Mode, played: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the stage, the file and the remedy, and how much of the film is in the file."""
    with files_no_larger_than(100_000):
        code = main([*words, "--decode", mode])
    *_, kept, out = capsys.readouterr().err.splitlines()
    frames = read_video(tmp_path / "film.mp4")
    assert code == 2 and 0 < len(frames) < FRAMES and torch.equal(frames, played[: len(frames)])
    assert re.fullmatch(r"longlive: writing: \S+film\.mp4: the film stopped growing .*free some space.*", out)
    assert re.fullmatch(rf"\S+film\.mp4 plays: \d+ of {FRAMES} frames, .*", kept)


def test_the_command_line_shows_an_error_of_our_own_whole(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line raises a mistake in the code itself, and does not shorten it to one line."""

    def broken(*_: object) -> None:
        raise TypeError("a mistake in the code")

    monkeypatch.setattr(VideoWriter, "write", broken)
    with pytest.raises(StageError, match="a mistake in the code"):
        main(words)
