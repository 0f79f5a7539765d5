"""Batches of the embedded model's encoded films for autoregressive training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..mini import Mini
from .ar_inputs import ARBatch
from .films import EncodedFilm, load_films
from .mini_batches import film_batch


class FilmSource:
    """An `ARSource` of encoded films: each batch holds films whose cuts are at the same blocks.

    blocks: clean and noisy blocks in a batch, so that longer films are fewer. ranks: processes that share each film; it
    has as many blocks for each of them, and films that are too short are left out. Raises ValueError if there are no
    films.
    """

    def __init__(self, mini: Mini, films: Sequence[EncodedFilm], blocks: int, ranks: int = 1) -> None:
        if not films:
            raise ValueError("there are no films to train on")
        long = [film for film in films if len(film.shots) >= ranks]
        if not long:
            raise ValueError(f"no film has {ranks} blocks, one for each rank of a sequence; use fewer ranks")
        self._mini, self._films, self._blocks, self._ranks = mini, long, blocks, ranks

    def batch(self, rng: np.random.Generator, /) -> ARBatch:
        """Returns a batch. See `ARSource`."""
        batch = film_batch(self._films, self._blocks, rng, self._ranks)
        device = self._mini.model.device
        distinct = list(dict.fromkeys(text for film in batch.captions for text in film))
        prompts = torch.tensor([[distinct.index(text) for text in film] for film in batch.captions], device=device)
        with torch.no_grad():
            text = self._mini.text(distinct).to(device)
        cuts = tuple(block in batch.heads[1:] for block in range(prompts.shape[1]))
        name = f"films: {batch.captions[0][0]}"
        return ARBatch(batch.clean.to(device), text, prompts, batch.positions.to(device), cuts, name=name)


def read_films(mini: Mini, folder: Path, seed: int, count: int) -> tuple[EncodedFilm, ...]:
    """Returns the first `count` encoded films of a folder.

    Raises ValueError if it has none, and as `load_films` does.
    """
    if not any(folder.glob("films-*.safetensors")):
        raise ValueError(
            f"{folder} has no encoded films (films-00000.safetensors); this command trains on films of LongLive Mini's "
            "world, which `longlive train mini --only films --vae shipped` makes; videos are not supported"
        )
    return load_films(mini.vae, folder, seed, count)
