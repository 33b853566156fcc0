"""What a client may ask for besides the text: by every route the same words are expected and the same text is written."""

from __future__ import annotations

import base64
import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from dinle.errors import UsageError
from dinle.recognize.transcript import Transcript, Word
from dinle.recognize.written import MAX_WORDS, WrittenForm
from dinle.serve import app as app_module
from dinle.serve import options
from dinle.serve.app import create_app
from dinle.serve.errors import HotWordsRefusedError
from dinle.serve.options import MAX_CHARACTERS, MAX_HOT_WORDS, MAX_SERVER_WORDS, read_hot_words, write_steps
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.recognize.writers import rest
from tests.serve.doubtful import HEARD, HOT_WORD, MEANT, doubtful_recognizer
from tests.serve.live_clients import find_texts, hear_levels, receive_until, to_pcm
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from dinle.recognize.recognizer import CtcRecognizer

SPEECH = encode_wav(make_tone(1.0))
TALK = np.concatenate([make_tone(1.6) + 0.6, rest(1.0)])
NUMBERS = "yüz elli lira verdim"
OPENAI, CLASSIC = "/v1/audio/transcriptions", "/transcribe"
COMPLETED = "conversation.item.input_audio_transcription.completed"
MANY = [f"{place:04}" for place in range(MAX_HOT_WORDS + 1)]
REFUSED = [
    ("?!", "hot word '.!' holds no letter"),
    ("a" * 101, "101 characters; expected at most 100"),
    ("9" * 60, "letters; expected at most 100"),
    (",".join(MANY), f"{MAX_HOT_WORDS + 1} words; at most {MAX_HOT_WORDS} are accepted"),
    (",".join(word * 12 for word in MANY[:-1]), f"48000 characters; at most {MAX_CHARACTERS} are accepted"),
]


@pytest.fixture
def doubtful(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    hear_levels(monkeypatch)
    with TestClient(create_app(doubtful_recognizer(), Settings())) as client:
        yield client


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    hear_levels(monkeypatch)
    with TestClient(create_app(fake_recognizer(NUMBERS), Settings())) as client:
        yield client


@pytest.fixture
def _no_damga(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "damga", None)
    options._make_written_form.cache_clear()
    yield
    options._make_written_form.cache_clear()


def post(client: TestClient, path: str, form: dict[str, Any] | None = None, **query: Any) -> Any:
    return client.post(path, files={"file": ("speech.wav", SPEECH)}, data=form or {}, params=query)


def read_events(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


def listen(client: TestClient, **config: Any) -> list[dict[str, Any]]:
    with client.websocket_connect("/stream") as socket:
        socket.send_json(config)
        socket.send_bytes(to_pcm(TALK))
        socket.send_json({"type": "stop"})
        return receive_until(socket, "done")


def listen_openai(client: TestClient, transcription: dict[str, Any] | None) -> list[dict[str, Any]]:
    with client.websocket_connect("/v1/realtime") as socket:
        if transcription is not None:
            audio = {"input": {"format": {"type": "audio/pcm", "rate": 16_000}, "transcription": transcription}}
            socket.send_json({"type": "session.update", "session": {"type": "transcription", "audio": audio}})
        sound = base64.b64encode(to_pcm(TALK)).decode()
        socket.send_json({"type": "input_audio_buffer.append", "audio": sound})
        return receive_until(socket, COMPLETED)


@pytest.mark.parametrize(
    ("path", "form", "query"),
    [
        (CLASSIC, {}, {"hotwords": HOT_WORD}),
        (CLASSIC, {}, {"hotwords": f"Trendyol,\n{HOT_WORD}"}),
        (CLASSIC, {"hotwords": HOT_WORD}, {}),
        (CLASSIC, {"hotwords": HOT_WORD}, {"hotwords": "Trendyol"}),
        (OPENAI, {"hotwords": f"Trendyol\n{HOT_WORD}"}, {}),
        (OPENAI, {"prompt": f"Trendyol, {HOT_WORD}"}, {}),
        (OPENAI, {"prompt": "Bu kayıtta sık sık İğdir'den söz ediliyor."}, {}),
    ],
)
def test_a_request_expects_its_words_and_the_next_does_not(
    doubtful: TestClient, path: str, form: dict[str, str], query: dict[str, str]
) -> None:
    assert post(doubtful, path).json()["text"] == HEARD
    assert post(doubtful, path, form, **query).json()["text"] == MEANT
    assert post(doubtful, path).json()["text"] == HEARD


def test_a_stream_of_a_recording_expects_them_too(doubtful: TestClient) -> None:
    assert read_events(post(doubtful, CLASSIC, hotwords=HOT_WORD, stream=True))[-1]["text"] == MEANT
    assert read_events(post(doubtful, OPENAI, {"hotwords": HOT_WORD, "stream": "true"}))[-1]["text"] == MEANT


def test_live_streams_expect_them_too(doubtful: TestClient) -> None:
    assert find_texts(listen(doubtful)) == [HEARD]
    assert find_texts(listen(doubtful, hotwords=["Trendyol", HOT_WORD])) == [MEANT]
    assert listen_openai(doubtful, None)[-1]["transcript"] == HEARD
    events = listen_openai(doubtful, {"model": "whisper-1", "prompt": f"Trendyol; {HOT_WORD}."})
    assert events[-1]["transcript"] == MEANT
    assert events[1]["session"]["audio"]["input"]["transcription"]["prompt"] == f"Trendyol; {HOT_WORD}."
    assert "prompt" not in events[0]["session"]["audio"]["input"]["transcription"]


@pytest.mark.parametrize(("words", "reason"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_words_that_do_not_fit_are_refused(doubtful: TestClient, words: str, reason: str, stream: bool) -> None:
    answer = post(doubtful, CLASSIC, {"hotwords": words}, stream=stream)
    assert (answer.status_code, answer.json()["code"]) == (400, "hot_words_refused")
    answer_openai = post(doubtful, OPENAI, {"hotwords": words, "stream": str(stream)})
    error = answer_openai.json()["error"]
    assert (answer_openai.status_code, error["code"], error["param"]) == (400, "hot_words_refused", "hotwords")
    with doubtful.websocket_connect("/stream") as socket:
        socket.send_json({"hotwords": words.split(",")})
        told = socket.receive_json()
    assert (told["type"], told["code"]) == ("error", "hot_words_refused")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(answer.json()["detail"])
    assert error["message"] == told["message"] == answer.json()["detail"]


@pytest.mark.parametrize("prompt", ["?!", "a" * 101, "9" * 60, ",".join(MANY), "\n", "語" * 30_000])
def test_no_prompt_is_an_error(doubtful: TestClient, prompt: str) -> None:
    assert post(doubtful, OPENAI, {"prompt": prompt}).json()["text"] == HEARD
    assert listen_openai(doubtful, {"prompt": prompt})[-1]["transcript"] == HEARD


def test_the_words_of_a_request_come_before_those_of_its_prompt() -> None:
    assert read_hot_words("Kars", prompt="Iğdır, Kars, Van") == ("Kars", "Iğdır", "Van")
    most = ",".join(MANY[:-1])
    assert read_hot_words(most, prompt="Iğdır") == tuple(MANY[:-1])
    long = ",".join(f"{word}{'x' * 95}" for word in MANY[:200])
    assert read_hot_words(long, prompt=f"Iğdır, {'x' * 99}, {'y' * 99}, Van")[200:] == ("Iğdır", "x" * 99)
    with pytest.raises(HotWordsRefusedError):
        read_hot_words(most, "Iğdır")


def test_the_servers_words_are_expected_by_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hear_levels(monkeypatch)
    path = tmp_path / "words.txt"
    path.write_text(f"# names\n{HOT_WORD}\n", encoding="utf-8")
    for settings in (Settings(hotwords=f"Trendyol,{HOT_WORD}"), Settings(hotwords_file=str(path))):
        with TestClient(create_app(doubtful_recognizer(), settings)) as client:
            assert post(client, CLASSIC).json()["text"] == MEANT
            assert post(client, OPENAI, {"prompt": "Van"}).json()["text"] == MEANT
            assert find_texts(listen(client)) == [MEANT]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"hotwords": " , "}, "ASR_HOTWORDS is ' , ' and holds no hot word"),
        ({"hotwords": "Kars,?!"}, "ASR_HOTWORDS: the hot word"),
        ({"hotwords_file": "/yok"}, "the file of ASR_HOTWORDS_FILE '/yok' cannot be read"),
        (
            {"hotwords": ",".join(f"{place:04}" for place in range(MAX_SERVER_WORDS + 1))},
            f"{MAX_SERVER_WORDS + 1} words together; at most {MAX_SERVER_WORDS}",
        ),
    ],
)
def test_words_of_the_server_that_do_not_fit_keep_it_from_starting(given: dict[str, str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        create_app(fake_recognizer(), Settings(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_language_model_can_be_left_out(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    asked: list[dict[str, Any]] = []

    def load(_folder: Path, **given: Any) -> CtcRecognizer:
        asked.append(given)
        return fake_recognizer()

    monkeypatch.setattr(app_module, "load", load)
    settings = Settings() if wanted else Settings(language_model=False)
    with TestClient(create_app(settings=settings)):
        pass
    assert [given["language_model"] for given in asked] == [wanted]


def test_numbers_are_written_and_the_words_keep_their_times(numbers: TestClient) -> None:
    plain = post(numbers, CLASSIC, details=True).json()
    assert plain["text"] == NUMBERS
    assert "raw_text" not in plain["details"]
    answer = post(numbers, CLASSIC, details=True, written=True).json()
    assert (answer["text"], answer["details"]["raw_text"]) == ("150 TL verdim", NUMBERS)
    words, spoken = answer["details"]["words"], plain["details"]["words"]
    assert [word["word"] for word in words] == ["150", "TL", "verdim"]
    assert (words[0]["start"], words[0]["end"]) == (spoken[0]["start"], spoken[1]["end"])
    assert words[1:] == [spoken[2] | {"word": "TL"}, spoken[3]]
    assert post(numbers, CLASSIC, written=True).json().keys() == {"text", "inference_time"}


def test_a_stream_of_a_recording_is_written_at_its_end(numbers: TestClient) -> None:
    events = read_events(post(numbers, CLASSIC, written=True, stream=True))
    heard = [word["word"] for event in events if event["type"] == "words" for word in event["words"]]
    assert " ".join(heard) == events[-1]["details"]["raw_text"] == NUMBERS
    assert events[-1]["text"] == "150 TL verdim"
    assert "raw_text" not in read_events(post(numbers, CLASSIC, stream=True))[-1]["details"]


@pytest.mark.parametrize(
    ("form", "piece"),
    [
        ("json", '"text":"150 TL verdim"'),
        ("text", "150 TL verdim\n"),
        ("srt", "\n150 TL verdim\n"),
        ("vtt", "150 TL verdim"),
    ],
)
def test_openais_forms_hold_the_written_words(numbers: TestClient, form: str, piece: str) -> None:
    assert piece in post(numbers, OPENAI, {"written": "true", "response_format": form}).text


def test_openais_words_and_segments_are_written(numbers: TestClient) -> None:
    form = {"written": "true", "response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    answer = post(numbers, OPENAI, form).json()
    assert [word["word"] for word in answer["words"]] == ["150", "TL", "verdim"]
    assert [segment["text"] for segment in answer["segments"]] == ["150 TL verdim"]
    events = read_events(post(numbers, OPENAI, {"written": "true", "stream": "true"}))
    assert "".join(event["delta"] for event in events[:-1]) == NUMBERS
    assert events[-1]["text"] == "150 TL verdim"


def test_of_a_live_stream_the_finals_are_written(numbers: TestClient) -> None:
    with numbers.websocket_connect("/stream") as socket:
        socket.send_json({"written": True})
        socket.send_bytes(to_pcm(TALK[:16_000]))
        events = receive_until(socket, "partial")
        socket.send_bytes(to_pcm(TALK[16_000:]))
        socket.send_json({"type": "stop"})
        events += receive_until(socket, "done")
    (final,) = (event for event in events if event["type"] == "final")
    assert (final["text"], [word["word"] for word in final["words"]]) == ("150 TL verdim", ["150", "TL", "verdim"])
    assert set(find_texts(events, "partial")) == {NUMBERS}
    (plain,) = (event for event in listen(numbers) if event["type"] == "final")
    assert plain["text"] == NUMBERS


@pytest.mark.usefixtures("_no_damga")
def test_without_damga_it_is_said_what_to_install(numbers: TestClient) -> None:
    for stream in (False, True):
        answer = post(numbers, CLASSIC, written=True, stream=stream)
        assert (answer.status_code, answer.json()["code"]) == (400, "written_unavailable")
        assert answer.json()["detail"].endswith("pip install 'dinle[itn]'")
    answer = post(numbers, OPENAI, {"written": "true"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "written")
    with numbers.websocket_connect("/stream") as socket:
        socket.send_json({"written": True})
        told = socket.receive_json()
    assert (told["type"], told["code"]) == ("error", "written_unavailable")
    assert post(numbers, CLASSIC).json()["text"] == NUMBERS


def test_a_long_text_is_written_in_steps_to_the_whole() -> None:
    texts = ("yüz elli lira verdim " * MAX_WORDS).split()
    words = tuple(Word(text, float(place), place + 0.75, 0.9) for place, text in enumerate(texts))
    transcript = Transcript(" ".join(texts), words, float(len(words)), 0.1, "fake")
    form = WrittenForm()
    written, steps = finish(write_steps(form, transcript))
    assert written == form.write_transcript(transcript)
    assert steps >= 4


def finish(steps: Generator[None, None, Transcript]) -> tuple[Transcript, int]:
    """What a job returns, and how many steps it took."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1
