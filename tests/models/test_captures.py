"""Captures of CUDA graphs by several threads, on any machine: PyTorch's functions for devices are replaced."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from partclipseg.models.cuda_graphs import Graphs, capture


def test_threads_capture_one_after_the_other_and_each_on_its_device(monkeypatch):
    """PyTorch's own stream for captures is on the device of the first one, so that all others would be empty."""
    inside, most, streams = [], [], []

    @contextmanager
    def graph(_, pool, stream, capture_error_mode):
        inside.append(stream)
        most.append(len(inside))
        streams.append(stream)
        time.sleep(0.01)
        yield
        inside.pop()

    def new_stream(device):
        return SimpleNamespace(device=device, wait_stream=lambda _: None)

    for name, fake in {
        "CUDAGraph": object, "graph": graph, "Stream": new_stream, "stream": nullcontext, "device": nullcontext,
        "current_stream": new_stream,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    devices = [torch.device("cuda", 90 + number % 3) for number in range(6)]  # no machine has them
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda device: capture(lambda: device, device), devices))
    assert set(most) == {1}
    assert sorted(stream.device.index for stream in streams) == [90, 90, 91, 91, 92, 92]
    assert len(set(map(id, streams))) == 3, "graphs that share memory share a stream"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@torch.inference_mode()
def test_models_on_several_devices_are_captured_in_one_process():
    for device in ("cuda:0", "cuda:1"):
        graphs = Graphs()
        for value in range(4):
            (found,) = graphs(lambda x: [2 * x], "double", torch.full((3,), float(value), device=device))
            assert found.tolist() == [2.0 * value] * 3
