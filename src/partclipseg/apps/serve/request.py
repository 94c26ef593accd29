"""The body of ``POST /v1/segment``: a form with a file, or JSON with the photo in base64."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from partclipseg.inference.result import Format

Protocol = Literal["pred_all", "oracle_obj"]


def _listed(value: Any) -> Any:
    """Forms say lists as ``a, b``."""
    return [word for part in value.split(",") if (word := part.strip())] if isinstance(value, str) else value


class SegmentRequest(BaseModel):
    """A photo and what to look for in it."""

    model_config = ConfigDict(extra="forbid")

    photo: bytes = Field(
        description="The photo's file: JPEG, PNG, WebP, TIFF and others. A file in forms, base64 in JSON.",
        json_schema_extra={"format": "byte"},
    )
    name: str | None = Field(
        None, max_length=1000, description="The photo's name. Left out: in forms that of the file."
    )
    vocabulary: str | dict[str, list[str]] | list[str | tuple[str, str]] | None = Field(
        None,
        description='What to look for: words such as "dog: ear, tail; bus: wheel", a mapping from object to parts '
        '({"dog": ["ear", "tail"]}), a list of names (["dog\'s ear"]) or the name of a catalogue '
        "(pascal-part-116, ade20k-part-234, part-imagenet). Left out: the words that the model came with.",
    )
    model: str | None = Field(None, description="A name from /v1/models. Left out: the first of them.")
    protocol: Protocol | None = Field(
        None,
        description="pred_all: anything of the vocabulary may be there, or background. oracle_obj: the photo shows "
        "exactly the given objects; their parts share all pixels. Left out: oracle_obj if objects are given.",
    )
    objects: Annotated[list[str], BeforeValidator(_listed)] | None = Field(
        None, description="Objects known to be in the photo, for oracle_obj; in forms separated by commas."
    )
    zoom: bool = Field(
        False,
        description="Look a second time, at crops around small objects at the photo's full resolution: for small "
        "parts. Each such object takes nearly as long as a photo.",
    )
    min_score: float = Field(
        0.0, ge=0, le=1, description="Parts whose score, 0 to 1, is lower than this become background."
    )
    formats: Annotated[list[Format], BeforeValidator(_listed)] = Field(
        ["json"],
        min_length=1,
        description="What to answer: json (score, area and box of each part), coco (masks as RLE), labelme (outlines), "
        "png (image of class indices), overlay (the photo in colours); in forms separated by commas.",
    )

    @field_validator("photo", mode="before")
    @classmethod
    def _decode(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            # "data:image/png;base64,..." is what browsers make of a file.
            return base64.b64decode(value.partition(",")[2] if value.startswith("data:") else value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("the photo must be the file's bytes in base64") from None

    @field_validator("objects")
    @classmethod
    def _some(cls, value: list[str] | None) -> list[str] | None:
        return value or None  # an empty field of a form

    def known_objects(self) -> tuple[str, ...] | None:
        """The objects of Oracle-Obj, None for Pred-All; raises `HTTPException` 422 where the two fields disagree."""
        if self.protocol == "oracle_obj" and not self.objects:
            raise HTTPException(422, "protocol oracle_obj needs objects: name those in the photo")
        if self.protocol == "pred_all" and self.objects:
            raise HTTPException(422, "objects are for protocol oracle_obj: leave them out, or leave protocol out")
        return tuple(self.objects) if self.objects else None


FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["photo"],
    "properties": {
        "photo": {"type": "string", "format": "binary", "description": "The photo's file."},
        **{
            name: {"type": "string", "description": SegmentRequest.model_fields[name].description}
            for name in SegmentRequest.model_fields
            if name != "photo"
        },
    },
}
"""What the form takes, for OpenAPI: all fields but the file are text."""


async def read_request(request: Request, max_bytes: int) -> SegmentRequest:
    """Read and check the body. `max_bytes` limits the photo; the rest of the body gets as much again and 1 MB.

    Raises `HTTPException` 400 for a body that cannot be read, 413 for one that is too long, 415 for another
    content type, 422 for wrong fields; each with a sentence.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = _limited(request.stream(), 2 * max_bytes + 1_000_000, max_bytes)
    if kind == "multipart/form-data":
        fields = await _form_fields(request, body)
    elif kind == "application/json":
        fields = _json_fields(b"".join([chunk async for chunk in body]))
    else:
        await _forget(body)
        raise HTTPException(415, "send multipart/form-data with a file 'photo', or application/json")
    try:
        return SegmentRequest.model_validate(fields)
    except ValidationError as error:
        raise HTTPException(422, _sentence(error)) from None


async def _form_fields(request: Request, body: AsyncGenerator[bytes, None]) -> dict[str, Any]:
    try:
        form = await MultiPartParser(request.headers, body, max_files=1, max_fields=20).parse()
    except MultiPartException as error:
        await _forget(body)
        raise HTTPException(400, f"the form cannot be read: {error.message}") from None
    except (LookupError, ValueError) as error:  # no boundary, unknown charset
        await _forget(body)
        raise HTTPException(400, f"the form cannot be read: {error}") from None
    try:
        fields: dict[str, Any] = {}
        for name in form:
            values = form.getlist(name)
            if name == "photo":
                if not isinstance(values[0], UploadFile):
                    raise HTTPException(422, "photo must be a file: with curl, -F photo=@picture.jpg")
                fields["photo"] = await values[0].read()
                fields.setdefault("name", values[0].filename)
            elif any(isinstance(value, UploadFile) for value in values):
                if name not in SegmentRequest.model_fields:
                    raise HTTPException(422, f"there is no field {name!r}: send the photo as 'photo'")
                raise HTTPException(422, f"{name} must be text, not a file")
            elif text := ",".join(map(str, values)):  # a list may come as repeated fields; empty ones are left out
                fields[name] = text
        return fields
    finally:
        await form.close()


def _json_fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise HTTPException(422, "the JSON body must be an object with a field 'photo'")
    if not isinstance(fields.get("photo", ""), str):
        raise HTTPException(422, "photo must be the file's bytes in base64")
    return fields


async def _limited(stream: AsyncIterator[bytes], limit: int, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The stream, or `HTTPException` 413 once it is longer than `limit`, after the client has sent the rest."""
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size > 5 * limit:
            break
        if size <= limit:
            yield chunk
    if size > limit:
        raise HTTPException(413, f"the request is too long: photos may have {max_bytes:,} bytes on this server")


async def _forget(body: AsyncGenerator[bytes, None]) -> None:
    async for _ in body:
        pass


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "the body"
    if first["type"] == "missing":
        return f"{field} is missing"
    if first["type"] == "extra_forbidden":
        return f"there is no field {field!r}: the fields are {', '.join(SegmentRequest.model_fields)}"
    return f"{field}: {first['msg'].removeprefix('Value error, ')}"
