"""``dinle transcribe --ray``: folders of recordings on every core of a machine or a cluster, with Ray Data.

Actors hold a recogniser each, with one thread unless told otherwise: clips side by side use cores better than one clip on
all of them. The files must be readable under the same paths on every machine; the transcripts come back to this one.
"""

from __future__ import annotations

import logging
import os
import sys
import uuid
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.config import Backend
from dinle.errors import AudioError, DinleError, MissingExtraError, UsageError
from dinle.progress import progress
from dinle.recognize.bundle import BUNDLE_FILE, find_default_bundle, hash_file, read_bundle
from dinle.scale.attempts import Attempts, ProcessLostError
from dinle.scale.environment import ONE_BLAS_THREAD, QUIET, SILENT, make_token, set_up_environment
from dinle.scale.parts import SCHEMA, Parts

try:
    import pyarrow as pa
except ModuleNotFoundError as error:
    raise MissingExtraError("ray", error.name or "pyarrow") from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dinle.transcribe import TranscribeConfig

# Files of one task: few enough that little is lost with a kill and the last ones end together, enough that Ray's work for a
# task, about ten milliseconds, is small beside that of the models.
BATCH_FILES = 8
LOCAL = "local"  # what Ray calls a cluster of its own


@dataclass(frozen=True)
class Job:
    """What every actor is told.

    Attributes:
        model: bundle folder in full, or what the backend ``pytorch`` loads (``None``: the bundled model).
        backend, threads, language_model: see :func:`dinle.load`.
        hot_words: names and terms to be expected.
        written: write numbers and dates as people do.
        run: tells the files of this run from those of others.
    """

    model: str | None
    backend: Backend
    threads: int
    language_model: bool
    hot_words: tuple[str, ...]
    written: bool
    run: str


class BulkTranscriber:
    """One actor's recogniser; Ray Data calls it with batches of files."""

    def __init__(self, job: Job) -> None:
        from dinle.recognize.load import load
        from dinle.recognize.written import WrittenForm

        recognizer = load(job.model, backend=job.backend, threads=job.threads, language_model=job.language_model)
        self.recognizer = recognizer.with_hot_words(job.hot_words)
        self.written_form = WrittenForm() if job.written else None
        self.attempts = Attempts(job.run)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Transcripts of a batch with the columns ``file`` and ``path``: the rows of :data:`dinle.scale.parts.SCHEMA`."""
        files = zip(batch["file"].to_pylist(), batch["path"].to_pylist(), strict=True)
        return pa.Table.from_pylist([self._transcribe(file, Path(path)) for file, path in files], schema=SCHEMA)

    def _transcribe(self, file: str, path: Path) -> dict[str, Any]:
        try:
            with self.attempts.begin(file):
                transcript = self.recognizer.transcribe(path)
                if self.written_form is not None:
                    transcript = self.written_form.write_transcript(transcript)
        except (AudioError, OSError, ProcessLostError) as error:
            return {"file": file, "error": str(error)}
        except Exception as error:  # noqa: BLE001 - one recording must not end the work of a night
            return {"file": file, "error": f"not the recording's fault: {error!r}"}
        return {"file": file, **transcript.to_dict()}


@dataclass(frozen=True)
class Outcome:
    """What a job came to.

    Attributes:
        output: the transcripts.
        errors: what could not be transcribed.
        done_before: files that an earlier, killed run had done.
        failed: files that could not be transcribed.
    """

    output: Path
    errors: Path
    done_before: int
    failed: int


def transcribe_bulk(config: TranscribeConfig, files: Sequence[str], hot_words: tuple[str, ...]) -> Outcome:
    """Transcribe files with Ray Data into the Parquet file ``config.output_dir``, and those that fail beside it.

    Transcripts go to ``out.parquet`` (columns ``file``, ``text``, ``raw_text``, ``words``, ``duration_s``, ``inference_s``,
    ``model``), errors to ``out.errors.parquet`` (``file``, ``error``); both sorted by file. Called again after a kill, it goes
    on. Runs on a cluster where ``RAY_ADDRESS`` says so, else on this machine's cores.

    Args:
        config: of the command.
        files: the recordings.
        hot_words: names and terms to be expected.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: no output, or see :meth:`dinle.scale.parts.Parts.open`.
        BundleError: the model cannot be read.
        ClusterFailedError: Ray gave up.
    """
    if config.output_dir is None:
        raise UsageError("--ray needs a file for the transcripts: add -o out.parquet")
    if find_spec("ray") is None:  # said before a folder is made
        raise MissingExtraError("ray", "ray")
    job = make_job(config, hot_words)
    parts = Parts(config.output_dir)
    done = parts.open(make_plan(job)).intersection(files)
    left = [file for file in files if file not in done]
    if left:
        run_job(job, left, parts, done=len(done))
    return Outcome(parts.output, parts.errors, len(done), parts.finish(files))


class ClusterFailedError(DinleError):
    """Ray could not run the job to its end."""


def make_job(config: TranscribeConfig, hot_words: tuple[str, ...]) -> Job:
    """What the actors are told, checked here: an error in an actor is harder to read.

    Raises:
        BundleError: the model cannot be read.
        MissingExtraError: the written form is asked for, and damga is not installed.
    """
    model = config.model
    if model is not None and config.backend != "pytorch":
        read_bundle(model)
    if model is not None and Path(model).exists():  # a hub id is no path
        model = str(Path(model).resolve())
    if config.written:
        from dinle.recognize.written import WrittenForm

        WrittenForm()
    return Job(
        model, config.backend, config.threads or 1, config.language_model, hot_words, config.written, uuid.uuid4().hex
    )


def make_plan(job: Job) -> dict[str, Any]:
    """What a transcript depends on: two runs with the same may share their work."""
    plan = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(job).items()}
    del plan["threads"], plan["run"]
    bundle_file = (Path(job.model) if job.model is not None else find_default_bundle()) / BUNDLE_FILE
    return plan | {"bundle_sha256": hash_file(bundle_file) if bundle_file.is_file() else None}


def run_job(job: Job, files: Sequence[str], parts: Parts, *, done: int = 0) -> None:
    """Transcribe files in actors and keep every finished batch.

    Args:
        job: what the actors are told.
        files: the recordings, as the result is to name them.
        parts: where batches are kept.
        done: files that were done before, for the progress bar.

    Raises:
        ClusterFailedError: Ray gave up.
    """
    with open_cluster(), progress("transcribing (files)", total=done + len(files)) as bar:
        import ray.data.exceptions
        import ray.exceptions

        bar.advance(done)
        try:
            for table in stream_tables(job, files):
                parts.add(table)
                bar.advance(table.num_rows)
        except (ray.exceptions.RayError, ray.data.exceptions.SystemException) as error:
            raise ClusterFailedError(f"Ray gave up: {error}; call the command again to go on where it was") from error


def stream_tables(job: Job, files: Sequence[str]) -> Iterator[pa.Table]:
    """Tables of transcripts, one for each batch, as they are done and not in the order of the files."""
    import ray.data

    items = [{"file": file, "path": str(Path(file).resolve())} for file in files]
    batches = -(-len(items) // BATCH_FILES)
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    actors = max(1, min(int(resources.get("CPU", 1)) // job.threads, batches))
    dataset = ray.data.from_items(items, override_num_blocks=batches).map_batches(
        BulkTranscriber,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=actors),
        fn_constructor_args=(job,),
        num_cpus=job.threads,
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


@contextmanager
def open_cluster() -> Iterator[None]:
    """Ray as ``RAY_ADDRESS`` says (``auto``: the cluster that runs here), else with this machine's cores, until the end.

    Its own progress bars, logs and usage report are off; a Ray that runs in this process already is used and left.
    """
    address = prepare_environment()
    import ray.data

    for name in ("ray", "ray.data", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if ray.is_initialized():
        yield
        return
    local: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **local)
    try:
        yield
    finally:
        ray.shutdown()


def prepare_environment() -> str:
    """Set what Ray reads when it is imported, and say which cluster is meant."""
    address = os.environ.get("RAY_ADDRESS", LOCAL)
    set_up_environment(QUIET | SILENT | ONE_BLAS_THREAD)
    if address == LOCAL and "ray" not in sys.modules:
        set_up_environment(make_token())
    return address
