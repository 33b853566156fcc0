"""What a backend costs a process of its own: import, load and first transcription, and the peak of memory.

Runs as ``python -m dinle.measure.probe`` in a fresh process for each backend, so that none profits from modules, weights
or allocator pools of another.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.errors import DinleError, UsageError

if TYPE_CHECKING:
    from dinle.measure.weights import ModelFiles

_PEAK_FIELD, _NOW_FIELD = "VmHWM:", "VmRSS:"
_KIB = 1024
LIBRARIES = {"pytorch": "dinle.build.torch_engine", "openvino": "openvino", "openvino-nncf": "openvino"}  # loaded late


@dataclass(frozen=True)
class Footprint:
    """The cost of one backend in a process of its own.

    Attributes:
        import_s: seconds to import the engine's libraries (torch and transformers, or onnxruntime).
        load_s: seconds from the model's files to a recogniser that is ready, imports done.
        first_s: seconds of the first transcription, from the decoded waveform.
        library_memory_bytes: resident memory after the imports: Python and the libraries alone.
        peak_memory_bytes: highest resident memory of the whole process (Python, libraries, weights, the clip, one
            transcription). Pages of a mapped weight file count where they were touched.
    """

    import_s: float
    load_s: float
    first_s: float
    library_memory_bytes: int
    peak_memory_bytes: int


def measure_footprint(model: ModelFiles, audio: Path, threads: int, samples: int | None = None) -> Footprint:
    """Load a model and transcribe one clip, or ``samples`` of it (repeated where it is shorter), in a fresh process.

    The weights' files were usually read before and lie in the system's cache, so ``load_s`` leaves the disk out.

    Raises:
        UsageError: the process failed; the message ends with its last line.
    """
    request = {
        "backend": model.backend,
        "model": model.source,
        "audio": str(audio),
        "threads": threads,
        "language_model": model.language_model,
        "samples": samples,
    }
    command = [sys.executable, "-P", "-m", "dinle.measure.probe", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise UsageError(f"{model.name} with the backend {model.backend} failed in a process of its own: {last}")
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def probe(request: dict[str, Any]) -> Footprint:
    """Do what :func:`measure_footprint` asks for, in this process."""
    started = time.perf_counter()
    open_model = import_module("dinle.measure.backends").open_model
    library = LIBRARIES.get(request["backend"])
    if library is not None:
        import_module(library)
    import_s = time.perf_counter() - started
    library_memory_bytes = read_memory()
    started = time.perf_counter()
    recognizer = open_model(
        request["model"], request["backend"], request["threads"], language_model=request["language_model"]
    )
    load_s = time.perf_counter() - started
    waveform = import_module("dinle.recognize.audio").decode_audio(Path(request["audio"]))
    if request["samples"] is not None:
        waveform = import_module("numpy").resize(waveform, request["samples"])
    started = time.perf_counter()
    recognizer.transcribe(waveform)
    first_s = time.perf_counter() - started
    return Footprint(import_s, load_s, first_s, library_memory_bytes, read_memory(peak=True))


def read_memory(*, peak: bool = False) -> int:
    """Resident memory of this process in bytes, now or at its peak.

    ``ru_maxrss`` is the answer only where there is no /proc: on Linux a child's begins at what its parent had when it was
    started (the kernel's ``exec_mmap`` carries the old high-water mark over), so a large parent would hide a small child.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS gives bytes, and no value for now
    field = _PEAK_FIELD if peak else _NOW_FIELD
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(field))
    return int(line.split()[1]) * _KIB


def main() -> int:
    """Answer the request in the first argument with one line of JSON."""
    try:
        footprint = probe(json.loads(sys.argv[1]))
    except DinleError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(footprint)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
