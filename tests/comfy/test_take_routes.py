"""The routes of takes: what they tell and change, and what they refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import opentimelineio as otio
import pytest
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take, lock_shot
from longlive.longlive_core.take.lock import TakeLock
from longlive.longlive_core.take.sources import save_sources
from PIL import Image

from .graphs import in_host
from .host import Host, Start

pytestmark = pytest.mark.comfy

ROUTES = "/longlive/takes"
SCRIPT = """hero: a big red ring

Shot 1 (1 block): {hero} sways on the left
Shot 2 (1 block): {hero} circles in the middle
"""


@pytest.fixture(scope="module")
def host(start: Start) -> Iterator[Host]:
    """A server whose output folder has nothing but the takes of these tests."""
    with start() as own:
        yield own


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Take:
    """A take of two shots."""
    folder = tmp_path_factory.mktemp("render")
    (folder / "film.txt").write_text(SCRIPT)
    job = Job(RenderSettings(folder / "film.txt", folder / "film.mp4", size="32x32", steps=1))
    assert job.run() and job.take is not None
    return job.take


@pytest.fixture
def take(host: Host, rendered: Take) -> Iterator[Take]:
    """A copy of it as a take that saved itself, with a still."""
    folder = host.base / "output" / "takes" / "auto" / "2026-11-29 0a1b2c3d_00001.take"
    shutil.copytree(rendered.folder, folder)
    Image.new("RGB", (64, 36), "red").save(folder / "shots" / "001" / "v0" / "still.jpg")
    yield Take.load(folder)
    shutil.rmtree(folder.parent)


def name_of(take: Take) -> str:
    return f"takes/auto/{take.folder.name}"


def ask(host: Host, path: str, content: object = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of a GET, or of a POST if there is `content`; bytes are sent as they are."""
    data = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        with urlopen(Request(host.url + path, data, sent), timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        body = error.read()
        return error.code, json.loads(body) if body.startswith(b"{") else body


def post(host: Host, take: Take, action: str, content: object) -> Any:  # noqa: ANN401
    code, answer = ask(host, f"{ROUTES}/{quote(name_of(take), safe='')}/{action}", content)
    assert code == 200, answer
    return answer


def refused(host: Host, take: Take, action: str, content: object, code: int = 400) -> str:
    """The sentence with which a change is refused; the take stays as it is."""
    before = (take.folder / "take.json").read_bytes()
    found, answer = ask(host, f"{ROUTES}/{quote(name_of(take), safe='')}/{action}", content)
    assert found == code, answer
    assert (take.folder / "take.json").read_bytes() == before
    return answer["error"]


def test_the_list_tells_of_every_take(host: Host, take: Take) -> None:
    """Names, sizes, lengths and pictures; a take that cannot be read has its error beside the others."""
    (host.base / "output" / "torn.take").mkdir()
    (host.base / "output" / "torn.take" / "take.json").write_text("{")
    code, answer = ask(host, ROUTES)
    shutil.rmtree(host.base / "output" / "torn.take")
    assert code == 200 and [one["name"] for one in answer["unreadable"]] == ["torn.take"]
    (one,) = answer["takes"]
    assert one["name"] == name_of(take) and one["title"] == "a big red ring sways on the left"
    assert (one["shots"], one["blocks"], one["made"], one["complete"], one["making"]) == (2, 2, 2, True, False)
    assert one["bytes"] == answer["bytes"] > 10_000 and one["pace"] > 0 and one["auto"] and not one["removable"]
    assert answer["limit"] == 10_000_000_000 and answer["keep"] is False
    with urlopen(host.url + one["still"]) as picture, Image.open(BytesIO(picture.read())) as still:
        assert picture.headers["Content-Type"] == "image/jpeg" and still.size == (64, 36)


def test_the_edit_is_exported(host: Host, take: Take, rendered: Take) -> None:
    """As a file to put beside the film, or with a remedy where ComfyUI's Python has no OpenTimelineIO."""
    path = f"{ROUTES}/{quote(name_of(take), safe='')}/timeline"
    code, answer = ask(host, path)
    assert code == 409 and "the film of takes/auto/" in answer["error"] and "make it first" in answer["error"]
    film = host.base / "output" / "video" / "a film.mp4"
    film.parent.mkdir(exist_ok=True)
    shutil.copyfile(rendered.film, film)
    (take.folder / "film.json").write_text(json.dumps({"filename": film.name, "subfolder": "video", "type": "output"}))
    if in_host("import importlib.util as u; print(u.find_spec('opentimelineio') is not None)") == "False\n":
        code, answer = ask(host, path)
        assert code == 409 and "pip install opentimelineio" in answer["error"]
        return
    with urlopen(host.url + path) as found:
        assert found.headers["Content-Disposition"] == 'attachment; filename="a%20film.otio"'
        timeline = otio.adapters.read_from_string(found.read().decode())
    assert [clip.name for clip in timeline.tracks[0]] == ["Shot 1", "Shot 2"]
    assert timeline.tracks[0][0].media_reference.target_url == "a%20film.mp4"


def test_the_oldest_takes_are_offered_for_removal(host: Host, take: Take) -> None:
    """Above the limit, only those that saved themselves and have no locked shot; nothing is removed."""
    kept = host.base / "output" / "mine.take"
    shutil.copytree(take.folder, kept)
    second = take.folder.with_name("2026-11-30 0a1b2c3d_00002.take")
    shutil.copytree(take.folder, second)
    host.post("/settings", {"LongLive.Takes.Limit": 0.00001})
    try:
        offered = {one["name"] for one in host.get(ROUTES)["takes"] if one["removable"]}
        assert offered == {name_of(take), f"takes/auto/{second.name}"}
        lock_shot(take, 1, True).save()
        assert {one["name"] for one in host.get(ROUTES)["takes"] if one["removable"]} == {f"takes/auto/{second.name}"}
    finally:
        host.post("/settings", {"LongLive.Takes.Limit": 10})
        shutil.rmtree(kept)
    assert take.folder.is_dir() and second.is_dir()


def test_a_take_tells_of_its_shots_and_versions(host: Host, take: Take) -> None:
    """With the script, the size, and the film's file if it is there."""
    address = f"{ROUTES}/{quote(name_of(take), safe='')}"
    answer = host.get(address)
    assert answer["script"] == SCRIPT and (answer["width"], answer["height"], answer["fps"]) == (32, 32, 24.0)
    assert answer["film"] is None
    first, second = answer["shots"]
    assert (first["start"], first["seconds"], second["start"]) == (0.0, 1.208, 1.208)
    assert (second["shot"], second["first"], second["blocks"], second["locked"]) == (2, 1, 1, False)
    (version,) = second["versions"]
    assert (version["text"], version["seed"], version["made"], version["blocks"]) == (
        "{hero} circles in the middle",
        None,
        "render",
        1,
    )
    assert first["versions"][0]["still"] and version["still"] is None
    take.folder.with_suffix(".mp4").write_bytes(b"film")
    assert host.get(address)["film"] == {
        "filename": f"{take.folder.stem}.mp4",
        "subfolder": "takes/auto",
        "type": "output",
    }
    assert ask(host, f"{address}/workflow")[0] == 404
    (take.folder / "workflow.json").write_text('{"id": "x"}')
    assert host.get(f"{address}/workflow") == {"workflow": {"id": "x"}}


def test_versions_are_made_chosen_locked_pruned_and_removed(host: Host, take: Take) -> None:
    """As the command line does, and the answer is the take as it is then."""
    answer = post(host, take, "retake", {"shot": 2, "seed": 9})
    assert answer["version"] == 1 and answer["take"]["shots"][1]["versions"][1]["blocks"] == 0
    assert "@seed=9" in answer["take"]["script"] and not answer["take"]["complete"]
    assert post(host, take, "retake", {"shot": 2, "seed": 9})["version"] == 1
    assert post(host, take, "retake", {"shot": 2})["version"] == 2
    assert post(host, take, "retake", {"shot": 2, "prompt": "{hero} rests", "mode": "keep"})["version"] == 3
    answer = post(host, take, "choose", {"shot": 2, "version": 0})
    assert answer["take"]["complete"] and answer["take"]["script"] == SCRIPT and answer["notes"] == []
    assert post(host, take, "lock", {"shot": 2, "locked": True})["take"]["shots"][1]["locked"]
    assert post(host, take, "prune", {})["freed"] == 0
    assert post(host, take, "prune", {"memory": True})["freed"] > 1000
    assert "is locked" in refused(host, take, "retake", {"shot": 2, "seed": 4})
    other = take.folder / "notes.txt"
    other.write_text("the user's own")
    answer = post(host, take, "delete", {})
    assert answer["freed"] > 1000 and [path.name for path in take.folder.iterdir() if path.name != "in_use"] == [
        "notes.txt"
    ]
    assert host.get(ROUTES)["takes"] == []


def test_what_a_script_would_change(host: Host, take: Take) -> None:
    """The blocks and shots by state, in one line too; another film where lengths or settings differ."""
    edited = SCRIPT.replace("circles", "rests")
    answer = post(host, take, "changes", {"script": edited})
    assert answer["line"].startswith("shot 2, 1 of 2 blocks, about ") and answer["seconds"] > 0
    assert (answer["kept"], answer["remade"], answer["new"], answer["another_film"]) == (1, 1, 0, False)
    shot = {"shot": 2, "state": "remade", "first": 1, "blocks": ["remade"], "version": None}
    assert answer["shots"][1] == {**shot, "board": False, "source": None}
    longer = SCRIPT + "a blue square sways"
    assert post(host, take, "changes", {"script": longer, "default_seconds": 1.4})["new"] == 1
    assert post(host, take, "changes", {"script": longer, "default_seconds": 8})["new"] == 6
    answer = post(host, take, "changes", {"script": SCRIPT, "settings": {"seed": 5, "fps": 24}})
    assert answer["another_film"] and answer["remade"] == 2
    assert "line 1" in refused(host, take, "changes", {"script": "Shot 1: {nobody}"})
    lock_shot(take, 2, True).save()
    assert "shot 2 is locked" in refused(host, take, "changes", {"script": edited})
    for settings in ({"colour": 1}, {"seed": [1]}, {"fps": 0}, {"negative": "x" * 20_000}, []):
        assert refused(host, take, "changes", {"script": SCRIPT, "settings": settings})
    assert refused(host, take, "changes", {"script": 3}) and refused(host, take, "changes", {})


def test_the_take_that_a_run_goes_on_in(host: Host, take: Take) -> None:
    """That of the node with the film's settings and sources; without one the newest, of which nothing is kept."""
    path, asked = f"{ROUTES}/changes", {"workflow": "w", "node": "3", "script": SCRIPT}
    assert ask(host, path, asked) == (200, {"take": None, "changes": None, "refused": ""})
    key = sha256(json.dumps(["w", "3"]).encode()).hexdigest()[:8]
    own = take.folder.rename(take.folder.with_name(f"2026-11-29 {key}_00001.take"))
    save_sources(own, [["LongLiveMini", 0, []]])
    asked["sources"] = [["LongLiveMini", 0, []]]
    for more, kept in (({}, 2), ({"settings": {"seed": 99}}, 0), ({"sources": [["LongLiveModelLoader", 0, []]]}, 0)):
        status, answer = ask(host, path, {**asked, **more})
        assert (status, answer["take"]["name"]) == (200, f"takes/auto/{own.name}")
        assert (answer["changes"]["kept"], answer["changes"]["another_film"]) == (kept, kept == 0)
    lock_shot(Take.load(own), 2, True).save()
    answer = ask(host, path, {**asked, "script": SCRIPT.replace("circles", "rests")})[1]
    assert "shot 2 is locked" in answer["refused"] and answer["changes"] is None
    for wrong in ({"script": "Shot 1: {nobody}"}, {"workflow": 1}, {"settings": {"colour": 1}}):
        assert ask(host, path, {**asked, **wrong})[0] == 400
    assert ask(host, path, asked, Origin="https://example.com")[0] == 403
    assert ask(host, path, {**asked, "script": "x" * 2**21})[0] == 413


@pytest.mark.parametrize(
    ("action", "content", "why"),
    [
        ("choose", {"shot": 3, "version": 0}, "shot 3: this film has 2 shots"),
        ("choose", {"shot": 1, "version": 7}, "shot 1 has no version 7"),
        ("choose", {"shot": 1, "version": -1}, "shot 1 has no version -1"),
        ("choose", {"shot": True, "version": 0}, "shot must be an integer"),
        ("choose", {"shot": 1}, "version must be an integer"),
        ("lock", {"shot": 1, "locked": "yes"}, "locked must be true or false"),
        ("retake", {"shot": 1, "seed": 1.5}, "seed must be an integer"),
        ("retake", {"shot": 1, "seed": -1}, "seed -1 is outside"),
        ("retake", {"shot": 1, "seed": 1, "mode": "loop"}, "mode must be one of ripple, keep"),
        ("retake", {"shot": 1, "prompt": "x" * 20_000}, "limit is 10,000"),
        ("prune", {"memory": 1}, "memory must be true or false"),
        ("choose", [], "must be JSON such as"),
        ("choose", b"{", "must be JSON such as"),
    ],
)
def test_a_change_that_cannot_be_is_refused(host: Host, take: Take, action: str, content: object, why: str) -> None:
    """With one sentence, and the take stays as it is."""
    assert why in refused(host, take, action, content)


def test_a_take_that_is_being_made_is_not_changed(host: Host, take: Take) -> None:
    """It can be read, and changes answer 409."""
    with TakeLock(take.folder):
        for action, content in (("lock", {"shot": 1, "locked": True}), ("delete", {}), ("prune", {})):
            assert "is being made" in refused(host, take, action, content, 409)
        assert post(host, take, "changes", {"script": SCRIPT})["kept"] == 2
        assert host.get(ROUTES)["takes"]


def test_nothing_outside_the_output_folder_is_reached(host: Host, take: Take, rendered: Take) -> None:
    """Names that leave the folder, absolute names, links and folders that are no takes do not exist."""
    outside = host.base / "stolen.take"
    shutil.copytree(rendered.folder, outside)
    Image.new("RGB", (8, 8)).save(outside / "shots" / "001" / "v0" / "still.jpg")
    (host.base / "output" / "link.take").symlink_to(outside)
    names = ["../stolen.take", "takes/../../stolen.take", str(outside), "link.take", "takes", ".", "x" * 2000, "a\0b"]
    encoded = [quote(name, safe="") for name in names]
    for name in (
        *encoded,
        "..%2fstolen.take",
        "%2e%2e%2fstolen.take",
        "..%5cstolen.take",
        "%252e%252e%252fstolen.take",
    ):
        for path in ("", "/workflow", "/shots/1/versions/0/still"):
            assert ask(host, f"{ROUTES}/{name}{path}")[0] in (400, 404), (name, path)
        for action in ("choose", "lock", "retake", "prune", "delete", "changes"):
            content = {"shot": 1, "version": 0, "locked": True, "script": SCRIPT}
            assert ask(host, f"{ROUTES}/{name}/{action}", content)[0] in (400, 404), (name, action)
    address = f"{ROUTES}/{quote(name_of(take), safe='')}"
    for path in ("/shots/../versions/0/still", "/shots/1/versions/..%2f0/still", "/shots/9/versions/0/still"):
        assert ask(host, address + path)[0] == 404
    assert Take.load(outside) == Take.load(outside) and (outside / "shots" / "001" / "v0" / "still.jpg").is_file()
    (host.base / "output" / "link.take").unlink()


def test_other_pages_and_large_bodies_are_refused(host: Host, take: Take) -> None:
    """Nothing is read or changed for the page of another server; two megabytes are no change."""
    address = f"{ROUTES}/{quote(name_of(take), safe='')}"
    before = (take.folder / "take.json").read_bytes()
    for headers in ({"Origin": "https://example.com"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
        for path in (ROUTES, address, f"{address}/workflow", f"{address}/shots/1/versions/0/still"):
            assert ask(host, path, **headers)[0] == 403, (path, headers)
        for action in ("choose", "lock", "retake", "prune", "delete", "changes"):
            content = {"shot": 1, "version": 0, "locked": True, "script": SCRIPT}
            assert ask(host, f"{address}/{action}", content, **headers)[0] == 403, (action, headers)
    for action in ("choose", "changes", "delete"):
        assert ask(host, f"{address}/{action}", {"script": "x" * 2**21})[0] == 413
    assert (take.folder / "take.json").read_bytes() == before


def test_a_folder_of_takes_has_no_film_of_another(host: Host, take: Take) -> None:
    """A record that names a file outside the output folder is not told."""
    for film in (
        {"filename": "server.log", "subfolder": ".."},
        {"filename": "/etc/hostname", "subfolder": ""},
        [],
        "x",
    ):
        (take.folder / "film.json").write_text(json.dumps(film))
        assert host.get(f"{ROUTES}/{quote(name_of(take), safe='')}")["film"] is None
    assert Path(take.folder / "film.json").is_file()
