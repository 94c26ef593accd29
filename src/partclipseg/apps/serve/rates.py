"""Rate limit: how many photos one client may ask about in a minute."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from partclipseg.apps.serve.access import drain
from partclipseg.counts import count_of

_MAX_CLIENTS = 10_000
"""Maximum number of clients that are remembered; the longest silent are forgotten."""


class RateLimit:
    """Refuses with 429 POST requests beyond `per_minute` of one client.

    A client that was silent may send as many at once; each further one becomes free after 60 / `per_minute` seconds.
    A client is an IPv4 address, or the network of 64 bits of an IPv6 address.
    """

    def __init__(self, app: ASGIApp, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.app = app
        self._limit, self._clock = per_minute, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client to (requests left, when)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wait = self._take(_client(scope)) if scope["type"] == "http" and scope["method"] == "POST" else 0
        if not wait:
            await self.app(scope, receive, send)
            return
        await drain(receive)
        limit, later = count_of(self._limit, "request"), count_of(wait, "second")
        sentence = f"more than {limit} a minute from one client: try again in {later}"
        await JSONResponse({"detail": sentence}, 429, {"Retry-After": str(wait)})(scope, receive, send)

    def _take(self, client: str) -> int:
        """Take one request; return 0, or the seconds until there is one."""
        now = self._clock()
        left, when = self._left.pop(client, (float(self._limit), now))
        left = min(float(self._limit), left + (now - when) * self._limit / 60)
        taken = left >= 1
        self._left[client] = (left - taken, now)
        if len(self._left) > _MAX_CLIENTS:
            self._left.popitem(last=False)
        return 0 if taken else math.ceil((1 - left) * 60 / self._limit)


def _client(scope: Scope) -> str:
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(ip_network((address, 64), strict=False)) if address.version == 6 else host
