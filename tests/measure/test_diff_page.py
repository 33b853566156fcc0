from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.errors import UsageError
from dinle.measure.config import EvaluateConfig
from dinle.measure.diff_audio import find_suffix
from dinle.measure.diff_page import join_hits, write_diff_page
from dinle.measure.evaluate import evaluate, score_predictions
from dinle.measure.predictions import Prediction, write_predictions
from dinle.measure.scores import compute_scores
from dinle.measure.wer import count_errors
from dinle.recognize.audio import decode_audio
from dinle.text import NORMALIZERS
from tests.graphs import write_level_bundle
from tests.measure.speech import write_speech
from tests.sounds import encode_lossy, encode_wav, make_harmonics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&amp;\"'"
# Words that need all three kinds of errors, and that the forms tell apart.
WORDS = st.lists(
    st.sampled_from(["İstanbul", "istanbul", "Türkiye'nin", "türkiyenin", "20", "yirmi", "bir,"]), max_size=6
)
TEXTS = st.lists(st.tuples(WORDS.map(" ".join), WORDS.map(" ".join)), min_size=1, max_size=6)


class Elements(HTMLParser):
    """Names and attributes of all elements, and the text of those that hold raw text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in ("script", "style", "title") and data.strip():
            self.texts.append((self.found[-1][0], data))


def write_page(folder: Path, predictions: Sequence[Prediction], **options: Any) -> str:
    scores = compute_scores(predictions, samples=5, seed=1)
    return write_diff_page(folder, scores, predictions, **options).read_text(encoding="utf-8")


def read_data(page: str) -> dict[str, Any]:
    """What the page's script reads."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    data: dict[str, Any] = json.loads(text)
    return data


def count_colours(clips: Sequence[dict[str, Any]], form: str) -> dict[str, int]:
    """What the page colours, counted pair by pair, as its script tells the kinds apart."""
    counted = {"substitutions": 0, "insertions": 0, "deletions": 0, "hits": 0}
    for pair in (pair for clip in clips for pair in clip["texts"][form]["pairs"]):
        if isinstance(pair, str):
            counted["hits"] += len(pair.split(" "))
        else:
            counted["insertions" if pair[0] is None else "deletions" if pair[1] is None else "substitutions"] += 1
    return counted


@given(texts=TEXTS)
def test_the_coloured_errors_are_those_of_the_scores(
    texts: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    predictions = [Prediction(str(number), *pair) for number, pair in enumerate(texts)]
    scores = compute_scores(predictions, samples=1, seed=1)
    folder = tmp_path_factory.mktemp("page")
    data = read_data(write_diff_page(folder, scores, predictions).read_text(encoding="utf-8"))
    assert data["forms"] == list(NORMALIZERS)
    for form, score in scores["scores"].items():
        coloured = count_colours(data["clips"], form)
        assert coloured == {kind: score["wer"][kind] for kind in coloured}
        for place, kind in enumerate(("substitutions", "insertions", "deletions", "reference")):
            assert sum(clip["texts"][form]["words"][place] for clip in data["clips"]) == score["wer"][kind]
        letters = [sum(clip["texts"][form]["characters"][place] for clip in data["clips"]) for place in (0, 1)]
        assert letters[0] / max(1, letters[1]) == pytest.approx(score["cer"]["rate"], abs=1e-6)


def test_runs_of_right_words_are_joined_and_errors_kept() -> None:
    (clip,) = count_errors(["bir iki üç beş"], ["bir iki dört beş altı"], normalizer="tr")
    assert join_hits(clip.alignment) == ["bir iki", ("üç", "dört"), "beş", (None, "altı")]


def test_the_headline_is_that_of_the_report(tmp_path: Path) -> None:
    predictions = [Prediction("a", "İstanbul'da", "istanbulda"), Prediction("b", "bir", "iki")]
    write_predictions(tmp_path / "predictions.jsonl", predictions)
    scores = score_predictions(tmp_path, samples=10)
    data = read_data(write_diff_page(tmp_path, scores, predictions).read_text(encoding="utf-8"))
    assert [row[0] for row in data["scores"]["rows"]] == ["raw", "whisper-basic", "tr"]
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    for cells in (data["scores"]["header"], *data["scores"]["rows"]):
        assert f"| {' | '.join(cells)} |" in report


def test_scores_of_two_forms_make_a_page_of_two_forms(tmp_path: Path) -> None:
    predictions = [Prediction("a", "bir", "iki")]
    scores = compute_scores(predictions, samples=5, seed=1)
    del scores["scores"]["whisper-basic"]  # as evaluations wrote them before there were three
    data = read_data(write_diff_page(tmp_path, scores, predictions).read_text(encoding="utf-8"))
    assert (data["forms"], list(data["clips"][0]["texts"])) == (["raw", "tr"], ["raw", "tr"])


def test_nothing_of_the_data_becomes_markup(tmp_path: Path) -> None:
    clip = Prediction(EVIL, EVIL, EVIL, audio=EVIL, speaker=EVIL, error=EVIL)
    scores = compute_scores([clip], samples=5, seed=1) | {"model": {"name": EVIL, "backend": "onnx"}}
    page = write_diff_page(tmp_path, scores, [clip]).read_text(encoding="utf-8")
    plain = write_page(tmp_path / "plain", [Prediction("a", "bir", "bir")])
    assert Elements(page).found == Elements(plain).found
    data = read_data(page)
    assert (data["clips"][0]["id"], data["clips"][0]["error"]) == (EVIL, EVIL)
    assert data["title"] == f"Evaluation: {EVIL} (onnx)"


def test_the_policy_lets_only_the_pages_own_script_and_styles_run(tmp_path: Path) -> None:
    elements = Elements(write_page(tmp_path, [Prediction("a", "bir", "bir")]))
    policy = next(str(attributes["content"]) for _, attributes in elements.found if "http-equiv" in attributes)
    given_hashes = re.findall(r"'(sha256-[^']+)'", policy)
    texts = {
        tag: text for tag, text in elements.texts if tag in ("script", "style")
    }  # the script is the last of its kind
    wanted = [
        f"sha256-{base64.b64encode(hashlib.sha256(texts[tag].encode()).digest()).decode()}"
        for tag in ("style", "script")
    ]
    assert given_hashes == wanted
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not [attributes for _, attributes in elements.found if {"onclick", "style"} & set(attributes)]


def test_links_lead_to_the_clips_where_they_lie(tmp_path: Path) -> None:
    path = tmp_path / "data" / "ses #1 %20 ğ?.wav"
    path.parent.mkdir()
    path.write_bytes(encode_wav(make_harmonics(0.2, 220, count=3)))
    page = tmp_path / "out" / "here"
    (clip,) = read_data(write_page(page, [Prediction("a", "bir", "bir", audio=str(path))]))["clips"]
    assert clip["problem"] is None
    assert clip["audio"].startswith("../../../data/ses%20%231%20%2520%20")
    assert (page / "diff" / unquote(clip["audio"])).resolve() == path.resolve()
    assert not (page / "diff" / "audio").exists()


def test_missing_sound_is_said_clip_by_clip(tmp_path: Path) -> None:
    predictions = [
        Prediction("gone", "bir", "bir", audio=str(tmp_path / "gone.wav")),
        Prediction("unnamed", "bir", "bir"),
        Prediction("impossible", "bir", "bir", audio="x" * 5000),
    ]
    for audio in ("link", "copy"):
        clips = read_data(write_page(tmp_path, predictions, audio=audio))["clips"]
        assert [clip["audio"] for clip in clips] == [None, None, None]
        assert clips[0]["problem"] == f"the file {tmp_path / 'gone.wav'} is gone"
        assert clips[1]["problem"] == "the predictions name no audio file"
        assert "is gone" in clips[2]["problem"]


def test_copies_are_playable_and_sound_the_same(tmp_path: Path) -> None:
    tone = make_harmonics(0.3, 220, count=3)
    files = {
        "plain.wav": encode_wav(tone),
        "adpcm.wav": encode_wav(tone, subtype="MS_ADPCM"),
        "small.opus": encode_lossy(tone, "opus"),
        "browser.webm": encode_lossy(tone, "webm"),
        "broken.wav": b"no sound",
    }
    for name, encoded in files.items():
        (tmp_path / name).write_bytes(encoded)
    predictions = [Prediction(name, "bir", "bir", audio=str(tmp_path / name)) for name in files]
    clips = {clip["id"]: clip for clip in read_data(write_page(tmp_path / "out", predictions, audio="copy"))["clips"]}
    folder = tmp_path / "out" / "diff"
    assert [clip["audio"] for clip in clips.values()] == [
        "audio/000001.wav", "audio/000002.wav", "audio/000003.ogg", "audio/000004.wav", None,
    ]  # fmt: skip
    assert "cannot be played: " in clips["broken.wav"]["problem"]
    for name in ("plain.wav", "small.opus"):
        assert (folder / clips[name]["audio"]).read_bytes() == files[name]
    for name in ("adpcm.wav", "browser.webm"):
        copied = (folder / clips[name]["audio"]).read_bytes()
        assert find_suffix(copied) == ".wav"
        # A step of 16 bits and a half: the copy is rounded, and 32 767 stands for 1.
        assert decode_audio(copied) == pytest.approx(decode_audio(files[name]), abs=1.5 / 32_768)


def test_copies_of_an_earlier_page_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode_wav(make_harmonics(0.2, 220, count=3)))
    predictions = [Prediction("a", "bir", "bir", audio=str(tmp_path / "a.wav"))]
    write_page(tmp_path, predictions, audio="copy")
    assert (tmp_path / "diff" / "audio" / "000001.wav").is_file()
    write_page(tmp_path, predictions, audio="link")
    assert not (tmp_path / "diff" / "audio").exists()


@pytest.fixture
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plot_group_rates", "plot_clip_rates"):
        monkeypatch.setattr(f"dinle.measure.report.{name}", lambda *_, **__: None)


@pytest.mark.usefixtures("_no_plots")
def test_an_evaluation_writes_the_page_when_it_is_asked_for_and_removes_an_old_one(tmp_path: Path) -> None:
    manifest = write_speech(tmp_path / "data", {"wrong": ("iki kuş", "İki kuş uçtu")})
    model = str(write_level_bundle(tmp_path / "model").folder)
    config = EvaluateConfig(manifest, model, output_dir=tmp_path / "out", bootstrap_samples=5, html=True)
    page = evaluate(config) / "diff" / "index.html"
    (clip,) = read_data(page.read_text(encoding="utf-8"))["clips"]
    assert clip["texts"]["tr"]["pairs"] == ["iki kuş", ["uçtu", None]]
    assert (page.parent / clip["audio"]).resolve() == (tmp_path / "data" / "wrong.wav").resolve()
    newest = max((tmp_path / "out").rglob("*"), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "run.json"
    evaluate(EvaluateConfig(manifest, model, output_dir=tmp_path / "out", bootstrap_samples=5))
    assert not page.exists()


def test_copied_audio_without_a_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--html_audio copy without --html; add --html"):
        evaluate(EvaluateConfig(tmp_path / "manifest.jsonl", output_dir=tmp_path / "out", html_audio="copy"))
