"""A progress bar on one line of a terminal."""

from __future__ import annotations

from typing import TextIO

from ..render.write_film import Progress

WIDTH = 24


class ProgressBar:
    """Overwrites one line of a terminal; for another stream, such as a log, writes one line for each shot.

    `pace` is the newest number of video frames per second.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line_width = 0
        self._shot = -1
        self.pace = 0.0

    def show(self, progress: Progress) -> None:
        """Shows progress; call it after frames are written."""
        self.pace = progress.frames_per_second
        if self._stream.isatty():
            line = format_progress(progress)
            self._stream.write("\r" + line.ljust(self._line_width))
            self._line_width = len(line)
        elif progress.block.shot != self._shot:
            self._shot = progress.block.shot
            self._stream.write(format_progress(progress) + "\n")
        self._stream.flush()

    def end(self) -> None:
        """Ends the line, so that the next output starts on a new one."""
        if self._line_width:
            self._stream.write("\n")
            self._line_width = 0


def format_progress(progress: Progress) -> str:
    """Formats progress, as in `shot 2/4  block 7/15  [#####...]  47 %  83 fps  0:05 left`."""
    share = progress.video_frames / progress.total
    bar = ("#" * round(WIDTH * share)).ljust(WIDTH, ".")
    return (
        f"shot {progress.block.shot + 1}/{progress.shots}  block {progress.block.index + 1}/{progress.blocks}  "
        f"[{bar}] {share:4.0%}  {progress.frames_per_second:.0f} fps  {format_duration(progress.seconds_left)} left"
    )


def format_duration(seconds: float) -> str:
    """Formats seconds as `0:05` or `1:00:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
