from __future__ import annotations

import heapq
import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.cli import main
from dinle.config import read_json
from dinle.errors import UsageError
from dinle.measure import deployment_report
from dinle.measure.deployment import HOURS_PER_MONTH, Plan, count_pods_per_node, plan_capacity, spread_over_zones
from dinle.measure.deployment_config import PlanConfig
from dinle.measure.deployment_figures import (
    ServiceFigures,
    add_capacity,
    extract_figures,
    predict_overload,
    read_figures,
)
from dinle.measure.deployment_report import BLOCK, format_plans, list_rows, make_plans, read_flags, update_tables
from dinle.measure.queueing import (
    compute_bounded_queue,
    compute_erlang_b,
    compute_erlang_c,
    compute_mean_wait_s,
    compute_wait_s,
    find_utilisation,
)
from dinle.serve.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
REPORTS = sorted((ROOT / "artifacts").glob("service_*report.json"))
LOADS = st.floats(0.01, 0.99)
# A pod that hears 20 s of sound in a second with two workers: clips of 5 s keep a worker for half a second.
POD = ServiceFigures(model="m", backend="onnx_int8", workers=2, cores=2, rtfx=20.0, clip_s=5.0, memory_mb=400.0)


@pytest.mark.parametrize(
    ("servers", "offered", "blocked"), [(10, 4.46, 0.01), (2, 0.381, 0.05), (100, 84.1, 0.01), (1, 1, 0.5)]
)
def test_erlang_b_is_the_tables(servers: int, offered: float, blocked: float) -> None:
    """Values of the common tables of Erlang B, which give a to three digits."""
    assert compute_erlang_b(servers, offered) == pytest.approx(blocked, rel=0.01)


def test_erlang_c_is_the_textbooks() -> None:
    assert compute_erlang_c(10, 7) == pytest.approx(0.2217, abs=1e-4)
    assert compute_erlang_c(1, 0.6) == pytest.approx(0.6)
    assert compute_erlang_c(2, 1.4) == pytest.approx(2 * 0.7**2 / 1.7)
    assert compute_erlang_c(4, 0) == 0
    assert compute_erlang_c(4, 4) == compute_erlang_c(4, 9) == 1


def test_one_server_is_the_closed_form() -> None:
    assert compute_mean_wait_s(1, 2.0, 0.75) == pytest.approx(0.75 * 2 / 0.25)
    assert compute_wait_s(1, 2.0, 0.75, 0.9) == pytest.approx(math.log(7.5) * 2 / 0.25)
    assert compute_wait_s(1, 2.0, 0.04) == 0
    assert compute_wait_s(1, 2.0, 1.0) == compute_mean_wait_s(1, 2.0, 1.2) == math.inf


def simulate_waits(servers: int, service_s: float, utilisation: float, count: int) -> np.ndarray[Any, Any]:
    """Waits of requests, one after another: each takes the server that is free first."""
    random = np.random.default_rng(7)
    arrivals = np.cumsum(random.exponential(service_s / (utilisation * servers), count)).tolist()
    times = random.exponential(service_s, count).tolist()
    free = [0.0] * servers
    waits = []
    for arrival, seconds in zip(arrivals, times, strict=True):
        start = max(arrival, free[0])
        heapq.heapreplace(free, start + seconds)
        waits.append(start - arrival)
    return np.array(waits)


def test_the_formulas_are_what_a_simulation_shows() -> None:
    waits = simulate_waits(2, 0.4, 0.7, 200_000)
    assert waits.mean() == pytest.approx(compute_mean_wait_s(2, 0.4, 0.7), rel=0.04)
    assert np.percentile(waits, 95) == pytest.approx(compute_wait_s(2, 0.4, 0.7), rel=0.04)


@given(st.integers(1, 40), LOADS)
def test_a_queue_without_waiting_places_is_erlang_b(servers: int, utilisation: float) -> None:
    offered = servers * utilisation
    assert compute_bounded_queue(servers, servers, offered)[0] == pytest.approx(compute_erlang_b(servers, offered))


@given(st.integers(1, 12), st.floats(0.01, 0.8))
def test_a_long_queue_is_erlang_c(servers: int, utilisation: float) -> None:
    refused, inside = compute_bounded_queue(servers, servers + 400, servers * utilisation)
    waiting = compute_mean_wait_s(servers, 1.0, utilisation) * servers * utilisation  # Little: L = λ W
    assert refused == pytest.approx(0, abs=1e-9)
    assert inside == pytest.approx(waiting + servers * utilisation, rel=1e-6)


def test_an_overload_refuses_what_is_too_much() -> None:
    refused, inside = compute_bounded_queue(2, 18, 6.0)
    assert refused == pytest.approx(2 / 3, abs=1e-6)
    assert 17 < inside < 18
    assert compute_bounded_queue(1, 3000, 50.0)[0] == pytest.approx(0.98)


@given(st.integers(1, 64), st.floats(0.05, 5), st.floats(0.01, 10))
def test_the_utilisation_found_is_the_highest(servers: int, service_s: float, wait_s: float) -> None:
    found = find_utilisation(servers, service_s, wait_s)
    assert compute_wait_s(servers, service_s, found) <= wait_s
    assert compute_wait_s(servers, service_s, found + 1e-6) > wait_s
    assert find_utilisation(servers + 1, service_s, wait_s) > found
    assert find_utilisation(servers, service_s, 2 * wait_s) > found


@pytest.mark.parametrize("call", [lambda: compute_erlang_b(0, 1), lambda: compute_erlang_c(2, math.nan),
                                  lambda: compute_erlang_c(0, 1), lambda: compute_bounded_queue(3, 2, 1)])  # fmt: skip
def test_impossible_queues_are_refused(call: Any) -> None:
    with pytest.raises(UsageError, match="server"):
        call()


def test_a_plan_by_hand() -> None:
    config = PlanConfig(
        hours_per_month=100 * HOURS_PER_MONTH, peak_factor=2, batch_share=0.1, utilisation=0.5, wait_s=100,
        batch_utilisation=0.9, zones=3, node_cores=9, node_reserved_cores=1, audio_kbps=80, think_s=9.5, keep_days=61,
        price_per_core_hour=0.5,
    )  # fmt: skip
    plan = plan_capacity(POD, config)
    assert (POD.service_s, plan.utilisation, plan.bound) == (0.5, 0.5, "cap")
    assert plan.peak_load == pytest.approx(180)  # seconds of sound in a second: 100 x 0.9 x 2
    assert plan.peak_requests_per_s == pytest.approx(36)
    assert (plan.pods_needed, plan.live_pods, plan.batch_pods) == (18, 27, 1)  # 180 / 10; 9 a zone; 10 / 18
    assert (plan.cores, plan.pods_per_node, plan.nodes) == (56, 4, 7)
    wait = 2 * 0.25 / 1.5 * 0.5 / (2 * 0.5)
    assert plan.mean_wait_s == pytest.approx(wait)
    assert plan.users_per_core == pytest.approx(2 * (wait + 0.5 + 9.5) / 2)  # 2 clips a second and pod
    assert plan.peak_mbit_per_s == pytest.approx(190 * 0.08)
    assert plan.month_tb == pytest.approx(100 * HOURS_PER_MONTH * 3600 * 10_000 / 1e12)
    assert plan.kept_tb / plan.month_tb == pytest.approx(61 / 30.4375)
    assert plan.core_hours_fixed == pytest.approx(28 * 2 * HOURS_PER_MONTH)
    assert plan.core_hours_following == pytest.approx((90 / 10 * 1.5 + 1) * 2 * HOURS_PER_MONTH)
    assert plan.cost_fixed == pytest.approx(plan.core_hours_fixed / 2)
    assert plan_capacity(POD, replace(config, price_per_core_hour=None)).cost_fixed is None


def plan_for(**changes: Any) -> Plan:
    return plan_capacity(
        replace(POD, **{k: changes.pop(k) for k in ("rtfx", "clip_s") if k in changes}), PlanConfig(**changes)
    )


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"hours_per_month": 1e5}, {"hours_per_month": 2e5}),
        ({"peak_factor": 2.0}, {"peak_factor": 4.0}),
        ({"wait_s": 4.0, "utilisation": 0.9}, {"wait_s": 0.2, "utilisation": 0.9}),
        ({"utilisation": 0.6, "wait_s": 60.0}, {"utilisation": 0.3, "wait_s": 60.0}),
        ({"batch_share": 0.8}, {"batch_share": 0.2}),
        ({"rtfx": 60.0}, {"rtfx": 20.0}),
        ({"zones": 4}, {"zones": 2}),
    ],
)
def test_more_to_do_needs_more(less: dict[str, Any], more: dict[str, Any]) -> None:
    small, large = plan_for(**less), plan_for(**more)
    assert small.cores < large.cores
    assert small.core_hours_fixed < large.core_hours_fixed


@given(st.floats(1, 1e7), st.floats(1, 10), st.floats(0, 1), st.integers(1, 6))
def test_a_plan_carries_its_load(hours: float, peak: float, batch: float, zones: int) -> None:
    config = PlanConfig(hours_per_month=hours, peak_factor=peak, batch_share=batch, zones=zones)
    plan = plan_capacity(POD, config)
    left = plan.live_pods - plan.live_pods // zones if zones > 1 else plan.live_pods
    assert left * plan.utilisation * POD.rtfx >= plan.peak_load * (1 - 1e-9)
    assert plan.batch_pods * config.batch_utilisation * POD.rtfx >= hours / HOURS_PER_MONTH * batch * (1 - 1e-9)
    assert plan.nodes * plan.pods_per_node * POD.cores >= plan.cores
    assert plan.p95_wait_common_s <= plan.p95_wait_s <= config.wait_s
    assert plan.utilisation <= config.utilisation
    assert plan.core_hours_following <= plan.core_hours_fixed * (1 + 1e-9)


def capacity_report(streams: float | None = 4.0) -> dict[str, Any]:
    """What is read of a load test's report: the model of the first service report, another one, and it in fp32."""
    measured = read_figures(REPORTS[0])
    mine = {"name": measured.model, "backend": measured.backend}
    live = None if streams is None else {"streams_per_core": streams}
    lengths = [{"length_s": 3.0, "users_per_core": 11.8}, {"length_s": 30.0, "users_per_core": None}]
    nothing: dict[str, Any] = {"lengths": [], "live": None}
    others = [mine | {"name": "other"} | nothing, mine | {"backend": "onnx"} | nothing]
    return {"models": [*others, mine | {"lengths": lengths, "live": live}]}


def test_live_streams_take_pods_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "capacity.json"
    path.write_text(json.dumps(capacity_report()), encoding="utf-8")
    quiet = PlanConfig(report=(REPORTS[0],), capacity=path, hours_per_month=1e5)
    busy = replace(quiet, live_streams=100.0)
    (before,), (after,) = make_plans(quiet), make_plans(busy)
    figures = after["plan"].figures
    assert figures.streams_per_core == 4.0
    assert after["plan"].stream_pods == math.ceil(100 / (4 * figures.cores))
    assert after["plan"].pods_needed == before["plan"].pods_needed + after["plan"].stream_pods
    more = after["plan"].core_hours_following - before["plan"].core_hours_following
    assert more == pytest.approx(100 / 4 / quiet.peak_factor * 1.5 * HOURS_PER_MONTH)
    _, rows = list_rows([after], busy)
    table = dict(rows)
    assert table["measured: users a core, by length of clip"] == "3 s: 11.8, 30 s: not measured"
    assert table["measured: live streams a core"] == "4"
    assert table["pods for 100 live streams at the peak"] == str(after["plan"].stream_pods)


def test_live_streams_need_a_load_test_of_the_model() -> None:
    config = PlanConfig(live_streams=5.0)
    with pytest.raises(
        UsageError, match="--live_streams is 5, and no load test says how many m carries; give --capacity"
    ):
        plan_capacity(POD, config)
    assert add_capacity(POD, capacity_report()) == POD
    mine = read_figures(REPORTS[0])
    assert add_capacity(mine, capacity_report(None)).streams_per_core is None
    with pytest.raises(UsageError, match=r"c\.json is not the JSON report of dinle loadtest"):
        add_capacity(mine, read_json(REPORTS[0]), "c.json")


def test_zones_and_nodes() -> None:
    assert [spread_over_zones(pods, 3) for pods in (0, 1, 2, 3, 140)] == [0, 3, 3, 6, 210]
    assert spread_over_zones(7, 1) == 7
    config = PlanConfig(
        node_cores=16, node_reserved_cores=1, node_memory_gb=64, node_reserved_memory_gb=4, pod_memory_gb=20
    )
    assert count_pods_per_node(POD, config) == 3  # by memory
    with pytest.raises(UsageError, match="holds no pod of 2 cores and 1.1 GB; choose a larger node"):
        count_pods_per_node(POD, PlanConfig(node_cores=2))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hours_per_month": 0.0}, "--hours_per_month is 0.0; expected more than 0"),
        ({"peak_factor": math.nan}, "--peak_factor is nan; expected more than 0"),
        ({"peak_factor": 0.5}, "--peak_factor is 0.5; expected 1 or more"),
        ({"audio_kbps": math.inf}, "--audio_kbps is inf; expected a number"),
        ({"keep_days": -1.0}, "--keep_days is -1.0; expected 0 or more"),
        ({"utilisation": 1.0}, "at 1 queues never end"),
        ({"batch_share": 1.5}, "--batch_share is 1.5; expected a share from 0 to 1"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        plan_capacity(POD, PlanConfig(**changes))


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_figures(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="is not JSON"):
        read_figures(path)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"r\.json is not the JSON report of dinle benchmark-service"):
        read_figures(path)
    silent = read_json(REPORTS[0])
    silent["users"]["rtfx"] = 0.0
    with pytest.raises(UsageError, match="no request was answered"):
        extract_figures(silent)


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_the_model_is_what_was_measured(path: Path) -> None:
    """Little's law for users without a pause, N = X R; the overload as M/M/c/K. Clips are less scattered than the model's."""
    report = read_json(path)
    users = report["users"]
    assert users["per_second"] * users["latency"]["mean_s"] == pytest.approx(report["conditions"]["users"], rel=0.05)
    found = predict_overload(report, PlanConfig().max_queue)
    assert found
    assert found["refused"] == pytest.approx(found["refused_measured"], abs=0.04)
    assert found["seconds"] == pytest.approx(found["seconds_measured"], rel=0.15)
    figures = read_figures(path)
    assert figures.rtfx <= users["rtfx"]
    assert figures.memory_mb
    assert figures.memory_mb >= users["memory"]["most_mb"]
    assert predict_overload({**report, "overload": None}, 16) is None


def test_the_queue_of_the_plan_is_the_services() -> None:
    assert PlanConfig().max_queue == Settings.model_fields["max_queue"].default


def test_the_command_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(path) for path in REPORTS[:2]]
    assert main(["plan", "--hours_per_month", "1e6", "--price-per-core-hour", "2", "--report", *paths]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    plans = json.loads(last)
    assert [made["report"] for made in plans] == paths
    expected = asdict(plan_capacity(read_figures(REPORTS[0]), PlanConfig(price_per_core_hour=2)))
    assert plans[0]["plan"] == json.loads(json.dumps(expected))
    assert any(f"{plans[0]['plan']['cost_fixed']:,.0f}" in line for line in table)
    assert "**" not in "".join(table)


def test_a_wrong_value_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--report", str(REPORTS[0]), "--wait_s", "0"]) == 2
    assert capsys.readouterr().err == "dinle plan: --wait_s is 0.0; expected more than 0\n"
    assert main(["plan", "--report"]) == 2
    assert "--report names no file" in capsys.readouterr().err


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    report = read_json(REPORTS[0])
    report |= {"overload": None, "samples": []}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(report), encoding="utf-8")
    config = PlanConfig(report=(path,), zones=1)
    _, rows = list_rows(make_plans(config), config)
    assert [name for name, cell in rows if cell == "not measured"] == [
        "measured: most memory of a pod",
        "overload: refused, computed (measured)",
        "overload: mean time of the accepted, computed (measured)",
    ]
    assert any("no reserve for a zone" in name for name, _ in rows)
    assert not any("cost" in name for name, _ in rows)


def test_the_tables_of_the_document_are_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = deployment_report.DOCUMENT.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert blocks
    for block in blocks:
        assert f"```sh\ndinle plan {block['flags']}\n```" in text
        config = read_flags(block["flags"])
        assert format_plans(make_plans(config), config) in text
    assert update_tables(text) == text, "write them anew: python -m dinle.measure.deployment_report"


def test_the_document_is_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "d.md"
    path.write_text(f"a\n<!-- dinle plan --report {REPORTS[0]} -->\nold\n<!-- end -->\nb\n", encoding="utf-8")
    assert deployment_report.main([str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert "old" not in text
    assert text.startswith("a\n<!-- dinle plan")
    assert text.endswith(" |\n\n<!-- end -->\nb\n")
    assert deployment_report.main([str(tmp_path / "none.md")]) == 1
    assert "none.md" in capsys.readouterr().err
