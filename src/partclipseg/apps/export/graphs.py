"""The graphs of a model as ONNX programs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch

from partclipseg.models.interface import PartModel
from partclipseg.models.onnx import OnnxGraph


def trace(model: PartModel) -> dict[str, torch.onnx.ONNXProgram]:
    """Export each graph of a model on the CPU; raises `PartCLIPSegError` for a family that has no export."""
    return {name: _export(graph) for name, graph in model.onnx_graphs().items()}


def _export(graph: OnnxGraph) -> torch.onnx.ONNXProgram:
    module: Any = graph.module
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            graph.example,
            dynamo=True,
            dynamic_shapes=graph.sizes,
            input_names=list(module.inputs),
            output_names=list(module.outputs),
            verbose=False,
        )
    assert program is not None  # only the older exporter returns None
    for index, shape in graph.output_shapes.items():
        program.model.graph.outputs[index].shape = ir.Shape(shape)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # the exporter's stack traces, with the paths of this machine
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's own log messages; errors are raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
