"""Functions of tensors, replayed as CUDA graphs when the same shapes come again.

The kernels of a few photos take a few microseconds each, less than Python needs to start one. A captured graph
starts them all at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from partclipseg.model.towers import CLIPSegTowers

WARM_UP = 2
"""Runs before a capture, in which libraries choose their kernels and allocate their workspaces."""

_SEEN = 1000
"""Keys and shapes that are remembered as having come once."""

Function = Callable[..., Sequence[Tensor]]


class Graphs:
    """Functions of one model, captured; the most recently used are kept.

    A function is computed as it is when its key and the shapes of its inputs are new, captured when they come a
    second time, and replayed from then on. All graphs share one piece of memory: **what a call returns is overwritten
    by the next one**, so use it up before, or hand it to that call. Threads must hold `lock` meanwhile, and call from
    one stream.

    If the model is moved or cast, or its position embeddings change, everything is captured anew. Other weights may
    change in place: graphs read them where they lie.
    """

    def __init__(self, model: CLIPSegTowers, most: int = 16) -> None:
        self.lock = RLock()
        self._model = model
        self._most = most
        self._state: Any = None
        self._weights: list[Tensor] = []
        """Those captured, held so that no others can come to lie in their place unseen."""
        self._pool: Any = None
        self._seen: set[Hashable] = set()
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()

    def __call__(self, function: Function, key: Hashable, *inputs: Tensor) -> Sequence[Tensor]:
        """`function(*inputs)`, tensors of a CUDA device; it must not wait for the device, nor change its inputs.

        `key` stands for the function and all else that its result depends on beside the inputs.
        """
        self._check_weights()
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
            if not self._graphs:  # the memory of no graph at all cannot be shared any more
                self._pool = torch.cuda.graph_pool_handle()
            graph = _Graph(function, inputs, self._pool)
        self._graphs[whole_key] = graph  # the latest is the last
        return graph(inputs)

    def _check_weights(self) -> None:
        # All weights are moved together, so one tells of all: the one whose interpolation graphs keep as a constant.
        weight = self._model.clip.vision_model.embeddings.position_embedding.weight
        state = (weight.data_ptr(), weight.dtype, None if weight.is_inference() else weight._version)
        if state == self._state:
            return
        self._graphs.clear()
        self._state = state
        self._weights = [parameter.data for parameter in self._model.parameters()]


class _Graph:
    """One function, captured for inputs of certain shapes."""

    def __init__(self, function: Function, inputs: Sequence[Tensor], pool: Any) -> None:
        device = inputs[0].device
        self._inputs = [tensor.clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device):
            aside = torch.cuda.Stream(device)
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    function(*self._inputs)
            torch.cuda.current_stream(device).wait_stream(aside)
            # Other threads may read and pin photos meanwhile.
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._outputs = function(*self._inputs)

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._outputs
