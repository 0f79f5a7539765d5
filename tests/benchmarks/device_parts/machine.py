"""What figures depend on: the device, its driver and clocks, versions, and the commit."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SMI = ("name", "driver_version", "clocks.sm", "clocks.mem", "power.limit", "temperature.gpu", "memory.total")
PACKAGES = ("torch", "triton", "numpy", "einops", "av", "comfy-kitchen", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")


def machine() -> dict[str, str]:
    """Facts by name. Without an NVIDIA GPU there are those of the processor only."""
    facts = {"commit": commit(), "python": platform.python_version(), "cores": str(os.cpu_count())}
    facts |= {name: found for name in PACKAGES if (found := _version(name))}
    rows = _lines("nvidia-smi", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader") or [""]
    values = [value.strip() for value in rows[0].split(",")]
    if len(values) == len(SMI):
        facts |= dict(zip(("gpu", *SMI[1:]), values, strict=True))
    return facts


def commit() -> str:
    """The git commit, with "-dirty" behind it if files differ, or "unknown" outside a repository."""
    lines = _lines("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    return lines[0] if lines else "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _lines(program: str, *arguments: str) -> list[str]:
    """What a program prints; nothing if it is not there or fails."""
    if shutil.which(program) is None:
        return []
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []
