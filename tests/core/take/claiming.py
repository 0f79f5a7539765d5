"""A program that locks folders, for tests of several processes: `claiming.py ROOT FOLDER hold|contend [TIMES]`.

It imports the lock without the rest of the package, which takes a second to load.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType


def main() -> None:
    root, folder, command, *times = sys.argv[1:]
    for name, path in (
        ("longlive", ""),
        ("longlive.longlive_core", "longlive_core"),
        ("longlive.longlive_core.take", "longlive_core/take"),
    ):
        package = ModuleType(name)
        package.__path__ = [str(Path(root) / path)]
        sys.modules[name] = package
    lock = import_module("longlive.longlive_core.take.lock")
    if command == "hold":
        hold(lock, Path(folder))
    else:
        contend(lock, Path(folder), int(times[0]))


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def hold(lock: ModuleType, folder: Path) -> None:
    """Locks the folder and answers each line with whether it still has it."""
    with lock.TakeLock(folder) as held:
        say("holds")
        for _ in sys.stdin:
            try:
                held.check()
                say("has it")
            except lock.TakenOverError as error:
                say(error)


def contend(lock: ModuleType, folder: Path, times: int) -> None:
    """Locks the folder as often as told; prints how often another process was inside, too."""
    others = done = 0
    say("ready")
    sys.stdin.readline()
    inside = folder.with_name("inside")
    while done < times:
        try:
            held = lock.TakeLock(folder)
        except BlockingIOError:
            continue
        with held:
            try:
                inside.touch(exist_ok=False)
            except FileExistsError:
                others += 1
            time.sleep(0.0005)
            held.check()
            inside.unlink(missing_ok=True)
        done += 1
    say(others)


if __name__ == "__main__":
    main()
