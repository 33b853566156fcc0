"""docs/streaming.md is true: its clients run, its settings and codes are those of the service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dinle
from dinle.serve.app import create_app
from dinle.serve.live import BAD_REQUEST, CLOSE_CODES, INTERNAL
from dinle.serve.live_plain import Done, Ready, Started, StreamConfig, Text
from dinle.serve.settings import PREFIX, Settings
from tests.graphs import CTC_BUNDLE
from tests.serve.servers import serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "streaming.md").read_text(encoding="utf-8")
CLIENTS = re.findall(r"^```py\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serve_in_thread(create_app(dinle.load(CTC_BUNDLE, threads=1), Settings())) as port:
        yield port


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
def test_the_clients_run(number: int, port: int) -> None:
    code = CLIENTS[number].replace("localhost:8000", f"127.0.0.1:{port}")
    assert len(CLIENTS) == 2
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1].removeprefix("final ")
    expected = dinle.load(CTC_BUNDLE, threads=1).transcribe(ROOT / "samples" / "sample.wav").text
    assert last.split()[:3] == expected.split()[:3]


def test_the_messages_are_those_of_the_service() -> None:
    kinds: dict[str, type[BaseModel]] = {
        "ready": Ready,
        "speech_started": Started,
        "partial": Text,
        "final": Text,
        "done": Done,
    }
    (block,) = re.findall(r"^```json\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    messages = [json.loads(line) for line in block.splitlines()]
    assert [message["type"] for message in messages] == list(kinds)
    for message in messages:
        shown = kinds[message["type"]].model_validate(message, extra="forbid")
        assert shown.model_dump(exclude_none=True) == message
    for field in set(StreamConfig.model_fields) - {"type"}:
        assert f"`{field}`" in DOCUMENT


def test_the_settings_and_their_defaults_are_those_of_the_service() -> None:
    table = DOCUMENT[DOCUMENT.index("| variable |") :].split("\n\n")[0]
    told: dict[str, str] = {}
    for line in table.splitlines()[2:]:
        names, defaults = (cell.split(",") for cell in line.split("|")[1:3])
        told |= {name.strip(" `"): value.strip() for name, value in zip(names, defaults, strict=True)}
    assert {"ASR_MAX_STREAMS", "ASR_LIVE_SILENCE_S", "ASR_LIVE_IDLE_S"} <= set(told)
    for name, value in told.items():
        assert float(value) == Settings.model_fields[name.removeprefix(PREFIX).casefold()].default


def test_the_close_codes_are_those_of_the_service() -> None:
    told = {int(code) for code in re.findall(r"^\| (1\d{3}) \|", DOCUMENT, re.MULTILINE)}
    assert {*CLOSE_CODES.values(), BAD_REQUEST, INTERNAL} <= told
