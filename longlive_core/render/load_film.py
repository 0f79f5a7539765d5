"""Loads what samples a film, the model and the settings, before its take is opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from ..film.sampler_settings import SamplerSettings
from ..mini import Mini
from ..model.attention import Attention, default_attention
from ..model.fp8_gate import choose_attention
from ..parallel import Leader, Ranks
from ..sampling import Generation, LedModel, NoiseSource, RankModel, SplitModel
from ..sampling.graphed_model import graph_notes
from ..sampling.split import check_split
from ..take.cast import Cast
from ..take.settings import Settings, recorded_only
from ..types import BLOCK_FRAMES, LatentShape
from ..vram.device_memory import device_memory
from ..vram.films_at_once import FilmsAtOnce, FilmSize, films_at_once
from .load_model import change_linears, load_model, model_notes, read_loras, transformer_of, weights_fingerprint
from .settings import RenderSettings, latent_size


@dataclass(frozen=True, slots=True)
class LoadedFilm:
    """What samples a film. recorded: the settings for its take. notes: on the model, for the user.

    led: the model on all ranks, if there are several. transformer: what cast files compare beside `recorded`.
    """

    mini: Mini
    sampler: SamplerSettings
    attention: Attention
    recorded: Settings
    notes: tuple[str, ...]
    led: LedModel | None = None
    transformer: str = ""

    @property
    def start(self) -> partial[Generation]:
        """Starts a generation, as `StartGeneration`; arguments after the plan have defaults."""
        model = self.led or self.mini.model
        return partial(self.sampler.start, model, self.mini.encode_text, attention=self.attention, pools=self.led)

    def at_once(self, wanted: int, blocks: int) -> FilmsAtOnce:
        """How many films of so many blocks the device holds at once. Raises ValueError as `films_at_once`."""
        model, sampler = self.mini.model, self.sampler
        block = LatentShape(1, model.config.channels, BLOCK_FRAMES, *sampler.size)
        branches, aligns = 1 if sampler.guidance == 1.0 else 2, sampler.seam == "align"
        blocks += len(sampler.cast)
        ranks = 1
        if self.led is not None:
            branches, ranks = branches // self.led.branches, self.led.ranks
        graphs = sampler.cuda_graphs and self.led is None and not graph_notes(model, sampler.memory)
        size = FilmSize(
            model.config, sampler.memory, block, blocks, branches, aligns, model.dtype, ranks, graphs=graphs
        )
        return films_at_once(wanted, size, device_memory(model.device))

    def with_cast(self, cast: Cast) -> LoadedFilm:
        """What samples the film with the blocks of its cast files. Raises ValueError as `Cast.check`."""
        cast.check(self.recorded, self.transformer)
        recorded = recorded_only({**self.recorded, "cast": cast.recorded})
        return replace(self, sampler=replace(self.sampler, cast=cast.blocks), recorded=recorded)

    def with_seed(self, seed: int, noise: NoiseSource | None = None) -> LoadedFilm:
        """What samples another film of the same model and settings, with another seed and without the notes."""
        sampler = replace(self.sampler, seed=seed, noise=noise)
        return replace(self, sampler=sampler, recorded={**self.recorded, "seed": seed}, notes=())


def load_film(
    settings: RenderSettings,
    mini: Mini | None = None,
    *,
    fingerprint: bool = True,
    noise: NoiseSource | None = None,
    leader: Leader | None = None,
) -> LoadedFilm:
    """Loads the model and its LoRAs.

    mini: replaces the model of the settings. fingerprint: compute that of the weights, which a take records. noise:
    replaces the noise from the seeds. leader: loads the model on the other ranks too. Raises ValueError (including
    CheckpointError) and OSError.
    """
    if settings.split_guidance:
        check_split(1 if leader is None else leader.ranks.size)
        if settings.guidance == 1.0:
            raise ValueError("guidance 1 has one branch, which --split-guidance cannot split; set another --guidance")
    mini = mini or load_model(settings.model)
    if leader is not None:
        mini.to(leader.ranks.device)
    if settings.decode_device is not None:
        mini.vae.to(settings.decode_device)
    loras = read_loras(settings.model, settings.loras)
    weights = weights_fingerprint(mini, loras) if fingerprint else ""
    transformer = transformer_of(mini, loras) if fingerprint else ""
    changes = change_linears(mini.model, settings.fp8, loras)
    attention = choose_attention(mini.model, default_attention(mini.model.device), settings.attention)
    graphs = graph_notes(mini.model, settings.memory) if settings.cuda_graphs else ()
    if settings.cuda_graphs and leader is not None:
        graphs = ("no CUDA graphs: several processes share the model",)
    notes = (*model_notes(settings.model), *changes, *attention.notes, *graphs)
    sampler = SamplerSettings(
        latent_size(settings.size, mini.pixel_size),
        settings.memory,
        settings.seed,
        settings.steps,
        settings.guidance,
        settings.negative,
        noise,
        settings.sampled_seam,
        settings.cuda_graphs,
    )
    led = None
    if leader is not None:
        kind = SplitModel if settings.split_guidance else LedModel
        led = kind(leader, sampler.size, RankModel(mini.model, attention.function), load_rank, settings)
    return LoadedFilm(mini, sampler, attention.function, settings.recorded(sampler, weights), notes, led, transformer)


def load_rank(ranks: Ranks, settings: RenderSettings) -> RankModel:
    """Loads the model of the settings on another rank, which decodes nothing."""
    mini = load_model(settings.model)
    mini.model.to(ranks.device)
    own = replace(settings, decode_device=None, split_guidance=False)
    loaded = load_film(own, mini, fingerprint=False)
    return RankModel(loaded.mini.model, loaded.attention)
