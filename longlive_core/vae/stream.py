"""Latents in, video frames out, while the film is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ...kernels import to_uint8
from ..oom import retry_on_oom


class ChunkDecoder(Protocol):
    """A VAE that decodes a film piece by piece; `WanVAE` is one. Its state is handed in and out, None at the start."""

    def to_vae_space(self, latents: Tensor) -> Tensor:
        """The model's space -> VAE space, on the VAE's device and in its dtype."""
        ...

    def decode_chunk(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:  # noqa: ANN401 (each VAE's own)
        """The next latents `[1, C, t, h, w]` -> (video `[1, 3, T, H, W]` in [-1, 1], state)."""
        ...


@dataclass(frozen=True)
class HostCopy:
    """Frames `[T, H, W, 3]` uint8 on their way to the host; `ready` is None where they never left it."""

    frames: Tensor
    ready: torch.cuda.Event | None

    def wait(self) -> Tensor:
        """The frames, when they have arrived; any thread may wait."""
        if self.ready is not None:
            self.ready.synchronize()
        return self.frames


class DecodeStream:
    """Decodes a film of any length in the memory of one chunk, bit-identical however it is cut.

        stream = DecodeStream(vae)
        for block in generate(...):
            stream.feed(block.latents)
            while (frames := stream.take()) is not None:
                write(frames)
        for frames in stream.flush():
            write(frames)

    Frames wait in the stream one latent frame at a time; what is not taken stays in host memory.
    """

    def __init__(
        self,
        vae: ChunkDecoder,
        on_latent_frame: Callable[[], None] | None = None,
        *,
        cuda_stream: torch.cuda.Stream | None = None,
        free: Callable[[], None] | None = None,
    ) -> None:
        """`on_latent_frame` is called before every latent frame; what it raises (a cancel) leaves the stream usable.

        cuda_stream: the CUDA stream to decode in. Latents on a device must be finished in it; latents on the host
        always are. free: called where memory runs out, before a latent frame is decoded once more; see `retry_on_oom`.
        """
        self.vae = vae
        self.on_latent_frame = on_latent_frame
        self._lane = cuda_stream
        self._free = free
        self.reset()

    def reset(self) -> None:
        """Forget the film: the next latent frame is a first one."""
        self.state: Any = None
        self._fed = 0
        self._copies: deque[HostCopy] = deque()

    @torch.inference_mode()
    def feed(self, latents: Tensor) -> None:
        """Decode the next normalised latents [1, C, F, H, W], F >= 1.

        Raises ValueError for a batch, and OutOfMemoryError where memory runs out twice: what was fed before is decoded.
        """
        if latents.ndim != 5 or latents.shape[0] != 1:
            raise ValueError(f"a stream decodes one film of shape [1, C, F, H, W], not {list(latents.shape)}")
        with torch.cuda.stream(self._lane):
            if self._lane is not None and latents.is_cuda:
                latents.record_stream(self._lane)
            for frame in self.vae.to_vae_space(latents).split(1, dim=2):
                if self.on_latent_frame is not None:
                    self.on_latent_frame()
                work, what = partial(self._decode, frame), f"decoding latent frame {self._fed}"
                copy, self.state = retry_on_oom(work, self._free, what)
                self._copies.append(copy)
                self._fed += 1

    def _decode(self, frame: Tensor) -> tuple[HostCopy, Any]:
        """One latent frame and the state after it; the stream itself is as before, so that it can be done again."""
        video, state = self.vae.decode_chunk(frame, self.state)
        return _to_host(to_uint8(video)), state

    def take(self) -> Tensor | None:
        """The oldest decoded frames [T, H, W, 3] uint8 on the host, T = 1 first and 4 later; None when none wait."""
        return self._copies.popleft().wait() if self._copies else None

    def flush(self) -> list[Tensor]:
        """All decoded frames not yet taken, oldest first."""
        return [copy.wait() for copy in self.copies()]

    def copies(self) -> list[HostCopy]:
        """As `flush`, for another thread to wait for."""
        waiting = list(self._copies)
        self._copies.clear()
        return waiting


def _to_host(frames: Tensor) -> HostCopy:
    if not frames.is_cuda:
        return HostCopy(frames, None)
    host = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
    host.copy_(frames, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record(torch.cuda.current_stream(frames.device))
    return HostCopy(host, ready)
