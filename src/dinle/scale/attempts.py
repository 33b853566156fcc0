"""A recording that kills its process is tried a few times, not for ever."""

from __future__ import annotations

import getpass
import hashlib
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dinle.errors import DinleError

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_TRIES = 2  # Ray begins again what dies, without end


class ProcessLostError(DinleError):
    """The process died each time that it transcribed a recording."""

    def __init__(self) -> None:
        super().__init__(
            f"the process died {FILE_TRIES} times while it transcribed this; transcribe it alone to see why"
        )


class Attempts:
    """Knows, on one machine, how often a recording was begun in a process that then died.

    Args:
        run: names the run.
        folder: where it is written down (default: in the machine's folder for temporary files).
    """

    def __init__(self, run: str, folder: Path | None = None) -> None:
        self.run = run
        self.folder = folder or Path(tempfile.gettempdir()) / f"dinle-{getpass.getuser()}"
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def begin(self, file: str) -> Iterator[None]:
        """The time in which a recording is transcribed.

        Raises:
            ProcessLostError: it was begun too often, and no process lived to its end.
        """
        path = self.folder / f"{self.run}-{hashlib.sha256(file.encode()).hexdigest()[:16]}"
        if path.exists() and path.stat().st_size >= FILE_TRIES:
            path.unlink()
            raise ProcessLostError
        with path.open("ab") as marks:
            marks.write(b".")
        try:
            yield
        finally:
            path.unlink()
