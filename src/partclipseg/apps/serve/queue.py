"""Batches photos of many requests: one bounded queue, and a thread for each worker."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from partclipseg.counts import count_of
from partclipseg.errors import PartCLIPSegError


class QueueFullError(PartCLIPSegError):
    """Raised if the queue is full or closed; the message says when to try again."""


@dataclass(frozen=True, eq=False)
class QueuedJob:
    """A unit of work that can be batched with others of the same `key`."""

    key: Hashable
    value: Any
    weight: int = 1
    """Share of the queue's `max_weight`, for example the photo's pixels."""
    future: Future[Any] = field(default_factory=Future)


class Batcher:
    """Takes jobs from any thread and runs them in its own threads, in batches of one key.

    A job never waits for a batch to fill: while one batch runs, the jobs that arrive form the next. The oldest job
    decides the key of a batch, so that no key starves.
    """

    def __init__(
        self,
        *workers: Callable[[Hashable, Sequence[Any]], Sequence[Any]],
        max_jobs: int,
        max_weight: int,
        batch_size: int = 8,
        on_batch: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Start a thread for each worker.

        Args:
            workers: functions of a key and the values of its jobs, each called by a thread of its own; they return a
                result for each job, and their errors go to all of them.
            max_jobs: maximum number of waiting jobs; running ones do not count.
            max_weight: maximum weight of all waiting jobs. A single job may weigh more if nothing else waits.
            batch_size: maximum number of jobs per call of a worker.
            on_batch: called with the size of each batch.
        """
        self._max_jobs, self._max_weight, self._batch_size = max_jobs, max_weight, batch_size
        self._on_batch = on_batch
        self._waiting: deque[QueuedJob] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, args=[work], name=f"segmenter-{number}", daemon=True)
            for number, work in enumerate(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Return the number of waiting jobs."""
        return len(self._waiting)

    def submit(self, key: Hashable, value: Any, weight: int = 1) -> Future[Any]:
        """Queue a job; cancelling its future removes the job if it has not begun.

        Raises `QueueFullError` at once when the queue is full or closed.
        """
        job = QueuedJob(key, value, weight)
        with self._changed:
            self._refuse(weight)
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def check_room(self) -> None:
        """Raise `QueueFullError` if a job would be refused now, before the caller prepares it."""
        with self._changed:
            self._refuse(0)

    def close(self) -> None:
        """Accept no more jobs, finish the waiting ones, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _refuse(self, weight: int) -> None:
        if self._closed:
            raise QueueFullError("the server is stopping and takes no more photos")
        # Drop jobs whose callers have cancelled them.
        if any(job.future.cancelled() for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if not job.future.cancelled())
        waiting = len(self._waiting)
        if waiting >= self._max_jobs or (waiting and self._weight() + weight > self._max_weight):
            photos = count_of(waiting, "photo waits", "photos wait")
            raise QueueFullError(f"the server is busy ({photos}): try again in a few seconds")

    def _weight(self) -> int:
        return sum(job.weight for job in self._waiting)

    def _run(self, work: Callable[[Hashable, Sequence[Any]], Sequence[Any]]) -> None:
        while batch := self._next():
            self._do(work, batch)
            del batch  # free its memory while waiting for the next

    def _do(self, work: Callable[[Hashable, Sequence[Any]], Sequence[Any]], batch: list[QueuedJob]) -> None:
        self._on_batch(len(batch))
        try:
            results = work(batch[0].key, [job.value for job in batch])
            for job, result in zip(batch, results, strict=True):
                job.future.set_result(result)
        except BaseException as error:  # every error goes to the callers; the thread must live
            for job in batch:
                if not job.future.done():
                    job.future.set_exception(error)

    def _next(self) -> list[QueuedJob]:
        """Return the next batch; empty when the queue is closed and done."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                batch: list[QueuedJob] = []
                rest: deque[QueuedJob] = deque()
                for job in self._waiting:
                    fits = len(batch) < self._batch_size and (not batch or job.key == batch[0].key)
                    if not fits:
                        rest.append(job)
                    elif job.future.set_running_or_notify_cancel():
                        batch.append(job)
                self._waiting = rest
                if batch or (self._closed and not rest):
                    return batch
