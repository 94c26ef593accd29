"""What a run needs of its process: its fellows, random numbers that belong to a step, a wish to stop that can wait."""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import PartialState


def join_processes(cpu: bool = False) -> PartialState:
    """This process and those that torchrun started beside it; they part when Python ends, if not before.

    `cpu`: to run on CPUs though there are accelerators.

    A process that ends with their connection open may be aborted by PyTorch, after all its work is done.
    """
    # Without being told that this is a CPU run, accelerate takes torchrun's processes for strangers.
    processes = PartialState(cpu=cpu or not torch.accelerator.is_available())
    if processes.num_processes > 1:
        atexit.register(processes.destroy_process_group)
    return processes


@contextmanager
def termination() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, in place of ending the process at once."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may take signals
        yield told
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, previous)


def step_seed(*numbers: int) -> int:
    """A seed for (run seed, step, …): a continued run draws what an uninterrupted one would."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
