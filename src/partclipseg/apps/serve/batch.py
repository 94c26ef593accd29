"""Several photos in one request: ``POST /v1/batch``, answered line by line as the results come."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.types import Receive, Scope, Send

from partclipseg.apps.serve.answers import PROBLEMS, SegmentAnswer, content_of
from partclipseg.apps.serve.engine import PhotoTask, named_result
from partclipseg.apps.serve.errors import FAULT, sentence_of, status_of
from partclipseg.apps.serve.intake import Intake, seconds_since
from partclipseg.apps.serve.question import BatchRequest, form_schema, schema_of
from partclipseg.apps.serve.queue import QueueFullError

AT_ONCE = 8
"""Photos of one request that are decoded, wait or are in the model; as many as one batch of the model."""

_PAUSE = 0.1
"""Seconds until a photo is tried again where the queue was full."""


class BatchLine(SegmentAnswer):
    """One line: the answer for a photo, or `number`, `photo`, `status` and `detail` where there is none."""

    number: int = Field(description="of the photo in the request, from 0")
    status: int = Field(description="200, or the code that /v1/segment would answer with")
    detail: str | None = Field(None, description="why there is no result, as a sentence")


class _Lines(StreamingResponse):
    """Stream that keeps what its request holds until the end, and stops making lines when its client leaves."""

    def __init__(self, lines: AsyncGenerator[str], held: AsyncExitStack) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._lines, self._held = lines, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held, aclosing(self._lines):
            await super().__call__(scope, receive, send)


def add_batch(app: FastAPI, intake: Intake) -> None:
    """Add the path to the API."""

    @app.post(
        "/v1/batch",
        summary="Find the parts of things in several photos",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "a line of JSON for each photo, in their order",
                "content": {"application/x-ndjson": {"schema": schema_of(BatchLine)}},
            },
            **PROBLEMS,
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"multipart/form-data": {"schema": form_schema(BatchRequest)}},
            }
        },
    )
    async def batch(request: Request) -> Response:
        """Take a form with a file `photo` for each photo, and the fields of `/v1/segment`.

        Each line comes as soon as its photo and those before it are done. A photo that cannot be answered gives a
        line with `status` and `detail`, and stops none of the others.
        """
        async with AsyncExitStack() as held:
            async with intake.within_time():
                wanted = await intake.receive(request, BatchRequest, held, intake.engine.limits.max_photos)
                wanted.refuse_boxes()
                task = await intake.task(wanted)
                head = await intake.head(task)
            return _Lines(_answers(intake, wanted, task, head), held.pop_all())


async def _answers(intake: Intake, wanted: BatchRequest, task: PhotoTask, head: dict[str, Any]) -> AsyncGenerator[str]:
    waiting: deque[asyncio.Task[dict[str, Any]]] = deque()
    try:
        for number, (name, content) in enumerate(wanted.photos):
            waiting.append(asyncio.create_task(_answer(intake, wanted, task, head, number, name, content)))
            if len(waiting) == AT_ONCE:
                yield json.dumps(await waiting.popleft()) + "\n"
        while waiting:
            yield json.dumps(await waiting.popleft()) + "\n"
    finally:
        for rest in waiting:
            rest.cancel()


async def _answer(
    intake: Intake,
    wanted: BatchRequest,
    task: PhotoTask,
    head: dict[str, Any],
    number: int,
    name: str | None,
    content: bytes,
) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        async with intake.within_time():
            found = await _find(intake, task, content)
            result = named_result(await intake.in_thread(found.at_least, wanted.min_score), name)
            made = await intake.in_thread(content_of, result, wanted.formats, wanted.opacity)
            return {"number": number, "status": 200, **head, **made, "seconds": seconds_since(start)}
    except HTTPException as error:
        status, sentence = error.status_code, str(error.detail)
    except Exception as error:
        status, sentence = status_of(error), sentence_of(error)
        if status == 500:
            logging.getLogger(__name__).exception("a photo of a batch")
            sentence = FAULT
    return {"number": number, "photo": name or "photo", "status": status, "detail": sentence}


async def _find(intake: Intake, task: PhotoTask, content: bytes) -> Any:
    while True:
        try:
            return await intake.find(task, content)
        except QueueFullError:  # others fill the queue: the photos of a batch wait for their turn
            await asyncio.sleep(_PAUSE)
