"""What holds for the tests of the building stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dinle.build import data_report
from tests.build.small_graphs import KINDS, write_small_graph

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def without_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a run's time; the tests of the plots ask for ``with_plots``."""
    if "with_plots" not in request.fixturenames:
        for name in ("plot_histogram", "plot_characters"):
            monkeypatch.setattr(data_report, name, lambda *_args, **_fields: None)


@pytest.fixture
def with_plots() -> None:
    pass


@pytest.fixture(scope="session", params=KINDS)
def small_graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Kind and fp32 graph of a tiny model."""
    return request.param, write_small_graph(tmp_path_factory.mktemp(request.param), request.param)
