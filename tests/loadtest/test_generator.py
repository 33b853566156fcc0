"""The load generator in its own process, against services that are known to the last answer."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dinle.errors import MissingExtraError
from dinle.loadtest import driver
from dinle.loadtest.clips import encode_pcm, find_places
from dinle.loadtest.driver import Generator, GeneratorFailedError, start_generator
from dinle.loadtest.stages import LiveScript, Stage, write_material
from dinle.measure.service_figures import count_most_at_once, is_right
from dinle.serve.app import create_app
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone, take_no_notes
from tests.loadtest.loud import LoudDetector
from tests.measure.services import TEXT, fake_service, small_clips
from tests.serve.servers import serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dinle.measure.load_client import LoadClip

CLIPS = small_clips(3)
NAMES = tuple(clip.id for clip in CLIPS)


@contextmanager
def generate(
    folder: Path, url: str, clips: Sequence[LoadClip] = CLIPS, scripts: Sequence[LiveScript] = ()
) -> Iterator[Generator]:
    write_material(folder, clips, scripts)
    with start_generator(folder, url, 10.0) as generator:
        yield generator


@pytest.mark.slow
def test_every_kind_of_file_load(tmp_path: Path) -> None:
    busy_from = 10_000

    def behave(number: int) -> str:
        return "busy" if number >= busy_from else "wrong" if number == 1 else "ok"

    with fake_service(behave, delay_s=0.2) as service, generate(tmp_path, service.url) as generator:
        told: list[float] = []
        once = generator.run(Stage("once", "once", NAMES), told.append)
        assert [row["clip"] for row in once.rows] == list(NAMES)
        assert [row["same_text"] for row in once.rows] == [True, False, True]
        assert count_most_at_once(once.rows) == 1
        assert told
        assert 0 < once.cpu_s < 5

        closed = generator.run(Stage("closed", "users", NAMES, 1.2, users=3, ramp_per_s=3.0, think_s=0.1)).rows
        assert len(closed) == service.posts - 3
        assert count_most_at_once(closed) == 3
        assert all(is_right(row) and row["same_text"] for row in closed)
        # each user needs 0.2 s and thinks 0.05 to 0.15 s
        assert 3 <= len(closed) <= 3 * (1.2 / 0.25 + 1)

        arrivals = generator.run(
            Stage("open", "arrivals", NAMES, 0.5, arrivals_s=tuple(n / 100 for n in range(20)))
        ).rows
        assert count_most_at_once(arrivals) >= 15  # all within one answer's time: none waited for another
        assert [row["start_s"] for row in arrivals] == [n / 100 for n in range(20)]
        assert max(row["late_s"] for row in arrivals) < 0.5
        assert sorted(row["clip"] for row in arrivals[:3]) == sorted(NAMES)

        busy_from = service.posts + 5
        refused = generator.run(Stage("more", "arrivals", NAMES, 0.5, arrivals_s=tuple(n / 20 for n in range(9)))).rows
        assert sorted(row["status"] for row in refused) == [200] * 5 + [503] * 4
        assert {row["retry_after"] for row in refused if row["status"] == 503} == {"0"}


@pytest.mark.slow
def test_without_a_model_the_first_answer_is_what_others_are_compared_with(tmp_path: Path) -> None:
    unknown = [replace(clip, expected_text=None) for clip in CLIPS[:1]]
    behave = {2: "wrong", 5: "wrong"}
    with (
        fake_service(lambda number: behave.get(number, "ok")) as service,
        generate(tmp_path, service.url, unknown) as generator,
    ):
        rows = [row for _ in range(6) for row in generator.run(Stage("once", "once", NAMES[:1])).rows]
    assert [row["same_text"] for row in rows] == [True, True, False, True, True, False]


@pytest.mark.slow
def test_live_users_speak_in_real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinle.recognize.segments.SpeechDetector", LoudDetector)
    take_no_notes(monkeypatch)
    quiet = np.full(16_000, 0.001, dtype=np.float32)
    parts = [make_tone(0.5), quiet, make_tone(0.7), quiet]
    sound, places = encode_pcm(np.concatenate(parts)), find_places(parts)
    scripts = [
        LiveScript("right", sound, places, (TEXT, TEXT)),
        LiveScript("wrong", sound, places, (TEXT, "merhabalar")),
    ]
    app = create_app(fake_recognizer(TEXT), Settings(max_streams=2))
    with serve_in_thread(app) as port, generate(tmp_path, f"http://127.0.0.1:{port}", (), scripts) as generator:
        rows = generator.run(Stage("live 2", "live", ("right", "wrong"), 3.8, users=2)).rows
        assert {(row["clip"], row["audio_s"]): row["same_text"] for row in rows} == {
            ("right", 0.5): True, ("right", 0.7): True, ("wrong", 0.5): True, ("wrong", 0.7): False,
        }  # fmt: skip
        # half a second of silence, in pieces of a tenth, and no work
        assert all(0.4 < row["seconds"] < 1.5 for row in rows)
        assert {row["status"] for row in rows} == {200}
        assert min(row["start_s"] for row in rows) == pytest.approx(0.5, abs=0.15)

        short = generator.run(Stage("live 3", "live", ("right",), 1.7, users=3)).rows
        refused = [row for row in short if row["status"] == 503]
        assert len(refused) == 1
        # the second stream was cut before the pause after its sentence ended
        assert [row["audio_s"] for row in short if row["status"] == 200] == [0.5]


@pytest.mark.slow
def test_a_generator_that_ends_tells_why(tmp_path: Path) -> None:
    with generate(tmp_path, "http://127.0.0.1:9") as generator:
        rows = generator.run(Stage("once", "once", NAMES)).rows
        assert [row["error"] for row in rows] == ["connection"] * 3
        with pytest.raises(GeneratorFailedError, match=r"(?s)in stage odd with status 1: .*KeyError: 'yok'"):
            generator.run(Stage("odd", "once", ("yok",)))


def test_without_locust_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find_spec", lambda module: None if module == "locust" else object())
    with (
        pytest.raises(MissingExtraError, match=r"'locust'.*dinle\[loadtest\]"),
        start_generator(tmp_path, "http://x", 1.0),
    ):
        pass
