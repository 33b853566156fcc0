"""Writes a torch module as one ONNX file."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import onnx
import torch

from dinle.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

NOISY_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")


def write_onnx(
    module: torch.nn.Module,
    example: tuple[Any, ...],
    path: Path,
    *,
    inputs: Mapping[str, Mapping[int, str]],
    outputs: Sequence[str],
    opset: int,
) -> None:
    """Write a module as one ONNX file with dynamic axes.

    The exporter is torch.export's: it fails on what depends on values instead of baking the example in, and it is the one
    that torch keeps. It needs 10 to 50 s of one core, nearly all for symbolic shapes; the TorchScript exporter gives an
    equally fast graph in 1 to 7 s, but torch announces its removal.

    Args:
        module: in eval mode.
        example: its arguments; lists of tensors are flattened. Sizes of 0 and 1 would be taken for constants.
        path: the file to write.
        inputs: name of each tensor of ``example``, in order, and the names of its dynamic axes.
        outputs: name of each tensor that it returns.
        opset: ONNX operator set.

    Raises:
        ExportError: torch cannot export the module.
    """
    axes = iter(inputs.values())
    shapes = tuple([dict(next(axes)) for _ in one] if isinstance(one, list) else dict(next(axes)) for one in example)
    try:
        with torch.no_grad(), _quiet_exporter():
            torch.onnx.export(
                module,
                example,
                path,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=opset,
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises classes of torch.export, torch.onnx, onnxscript and sympy
        raise ExportError(
            f"torch {torch.__version__} cannot export this model to {path.name}, ONNX opset {opset}: {error}"
        ) from error
    strip_notes(path)


def strip_notes(path: Path) -> None:
    """Take out what the exporter notes of each node: the source lines, with this machine's folders, that made it."""
    model = onnx.load(path)
    noted = (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer)
    for part in (*noted, *model.graph.input, *model.graph.output, *model.functions):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, path)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide what the exporter says about its own code and about torchvision; its errors come through."""
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [noisy.level for noisy in loggers]
    for noisy in loggers:
        noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch 2.13 uses its own deprecated class while it copies a program
            warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated", category=FutureWarning)
            # both inputs name their batch axis, which torch takes for one name too many
            warnings.filterwarnings("ignore", message="# The axis name: .* will not be used", category=UserWarning)
            yield
    finally:
        for noisy, level in zip(loggers, levels, strict=True):
            noisy.setLevel(level)
