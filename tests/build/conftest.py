"""What holds for the tests of the building stages."""

from __future__ import annotations

import pytest

from dinle.build import data_report


@pytest.fixture(autouse=True)
def without_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a run's time; the tests of the plots ask for ``with_plots``."""
    if "with_plots" not in request.fixturenames:
        for name in ("plot_histogram", "plot_characters"):
            monkeypatch.setattr(data_report, name, lambda *_args, **_fields: None)


@pytest.fixture
def with_plots() -> None:
    pass
