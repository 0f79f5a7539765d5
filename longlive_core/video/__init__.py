"""Frames into a film while they come, and back; parts of one film into another."""

from .audio import Audio
from .codecs import CODECS, QUALITIES, check_path, film_path
from .container import FilmWriter, open_film
from .packets import PacketSource
from .reader import read_video
from .writer import FRAGMENT_SECONDS, VideoWriter

__all__ = [
    "CODECS",
    "FRAGMENT_SECONDS",
    "QUALITIES",
    "Audio",
    "FilmWriter",
    "PacketSource",
    "VideoWriter",
    "check_path",
    "film_path",
    "open_film",
    "read_video",
]
