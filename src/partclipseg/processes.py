"""Helpers for the process of a run: joining the process group, a random seed per step, stopping after the current
step on SIGTERM."""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import PartialState

from partclipseg.signals import handled


def join_processes(cpu: bool = False) -> PartialState:
    """Join the process group of torchrun's processes. The process group is destroyed when Python exits.

    `cpu`: run on CPUs even if there are accelerators.

    PyTorch may abort a process that exits while the group is open, after all its work is done.
    """
    # Without `cpu=True`, accelerate ignores the processes that torchrun started.
    processes = PartialState(cpu=cpu or not torch.accelerator.is_available())
    if processes.num_processes > 1:
        atexit.register(processes.destroy_process_group)
    return processes


@contextmanager
def termination() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets, instead of ending the process at once."""
    told = threading.Event()
    with handled(signal.SIGTERM, lambda *_: told.set()):
        yield told


def step_seed(*numbers: int) -> int:
    """Return a seed for (run seed, step, …): a continued run draws the same numbers as an uninterrupted one."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
