"""``partclipseg serve``: a web page and an HTTP API on this machine."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import tyro

from partclipseg.apps.options import Ask, Asking, Device, Dtype, check_least, optional
from partclipseg.apps.terminal import plain_console
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.machine import how_to_install

if TYPE_CHECKING:
    from fastapi import FastAPI
    from rich.console import Console
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from partclipseg.apps.serve.engine import Engine
    from partclipseg.apps.serve.jobs.runner import Jobs

TOKEN_VARIABLE = "PARTCLIPSEG_TOKEN"

_MISSING = f"serve needs more packages: {how_to_install('serve')}"


@dataclass(frozen=True)
class Serve:
    """Open a web page and an HTTP API on this machine. No request leaves it.

    Prints the address of the page. The API, POST /v1/segment and others, is described at /openapi.json.

    Examples:
      partclipseg serve --model partclipseg-pascal
      partclipseg serve --model models/pascal models/baseline --port 8080
    """

    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen at. 127.0.0.1 is this machine alone; 0.0.0.0 lets the network in, better with a token."""
    port: int = 7860
    """Port to listen at; 0 takes a free one."""
    model: Annotated[tuple[str, ...], optional("NAME|DIR...")] = ()
    """One model or several to compare, the first as the default: names that `partclipseg models` lists, directories, or
    names on the hub. Left out: the built-in model, which knows rendered scenes only, not photos."""
    token: Annotated[str | None, optional("WORD")] = None
    """Token that every request needs, as 'Authorization: Bearer WORD' or in the printed address. May also come from the
    environment, as PARTCLIPSEG_TOKEN, where other users of the machine cannot read it."""
    workers: int = 1
    """Copies of the models, each used by a thread of its own: on the GPUs in turn, or on shares of the CPU's cores."""
    max_bytes: int = 20_000_000
    """Maximum size of a photo's file, in bytes."""
    max_pixels: int = 25_000_000
    """Maximum size of a photo, width times height."""
    max_classes: int = 500
    """Maximum number of object-parts of a vocabulary."""
    max_photos: int = 32
    """Maximum number of photos of one request to /v1/batch."""
    queue: int = 64
    """Maximum number of waiting photos. Further ones are refused at once with status 503, and so are requests beyond
    twice that number."""
    timeout: float = 60
    """Seconds that a request may take, including the time in the queue."""
    max_held: int = 256_000_000
    """Maximum size of the bodies of all requests together, in bytes; more are refused at once with status 503."""
    connections: int = 512
    """Maximum number of connections of all clients. Beyond it, connections with an incomplete request are closed."""
    connections_per_address: int = 256
    """Maximum number of connections of one address, likewise. All programs of this machine share one address."""
    rate: int = 0
    """Maximum number of requests with photos of one client in a minute; more get status 429. 0: no limit."""
    idle_timeout: float = 10
    """Seconds until the head of a request must be complete. Bodies and answers must flow at 1,000 bytes a second."""
    detector: Annotated[str | None, optional("DIR|NAME")] = None
    """Detector that tells objects apart for requests that ask whose each part is: a directory or hub name, such as
    IDEA-Research/grounding-dino-tiny. Left out: partshapes-detector, which knows rendered scenes only, where --model is
    left out, too; else requests may ask for connected regions, or give boxes."""
    instance_threshold: Annotated[float | None, optional("P")] = None
    """Minimum score, 0 to 1, of what the detector finds. Left out: the detector's own."""
    jobs: Annotated[Path | None, optional("DIR")] = None
    """Folder of photos on this machine that clients may have labelled, by POST /v1/jobs. Left out: they may not."""
    jobs_output: Annotated[Path | None, optional("DIR")] = None
    """Folder for the results of --jobs, apart from the photos. It holds the state of the jobs, too, so that they go on
    when the server starts again."""
    config: Annotated[str | None, optional("FILE")] = None
    """YAML file with a line such as 'port: 8080' for each option. Environment variables such as PARTCLIPSEG_SERVE_PORT
    come before it, and the command line before both."""
    device: Device = None
    dtype: Dtype = None
    ask: Ask = field(default_factory=Asking)

    @classmethod
    def completed(cls, arguments: Sequence[str]) -> list[str]:
        """Return the arguments with the options that a file and the environment set."""
        from partclipseg.apps.serve.settings import with_stored_options

        return with_stored_options(arguments, [field.name for field in fields(cls) if field.name != "ask"])

    def run(self) -> int:
        try:
            import uvicorn

            from partclipseg.apps.serve.access import is_loopback
            from partclipseg.apps.serve.connections import ConnectionLimits, Connections, allow_files
            from partclipseg.apps.serve.engine import Engine, Limits
            from partclipseg.apps.serve.log import AccessLog, private_requests
        except ImportError as error:
            raise PartCLIPSegError(f"{_MISSING} ({error})") from error

        token = self.token if self.token is not None else os.environ.get(TOKEN_VARIABLE) or None
        self._check(token)
        limits = Limits(self.max_bytes, self.max_pixels, self.max_classes, self.queue, self.timeout, self.max_held,
                        self.max_photos)  # fmt: skip
        connections = ConnectionLimits(self.connections, self.connections_per_address, self.idle_timeout)
        backlog = allow_files(connections)
        engine = Engine.load(
            self.model or [None],
            self.device,
            self.dtype,
            limits,
            self.ask.prompting(),
            self._detector,
            self.instance_threshold,
            self.workers,
        )
        socket = _listen(self.host, self.port)
        console = plain_console()
        jobs = self._open_jobs(engine, console)
        app = create_app(engine, token, local=is_loopback(self.host), rate=self.rate, jobs=jobs)
        self._announce(console, engine, socket.getsockname()[1], token)
        # After Ctrl+C or SIGTERM: accept no connections, finish running requests within their usual time limit.
        config = uvicorn.Config(
            AccessLog(_answering_to_the_end(app)),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=max(1, round(self.timeout)),
            lifespan="on",
            http=Connections(connections).protocol,
            ws="none",
            backlog=backlog,
        )
        with private_requests(), suppress(KeyboardInterrupt):  # uvicorn raises it after an orderly shutdown
            uvicorn.Server(config).run(sockets=[socket])
        return 0

    @property
    def _detector(self) -> str | None:
        """Return the detector that is named, or the built-in one beside the built-in model, else None."""
        from partclipseg.models.released import BUILT_IN_DETECTOR

        return self.detector or (None if self.model else BUILT_IN_DETECTOR)

    def _check(self, token: str | None) -> None:
        """Check the options themselves, before anything is loaded."""
        from partclipseg.apps.serve.access import is_loopback

        if token is not None and not re.fullmatch("[!-~]+", token):  # headers and cookies hold nothing else
            raise UsageError(
                f"the token must be one word of ASCII letters, digits and signs: choose another for --token or "
                f"{TOKEN_VARIABLE}"
            )
        check_least(rate=(self.rate, 0))
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port must lie in 0..65535, not {self.port}")
        if self.instance_threshold is not None and self._detector is None:
            raise UsageError("--instance-threshold is for a detector: name one with --detector, or leave it out")
        if (self.jobs is None) != (self.jobs_output is None):
            raise UsageError("--jobs and --jobs-output belong together: name the folders of the photos and the results")
        if self.jobs is not None and not token and not is_loopback(self.host):
            raise UsageError("--jobs puts this machine at the clients' disposal: set --token for those who may")

    def _announce(self, console: Console, engine: Engine, port: int, token: str | None) -> None:
        """Print the models and the addresses."""
        from partclipseg.apps.serve.access import is_loopback
        from partclipseg.models.registry import BUILT_IN_DETECTOR, is_built_in

        for name, segmenter in engine.segmenters.items():
            kind, dtype = segmenter.model.title, segmenter.model.number_type
            console.print(f"model: {name} ({kind}, {segmenter.device}, {dtype})")
        if engine.built_in:
            console.print("the built-in model knows rendered scenes only; for photos name another with --model")
        if self.detector is not None and is_built_in(self.detector, BUILT_IN_DETECTOR):
            console.print("the built-in detector knows rendered scenes only; for photos name another with --detector")
        address, *others = addresses(self.host, port, token)
        console.print(f"open {address}  (Ctrl+C stops)")
        for other in others:
            console.print(f"on this machine also {other}")
        if not token and not is_loopback(self.host):
            console.print("everyone who can reach this address can use it: set --token to ask for one")

    def _open_jobs(self, engine: Engine, console: Console) -> Jobs | None:
        if self.jobs is None or self.jobs_output is None:
            return None
        from partclipseg.apps.serve.engine import model_names
        from partclipseg.apps.serve.jobs.run import Setup
        from partclipseg.apps.serve.jobs.runner import Jobs

        models = self.model or (None,)
        asked = [name for name, segmenter in engine.segmenters.items() if segmenter.model.takes_prompting]
        setup = Setup(
            models=dict(zip(model_names(models), models, strict=True)),
            device=self.device,
            dtype=self.dtype,
            workers=self.workers,
            max_pixels=self.max_pixels,
            detector=self._detector,
            threshold=self.instance_threshold,
            asking=dict.fromkeys(asked, self.ask),
        )
        jobs = Jobs(self.jobs, self.jobs_output, setup)
        for sentence in jobs.damaged:
            console.print(sentence)
        states = [job.state for job in jobs.all()]
        going_on = states.count("waiting") + states.count("running")
        more = f"; {going_on} of {len(states)} go on" if going_on else ""
        console.print(f"jobs: folders below {jobs.photos}, results below {jobs.results}{more}")
        return jobs


def addresses(host: str, port: int, token: str | None = None) -> list[str]:
    """Return the addresses of the page; for a wildcard host, those by the machine's name and by loopback."""
    from socket import gethostname

    from partclipseg.apps.serve.access import is_unspecified

    bracketed = f"[{host}]" if ":" in host else host
    hosts = [gethostname(), "[::1]" if ":" in host else "127.0.0.1"] if is_unspecified(host) else [bracketed]
    query = f"?{urlencode({'token': token})}" if token else ""
    return [f"http://{name}:{port}/{query}" for name in hosts]


def create_app(
    engine: Engine, token: str | None = None, *, local: bool = False, rate: int = 0, jobs: Jobs | None = None
) -> FastAPI:
    """Create API and page as one application, with the access checks of `access.protect` and the counts of requests.

    `rate` is the maximum number of POST requests of one client in a minute; 0 is any. `jobs` are those of clients; None
    switches them off.
    """
    from partclipseg.apps.serve.access import protect
    from partclipseg.apps.serve.api import api_paths, create_api
    from partclipseg.apps.serve.metrics import Counting
    from partclipseg.apps.serve.page import add_page
    from partclipseg.apps.serve.rates import RateLimit

    app = create_api(engine, jobs)
    add_page(app)
    if rate:
        app.add_middleware(RateLimit, per_minute=rate)
    protect(app, token, local=local)
    app.add_middleware(Counting, metrics=engine.metrics, paths=api_paths(app))  # the last is the outermost
    return app


def _answering_to_the_end(app: ASGIApp) -> ASGIApp:
    """Wrap the application: requests that are cancelled at shutdown get an answer, too."""
    from starlette.responses import JSONResponse

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, send_noted)
        except asyncio.CancelledError:  # uvicorn cancels the request, and would log an error
            if scope["type"] == "http" and not begun:
                await JSONResponse({"detail": "the server has stopped"}, 503)(scope, receive, send)

    return answering


def _listen(host: str, port: int):
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # clients that connect before the server accepts are queued
    except OSError as error:
        listener.close()
        is_of_host = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        remedy = "give an address of this machine as --host" if is_of_host else "choose another --port"
        raise PartCLIPSegError(f"cannot listen at {host}:{port} ({error.strerror}): {remedy}") from error
    return listener
