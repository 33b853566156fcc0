"""The classic load test: users who post one recording again and again, and look at what comes back.

``locust -f locust/locustfile.py --host http://127.0.0.1:8000``; without the web page: ``--headless -u 10 -r 2 -t 1m``.

``LOCUST_AUDIO`` names another recording, ``LOCUST_EXPECTED_TEXT`` the text that every answer must hold.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from locust import HttpUser, between, task

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "sample.wav"
AUDIO_PATH = Path(os.environ.get("LOCUST_AUDIO") or SAMPLE)
AUDIO = AUDIO_PATH.read_bytes()
EXPECTED_TEXT = os.environ.get("LOCUST_EXPECTED_TEXT")


def find_fault(status: int, body: Any) -> str | None:
    """What is wrong with an answer of ``POST /transcribe`` (``None``: nothing)."""
    if status != 200:  # noqa: PLR2004 - HTTP's own number
        return f"status {status}: {body.get('detail') if isinstance(body, dict) else body}"
    if not isinstance(body, dict) or body.keys() != {"text", "inference_time"}:
        return f"expected the keys text and inference_time, got {body!r}"
    if not isinstance(body["text"], str) or not isinstance(body["inference_time"], float):
        return f"expected a string and seconds, got {body!r}"
    if EXPECTED_TEXT is not None and body["text"] != EXPECTED_TEXT:
        return f"expected the text {EXPECTED_TEXT!r}, got {body['text']!r}"
    return None


class TranscribeUser(HttpUser):
    """Posts the recording, thinks for a second, posts it again."""

    wait_time = between(0.5, 1.5)

    @task
    def transcribe(self) -> None:
        """One transcription; anything but a right answer counts as a failure."""
        files = {"file": (AUDIO_PATH.name, AUDIO)}
        with self.client.post("/transcribe", files=files, catch_response=True) as response:
            try:
                fault = find_fault(response.status_code, response.json())
            except ValueError:
                fault = f"status {response.status_code}: not JSON: {response.text[:200]!r}"
            if fault is not None:
                response.failure(fault)
