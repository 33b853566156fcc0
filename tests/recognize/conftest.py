"""What the tests of recognition share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes import take_no_notes

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def steady_speech() -> Iterator[None]:
    """Tones and levels stand for words in these tests: nothing is taken for a note."""
    with pytest.MonkeyPatch.context() as patch:
        take_no_notes(patch)
        yield
