"""Compiles the kernels that an op launches for a GPU that is not there, and reads registers and code from the cubin."""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_INSTRUCTION = 16
"""Bytes of an instruction since sm_70."""
_NOP = 0x918
"""Opcode in the low 12 bits of an instruction; NOPs pad the end of a kernel."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel that an op launches.

    spilled: bytes of a thread in local memory. instructions: in the code of the kernel, of which each warp runs nearly
    all once. warps: of the whole launch. ptx: the code before ptxas. variant: equal for launches that one compilation
    serves.
    """

    kernel: str
    registers: int
    spilled: int
    instructions: int
    warps: int
    ptx: str
    variant: str


class _Target:
    """A driver of Triton's for a GPU that is not there. Its device number is its architecture."""

    def __init__(self, arch: int) -> None:
        self._arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._arch, 32)

    def get_current_device(self) -> int:
        return self._arch

    def get_current_stream(self, device: int) -> int:  # noqa: ARG002
        return 0


@contextmanager
def compiling(arch: int) -> Generator[list[Compiled], None, None]:
    """While this is open, a launch compiles the kernel for sm_`arch` and adds it to the list; nothing runs.

    Tensors may be on the meta device.
    """
    found: list[Compiled] = []
    run: Callable[..., Any] = JITFunction.run

    def compile_only(kernel: Any, *args: Any, grid: tuple[int, ...], warmup: bool, **options: Any) -> None:  # noqa: ANN401, ARG001
        compiled = run(kernel, *args, grid=grid, warmup=True, **options)
        warps = prod(grid) * compiled.metadata.num_warps
        found.append(_measure(kernel.__name__, compiled, warps))

    driver.set_active(_Target(arch))  # pyright: ignore[reportArgumentType]
    JITFunction.run = compile_only
    try:
        yield found
    finally:
        JITFunction.run = run


def _measure(name: str, compiled: Any, warps: int) -> Compiled:  # noqa: ANN401 (Triton's CompiledKernel)
    cubin: bytes = compiled.asm["cubin"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.check_output([_CUOBJDUMP, "--dump-resource-usage", file.name], text=True)
    registers, stack, local = (int(number) for number in re.findall(r"\b(?:REG|STACK|LOCAL):(\d+)", usage))
    return Compiled(name, registers, stack + local, _instructions(cubin), warps, compiled.asm["ptx"], compiled.hash)


def _instructions(cubin: bytes) -> int:
    """Instructions but NOPs in the sections `.text.…` of a 64-bit ELF file."""
    table, size, count, names = struct.unpack_from("<Q10xHHH", cubin, 0x28)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + index * size) for index in range(count)]
    name_table = headers[names][4]
    total = 0
    for name, _, _, _, offset, length in headers:
        if cubin.startswith(b".text.", name_table + name):
            words = struct.iter_unpack("<QQ", cubin[offset : offset + length])
            total += sum(low & 0xFFF != _NOP for low, _ in words)
    return total
