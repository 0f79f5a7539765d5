"""Settings of a run: a TOML file is read strictly, and its template and schema come from the dataclass."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pytest
from longlive.longlive_core.training.settings import RUNS, ARRun
from longlive.longlive_core.training.stage import OptimiserSettings
from longlive.longlive_core.training.toml_settings import (
    Setting,
    check_ranges,
    json_schema,
    read_settings,
    write_template,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Noise:
    """Noise of a run.

    level: of the noise, from 0. low, high: range of
    its frequencies. Raises ValueError for a level out of range.
    """

    level: Annotated[float, Setting(at_least=0, at_most=1, example=0.5)]
    low: int = 1
    high: int = 2

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Settings:
    """Settings of a test.

    data: folder of films. rate: how fast. kind: of film. pair: two numbers. on: switches it on. noise: added. more:
    noise that is off at first.
    """

    data: Path
    rate: Annotated[float | None, Setting(above=0, example=0.1)] = None
    kind: Literal["long", "short"] = "long"
    pair: Annotated[tuple[float, float], Setting(below=1)] = (0.0, 0.5)
    on: bool = False
    noise: Noise = field(default_factory=partial(Noise, 0.25, low=7))
    more: Noise | None = None


def read(tmp_path: Path, text: str, cls: type[Any] = Settings) -> Any:  # noqa: ANN401
    path = tmp_path / "run.toml"
    path.write_text(text, "utf-8")
    return read_settings(cls, path)


def test_a_file_is_read(tmp_path: Path) -> None:
    """Values get their types; what is not given keeps the default, also within a table that is given in part."""
    text = 'data = "a/b"\nrate = 2\nkind = "short"\npair = [0, 0.25]\n[noise]\nhigh = 9\n[more]\nlevel = 1'
    settings = read(tmp_path, text)
    assert settings == Settings(Path("a/b"), 2.0, "short", (0.0, 0.25), False, Noise(0.25, 7, 9), Noise(1.0))
    assert isinstance(settings.rate, float) and isinstance(settings.pair[0], float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'data' is missing: folder of films"),
        ('data = "a"\nrates = 1', "unknown key 'rates'; did you mean 'rate'?"),
        ('data = "a"\n[noise]\nlvl = 1', "unknown key 'noise.lvl'; did you mean 'level'?"),
        ('data = "a"\nzzz = 1', "unknown key 'zzz'; known keys: data, rate, kind, pair, on, noise, more"),
        ("data = 3", "'data' = 3 must be a path in quotes"),
        ('data = "a"\nrate = "fast"', "'rate' = \"fast\" must be a number; 0.1 is a common value"),
        ('data = "a"\nrate = true', "'rate' = true must be a number"),
        ('data = "a"\non = 1', "'on' = 1 must be true or false"),
        ('data = "a"\nnoise = 1', "'noise' must be a table: write [noise]"),
        ('data = "a"\n[noise]\nlow = 1.5', "'noise.low' = 1.5 must be a whole number; 7 is a common value"),
        ('data = "a"\nrate = 0', "'rate' = 0 must be above 0; 0.1 is a common value"),
        ('data = "a"\nrate = nan', "'rate' = nan must be above 0"),
        ('data = "a"\npair = [0.5, 1]', "'pair' = 1 must be below 1; [0.0, 0.5] is a common value"),
        ('data = "a"\npair = [0.5]', "'pair' must be a list of 2 values; [0.0, 0.5]"),
        ('data = "a"\nkind = "wide"', '\'kind\' = "wide" must be one of "long", "short"'),
        ('data = "a"\nkind = []', "'kind' = [] must be one of"),
        ('data = "a"\n[noise]\nlevel = 2', "'noise.level' = 2 must be at most 1; 0.5 is a common value"),
        ('data = "a"\n[more]', "'more.level' is missing: of the noise, from 0; 0.5 is a common value"),
        ("data = ", "is not TOML"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, text: str, message: str) -> None:
    """Each fault is one error with the file, the key, and a remedy."""
    with pytest.raises(ValueError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "run.toml")) and message in str(caught.value)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    """The error of a missing file names the command that prints a template."""
    with pytest.raises(FileNotFoundError, match=r"ar\.toml does not exist; `longlive train init ar`"):
        read_settings(Settings, tmp_path / "ar.toml")


def test_code_obeys_the_same_limits() -> None:
    """A value out of range is refused where the dataclass is made in code, too."""
    with pytest.raises(ValueError, match=r"'lr' = -1 must be above 0; 1e-05 is a common value"):
        OptimiserSettings(lr=-1)
    with pytest.raises(ValueError, match="'validation_films' = 0 leaves no film"):
        ARRun(validation_films=0)


def test_the_template_shows_every_field_with_its_description() -> None:
    """Descriptions come from the docstring; a field that is not set and a table that is off are commented out."""
    lines = write_template(Settings).splitlines()
    assert "# folder of films" in lines and "# rate = 0.1" in lines and 'kind = "long"' in lines
    assert lines[lines.index("low = 7") - 1] == "# range of its frequencies" == lines[lines.index("high = 2") - 1]
    assert "# of the noise, from 0 (at least 0 and at most 1)" in lines
    assert '# of film (one of "long", "short")' in lines
    assert lines[lines.index("# [more]") + 2] == "# level = 0.5"


@pytest.mark.parametrize("kind", RUNS)
def test_the_template_of_each_run_is_read_as_its_defaults(tmp_path: Path, kind: str) -> None:
    """The file that `longlive train init` prints is valid and means the defaults."""
    settings = read(tmp_path, write_template(RUNS[kind]), RUNS[kind])
    for item in fields(settings):
        default = item.default_factory() if callable(item.default_factory) else item.default
        assert getattr(settings, item.name) == default, item.name


def _undescribed(cls: type[Any], schema: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, hint in get_type_hints(cls).items():
        value = schema["properties"][name]
        if "description" not in value:
            found.append(prefix + name)
        if is_dataclass(hint):
            found += _undescribed(hint, value, f"{prefix}{name}.")
    return found


@pytest.mark.parametrize("kind", RUNS)
def test_every_field_of_each_run_is_described(kind: str) -> None:
    """Every field of every run has a description in the docstring of its dataclass."""
    assert _undescribed(RUNS[kind], json_schema(RUNS[kind], kind)) == []


def test_the_schema_holds_types_limits_and_defaults() -> None:
    """The JSON schema says what the reader checks."""
    schema = json_schema(Settings, "a title")
    assert schema["required"] == ["data"] and schema["additionalProperties"] is False
    properties = schema["properties"]
    assert properties["rate"] == {"description": "how fast", "type": "number", "exclusiveMinimum": 0}
    assert properties["kind"]["enum"] == ["long", "short"] and properties["on"]["default"] is False
    assert properties["pair"]["minItems"] == 2 and properties["pair"]["default"] == [0.0, 0.5]
    noise = properties["noise"]
    assert noise["type"] == "object" and noise["properties"]["low"]["default"] == 7 and "required" not in noise
    assert properties["more"]["required"] == ["level"]
    assert tomllib.loads(write_template(Settings)).keys() <= properties.keys()
