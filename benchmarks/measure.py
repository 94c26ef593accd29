"""What the benchmarks share: times, peak memory, and what they were measured on."""

from __future__ import annotations

import gc
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers

from partclipseg.maps.label_maps import Contest
from partclipseg.models.clipseg_rows import DecodedPhotos


def environment(device: str) -> dict[str, Any]:
    """Device, threads and versions."""
    cuda = device.startswith("cuda")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(device) if cuda else _processor(),
        "threads": torch.get_num_threads(),
        "load before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda if cuda else None,
    }


def _processor() -> str:
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return f"{len(names)} x {names[0].partition(':')[2].strip()}"
    except (OSError, IndexError):
        return platform.processor()


def measure(
    call: Callable[[], object], device: str, rounds: int, photos: int = 1, unit: str = "photo", whole: bool = False
) -> dict[str, Any]:
    """Milliseconds a photo, or another `unit` of which a call makes `photos`, and peak memory in MiB.

    Median, least and greatest of `rounds`, after one to warm up. On a GPU the memory is what tensors take, on a CPU
    what the whole process holds; `whole` takes it from where the caller has called `reset_peak`, for a captured graph
    takes its memory once. A case that fails says why, and the others are measured all the same.
    """
    cuda = device.startswith("cuda")
    try:
        call()
        gc.collect()
        if not whole:
            reset_peak(device)
        times = []
        for _ in range(rounds):
            _wait(cuda)
            start = time.perf_counter()
            call()
            _wait(cuda)
            times.append(1000 * (time.perf_counter() - start) / photos)
    except Exception as error:  # out of memory, no compiler, a kernel that the device lacks, …
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    return {
        f"ms_per_{unit}": round(statistics.median(times), 3),
        "least": round(min(times), 3),
        "greatest": round(max(times), 3),
        "rounds": rounds,
        "peak_MiB": round(_peak(cuda) / 2**20),
    }


def _wait(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    """Count peak memory from here."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # not Linux: the peak is then that of the whole run so far
        Path("/proc/self/clear_refs").write_text("5")


def _peak(cuda: bool) -> float:
    if cuda:
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextmanager
def forced_winners(objects: Sequence[int]) -> Iterator[None]:
    """Prune as if the objects of these indices, and background, had won in every photo.

    With random weights nearly every object wins some pixel, which photos never show. The objects are decoded,
    upsampled and compared all the same, and the device is waited for: only the outcome is replaced.
    """
    winners = DecodedPhotos.winners

    def forced(self: Any, contest: Contest, count: int) -> np.ndarray:
        table = np.zeros_like(winners(self, contest, count))
        table[:, [*objects, count - 1]] = True
        return table

    with mock.patch.object(DecodedPhotos, "winners", forced):
        yield
