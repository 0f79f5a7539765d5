"""Cast files of the canvas, in the folder `cast` of the host's input folder; scripts are read with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import comfy.model_patcher
import folder_paths
from comfy.quant_ops import QuantizedTensor

from ..longlive_core.film.block_store import BlockStore
from ..longlive_core.film.take_store import TakeStore
from ..longlive_core.script import ShotScript
from ..longlive_core.script.cast import ENDING, CastEntry, cast_facts
from ..longlive_core.take.cast import Cast
from ..longlive_core.take.cast_file import TRANSFORMER, check_name
from ..longlive_core.take.settings import COMFYUI, Settings
from ..longlive_core.take.transformer import transformer_fingerprint
from ..longlive_core.types import LatentShape
from .fingerprint import weights_fingerprint
from .lora_beside import loras_beside

FOLDER = "cast"


def cast_folder() -> Path:
    """The folder of cast files, which need not exist and may be a link to another one."""
    return (Path(folder_paths.get_input_directory()) / FOLDER).resolve()


def list_casts() -> list[str]:
    """Lists the cast files by their paths in the folder."""
    return sorted(path.relative_to(cast_folder()).as_posix() for path in cast_folder().rglob(f"*{ENDING}"))


def cast_path(name: str) -> Path:
    """The cast file with a path in the folder. Raises ValueError if it is outside the folder."""
    path = (cast_folder() / name).resolve()
    if not path.is_relative_to(cast_folder()):
        raise ValueError(f"the cast file {name} is outside the folder of cast files: put it into {cast_folder()}")
    return path


def entry_of(file: str, name: str) -> CastEntry:
    """A cast file as a script has it; without a name by the name that the file has. Raises ValueError."""
    name = name.strip() or name_in_file(file)
    check_name(name)
    return CastEntry(name, file)


def read_script(text: str, given: Sequence[CastEntry] = ()) -> ShotScript:
    """Parses a script with the cast files of the folder. given: see `ShotScript.parse`. Raises ScriptError."""
    return ShotScript.parse(text, name_in_file, given)


def name_in_file(file: str) -> str:
    """The name that a cast file has for its block. Raises ValueError if it is outside, missing or damaged."""
    return cast_facts(cast_path(file)).get("name", "")


def read_cast(script: ShotScript) -> Cast:
    """Reads the cast files of a script. Raises ValueError for one that is outside, missing or damaged."""
    return Cast.read(script, cast_path)


def recorded_cast(script: ShotScript) -> str:
    """What a take records of the cast files of a script, without their latents. Raises ValueError."""
    facts = ((file.name, cast_facts(cast_path(file.path))) for file in script.cast)
    return ",".join(f"{name}:{of_file.get('digest')}" for name, of_file in facts)


def cast_stamps(names: Iterable[str]) -> list[tuple[str, int, int]]:
    """Changes when one of these files is written. Those that are not there are left out."""
    stats = ((name, cast_path(name).stat()) for name in names if cast_path(name).is_file())
    return [(name, stat.st_mtime_ns, stat.st_size) for name, stat in stats]


def check_cast(cast: Cast, model: comfy.model_patcher.ModelPatcher, shape: LatentShape) -> None:
    """Raises ValueError if a film of this MODEL in blocks of this shape cannot recall one of the files."""
    if cast.cards:
        made_by = made_by_model(model, shape)
        cast.check(made_by, str(made_by[TRANSFORMER]))


def made_by_model(model: comfy.model_patcher.ModelPatcher, shape: LatentShape) -> Settings:
    """What a cast file records of the film that it is from."""
    pixels = shape.pixels
    return {
        "weights": f"{COMFYUI}-{weights_fingerprint(model)}",
        "size": f"{pixels.height}x{pixels.width}",
        "block_frames": shape.frames,
        TRANSFORMER: _transformer_of(model),
    }


def check_made_by(store: BlockStore, made_by: Settings) -> None:
    """Raises ValueError if the blocks of a film are those of a take that another MODEL made than `made_by`.

    A take whose blocks are all there is played with any MODEL.
    """
    if not isinstance(store, TakeStore):
        return
    take = store.take
    if take.settings.get("model") != COMFYUI:
        raise ValueError(
            f"{take.folder.name} was made on the command line, and whether this MODEL made it cannot be checked: "
            f"save the block there, by longlive cast save {take.folder.name} --shot N --block N"
        )
    if str(made_by["weights"]) not in str(take.settings.get("weights")):
        raise ValueError(
            f"{take.folder.name} was made by another MODEL or with other LoRAs than the one that is connected, and a "
            "cast file is for films of the same one: connect the MODEL that made it"
        )


def _transformer_of(model: comfy.model_patcher.ModelPatcher) -> str:
    """The `transformer_fingerprint` of a MODEL, "" with LoRAs, merged or beside its layers."""
    inner = model.model.diffusion_model
    parameters = dict(inner.named_parameters())
    quantised = any(isinstance(value, QuantizedTensor) for value in parameters.values())
    if quantised or model.patches or any(loras_beside(model)):
        return ""
    return transformer_fingerprint(parameters, len(inner.state_dict()))
