"""Label the batches in several processes of this machine."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait

from partclipseg.apps.label.job import BulkJob, ManifestRecord, PhotoBatch
from partclipseg.apps.label.labeller import Labeller, killed
from partclipseg.errors import PartCLIPSegError
from partclipseg.signals import handled


def run_processes(
    job: BulkJob, batches: Sequence[PhotoBatch], devices: Sequence[str], workers: int, threads: int
) -> Iterator[list[ManifestRecord]]:
    """Label in local processes, the i-th on device i modulo their number; yield the records of each batch when done.

    If a process dies, at most one photo is lost.
    """
    todo = list(reversed(batches))
    running = [_Worker(job, devices[number % len(devices)], threads) for number in range(min(workers, len(batches)))]
    try:
        while any(worker.batch for worker in running) or todo:
            for worker in running:
                if todo and not worker.batch:
                    worker.send(todo.pop())
            busy = {worker.connection: worker for worker in running if worker.batch}
            for connection in wait(list(busy)):
                worker = busy[connection]  # pyright: ignore[reportArgumentType]
                batch = worker.batch
                try:
                    records = worker.receive()
                except EOFError:
                    running[running.index(worker)] = _Worker(job, worker.device, threads)
                    # Photo by photo, so that only the photo at fault is alone in the worker that it kills.
                    todo += [[photo] for photo in reversed(batch)] if len(batch) > 1 else []
                    records = [] if len(batch) > 1 else [killed(job, batch[0])]
                else:
                    if todo:  # first, so that the worker need not wait until its records are on the disk
                        worker.send(todo.pop())
                if records:
                    yield records
    finally:
        for worker in running:
            worker.stop()
        for worker in running:  # together: a process with a model on a GPU takes some tenths of a second to end
            worker.process.join()


class _Worker:
    """Worker process with its own model. It ends when its connection closes, also when this process is killed."""

    def __init__(self, job: BulkJob, device: str, threads: int) -> None:
        context = get_context("spawn")  # CUDA does not survive a fork
        self.device = device
        self.batch: PhotoBatch = []
        self.started = False
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, job, device, threads), daemon=True)
        with handled(signal.SIGINT, signal.SIG_IGN):  # a terminal sends Ctrl-C to all; the main process ends the others
            self.process.start()
        theirs.close()

    def send(self, batch: PhotoBatch) -> None:
        if not self.started:
            self._expect_start()
        self.batch = batch
        with suppress(BrokenPipeError):  # the process has died: `receive` raises
            self.connection.send(batch)

    def receive(self) -> list[ManifestRecord]:
        """Return the records of a batch. Raises `EOFError` if the process has died."""
        try:
            answer = self.connection.recv()
        except OSError:  # such as in the middle of an answer
            raise EOFError from None
        self.batch = []
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _expect_start(self) -> None:
        try:
            self.receive()
        except EOFError:
            self.process.join()
            raise PartCLIPSegError(
                f"a worker ended with code {self.process.exitcode} while it loaded the model: is the memory enough for "
                "all of them? Use fewer --workers"
            ) from None
        self.started = True

    def stop(self) -> None:
        """Tell the process to end, without waiting until it has."""
        self.connection.close()
        self.process.terminate()


def _serve(connection: Connection, job: BulkJob, device: str, threads: int) -> None:
    """Run the main loop of a worker: receive batches, send records; errors not caused by a photo are sent as values."""
    try:
        labeller = Labeller.load(job, device, threads)
        connection.send([])
        while True:
            connection.send(labeller(connection.recv()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except BaseException as error:
        error.add_note(traceback.format_exc())
        connection.send(error)
