"""The product of a bulk job, and what is kept of it while it grows, so that a killed job goes on where it was.

``out.parquet`` appears last, when all is done. Until then finished batches lie in ``out.parquet.parts/``, each in a file of
its own that is written under another name and then renamed: a kill leaves a batch there as a whole, or not at all.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.errors import MissingExtraError, UsageError

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet
except ModuleNotFoundError as error:
    raise MissingExtraError("ray", error.name or "pyarrow") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PLAN_FILE = "plan.json"
SUFFIX = ".parquet"
WORD = pa.struct(
    [("text", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64()), ("confidence", pa.float64())]
)
SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("text", pa.string()),
        ("raw_text", pa.string()),
        ("words", pa.list_(WORD)),
        ("duration_s", pa.float64()),
        ("inference_s", pa.float64()),
        ("model", pa.string()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Parts:
    """The files of a bulk job.

    Attributes:
        output: the Parquet file of the transcripts; its presence means finished.
    """

    output: Path

    @property
    def errors(self) -> Path:
        """The Parquet file of what could not be transcribed: ``out.errors.parquet`` beside ``out.parquet``."""
        return self.output.with_suffix(f".errors{SUFFIX}")

    @property
    def folder(self) -> Path:
        """Where finished batches wait for the end."""
        return self.output.with_name(f"{self.output.name}.parts")

    def open(self, plan: Mapping[str, Any]) -> set[str]:
        """Begin, or go on after a kill.

        Args:
            plan: the settings that transcripts depend on.

        Returns:
            The files that are done.

        Raises:
            UsageError: the output is no ``.parquet``, exists, or was begun with other settings.
        """
        if self.output.suffix != SUFFIX:
            raise UsageError(
                f"--output_dir is {str(self.output)!r}; with --ray expected a file, such as -o out{SUFFIX}"
            )
        if self.output.exists():
            if self.folder.exists():  # killed between the two last steps
                shutil.rmtree(self.folder)
            raise UsageError(f"{self.output} is there already; remove it to transcribe again, or give another name")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / PLAN_FILE
        text = json.dumps(plan, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        if not path.exists():
            write_whole(path, self.folder, lambda partial: partial.write_text(text, encoding="utf-8"))
        elif path.read_text(encoding="utf-8") != text:
            raise UsageError(
                f"{self.folder} holds work that was begun with another model or other options (see {PLAN_FILE} there); give the "
                "same, another output, or remove the folder"
            )
        return {name for table in self._read(columns=["file"]) for name in table["file"].to_pylist()}

    def add(self, table: pa.Table) -> None:
        """Keep a finished batch; its name says nothing, so that no two runs meet."""
        write_table(table.cast(SCHEMA), self.folder / f"{uuid.uuid4().hex}{SUFFIX}", self.folder)

    def finish(self, files: Iterable[str]) -> int:
        """Join the batches of these files, in the order of their names, and remove what was kept meanwhile.

        Returns:
            How many files could not be transcribed.
        """
        table = pa.concat_tables([SCHEMA.empty_table(), *self._read()])
        wanted, rows = set(files), []
        for row, name in enumerate(table["file"].to_pylist()):
            if name in wanted:  # each once, and none that is gone since
                wanted.discard(name)
                rows.append(row)
        table = table.take(pa.array(rows, pa.int64())).sort_by("file")
        failed = pc.is_valid(table["error"])
        errors = table.filter(failed).select(["file", "error"])
        write_table(errors, self.errors, self.folder)
        write_table(table.filter(pc.invert(failed)).drop_columns(["error"]), self.output, self.folder)
        shutil.rmtree(self.folder)
        return int(errors.num_rows)

    def _read(self, columns: list[str] | None = None) -> list[pa.Table]:
        return [parquet.read_table(path, columns=columns) for path in sorted(self.folder.glob(f"*{SUFFIX}"))]


def write_table(table: pa.Table, path: Path, meanwhile: Path) -> None:
    """A table as a Parquet file that appears complete or not at all; it grows in the folder ``meanwhile``."""
    write_whole(path, meanwhile, lambda partial: parquet.write_table(table, partial))


def write_whole(path: Path, meanwhile: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file under another name in a folder of the same disk, then rename it."""
    partial = meanwhile / f"{uuid.uuid4().hex}.partial"
    write(partial)
    partial.replace(path)
