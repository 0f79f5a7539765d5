"""Every kernel compiles for GPUs that are not there, and its counts stay under a table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kernel_table.py")
EXACT_ROUNDINGS = ["layer_norm_modulate", "gate_residual", "quantize_fp8_rows"]


def table(*arguments: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Runs the table in a process of its own: in this one Triton's kernels are interpreted."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, SCRIPT, "--check", *arguments], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.slow
def test_no_kernel_spills_or_grows(tmp_path: Path) -> None:
    """All kernels compile for sm_90 without spills, with no more registers and instructions than the table allows."""
    found = table(tmp_path=tmp_path)
    assert found.returncode == 0, found.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["80"])
def test_kernels_compile_for_the_oldest_gpu(arch: str, tmp_path: Path) -> None:
    """Kernels that round compile within their limits on sm_80, where E4M3 has no conversion."""
    found = table("--arch", arch, "--only", *EXACT_ROUNDINGS, tmp_path=tmp_path)
    assert found.returncode == 0, found.stderr[-3000:]


@pytest.mark.slow
def test_warming_up_compiles_what_a_film_launches(tmp_path: Path) -> None:
    """The self-tests compile every variant of a kernel that the 5B model launches, also for slots off by 4 bytes."""
    names = ["layer_norm_modulate", "gelu_tanh_fp8", "append_nvfp4", "read_fp8"]
    found = table("--late", "--only", *names, tmp_path=tmp_path)
    assert found.returncode == 0, found.stderr[-3000:]
