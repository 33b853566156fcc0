from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from dinle.serve.app import create_app
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.serve.servers import ROOT, serve_in_thread
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from pathlib import Path

LOCUSTFILE = ROOT / "locust" / "locustfile.py"


def run_locust(port: int, folder: Path, **env: str) -> tuple[int, dict[str, Any]]:
    """Two users for three seconds, started in the repository as the README says; status and statistics."""
    audio = folder / "clip.wav"
    audio.write_bytes(encode_wav(make_tone(1.0)))
    command = [sys.executable, "-m", "locust", "-f", "locust/locustfile.py", "--host", f"http://127.0.0.1:{port}"]
    command += ["--headless", "-u", "2", "-r", "2", "-t", "3s", "--json"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"LOCUST_AUDIO": str(audio)} | env,
        capture_output=True,
        text=True,
        check=False,
    )
    statistics = json.loads(done.stdout)
    assert [entry["name"] for entry in statistics] == ["/transcribe"], done.stderr
    return done.returncode, statistics[0]


@pytest.mark.slow
def test_locust_counts_right_answers_and_wrong_ones(tmp_path: Path) -> None:
    app = create_app(fake_recognizer("merhaba"), Settings())
    with serve_in_thread(app) as port:
        status, totals = run_locust(port, tmp_path, LOCUST_EXPECTED_TEXT="merhaba")
        assert (status, totals["num_failures"]) == (0, 0)
        assert totals["num_requests"] >= 2
        status, totals = run_locust(port, tmp_path, LOCUST_EXPECTED_TEXT="merhaba dünya")
        assert (status, totals["num_failures"]) == (1, totals["num_requests"])


ANSWERS: list[tuple[int, Any, str | None]] = [
    (200, {"text": "", "inference_time": 0.1}, None),
    (503, {"detail": "at capacity"}, "status 503: at capacity"),
    (500, ["?"], "status 500: ['?']"),
    (200, {"text": "merhaba"}, "expected the keys text and inference_time"),
    (200, {"text": "merhaba", "inference_time": 0.1, "words": []}, "expected the keys text and inference_time"),
    (200, {"text": None, "inference_time": 0.1}, "expected a string and seconds"),
    (200, "merhaba", "expected the keys text and inference_time"),
]


def test_every_answer_is_looked_at() -> None:
    # In a process of its own: importing locust makes gevent replace the sockets and threads of the whole process.
    code = f"import json, runpy; find = runpy.run_path({str(LOCUSTFILE)!r})['find_fault']\n"
    code += f"print('FAULTS', json.dumps([find(status, body) for status, body, _ in {ANSWERS!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    faults = json.loads(done.stdout.partition("FAULTS")[2])
    for (status, body, expected), fault in zip(ANSWERS, faults, strict=True):
        assert (fault or "").startswith(expected or ""), (status, body)
        assert (fault is None) == (expected is None), (status, body)


def test_the_folder_does_not_hide_the_package() -> None:
    code = "import locust, sys; sys.exit(not hasattr(locust, 'HttpUser'))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    assert not (LOCUSTFILE.parent / "__init__.py").exists()
