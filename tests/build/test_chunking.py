from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from dinle.build import chunking, static_int8
from tests.build.small_graphs import LENGTHS, make_feeds, run_rows

if TYPE_CHECKING:
    from pathlib import Path

SCANS = {"wav2vec2-group": 2, "wav2vec2-layer": 1, "wavlm": 2, "whisper-ctc": 0}  # layers with another one behind


@pytest.mark.slow
def test_layers_in_chunks_say_exactly_what_they_say_as_a_whole(
    small_graph: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, fp32 = small_graph
    whole, chunked = tmp_path / "whole.onnx", tmp_path / "chunked.onnx"
    monkeypatch.setattr(chunking, "MAX_ROWS", 47)  # many chunks, the last of them filled up
    static_int8.write_static_int8(fp32, chunked, make_feeds(), threads=1)
    monkeypatch.setattr(static_int8, "chunk_layers", lambda _graph: 0)
    static_int8.write_static_int8(fp32, whole, make_feeds(), threads=1)
    counts = [sum(node.op_type == "Scan" for node in ir.load(path).graph) for path in (whole, chunked)]
    assert counts == [0, SCANS[kind]]
    for lengths in (LENGTHS, (9_001,), (47 * 320 + 80,), (400,)):
        for one, other in zip(*(run_rows(path, lengths) for path in (whole, chunked)), strict=True):
            np.testing.assert_array_equal(one, other)
