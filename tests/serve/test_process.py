from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dinle.serve.app import create_app
from dinle.serve.process import ServiceFailedError, post_audio, run_service
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.serve.servers import serve_in_thread
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from pathlib import Path


def test_posts_a_file_and_reads_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "ses.wav"
    path.write_bytes(encode_wav(make_tone(1.0)))
    with serve_in_thread(create_app(fake_recognizer("merhaba"), Settings())) as port:
        answer = post_audio(f"http://127.0.0.1:{port}/transcribe", path)
        path.write_bytes(b"")
        with pytest.raises(ServiceFailedError, match=r"answered 422.*0 bytes"):
            post_audio(f"http://127.0.0.1:{port}/transcribe", path)
    assert answer["text"] == "merhaba"


@pytest.mark.slow
def test_a_service_that_ends_early_leaves_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(ServiceFailedError, match="ended with status 1: dinle serve: there is no folder"),
        run_service(tmp_path / "yok"),
    ):
        pytest.fail("the service must not start")
