"""LongLive for ComfyUI: long multi-shot films, streamed block by block.

ComfyUI loads this folder as a node pack; elsewhere it is the Python package `longlive`. Importing it does no work.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes import LongLiveExtension

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> LongLiveExtension:
    """ComfyUI's way in: the extension that lists the nodes."""
    log = logging.getLogger(__name__)
    try:
        from .kernels import describe
        from .nodes import LongLiveExtension
    except Exception:
        # The host prints one line without a traceback, which does not tell which import failed.
        log.exception("LongLive could not load its nodes")
        raise
    log.info("LongLive %s", describe())
    return LongLiveExtension()
