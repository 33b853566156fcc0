"""The page's reading of Prometheus' text format and its percentiles, against prometheus_client and an oracle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.sync_api import Page

    from tests.page.conftest import OpenPage


def import_metrics(page: Page, script: str, argument: Any) -> Any:
    return page.evaluate(f"async given => {{ const m = await import('/static/js/metrics.js'); {script} }}", argument)


def test_text_format_is_read_as_prometheus_client_reads_it(open_page: OpenPage, server: str) -> None:
    page = open_page()
    registry = CollectorRegistry()
    counter = Counter("odd", 'help with \\ and "quotes"\nand lines', ("path", "text"), registry=registry)
    for text in ("plain", 'quote " here', "back\\slash", "new\nline", "brace } and , comma=", "ğüşıöç", "", "\\n"):
        counter.labels("/a{b}", text).inc(1.5)
    gauge = Gauge("edge", "edges", ("kind",), registry=registry)
    for kind, value in (("inf", math.inf), ("minus", -math.inf), ("small", 1e-300), ("large", 1.5e300)):
        gauge.labels(kind).set(value)
    Histogram("took_seconds", "times", registry=registry).observe(0.3)
    own = page.request.get(f"{server}metrics").text()
    for text in (generate_latest(registry).decode(), own):
        expected = [
            [sample.name, sample.labels, repr(float(sample.value))]
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]
        found = import_metrics(
            page,
            "return m.parseMetrics(given).map(({ name, labels, value }) => [name, labels, String(value)]);",
            text,
        )
        found = [[name, labels, repr(float(value.replace("Infinity", "inf")))] for name, labels, value in found]
        assert found == expected


@pytest.mark.parametrize("line", ["1abc 2", "name", 'name{a="b" 1', "name{a=b} 1", "name one", '{a="b"} 1'])
def test_lines_that_are_none_are_refused(open_page: OpenPage, line: str) -> None:
    page = open_page()
    script = "try { m.parseMetrics(given); return 'read'; } catch (error) { return error.message; }"
    assert "not a" in import_metrics(page, script, line)


def find_quantile(q: float, edges: Sequence[float], cumulative: Sequence[float]) -> float:
    """Prometheus' histogram_quantile in Python: linear inside the bucket, the last finite edge above it."""
    if cumulative[-1] == 0:
        return math.nan
    rank = q * cumulative[-1]
    place = int(np.searchsorted(cumulative[:-1], rank))  # the first with at least so many
    if place == len(edges) - 1:
        return edges[-2]
    start, below = (edges[place - 1], cumulative[place - 1]) if place else (0.0, 0.0)
    return start + (edges[place] - start) * (rank - below) / (cumulative[place] - below)


def test_quantiles_are_those_of_prometheus(open_page: OpenPage) -> None:
    page = open_page()
    random = np.random.default_rng(7)
    cases = []
    for _ in range(200):
        edges = [*np.cumsum(random.uniform(0.01, 1, size=random.integers(1, 12))).tolist(), math.inf]
        cumulative = np.cumsum(random.integers(0, 5, size=len(edges))).tolist()
        q = float(random.choice([0.5, 0.95, 0.01, 1.0, 0.99]))
        cases.append((q, edges, cumulative, find_quantile(q, edges, cumulative)))
    given = [[q, [str(edge) for edge in edges], cumulative] for q, edges, cumulative, _ in cases]
    script = """return given.map(([q, edges, counts]) => {
      const buckets = edges.map((le, place) => ({ le: le === "inf" ? Infinity : Number(le), count: counts[place] }));
      return String(m.findQuantile(q, buckets));
    });"""
    found = [float(one) for one in import_metrics(page, script, given)]
    assert found == pytest.approx([expected for *_, expected in cases], nan_ok=True, rel=1e-12)
    assert len({one for one in found if not math.isnan(one)}) > 100


def test_percentile_of_the_window_is_found_in_the_histogram_of_two_scrapes(open_page: OpenPage) -> None:
    page = open_page()
    registry = CollectorRegistry()
    histogram = Histogram("took", "times", ("route",), registry=registry, buckets=(0.1, 0.5, 1, 5))
    for seconds in (0.05, 4.0, 4.0, 4.0):
        histogram.labels("/a").observe(seconds)
    before = generate_latest(registry).decode()
    for seconds in (0.2, 0.3, 0.4, 0.9):
        histogram.labels("/a").observe(seconds)
        histogram.labels("/b").observe(3.0)  # another route
    after = generate_latest(registry).decode()
    script = """const read = (text) => m.readBuckets(m.parseMetrics(text), "took", { route: ["/a", "/c"] });
      const grown = m.subtractBuckets(read(given.before), read(given.after));
      const restarted = m.subtractBuckets(read(given.after), read(given.before));
      return { counts: grown.map(({ count }) => count), p50: m.findQuantile(0.5, grown), p95: m.findQuantile(0.95, grown),
        restarted: restarted.map(({ count }) => count) };"""
    found = import_metrics(page, script, {"before": before, "after": after})
    assert found["counts"] == [0, 3, 4, 4, 4]
    assert found["p50"] == pytest.approx(0.1 + 0.4 * 2 / 3)
    assert found["p95"] == pytest.approx(0.5 + 0.5 * 0.8)
    assert found["restarted"] == [1, 1, 1, 4, 4]  # all that the new process saw


def test_figures_are_of_what_grew_between_two_scrapes(open_page: OpenPage) -> None:
    page = open_page()
    found = page.evaluate(
        """async () => {
          const { computeFigures } = await import('/static/js/live_figures.js');
          const gauges = { queue: 1, running: 2, streams: 3, memory: 4 };
          const scrape = (time, requests, refused, audio, work, counts) => ({ ...gauges, time, requests, refused, audio, work,
            buckets: [{ le: 1, count: counts[0] }, { le: Infinity, count: counts[1] }] });
          const before = scrape(1000, 10, 1, 100, 5, [4, 4]);
          return [computeFigures(before, scrape(11000, 15, 3, 150, 7, [8, 8])), computeFigures(before, before),
            computeFigures(before, scrape(11000, 2, 0, 20, 1, [2, 2]))];
        }"""
    )
    moved, still, restarted = found
    assert (moved["requests"], moved["rtfx"], moved["refused"], moved["p50"]) == (0.5, 25, 2, 0.5)
    assert (still["requests"], still["rtfx"], still["p50"], still["queue"]) == (None, None, None, 1)
    assert (restarted["requests"], restarted["rtfx"], restarted["refused"]) == (0.2, 20, 0)
