"""The sections "Models" and "Numbers" in a real browser, against a service that has both bundled models."""

from __future__ import annotations

import json
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dinle.serve.process import start_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import FilePayload, Page

    from tests.page.conftest import OpenPage

ROOT = Path(__file__).resolve().parents[2]
NUMBERS: dict[str, Any] = json.loads((ROOT / "src/dinle/serve/static/numbers.json").read_text(encoding="utf-8"))
SAMPLE = ROOT / "samples/sample.wav"
REPORTS = 7
KEY = "a-key-for-the-tests-of-the-numbers-0123456789"
# Pixels of a chart that are not empty: bars, lines and letters.
COUNT_COLOURS = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  let drawn = 0;
  for (let place = 0; place < data.length; place += 4) {
    if (data[place + 3] === 0) continue;
    drawn += 1;
    colours.add(`${data[place]},${data[place + 1]},${data[place + 2]}`);
  }
  return { drawn, colours: colours.size, area: canvas.width * canvas.height };
}"""
ALL_DRAWN = f"() => document.querySelectorAll('[data-report] canvas').length === {REPORTS}"


@pytest.fixture(scope="module")
def service(chromium: str) -> Iterator[str]:
    with start_service(env={"ASR_MODELS_DIR": str(ROOT / "models")}) as running:
        yield f"{running.url}/"


def write_number(value: float, digits: int) -> str:
    """As Turkish writes it: 1.234,5."""
    rounded = Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{rounded:,}".translate(str.maketrans(",.", ".,"))


def read_table(page: Page, report: str) -> list[list[str]]:
    return [
        [text.replace("\u00a0", " ") for text in row]
        for row in page.locator(f'[data-report="{report}"] tbody tr').evaluate_all(
            "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
        )
    ]


def open_numbers(open_page: OpenPage, service: str, **options: Any) -> Page:
    page = open_page("#numbers", url=service, **options)
    page.wait_for_function(ALL_DRAWN)
    return page


def check_canvases(page: Page) -> None:
    canvases = page.locator("[data-report] canvas")
    assert canvases.count() == REPORTS
    for place in range(REPORTS):
        found = canvases.nth(place).evaluate(COUNT_COLOURS)
        assert found["drawn"] > 0.005 * found["area"], place
        assert found["colours"] > 5, place
        assert canvases.nth(place).get_attribute("aria-label")


def post_sample(page: Page, service: str) -> None:
    sample: FilePayload = {"name": "sample.wav", "mimeType": "audio/wav", "buffer": SAMPLE.read_bytes()}
    assert page.request.post(f"{service}transcribe", multipart={"file": sample}).ok


# Models


def test_default_model_is_shown_with_size_verdict_and_licences(open_page: OpenPage, service: str) -> None:
    page = open_page("#models", url=service)
    card = page.locator(".model-card").first
    card.wait_for()
    bundle = json.loads((ROOT / "models/dinle-base-tr/bundle.json").read_text(encoding="utf-8"))
    text = card.inner_text().replace("\u00a0", " ")
    assert card.get_attribute("data-name") == bundle["name"]
    assert "varsayılan" in text
    assert "bellekte: onnx_int8" in text
    size = sum((ROOT / "models/dinle-base-tr" / name).stat().st_size for name in bundle["files"]["int8"])
    assert f"{write_number(size / 1e6, 1)} MB" in text
    verdict = bundle["gate"]["int8"]
    assert f"fp32 ile %{write_number(100 * verdict['wer']['fp32'], 1)}" in text
    assert f"Kayıp {write_number(100 * verdict['wer_loss'], 1)} puan" in text
    rows = card.locator("table").first.locator("tbody tr")
    assert rows.count() == len(bundle["provenance"])
    for place, given in enumerate(bundle["provenance"]):
        assert given["name"] in rows.nth(place).inner_text()
        assert given["licence"] in rows.nth(place).inner_text()


def test_use_this_model_selects_it_and_marks_it(open_page: OpenPage, service: str) -> None:
    page = open_page("#models", url=service)
    chosen = page.locator('.model-card[data-name="dinle-base-tr"] button[data-model]')
    other = page.locator('.model-card[data-name="dinle-ctc-tr"] button[data-model]')
    other.wait_for()
    page.wait_for_function("() => document.querySelector('#model').value === 'dinle-base-tr'")
    other.click()
    assert page.evaluate("document.querySelector('#model').value") == "dinle-ctc-tr"
    assert other.get_attribute("aria-pressed") == "true"
    assert chosen.get_attribute("aria-pressed") == "false"
    page.click("#tab-transcribe")
    page.click("#tab-models")  # asked anew, and still chosen
    page.wait_for_timeout(500)
    assert other.get_attribute("aria-pressed") == "true"


def test_whole_card_is_shown_in_an_element_that_opens(open_page: OpenPage, service: str) -> None:
    page = open_page("#models", url=service, viewport={"width": 390, "height": 800})
    details = page.locator(".model-card details").first
    details.wait_for()
    assert not details.locator(".whole-card").is_visible()
    details.locator("summary").click()
    assert "Weights, data, licences" in details.locator(".whole-card").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == 390  # its tables scroll by themselves
    page.click("#language")
    assert page.locator(".model-card details").first.locator(".whole-card").is_visible()  # still open


def test_what_a_card_says_runs_loads_and_styles_nothing(open_page: OpenPage, service: str) -> None:
    page = open_page(url=service, allowed=("Applying inline style violates",))  # the policy refuses it first
    html = (
        "<h3 id=model onclick='window.ran=1' style='color:red'>Title</h3><script>window.ran=1</script><style>p{}</style>"
        "<p>a <img src=x onerror='window.ran=1'><a href='javascript:window.ran=1'>bad</a> <a href='https://e.org/'>good</a></p>"
        "<svg onload='window.ran=1'><a href='https://e.org/'>svg</a></svg><iframe src='https://e.org'></iframe>"
        "<table><tr><td style='text-align:left'>cell</td></tr></table><form action='/'><input name=x></form>"
    )
    shown = page.evaluate(
        """async (html) => {
          const { cleanHtml } = await import('/static/js/safe_html.js');
          const host = document.createElement('div');
          host.append(...cleanHtml(html));
          document.body.append(host);
          await new Promise((resolve) => setTimeout(resolve, 100));
          return { html: host.innerHTML, ran: window.ran };
        }""",
        html,
    )
    assert shown.get("ran") is None
    assert not re.search(r"script|style|svg|img|iframe|form|input|javascript|onclick|\bid=", shown["html"])
    assert '<a href="https://e.org/" rel="noopener noreferrer">good</a>' in shown["html"]
    assert "<a>bad</a>" in shown["html"]
    assert "cell" in shown["html"]


def test_a_model_that_cannot_be_described_keeps_its_card(open_page: OpenPage, service: str) -> None:
    page = open_page(url=service, allowed=("404",))
    page.route("**/models/dinle-ctc-tr", lambda route: route.fulfill(status=404, json={"code": "model_unknown"}))
    page.click("#tab-models")
    card = page.locator('.model-card[data-name="dinle-ctc-tr"]')
    card.wait_for()
    assert "Bu model artık sunucuda yok." in card.inner_text()
    assert page.locator(".model-card").count() == 2


def test_no_answer_is_said_and_asked_again(open_page: OpenPage, service: str) -> None:
    page = open_page(url=service, allowed=("ERR_FAILED",))
    page.wait_for_load_state("networkidle")
    page.route("**/v1/models", lambda route: route.abort())
    page.click("#tab-models")
    page.locator("#model-cards .problem").wait_for()
    assert "Sunucuya ulaşılamıyor" in page.locator("#model-cards .problem").inner_text()
    page.unroute("**/v1/models")
    page.click("#model-cards .problem button")
    page.locator(".model-card").first.wait_for()
    assert page.locator("#model-cards .problem").count() == 0


def test_key_is_asked_for_where_the_server_wants_one(open_page: OpenPage) -> None:
    with start_service(env={"ASR_API_KEYS": KEY}) as running:
        page = open_page("#numbers", url=f"{running.url}/", allowed=("401",))
        while page.locator(".model-card, [data-figure=memory][data-value]").count() == 0:
            page.locator("#key-dialog[open]").wait_for()
            page.fill("#key", KEY)
            page.click("#key-dialog button.primary")
            page.wait_for_timeout(500)
        assert float(page.locator("[data-figure=memory]").get_attribute("data-value") or 0) > 1e7


# Published reports


def test_charts_are_drawn_and_chart_js_comes_only_now(open_page: OpenPage, service: str) -> None:
    page = open_page(url=service)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.Chart === undefined")
    page.click("#tab-numbers")
    page.wait_for_function(ALL_DRAWN)
    check_canvases(page)
    assert page.locator("#now-chart canvas").count() == 1


@pytest.mark.parametrize("report", ["benchmark", "wav2vec2_base"])
def test_table_of_backends_is_what_was_measured(open_page: OpenPage, service: str, report: str) -> None:
    rows = read_table(open_numbers(open_page, service), report)
    backends = NUMBERS[report]["backends"]
    assert len(rows) == len(backends)
    for row, given in zip(rows, backends, strict=True):
        assert row[2] == f"{write_number(1000 * given['median_s'], 0)} ms"
        assert row[4] == write_number(given["rtfx"], 1)
        assert row[5].startswith(f"{write_number(given['speedup']['ratio'], 2)}×")
        assert row[6] == f"{write_number(given['size_mb'], 1 if given['size_mb'] < 100 else 0)} MB"
        assert row[7] == f"{write_number(given['peak_memory_mb'], 0)} MB"
        if "quality" in given:
            assert row[8] == f"%{write_number(100 * given['quality']['wer'], 1)}"


def test_other_tables_are_what_was_measured(open_page: OpenPage, service: str) -> None:
    page = open_numbers(open_page, service)
    expected = [
        f"%{write_number(100 * each['scores'][text]['wer']['rate'], 1)}"
        for each in NUMBERS["evaluation"]
        for text in ("tr", "raw")
    ]
    assert [row[2].split(" [")[0] for row in read_table(page, "evaluation")] == expected
    differences = NUMBERS["int8_against_fp32"]["differences"]
    expected = [
        write_number(100 * differences[text][rate]["difference"], 2)
        for text in ("tr", "raw")
        for rate in ("wer", "cer", "exact")
    ]
    assert [row[4].split(" [")[0].replace("-0,00", "0,00") for row in read_table(page, "int8_against_fp32")] == [
        one.replace("-0,00", "0,00") for one in expected
    ]
    loads = {(row[0], row[1]): row for row in read_table(page, "service")}
    overloads = read_table(page, "overload")
    for row, service_report in zip(overloads, NUMBERS["service"], strict=True):
        name = f"{service_report['model']} ({service_report['backend']})"
        at_capacity = loads[name, f"{service_report['conditions']['users']} kullanıcı"]
        assert at_capacity[2] == write_number(service_report["loads"]["users"]["per_second"], 2)
        assert at_capacity[5] == f"{write_number(service_report['loads']['users']['p95_s'], 2)} sn"
        assert row[0] == name
        assert row[2:4] == [write_number(service_report["overload"][key], 0) for key in ("ok", "refused")]


def test_every_report_names_its_file_and_day(open_page: OpenPage, service: str) -> None:
    page = open_numbers(open_page, service)
    page.click("#language")
    page.wait_for_function(ALL_DRAWN)
    shown = " ".join(page.locator(".conditions").all_inner_texts())
    for section in NUMBERS.values():
        for report in section if isinstance(section, list) else [section]:
            assert report["report"] in shown
            assert report["conditions"].get("commit") or "" in shown
            assert report["conditions"]["date"][:4] in shown


def test_another_measure_is_drawn_when_it_is_chosen(open_page: OpenPage, service: str) -> None:
    page = open_numbers(open_page, service)
    canvas = page.locator('[data-report="benchmark"] canvas')
    pictures = {canvas.evaluate("canvas => canvas.toDataURL()")}
    for measure in ("latency", "speedup", "size", "memory"):
        page.select_option('[data-report="benchmark"] select', measure)
        pictures.add(canvas.evaluate("canvas => canvas.toDataURL()"))
    assert len(pictures) == 5
    page.click("#language")
    page.wait_for_function(ALL_DRAWN)
    assert page.locator('[data-report="benchmark"] select').input_value() == "memory"  # kept


def test_appearance_and_language_redraw_every_chart(open_page: OpenPage, service: str) -> None:
    page = open_numbers(open_page, service, color_scheme="light")
    canvas = page.locator('[data-report="benchmark"] canvas')
    light = canvas.evaluate("canvas => canvas.toDataURL()")
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(200)
    dark = canvas.evaluate("canvas => canvas.toDataURL()")
    assert dark != light
    page.click("#theme")  # light, whatever the system says
    assert canvas.evaluate("canvas => canvas.toDataURL()") == light
    page.click("#theme")
    assert canvas.evaluate("canvas => canvas.toDataURL()") == dark
    page.click("#language")
    page.wait_for_function(ALL_DRAWN)
    assert page.locator('[data-report="service"] h3').inner_text() == "The service under load"
    check_canvases(page)


def test_narrow_page_does_not_scroll_sideways(open_page: OpenPage, service: str) -> None:
    page = open_numbers(open_page, service, viewport={"width": 390, "height": 800})
    for details in page.locator("#numbers details").all():
        details.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_without_chart_js_the_tables_are_open(open_page: OpenPage, service: str) -> None:
    page = open_page(url=service, allowed=("ERR_FAILED",))
    page.route("**/vendor/chart.umd.js", lambda route: route.abort())
    page.click("#tab-numbers")
    page.wait_for_function(f"() => document.querySelectorAll('[data-report] details[open]').length === {REPORTS}")
    assert "Grafik yüklenemedi" in page.locator('[data-report="benchmark"] .chart').inner_text()


# This server, now


def test_figures_move_with_a_transcription(open_page: OpenPage, service: str) -> None:
    page = open_numbers(open_page, service)

    def read(name: str) -> float:
        return float(page.locator(f'[data-figure="{name}"]').get_attribute("data-value") or "nan")

    def read_total() -> int:
        return int(re.sub(r"\D", "", page.locator('[data-figure="requests"] .note').inner_text()))

    page.locator('[data-figure="memory"][data-value]').wait_for()
    before = read_total()
    for _ in range(2):
        post_sample(page, service)
    page.wait_for_function(
        "total => document.querySelector('[data-figure=\"requests\"] .note').textContent.replace(/\\D/g, '') === total",
        arg=str(before + 2),
    )
    assert read("requests") > 0
    assert 0 < read("p50") <= read("p95") < 60
    assert read("rtfx") > 1
    assert read("memory") > 5e7
    assert read("queue") == 0
    assert page.locator("#now-chart canvas").evaluate(COUNT_COLOURS)["colours"] > 5


def test_nothing_is_asked_while_nobody_looks(open_page: OpenPage, service: str) -> None:
    page = open_numbers(open_page, service)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/metrics") else None)
    page.wait_for_timeout(4500)
    assert 1 <= len(asked) <= 3
    page.click("#tab-transcribe")
    page.wait_for_timeout(300)
    asked.clear()
    page.wait_for_timeout(4500)
    assert asked == []
    page.click("#tab-numbers")
    page.wait_for_timeout(500)
    assert len(asked) == 1
