from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from dinle.recognize import cpu

if TYPE_CHECKING:
    from pathlib import Path

INTEL = (
    "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu fma avx2 avx512f{more}\n\nprocessor\t: 1\nmodel name\t: other\n"
)
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp{more}\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (INTEL.format(more=" avx512_vnni amx_int8"), "x86-amx"),
        (INTEL.format(more=" avx512_vnni"), "x86-avx512-vnni"),
        (INTEL.format(more=""), "x86-avx512"),
        ("flags : avx2 avx_vnni", "x86-avx-vnni"),
        ("flags : avx2", "x86-avx2"),
        (ARM.format(more=""), "arm-dotprod"),
        (ARM.format(more=" i8mm sve"), "arm-i8mm"),
        ("", "mips"),
    ],
)
def test_a_kind_is_that_of_the_best_int8_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: str
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text, encoding="utf-8")
    read = cpu.read_cpuinfo
    monkeypatch.setattr(cpu, "read_cpuinfo", lambda: read(path))
    monkeypatch.setattr(platform, "machine", lambda: "mips")
    assert cpu.find_cpu_kind() == kind


def test_without_cpuinfo_nothing_is_known(tmp_path: Path) -> None:
    assert cpu.read_cpuinfo(tmp_path / "cpuinfo") == {}
