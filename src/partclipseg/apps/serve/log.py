"""Log of a server: a line of JSON for each request, with an identifier that its answer has, too."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from partclipseg.apps.serve.words import shortened

HEADER = "x-request-id"

_LOG = logging.getLogger("partclipseg.serve")
"""Writes to standard error what the option ``--log-level`` of every command lets through."""

_ABOUT_REQUESTS = ("partclipseg.data", "partclipseg.inference", "partclipseg.instances")
"""Loggers that name words and photos. What they say while the models are loaded is the server's own affair."""

_IDENTIFIER = re.compile(r"[\w.:-]{1,64}", re.ASCII)
"""Identifiers that are taken from clients, such as a proxy; others would make the log unreadable."""


@contextmanager
def private_requests() -> Iterator[None]:
    """Leave out what the library says of requests' words and photos, unless the level is debug: they may be private."""
    loggers = [] if _LOG.isEnabledFor(logging.DEBUG) else [logging.getLogger(name) for name in _ABOUT_REQUESTS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def log_question(scope: Scope, question: dict[str, Any]) -> None:
    """Write what a request asks for, at level debug only: its words may be private."""
    if _LOG.isEnabledFor(logging.DEBUG):
        identifier = scope.get("state", {}).get("request_id")
        _LOG.debug(json.dumps({"id": identifier, "asks": question}, default=str))


class AccessLog:
    """Gives each request an identifier, and logs it: no photo, no word, no query, no token.

    The identifier is that of the header `X-Request-ID` if the client sends one, and is in the answer's header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        identifier = given if _IDENTIFIER.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = identifier
        status, received, sent, start = 0, 0, 0, time.perf_counter()

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = identifier
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive_counted, send_counted)
        finally:
            client = scope.get("client")
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "id": identifier,
                "client": client[0] if client else None,
                "method": scope["method"],
                "path": shortened(scope["path"]),
                "status": status or 500,
                "seconds": round(time.perf_counter() - start, 4),
                "bytes_in": received,
                "bytes_out": sent,
            }
            _LOG.info(json.dumps(line))
