"""The HTTP API of ``partclipseg serve``."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Set
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from partclipseg import __version__
from partclipseg.apps.serve.access import drain
from partclipseg.apps.serve.engine import Engine, NoMemoryError, Task, TooLargeError, renamed
from partclipseg.apps.serve.metrics import CONTENT_TYPE, Counting
from partclipseg.apps.serve.queue import QueueFullError
from partclipseg.apps.serve.request import Budget, Protocol, SegmentRequest, form_schema, read_request, receive_body
from partclipseg.apps.serve.words import shortened
from partclipseg.errors import PartCLIPSegError
from partclipseg.formats.archive import zip_archive
from partclipseg.formats.format import Document, encoded
from partclipseg.formats.registry import single_formats
from partclipseg.inference.result import PartResult
from partclipseg.machine import usable_cores

T = TypeVar("T")


class SegmentInfo(BaseModel):
    """One part, or one whole object."""

    name: str = Field(examples=["dog's ear"])
    object: str
    part: str | None = Field(description="null for whole objects")
    index: int = Field(description="of the class in `vocabulary`; of the object in the sorted objects")
    score: float = Field(description="mean probability over its pixels, 0 to 1")
    area: int = Field(description="pixels")
    box: list[int] = Field(description="x, y, width, height in pixels")
    instance: int | None = Field(
        None, description="number of the instance whose part it is, null without an owner; only with instances"
    )


class InstanceInfo(BaseModel):
    """One object of several of a kind."""

    number: int = Field(description="its number, from 1")
    object: str = Field(examples=["dog"])
    index: int = Field(description="of the object in the sorted objects")
    score: float = Field(description="of what found it, 0 to 1")
    area: int = Field(description="pixels that it owns; 0 if nothing was found in it")
    box: list[int] = Field(description="x, y, width, height of these pixels")
    found: list[float] = Field(description="x, y, width, height of the box that it was found by")
    source: str = Field(examples=["components"])


class SegmentAnswer(BaseModel):
    """Segments found; each further field is present only if its format was requested."""

    model_config = ConfigDict(extra="forbid")

    model: str
    protocol: Protocol
    photo: str = Field(description="name of the photo")
    width: int
    height: int
    unknown_words: list[str] = Field(description="words that the model has never seen and can only guess")
    seconds: float = Field(description="from the request to its answer")
    segments: list[SegmentInfo] | None = Field(None, description="json: the parts found")
    objects: list[SegmentInfo] | None = Field(None, description="json: the objects found")
    without_part: list[SegmentInfo] | None = Field(
        None, description="json: of each object the pixels that belong to none of the parts asked for"
    )
    vocabulary: list[str] | None = Field(None, description="json: the classes, by index")
    instances: list[InstanceInfo] | None = Field(None, description="json: the instances, if they were asked for")


def answer_model() -> type[SegmentAnswer]:
    """Return `SegmentAnswer` with a field for each format but json, whose fields are in the answer itself."""
    fields: dict[str, Any] = {}
    for name, kind in single_formats().items():
        if name != "json":
            form: Any = {".json": dict[str, Any]}.get(kind.extension, str)
            text = f"base64 PNG: {kind.help}" if kind.extension == ".png" else kind.help
            if kind.make_many is not None:
                form, text = dict[str, str], f"base64 PNGs by file name: {kind.help}"
            fields[name.replace("-", "_")] = form | None, Field(None, alias=name, description=text)
    return create_model("SegmentAnswer", __base__=SegmentAnswer, **fields)


class ModelInfo(BaseModel):
    """A loaded model."""

    name: str
    kind: str = Field(examples=["PartCLIPSegModel"])
    parameters: int
    image_size: list[int] = Field(description="height and width that photos are resized to, in pixels")
    device: str
    vocabulary: dict[str, list[str]] | None = Field(description="its own words, used where a request gives none")


class ModelList(BaseModel):
    """List of the models; the first is the default."""

    models: list[ModelInfo]


class ErrorAnswer(BaseModel):
    """Why there is no result, as a sentence."""

    detail: str


_PROBLEMS = {
    400: "the body cannot be read",
    401: "the token is missing or wrong",
    403: "the server is for this machine alone, and was called by another name or by another page",
    413: "too many bytes or pixels",
    415: "neither a form nor JSON",
    422: "not a photo, wrong words, too many classes, or another wrong field",
    500: "a fault of the server, which its log describes",
    503: "no memory for this photo, or the queue is full: try again after the seconds in Retry-After",
    504: "not done within the time limit",
}


def create_api(engine: Engine) -> FastAPI:
    """Create the application, without the page and the access checks (`access.protect`)."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await to_thread.run_sync(engine.close)

    app = FastAPI(
        title="partclipseg",
        version=__version__,
        description="Open-vocabulary part segmentation: one photo in, your own words, a label for every part out.",
        lifespan=lifespan,
        # FastAPI's own documentation pages load scripts from another server.
        docs_url=None,
        redoc_url=None,
    )
    _add_errors(app)
    _add_information(app, engine)
    _add_segment(app, engine)
    paths = app.openapi()["paths"]
    methods = {path: {method.upper() for method in operations} for path, operations in paths.items()}
    app.add_middleware(OwnMethods, methods={**methods, str(app.openapi_url): {"GET"}})
    app.add_middleware(Counting, metrics=engine.metrics, paths=frozenset(paths))
    return app


class OwnMethods:
    """Answers HEAD for paths that take GET, and 405 for methods that a path does not take.

    Otherwise the page, which is mounted at ``/`` and matches every path, would answer 404 to both.
    """

    def __init__(self, app: ASGIApp, methods: Mapping[str, Set[str]]) -> None:
        self.app = app
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = self._methods.get(scope["path"]) if scope["type"] == "http" else None
        if taken is None or scope["method"] in taken:
            await self.app(scope, receive, send)
        elif scope["method"] == "HEAD" and "GET" in taken:
            await self.app({**scope, "method": "GET"}, receive, send)  # servers send no body to HEAD
        else:
            await drain(receive)
            sentence = f"{scope['path']} takes {' and '.join(sorted(taken))}, not {scope['method']}"
            allowed = taken | ({"HEAD"} if "GET" in taken else set())
            await JSONResponse({"detail": sentence}, 405, {"Allow": ", ".join(sorted(allowed))})(scope, receive, send)


def _add_segment(app: FastAPI, engine: Engine) -> None:
    # Threads for decoding and encoding, beside the model's own thread.
    threads = CapacityLimiter(usable_cores())
    # Limit on requests that wait or are answered: their memory must not grow with the number of clients.
    at_once = asyncio.Semaphore(2 * engine.limits.queue)
    budget = Budget(engine.limits.max_held)

    async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
        return await to_thread.run_sync(function, *arguments, limiter=threads, abandon_on_cancel=True)

    async def answer(request: Request, wanted: SegmentRequest, start: float) -> Response:
        objects = wanted.known_objects()
        wanted.check_instances()
        model = engine.model_name(wanted.model)
        vocabulary = await in_thread(engine.vocabulary, wanted.vocabulary, model)
        photo = await in_thread(engine.read_photo, wanted.photo)
        source, given = wanted.source()
        least = wanted.min_part_probability
        task = Task(model, vocabulary, objects, wanted.zoom, least, instances=source, rest=wanted.rest)
        found = await asyncio.wrap_future(engine.submit(task, photo, given))
        result = renamed(await in_thread(found.at_least, wanted.min_score), wanted.name)
        if "application/zip" in request.headers.get("accept", ""):
            archive = await in_thread(lambda: zip_archive(result.files(wanted.formats)))
            return Response(archive, media_type="application/zip")
        head = {
            "model": model,
            "protocol": "oracle_obj" if objects else "pred_all",
            "unknown_words": await in_thread(engine.unknown_words, model, vocabulary),
        }
        content = await in_thread(content_of, result, wanted.formats)
        return JSONResponse({**head, **content, "seconds": round(time.perf_counter() - start, 4)})

    async def answer_if_room(request: Request) -> Response:
        start = time.perf_counter()
        try:
            engine.check_room()
        except QueueFullError:
            await drain(request.receive)
            raise
        with budget.share() as share:
            body = await receive_body(request, engine.limits.max_bytes, engine.limits.max_classes, share)
            # Take the slot only now: clients that send slowly must not keep the others out.
            if at_once.locked():
                number = 2 * engine.limits.queue
                raise QueueFullError(f"the server is busy ({number} requests at once): try again in a few seconds")
            async with at_once:
                wanted = await in_thread(read_request, request.headers, body, engine.limits.max_classes)
                return await answer(request, wanted, start)

    @app.post(
        "/v1/segment",
        summary="Find the parts of things in a photo",
        response_model=answer_model(),
        responses={
            200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
            **{code: {"model": ErrorAnswer, "description": text} for code, text in _PROBLEMS.items()},
        },
        openapi_extra={"requestBody": _request_body()},
    )
    async def segment(request: Request) -> Response:
        """Take photo and words as a form, or as JSON with the photo in base64.

        With `Accept: application/zip` the answer is a ZIP of the files that `partclipseg predict` would write.
        """
        try:
            async with asyncio.timeout(engine.limits.timeout):
                return await answer_if_room(request)
        except TimeoutError:
            raise HTTPException(504, f"not done within {engine.limits.timeout:g} seconds: try again later") from None
        except ClientDisconnect:
            return Response(status_code=499)  # the client is gone; only the counters see this


def content_of(result: PartResult, formats: Iterable[str]) -> dict[str, Any]:
    """Return a photo's part of an answer: the fields of json, and the others by the name of their format."""
    content: dict[str, Any] = {"photo": result.name, "width": result.size[1], "height": result.size[0]}
    for name, made in result.documents(formats).items():
        if name == "json":
            assert isinstance(made, dict)
            content.update(made)
        else:
            content[name] = _in_json(made)
    return content


def _in_json(document: Document) -> Any:
    """Return a document with its pictures as base64 PNG."""
    if isinstance(document, Image.Image):
        return base64.b64encode(encoded(document)).decode()
    if isinstance(document, dict):
        return {name: _in_json(made) if isinstance(made, Image.Image) else made for name, made in document.items()}
    return document


def _add_information(app: FastAPI, engine: Engine) -> None:
    @app.get("/v1/models", summary="The models that can be asked")
    async def models() -> ModelList:
        return ModelList(
            models=[
                ModelInfo(
                    name=name,
                    kind=type(segmenter.model).__name__,
                    parameters=segmenter.model.num_parameters(),
                    image_size=list(segmenter.model.image_shape),
                    device=str(segmenter.device),
                    vocabulary=segmenter.vocabulary.to_dict() if segmenter.vocabulary else None,
                )
                for name, segmenter in engine.segmenters.items()
            ]
        )

    @app.get("/healthz", summary="Whether the server is up", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "ok"

    @app.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse)
    async def figures() -> Response:
        return Response(engine.metrics.text(), media_type=CONTENT_TYPE)


def _add_errors(app: FastAPI) -> None:
    def problem(code: int, headers: dict[str, str] | None = None) -> Callable[[Request, Any], Response]:
        def answer(_: Request, error: Exception) -> Response:
            sentence = shortened(str(error)).encode("utf-8", "backslashreplace").decode()  # it may quote any input
            return JSONResponse({"detail": sentence}, code, headers)

        return answer

    app.add_exception_handler(TooLargeError, problem(413))
    app.add_exception_handler(QueueFullError, problem(503, {"Retry-After": "2"}))
    app.add_exception_handler(PartCLIPSegError, problem(422))
    app.add_exception_handler(NoMemoryError, problem(503))
    # MemoryError while the answer is written, outside of the engine.
    app.add_exception_handler(MemoryError, lambda request, _: problem(503)(request, NoMemoryError()))
    # Starlette raises the error again after this answer, so that the server logs it.
    app.add_exception_handler(Exception, lambda *_: JSONResponse({"detail": _FAULT}, 500))


_FAULT = "a fault of this server, whose log says more: try another photo or other words"


def _request_body() -> dict[str, Any]:
    example = {"vocabulary": "dog: head, torso, leg, tail; bus: body, wheel", "formats": "json,overlay"}
    schema = SegmentRequest.model_json_schema()
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form_schema(), "example": {"photo": "(file)", **example}},
            "application/json": {
                "schema": schema,
                "example": {
                    "photo": _ONE_PIXEL,
                    "vocabulary": {"dog": ["head", "torso", "leg", "tail"], "bus": ["body", "wheel"]},
                    "formats": ["json", "coco"],
                },
            },
        },
    }


_ONE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGPombYAAAN0AcMpmPZ/AAAAAElFTkSuQmCC"
"""PNG of one pixel, so that the example request works as it is."""
