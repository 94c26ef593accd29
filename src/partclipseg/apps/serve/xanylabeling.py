"""Remote server of X-AnyLabeling: the two paths that its client asks, below ``/x-anylabeling``.

Its setting ``server_url`` is then ``http://HOST:PORT/x-anylabeling``; the models of this server are in its menu.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from partclipseg.apps.serve.answers import PROBLEMS
from partclipseg.apps.serve.intake import Intake
from partclipseg.apps.serve.question import PhotoRequest, schema_of
from partclipseg.formats.polygons import mask_polygons
from partclipseg.formats.segment import Segment
from partclipseg.inference.result import PartResult

PREFIX = "/x-anylabeling"

FINENESS = 0.001
"""Tolerance of outlines in perimeters, as the client's slider has it at first."""

WIDGETS = (
    {"name": "edit_text", "value": None},
    {"name": "button_send", "value": None},
    {"name": "input_conf", "value": None},
    {"name": "edit_conf", "value": 0.0},
    {"name": "mask_fineness_slider", "value": 10},
    {"name": "mask_fineness_value_label", "value": None},
    {"name": "toggle_preserve_existing_annotations", "value": False},
)
"""Controls that the client shows: a text prompt, the minimum score, the fineness of outlines."""


class RemoteRequest(PhotoRequest):
    """The client's request, translated into the fields of this API."""

    photo_key: ClassVar[str | None] = "image"
    sent_names: ClassVar[Mapping[str, str]] = {
        "photo": "image",
        "vocabulary": "params.text_prompt",
        "min_score": "params.conf_threshold",
        "fineness": "params.epsilon_factor",
    }
    min_score: float = Field(0.0, ge=0, le=1)
    fineness: float = Field(FINENESS, ge=0, le=0.1)

    @classmethod
    def translated(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        params = fields.get("params") or {}
        if not isinstance(params, dict):
            raise HTTPException(422, "params must be an object")
        sent = {"image": fields.get("image"), **{f"params.{name}": value for name, value in params.items()}}
        found = {name: sent.get(theirs) for name, theirs in cls.sent_names.items()}
        return {name: value for name, value in {"model": fields.get("model"), **found}.items() if value is not None}


class RemoteParams(BaseModel):
    """Settings of the client's user; its further fields, such as marks, change nothing."""

    text_prompt: str | None = Field(None, description="words as in /v1/segment; empty: the model's own")
    conf_threshold: float | None = Field(None, ge=0, le=1, description="minimum score")
    epsilon_factor: float | None = Field(None, ge=0, le=0.1, description="tolerance of outlines in perimeters")


class RemoteBody(BaseModel):
    """Request of the client."""

    model: str | None = None
    image: str = Field(description="the photo's file as data URI, or in base64")
    params: RemoteParams | None = None


class RemoteShape(BaseModel):
    """The outline of one piece of a part."""

    label: str
    shape_type: str
    points: list[list[float]] = Field(description="x, y in pixels; the last is the first")
    score: float
    group_id: int | None = Field(description="number of the object whose part it is, the same for all its parts")


class RemoteShapes(BaseModel):
    """All outlines of a photo. Without ``replace`` the client's own switch decides what stays."""

    shapes: list[RemoteShape]
    description: str


class RemoteAnswer(BaseModel):
    """Answer to a prediction."""

    success: bool
    data: RemoteShapes


class RemoteModel(BaseModel):
    """One line of the client's menu."""

    display_name: str
    widgets: list[dict[str, Any]]
    batch_processing_mode: str


class RemoteModels(BaseModel):
    """The client's menu."""

    success: bool
    data: dict[str, RemoteModel]


def add_xanylabeling(app: FastAPI, intake: Intake) -> None:
    """Add the paths to the API."""

    @app.get(f"{PREFIX}/v1/models", summary="Models for X-AnyLabeling's menu")
    async def remote_models() -> RemoteModels:
        kinds = {
            name: RemoteModel(
                display_name=f"partclipseg: {name}", widgets=list(WIDGETS), batch_processing_mode="text_prompt"
            )
            for name in intake.engine.segmenters
        }
        return RemoteModels(success=True, data=kinds)

    @app.post(
        f"{PREFIX}/v1/predict",
        summary="Outlines for X-AnyLabeling",
        response_model=RemoteAnswer,
        responses=PROBLEMS,
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema_of(RemoteBody)}}}
        },
    )
    async def remote_predict(request: Request) -> Response:
        """Take a photo as data URI and words as text prompt; answer polygons with label, score and group."""

        async def make(wanted: RemoteRequest) -> Response:
            task = await intake.task(wanted)
            if task.vocabulary.paired is not None:  # only objects have owners
                task = task._replace(instances="detector" if intake.engine.detector else "components", rest=True)
            found: PartResult = await intake.find(task, wanted.photo)
            shapes = await intake.in_thread(lambda: list(_shapes(found.at_least(wanted.min_score), wanted.fineness)))
            return JSONResponse({"success": True, "data": {"shapes": shapes, "description": ""}})

        return await intake.answer(request, RemoteRequest, make)


def _shapes(result: PartResult, fineness: float) -> Iterator[dict[str, Any]]:
    """Yield a shape for each piece of each part. The group is the number of the owner; parts without one have none."""
    for segment in result:
        for polygon in _outlines(segment, fineness):
            yield {
                "label": segment.name,
                "shape_type": "polygon",
                "points": [*polygon.tolist(), polygon[0].tolist()],
                "score": round(segment.score, 4),
                "group_id": segment.instance,
            }


def _outlines(segment: Segment, fineness: float) -> list[np.ndarray]:
    """Return polygons whose tolerance is this share of the longest perimeter; 0 is exact."""
    polygons = mask_polygons(segment.mask, 0)
    if not fineness:
        return polygons
    perimeters = [np.linalg.norm(polygon - np.roll(polygon, 1, axis=0), axis=1).sum() for polygon in polygons]
    return mask_polygons(segment.mask, fineness * max(perimeters))
