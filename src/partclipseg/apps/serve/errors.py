"""Errors as answers: the status and the sentence of each kind."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from partclipseg.apps.serve.access import drain
from partclipseg.apps.serve.engine import NoMemoryError, TooLargeError
from partclipseg.apps.serve.jobs.job import ConflictError
from partclipseg.apps.serve.queue import QueueFullError
from partclipseg.apps.serve.words import shortened
from partclipseg.data.values import printable
from partclipseg.errors import PartCLIPSegError

FAULT = "a fault of this server, whose log says more: try another photo or other words"

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (TooLargeError, 413),
    (QueueFullError, 503),
    (ConflictError, 409),
    (MemoryError, 503),
    (PartCLIPSegError, 422),
)
"""Status of each kind of error; the first that fits counts."""

_RETRY: dict[type[Exception], dict[str, str]] = {QueueFullError: {"Retry-After": "2"}}


def status_of(error: Exception) -> int:
    """Return the status of an answer about this error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def sentence_of(error: Exception) -> str:
    """Return the error's sentence, without its middle if it is long, in valid Unicode: it may quote any input."""
    if isinstance(error, MemoryError) and not isinstance(error, PartCLIPSegError):
        error = NoMemoryError()  # raised outside of the engine, while the answer is written
    return printable(shortened(str(error)))


def add_errors(app: FastAPI) -> None:
    """Add handlers that answer every error by a sentence."""

    def answer(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": sentence_of(error)}, status_of(error), _RETRY.get(type(error)))

    async def nothing(request: Request, _: Exception) -> Response:
        await drain(request.receive)
        return JSONResponse({"detail": f"there is nothing at {shortened(request.url.path)}"}, 404)

    async def other_method(request: Request, error: Any) -> Response:
        await drain(request.receive)
        taken = {method.strip() for method in error.headers["Allow"].split(",")} - {"HEAD"}
        sentence = f"{shortened(request.url.path)} takes {' and '.join(sorted(taken))}, not {request.method}"
        return JSONResponse({"detail": sentence}, 405, error.headers)

    app.add_exception_handler(404, nothing)
    app.add_exception_handler(405, other_method)
    for kind, _ in _STATUS:
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(ClientDisconnect, lambda *_: Response(status_code=499))  # only the counters see this
    # Starlette raises the error again after this answer, so that uvicorn logs it and closes the connection: the client
    # must not send its next request there.
    app.add_exception_handler(Exception, lambda *_: JSONResponse({"detail": FAULT}, 500, {"Connection": "close"}))
