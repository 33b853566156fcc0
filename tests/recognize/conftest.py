"""What the tests of recognition share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def steady_speech() -> Iterator[None]:
    """Tones and levels stand for words in these tests, and are as steady as notes: nothing is taken for a note."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dinle.recognize.segments.measure_steadiness", lambda sound: 0.0)
        yield
