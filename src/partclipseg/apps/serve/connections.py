"""Limits on connections: their number, and the time that a client may take to send a request or read an answer.

Uvicorn waits for ever for the head of a request. Here a connection that keeps the server waiting is closed, and if
there are too many, one with an incomplete request is closed for each new one.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from partclipseg.apps.options import check_positive
from partclipseg.errors import UsageError

BYTES_PER_SECOND = 1000
"""Least rate of bodies and answers; slower connections are closed."""

_MAX_BACKLOG, _MIN_BACKLOG = 2048, 64
"""Backlog of connections to accept; asyncio accepts this many at a time before it reports the first."""

_SPARE_FILES = 200
"""Number of files that the process opens beside its connections."""

Phase = Literal["head", "body", "answer"]


@dataclass(frozen=True)
class ConnectionLimits:
    """Maximum number of connections, and the time that they may keep the server waiting."""

    connections: int = 512
    """Maximum number of connections of all clients."""
    connections_per_address: int = 256
    """Maximum number of connections of one address; all programs of this machine share one."""
    idle_timeout: float = 10
    """Seconds for the head of a request. Bodies and answers must flow at 1,000 bytes a second, averaged over them."""

    def __post_init__(self) -> None:
        check_positive(**vars(self))


class Connections:
    """Open connections of a server; `protocol` creates one and is for ``uvicorn.Config(http=...)``."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.protocol: Any = partial(_Connection, self)
        self._open: dict[_Connection, None] = {}  # in the order of opening
        self._addresses: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: _Connection) -> None:
        """Add a connection. If there are too many, close one with an incomplete request, or else the new one."""
        limits, address = self.limits, connection.address
        self._open[connection] = None
        self._addresses[address] += 1
        if self._addresses[address] > limits.connections_per_address:
            self._make_room(connection, address)
        elif len(self._open) > limits.connections:
            self._make_room(connection)
        if self._timer is None:
            self._timer = connection.loop.call_later(limits.idle_timeout / 10, self._close_slow, connection.loop)

    def remove(self, connection: _Connection) -> None:
        """Remove a connection that is closing."""
        if connection in self._open:
            del self._open[connection]
            self._addresses[connection.address] -= 1
            if not self._addresses[connection.address]:
                del self._addresses[connection.address]

    def _make_room(self, newest: _Connection, address: str | None = None) -> None:
        others = (other for other in self._open if other is not newest and address in {None, other.address})
        bodies: list[_Connection] = []
        for other in others:
            phase = other.phase()
            if phase == "head":  # the oldest; its client cannot expect an answer yet
                other.drop()
                return
            if phase == "body":
                bodies.append(other)
        slowest = min(bodies, key=_Connection.speed, default=newest)
        slowest.refuse(503, "the server has too many connections: try again in a few seconds")

    def _close_slow(self, loop: asyncio.AbstractEventLoop) -> None:
        for connection in list(self._open):
            connection.close_if_slow(self.limits.idle_timeout)
        again = bool(self._open)
        self._timer = loop.call_later(self.limits.idle_timeout / 10, self._close_slow, loop) if again else None


class _Connection(H11Protocol):
    """Connection that knows the phase of its request."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        self._phase: Phase | None = "head"
        self._since = self._begun = self.loop.time()
        self._received = self._received_before = self._unsent_before = 0

    @property
    def address(self) -> str:
        """Return the client's address, without its port."""
        return self.client[0] if self.client else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._received += len(data)
        super().data_received(data)

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: the request is answered as any other, and uvicorn's advice would be to install WebSockets."""

    def phase(self) -> Phase | None:
        """Return what the server waits for: the request's head or body, or the client reading; None if for nothing."""
        if self.flow.write_paused:
            return "answer"
        if self.conn.their_state is h11.SEND_BODY and not self.flow.read_paused:
            return "body"
        return "head" if self.conn.their_state is h11.IDLE else None

    def speed(self) -> float:
        """Return the rate of received bytes per second."""
        return self._received / (self.loop.time() - self._begun + 1)

    def close_if_slow(self, seconds: float) -> None:
        """Close the connection if within `seconds` no head came, or the body or answer flowed too slowly."""
        phase, now = self.phase(), self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        if phase != self._phase:
            self._note(phase, now, unsent)
        elif phase and now - self._since >= seconds:
            least = seconds * BYTES_PER_SECOND
            if phase == "head":
                self.drop()
            elif phase == "body" and self._received - self._received_before < least:
                self.refuse(408, f"the body of the request came too slowly: send {BYTES_PER_SECOND:,} bytes a second")
            elif phase == "answer" and self._unsent_before - unsent < least:
                self.transport.abort()
            else:
                self._note(phase, now, unsent)

    def refuse(self, status: int, sentence: str) -> None:
        """Close the connection with an answer, unless one has begun."""
        begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not begun and not self.transport.is_closing():
            body = json.dumps({"detail": sentence}).encode()
            phrase = {408: b"Request Timeout", 503: b"Service Unavailable"}[status]
            head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n"
            retry = b"retry-after: 2\r\n" if status == 503 else b""
            self.transport.write(head % (status, phrase, len(body)) + retry + b"\r\n" + body)
        self.drop()

    def drop(self) -> None:
        """Close the connection."""
        self._unset_keepalive_if_required()
        self._connections.remove(self)  # now, so that another connection may take its slot
        self.transport.close()

    def _note(self, phase: Phase | None, now: float, unsent: int) -> None:
        self._phase, self._since = phase, now
        self._received_before, self._unsent_before = self._received, unsent


def allow_files(limits: ConnectionLimits) -> int:
    """Allow the process a file for each connection; return the backlog that the remaining files allow.

    Raises `UsageError` if the system allows too few.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _MAX_BACKLOG
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = limits.connections + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < used + _MAX_BACKLOG:
        wanted = used + _MAX_BACKLOG
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft < used + _MIN_BACKLOG:
            raise UsageError(
                f"--connections {limits.connections} needs {used + _MIN_BACKLOG} open files, and the system allows "
                f"{hard}: take fewer connections, or raise its limit (ulimit -n)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return soft - used
    return _MAX_BACKLOG
