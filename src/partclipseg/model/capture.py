"""Losses and gradients of a training step, replayed as one CUDA graph.

A step of these small decoders is thousands of short kernels: started one by one from Python they take longer than
they run. Shapes never change from step to step, so the device can be given all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Runs before the capture, in which libraries choose their kernels and allocate their workspaces."""


class StepGradients:
    """Calls `compute(inputs)`, which returns named scalars with a `total`, and back-propagates the total.

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
        """The terms of `inputs`, detached; gradients go to the parameters."""
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
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._run(self._inputs)
        torch.cuda.current_stream(device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._terms = self._run(self._inputs)
