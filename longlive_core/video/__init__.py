"""Writes films while they are rendered, reads them, and copies encoded frames from one film to another."""

from .audio import Audio
from .codecs import CODECS, QUALITIES, check_path, film_path
from .container import open_film
from .film_writer import FilmWriter
from .packets import PacketSource
from .reader import read_frames, read_video
from .writer import VideoWriter

__all__ = [
    "CODECS",
    "QUALITIES",
    "Audio",
    "FilmWriter",
    "PacketSource",
    "VideoWriter",
    "check_path",
    "film_path",
    "open_film",
    "read_frames",
    "read_video",
]
