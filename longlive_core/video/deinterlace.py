"""Frames of two fields as whole pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from av.error import BlockingIOError as NoFrameYet
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

NOTE = "the video is interlaced: it is deinterlaced (bwdif), one frame for each pair of fields"


class Deinterlacer:
    """Deinterlaces the frames of a video that are marked as interlaced, one for one; the others stay as they are.

    `active`: whether one of the frames so far was interlaced.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self.active = False

    def frames(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Yields the frames in their order, each with its time; the filter looks one frame ahead."""
        graph: Graph | None = None
        for frame in frames:
            if graph is None and not frame.interlaced_frame:
                yield frame
                continue
            self.active = True
            graph = graph or self._graph()
            graph.push(frame)
            yield from _ready(graph)
        if graph is not None:
            graph.push(None)
            yield from _ready(graph)

    def _graph(self) -> Graph:
        graph = Graph()
        source = graph.add_buffer(template=self._stream)
        graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
        graph.configure()
        return graph


def _ready(graph: Graph) -> Iterator[VideoFrame]:
    """The frames that the filter has finished."""
    with suppress(NoFrameYet, EOFError):
        while True:
            yield graph.vpull()
