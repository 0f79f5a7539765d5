"""The films that are made and were made while this server runs: what the canvas shows of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from threading import Lock
from typing import Any, Literal

from comfy.model_management import InterruptProcessingException
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..longlive_core.film.live_script import LiveScript
from ..longlive_core.pipeline.stages import format_error
from .keep_settings import USER
from .types import Stream

EVENT = "longlive.film"
# Films that are remembered; the oldest ones that are not being made are forgotten first. Pages whose user is known.
MAX_FILMS, MAX_PAGES = 500, 1000

State = Literal["waiting", "making", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Place:
    """Where a film is made. client: the page whose prompt runs, None for a prompt without one. node: as in `12:5`."""

    client: str | None
    workflow: str
    prompt: str
    node: str

    @property
    def key(self) -> str:
        """The film's key: workflow and node alone would show a page the films of other pages, which share templates."""
        return hashlib.sha256(json.dumps([self.client, self.workflow, self.node]).encode()).hexdigest()[:24]

    @classmethod
    def current(cls) -> Place:
        """The place of the node that is being executed."""
        server, context = PromptServer.instance, get_executing_context()
        if context is None:
            return cls(server.client_id, "", "", "")
        running = server.prompt_queue.get_current_queue_volatile()[0]
        extra = next((item[3] for item in running if item[1] == context.prompt_id), {})
        workflow = ((extra.get("extra_pnginfo") or {}).get("workflow") or {}).get("id")
        return cls(server.client_id, str(workflow or ""), context.prompt_id, context.node_id)


@dataclass(frozen=True)
class VersionsInfo:
    """Several versions of a shot (from 1) that are made in place of a film. made: the numbers of finished ones."""

    shot: int
    wanted: int
    made: tuple[int, ...] = ()


@dataclass(frozen=True)
class FilmInfo:
    """What a page is told of a film.

    name, subfolder, type: the file, as in the host's /view; empty before it is open. mime: its type with codecs. bytes:
    how many can be fetched. frames: written so far, of total_frames. cuts: in s. pace: sampled frames per second.
    left: s, None while unknown. line: what the sampler says, or the error. take: the name of its take, if it has one.
    versions: what is made in its take if no file is.
    """

    key: str
    prompt_id: str
    node: str
    workflow: str
    fps: float
    width: int
    height: int
    total_frames: int
    shots: int
    cuts: tuple[float, ...]
    name: str = ""
    subfolder: str = ""
    type: str = "output"
    mime: str = ""
    bytes: int = 0
    frames: int = 0
    shot: int = 0
    pace: float = 0.0
    left: float | None = None
    state: State = "waiting"
    line: str = ""
    take: str | None = None
    versions: VersionsInfo | None = None


@dataclass
class RunningFilm:
    """A film that threads make while the server tells of it. blocks: (first frame, byte from which to fetch it)."""

    place: Place
    info: FilmInfo
    send: Callable[[FilmInfo, str], None]
    blocks: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    scripts: Mapping[str, LiveScript] = field(default_factory=dict[str, LiveScript])
    _lock: Lock = field(default_factory=Lock)

    @property
    def running(self) -> bool:
        """Whether the film is being made."""
        return self.info.state in ("waiting", "making")

    def update(self, **changes: Any) -> None:  # noqa: ANN401
        """Changes fields of `info` and tells the page. Without a page nobody is told: None would be everybody."""
        with self._lock:
            self.info = info = replace(self.info, **changes)
            if self.place.client is not None:
                self.send(info, self.place.client)

    def described(self) -> dict[str, Any]:
        """The film as JSON, with the scripts that may still be changed."""
        scripts = [{"node": node, **script_state(live)} for node, live in self.scripts.items()] if self.running else []
        return {**asdict(self.info), "scripts": scripts}


class Films:
    """The films of this server by key. A node's next film takes the place of the one before."""

    def __init__(self, send: Callable[[FilmInfo, str], None]) -> None:
        """send: tells a client of a film."""
        self._films: dict[str, RunningFilm] = {}
        self._users: dict[str, str] = {}
        self._send, self._lock = send, Lock()

    def add(self, place: Place, info: FilmInfo) -> RunningFilm:
        """Remembers a film: one that begins, or one that is told from what an earlier server left."""
        film = RunningFilm(place, info, self._send)
        with self._lock:
            self._films.pop(info.key, None)
            self._films[info.key] = film
            over = [key for key, other in self._films.items() if not other.running]
            for key in over[: max(0, len(self._films) - MAX_FILMS)]:
                del self._films[key]
        return film

    @contextmanager
    def making(self, stream: Stream, place: Place | None = None) -> Iterator[RunningFilm]:
        """Tells of the film of a stream from its beginning to its end, however it ends.

        place: where it is made, by default in the node that is being executed.
        """
        place = place or Place.current()
        film = self.add(place, _begun(place, stream))
        try:
            film.update()
            yield film
        except BaseException as error:
            failed = isinstance(error, Exception) and not isinstance(error, InterruptProcessingException)
            state, line = ("failed", format_error(error)) if failed else ("stopped", "")
            film.update(state=state, line=line, left=None)
            raise
        else:
            film.update(state="done", left=0.0)

    def of(self, client: str | None = None, workflow: str | None = None) -> list[RunningFilm]:
        """The films of a client and a workflow; None: of all."""
        with self._lock:
            films = list(self._films.values())
        return [
            film for film in films if client in (None, film.place.client) and workflow in (None, film.place.workflow)
        ]

    def page_of(self, client: str, user: str) -> None:
        """Remembers the user of a client's page: a node is told the client only, whose page asks for its films."""
        with self._lock:
            self._users.pop(client, None)
            self._users[client] = user
            for oldest in list(self._users)[: max(0, len(self._users) - MAX_PAGES)]:
                del self._users[oldest]

    def user_of(self, client: str | None) -> str:
        """The user of a client's page; without --multi-user the host has one user."""
        return self._users.get(client or "", USER)

    def get(self, key: str) -> RunningFilm | None:
        """The film with this key."""
        return self._films.get(key)


def script_state(live: LiveScript) -> dict[str, Any]:
    """What a page is told of a live script."""
    return {"version": live.version, "begun": live.begun, "shots": len(live.script.shots)}


def send_film(info: FilmInfo, client: str) -> None:
    """Sends a film to the page of a client; it may be called in any thread."""
    PromptServer.instance.send_sync(EVENT, asdict(info), client)


def _begun(place: Place, stream: Stream) -> FilmInfo:
    plan, pixels = stream.film.plan, stream.spec.shape.pixels
    return FilmInfo(
        place.key,
        place.prompt,
        place.node,
        place.workflow,
        plan.fps,
        pixels.width,
        pixels.height,
        plan.video_frames,
        plan.shots,
        tuple(block.video_start / plan.fps for block in plan.blocks if block.cut),
    )
