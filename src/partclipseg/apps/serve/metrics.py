"""Counters for Prometheus, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from partclipseg.apps.serve.paths import Paths

CONTENT_TYPE = CONTENT_TYPE_LATEST

OTHER = "other"
"""Path under which requests are counted that are not for the API."""


class Metrics:
    """Counters that ``/metrics`` reports."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        name = {"namespace": "partclipseg", "registry": self.registry}
        self.requests = Counter("requests", "Requests answered, by path and status", ["path", "status"], **name)
        seconds = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
        self.request_seconds = Histogram("request_seconds", "From request to answer", ["path"], buckets=seconds, **name)
        self.model_seconds = Histogram("model_seconds", "One batch in the model", buckets=seconds, **name)
        self.batch_photos = Histogram("batch_photos", "Photos in one batch", buckets=(1, 2, 4, 8), **name)
        self.queue_length = Gauge("queue_length", "Photos that wait for the model", **name)

    def text(self) -> bytes:
        """Return the current values in Prometheus' text format."""
        return generate_latest(self.registry)


class Counting:
    """Counts the requests of an application and their duration, by the templates of its paths.

    All further paths, the page's files among them, are one, `OTHER`: paths that clients invent would fill the registry.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Paths) -> None:
        self.app = app
        self._metrics, self._paths = metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = self._paths.template(scope["path"]) or OTHER

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(path, str(message["status"])).inc()
            await send(message)

        with self._metrics.request_seconds.labels(path).time():
            try:
                await self.app(scope, receive, send_counted)
            except Exception:  # the outer middleware answers it
                self._metrics.requests.labels(path, "500").inc()
                raise
