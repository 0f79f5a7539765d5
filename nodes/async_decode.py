"""The node that turns a STREAM into a film on disk while it is made."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import comfy.sd
import torch
from comfy.cli_args import args
from comfy_api.latest import InputImpl, io, ui
from torch import Tensor

from ..longlive_core.pipeline.decode import QUEUE_DEPTH
from ..longlive_core.pipeline.stages import MODES, Mode
from ..longlive_core.pipeline.write import write
from ..longlive_core.types import Block
from ..longlive_core.units import plural
from ..longlive_core.vae import DecodeStream
from ..longlive_core.video import CODECS, QUALITIES, FilmWriter, film_path, open_film
from ..longlive_core.video.media_type import media_type
from . import tooltips
from .announced_file import AnnouncedFile
from .checks import passed
from .file_prefix import check_prefix, output_path
from .given_clip import audio_input, with_notes
from .kept_take import keep
from .preview import Preview
from .routes import films
from .run_stream import StreamRun
from .take_record import TakeRecord
from .types import CATEGORY, FILM_TYPES, Stream
from .vae import check_pair, decoder, slice_bytes

log = logging.getLogger(__name__)


class AsyncDecode(io.ComfyNode):
    """STREAM to a video file: decodes each block while the next one is sampled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveAsyncDecode",
            display_name="LongLive Async Decode",
            category=CATEGORY,
            description="Decodes each block while the next one is sampled, and writes it to a video file that can be "
            "played at any time. If the run is cancelled or fails, the file holds every block finished so far.",
            search_aliases=["longlive", "save video", "vae decode", "stream decode", "video combine", "mp4"],
            inputs=[
                io.MultiType.Input("stream", FILM_TYPES, tooltip=tooltips.STREAM),
                io.Vae.Input("vae", tooltip=tooltips.VAE),
                io.String.Input(
                    "filename_prefix",
                    default="video/LongLive",
                    tooltip="Folder and name in the output folder, as in Save Video. A number is added.",
                ),
                io.Combo.Input(
                    "codec",
                    options=[name for name, codec in CODECS.items() if codec.container],
                    default="h264",
                    tooltip="h264 plays everywhere; h265 and av1 make smaller files and are slower to write. vp9 "
                    "makes a webm; prores makes a mov for editing, without a preview on the node.",
                ),
                io.Combo.Input(
                    "quality", options=list(QUALITIES), default="high", tooltip="Better quality makes larger files."
                ),
                io.Vae.Input(
                    "preview_vae",
                    optional=True,
                    tooltip="A small VAE (lighttaew2_2) for the preview on the sampler. Not connected: the preview "
                    "shows the frames that are decoded for the file.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Sound track, cut to the length of the film. More than two channels are mixed to stereo.",
                ),
                io.Combo.Input(
                    "decode",
                    options=list(MODES),
                    default="async",
                    optional=True,
                    advanced=True,
                    tooltip="async decodes while sampling runs; sequential alternates the two, for little VRAM; off "
                    "decodes after all blocks are sampled. The film is the same.",
                ),
            ],
            outputs=[io.Video.Output(tooltip="The video file.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool:
        return passed(check_prefix("filename_prefix", filename_prefix))

    @classmethod
    def execute(
        cls,
        stream: Stream,
        vae: comfy.sd.VAE,
        filename_prefix: str,
        codec: str,
        quality: str,
        preview_vae: comfy.sd.VAE | None = None,
        audio: Mapping[str, Any] | None = None,
        decode: Mode = "async",
    ) -> io.NodeOutput:
        chunk_decoder = decoder(vae, stream.latent_format)
        preview = None if preview_vae is None else vae_preview(preview_vae, stream)
        target = FilmFile(filename_prefix, stream, codec)
        sound, notes = (None, []) if audio is None else audio_input(audio)
        record = TakeRecord(stream)
        with films().making(stream) as film:
            notes += keep(stream, film.place.workflow)
            film.update(take=record.name)
            run = StreamRun(
                stream,
                beside=[vae.patcher] if preview_vae is None else [vae.patcher, preview_vae.patcher],
                memory=slice_bytes(vae, stream.spec.shape),
                mode=decode,
                preview=preview,
                film=film,
            )
            # Opened after all other checks, so that refused inputs leave no empty file, and before any model is loaded.
            writer = open_film(
                target.path,
                width=target.width,
                height=target.height,
                fps=Fraction(stream.film.plan.fps),
                codec=codec,
                quality=quality,
                audio=sound,
                metadata=_metadata(cls),
            )
            file = AnnouncedFile(writer, film)
            recorded = record.of_run(run, target.fields, cls.hidden.extra_pnginfo)
            with file.growing(), run, target.logged(writer), recorded:
                file.announce(**target.fields, mime=media_type(target.path, codec, sound is not None))
                pieces = run.stage("decoding", run.decoded(chunk_decoder), QUEUE_DEPTH)
                for written in run.shown(run.stage("writing", write(pieces, file), QUEUE_DEPTH)):
                    record.add(written)
                    if written.frames is not None and preview is None:
                        run.show(written.block, written.frames)
        return io.NodeOutput(
            InputImpl.VideoFromFile(str(target.path)), ui=with_notes(target.ui, [*notes, *record.notes])
        )


class FilmFile:
    """The path of a new film, with the next free number under a prefix, and what the node shows of it."""

    def __init__(self, prefix: str, stream: Stream, codec: str) -> None:
        pixels = stream.spec.shape.pixels
        self.width, self.height, self._stream = pixels.width, pixels.height, stream
        folder, name, counter, self._subfolder = output_path("filename_prefix", prefix, self.width, self.height)
        self.path = film_path(Path(folder) / f"{name}_{counter:05}_", codec)

    @property
    def fields(self) -> dict[str, str]:
        """The file as the host's /view takes it: the fields of `FilmInfo`."""
        return {"name": self.path.name, "subfolder": self._subfolder, "type": io.FolderType.output.value}

    @property
    def ui(self) -> dict[str, Any]:
        """The film, and a line with its file and length, as in `video/LongLive_00001_.mp4: 189 frames, 7.88 s`."""
        plan = self._stream.film.plan
        name = (Path(self._subfolder) / self.path.name).as_posix()
        line = f"{name}: {plural(plan.video_frames, 'frame')}, {plan.seconds:.2f} s"
        # As of core's Save Video. The front-end's preview of videos would be a widget, which the cache takes for a
        # change of the graph; the film plays in a widget of ours.
        return {"video": [ui.SavedResult(self.path.name, self._subfolder, io.FolderType.output)], "text": (line,)}

    @contextmanager
    def logged(self, writer: FilmWriter) -> Iterator[None]:
        """Logs where the finished part of the film is if it ends early."""
        try:
            yield
        except BaseException:
            if writer.frames:
                frames = self._stream.film.plan.video_frames
                log.info("LongLive: %s holds the first %d of %d frames", self.path, writer.frames, frames)
            raise


def vae_preview(vae: comfy.sd.VAE, stream: Stream) -> Preview:
    """Makes a preview that decodes blocks with its own VAE. Raises ValueError if the VAE does not fit the model."""
    check_pair(vae, stream.latent_format, "preview VAE")
    decode = DecodeStream(decoder(vae, stream.latent_format), free=stream.spec.device_lock.free_vram)

    def frames(block: Block) -> Tensor:
        with stream.spec.device_lock:
            decode.feed(block.latents)
        return torch.cat(decode.flush())

    return frames


def _metadata(node: type[io.ComfyNode]) -> dict[str, str]:
    """The workflow as metadata, which a canvas opens from the film; empty with the host's --disable-metadata."""
    if args.disable_metadata:
        return {}
    metadata = dict(node.hidden.extra_pnginfo or {})
    if node.hidden.prompt is not None:
        metadata["prompt"] = node.hidden.prompt
    return {name: json.dumps(value) for name, value in metadata.items()}
