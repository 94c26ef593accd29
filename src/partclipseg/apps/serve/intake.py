"""The way of a request about a photo through the limits: its body, its time, and how many are answered at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
from fastapi import Request, Response
from starlette.exceptions import HTTPException

from partclipseg.apps.serve.access import drain
from partclipseg.apps.serve.engine import Engine, PhotoTask, memory_errors
from partclipseg.apps.serve.log import log_question
from partclipseg.apps.serve.question import Question
from partclipseg.apps.serve.queue import QueueFullError
from partclipseg.apps.serve.request import Budget, Wanted, read_request, receive_body
from partclipseg.counts import count_of
from partclipseg.formats.registry import all_formats, chosen_formats
from partclipseg.instances.found import FoundObject
from partclipseg.machine import usable_cores

T = TypeVar("T")


class Intake:
    """Receives requests about photos within the engine's limits, and asks the engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # Threads for decoding and encoding, beside the model's own thread. One whose request has timed out or was left
        # by its client stays taken until its function returns: neither threads nor their memory grow in number.
        self._threads = ThreadPoolExecutor(usable_cores(), thread_name_prefix="intake")
        # Limit on requests that wait or are answered: their memory must not grow with the number of clients.
        self.at_once = asyncio.Semaphore(2 * engine.limits.queue)
        self.budget = Budget(engine.limits.max_held)

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in one of the threads; if the caller is cancelled meanwhile, it is not waited for.

        Raises `NoMemoryError`: a result's probabilities need the model too, while it answers others.
        """
        with memory_errors():
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *arguments))

    async def answer(
        self, request: Request, kind: type[Wanted], make: Callable[[Wanted], Awaitable[Response]]
    ) -> Response:
        """Read a request of this kind, and answer it by `make`, all within the time limit.

        Raises `HTTPException` and `PartCLIPSegError` for requests that cannot be answered.
        """
        async with self.within_time(), AsyncExitStack() as held:
            return await make(await self.receive(request, kind, held))

    @asynccontextmanager
    async def within_time(self) -> AsyncIterator[None]:
        """Raise `HTTPException` 504 if the time limit passes."""
        try:
            async with asyncio.timeout(self.engine.limits.timeout):
                yield
        except TimeoutError:
            limit = count_of(self.engine.limits.timeout, "second")
            raise HTTPException(504, f"not done within {limit}: try again later") from None

    async def receive(self, request: Request, kind: type[Wanted], held: AsyncExitStack, max_photos: int = 1) -> Wanted:
        """Read a request of this kind; `held` keeps its share of the memory, and its slot, until it is closed.

        Raises `HTTPException` and `PartCLIPSegError`.
        """
        limits = self.engine.limits
        await self.check_room(request)
        share = held.enter_context(self.budget.share())
        body = await receive_body(request, limits.max_bytes, limits.max_classes, share, max_photos)
        # Take the slot only now: clients that send slowly must not keep the others out.
        self.check_slots()
        await held.enter_async_context(self.at_once)
        wanted = await self.in_thread(read_request, request.headers, body, limits.max_classes, kind, max_photos)
        log_question(request.scope, wanted.model_dump(exclude={"photo", "photos"}))
        return wanted

    async def check_room(self, request: Request) -> None:
        """Raise `QueueFullError` if a photo would be refused now; the request has been read by then."""
        try:
            self.engine.check_room()
        except QueueFullError:
            await drain(request.receive)
            raise

    def check_slots(self) -> None:
        """Raise `QueueFullError` if as many requests as allowed are being answered."""
        if self.at_once.locked():
            number = 2 * self.engine.limits.queue
            raise QueueFullError(f"the server is busy ({number} requests at once): try again in a few seconds")

    async def task(self, wanted: Question, explained: bool = False) -> PhotoTask:
        """Return the task that is asked for; raises `UsageError` and `HTTPException` 422."""
        wanted.check_instances()
        objects = wanted.known_objects()
        model = self.engine.model_name(wanted.model)
        vocabulary = await self.in_thread(self.engine.vocabulary, wanted.vocabulary, model)
        if formats := getattr(wanted, "formats", None):
            chosen_formats(formats, all_formats(), vocabulary=vocabulary)
        source, _ = wanted.source()
        least = wanted.min_part_probability
        return PhotoTask(model, vocabulary, objects, wanted.zoom, least, explained, source, wanted.rest)

    async def find(self, task: PhotoTask, photo: bytes, given: Sequence[FoundObject] = ()) -> Any:
        """Return the result of one photo, by its file; `given` are its objects, if the task's instances are given."""
        array: np.ndarray = await self.in_thread(self.engine.read_photo, photo)
        return await asyncio.wrap_future(self.engine.submit(task, array, given))

    async def head(self, task: PhotoTask) -> dict[str, Any]:
        """Return the fields that every answer begins with."""
        return {
            "model": task.model,
            "protocol": "oracle_obj" if task.objects else "pred_all",
            "unknown_words": await self.in_thread(self.engine.unknown_words, task.model, task.vocabulary),
        }


def seconds_since(start: float) -> float:
    """Return the seconds since this reading of `time.perf_counter`, for an answer."""
    return round(time.perf_counter() - start, 4)
