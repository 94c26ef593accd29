"""Label the batches in actors of a Ray cluster, with Ray Data."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import ceil
from typing import Any, NamedTuple

from partclipseg.apps.label.job import BulkJob, ManifestRecord, PhotoBatch
from partclipseg.apps.label.labeller import Labeller, killed
from partclipseg.apps.label.photos import LabelPhoto
from partclipseg.counts import count_of
from partclipseg.errors import PartCLIPSegError
from partclipseg.files import full_path
from partclipseg.machine import how_to_install


class RayCluster(NamedTuple):
    """Resources of a cluster that a run uses."""

    workers: int
    gpus: int
    threads: int
    """Number of CPU threads of each worker."""

    @property
    def share(self) -> float:
        """Return GPUs per worker: one, or the fraction that lets all workers run; a worker never uses two."""
        return 1 / ceil(self.workers / self.gpus) if self.gpus else 0.0

    def __str__(self) -> str:
        place = count_of(self.gpus, "GPU") if self.gpus else "cpu"
        return f"{place}, {count_of(self.workers, 'worker')} of Ray"


@contextmanager
def ray_cluster(workers: int | None, cores: int, use_gpus: bool) -> Iterator[RayCluster]:
    """Join the cluster that ``RAY_ADDRESS`` names, or start one on this machine, reachable from here alone.

    Args:
        workers: number of workers; None starts one for each GPU, or for every two CPUs of a cluster without GPUs.
        cores: CPUs of this machine.
        use_gpus: whether to use GPUs.

    Raises:
        PartCLIPSegError: Ray is not installed, does not answer, or fails while the cluster is used.
    """
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    own: dict[str, Any] = {}
    if "RAY_ADDRESS" not in os.environ:
        # Ray reads this on import. Without it Ray listens on all addresses, even if told to use 127.0.0.1.
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # One more than the workers take, for Ray Data's own tasks.
        own = {"num_cpus": max(workers or 1, cores) + 1, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError:
        raise PartCLIPSegError(f"--engine ray needs the package ray: {how_to_install('ray')}") from None
    on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray installs a handler and does not remove it
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    except ConnectionError as error:
        raise PartCLIPSegError(
            f"no Ray cluster answers at {os.environ.get('RAY_ADDRESS', 'this machine')}: start it, or correct or unset "
            "RAY_ADDRESS"
        ) from error
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if use_gpus else 0
        cpus = int(resources.get("CPU", 1))
        count = workers or gpus or max(1, cpus // 2)
        yield RayCluster(count, gpus, threads=max(1, cpus // count))
    except RayError as error:
        raise PartCLIPSegError(f"Ray could not finish the job: {error}") from error
    finally:
        ray.shutdown()
        if in_main_thread:
            signal.signal(signal.SIGTERM, on_sigterm)


def run_ray(job: BulkJob, batches: Sequence[PhotoBatch], cluster: RayCluster) -> Iterator[list[ManifestRecord]]:
    """Label in actors of the joined cluster; yield the records of each batch when it is done.

    All machines must see folder, output and model under the same paths. If an actor dies, at most one photo is lost.
    """
    model = job.model and full_path(job.model)
    folder, output = job.folder.absolute(), job.output.absolute()
    job = replace(job, folder=folder, output=output, model=model, find=job.find.absolute())
    lost = yield from _pass(job, batches, cluster, in_flight=2)
    # Photo by photo, so that only the photo at fault is alone in the actor that it kills.
    alone = [[photo] for batch in lost for photo in batch]
    lost = yield from _pass(job, alone, cluster, in_flight=1)
    yield from ([killed(job, photo)] for batch in lost for photo in batch)


def _pass(
    job: BulkJob, batches: Sequence[PhotoBatch], cluster: RayCluster, in_flight: int
) -> Generator[list[ManifestRecord], None, list[PhotoBatch]]:
    """Label each batch once, with `in_flight` batches queued per actor; return the batches lost with an actor."""
    if not batches:
        return []
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a lost batch does not end the run
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = [{"number": number, "batch": json.dumps(batch)} for number, batch in enumerate(batches)]
    with warnings.catch_warnings():
        # Ray plans to rename these options by 2.64 and has no new names yet.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        labelled = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _RayLabeller,  # pyright: ignore[reportArgumentType]
            fn_constructor_args=(job, "cuda" if cluster.gpus else "cpu", cluster.threads),
            compute=ActorPoolStrategy(size=min(cluster.workers, len(rows)), max_tasks_in_flight_per_actor=in_flight),
            num_cpus=1,
            num_gpus=cluster.share,
            max_restarts=-1,
            max_task_retries=0,  # else Ray retries a photo that kills its actor for ever
        )
    lost = dict(enumerate(batches))
    for row in labelled.iter_rows():
        answer = pickle.loads(row["answer"])
        if isinstance(answer, BaseException):
            raise answer
        del lost[row["number"]]
        yield answer
    return list(lost.values())


class _RayLabeller:
    """`Labeller` in an actor. Ray shows it only its own GPUs, so it uses the first."""

    def __init__(self, job: BulkJob, device: str, threads: int) -> None:
        self.labeller = Labeller.load(job, device, threads)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the batch's records; an error not caused by a photo, such as a full disk, is returned as a value."""
        try:
            answer = self.labeller([LabelPhoto(*photo) for photo in json.loads(row["batch"])])
        except Exception as error:
            answer = error
        return {"number": row["number"], "answer": pickle.dumps(answer)}
