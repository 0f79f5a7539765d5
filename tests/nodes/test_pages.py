"""What stands beside the nodes: help pages, locales, the script, and the archive that the registry serves.

The schemas are read as source, so that none of this needs ComfyUI.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
LOCALES = ("en", "ja", "zh")
Parts = dict[str, ast.expr]  # a function's name and the list that it returns
CONTROL = "control_after_generate"  # a widget that the front-end adds to an input


@dataclass(frozen=True)
class Node:
    """A node's schema: its id, name and description, its inputs in order, its outputs' names.

    tooltips: those written in the schema, by "inputs" or "outputs" and the key in a locale. An input whose tooltip is
    in a helper function is left out.
    """

    id: str
    name: str
    description: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tooltips: dict[tuple[str, str], str]


def _shared_tooltips() -> Iterator[tuple[str, str]]:
    for line in ast.parse((ROOT / "nodes" / "tooltips.py").read_text("utf-8")).body:
        if isinstance(line, ast.Assign):
            yield f"tooltips.{ast.unparse(line.targets[0])}", str(ast.literal_eval(line.value))


TOOLTIPS = dict(_shared_tooltips())


def _text(call: ast.Call, keyword: str) -> str | None:
    """A keyword's string, if it is there; `tooltips.STREAM` is the constant of that module."""
    value = next((k.value for k in call.keywords if k.arg == keyword), None)
    if isinstance(value, ast.Attribute):
        return TOOLTIPS[ast.unparse(value)]
    return None if value is None else str(ast.literal_eval(value))


def _calls(schema: ast.Call, keyword: str, parts: Parts) -> list[ast.Call]:
    """The calls in a keyword's list, those of `*_part()` among them; anything else fails: it could not be read."""
    return list(_items(next(k.value for k in schema.keywords if k.arg == keyword), parts))


def _items(listed: ast.expr, parts: Parts) -> Iterator[ast.Call]:
    assert isinstance(listed, ast.List), ast.dump(listed)
    for item in listed.elts:
        if isinstance(item, ast.Starred):
            assert isinstance(item.value, ast.Call) and not item.value.args, ast.dump(item)
            yield from _items(parts[ast.unparse(item.value.func)], parts)
        else:
            assert isinstance(item, ast.Call), ast.dump(item)
            yield item


def _parts(module: ast.Module) -> Parts:
    """What each function of a module, or of a module of nodes that it imports from, returns where it returns at once.

    Functions with arguments are left out.
    """
    parts: Parts = {}
    for part in module.body:
        if isinstance(part, ast.ImportFrom) and part.level == 1 and part.module is not None:
            beside = ROOT / "nodes" / f"{part.module}.py"
            names = {name.name for name in part.names}
            if beside.exists():
                found = _parts(ast.parse(beside.read_text("utf-8")))
                parts |= {name: value for name, value in found.items() if name in names}
        elif isinstance(part, ast.FunctionDef) and not part.args.args:
            last = part.body[-1]
            if isinstance(last, ast.Return) and last.value is not None:
                parts[part.name] = last.value
    return parts


def _inputs(schema: ast.Call, parts: Parts) -> Iterator[str]:
    for call in _calls(schema, "inputs", parts):
        name = next((argument for argument in call.args), None) or next(k.value for k in call.keywords if k.arg == "id")
        yield str(ast.literal_eval(name))
        if ast.unparse(call.func) == "seed_input":
            yield CONTROL


def _output(call: ast.Call) -> str:
    """An output is called as it says, else by its type: `io.Model.Output()` is MODEL."""
    assert isinstance(call.func, ast.Attribute)
    return _text(call, "display_name") or ast.unparse(call.func.value).split(".")[-1].upper()


def _tooltip(call: ast.Call) -> str | None:
    """The tooltip of an input or output: the keyword, or the last argument of a helper such as `side_input`."""
    last = call.args[-1] if len(call.args) > 1 else None
    return _text(call, "tooltip") or (str(last.value) if isinstance(last, ast.Constant) else None)


def _tooltips(schema: ast.Call, parts: Parts) -> Iterator[tuple[tuple[str, str], str]]:
    for call in _calls(schema, "inputs", parts):
        if text := _tooltip(call):
            yield ("inputs", str(ast.literal_eval(call.args[0]))), text
    for index, call in enumerate(_calls(schema, "outputs", parts)):
        if text := _tooltip(call):
            yield ("outputs", str(index)), text


def _schemas() -> Iterator[Node]:
    for path in sorted((ROOT / "nodes").glob("*.py")):
        module = ast.parse(path.read_text("utf-8"))
        parts = _parts(module)
        for call in ast.walk(module):
            if isinstance(call, ast.Call) and (node_id := _text(call, "node_id")):
                name, description = _text(call, "display_name"), _text(call, "description")
                assert name and description, f"{node_id} has no display name or description"
                outputs = tuple(map(_output, _calls(call, "outputs", parts)))
                yield Node(
                    node_id, name, description, tuple(_inputs(call, parts)), outputs, dict(_tooltips(call, parts))
                )


NODES = {node.id: node for node in _schemas()}
# Signs that the front-end's translations read as syntax: a {name} would vanish, an @ be a link.
MESSAGE_SYNTAX = re.compile(r"[{}@|]")
SECTIONS = ("Inputs", "Outputs", "Reports", "Limits", "Example", "Troubleshooting")


def _locale(language: str, file: str) -> dict[str, Any]:
    return json.loads((ROOT / "locales" / language / f"{file}.json").read_text("utf-8"))


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_every_node_was_found() -> None:
    """Each class that the pack lists as a node has a schema that these tests can read."""
    tree = ast.parse((ROOT / "nodes" / "__init__.py").read_text("utf-8"))
    listed = next(n.value for n in ast.walk(tree) if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "NODES")
    assert isinstance(listed, ast.List)
    assert len(listed.elts) == len(NODES) > 0


def test_pages_are_of_nodes() -> None:
    """There is a help page for each node and for nothing else."""
    assert {path.stem for path in (ROOT / "web" / "docs").glob("*.md")} == set(NODES)


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_a_page_names_everything(node: Node) -> None:
    """A help page has the node's name as its title, every section, and a table row for each input and output."""
    page = (ROOT / "web" / "docs" / f"{node.id}.md").read_text("utf-8")
    assert page.startswith(f"# {node.name}\n")
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert tuple(heading for heading in headings if heading in SECTIONS) == SECTIONS
    rows = re.findall(r"^\| `?(\w+)`? \|", page, re.MULTILINE)
    assert [name for name in node.inputs if name not in rows and name != CONTROL] == []
    assert [name for name in node.outputs if name not in rows] == []


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """Every text in the shipped Python, with `…` for each value that is filled in."""
    texts: list[str] = []
    for path in (path for folder in ("nodes", "longlive_core") for path in (ROOT / folder).rglob("*.py")):
        for found in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(found, ast.JoinedStr):
                parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in found.values)
                texts.append("".join(parts))
            elif isinstance(found, ast.Constant) and isinstance(found.value, str):
                texts.append(found.value)
    return texts


def _quotes(text: str) -> Iterator[str]:
    """The messages at the start of list items and table rows, as in `- "…", "…": remedy` and `| "…" | remedy |`."""
    for quotes in re.findall(r"""^(?:- |\| )((?:"[^"]+"(?:, )?)+)""", text, re.MULTILINE):
        yield from re.findall(r'"([^"]+)"', quotes)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "web" / "docs").glob("*.md"))], ids=lambda page: page.stem
)
def test_pages_quote_messages_that_exist(page: Path, messages: list[str]) -> None:
    """A message that a page quotes is in the code, word for word; `…` stands for values and left-out parts."""

    def found(quote: str) -> bool:
        pattern = re.compile(".*".join(map(re.escape, quote.strip("… ").split("…"))), re.DOTALL)
        return any(map(pattern.search, messages))

    assert [quote for quote in _quotes(page.read_text("utf-8")) if not found(quote)] == []


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_pictures_are_there(node: Node) -> None:
    """A picture in a help page exists: the help panel looks for it beside the page."""
    page = (ROOT / "web" / "docs" / f"{node.id}.md").read_text("utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    assert [picture for picture in pictures if not (ROOT / "web" / "docs" / picture).is_file()] == []


@pytest.mark.parametrize("language", LOCALES)
def test_a_locale_names_what_there_is(language: str) -> None:
    """A locale has a name for every node, input and output, and for nothing else."""
    named = _locale(language, "nodeDefs")
    assert set(named) == set(NODES)
    for node in NODES.values():
        entry = named[node.id]
        assert set(entry) <= {"display_name", "description", "inputs", "outputs"}, node.id
        assert entry["display_name"] and entry["description"], node.id
        assert set(entry.get("inputs", {})) == set(node.inputs), node.id
        assert set(entry["outputs"]) == {str(index) for index in range(len(node.outputs))}, node.id
        parts = [*entry.get("inputs", {}).values(), *entry["outputs"].values()]
        assert all(part["name"] and set(part) <= {"name", "tooltip"} for part in parts), node.id


def test_english_names_are_the_code_s() -> None:
    """In English a node, an input and an output are called as in the code, which workflows and errors speak of."""
    named = _locale("en", "nodeDefs")
    for node in NODES.values():
        entry = named[node.id]
        assert entry["display_name"] == node.name
        names = {key: part["name"] for key, part in entry.get("inputs", {}).items()}
        assert names == {name: name.replace("_", " ") if name == CONTROL else name for name in node.inputs}, node.id
        assert tuple(part["name"] for _, part in sorted(entry["outputs"].items())) == node.outputs, node.id


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_english_texts_are_the_schema_s(node: Node) -> None:
    """The English locale has the descriptions and tooltips of the schema, but for one with signs of message syntax."""
    entry = _locale("en", "nodeDefs")[node.id]
    assert entry["description"] == node.description
    texts = {at: text for at, text in node.tooltips.items() if not MESSAGE_SYNTAX.search(text)}
    assert {(kind, key): entry[kind][key].get("tooltip") for kind, key in texts} == texts


@pytest.mark.parametrize("language", LOCALES)
def test_a_locale_has_the_tooltips_of_english(language: str) -> None:
    """What is explained in English is explained in every language."""
    here, english = _locale(language, "nodeDefs"), _locale("en", "nodeDefs")
    for node, entry in english.items():
        for kind in ("inputs", "outputs"):
            told = {key for key, part in entry.get(kind, {}).items() if part.get("tooltip")}
            assert told == {key for key, part in here[node].get(kind, {}).items() if part.get("tooltip")}, node


@pytest.mark.parametrize("path", sorted((ROOT / "locales").glob("*/*.json")), ids=lambda path: path.parent.name)
def test_locales_hold_no_message_syntax(path: Path) -> None:
    """No text that the front-end shows has a sign that its translations read as syntax."""

    def texts(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                if name != "longlive":
                    yield from texts(inner)
        else:
            yield str(value)

    # The scripts of the canvas read their words themselves.
    shown = {key: value for key, value in json.loads(path.read_text("utf-8")).items() if key != "longlive"}
    assert [text for text in texts(shown) if MESSAGE_SYNTAX.search(text)] == []


@pytest.mark.parametrize("language", LOCALES)
def test_a_locale_has_the_words_of_the_canvas(language: str) -> None:
    """Every word of the scripts is in every language, with the same values in it, and no other word is."""
    scripts = "".join(path.read_text("utf-8") for path in sorted((ROOT / "web" / "js").rglob("*.mjs")))
    here, english = _locale(language, "main")["longlive"], _locale("en", "main")["longlive"]
    assert list(here) == list(english)
    chosen = tuple(re.findall(r"`(\w+_)\${", scripts))  # as in word(`strip_${state}`)
    assert [key for key in english if f'"{key}"' not in scripts and not key.startswith(chosen)] == []
    assert [key for key in re.findall(r'\bword\(\s*"(\w+)"', scripts) if key not in english] == []
    for key, text in english.items():
        assert set(re.findall(r"{\w+}", here[key])) == set(re.findall(r"{\w+}", text)), key


def test_words_of_the_canvas_are_in_every_language() -> None:
    """Each language has the words that the canvas uses, with the same values in them, and no others."""
    words = {
        path.parent.name: json.loads(path.read_text("utf-8"))["longlive"] for path in ROOT.glob("locales/*/main.json")
    }
    values = {
        language: {key: set(re.findall(r"\{\w+\}", text)) for key, text in of.items()} for language, of in words.items()
    }
    assert all(named == values["en"] for named in values.values())
    used = "".join(path.read_text("utf-8") for path in (ROOT / "web" / "js").rglob("*.mjs"))
    assert [key for key in values["en"] if f'"{key}"' not in used] == []


@pytest.mark.parametrize("language", LOCALES)
def test_a_locale_names_the_settings(language: str) -> None:
    """Every setting of the script, its options and its group have a name in every language."""
    script = "".join(path.read_text("utf-8") for path in sorted((ROOT / "web" / "js").rglob("*.mjs")))
    settings, groups = _locale(language, "settings"), _locale(language, "main")["settingsCategories"]
    ids = re.findall(r'= "(LongLive\.[\w.]+)"', script)
    assert ids and {name.replace(".", "_") for name in ids} == set(settings)
    options = re.findall(r'"([^"]+)": \[\d+, \d+\]', script)
    with_options = [setting["options"] for setting in settings.values() if "options" in setting]
    assert options and with_options and all(set(named) == set(options) for named in with_options)
    assert all(f'"{group}"' in script for group in groups)


def test_the_script_s_version() -> None:
    """The about page shows the version of pyproject.toml."""
    script = (ROOT / "web" / "js" / "longlive.js").read_text("utf-8")
    assert re.findall(r'VERSION = "([^"]+)"', script) == [_project()["project"]["version"]]


def test_the_registry_reads_the_versions() -> None:
    """The registry takes versions of three numbers only, and drops others without an error."""
    project = _project()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["project"]["version"])
    assert re.fullmatch(r">=\d+\.\d+\.\d+", project["tool"]["comfy"]["requires-comfyui"])


def _left_out() -> list[str]:
    lines = (ROOT / ".comfyignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert not any(set(rule) & set("*!?[") for rule in rules), "this test reads plain paths only"
    return rules


def _ships(path: str) -> bool:
    """Whether a file is in the archive. A rule with a slash inside is a path from the root, one without a name."""
    parts = [path, *map(str, Path(path).parents)][:-1]
    for rule in _left_out():
        name, folder = rule.rstrip("/"), rule.endswith("/")
        for part in parts[1:] if folder else parts:
            if part == name or ("/" not in name and fnmatch(Path(part).name, name)):
                return False
    return True


@pytest.mark.parametrize(
    "path",
    [
        "__init__.py",
        "pyproject.toml",
        "LICENSE",
        "web/js/longlive.js",
        "locales/en/nodeDefs.json",
        "workflows/x.json",
        "subgraphs/x.json",
        "longlive_core/assets/mini/dit.safetensors",
    ],
)
def test_the_archive_has_what_runs(path: str) -> None:
    """The archive has the nodes, their pages, workflows and models."""
    assert _ships(path)


@pytest.mark.parametrize(
    "path", ["tests/nodes/test_pages.py", ".ci/x.sh", ".github/workflows/publish.yml", "Makefile", "CONTRIBUTING.md"]
)
def test_the_archive_has_no_tools(path: str) -> None:
    """Tests and CI stay out of the archive: the registry's scanner has flagged packs for them."""
    assert not _ships(path)


FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler"}
FORBIDDEN_MODULES = {"subprocess", "requests", "urllib", "http", "httpx", "aiohttp", "socket", "marshal", "dill"}


def _suspicious(tree: ast.Module, path: str) -> Iterator[str]:
    """What the registry's scanner, and a careful user, would stop at."""
    for found in ast.walk(tree):
        modules: list[str] = []
        if isinstance(found, ast.Import):
            modules = [name.name.split(".")[0] for name in found.names]
        elif isinstance(found, ast.ImportFrom) and not found.level:
            modules = [(found.module or "").split(".")[0]]
            if path.startswith("nodes/routes/") and ast.unparse(found) == "from aiohttp import web":
                continue  # the host's own server, which calls nobody
        yield from (module for module in modules if module in FORBIDDEN_MODULES)
        may_pickle = path == "longlive_core/weights/pickle_file.py" and not isinstance(found, ast.ImportFrom)
        if "pickle" in modules and not may_pickle:
            yield "pickle"
        if (
            isinstance(found, ast.Attribute)
            and ast.unparse(found.value) == "pickle"
            and found.attr != "UnpicklingError"
        ):
            yield ast.unparse(found)
        if isinstance(found, ast.Call) and ast.unparse(found.func) in FORBIDDEN_CALLS:
            yield ast.unparse(found.func)
        if isinstance(found, ast.Call) and ast.unparse(found.func) == "torch.load":
            said = {k.arg: ast.unparse(k.value) for k in found.keywords}
            if said.get("weights_only") != "True":
                yield "torch.load without weights_only=True"


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "import subprocess",
        "from aiohttp import web",
        "import pickle",
        "from urllib.request import urlopen",
        "torch.load(f)",
    ],
)
def test_the_scan_sees(code: str) -> None:
    """The scan below finds what it looks for."""
    assert list(_suspicious(ast.parse(code), "nodes/x.py"))


def test_the_archive_does_nothing_suspicious() -> None:
    """No shipped Python runs code from text, other programs or pickles, or talks to a network."""
    rooms = [
        ROOT / "__init__.py",
        *(p for room in ("nodes", "longlive_core", "kernels") for p in (ROOT / room).rglob("*.py")),
    ]
    shipped = [path for path in rooms if _ships(path.relative_to(ROOT).as_posix())]
    assert len(shipped) > 20
    found = {
        name: list(_suspicious(ast.parse(path.read_text("utf-8")), name))
        for path in shipped
        for name in [path.relative_to(ROOT).as_posix()]
    }
    assert {name: what for name, what in found.items() if what} == {}
