"""The result of verifying one recorded run, and how it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .recorded import RecordedRun

Verdict = Literal["ok", "failed", "skipped"]

TOLERANCE = 5e-6


@dataclass(frozen=True, slots=True)
class Result:
    """Result of verifying one file. Errors are relative L2, or None if the kind of file has no such error.

    output_error: of the film; for a VAE, of decoding. call_error: of the worst model call, or the mean over the calls
    of a low-precision run; for a VAE, of encoding. attended: whether every call attended to the recorded frames.
    tolerance: limit of the error that decides. note: details, such as the reason of a failure.
    """

    name: str
    kind: str
    verdict: Verdict
    output_error: float | None = None
    call_error: float | None = None
    attended: bool | None = None
    tolerance: float | None = None
    note: str = ""


def compared(
    recorded: RecordedRun,
    agrees: bool,
    output_error: float | None,
    call_error: float | None,
    attended: bool | None,
    tolerance: float,
    note: str,
) -> Result:
    """The result of a comparison."""
    verdict = "ok" if agrees else "failed"
    return Result(recorded.path.name, recorded.kind, verdict, output_error, call_error, attended, tolerance, note)


def skipped(recorded: RecordedRun, note: str) -> Result:
    """The result for a file that is not compared. note: the reason."""
    return Result(recorded.path.name, recorded.kind, "skipped", note=note)
