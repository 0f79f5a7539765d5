"""The first work of the threads of films, which is slow, done before a film needs them."""

from __future__ import annotations

import logging
from functools import partial
from threading import Event

import torch

from ..model.attention import default_attention
from ..vae.convolution import convolution
from .workers import Workers

log = logging.getLogger(__name__)

STAGES = ("sampling", "decoding")
"""The names of the stages that compute on a GPU."""

_TOKENS, _HEADS, _WIDTH = 64, 24, 128


def warm_workers(workers: Workers, device: torch.device) -> tuple[Event, ...]:
    """Starts the first work on a GPU in the threads that will sample and decode; the caller need not wait.

    A thread has its own handles of cuBLAS and cuDNN, and the first one loads their kernels. Returns an event for each
    thread, which is set when its work has ended; on other devices there is nothing to do. A film that begins before
    that gets new threads.
    """
    if device.type != "cuda":
        return ()
    return tuple(workers.start(name, partial(first_work, device)) for name in STAGES)


def first_work(device: torch.device) -> None:
    """Multiplies, attends and convolves a few bfloat16 numbers in this thread. An error of the device is logged."""
    try:
        with torch.inference_mode():
            x = torch.zeros(1, _TOKENS, _HEADS, _WIDTH, dtype=torch.bfloat16, device=device)
            row = x.flatten(2)
            torch.matmul(row, row.transpose(1, 2))
            default_attention(device)(x, x, x)
            image = x.view(1, _WIDTH, 3, 8, _TOKENS)
            convolution(image, x.new_zeros(_WIDTH, _WIDTH, 3, 3, 3), None, (1, 1, 1), (0, 1, 1))
    except RuntimeError as error:
        log.warning("the threads of films were not warmed up on %s: %s", device, error)
