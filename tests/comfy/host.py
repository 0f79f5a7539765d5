"""A ComfyUI server that the tests start, and a client that talks to it as the real front-end does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from .run import Event, Json, Refused, Run, read_event

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("custom_nodes", "input", "output", "temp", "user")
MODELS = ("diffusion_models", "loras", "text_encoders", "vae", "vae_approx")


def checkout() -> Path | None:
    """The ComfyUI checkout: COMFYUI_PATH, else ~/ComfyUI, else none. A COMFYUI_PATH that holds no ComfyUI raises."""
    named = os.environ.get("COMFYUI_PATH")
    folder = Path(named or "~/ComfyUI").expanduser().resolve()
    if (folder / "main.py").is_file():
        return folder
    if named:
        raise FileNotFoundError(f"COMFYUI_PATH is {named}, which has no main.py: give the folder of a ComfyUI checkout")
    return None


def python(folder: Path) -> str:
    """The Python that runs a checkout: COMFYUI_PYTHON, else the checkout's own environment, else this one."""
    own = [folder / venv / "bin" / "python" for venv in (".venv", "venv")]
    return os.environ.get("COMFYUI_PYTHON") or next((str(path) for path in own if path.is_file()), sys.executable)


class Host:
    """A running server: its address `url`, its folders under `base`, its `log` and its process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, base: Path, log: Path) -> None:
        self.process = process
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"
        self.base = base
        self.log = log

    def read(self, path: str, data: bytes | None = None, kind: str = "application/json") -> bytes:
        """The body of a GET, or of a POST where there is `data`; raises HTTPError on a status of 400 and above."""
        with urlopen(Request(self.url + path, data, {"Content-Type": kind}), timeout=60) as answer:
            return answer.read()

    def get(self, path: str) -> Any:  # noqa: ANN401
        """The parsed JSON that a GET answers with."""
        return json.loads(self.read(path))

    def post(self, path: str, content: object) -> Any:  # noqa: ANN401
        """The parsed JSON that a POST of JSON answers with; None for an empty answer."""
        body = self.read(path, json.dumps(content).encode())
        return json.loads(body) if body else None

    def upload_image(self, path: Path) -> str:
        """Upload a file into the input folder; returns the name that LoadImage takes."""
        edge = uuid.uuid4().hex
        head = f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n\r\n'
        body = head.encode() + path.read_bytes() + f"\r\n--{edge}--\r\n".encode()
        return json.loads(self.read("/upload/image", body, f"multipart/form-data; boundary={edge}"))["name"]

    def queue(self, prompt: Json, extra_data: Json | None = None, client: str | None = None) -> str:
        """Queue a prompt in API form and return its id; raises Refused where validation fails."""
        content = {"prompt": prompt, "extra_data": extra_data or {}} | ({"client_id": client} if client else {})
        try:
            return self.post("/prompt", content)["prompt_id"]
        except HTTPError as error:
            if error.code != 400:
                raise
            answer = json.loads(error.read())
            raise Refused(answer["error"], answer["node_errors"]) from None

    def run(
        self,
        prompt: Json,
        timeout: float = 120,
        extra_data: Json | None = None,
        on_event: Callable[[Run, Event], None] | None = None,
        client: str | None = None,
    ) -> Run:
        """Queue a prompt and listen until it is over: finished, failed or interrupted.

        `on_event` is called after every event, to interrupt at a preview for instance. client: that of a page. Raises
        Refused as `queue` does, and TimeoutError with the end of the log after `timeout` seconds, having interrupted
        the prompt.
        """
        import websocket

        client = client or uuid.uuid4().hex
        line = websocket.create_connection(f"ws://{self.address}/ws?clientId={client}", timeout=timeout)
        try:
            line.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
            while json.loads(line.recv())["type"] != "feature_flags":
                pass
            start = time.monotonic()
            run = Run(self.queue(prompt, extra_data, client))
            while not run.over:
                line.settimeout(max(start + timeout - time.monotonic(), 0.001))
                event = read_event(line.recv(), time.monotonic() - start)
                if run.take(event) and on_event:
                    on_event(run, event)
            return run
        except websocket.WebSocketTimeoutException:
            self.interrupt()
            raise TimeoutError(f"the prompt was not over after {timeout} seconds\n{self.tail()}") from None
        except websocket.WebSocketConnectionClosedException as error:
            raise RuntimeError(f"the server went away during the prompt\n{self.tail()}") from error
        finally:
            line.close()

    def interrupt(self, prompt_id: str | None = None) -> None:
        """What the front-end's cross does: interrupt this prompt, or whichever runs."""
        self.post("/interrupt", {"prompt_id": prompt_id} if prompt_id else {})

    def file(self, saved: Json) -> Path:
        """The path of an output, from the dictionary in which a node reports it."""
        return self.base / saved["type"] / saved["subfolder"] / saved["filename"]

    def tail(self, lines: int = 60) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    def threads(self) -> int:
        """How many threads the server process has."""
        return int(self._status("Threads"))

    def rss(self) -> int:
        """The server's resident memory in bytes."""
        return int(self._status("VmRSS").removesuffix("kB")) * 1024

    def _status(self, key: str) -> str:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith(key + ":"))


Start = Callable[..., AbstractContextManager[Host]]


@contextmanager
def serve(
    folder: Path,
    base: Path,
    *arguments: str,
    pack: Path | None = ROOT,
    wait: float = 180,
    streams: bool = False,
    keep: bool = False,
) -> Iterator[Host]:
    """Start the checkout in `folder` over an empty `base`, with the node pack linked into it, and stop it at the end.

    `arguments` go to ComfyUI; `pack=None` starts it without the node pack. streams: let pages stream films, which the
    policy of a server without nodes of paid APIs forbids. keep: films of prompts with a workflow keep their takes.
    """
    for name in (*FOLDERS, *(f"models/{model}" for model in MODELS)):
        (base / name).mkdir(parents=True, exist_ok=True)
    if pack:
        (base / "custom_nodes" / "longlive").symlink_to(pack)
    # Tests that make the same film share a server: the takes of one would save the others their work.
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(exist_ok=True)
    if not settings.exists():
        settings.write_text(json.dumps({"LongLive.Takes.Keep": keep}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python(folder), str(folder / "main.py"), "--cpu", "--base-directory", str(base)]
    command += [] if streams else ["--disable-api-nodes"]
    command += ["--database-url", "sqlite:///:memory:", "--listen", "127.0.0.1", "--port", str(port), *arguments]
    log = base / "server.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=base, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT)
    host = Host(process, port, base, log)
    try:
        _await_start(host, wait)
        yield host
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_start(host: Host, wait: float) -> None:
    end = time.monotonic() + wait
    while time.monotonic() < end and host.process.poll() is None:
        try:
            host.get("/system_stats")
            return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    state = "still does not answer" if host.process.poll() is None else f"ended with {host.process.returncode}"
    raise RuntimeError(f"ComfyUI {state}: {' '.join(map(str, host.process.args))}\n{host.tail()}")
