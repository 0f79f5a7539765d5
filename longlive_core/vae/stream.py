"""Streaming decoder: takes latents block by block and returns video frames while the film is sampled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ...kernels import to_uint8
from ..oom import retry_on_oom
from ..transfer import HostCopy, to_host


class ChunkDecoder(Protocol):
    """A VAE that decodes a film chunk by chunk. Its state is passed in and out, None at the start. See `WanVAE`."""

    @property
    def reach(self) -> int:
        """How many earlier latent frames the pixels of a latent frame depend on."""
        ...

    def to_vae_space(self, latents: Tensor) -> Tensor:
        """Latents of the transformer → those of VAE space, on the VAE's device and in its dtype; `[1, C, F, h, w]`.

        The host does not wait for the copy to the device.
        """
        ...

    def decode_chunk(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:  # noqa: ANN401 (its type depends on the VAE)
        """Decodes the next latents `[1, C, t, h, w]` → (video `[1, 3, T, H, W]` in [−1, 1], state).

        The given state is used up, also by a call that fails, so that there need not be two of them at a time.
        """
        ...


class DecodeStream:
    """Decodes a film of any length in the memory of one latent frame. Frames do not depend on the size of the chunks.

        stream = DecodeStream(vae)
        for block in generate(...):
            stream.feed(block.latents)
            while (frames := stream.take()) is not None:
                write(frames)
        for frames in stream.flush():
            write(frames)

    Frames that are not taken yet stay in host memory.
    """

    def __init__(
        self,
        vae: ChunkDecoder,
        on_latent_frame: Callable[[], None] | None = None,
        *,
        cuda_stream: torch.cuda.Stream | None = None,
        free: Callable[[], None] | None = None,
    ) -> None:
        """on_latent_frame: called before each latent frame is decoded. If it raises, the stream remains usable.

        cuda_stream: the CUDA stream to decode in. Device latents must be ready in that stream. free: called if memory
        runs out, before the latent frame is decoded once more; see `retry_on_oom`.
        """
        self.vae = vae
        self.on_latent_frame = on_latent_frame
        self._cuda_stream = cuda_stream
        self._free = free
        self.reset()

    def reset(self) -> None:
        """Drops state and frames. The next latent frame is the first one of a film."""
        self.state: Any = None
        # What a lost state is made of again; 14 MB at 704x1280, where a copy of the state would take 3.2 GB.
        self._recent: deque[Tensor] = deque(maxlen=self.vae.reach)
        self._fed = 0
        self._copies: deque[HostCopy] = deque()

    @torch.inference_mode()
    def feed(self, latents: Tensor) -> None:
        """Decodes the next normalised latents, `[1, C, F, H, W]` with F ≥ 1.

        Raises ValueError for other shapes, and OutOfMemoryError if memory runs out twice for one latent frame. The
        frames before it are decoded then.
        """
        if latents.ndim != 5 or latents.shape[0] != 1:
            raise ValueError(
                f"latents have shape {list(latents.shape)}, but a stream decodes one film, [1, C, F, H, W]; use one "
                "stream for each film of a batch"
            )
        with torch.cuda.stream(self._cuda_stream):
            if self._cuda_stream is not None and latents.is_cuda:
                # Otherwise the allocator may reuse the latents' memory while this stream still reads them.
                latents.record_stream(self._cuda_stream)
            for frame in self.vae.to_vae_space(latents).split(1, dim=2):
                if self.on_latent_frame is not None:
                    self.on_latent_frame()
                work, what = partial(self._decode, frame), f"decoding latent frame {self._fed}"
                self._copies.append(retry_on_oom(work, self._free, what))
                self._recent.append(frame)
                self._fed += 1

    def _decode(self, frame: Tensor) -> HostCopy:
        """Decodes a latent frame `[1, C, 1, h, w]` → video frames. It may be called again after an error.

        The VAE has used up the state then, and what it depends on is decoded again, with the same bits.
        """
        state, self.state = self.state, None
        if state is None:
            for earlier in self._recent:
                _, state = self.vae.decode_chunk(earlier, state)
        video, state = self.vae.decode_chunk(frame, state)
        copy = to_host(to_uint8(video))
        self.state = state
        return copy

    def take(self) -> Tensor | None:
        """Removes and returns the video frames of the oldest latent frame, or None if there are none.

        Returns `[T, H, W, 3]` uint8 on the host, with T = 1 for the first latent frame of a film and 4 for later ones.
        """
        return self._copies.popleft().wait() if self._copies else None

    def flush(self) -> list[Tensor]:
        """Removes and returns all decoded frames, oldest first, in pieces as `take` returns them."""
        return [copy.wait() for copy in self.copies()]

    def copies(self) -> list[HostCopy]:
        """As `flush`, without waiting for the copies to the host, so that another thread can wait."""
        copies = list(self._copies)
        self._copies.clear()
        return copies
