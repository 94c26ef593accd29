"""Several processes label the batches: of this machine, or the actors of a Ray cluster."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from partclipseg.apps.bulk import BulkJob, Labeller, Photo, Record, failed
from partclipseg.errors import PartCLIPSegError

Batch = list[Photo]


def run_processes(
    job: BulkJob, batches: Sequence[Batch], devices: Sequence[str], workers: int, threads: int
) -> Iterator[list[Record]]:
    """Label by processes of this machine, the i-th on device i modulo their number; yields each batch when done.

    A process that dies takes no more than a photo with it.
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
                    # Photo by photo: the one at fault is the one that kills a worker when it is alone.
                    todo += [[photo] for photo in reversed(batch)] if len(batch) > 1 else []
                    records = [] if len(batch) > 1 else [_killed(job, batch[0])]
                if records:
                    yield records
    finally:
        for worker in running:
            worker.stop()


class _Worker:
    """A process with a model of its own. It ends when its connection closes, so also when this process is killed."""

    def __init__(self, job: BulkJob, device: str, threads: int) -> None:
        context = get_context("spawn")  # CUDA does not survive a fork
        self.device = device
        self.batch: Batch = []
        self.started = False
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, job, device, threads), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, batch: Batch) -> None:
        if not self.started:
            self._expect_start()
        self.batch = batch
        with suppress(BrokenPipeError):  # it has died since: `receive` will tell
            self.connection.send(batch)

    def receive(self) -> list[Record]:
        """Raises `EOFError` if the process has died."""
        try:
            answer = self.connection.recv()
        except ConnectionResetError:
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
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _serve(connection: Connection, job: BulkJob, device: str, threads: int) -> None:
    """What a worker does: batches in, records out; an error that is nobody's photo goes back as it is."""
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


def _killed(job: BulkJob, photo: Photo) -> Record:
    error = RuntimeError("the process died on this photo, perhaps for want of memory")
    return failed(photo, str(job.folder / photo.path), error)


def run_ray(
    job: BulkJob, batches: Sequence[Batch], workers: int, threads: int, gpus: float
) -> Iterator[list[Record]]:
    """Label by `workers` actors of Ray Data, each with `gpus` GPUs; yields each batch when it is done.

    Joins the cluster that ``RAY_ADDRESS`` names, whose machines must see folder, output and model under the same
    paths; without it a cluster is started on this machine, reachable from this machine alone.
    """
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    own: dict[str, Any] = {}
    if "RAY_ADDRESS" not in os.environ:
        # Read on import. Without it Ray listens on all addresses, even where it is told to use 127.0.0.1.
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        own = {"num_cpus": workers + 1, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext
        from ray.exceptions import RayError
    except ImportError:
        raise PartCLIPSegError("--engine ray needs the package ray: pip install 'partclipseg[ray]'") from None
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    try:
        DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = [{"batch": json.dumps(batch)} for batch in batches]
        labelled = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _RayLabeller,  # pyright: ignore[reportArgumentType]
            fn_constructor_args=(job, threads),
            compute=ActorPoolStrategy(size=min(workers, len(rows))),
            num_cpus=1,
            num_gpus=gpus,
        )
        for row in labelled.iter_rows():
            yield json.loads(row["records"])
    except RayError as error:
        raise PartCLIPSegError(f"Ray could not finish the job: {error}") from error
    finally:
        ray.shutdown()


class _RayLabeller:
    """A `Labeller` in an actor. Ray shows it its own GPUs alone, so the default device is the right one."""

    def __init__(self, job: BulkJob, threads: int) -> None:
        self.labeller = Labeller.load(job, None, threads)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        batch = [Photo(*photo) for photo in json.loads(row["batch"])]
        return {"records": json.dumps(self.labeller(batch))}
