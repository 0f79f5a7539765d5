"""Opens checkpoints: safetensors and .pt files, parts of a sharded model, its index, or the folder that has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from .names import summarize_names
from .pickle_file import open_pickle
from .safetensors_file import open_safetensors
from .tensor_source import QUANTISED, CheckpointError, TensorSource

# Keys that hold the transformer in .pt files, on any level; the first that exists is used.
TRAINER_KEYS = ("state_dict", "model_state_dict", "model", "module", "ema", "ema_state_dict", "ema_model", "model_ema")
WRAPPER_KEYS = (
    "generator",
    "generator_ema",
    "generator_lora",
    *TRAINER_KEYS,
    "transformer",
    "dit",
    "net",
    "network",
    "params",
    "weights",
)
LORA_WRAPPER_KEYS = ("generator_lora", "lora", "lora_state_dict", "adapter", *TRAINER_KEYS, "network")

INDEX_SUFFIX = ".safetensors.index.json"
PART = re.compile(r"(.+)-(\d+)-of-(\d+)(\.\w+)")
WEIGHT_SUFFIXES = (".safetensors", ".sft", ".pt", ".pth", ".bin")

# First bytes of other files that users take for checkpoints.
FOREIGN_FILES = {
    b"GGUF": "a GGUF file; this loader takes safetensors",
    b"version https://git-lfs": "a git-lfs pointer, not the weights themselves; run `git lfs pull`",
    b"<!DOCTYPE": "a web page, probably a download that needed a login; download it again",
    b"<html": "a web page, probably a download that needed a login; download it again",
}


def open_source(path: Path | str, wrappers: tuple[str, ...] = WRAPPER_KEYS) -> TensorSource:
    """Opens a file, or all files of a sharded model; the content decides what a file is, not its name.

    path: a safetensors or .pt file, a part of a sharded model, its index, or a folder with one of them.
    wrappers: keys of a .pt file that lead to the tensors, in the order of preference.
    Raises FileNotFoundError, IsADirectoryError, or CheckpointError for a file that is truncated or of another kind,
    for a missing part, and for a pickle that holds more than tensors.
    """
    path = Path(path)
    files = _files(path)
    sources = [_open_file(file, wrappers) for file in files]
    return sources[0] if files == [path] or len(files) == 1 else _joined(path, sources)


def _open_file(path: Path, wrappers: tuple[str, ...]) -> TensorSource:
    if not path.is_file():  # a pipe or a device, whose first bytes may never come
        raise CheckpointError(f"checkpoint {path} is no regular file; copy it to a disk first")
    with path.open("rb") as file:
        start = file.read(32)
    if len(start) < 8:
        raise CheckpointError(f"checkpoint {path} has only {len(start)} bytes: it is empty or truncated; copy it again")
    for magic, description in FOREIGN_FILES.items():
        if start.startswith(magic):
            raise CheckpointError(f"checkpoint {path} is {description}")
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):
        return open_pickle(path, wrappers, zipped=start.startswith(b"PK"))
    return open_safetensors(path)


def _files(path: Path) -> list[Path]:
    """Returns the files that a path stands for."""
    if path.is_dir():
        return _files_in(path)
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path} does not exist; check the path")
    if path.name.endswith(INDEX_SUFFIX):
        return _indexed(path)
    part = PART.fullmatch(path.name)
    if part is None:
        return [path]
    front, digits, count, suffix = part[1], len(part[2]), part[3], part[4]
    names = [f"{front}-{number:0{digits}}-of-{count}{suffix}" for number in range(1, min(int(count), 10_000) + 1)]
    return _present(path, names)


def _files_in(folder: Path) -> list[Path]:
    """Returns the files of the only model in a folder: the one with an index, else peft's, else a single one."""
    indices = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    weights = sorted(file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    adapters = [file for file in weights if file.stem == "adapter_model"]
    parts = [file for file in weights if PART.fullmatch(file.name)]
    whole = [file for file in weights if file not in parts]
    first = {PART.sub(r"\1 \3 \4", file.name): file for file in reversed(parts)}
    for choices in (indices, adapters, [*first.values(), *whole]):
        if len(choices) == 1:
            return _files(choices[0])
    raise IsADirectoryError(f"checkpoint {folder} is a folder with {len(weights)} files of weights; name one of them")


def _indexed(index: Path) -> list[Path]:
    try:
        names = set(map(str, json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"checkpoint {index} is no index of a sharded model ({error!r}); copy it again"
        ) from error
    return _present(index, sorted(names))


def _present(path: Path, names: list[str]) -> list[Path]:
    """Returns the files of these names beside `path`. Raises CheckpointError for missing ones."""
    missing = [name for name in names if not (path.parent / name).exists()]
    if missing or not names:
        raise CheckpointError(
            f"checkpoint {path} is one of {len(names)} parts and lacks {summarize_names(missing)}; copy them beside it"
        )
    return [path.parent / name for name in names]


def _joined(path: Path, sources: list[TensorSource]) -> TensorSource:
    """Makes one source of the parts of a sharded model; `config.json` beside them is their metadata `config`."""
    where = {name: source for source in sources for name in source.specs}
    if len(where) < sum(len(source.specs) for source in sources):
        twice = [name for source in sources for name in source.specs if where[name] is not source]
        raise CheckpointError(f"checkpoint {path} holds tensors in two of its parts: {summarize_names(twice)}")

    def read(names: Iterable[str]) -> dict[str, Tensor]:
        names = list(names)
        read: dict[str, Tensor] = {}
        for source in sources:
            if mine := [name for name in names if where[name] is source]:
                read |= source.read(mine)
        return {name: read[name] for name in names}

    metadata = _joined_metadata(path, [source.metadata for source in sources])
    config = sources[0].files[0].with_name("config.json")
    if "config" not in metadata and config.is_file():
        metadata["config"] = _class_config(config)
    return TensorSource(
        path,
        {name: spec for source in sources for name, spec in source.specs.items()},
        metadata,
        read,
        sources[0].wrapper,
        tuple(file for source in sources for file in source.files),
        all(source.safetensors for source in sources),
    )


def _joined_metadata(path: Path, parts: list[Mapping[str, str]]) -> dict[str, str]:
    """Joins the metadata of parts, each of which may say how its own layers are quantised."""
    joined = {key: value for part in parts for key, value in part.items()}
    texts = [part[QUANTISED] for part in parts if QUANTISED in part]
    if len(set(texts)) > 1:
        try:
            settings = [json.loads(text) for text in texts]
            layers = {name: layer for one in settings for name, layer in one["layers"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"checkpoint {path} has damaged quantisation settings; copy it again") from error
        joined[QUANTISED] = json.dumps({**settings[0], "layers": layers})
    return joined


def _class_config(path: Path) -> str:
    """Returns the text of a model's config.json, or `{}` for one that names no class of a model."""
    try:
        content: Any = json.loads(path.read_text("utf-8"))
    except ValueError:
        return "{}"
    return (
        json.dumps(content) if isinstance(content, dict) and "_class_name" in cast("dict[str, Any]", content) else "{}"
    )
