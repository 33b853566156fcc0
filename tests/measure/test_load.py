from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dinle.errors import UsageError
from dinle.measure import load, load_client
from dinle.measure.load import (
    draw_arrivals,
    draw_clips,
    find_pause_s,
    probe_recovery,
    run_closed_loop,
    run_open_loop,
)
from dinle.measure.load_client import Answer, Client
from dinle.measure.service_figures import count_answers
from tests.measure.services import TEXT, fake_service, small_clips

if TYPE_CHECKING:
    from collections.abc import Callable

MIXED = ("ok", "busy", "silent", "limited", "drop", "wrong", "garbage", "broken", "stall")


def mix(number: int) -> str:
    return MIXED[number % len(MIXED)]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("ok", Answer(200, TEXT)),
        ("wrong", Answer(200, "yanlış")),
        ("garbage", Answer(200, error="answer")),
        ("busy", Answer(503, retry_after="0")),
        ("silent", Answer(503)),
        ("broken", Answer(500)),
        ("stall", Answer(None, error="timeout")),
        ("drop", Answer(None, error="connection")),
    ],
)
def test_a_client_tells_answers_refusals_and_silence_apart(what: str, expected: Answer) -> None:
    with fake_service(lambda number: what if number == 0 else "ok") as service:
        client = Client(service.url, timeout_s=0.5)
        (clip,) = small_clips(1)
        assert client.post(clip) == expected
        assert client.post(clip) == Answer(200, TEXT)  # whatever came before
        client.close()


def test_no_server_is_a_failed_connection() -> None:
    with fake_service() as service:
        url = service.url
    assert Client(url).post(small_clips(1)[0]) == Answer(None, error="connection")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "https://127.0.0.1", "nothing"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"expected one such as http://127.0.0.1:8000"):
        Client(url)


def test_a_refusal_is_read_though_the_server_took_no_more_of_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_service(lambda _: "early") as service:
        client = Client(service.url)
        send, sent = client._connection.send, []

        def break_pipe(data: Any) -> None:
            sent.append(data)
            if len(sent) == 2:
                raise BrokenPipeError
            send(data)

        monkeypatch.setattr(client._connection, "send", break_pipe)
        assert client.post(small_clips(1)[0]) == Answer(503, retry_after="1")
        assert client._connection.sock is None


def test_a_connection_is_kept_and_one_that_the_server_closed_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_service(lambda number: "close" if number == 2 else "ok") as service:
        client = Client(service.url)
        (clip,) = small_clips(1)
        answers = [client.post(clip) for _ in range(3)]
        assert service.connections == 1
        time.sleep(0.1)  # until the server's goodbye has arrived
        answers.append(client.post(clip))
        assert service.connections == 2
        monkeypatch.setattr(load_client, "KEEP_S", -1.0)  # rested too long
        answers.append(client.post(clip))
        assert service.connections == 3
        client.close()
    assert answers == [Answer(200, TEXT)] * 5


def test_each_round_of_the_mix_holds_every_clip_once() -> None:
    clips = small_clips(5)
    draws = draw_clips(clips, 7)
    rounds = [[next(draws).id for _ in clips] for _ in range(6)]
    assert all(sorted(one) == [clip.id for clip in clips] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    again = draw_clips(clips, 7)
    assert [[next(again).id for _ in clips] for _ in range(6)] == rounds
    with pytest.raises(UsageError, match="no clips"):
        next(draw_clips([], 1))


def test_a_closed_loop_counts_every_request_exactly() -> None:
    told: list[float] = []
    with fake_service(mix) as service:
        rows = run_closed_loop(
            service.url, small_clips(), users=4, seconds=0.9, ramp_per_s=40, timeout_s=0.3, on_time=told.append
        )
        assert service.posts == len(rows)
        done = Counter(service.done)
    answers = count_answers(rows)
    assert answers["ok"] == done["ok"] + done["wrong"]
    assert answers["different_text"] == done["wrong"]
    assert answers["refused"] == {"429": done["limited"], "503": done["busy"] + done["silent"]}
    assert answers["without_retry_after"] == done["silent"]
    assert answers["errors"] == {kind: done[what] for kind, what in
                                 (("answer", "garbage"), ("connection", "drop"), ("timeout", "stall")) if done[what]}  # fmt: skip
    assert answers["other_status"] == ({"500": done["broken"]} if done["broken"] else {})
    assert told


def test_users_never_have_more_than_one_request_under_way_and_begin_one_after_another() -> None:
    with fake_service(delay_s=0.01) as service:
        rows = run_closed_loop(service.url, small_clips(), users=3, seconds=0.6, ramp_per_s=10)
        assert service.connections == 3
    for row in rows:
        under_way = [one for one in rows if one["start_s"] <= row["start_s"] < one["start_s"] + one["seconds"]]
        assert len(under_way) <= min(3, 1 + int(10 * row["start_s"]))
    assert {row["clip"] for row in rows} == {"clip-0.wav", "clip-1.wav", "clip-2.wav"}
    assert max(row["start_s"] for row in rows) < 0.6


@pytest.mark.parametrize(
    ("status", "retry_after", "expected"),
    [
        (200, None, 0.0),
        (503, "3", 3.0),
        (503, None, 1.0),
        (429, "Wed, 21 Oct 2026 07:28:00 GMT", 1.0),
        (None, None, 1.0),
    ],
)
def test_a_user_waits_as_long_as_a_refusal_says(status: int | None, retry_after: str | None, expected: float) -> None:
    assert find_pause_s({"status": status, "retry_after": retry_after}) == expected


def test_what_a_user_raises_is_raised() -> None:
    def fail(_: float) -> None:
        raise RuntimeError("stop")

    with fake_service() as service, pytest.raises(RuntimeError, match="stop"):
        run_closed_loop(service.url, small_clips(), users=2, seconds=30, on_time=fail)


def test_arrivals_are_a_poisson_process() -> None:
    arrivals = np.array(draw_arrivals(50.0, 200.0, seed=3))
    assert arrivals.tolist() == draw_arrivals(50.0, 200.0, seed=3)
    assert arrivals.tolist() != draw_arrivals(50.0, 200.0, seed=4)
    assert np.all(np.diff(arrivals) >= 0)
    assert arrivals.max() < 200.0
    assert abs(len(arrivals) - 10_000) < 4 * 100  # a Poisson count's variance is its mean
    gaps = np.diff(arrivals)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.05)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.05)  # exponential: as wide as its mean
    counts = np.bincount(arrivals.astype(int), minlength=200)
    assert counts.var() == pytest.approx(counts.mean(), rel=0.4)


def test_an_open_loop_sends_and_counts_every_arrival_whatever_becomes_of_the_others() -> None:
    arrivals = [0.005 * number for number in range(5 * len(MIXED))]
    moments: list[int] = []
    before = threading.stack_size()
    with fake_service(mix) as service:
        rows = run_open_loop(
            service.url, small_clips(), arrivals, seconds=0.3, timeout_s=0.5,
            at_end=lambda: moments.append(service.under_way),
        )  # fmt: skip
    assert [row["start_s"] for row in rows] == pytest.approx(arrivals)
    assert count_answers(rows) == {
        "requests": 45, "ok": 10, "different_text": 5, "refused": {"429": 5, "503": 10}, "without_retry_after": 5,
        "other_status": {"500": 5}, "errors": {"answer": 5, "connection": 5, "timeout": 5}, "failed": 20,
    }  # fmt: skip
    assert len(moments) == 1
    assert moments[0] >= 5  # the stalled ones: arrivals waited for none of them
    assert threading.stack_size() == before


def test_a_generator_that_falls_behind_says_so_and_counts_it_as_latency() -> None:
    with fake_service(delay_s=0.05) as service:
        rows = run_open_loop(service.url, small_clips(), [0.0, 0.001, 0.002, 0.003], seconds=0.01, threads=1)
    for number, row in enumerate(rows):
        assert row["late_s"] >= 0.045 * number
        assert row["seconds"] >= row["late_s"] + 0.045


def test_probes_go_on_until_a_request_is_right_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PROBE_EVERY_S", 0.1)
    with fake_service(lambda number: "ok" if number >= 3 else "busy", delay_s=0.02) as service:
        rows = probe_recovery(service.url, small_clips(1)[0], target_s=5.0)
        assert [row["status"] for row in rows] == [503, 503, 503, 200]
        assert np.diff([row["start_s"] for row in rows]).min() >= 0.099
        never = probe_recovery(service.url, small_clips(1)[0], target_s=0.001, limit_s=0.25)
    assert 1 <= len(never) <= 3
    assert {row["status"] for row in never} == {200}


@pytest.mark.parametrize(
    "call",
    [
        lambda: run_closed_loop("http://127.0.0.1:1", small_clips(), users=0, seconds=1),
        lambda: run_closed_loop("http://127.0.0.1:1", small_clips(), users=1, seconds=float("nan")),
        lambda: run_open_loop("http://127.0.0.1:1", small_clips(), [], seconds=1, threads=0),
        lambda: draw_arrivals(0.0, 1.0, 1),
    ],
)
def test_numbers_that_make_no_load_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match="expected more than 0"):
        call()
