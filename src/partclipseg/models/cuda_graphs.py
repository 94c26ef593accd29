"""CUDA graphs: functions of tensors and training steps, captured once and replayed.

The kernels of a few photos, and those of a training step of a small decoder, take a few microseconds each, less than
Python needs to start one. A captured graph starts them all at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from threading import Lock, RLock
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Number of runs before a capture, in which libraries choose their kernels and allocate their workspaces."""

_SEEN = 1000
"""Maximum number of keys and shapes that are remembered as seen once."""

_CAPTURING = Lock()
"""Held during a capture: PyTorch allows one at a time in a process."""

Function = Callable[..., Sequence[Tensor]]


def capture(function: Callable[[], Any], device: torch.device, pool: Any = None) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Capture one call of `function` on `device`; return the graph and what the call returned.

    The outputs are overwritten by each replay. `pool` is the memory to share with other graphs.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream(device).wait_stream(aside)
        with (
            _CAPTURING,
            # Other threads may read and pin photos meanwhile.
            torch.cuda.graph(graph, pool=pool, stream=_capture_stream(device), capture_error_mode="thread_local"),
        ):
            outputs = function()
    return graph, outputs


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of all captures on a device, since graphs that share memory must share it.

    PyTorch's own stream for captures is on the device of the first one in the process; of a function on another device
    it would capture nothing.
    """
    return torch.cuda.Stream(device)


class Graphs:
    """Captured functions of one model; the most recently used are kept.

    A function is computed as it is when its key and the shapes of its inputs are new, captured when they come a
    second time, and replayed from then on. All graphs share one piece of memory. The output tensors are reused: copy
    them, finish with them, or hand them to the next call before that call returns. Threads must hold `lock` meanwhile,
    and call from one stream. Copies of a model start with no graphs.
    """

    def __init__(self, most: int = 16) -> None:
        self.lock = RLock()
        self._most = most
        self._stamp: Hashable = None
        self._weights: list[Tensor] = []
        """The captured weights, held so that their memory is not reused by other tensors."""
        self._pool: Any = None
        self._seen: set[Hashable] = set()
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()

    def __reduce__(self) -> tuple[type[Graphs], tuple[int]]:
        return Graphs, (self._most,)

    def hold(self, stamp: Hashable, parameters: Callable[[], Iterable[nn.Parameter]]) -> None:
        """Drop all graphs if `stamp` has changed: weights were moved, cast or changed."""
        if stamp != self._stamp:
            self.clear()
            self._stamp = stamp
            self._weights = [parameter.data for parameter in parameters()]

    def clear(self) -> None:
        """Drop all graphs."""
        self._graphs.clear()

    def __call__(self, function: Function, key: Hashable, *inputs: Tensor) -> Sequence[Tensor]:
        """Return `function(*inputs)`, tensors of a CUDA device; it must not wait for the device or change its inputs.

        `key` stands for the function and all else that its result depends on beside the inputs.
        """
        whole_key = (key, *((tensor.shape, tensor.dtype) for tensor in inputs))
        graph = self._graphs.pop(whole_key, None)
        if graph is None:
            if whole_key not in self._seen:
                if len(self._seen) == _SEEN:
                    self._seen.clear()
                self._seen.add(whole_key)
                return function(*inputs)
            while len(self._graphs) >= self._most:
                self._graphs.popitem(last=False)
            if not self._graphs:  # an empty pool cannot be shared any more
                self._pool = torch.cuda.graph_pool_handle()
            graph = _Graph(function, inputs, self._pool)
        self._graphs[whole_key] = graph  # the latest is the last
        return graph(inputs)


class _Graph:
    """One function, captured for inputs of certain shapes."""

    def __init__(self, function: Function, inputs: Sequence[Tensor], pool: Any) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._graph, self._outputs = capture(lambda: function(*self._inputs), inputs[0].device, pool)

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._outputs


class StepGradients:
    """Losses and gradients of a training step: calls `compute(inputs)` and back-propagates the `total` it returns.

    After a call every parameter's `.grad` holds the gradient of this step alone, or with `add=True` that of the calls
    before as well. Change these tensors in place only: the graph writes to them.

    On a CUDA device the first call captures a graph and later ones replay it: inputs must keep their names, shapes
    and types, `compute` must not read values back from the device, and the returned scalars are overwritten by the
    next call. Elsewhere, or with `capture=False`, each call computes anew.
    """

    def __init__(
        self,
        compute: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
        parameters: Sequence[nn.Parameter],
        capture: bool = True,
    ) -> None:
        self._compute = compute
        self._parameters = parameters
        self._capture = capture
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: dict[str, Tensor] = {}
        self._terms: dict[str, Tensor] = {}

    def __call__(self, inputs: Mapping[str, Tensor], add: bool = False) -> dict[str, Tensor]:
        """Return the terms of `inputs`, detached; gradients go to the parameters."""
        before = [(p, p.grad.clone()) for p in self._parameters if p.grad is not None] if add else []
        terms = self._once(inputs)
        for parameter, gradient in before:
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad.add_(gradient)
        return terms

    def _once(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not self._capture or self._parameters[0].device.type != "cuda":
            return self._run(inputs)
        if self._graph is None:
            self._record(inputs)
        for name, value in inputs.items():
            self._inputs[name].copy_(value, non_blocking=True)
        assert self._graph is not None
        self._graph.replay()
        return self._terms

    def _run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        for parameter in self._parameters:
            parameter.grad = None
        terms = self._compute(inputs)
        terms["total"].backward()
        return {name: term.detach() for name, term in terms.items()}

    def _record(self, inputs: Mapping[str, Tensor]) -> None:
        device = self._parameters[0].device
        self._inputs = {name: value.to(device, copy=True) for name, value in inputs.items()}
        self._graph, self._terms = capture(lambda: self._run(self._inputs), device)
