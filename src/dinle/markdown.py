"""Pieces of the Markdown reports: tables, figures as people read them, texts side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dinle.measure.wer import AlignedPair

LINE_WIDTH = 100
_GAP = "*"


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; bars and line breaks inside cells are made harmless."""
    lines = [list(header), ["---"] * len(header), *([clean_cell(str(cell)) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def clean_cell(text: str) -> str:
    """Text that stays inside its table cell."""
    return " ".join(text.split()).replace("|", "\\|")


def format_percent(share: float, digits: int = 1) -> str:
    """``0.123`` as ``12.3 %``."""
    return f"{100 * share:.{digits}f} %"


def format_rate(rate: Mapping[str, Any]) -> str:
    """A rate of ``scores.json`` with its interval: ``12.3 % [11.0, 13.9]``."""
    low, high = rate["interval"]
    return f"{format_percent(rate['rate'])} [{100 * low:.1f}, {100 * high:.1f}]"


def format_machine(machine: Mapping[str, Any]) -> str:
    """The machine that :func:`dinle.run.describe_machine` describes, as a table."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    rows = [
        ("processor", machine["cpu"]),
        ("instructions that matter", ", ".join(machine["cpu_flags"]) or "none known"),
        ("cores", machine["cores"]),
        ("memory", f"{machine['memory_gb']} GB"),
        ("system", machine["system"]),
        ("versions", versions),
    ]
    return format_table(("machine", ""), rows)


def format_alignment(pairs: Sequence[AlignedPair]) -> str:
    """Reference above hypothesis, word under word; ``S``, ``I``, ``D`` below substitutions, insertions and deletions.

    Lines are broken at :data:`LINE_WIDTH` characters.
    """
    columns = [_make_column(wanted, got) for wanted, got in pairs]
    blocks: list[list[tuple[str, str, str]]] = [[]]
    width = 0
    for column in columns:
        width += len(column[0]) + 1
        if width > LINE_WIDTH and blocks[-1]:
            blocks.append([])
            width = len(column[0]) + 1
        blocks[-1].append(column)
    return "\n\n".join(_format_block(block) for block in blocks)


def _make_column(wanted: str | None, got: str | None) -> tuple[str, str, str]:
    width = max(len(wanted or ""), len(got or ""))
    mark = "I" if wanted is None else "D" if got is None else "" if wanted == got else "S"
    top, middle = ((_GAP * width if word is None else word).ljust(width) for word in (wanted, got))
    return top, middle, mark.ljust(width)


def _format_block(block: Sequence[tuple[str, str, str]]) -> str:
    rows = zip(("REF", "HYP", "   "), zip(*block, strict=True) if block else ((), (), ()), strict=True)
    return "\n".join(f"{name} {' '.join(cells)}".rstrip() for name, cells in rows).rstrip()
