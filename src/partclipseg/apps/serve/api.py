"""The HTTP API of ``partclipseg serve``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from partclipseg import __version__
from partclipseg.apps.serve.accept import weight
from partclipseg.apps.serve.answers import (
    PROBLEMS,
    CatalogInfo,
    CatalogList,
    ExplainAnswer,
    ModelInfo,
    ModelList,
    answer_model,
    content_of,
    files_of,
)
from partclipseg.apps.serve.batch import add_batch
from partclipseg.apps.serve.engine import Engine, named_result
from partclipseg.apps.serve.errors import add_errors
from partclipseg.apps.serve.examples import ExampleScenes, add_examples
from partclipseg.apps.serve.explain import Explained
from partclipseg.apps.serve.explained import explained_content
from partclipseg.apps.serve.intake import Intake, seconds_since
from partclipseg.apps.serve.jobs.api import add_jobs
from partclipseg.apps.serve.jobs.runner import Jobs
from partclipseg.apps.serve.metrics import CONTENT_TYPE
from partclipseg.apps.serve.paths import OwnMethods, Paths
from partclipseg.apps.serve.question import ExplainRequest, PhotoRequest, SegmentRequest, form_schema, schema_of
from partclipseg.apps.serve.xanylabeling import add_xanylabeling
from partclipseg.formats.archive import zip_archive
from partclipseg.vocabulary import CATALOGS, Vocabulary

BINARY = {"type": "string", "format": "binary"}
"""Schema of a file in an answer."""


def create_api(engine: Engine, jobs: Jobs | None = None) -> FastAPI:
    """Create the application, without the page, the access checks and the counting of requests (`create_app`)."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if jobs is not None:
            await to_thread.run_sync(jobs.close)
        await to_thread.run_sync(engine.close)

    app = FastAPI(
        title="partclipseg",
        version=__version__,
        description="Open-vocabulary part segmentation: one photo in, your own words, a label for every part out.",
        lifespan=lifespan,
        # FastAPI's own documentation pages load scripts from another server.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect has no sentence, and many clients do not follow it with their photo
    )
    add_errors(app)
    _add_information(app, engine)
    add_examples(app, ExampleScenes())
    intake = Intake(engine)
    _add_segment(app, intake)
    _add_explain(app, intake)
    add_batch(app, intake)
    add_xanylabeling(app, intake)
    add_jobs(app, intake, jobs)
    app.add_middleware(OwnMethods, paths=api_paths(app))
    return app


def api_paths(app: FastAPI) -> Paths:
    """Return the paths of the API with their methods."""
    described = app.openapi()["paths"].items()
    methods = {path: {method.upper() for method in operations} for path, operations in described}
    return Paths({**methods, str(app.openapi_url): {"GET"}})


def _add_segment(app: FastAPI, intake: Intake) -> None:
    @app.post(
        "/v1/segment",
        summary="Find the parts of things in a photo",
        response_model=answer_model(),
        responses={200: {"content": {"application/zip": {"schema": BINARY}}}, **PROBLEMS},
        openapi_extra={"requestBody": _request_body(SegmentRequest, formats="json,overlay")},
    )
    async def segment(request: Request) -> Response:
        """Take photo and words as a form, or as JSON with the photo in base64.

        With `Accept: application/zip` the answer is a ZIP of the files that `partclipseg predict` would write.
        """
        start = time.perf_counter()

        async def make(wanted: SegmentRequest) -> Response:
            task = await intake.task(wanted)
            found = await intake.find(task, wanted.photo, wanted.source()[1])
            result = named_result(await intake.in_thread(found.at_least, wanted.min_score), wanted.name)
            made = result, wanted.formats, wanted.opacity
            zip_weight = weight(request.headers, "accept", "application/zip")
            if zip_weight and zip_weight >= weight(request.headers, "accept", "application/json"):
                archive = await intake.in_thread(lambda: zip_archive(files_of(*made)))
                return Response(archive, media_type="application/zip")
            content = {**await intake.head(task), **await intake.in_thread(content_of, *made)}
            return JSONResponse({**content, "seconds": seconds_since(start)})

        return await intake.answer(request, SegmentRequest, make)


def _add_explain(app: FastAPI, intake: Intake) -> None:
    @app.post(
        "/v1/explain",
        summary="Find the parts of things in a photo, with the maps that led to them",
        response_model=ExplainAnswer,
        responses=PROBLEMS,
        openapi_extra={"requestBody": _request_body(ExplainRequest)},
    )
    async def explain(request: Request) -> Response:
        """Take photo and words as `/v1/segment` does; answer label maps, probabilities and attention as pictures."""
        start = time.perf_counter()

        async def make(wanted: ExplainRequest) -> Response:
            task = await intake.task(wanted, explained=True)
            found: Explained = await intake.find(task, wanted.photo, wanted.source()[1])
            found = found.renamed(wanted.name)
            content = {**await intake.head(task), **await intake.in_thread(explained_content, found)}
            return JSONResponse({**content, "seconds": seconds_since(start)})

        return await intake.answer(request, ExplainRequest, make)


def _add_information(app: FastAPI, engine: Engine) -> None:
    @app.get("/v1/models", summary="The models that can be asked")
    async def models() -> ModelList:
        return ModelList(
            instances=["components", *(["detector"] if engine.detector else [])],
            models=[
                ModelInfo(
                    name=name,
                    kind=type(segmenter.model).__name__,
                    parameters=segmenter.model.num_parameters(),
                    image_size=list(segmenter.model.image_shape),
                    device=str(segmenter.device),
                    built_in=name == engine.built_in,
                    vocabulary=segmenter.vocabulary.to_dict() if segmenter.vocabulary else None,
                )
                for name, segmenter in engine.segmenters.items()
            ]
        )

    @app.get("/v1/catalogs", summary="The catalogues of words that have a name")
    def catalogs() -> CatalogList:
        known = {name: Vocabulary.from_catalog(name) for name in CATALOGS}
        return CatalogList(
            catalogs=[
                CatalogInfo(name=name, classes=len(words), vocabulary=words.to_dict()) for name, words in known.items()
            ]
        )

    @app.get("/healthz", summary="Whether the server is up", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "ok"

    @app.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse)
    async def figures() -> Response:
        return Response(engine.metrics.text(), media_type=CONTENT_TYPE)


def _request_body(kind: type[PhotoRequest], formats: str | None = None) -> dict[str, Any]:
    """Return the description of a body of this kind; `formats`, separated by commas, are those of the examples."""
    listed = {"formats": formats} if formats else {}
    words = {"dog": ["head", "torso", "leg", "tail"], "bus": ["body", "wheel"]}
    example = {"vocabulary": "dog: head, torso, leg, tail; bus: body, wheel", **listed}
    split = {name: value.split(",") for name, value in listed.items()}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form_schema(kind), "example": {"photo": "(file)", **example}},
            "application/json": {
                "schema": schema_of(kind),
                "example": {"photo": _ONE_PIXEL, "vocabulary": words, **split},
            },
        },
    }


_ONE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGPombYAAAN0AcMpmPZ/AAAAAElFTkSuQmCC"
"""PNG of one pixel, so that the example request works as it is."""
