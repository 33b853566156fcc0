"""What the package gives away, and that each of its own errors stands in the tree."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import dinle
import dinle.errors
import dinle.recognize
from dinle.errors import DinleError


@pytest.mark.parametrize("name", dinle.recognize.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(dinle.recognize, name) is not None


def test_both_families_can_be_built_by_hand() -> None:
    names = {"CtcRecognizer", "OnnxEngine", "Vocabulary", "WhisperRecognizer", "OnnxWhisperEngine", "WhisperVocabulary"}
    assert names <= set(dinle.recognize.__all__)
    assert {"LiveStream", "StreamRules", "StreamEvent", "SpeechStarted", "Partial", "Final"} <= set(
        dinle.recognize.__all__
    )
    assert {"Piece", "Segmenter"} <= set(dinle.recognize.__all__)
    assert {"Segment", "SegmentRules", "cut_segments", "BeamRules", "WindowRules"} <= set(dinle.recognize.__all__)


def test_the_tree_of_errors_is_complete() -> None:
    for module in pkgutil.iter_modules(dinle.recognize.__path__, "dinle.recognize."):
        importlib.import_module(module.name)

    def walk(kind: type[DinleError]) -> list[type[DinleError]]:
        return [kind, *(one for child in kind.__subclasses__() for one in walk(child))]

    drawn = dinle.errors.__doc__ or ""
    assert not [kind.__name__ for kind in walk(DinleError) if kind.__name__ not in drawn]
