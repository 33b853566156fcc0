"""Alerts, dashboard and their configuration: by Prometheus' own tools, and against what the service really exports."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.testclient import TestClient

from dinle.serve.app import ROUTERS, create_app
from dinle.serve.errors import ServiceBusyError, StreamsBusyError, describe_error
from dinle.serve.settings import Settings
from tests.fakes import fake_recognizer, make_tone
from tests.serve.servers import ROOT, serve_in_thread, wait_for
from tests.serve.test_metrics import use_everything
from tests.sounds import encode_wav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

yaml: Any = importlib.import_module("yaml")  # it ships no types, and its stubs would be one more package

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((GRAFANA / "dashboards" / "dinle.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = [rule["expr"] for rule in RULES] + QUERIES

# What Prometheus itself makes: https://prometheus.io/docs/concepts/jobs_instances/ and .../alerting_rules/.
OWN_METRICS = {"up", "ALERTS"}
OWN_LABELS = {"job", "instance", "alertname", "alertstate"}
WORDS = {"by", "on", "or", "and", "unless", "without", "ignoring", "group_left", "group_right", "bool", "offset", "le"}
SPEECH = encode_wav(make_tone(1.0))


def find_selectors(expression: str) -> list[tuple[str, dict[str, str]]]:
    """The metrics of a PromQL expression, each with its label matchers (label to value or pattern)."""
    found = re.findall(r'([a-zA-Z_:][\w:]*)\{((?:[^}"]|"[^"]*")*)\}', expression)
    selectors = [(name, dict(re.findall(r'(\w+)\s*[!=]~?\s*"([^"]*)"', matchers))) for name, matchers in found]
    rest = re.sub(r'[a-zA-Z_:][\w:]*\{(?:[^}"]|"[^"]*")*\}', "", expression)
    rest = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)|\[[^]]*\]", "", rest)
    return selectors + [(name, {}) for name in re.findall(r"[a-zA-Z_:][\w:]*\b(?!\s*\()", rest) if name not in WORDS]


def test_selectors_are_found_as_promql_reads_them() -> None:
    assert find_selectors('a / on () group_left () b:c > 0.9 or absent(d{job="x}", e=~"f|g"})') == [
        ("d", {"job": "x}", "e": "f|g"}), ("a", {}), ("b:c", {}),
    ]  # fmt: skip
    assert find_selectors("histogram_quantile(0.9, sum by (job, le) (rate(h_bucket[$__rate_interval])))") == [
        ("h_bucket", {})
    ]


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """The names of the series that ``/metrics`` of the application announces."""
    with TestClient(create_app(fake_recognizer(), Settings())) as client:
        lines = re.findall(r"^# TYPE (\S+) (\w+)$", client.get("/metrics").text, re.MULTILINE)
    histogram = ("_bucket", "_sum", "_count")
    return {name + suffix for name, kind in lines for suffix in (histogram if kind == "histogram" else ("",))}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_that_is_asked_for_is_exported(expression: str, exported: set[str]) -> None:
    asked = {name for name, _ in find_selectors(expression)} - OWN_METRICS - RECORDED
    assert asked <= exported


@pytest.mark.parametrize("expression", [query for query in EXPRESSIONS if "{" in query])
def test_every_label_that_is_asked_for_exists(expression: str) -> None:
    samples = [sample for family in parse_text(use_everything().render()[0].decode()) for sample in family.samples]
    labels = {sample.name: set(sample.labels) for sample in samples}
    for name, matchers in find_selectors(expression):
        assert matchers.keys() - OWN_LABELS <= labels.get(name, set())


def test_every_value_that_is_asked_for_exists() -> None:
    asked: dict[str, set[str]] = {"route": set(), "reason": set(), "outcome": set(), "job": set()}
    for expression in EXPRESSIONS:
        for _, matchers in find_selectors(expression):
            for label in matchers.keys() & asked.keys():
                asked[label] |= set(matchers[label].split("|"))
    assert asked["route"] <= {str(getattr(route, "path", "")) for router in ROUTERS for route in router.routes}
    assert asked["reason"] == {describe_error(error).code for error in (ServiceBusyError(1), StreamsBusyError(1))}
    assert asked["outcome"] == {"failed"}
    assert asked["job"] == {scrape["job_name"] for scrape in read_config()["scrape_configs"]}


def test_the_dashboard_shows_the_service_and_no_other_target() -> None:
    asked = [(name, matchers.get("job")) for query in QUERIES for name, matchers in find_selectors(query)]
    assert {job for name, job in asked if name not in {"ALERTS", *RECORDED}} == {"dinle"}


def read_config() -> dict[str, Any]:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert isinstance(config, dict)
    return config


def test_each_alert_says_what_to_do_and_has_a_test_that_it_fires_and_one_that_it_does_not() -> None:
    cases = [case for test in yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
             for case in test["alert_rule_test"]]  # fmt: skip
    for fires in (True, False):
        assert {case["alertname"] for case in cases if bool(case["exp_alerts"]) == fires} == ALERTS.keys()
    for alert in ALERTS.values():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert alert["annotations"].keys() == {"summary", "description"}


def test_the_limit_of_memory_is_that_of_the_container() -> None:
    limit = next(rule["expr"] for rule in RULES if rule.get("record") == "dinle:memory_limit_bytes")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["api"]
    gibibytes = re.fullmatch(r"\$\{DINLE_MEMORY:-(\d+)g\}", compose["deploy"]["resources"]["limits"]["memory"])
    assert gibibytes
    assert limit == f"vector({int(gibibytes[1]) * 1024**3})"


def test_the_dashboard_fits_its_data_source_and_no_panel_hides_another() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    expected = {"type": source["type"], "uid": source["uid"]}
    assert {json.dumps(part["datasource"]) for panel in PANELS for part in (panel, *panel["targets"])} == {
        json.dumps(expected)
    }
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))
    assert all(panel["description"].endswith(".") for panel in PANELS)


def test_every_alert_of_a_figure_can_be_seen_on_the_dashboard() -> None:
    def find_names(expressions: list[str]) -> set[str]:
        return {name for expression in expressions for name, _ in find_selectors(expression)}

    seen = find_names(QUERIES)
    missing = find_names([alert["expr"] for alert in ALERTS.values()]) - seen
    assert missing == {"process_start_time_seconds"}  # a restart shows in every curve


# By Prometheus itself.


def run_promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus): rules are read here, not run")
    return subprocess.run([promtool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)


def test_prometheus_accepts_its_configuration() -> None:
    done = run_promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"{len(RULES)} rules found" in done.stdout


def test_alerts_fire_when_they_should_and_only_then() -> None:
    done = run_promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stderr + done.stdout


@contextmanager
def run_prometheus(port: int, folder: Path) -> Iterator[str]:
    """Prometheus with the committed rules, asking the service on ``port`` each second; gives its URL."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian's package prometheus): queries are read here, not run")
    config = read_config()
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(PROMETHEUS / "alerts.yml", folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: is_ready(f"http://{address}") or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/-/ready").status_code == 200
    except httpx2.TransportError:
        return False


def ask(url: str, expression: str) -> list[Any]:
    """The series that an expression gives now; asserts that Prometheus understands it."""
    query = expression.replace("$__rate_interval", "20s").replace("[5m]", "[20s]")
    answer = httpx2.get(f"{url}/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", (expression, answer)
    return list(answer["data"]["result"])


# Nothing of the kind happened: no live stream, no refusal, no failure, no alert.
MAY_BE_EMPTY = re.compile(r"dinle_live_final_seconds|^sum by \(reason\)|ALERTS")


@pytest.mark.slow
def test_prometheus_finds_what_the_dashboard_shows(tmp_path: Path) -> None:
    with serve_in_thread(create_app(fake_recognizer(), Settings())) as port, run_prometheus(port, tmp_path) as url:
        transcribe = f"http://127.0.0.1:{port}/transcribe"
        wait_for(lambda: ask(url, "sum(up) == 1"))
        end = time.monotonic() + 2.5
        while time.monotonic() < end:  # a rate needs a rise between two scrapes
            assert httpx2.post(transcribe, files={"file": SPEECH}).status_code == 200
            time.sleep(0.1)
        wait_for(lambda: all(ask(url, query) for query in QUERIES if not MAY_BE_EMPTY.search(query)), timeout_s=15)
        empty = [query for query in QUERIES if not ask(url, query)]
        assert all(MAY_BE_EMPTY.search(query) for query in empty)
        groups = httpx2.get(f"{url}/api/v1/rules").json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert [rule["name"] for rule in rules] == [rule.get("alert") or rule["record"] for rule in RULES]
        assert {(rule["name"], rule["health"]) for rule in rules} == {(rule["name"], "ok") for rule in rules}
        assert {rule["state"] for rule in rules if rule["type"] == "alerting"} == {"inactive"}
