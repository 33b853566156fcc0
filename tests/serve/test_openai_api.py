"""OpenAI's transcription API, by OpenAI's own client against a real server, and in detail without one."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import openai
import pytest
from starlette.testclient import TestClient

from dinle.recognize.transcript import Transcript, Word
from dinle.serve.app import create_app
from dinle.serve.openai_answers import make_verbose
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.graphs import spell_levels, write_level_bundle
from tests.serve.servers import serve_in_thread
from tests.sounds import encode_lossy, encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "a-key-of-thirty-two-characters-0"
SPEECH = encode_wav(spell_levels("dinle beni ey hayat"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a key, whose default model spells levels; gives its URL."""
    folder = tmp_path_factory.mktemp("models")
    write_level_bundle(folder / "levels")
    settings = Settings(model_dir=str(folder / "levels"), models_dir=str(folder), api_keys=KEY, max_seconds=60)  # type: ignore[arg-type]
    with serve_in_thread(create_app(settings=settings)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def api(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_the_real_client_gets_text(api: openai.OpenAI) -> None:
    answer = api.audio.transcriptions.create(file=("speech.wav", SPEECH), model="whisper-1", language="tr")
    assert answer.text == "dinle beni ey hayat"
    assert answer.usage is not None


def test_the_real_client_gets_words_and_segments(api: openai.OpenAI) -> None:
    answer = api.audio.transcriptions.create(
        file=("speech.wav", SPEECH),
        model="levels",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert (answer.text, answer.language, answer.task) == ("dinle beni ey hayat", "turkish", "transcribe")  # type: ignore[attr-defined]
    assert answer.words is not None
    assert [word.word for word in answer.words] == ["dinle", "beni", "ey", "hayat"]
    assert all(one.end <= other.start for one, other in zip(answer.words, answer.words[1:], strict=False))
    assert answer.segments is not None
    assert [segment.text for segment in answer.segments] == ["dinle beni ey hayat"]
    assert answer.segments[0].avg_logprob <= 0
    assert answer.duration == pytest.approx(len(spell_levels("dinle beni ey hayat")) / 16_000, abs=0.002)


@pytest.mark.parametrize(("form", "start"), [("text", "dinle beni"), ("srt", "1\n00:00:00,"), ("vtt", "WEBVTT\n\n00:")])
def test_the_real_client_gets_plain_forms(api: openai.OpenAI, form: Any, start: str) -> None:
    answer = api.audio.transcriptions.create(file=("speech.wav", SPEECH), model="levels", response_format=form)
    assert isinstance(answer, str)
    assert answer.startswith(start)
    assert "ey hayat" in answer


def test_the_real_client_streams(api: openai.OpenAI) -> None:
    events = list(api.audio.transcriptions.create(file=("speech.wav", SPEECH), model="levels", stream=True))
    assert [event.type for event in events[-1:]] == ["transcript.text.done"]
    assert {event.type for event in events[:-1]} == {"transcript.text.delta"}
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == "dinle beni ey hayat"  # type: ignore[union-attr]


def test_the_real_client_lists_models(api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == ["levels"]
    assert api.models.retrieve("levels").owned_by == "dinle"
    with pytest.raises(openai.NotFoundError, match="there is no model 'large'"):
        api.models.retrieve("large")


def test_errors_are_the_clients_own(api: openai.OpenAI, server: str) -> None:
    create = api.audio.transcriptions.create
    with pytest.raises(openai.NotFoundError, match="choose from levels") as unknown:
        create(file=("speech.wav", SPEECH), model="large-v3")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="dinle hears Turkish") as foreign:
        create(file=("speech.wav", SPEECH), model="levels", language="en")
    assert foreign.value.param == "language"
    with pytest.raises(openai.BadRequestError) as empty:
        create(file=("speech.wav", b""), model="levels")
    assert empty.value.code == "empty_audio"
    with pytest.raises(openai.APIStatusError) as text:
        create(file=("speech.wav", b"not audio at all" * 100), model="levels", stream=True)
    assert (text.value.status_code, text.value.code) == (415, "audio_decode")
    with openai.OpenAI(base_url=f"{server}/v1", api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            stranger.audio.transcriptions.create(file=("speech.wav", SPEECH), model="levels")
        assert refused.value.code == "invalid_api_key"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_text_and_events(server: str, tmp_path: Path) -> None:
    file = tmp_path / "speech.wav"
    file.write_bytes(SPEECH)
    command = ["curl", "-sS", "-N", f"{server}/v1/audio/transcriptions", "-H", f"Authorization: Bearer {KEY}"]
    command += ["-F", f"file=@{file}", "-F", "model=whisper-1"]
    text = subprocess.run([*command, "-F", "response_format=text"], check=True, capture_output=True, text=True)
    assert text.stdout == "dinle beni ey hayat\n"
    events = subprocess.run([*command, "-F", "stream=true"], check=True, capture_output=True, text=True).stdout
    data = [json.loads(line.removeprefix("data: ")) for line in events.splitlines() if line.startswith("data: ")]
    assert data[-1]["text"] == "dinle beni ey hayat"


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(create_app(fake_recognizer("merhaba dünya"), Settings())) as client:
        yield client


def post(client: TestClient, audio: bytes = encode_wav(make_tone(1.0)), /, **form: Any) -> Any:
    return client.post("/v1/audio/transcriptions", files={"file": ("speech.wav", audio)}, data=form)


def test_everything_but_the_file_may_be_left_out(client: TestClient) -> None:
    assert post(client).json() == {"text": "merhaba dünya", "usage": {"type": "duration", "seconds": 1}}


def test_what_openai_knows_besides_is_taken(client: TestClient) -> None:
    form = {"prompt": "Trendyol", "temperature": "0.2", "include[]": "logprobs", "chunking_strategy": "auto"}
    assert post(client, **form).status_code == 200


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"response_format": "xml"}, "response_format"),
        ({"temperature": "hot"}, "temperature"),
        ({"timestamp_granularities[]": "letter"}, "0"),
        ({"stream": "maybe"}, "stream"),
    ],
)
def test_a_value_that_does_not_fit_is_named(client: TestClient, form: dict[str, str], param: str) -> None:
    answer = post(client, **form)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_words_and_segments_come_as_they_are_asked_for(client: TestClient) -> None:
    assert {"segments"} == post(client, response_format="verbose_json").json().keys() & {"segments", "words"}
    words = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    assert {"words"} == post(client, **words).json().keys() & {"segments", "words"}


def test_other_containers_are_heard(client: TestClient) -> None:
    assert post(client, encode_lossy(make_tone(1.0), "webm", 16_000)).json()["text"] == "merhaba dünya"


def test_an_error_in_the_middle_of_a_stream_is_an_event(client: TestClient) -> None:
    """The status has left by then: what remains is an event that OpenAI's client raises."""
    app: Any = client.app
    engine = app.state.service.models.loaded["fake"].engine.engine

    calls = 0
    run = engine.run

    def fail_later(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise RuntimeError("inside")
        return run(*args)

    engine.run = fail_later
    answer = post(client, encode_wav(make_tone(50.0)), stream="true")
    assert answer.status_code == 200
    last = [line for line in answer.text.splitlines() if line.startswith("data: ")][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal"
    assert "inside" not in answer.text


def test_silence_has_no_segments() -> None:
    verbose = make_verbose(Transcript("", (), 2.0, 0.1, "m"), {"segment", "word"}, 0.0)
    assert (verbose.segments, verbose.words, verbose.text) == ([], [], "")


def test_segments_hold_every_word_in_order() -> None:
    words = tuple(Word(f"söz{n}", n * 1.0, n + 0.5, 0.5) for n in range(30))
    verbose = make_verbose(Transcript(" ".join(w.text for w in words), words, 30.0, 0.1, "m"), {"segment"}, 0.3)
    assert verbose.segments is not None
    assert len(verbose.segments) > 3
    assert " ".join(segment.text for segment in verbose.segments) == verbose.text
    assert [segment.id for segment in verbose.segments] == list(range(len(verbose.segments)))
    assert all(segment.avg_logprob == pytest.approx(-0.6931, abs=1e-4) for segment in verbose.segments)
    assert verbose.segments[1].seek == round(verbose.segments[1].start * 100)
