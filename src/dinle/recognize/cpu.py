"""What kind of processor this is: it decides which precision is fast."""

from __future__ import annotations

import platform
from pathlib import Path

# What decides on the speed of int8 and fp32 products: x86 from /proc/cpuinfo's flags, ARM from its features.
CPU_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "sve",
)
# The best first. A kind stands for those processors on which int8 products run by the same instructions.
KINDS = (
    ("amx_int8", "x86-amx"),
    ("avx512_vnni", "x86-avx512-vnni"),
    ("avx_vnni", "x86-avx-vnni"),
    ("avx512f", "x86-avx512"),
    ("avx2", "x86-avx2"),
    ("i8mm", "arm-i8mm"),
    ("asimddp", "arm-dotprod"),
)


def find_cpu_kind() -> str:
    """The kind of this machine's processor, by its instructions for int8 products: ``x86-avx512-vnni``, ``x86-avx2``, ...

    Where the instructions are not told (not Linux): the architecture, such as ``arm64``.
    """
    flags = read_cpu_flags()
    return next((kind for flag, kind in KINDS if flag in flags), platform.machine() or "unknown")


def read_cpu_flags() -> list[str]:
    """Those of :data:`CPU_FLAGS` that this machine's processor has; empty where there is no /proc/cpuinfo."""
    cpu = read_cpuinfo()
    flags = set(f"{cpu.get('flags', '')} {cpu.get('Features', '')}".split())
    return [flag for flag in CPU_FLAGS if flag in flags]


def read_cpuinfo(path: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The first processor's entry; empty where there is none (not Linux)."""
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
