"""What a client hears of one prompt, gathered by node."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4

Json = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One message: `seconds` after the prompt was queued, its type as the server names it, its data.

    Binary messages are called `preview` (metadata and `image`, the encoded bytes) and `text` (`node` and `text`).
    """

    seconds: float
    type: str
    data: Json


@dataclass(frozen=True)
class Preview:
    """A preview image: when it came, what the server tells with it, the encoded bytes."""

    seconds: float
    metadata: Json
    data: bytes

    def image(self) -> Image:
        """The decoded image."""
        from PIL import Image

        return Image.open(BytesIO(self.data))


@dataclass
class Run:
    """A prompt from the queue to its end; every list is in the order of arrival, every key a node id.

    `progress` holds each node's states as they changed: dictionaries with `value`, `max` and `state`.
    `outputs` is what the nodes showed (`executed`), cached or not; `error` the data of `execution_error`.
    """

    prompt_id: str
    events: list[Event] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    progress: dict[str, list[Json]] = field(default_factory=lambda: defaultdict(list))
    texts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    previews: dict[str, list[Preview]] = field(default_factory=lambda: defaultdict(list))
    outputs: dict[str, Json] = field(default_factory=dict)
    error: Json | None = None
    interrupted: bool = False
    over: bool = False
    seconds: float = 0.0
    first_preview: float | None = None

    @property
    def ok(self) -> bool:
        """Whether it ran to its end."""
        return self.over and self.error is None and not self.interrupted

    def take(self, event: Event) -> bool:
        """Record an event; False where it belongs to another prompt or to none."""
        data = event.data
        # Texts and old previews do not name their prompt.
        if event.type not in ("text", "old_preview") and data.get("prompt_id") != self.prompt_id:
            return False
        self.events.append(event)
        self.seconds = event.seconds
        match event.type:
            case "execution_cached":
                self.cached += data["nodes"]
            case "executing" if data["node"] is None:
                self.over = True
            case "executing":
                self.executed.append(data["node"])
            case "progress_state":
                for node, state in data["nodes"].items():
                    known = self.progress[node]
                    if not known or known[-1] != state:
                        known.append(state)
            case "text":
                self.texts[data["node"]].append(data["text"])
            case "preview":
                metadata = {key: value for key, value in data.items() if key != "image"}
                self.previews[data["node_id"]].append(Preview(event.seconds, metadata, data["image"]))
                self.first_preview = self.first_preview or event.seconds
            case "executed":
                self.outputs[data["node"]] = data["output"]
            case "execution_error":
                self.error = data
            case "execution_interrupted":
                self.interrupted = True
        return True


class Refused(Exception):
    """The server did not accept a prompt: `error` about the prompt, `node_errors` by node id."""

    def __init__(self, error: Json, node_errors: dict[str, Json]) -> None:
        self.error = error
        self.node_errors = node_errors
        super().__init__("\n".join([error.get("message", ""), *self.messages]))

    @property
    def messages(self) -> list[str]:
        """One line for each error of each node, as the front-end shows them."""
        return [
            f"{node} {entry['class_type']}: {error['message']}: {error['details']}"
            for node, entry in self.node_errors.items()
            for error in entry["errors"]
        ]


def read_event(message: str | bytes, seconds: float) -> Event:
    """A message of the WebSocket, the binary ones under the names `preview` and `text`."""
    if isinstance(message, str):
        content = json.loads(message)
        return Event(seconds, content["type"], content["data"])
    kind, size = struct.unpack(">II", message[:8])
    head, body = message[8 : 8 + size], message[8 + size :]
    if kind == PREVIEW_WITH_METADATA:
        return Event(seconds, "preview", json.loads(head) | {"image": body})
    if kind == TEXT:
        return Event(seconds, "text", {"node": head.decode(), "text": body.decode()})
    # The old preview names neither its prompt nor its node: its second number is the image type.
    return Event(seconds, "old_preview" if kind == PREVIEW else f"binary {kind}", {"image": message[8:]})
