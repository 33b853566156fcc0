"""Progress bars on stderr; where stderr is no terminal, one line at the end of each."""

from __future__ import annotations

import time
from collections.abc import Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Item = TypeVar("Item")
WIDE_COLUMNS = 140  # of a log file or a pipe, where nothing says how wide a line may be


def open_console() -> Console:
    """Standard output for tables: as wide as the terminal, or as they need where there is none."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDE_COLUMNS
    return console


class Bar(Protocol):
    """What a step of work reports to."""

    def advance(self, amount: float = 1.0) -> None:
        """Add finished work."""

    def update(
        self, *, description: str | None = None, total: float | None = None, completed: float | None = None
    ) -> None:
        """Change the text, the size of the work, or how much of it is done."""


class _TerminalBar:
    def __init__(self, progress: Progress, description: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total)

    def advance(self, amount: float = 1.0) -> None:
        self._progress.advance(self._task, amount)

    def update(
        self, *, description: str | None = None, total: float | None = None, completed: float | None = None
    ) -> None:
        self._progress.update(self._task, description=description, total=total, completed=completed)


class _SilentBar:
    def __init__(self, description: str) -> None:
        self.description = description

    def advance(self, amount: float = 1.0) -> None:
        pass

    def update(
        self,
        *,
        description: str | None = None,
        total: float | None = None,  # noqa: ARG002 - the protocol's
        completed: float | None = None,  # noqa: ARG002 - the protocol's
    ) -> None:
        self.description = description or self.description


@contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Bar]:
    """A bar for one step of work.

    Args:
        description: what is being done, such as ``transcribing``.
        total: amount of work (``None``: unknown yet).
    """
    console = Console(stderr=True)
    started = time.monotonic()
    if not console.is_terminal:
        silent = _SilentBar(description)
        yield silent
        console.print(
            f"{silent.description}: done in {time.monotonic() - started:.1f} s", highlight=False, markup=False
        )
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console) as bars:
        yield _TerminalBar(bars, description, total)


def track(items: Iterable[Item], description: str, total: float | None = None) -> Iterator[Item]:
    """Yield ``items`` while a bar counts them; the total is their number where they have one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(description, total) as bar:
        for item in items:
            yield item
            bar.advance()
