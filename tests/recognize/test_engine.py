from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from dinle.errors import BundleCorruptError
from dinle.recognize.engine import OnnxEngine
from tests.graphs import save_level_graph, spell_levels

if TYPE_CHECKING:
    from pathlib import Path


def test_runs_a_padded_batch(tmp_path: Path) -> None:
    save_level_graph(tmp_path / "model.onnx")
    engine = OnnxEngine(tmp_path / "model.onnx", threads=1)
    rows = [spell_levels("ab"), spell_levels("ç")]
    waveforms = np.zeros((2, len(rows[0])), dtype=np.float32)
    for row, samples in enumerate(rows):
        waveforms[row, : len(samples)] = samples
    log_probs, frames = engine.run(waveforms, np.array([len(r) for r in rows], dtype=np.int64))
    assert (log_probs.dtype, frames.dtype) == (np.float32, np.int64)
    assert log_probs.shape == (2, 16, 34)
    assert frames.tolist() == [16, 8]
    assert log_probs[1, 0].argmax() == 4


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleCorruptError, match=r"cannot read .*model\.onnx"):
        OnnxEngine(tmp_path / "model.onnx")


def test_a_graph_with_other_inputs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_level_graph(path)
    model = onnx.load(path)
    model.graph.input[0].name = model.graph.node[1].input[0] = "input_values"
    onnx.save(model, path)
    with pytest.raises(BundleCorruptError, match="input_values.*expected waveform, lengths"):
        OnnxEngine(path)
