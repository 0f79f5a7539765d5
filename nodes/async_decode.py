"""The node that turns a STREAM into a film on disk while it is made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.sd
import torch
from comfy.cli_args import args
from comfy_api.latest import InputImpl, io
from torch import Tensor

from ..longlive_core.pipeline.decode import QUEUE_DEPTH
from ..longlive_core.pipeline.stages import MODES, Mode
from ..longlive_core.pipeline.write import write
from ..longlive_core.types import Block
from ..longlive_core.vae import DecodeStream
from ..longlive_core.video import CODECS, QUALITIES, FilmWriter
from ..longlive_core.video.media_type import media_type
from . import tooltips
from .announced_file import AnnouncedFile
from .checks import passed
from .file_prefix import check_prefix
from .film_file import FilmFile
from .followed_script import with_followed
from .given_clip import audio_input, with_notes
from .kept_take import keep
from .latent_colours import Preview
from .native_vae import decoder_patcher
from .routes import films
from .run_stream import StreamRun
from .take_record import TakeRecord
from .types import CATEGORY, FILM_TYPES, Stream
from .vae import check_pair, decoder, slice_bytes


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
        target = FilmFile(filename_prefix, stream, codec, quality)
        sound, notes = (None, []) if audio is None else audio_input(audio)
        record = TakeRecord(stream)
        with films().making(stream) as film:
            notes += keep(stream, film.place.workflow, films().user_of(film.place.client))
            film.update(take=record.name)
            run = StreamRun(
                stream,
                beside=[decoder_patcher(one) for one in (vae, preview_vae) if one is not None],
                memory=slice_bytes(vae, stream.spec.shape),
                mode=decode,
                preview=preview,
                film=film,
            )
            # Opened after all other checks, so that refused inputs leave no empty file, and before any model is loaded.
            source = _Source(cls, stream)
            opened = target.open(record.take, vae, chunk_decoder.reach, sound, source.metadata())
            file = AnnouncedFile(opened, film)
            recorded = record.of_run(run, target.fields, source.workflow)
            with file.growing(), source.following(file.writer), run, target.logged(file.writer), recorded:
                file.announce(**target.fields, mime=media_type(target.path, codec, sound is not None))
                decoded = run.decoded(chunk_decoder, file.is_written, chunk_decoder.reach)
                pieces = run.stage("decoding", decoded, QUEUE_DEPTH)
                for written in run.shown(run.stage("writing", write(pieces, file), QUEUE_DEPTH)):
                    record.add(written)
                    if written.frames is not None and preview is None:
                        run.show(written.block, written.frames)
        return io.NodeOutput(
            InputImpl.VideoFromFile(str(target.path)), ui=with_notes(target.ui(opened), [*notes, *record.notes])
        )


def vae_preview(vae: comfy.sd.VAE, stream: Stream) -> Preview:
    """Makes a preview that decodes blocks with its own VAE. Raises ValueError if the VAE does not fit the model."""
    check_pair(vae, stream.latent_format, "preview VAE")
    decode = DecodeStream(decoder(vae, stream.latent_format), free=stream.spec.device_lock.free_vram)

    def frames(block: Block) -> Tensor:
        with stream.spec.device_lock.work():
            decode.feed(block.latents)
        return torch.cat(decode.flush())

    return frames


class _Source:
    """The prompt and the workflow that a film is made from: its metadata, which a canvas opens from the file."""

    def __init__(self, node: type[io.ComfyNode], stream: Stream) -> None:
        self._stream, self._extra = stream, dict(node.hidden.extra_pnginfo or {})
        self._prompt = node.hidden.prompt

    def workflow(self) -> dict[str, Any] | None:
        """The workflow as the film follows it by now."""
        return self._followed()[1]

    def metadata(self) -> dict[str, str]:
        """Prompt and workflow as JSON; empty with the host's --disable-metadata."""
        if args.disable_metadata:
            return {}
        prompt, workflow = self._followed()
        values = self._extra if workflow is None else {**self._extra, "workflow": workflow}
        if self._prompt is not None:
            values = {**values, "prompt": prompt}
        return {name: json.dumps(value) for name, value in values.items()}

    @contextmanager
    def following(self, writer: FilmWriter) -> Iterator[None]:
        """Gives the file the script that the film followed, if it was changed meanwhile."""
        try:
            yield
        finally:
            if self._stream.changed_scripts:
                writer.change_metadata(self.metadata())

    def _followed(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        return with_followed(self._prompt or {}, self._extra.get("workflow"), self._stream.changed_scripts)
