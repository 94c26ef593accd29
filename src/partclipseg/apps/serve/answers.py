"""Answers of the HTTP API: their fields, which its description shows, and the JSON of a result."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, create_model

from partclipseg.apps.serve.question import AskedProtocol
from partclipseg.formats.format import Document, encoded
from partclipseg.formats.registry import single_formats
from partclipseg.inference.result import PartResult

OVERLAY = "overlay"
"""The format that `SegmentRequest.opacity` is about."""


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


class Answer(BaseModel):
    """Fields that every answer about a photo has."""

    model_config = ConfigDict(extra="forbid")

    model: str
    protocol: AskedProtocol
    photo: str = Field(description="name of the photo")
    width: int
    height: int
    unknown_words: list[str] = Field(description="words that the model has never seen and can only guess")
    seconds: float = Field(description="from the request to its answer")


class SegmentAnswer(Answer):
    """Segments found; each further field is present only if its format was requested."""

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


class LayerEntry(BaseModel):
    """One line of a layer's legend."""

    name: str = Field(examples=["dog's ear", "rest of the dog"])
    object: str | None = Field(description="null for parts of any object")
    part: str | None = Field(description="null for whole objects and their rest")
    rest: bool = Field(description="whether it is the pixels of the object that belong to none of its parts")
    instance: int | None = Field(description="number of the object whose part it is; only with instances")
    value: int = Field(description="of its pixels in `map`")
    score: float = Field(description="mean probability over its pixels, 0 to 1")
    share: float = Field(description="of the photo's pixels, 0 to 1")
    colour: list[int] = Field(description="red, green, blue, 0 to 255")


class Layer(BaseModel):
    """One reading of the result: a map of the photo, and what its values stand for."""

    map: str = Field(description="base64 PNG, at most 1280 pixels a side; a pixel's value is red + 256 green, or 0")
    entries: list[LayerEntry] = Field(description="objects by size, and the parts of each by size, its rest last")


class HeatEntry(BaseModel):
    """One map of an atlas."""

    kind: Literal["object-part", "object", "part"]
    name: str
    peak: float = Field(description="greatest probability, or greatest share of the attention")


class HeatMaps(BaseModel):
    """Maps of one kind, side by side in one picture."""

    atlas: str = Field(description="base64 PNG, grey: the maps row by row")
    columns: int = Field(description="maps in a row of the atlas")
    height: int = Field(description="of one map, in pixels")
    width: int
    entries: list[HeatEntry]


class Layers(BaseModel):
    """The three readings of one result."""

    object_parts: Layer
    objects: Layer
    parts: Layer = Field(description="what the part words say alone, whatever the object, inside the objects found")


class Heat(BaseModel):
    """Maps of each class, object and part; null where the model has none, or where there are too many classes."""

    probability: HeatMaps | None = None
    attention: HeatMaps | None = None


class ExplainAnswer(Answer):
    """A result with the maps that led to it, as the page shows them."""

    picture: str = Field(description="base64 JPEG of the photo, upright, at most 1280 pixels a side")
    layers: Layers
    heat: Heat


class ModelInfo(BaseModel):
    """A loaded model."""

    name: str
    kind: str = Field(examples=["PartCLIPSegModel"])
    parameters: int
    image_size: list[int] = Field(description="height and width that photos are resized to, in pixels")
    device: str
    built_in: bool = Field(description="whether it is the built-in model, which knows rendered scenes only, not photos")
    vocabulary: dict[str, list[str]] | None = Field(description="its own words, used where a request gives none")


class ModelList(BaseModel):
    """List of the models; the first is the default."""

    models: list[ModelInfo]
    instances: list[str] = Field(description="words of the field `instances` that this server can answer")


class CatalogInfo(BaseModel):
    """A list of words that has a name."""

    name: str
    classes: int = Field(description="number of object-parts")
    vocabulary: dict[str, list[str]]


class CatalogList(BaseModel):
    """The catalogues that `vocabulary` may name."""

    catalogs: list[CatalogInfo]


class ExampleInfo(BaseModel):
    """A rendered scene to try."""

    name: str = Field(description="of its picture at /v1/examples/NAME")
    vocabulary: dict[str, list[str]] = Field(description="the objects that it shows, with their parts")


class ExampleList(BaseModel):
    """Rendered scenes to try."""

    examples: list[ExampleInfo]


class ErrorAnswer(BaseModel):
    """Why there is no result, as a sentence."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer, "description": text}
    for code, text in {
        400: "the body cannot be read",
        401: "the token is missing or wrong",
        403: "the server is for this machine alone, and was called by another name or by another page",
        413: "too many bytes, pixels or photos",
        415: "neither a form nor JSON",
        422: "not a photo, wrong words, too many classes, or another wrong field",
        500: "a fault of the server, which its log describes",
        503: "no memory for this photo, or the queue is full: try again after the seconds in Retry-After",
        504: "not done within the time limit",
    }.items()
}
"""Answers without a result, for the description of a path."""


def content_of(result: PartResult, formats: Iterable[str], opacity: float) -> dict[str, Any]:
    """Return a photo's part of an answer: the fields of json, and the others by the name of their format."""
    content: dict[str, Any] = {"photo": result.name, "width": result.size[1], "height": result.size[0]}
    for name in formats:
        if name == OVERLAY:
            content[name] = _in_json(result.overlay(opacity=opacity))
            continue
        [made] = result.documents([name]).values()
        if name == "json":
            assert isinstance(made, dict)
            content.update(made)
        else:
            content[name] = _in_json(made)
    return content


def files_of(result: PartResult, formats: Iterable[str], opacity: float) -> dict[str, bytes]:
    """Return the files of these formats by name, as ``partclipseg predict`` would write them."""
    files: dict[str, bytes] = {}
    for name in formats:
        if name == OVERLAY:
            suffix = single_formats()[name].suffix
            files[Path(result.name).stem + suffix] = encoded(result.overlay(opacity=opacity))
        else:
            files.update(result.files([name]))
    return files


def _in_json(document: Document) -> Any:
    """Return a document with its pictures as base64 PNG."""
    if isinstance(document, Image.Image):
        return base64.b64encode(encoded(document)).decode()
    if isinstance(document, dict):
        return {name: _in_json(made) if isinstance(made, Image.Image) else made for name, made in document.items()}
    return document
