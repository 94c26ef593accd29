"""The graphs of a model as ONNX programs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import CommonSubexpressionEliminationPass
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch._dynamo import config as tracer

from partclipseg.models.onnx import OnnxGraph


def trace(graphs: dict[str, OnnxGraph]) -> dict[str, torch.onnx.ONNXProgram]:
    """Export each of a model's graphs, see `PartModel.onnx_graphs`, on the CPU."""
    return {name: _export(graph) for name, graph in graphs.items()}


def quantise_graph(source: Path, target: Path) -> None:
    """Write the graph in `source` with int8 products: weights per channel, activations rounded at each run.

    Convolutions, and products of activations with each other, stay in floats. Weights have 7 bits, since processors
    without VNNI add pairs of products in 16 bits, which 8 bits overflow.
    """
    with _quiet():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )


def _export(graph: OnnxGraph) -> torch.onnx.ONNXProgram:
    module: Any = graph.module
    # With free sizes the cache of the tracer's tensors costs more than it saves: a third of the time of a large graph.
    with _quiet(), torch.no_grad(), tracer.patch(fake_tensor_cache_enabled=False):
        program = torch.onnx.export(
            module.eval(),
            graph.example,
            dynamo=True,
            dynamic_shapes=graph.sizes,
            input_names=list(module.inputs),
            output_names=list(module.outputs),
            verbose=False,
            optimize=False,
        )
        assert program is not None  # only the older exporter returns None
        # The optimiser tries each of its many rules on every node, and most nodes compute a size once more.
        CommonSubexpressionEliminationPass()(program.model)
        program.optimize()
    for index, shape in graph.output_shapes.items():
        program.model.graph.outputs[index].shape = ir.Shape(shape)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # the exporter's stack traces, with the paths of this machine
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log messages of the libraries; errors are raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
