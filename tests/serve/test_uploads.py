"""Uploads that no proper client sends, to real servers: every answer is JSON, and none is a fault of the service."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest

from dinle.serve.app import UPLOADS_PER_PLACE, create_app
from dinle.serve.middleware import FORM_OVERHEAD_BYTES
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.graphs import spell_levels, write_level_bundle
from tests.recognize.hostile_sounds import make_flac_silence, make_wav_claim
from tests.serve.servers import serve_in_process, serve_in_thread, wait_for
from tests.serve.wire import (
    FILE_HEAD,
    FORM_END,
    FORM_TYPE,
    find_code,
    find_detail,
    make_form,
    post_raw,
    read_answer,
    send_request,
)
from tests.sounds import encode_wav, make_malformed_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

SECOND = encode_wav(make_tone(1.0))
PATHS = ("/transcribe", "/v1/audio/transcriptions")
MAX_BYTES = 3_000_000


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(fake_recognizer("merhaba"), Settings(max_bytes=MAX_BYTES, upload_s=1.0))


@pytest.fixture(scope="module")
def port(app: FastAPI) -> Iterator[int]:
    with serve_in_thread(app) as port:
        yield port


@pytest.fixture(autouse=True)
def no_fault(app: FastAPI, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged as an error, and no place stays taken."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    if hasattr(app.state, "service"):
        wait_for(lambda: app.state.service.scheduler.taken == 0, timeout_s=5)


def make_part(disposition: str, data: bytes = b"v", *more: str) -> bytes:
    return (
        "\r\n".join(["--x", f"Content-Disposition: form-data; {disposition}", *more, "", ""]).encode() + data + b"\r\n"
    )


FILE = make_part('name="file"; filename="a.wav"', SECOND)
OTHER_FILE = make_part('name="file"; filename="b.wav"', b"not audio")
NESTED = make_part(
    'name="file"; filename="a"', b'--y\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + SECOND + b"\r\n--y--",
    "Content-Type: multipart/mixed; boundary=y",
)  # fmt: skip
END = b"--x--\r\n"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (OTHER_FILE + FILE + END, 200, ""),  # the last one counts, as in FastAPI's documentation
        (FILE + OTHER_FILE + END, 415, "cannot be read as audio"),
        (FILE + make_part('name="cover"; filename="c.png"', b"png") + END, 200, ""),
        (make_part('name="file"', SECOND) + END, 422, "the form field 'file' with an audio file is missing"),
        (make_part('name="file"; filename=""', SECOND) + END, 200, ""),
        (make_part(f'name="{"n" * 3_000}"; filename="a"', SECOND) + END, 422, "the form field 'file'"),
        (make_part(f'name="{"n" * 100_000}"') + FILE + END, 400, ""),
        (make_part('name="field"') * 10_000 + FILE + END, 400, "Too many fields"),
        (make_part('name="field"; filename="f"') * 2_000 + FILE + END, 400, "Too many files"),
        (make_part('name="field"', b"v" * 2_000_000) + FILE + END, 400, "Part exceeded maximum size"),
        (make_part("nothing") + FILE + END, 400, 'field "name" must be provided'),
        (b"--x\r\n\r\n\r\n" + FILE + END, 400, ""),
        (b"--x\r\nA: " + b"b" * 50_000 + b"\r\n\r\n" + END, 400, ""),
        (b"--x\r\n" + b"A: b\r\n" * 50_000 + b"\r\n" + END, 400, ""),
        (NESTED + END, 415, "cannot be read as audio"),
        (b"--y" + FILE[3:] + b"--y--\r\n", 400, ""),
        (b"", 422, "the form field 'file'"),
        (b"\r\n" * 100_000 + FILE + END, 200, ""),
        (FILE + END + b"epilogue" * 10_000, 200, ""),
        (END, 422, "the form field 'file'"),
        (np.random.default_rng(0).bytes(100_000), 400, ""),
    ],
    ids=[
        "two files", "two files, the second is none", "more files", "text", "empty name", "long name", "huge name",
        "10 000 parts", "2 000 files", "huge field", "no name", "no headers", "huge header", "50 000 headers", "nested",
        "another boundary", "nothing", "preamble", "epilogue", "no parts", "noise",
    ],
)  # fmt: skip
def test_odd_forms_are_understood_or_refused(port: int, path: str, body: bytes, status: int, detail: str) -> None:
    got, answer = post_raw(port, body, path=path)
    if path.startswith("/v1") and status == 422:
        status = 400  # OpenAI has no 422
    assert got == status, answer
    if status == 200:
        assert answer["text"] == "merhaba"
    else:
        assert detail in find_detail(answer)


# Starlette leaves the file of a part without an end to the garbage collector, which says so.
LEFT_TO_THE_COLLECTOR = pytest.mark.filterwarnings("ignore:Exception ignored in.*SpooledTemporaryFile")


@LEFT_TO_THE_COLLECTOR
@pytest.mark.parametrize("path", PATHS)
def test_a_form_without_its_end_is_not_heard(port: int, path: str) -> None:
    """The file's last bytes might be missing."""
    status, answer = post_raw(port, FILE_HEAD + SECOND, path=path)
    assert (status, find_code(answer)) == (422 if path == "/transcribe" else 400, "invalid_request")
    assert "the form field 'file' with an audio file is missing" in find_detail(answer)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("multipart/form-data", 400), ("multipart/form-data; boundary=", 400), ("multipart/mixed; boundary=x", 422),
        ("application/json", 422), ("application/x-www-form-urlencoded", 422), ("audio/wav", 422), ("", 422),
        (f"multipart/form-data; boundary={'x' * 4_000}", 400), ("multipart/form-data; boundary=x; charset=nope", 200),
    ],
)  # fmt: skip
def test_other_content_types_are_explained(port: int, kind: str, status: int) -> None:
    got, answer = post_raw(port, make_form(SECOND), Content_Type=kind)
    assert got == status, answer
    if status == 422:
        assert "send multipart/form-data" in find_detail(answer)


@LEFT_TO_THE_COLLECTOR
def test_a_length_that_is_too_small_or_too_large(port: int) -> None:
    form = make_form(SECOND)
    with send_request(port, form, length=len(form) - 50) as connection:  # the end is cut off; the rest is no request
        assert re.match(rb"HTTP/1\.1 4\d\d ", connection.recv(4096))
    with send_request(port, form, length=len(form) + 50) as connection:  # what is missing never comes
        status, headers, answer = read_answer(connection)
    assert (status, find_code(answer), headers["connection"]) == (408, "request_timeout", "close")
    with send_request(port, b"", length=10**15) as connection:
        status, _, answer = read_answer(connection)
    assert (status, find_code(answer)) == (413, "upload_too_large")


@pytest.mark.parametrize("length", ["-5", "abc", "1e3", "0x10", "9" * 30, "5, 6"])
def test_a_length_that_is_none_never_reaches_the_application(port: int, length: str) -> None:
    with send_request(port, make_form(SECOND), Content_Length=length) as connection:
        head = connection.recv(4096)
    assert re.match(rb"HTTP/1\.1 4\d\d ", head), head


@pytest.mark.parametrize("path", PATHS)
def test_chunked_uploads(port: int, path: str) -> None:
    def post(form: bytes) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        pieces = (form[at : at + 1000] for at in range(0, len(form), 1000))
        headers = {"Content-Type": FORM_TYPE, "Transfer-Encoding": "chunked"}
        connection.request("POST", path, pieces, headers, encode_chunked=True)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer

    assert post(make_form(SECOND))[0] == 200
    status, answer = post(make_form(bytes(MAX_BYTES + FORM_OVERHEAD_BYTES)))
    assert (status, find_code(answer)) == (413, "upload_too_large")


def test_broken_chunks_end_the_request(port: int) -> None:
    with send_request(port, b"zz\r\nabc", Transfer_Encoding="chunked") as connection:  # and a length: smuggling
        assert re.match(rb"HTTP/1\.1 4\d\d ", connection.recv(4096))
    assert post_raw(port, make_form(SECOND))[0] == 200


def test_a_client_that_asks_first_is_told_to_go_on(port: int) -> None:
    form = make_form(SECOND)
    with send_request(port, b"", length=len(form), Expect="100-continue") as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(form)
        assert read_answer(connection)[0] == 200


def test_a_client_that_asks_first_learns_before_it_sends(port: int) -> None:
    with send_request(port, b"", length=10**9, Expect="100-continue") as connection:
        status, _, answer = read_answer(connection)
    assert (status, find_code(answer)) == (413, "upload_too_large")


NAMES = [
    "../../etc/cron.d/x",
    "/etc/passwd",
    "a\\..\\b.wav",
    "x.wav%0d%0aforged",
    "C:\\x.wav",
    "a;b|c`d`.wav",
    "ü" * 200,
]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are listed in /proc on Linux alone")
@pytest.mark.parametrize("name", NAMES)
def test_a_files_name_reaches_neither_disk_nor_log(
    port: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    caplog.set_level(logging.DEBUG)
    opened: list[str] = []
    rollover = tempfile.SpooledTemporaryFile.rollover

    def watch(file: tempfile.SpooledTemporaryFile[bytes]) -> None:
        rollover(file)
        opened.extend(list_open_files())

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", watch)
    long = encode_wav(make_tone(50.0))  # over the megabyte that Starlette keeps in memory
    for audio, status in ((long, 200), (b"not audio" * 200_000, 415)):
        answer = post_raw(port, make_part(f'name="file"; filename="{name}"', audio) + END)
        assert answer[0] == status
        assert name not in str(answer)
    assert any(path.startswith(str(tmp_path)) for path in opened), "nothing was written: the test sees nothing"
    assert not [path for path in opened if path.startswith(str(tmp_path)) and not path.endswith(" (deleted)")]
    assert list(tmp_path.iterdir()) == []
    assert not [record for record in caplog.records if name in record.getMessage() or "forged" in record.getMessage()]


def list_open_files() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own
            yield str(link.readlink())


def test_a_name_with_a_new_line_is_no_header(port: int) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a\r\nX-Forged: 1"\r\n\r\n' + SECOND + FORM_END
    )
    status, answer = post_raw(port, body)
    assert status in (200, 400, 422)
    assert "Forged" not in str(answer)


BOMBS = {
    "20 h of FLAC": make_flac_silence(20 * 3600),
    "20 h of FLAC, not declared": make_flac_silence(20 * 3600, declare=False),
    "2 h 30 of FLAC at 192 kHz": make_flac_silence(9_000, 192_000, channels=2),
    "65 535 channels": make_wav_claim(65_535, 16_000),
    "4 GHz": make_wav_claim(1, 0xFFFFFFF0),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_hours_in_a_small_file_are_refused_at_once(port: int, bomb: str) -> None:
    assert len(BOMBS[bomb]) < 1_000_000
    started = time.perf_counter()
    status, answer = post_raw(port, make_form(BOMBS[bomb]))
    assert time.perf_counter() - started < 1.0
    assert status in (413, 415), answer
    assert find_code(answer) in ("audio_limit", "audio_decode")


def test_what_is_short_and_costs_much_is_given_up() -> None:
    """100 minutes of 8 channels at 192 kHz are within every limit but that of the decoder's time."""
    bomb = make_flac_silence(6_000, 192_000, channels=8, declare=False)
    assert len(bomb) < 1_000_000
    with serve_in_thread(create_app(fake_recognizer(), Settings(max_decode_s=0.3))) as port:
        started = time.perf_counter()
        status, answer = post_raw(port, make_form(bomb))
        assert time.perf_counter() - started < 3.0
    assert (status, find_code(answer)) == (413, "audio_limit")
    assert "takes more than 0.3 s to decode" in find_detail(answer)


def read_rss_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


@pytest.mark.slow
def test_a_thousand_malformed_uploads_do_the_service_no_harm(tmp_path: Path) -> None:
    write_level_bundle(tmp_path / "levels")
    speech = encode_wav(spell_levels("günaydın"))
    env = {"ASR_MAX_SECONDS": "60", "ASR_MAX_DECODE_S": "5"}
    command = ["dinle.cli", "serve", "--port", "0", "--model", str(tmp_path / "levels")]
    with serve_in_process(command, tmp_path / "log", env) as (url, process), httpx2.Client() as client:

        def post(file: tuple[str, bytes]) -> tuple[str, int, Any]:
            answer = client.post(f"{url}/transcribe", files={"file": file}, timeout=30)
            return file[0], answer.status_code, answer.json()

        files = list(make_malformed_files(1_000, seed=3))
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(post, files[:200]))
            before_mb = read_rss_mb(process.pid)
            answers += pool.map(post, files[200:])
        assert [one for one in answers if one[1] != 200 and not 400 <= one[1] < 500] == []
        assert all("text" in answer if status == 200 else find_code(answer) for _, status, answer in answers)
        assert {status for _, status, _ in answers} >= {200, 413, 415}
        assert read_rss_mb(process.pid) < before_mb + 60
        assert post(("a.wav", speech))[2]["text"] == "günaydın"
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert '"level": "ERROR"' not in log


@pytest.mark.slow
def test_large_uploads_leave_the_event_loop_free(tmp_path: Path) -> None:
    """Ten recordings of 20 MB at once: receiving, parsing and writing them never holds the loop for 50 ms."""
    write_level_bundle(tmp_path / "levels")
    form = make_form(encode_wav(np.zeros(10_000_000, dtype=np.float32)))
    command = ["dinle.cli", "serve", "--port", "0", "--model", str(tmp_path / "levels")]
    with serve_in_process(command, tmp_path / "log", {"ASR_MAX_QUEUE": "20"}) as (url, _):
        port = int(url.rpartition(":")[2])
        with ThreadPoolExecutor(10) as pool:
            assert [status for status, _ in pool.map(lambda _: post_raw(port, form), range(10))] == [200] * 10
        metrics = httpx2.get(f"{url}/metrics").text
    found = dict(re.findall(r'^dinle_event_loop_lag_seconds_bucket{le="(\S+)"} (\S+)$', metrics, re.MULTILINE))
    counts = {limit: float(count) for limit, count in found.items()}
    assert counts["+Inf"] > 50
    assert counts["0.05"] >= 0.98 * counts["+Inf"], counts  # the machine itself may stall, not the rule
    assert counts["0.25"] == counts["+Inf"], counts


def test_only_so_many_uploads_are_on_their_way_at_the_same_time() -> None:
    app = create_app(fake_recognizer(), Settings(workers=1, max_queue=0))
    half = make_form(encode_wav(make_tone(1.0)))
    with serve_in_thread(app) as port, contextlib.ExitStack() as stack:
        for _ in range(UPLOADS_PER_PLACE):
            stack.enter_context(send_request(port, half[:100], length=len(half)))
        wait_for(lambda: post_raw(port, half)[0] == 503)
        status, answer = post_raw(port, half)
        assert (status, answer["code"]) == (503, "service_busy")
        stack.close()
        wait_for(lambda: post_raw(port, half)[0] == 200)
