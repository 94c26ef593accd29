"""Filter for requests to the page: only those that its own script makes pass.

Gradio's server can do more than this page needs: run functions for programs, forward requests, fetch files from
addresses that a client names. Only the page's own requests are allowed, and a photo must be an uploaded file.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from partclipseg.apps.serve.access import drain
from partclipseg.apps.serve.request import Budget
from partclipseg.apps.serve.uploads import Uploads
from partclipseg.apps.serve.words import shortened

_FILES = ("/", "/theme.css", "/manifest.json", "/favicon.ico", "/config")
_FOLDERS = ("/assets/", "/static/", "/gradio_api/file=")
_CALLS = ("upload", "upload_progress", "queue/join", "queue/data", "startup-events", "cancel", "reset", "info")
_JOIN = "/gradio_api/queue/join"
_UPLOAD = "/gradio_api/upload"

_MAX_BODY = 400_000
"""Maximum number of bytes of a click's request: the words, and the path of the uploaded photo."""


class PageGate:
    """Answers 404 to all paths but the page's and `own_paths`, and 422 to a click that names a file not uploaded here.

    Bodies are limited: clicks by `_MAX_BODY`, an upload by `max_upload` bytes and `timeout` seconds, and all uploads
    in progress together by the capacity of `Uploads`.
    """

    def __init__(
        self, app: ASGIApp, own_paths: frozenset[str], uploads: Uploads, max_upload: int, timeout: float
    ) -> None:
        self.app = app
        self._own_paths = own_paths
        self._paths = own_paths | {*_FILES, *(f"/gradio_api/{call}" for call in _CALLS)}
        self._uploads, self._max_upload, self._timeout = uploads, max_upload, timeout
        self._budget = Budget(uploads.max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or path in self._own_paths:
            await self.app(scope, receive, send)
        elif path not in self._paths and not path.startswith(_FOLDERS):
            await drain(receive)
            await JSONResponse({"detail": f"there is nothing at {shortened(path)}"}, 404)(scope, receive, send)
        elif scope["method"] in {"GET", "HEAD"}:
            await self.app(scope, receive, send)
        elif path == _UPLOAD:
            await self._upload(scope, receive, send)
        else:
            await self._click(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._budget.share() as take:
                async with asyncio.timeout(self._timeout):
                    await self.app(scope, _limited(receive, self._max_upload, take), send)
        except TimeoutError:
            await JSONResponse({"detail": "the photo came too slowly: try again"}, 504)(scope, receive, send)
        finally:
            await to_thread.run_sync(self._uploads.clean)

    async def _click(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            await JSONResponse({"detail": "the request is too long"}, 413)(scope, receive, send)
        elif scope["path"] == _JOIN and not self._names_uploads_only(body):
            await JSONResponse({"detail": "only files that were uploaded here"}, 422)(scope, receive, send)
        else:
            await self.app(scope, _replay(body, receive), send)

    def _names_uploads_only(self, body: bytes) -> bool:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return False
        waiting: list[Any] = [content]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if "path" in value and not self._is_upload(value["path"]):
                    return False
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
        return True

    def _is_upload(self, path: Any) -> bool:
        return path is None or self._uploads.holds(path)


def _limited(receive: Receive, limit: int, take: Callable[[int], bool]) -> Receive:
    """Wrap `receive`: raise `HTTPException` 413 beyond `limit` bytes, and 503 if `take` refuses more."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        count = len(message.get("body", b""))
        size += count
        room = take(count)
        if size > limit or not room:
            if message.get("more_body", False):
                await drain(receive)
            if size > limit:
                raise HTTPException(413, "the photo is too large for this server: make it smaller")
            raise HTTPException(503, "the server receives too many photos at once: try again in a few seconds")
        return message

    return counted


async def _body(receive: Receive) -> bytes | None:
    """Return the whole body; None if it is longer than `_MAX_BODY` or incomplete."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request":
            return None
        if len(body) > _MAX_BODY:
            if message.get("more_body", False):
                await drain(receive)
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
