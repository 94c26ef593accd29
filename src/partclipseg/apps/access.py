"""Who may ask, and where pages may reach: two wrappers around the whole application."""

from __future__ import annotations

import hmac
from html import escape
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "partclipseg_token"
OPEN_PATHS = frozenset({"/healthz"})
"""Answered without a token, for supervisors that have none."""

_REFUSAL = (
    "this server needs its token: send the header 'Authorization: Bearer TOKEN', or open the address that it "
    "printed at its start"
)


def protect(app: FastAPI, token: str | None = None) -> FastAPI:
    """The complete application with both wrappers; with a `token`, all but `OPEN_PATHS` ask for it."""
    if token:
        app.add_middleware(TokenGate, token=token)
    app.add_middleware(OwnOriginOnly)
    return app


class TokenGate:
    """Lets a request through that shows the token: as bearer, or as the cookie that ``?token=`` turns into."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if (scheme.lower() == "bearer" and self._matches(shown)) or self._matches(request.cookies.get(COOKIE, "")):
            await self.app(scope, receive, send)
        elif request.method == "GET" and self._matches(request.query_params.get("token", "")):
            await self._welcome(request)(scope, receive, send)
        else:
            await drain(receive)
            await _refusal(request)(scope, receive, send)

    def _matches(self, shown: str) -> bool:
        return hmac.compare_digest(shown.strip().encode(errors="replace"), self._token)

    def _welcome(self, request: Request) -> Response:
        # The token leaves the address bar, and with it history and screenshots.
        rest = urlencode([pair for pair in parse_qsl(request.url.query) if pair[0] != "token"])
        response = RedirectResponse(request.url.path + (f"?{rest}" if rest else ""), status_code=303)
        response.set_cookie(COOKIE, self._token.decode(), httponly=True, samesite="lax")
        return response


class OwnOriginOnly:
    """Tells browsers to load nothing that this server does not serve itself, whatever a page asks for."""

    POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; frame-ancestors 'self'"

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = self.POLICY
                headers["referrer-policy"] = "same-origin"
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        await self.app(scope, receive, send_with_policy)


async def drain(receive: Receive, limit: int = 100_000_000) -> None:
    """Read and forget the rest of a request, up to `limit` bytes.

    A client that is still sending does not listen: closed on it, the connection would take the answer along.
    """
    size = 0
    while size <= limit:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _refusal(request: Request) -> Response:
    headers = {"WWW-Authenticate": "Bearer"}
    if "text/html" in request.headers.get("accept", ""):
        style = "font: 1.1rem system-ui; margin: 3rem"
        page = f"<!doctype html><title>Token needed</title><p style='{style}'>{escape(_REFUSAL)}."
        return HTMLResponse(page, 401, headers)
    return JSONResponse({"detail": _REFUSAL}, 401, headers)
