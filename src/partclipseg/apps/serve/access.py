"""Access control: ASGI middleware that checks tokens, hosts and origins, and restricts what pages load."""

from __future__ import annotations

import hmac
from html import escape
from ipaddress import ip_address
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from partclipseg.apps.serve.accept import weight

COOKIE = "partclipseg_token"
OPEN_PATHS = frozenset({"/healthz"})
"""Paths that need no token, for health checks."""

_REFUSAL = (
    "this server needs its token: send the header 'Authorization: Bearer TOKEN', or open the address that it "
    "printed at its start"
)


def protect(app: FastAPI, token: str | None = None, *, local: bool = False) -> FastAPI:
    """Add the access checks to the complete application.

    With a `token`, all paths but `OPEN_PATHS` require it. Without one, a `local` server, which listens on the loopback
    address, answers only requests for this machine's own names. Both refuse requests that other sites' pages make.
    """
    if token or local:
        app.add_middleware(OriginGate)
    if token:
        app.add_middleware(TokenGate, token=token)
        _describe_token(app)
    elif local:
        app.add_middleware(LocalGate)
    app.add_middleware(OwnOriginOnly)
    return app


def _describe_token(app: FastAPI) -> None:
    description = app.openapi()  # the application caches it and sends this object
    description["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    description["security"] = [{"token": []}]
    for path in OPEN_PATHS:
        description["paths"][path]["get"]["security"] = []


def is_loopback(host: str) -> bool:
    """Whether this name or address is the machine itself; no name server is asked."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_unspecified(host: str) -> bool:
    """Whether the address stands for every address of the machine, so that clients cannot connect to it by itself."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


class LocalGate:
    """Refuses requests whose Host header does not name this machine."""

    _HOST = (
        "without a token this server answers to localhost and 127.0.0.1 only, not to other names: start it with "
        "--token, or with --host"
    )

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _names_this_machine(Headers(scope=scope).get("host", "")):
            await self.app(scope, receive, send)
        else:
            await _forbid(self._HOST, scope, receive, send)


class OriginGate:
    """Refuses requests that come from pages of other origins: browsers send cookies with them."""

    _ORIGIN = "this request comes from another page: open the address that the server printed at its start"

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] != "lifespan" else Headers()
        origin = headers.get("origin")
        own = origin is None or _place(origin) == headers.get("host", "").lower()
        if own or scope.get("method") in {"GET", "HEAD"}:
            await self.app(scope, receive, send)
        else:
            await _forbid(self._ORIGIN, scope, receive, send)


async def _forbid(sentence: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await drain(receive)
        await JSONResponse({"detail": sentence}, 403)(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008})


def _names_this_machine(host: str) -> bool:
    try:
        parts = urlsplit(f"//{host}")
        return parts.netloc == host and "@" not in host and is_loopback(parts.hostname or "")
    except ValueError:
        return False


def _place(origin: str) -> str:
    """Return host and port of an origin, in the form of the Host header; empty for none."""
    return origin.lower().partition("://")[2]


class TokenGate:
    """Refuses requests without the token: as bearer, in the header ``Token``, or as the cookie of ``?token=``."""

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
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        shown = [bearer if scheme.lower() == "bearer" else "", request.cookies.get(COOKIE, "")]
        shown.append(request.headers.get("token", ""))  # X-AnyLabeling's client sends this header
        if any(map(self._matches, shown)):
            await self.app(scope, receive, send)
        elif request.method == "GET" and self._matches(request.query_params.get("token", "")):
            await self._welcome(request)(scope, receive, send)
        else:
            await drain(receive)
            await _refusal(request)(scope, receive, send)

    def _matches(self, shown: str) -> bool:
        return hmac.compare_digest(shown.strip().encode(errors="replace"), self._token)

    def _welcome(self, request: Request) -> Response:
        # A redirect removes the token from the address bar, and so from history and screenshots.
        rest = urlencode([pair for pair in parse_qsl(request.url.query) if pair[0] != "token"])
        # Exactly one slash: browsers read what follows two, or a backslash, as another host.
        path = "/" + quote(request.scope["path"].lstrip("/\\"))
        response = RedirectResponse(path + (f"?{rest}" if rest else ""), status_code=303)
        response.set_cookie(COOKIE, self._token.decode(), httponly=True, samesite="lax")
        return response


class OwnOriginOnly:
    """Sends a content security policy, so that browsers load nothing from other servers."""

    POLICY = (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    )

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
    """Read and discard the rest of a request, up to `limit` bytes.

    A client that is still sending does not read: if the connection were closed at once, the answer would be lost.
    """
    size = 0
    while size <= limit:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            return


def _refusal(request: Request) -> Response:
    headers = {"WWW-Authenticate": "Bearer"}
    if weight(request.headers, "accept", "text/html"):
        page = f"<!doctype html><html lang=en><title>Token needed</title><p>{escape(_REFUSAL)}."
        return HTMLResponse(page, 401, headers)
    return JSONResponse({"detail": _REFUSAL}, 401, headers)
