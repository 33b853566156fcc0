"""What a bulk job leaves behind, after its end and after a kill at any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pa = pytest.importorskip("pyarrow")

from pyarrow import parquet  # noqa: E402 - after the skip

from dinle.errors import UsageError  # noqa: E402
from dinle.scale.parts import SCHEMA, Parts  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

PLAN = {"model": None}


def make_table(*names: str, error: str | None = None) -> Any:
    rows: list[dict[str, Any]] = [
        {"file": name, "error": error}
        if error
        else {
            "file": name,
            "text": f"{name} ğü",
            "words": [{"text": name, "start_s": 0.0, "end_s": 0.5, "confidence": 0.9}],
            "duration_s": 1.0,
            "inference_s": 0.1,
            "model": "m",
        }
        for name in names
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def test_a_job_ends_with_two_files_in_order_and_nothing_else(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "yeni" / "out.parquet")
    assert parts.open(PLAN) == set()
    parts.add(make_table("c", "a"))
    parts.add(make_table("d", error="no audio"))
    parts.add(make_table("b"))
    assert parts.finish(["a", "b", "c", "d"]) == 1
    table = parquet.read_table(parts.output)
    assert table["file"].to_pylist() == ["a", "b", "c"]
    assert table["text"][0].as_py() == "a ğü"
    assert table["words"][0].as_py()[0]["end_s"] == 0.5
    assert parquet.read_table(tmp_path / "yeni" / "out.errors.parquet").to_pylist() == [
        {"file": "d", "error": "no audio"}
    ]
    assert sorted(path.name for path in parts.output.parent.iterdir()) == ["out.errors.parquet", "out.parquet"]


def test_a_job_of_nothing_but_errors_has_an_empty_table(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "out.parquet")
    parts.open(PLAN)
    parts.add(make_table("a", error="x"))
    assert parts.finish(["a"]) == 1
    assert parquet.read_table(parts.output).num_rows == 0


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    Parts(tmp_path / "out.parquet").open(PLAN)
    Parts(tmp_path / "out.parquet").add(make_table("a", "b"))
    assert Parts(tmp_path / "out.parquet").open(PLAN) == {"a", "b"}


def test_a_file_that_came_twice_or_is_gone_is_told_once_or_not(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "out.parquet")
    parts.open(PLAN)
    parts.add(make_table("a", "b"))
    parts.add(make_table("b", "c"))
    parts.finish(["b", "c"])
    assert parquet.read_table(parts.output)["file"].to_pylist() == ["b", "c"]


def test_a_kill_while_a_batch_is_written_leaves_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(tmp_path / "out.parquet")
    parts.open(PLAN)
    parts.add(make_table("a"))

    def write_half(table: Any, path: Path) -> None:
        path.write_bytes(b"PAR1 half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write_table", write_half)
        with pytest.raises(KeyboardInterrupt):
            parts.add(make_table("b"))
        assert parts.open(PLAN) == {"a"}
        with pytest.raises(KeyboardInterrupt):
            parts.finish(["a"])
    assert not parts.output.exists()
    assert parts.open(PLAN) == {"a"}
    assert parts.finish(["a"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.errors.parquet", "out.parquet"]


def test_work_of_another_model_is_not_mixed_in(tmp_path: Path) -> None:
    Parts(tmp_path / "out.parquet").open(PLAN)
    with pytest.raises(UsageError, match="begun with another model"):
        Parts(tmp_path / "out.parquet").open({"model": "other"})


def test_what_is_finished_is_not_overwritten(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "out.parquet")
    parts.open(PLAN)
    (tmp_path / "out.parquet").write_bytes(b"")  # as after a kill between the two last steps
    with pytest.raises(UsageError, match="is there already"):
        parts.open(PLAN)
    assert not parts.folder.exists()
    with pytest.raises(UsageError, match=r"-o out\.parquet"):
        Parts(tmp_path / "out").open(PLAN)
