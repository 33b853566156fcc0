from __future__ import annotations

from pathlib import Path

import pytest

from dinle.build.provenance import add_training, read_provenance, write_provenance
from dinle.errors import BundleCorruptError
from dinle.manifest import Clip

BASE = {"what": "weights", "name": "base", "source": "https://example.org/base", "licence": "MIT"}


def make_clip(source: str | None, licence: str | None) -> Clip:
    return Clip(Path("a.wav"), "a", 1.0, None, "train", source, licence)


def test_fine_tuning_adds_each_source_once(tmp_path: Path) -> None:
    clips = [make_clip("A", "CC0-1.0"), make_clip("A", "CC0-1.0"), make_clip(None, None)]
    origins = add_training([BASE], "base", clips)
    assert origins[0] == BASE
    assert [(o["what"], o["source"], o["licence"]) for o in origins[1:]] == [
        ("fine-tuning data", "A", "CC0-1.0"),
        ("fine-tuning data", "unknown", "unknown"),
    ]
    assert add_training(origins, "base", clips) == origins
    write_provenance(tmp_path, origins)
    assert read_provenance(tmp_path) == origins


def test_weights_that_say_nothing_are_named() -> None:
    assert read_provenance("openai/whisper-base") == []
    (weights,) = add_training([], "openai/whisper-base", [])
    assert weights == {
        "what": "weights", "name": "whisper-base", "source": "openai/whisper-base", "licence": "unknown",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[1]", '[{"what": "weights"}]'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "provenance.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleCorruptError, match=r"provenance\.json cannot be understood"):
        read_provenance(tmp_path)
