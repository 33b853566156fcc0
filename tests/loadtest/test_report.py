"""The report of a short run of the CTC model, from the rows that it left (``data/``)."""

from __future__ import annotations

import copy
import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dinle.config import read_json
from dinle.loadtest.figures import make_report
from dinle.loadtest.report import is_flawless, list_card, render_card, summarize, write_capacity_report
from dinle.loadtest.rows import read_rows, write_rows
from dinle.progress import open_console

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return read_rows(DATA / "capacity_requests.csv")


@pytest.fixture(scope="module")
def samples() -> list[dict[str, Any]]:
    return read_rows(DATA / "capacity_samples.csv")


@pytest.fixture(scope="module")
def report(rows: list[dict[str, Any]], samples: list[dict[str, Any]]) -> dict[str, Any]:
    return make_report(read_json(DATA / "capacity.json"), rows, samples)


@pytest.fixture(scope="module")
def raw() -> list[dict[str, str]]:
    """The rows as the CSV module reads them: an oracle that shares no code with the report."""
    with (DATA / "capacity_requests.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_same_rows_give_the_same_figures(report: dict[str, Any], rows: list[Any], samples: list[Any]) -> None:
    assert report == read_json(DATA / "capacity.json")
    assert make_report(report, rows, samples) == report


@pytest.mark.parametrize("name", ["capacity_requests.csv", "capacity_samples.csv"])
def test_saved_rows_are_written_as_they_were(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path / name, read_rows(DATA / name))
    assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def test_answers_are_counted(report: dict[str, Any], raw: list[dict[str, str]]) -> None:
    (model,) = report["models"]
    statuses = Counter(row["status"] for row in raw)
    assert model["answers"]["requests"] == len(raw)
    assert model["answers"]["ok"] == statuses["200"]
    assert model["answers"]["refused"] == {"503": statuses["503"]}
    assert statuses["503"] > 0
    assert model["answers"]["failed"] == 0


def test_steps_are_what_their_rows_say(report: dict[str, Any], raw: list[dict[str, str]]) -> None:
    (model,) = report["models"]
    offered = [row for row in raw if row["phase"] == "open 4"]
    step = model["open"][-1]
    assert step["rate_per_s"] == len(offered) / 3
    assert step["refused_per_s"] == sum(row["status"] == "503" for row in offered) / 3
    seconds = [float(row["seconds"]) for row in offered if row["status"] == "200"]
    assert step["latency"]["p99_s"] == np.percentile(seconds, 99)
    assert step["audio_per_s"] == pytest.approx(sum(float(row["audio_s"]) for row in offered) / 3)


def test_the_card_is_the_highest_rate_that_was_carried(report: dict[str, Any], raw: list[dict[str, str]]) -> None:
    (model,) = report["models"]
    carried = {}
    for phase in {row["phase"] for row in raw if row["phase"].startswith("3 s at")}:
        mine = [row for row in raw if row["phase"] == phase]
        in_time = [row for row in mine if row["status"] == "200" and float(row["seconds"]) <= 1.0]
        if len(in_time) >= 0.95 * len(mine):
            answer_s = np.mean([float(row["seconds"]) for row in mine if row["status"] == "200"])
            carried[len(mine)] = len(mine) / 6 * (np.mean([float(row["audio_s"]) for row in mine]) + answer_s)
    (one,) = model["lengths"]
    assert one["users"] == pytest.approx(carried[max(carried)])
    assert one["users_per_core"] == one["users"] / 2
    streams = max(int(row["phase"].removeprefix("live ")) for row in raw if row["kind"] == "live")
    assert model["live"]["streams"] == streams == 2
    assert list_card(report)[1] == [
        ["dinle-ctc-tr int8", f"{one['users'] / 2:.1f} ({one['rate_per_s']:.2f} requests a second in all)",
         "at least 1 (2 in all)"],
    ]  # fmt: skip


def test_the_page_shows_every_plot_and_every_phase(report: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "capacity.md"
    write_capacity_report(path, report)
    text = path.read_text(encoding="utf-8")
    shown = re.findall(r"!\[\w+\]\(([\w.]+)\)", text)
    assert sorted(shown) == sorted(file.name for file in tmp_path.glob("*.png"))
    assert len(shown) == 4
    for name in shown:
        with Image.open(tmp_path / name) as image:
            assert image.width == 1200
            assert len(image.convert("RGB").getcolors(256) or []) > 8  # something is drawn
    for phase in report["phases"]:
        assert f"| {phase['name']} |" in text
    assert "0 of 396 answers and finals hold another text than the same model gave offline." in text
    assert "{" not in text
    assert str(tmp_path) not in text
    widths = [{line.count("|") for line in block.splitlines()} for block in text.split("\n\n") if block.startswith("|")]
    assert all(len(width) == 1 for width in widths)


def test_wrong_texts_other_work_and_unknown_models_are_told(report: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(report)
    (model,) = changed["models"]
    assert is_flawless(changed)
    model["answers"]["different_text"], model["differences"] = 2, {"a.wav": 2}
    assert not is_flawless(changed)
    model |= {"other_cores": 1.26, "compared_with": "first answer", "workers": None, "source": None}
    model["lengths"][0] |= {"users": 0.0, "users_per_core": 0.0}
    model["live"] = model["closed"] = None
    changed["conditions"]["started"] = False
    write_capacity_report(tmp_path / "c.md", changed)
    text = (tmp_path / "c.md").read_text(encoding="utf-8")
    assert (
        "2 of 396 answers and finals hold another text than the first answer for the same sound: `a.wav` (2)." in text
    )
    assert "Other work kept up to 1.3 cores busy" in text
    assert "a service that ran already; the load came from AMD EPYC, 2 cores." in text
    assert "| 0 (one alone: " in text
    assert "c_live.png" not in text
    model["other_cores"] = 0.1
    write_capacity_report(tmp_path / "c.md", changed)
    assert "Other work" not in (tmp_path / "c.md").read_text(encoding="utf-8")


def test_the_terminal_and_programs_get_the_card(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    open_console().print(render_card(report))
    assert "at least 1 (2 in all)" in capsys.readouterr().out
    (line,) = summarize(report).values()
    assert line["requests"] == 420
    assert line["streams_per_core"] == 1
    assert set(line["users_per_core"]) == {"3"}
