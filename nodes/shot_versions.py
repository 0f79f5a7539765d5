"""The node that makes several versions of one shot of a film."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..longlive_core.film.film import Film
from ..longlive_core.film.film_batch import FilmBatch
from ..longlive_core.film.shot_versions import MAX_VERSIONS, ShotVersions
from ..longlive_core.film.take_store import TakeStore
from ..longlive_core.pipeline.stills import still_pieces
from ..longlive_core.take import Take
from ..longlive_core.take.lock import TakeLock
from ..longlive_core.take.stills import save_still
from ..longlive_core.vae import ChunkDecoder
from . import tooltips
from .films import RunningFilm, VersionsInfo
from .kept_take import keep
from .native_vae import decoder_patcher
from .routes import films
from .run_stream import StreamRun
from .take_record import TakeRecord
from .types import CATEGORY, FILM_TYPES, Stream, TakeType
from .vae import decoder, slice_bytes

log = logging.getLogger(__name__)


class ShotVersionsNode(io.ComfyNode):
    """STREAM and a number of versions to pictures of them; the versions are stored in the film's take."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveShotVersions",
            display_name="LongLive Shot Versions",
            category=CATEGORY,
            description="Makes several versions of one shot with new seeds and stores them in the film's take. Each "
            "follows the same film before it, whose memory is computed once. A version whose seed is then written into "
            "the script is in the film without being sampled again.",
            search_aliases=["longlive", "variations", "seeds", "reroll", "batch", "alternatives"],
            inputs=[
                io.MultiType.Input(
                    "stream",
                    FILM_TYPES,
                    tooltip="A film that is stored in a take: of LongLive Save Take or LongLive Load Take, or of a "
                    "sampler whose films keep their takes.",
                ),
                io.Vae.Input("vae", tooltip=tooltips.VAE),
                io.Int.Input("shot", default=1, min=1, max=1000, tooltip="Number of the shot; the first is 1."),
                io.Int.Input(
                    "versions",
                    default=4,
                    min=1,
                    max=MAX_VERSIONS,
                    tooltip="How many versions to make beside those that the shot has. One that was interrupted is "
                    "finished first.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="IMAGE", tooltip="A picture of each version, in the order of their numbers."
                ),
                TakeType.Output(display_name="TAKE", tooltip="The take with the versions, for LongLive Retake."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        return float("nan")  # every run makes further versions

    @classmethod
    def execute(cls, stream: Stream, vae: comfy.sd.VAE, shot: int, versions: int) -> io.NodeOutput:
        chunk_decoder = decoder(vae, stream.latent_format)
        check_stream(stream)
        with films().making(stream) as film:
            notes = keep(stream, film.place.workflow, films().user_of(film.place.client))
            record = TakeRecord(stream)
            if record.take is None:
                raise ValueError(
                    "this film is in no take, where its versions would be stored: put LongLive Save Take before this "
                    f"node, or switch on Settings > LongLive > Takes{''.join(f'; {note}' for note in notes)}"
                )
            film.update(take=record.name)
            with TakeLock(record.take.folder) as lock:
                several = ShotVersions(Take.load(record.take.folder), shot, versions, check=lock.check)
                making = Making(stream, vae, chunk_decoder, several, film)
                pictures = list(making.pictures())
        return io.NodeOutput(torch.stack(pictures).float() / 255, several.take, ui=ui.PreviewText(making.text))


class Making:
    """Makes the versions, as many at once as the memory holds, and tells of each that is finished."""

    def __init__(
        self, stream: Stream, vae: comfy.sd.VAE, chunk_decoder: ChunkDecoder, versions: ShotVersions, film: RunningFilm
    ) -> None:
        self._stream, self._vae, self._decoder, self._versions, self._film = stream, vae, chunk_decoder, versions, film
        self._info = VersionsInfo(versions.index + 1, len(versions.numbers))
        self._memory = slice_bytes(vae, stream.spec.shape)
        free = free_bytes((stream.spec.model, decoder_patcher(vae)), self._memory)
        at_once = stream.spec.at_once(len(versions.numbers), len(stream.film.plan.blocks), free)
        note(at_once.text)
        self._batch = FilmBatch(stream.spec, at_once.fits, note)
        # The run of a version samples those beside it, too: its memory is that of all.
        self._spec = replace(stream.spec, shape=stream.spec.shape.with_batch(at_once.fits))

    def pictures(self) -> Iterator[Tensor]:
        """Yields a picture `[H, W, 3]` uint8 of each version. Raises the host's interrupt; what is finished stays."""
        self._film.update(versions=self._info)
        spec, source = self._stream.spec, self._stream.film
        start, noise = source.start if source.earlier is None else source.earlier.start, spec.settings.noise_source
        films = self._versions.films(spec, start=start, on_note=note, prepare=lambda film: self._batch.add(film, noise))
        for version, film in films:
            comfy.model_management.throw_exception_if_processing_interrupted()
            yield from self._pictures_of(version, film)
            self._info = replace(self._info, made=(*self._info.made, version))
            self._film.update(versions=self._info)

    @property
    def text(self) -> str:
        """What the node says: the numbers and the seeds of the versions."""
        shot = self._versions.take.shots[self._versions.index]
        lines = (f"version {version}: seed {shot.versions[version].seed}" for version in self._info.made)
        return "\n".join([f"shot {self._info.shot}", *lines])

    def _pictures_of(self, version: int, film: Film) -> Iterator[Tensor]:
        stream = replace(self._stream, spec=self._spec, film=film, earlier=None, live=None)
        pieces = partial(still_pieces, first=self._versions.first.index)
        with StreamRun(stream, beside=[decoder_patcher(self._vae)], memory=self._memory, film=self._film) as run:
            for decoded in run.shown(run.stage("decoding", run.decoded(self._decoder, pieces=pieces))):
                if decoded.frames is None:
                    continue
                frames = decoded.frames.wait()
                run.show(decoded.block, frames)
                if decoded.last:
                    save_still(self._versions.take, self._versions.index, version, frames[-1])
                    yield frames[-1]


def free_bytes(models: Sequence[comfy.model_patcher.ModelPatcher], memory: int) -> int:
    """Bytes of the device beside the weights of these models and `memory`; the host unloads all others."""
    host = comfy.model_management
    whole = host.get_total_memory(models[0].load_device) - host.extra_reserved_memory()
    return whole - memory - sum(model.model_size() for model in models)


def note(text: str) -> None:
    """Logs a note on the versions."""
    log.info("LongLive: %s", text)


def check_stream(stream: Stream) -> None:
    """Raises ValueError for a film that several nodes sample, or whose shots begin with those of a storyboard."""
    film = stream.film
    storyboard = film.storyboard or (film.earlier.storyboard if film.earlier is not None else None)
    if stream.earlier is not None:
        raise ValueError(
            "this film is made by several nodes, which may have other settings: make versions of the shots of one "
            "LongLive Streaming Sampler"
        )
    if storyboard is not None or (stream.recorded or {}).get("storyboard") == "only":
        raise ValueError(
            "the shots of this film begin with those of a storyboard: set storyboard of the sampler to off"
        )
    if not isinstance(film.store, TakeStore) and film.start_generation is None:
        raise ValueError("this film is a given video: it was not sampled, so it has no other versions")
