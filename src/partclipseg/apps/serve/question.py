"""Requests about photos: their fields, and the description of these."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from starlette.exceptions import HTTPException

from partclipseg.data.values import quoted
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.formats.format import Format
from partclipseg.formats.registry import chosen_formats, single_formats, usual_formats
from partclipseg.instances.found import MOST_OBJECTS, FoundObject
from partclipseg.json_file import distinct_keys
from partclipseg.vocabulary import MAX_WORD

AskedProtocol = Literal["pred_all", "oracle_obj"]


def listed(value: Any) -> Any:
    """Split a form's text ``a, b`` into a list."""
    return [word for part in value.split(",") if (word := part.strip())] if isinstance(value, str) else value


_PLAIN = bytes.maketrans(b"-_", b"+/")
"""Translation of url-safe base64 into the standard alphabet."""


def _known_formats(names: list[str], info: ValidationInfo) -> list[str]:
    kinds = single_formats()
    instances = info.data.get("instances") is not None
    usual = usual_formats(instances)
    try:
        return list(chosen_formats((known for name in names for known in (usual if name == ALL else [name])), kinds))
    except UsageError as error:
        raise ValueError(f"{error}, {ALL}") from None  # both of its sentences end with the names


ALL = "all"
"""Format name that stands for every format but those that are slow to make."""


def _describe_formats(schema: dict[str, Any]) -> None:
    """Add the formats to the field's schema when the API is created."""
    kinds = single_formats()
    lines = "; ".join(f"{name}: {kind.help}" for name, kind in kinds.items())
    slow = ", ".join(name for name, kind in kinds.items() if kind.on_request)
    schema["items"] = {"type": "string", "enum": [*kinds, ALL]}
    schema["description"] = f"What to answer, in forms separated by commas. {lines}; {ALL}: each of these but {slow}."


class GivenBox(BaseModel):
    """An object of the photo, known by its box."""

    model_config = ConfigDict(extra="forbid")

    object: str = Field(max_length=MAX_WORD, examples=["dog"])
    box: tuple[float, float, float, float] = Field(description="x, y, width, height in pixels")


_BOX = '{"object": "dog", "box": [x, y, width, height]}'


def _instances(value: Any) -> Any:
    """Read a form's text, which is one of the words or a JSON list; an empty field asks for nothing.

    Raises `ValueError` for anything else. Without it a wrong box would be told to be one of the words.
    """
    if isinstance(value, str):
        value = _of_text(value.strip())
    if isinstance(value, list):
        return _boxes(value)
    if value not in (None, *_SOURCES):
        words = ", ".join(map(repr, _SOURCES))
        raise ValueError(f"it must be {words} or a list of boxes, not {quoted(value)}")
    return value


_SOURCES = ("components", "detector")


def _of_text(text: str) -> Any:
    if not text.startswith("["):
        return text or None
    try:
        return json.loads(text, object_pairs_hook=distinct_keys)
    except PartCLIPSegError:
        raise
    except (ValueError, RecursionError):
        raise ValueError(f"it is not valid JSON: write [{_BOX}]") from None


def _boxes(entries: list[Any]) -> list[GivenBox]:
    if len(entries) > MOST_OBJECTS:
        raise ValueError(f"at most {MOST_OBJECTS} objects can be given for a photo, not {len(entries)}")
    boxes = []
    for place, entry in enumerate(entries, start=1):
        try:
            boxes.append(GivenBox.model_validate(entry))
        except ValidationError:
            raise ValueError(f"object {place} must be {_BOX}, not {quoted(entry)}") from None
    return boxes


class Question(BaseModel):
    """The words to look for, and how."""

    model_config = ConfigDict(extra="forbid")

    photo_key: ClassVar[str | None] = None
    """Name of the photo's field in JSON bodies; None for requests without a photo."""

    sent_names: ClassVar[Mapping[str, str]] = {}
    """Name of a field in JSON bodies, by that of this class, where they differ: errors name what the client sent."""

    vocabulary: str | dict[str, list[str]] | list[str | tuple[str, str]] | None = Field(
        None,
        description='What to look for: words such as "dog: head, torso, leg, tail; bus: body, wheel", all large parts, '
        'or "any: handle" for a part of any object; a mapping from object to parts '
        '({"dog": ["head", "torso"]}), a list of names (["dog\'s ear"]) or the name of a catalogue '
        "(pascal-part-116, ade20k-part-234, part-imagenet). Left out: the words that the model came with.",
    )
    model: str | None = Field(None, max_length=1000, description="A name from /v1/models. Left out: the first of them.")
    protocol: AskedProtocol | None = Field(
        None,
        description="pred_all: anything of the vocabulary may be there, or background. oracle_obj: the photo shows "
        "exactly the given objects; their parts share all pixels. Left out: oracle_obj if objects are given.",
    )
    objects: Annotated[list[str], BeforeValidator(listed)] | None = Field(
        None, description="Objects known to be in the photo, for oracle_obj; in forms separated by commas."
    )
    zoom: bool = Field(
        False,
        description="Look a second time, at crops around small objects at the photo's full resolution: for small "
        "parts. Each such object takes nearly as long as a photo.",
    )
    min_part_probability: float | None = Field(
        None,
        ge=0,
        le=1,
        description="A pixel whose best part has a lower probability, 0 to 1, belongs to the object without a part. "
        "Left out: 0.3, or 0 with known objects; a plain CLIPSeg has its threshold.",
    )

    instances: Annotated[
        Literal["components", "detector"] | Annotated[list[GivenBox], Field(max_length=MOST_OBJECTS)] | None,
        BeforeValidator(_instances),
    ] = Field(
        None,
        description="Tell the objects apart and say whose each part is. components: connected regions are objects; "
        'detector: the one that the server was started with; or boxes, [{"object": "dog", "box": [x, y, width, '
        f"height]}}], at most {MOST_OBJECTS}. Segments then have the number of their owner. Each object takes about a "
        "fifth of a photo's time.",
    )
    rest: bool = Field(
        False,
        description="With instances: keep parts that belong to no object found; with a detector or boxes that costs a "
        "look at the whole photo.",
    )

    @field_validator("objects")
    @classmethod
    def _some(cls, value: list[str] | None) -> list[str] | None:
        return value or None  # a form sends an empty field as ""

    @classmethod
    def translated(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a JSON body under the names of this class."""
        return fields

    def known_objects(self) -> tuple[str, ...] | None:
        """Return the objects of Oracle-Obj, None for Pred-All; raises `HTTPException` 422 if the fields disagree."""
        if self.protocol == "oracle_obj" and not self.objects:
            raise HTTPException(422, "protocol oracle_obj needs objects: name those in the photo")
        if self.protocol == "pred_all" and self.objects:
            raise HTTPException(422, "objects are for protocol oracle_obj: leave them out, or leave protocol out")
        return tuple(self.objects) if self.objects else None

    def source(self) -> tuple[Literal["components", "detector", "given"] | None, list[FoundObject]]:
        """Return what says where objects are, and the objects that are given; raises `UsageError` for what is none."""
        if isinstance(self.instances, list):
            return "given", [FoundObject(some.object, some.box) for some in self.instances]
        return self.instances, []

    def refuse_boxes(self) -> None:
        """Raise `HTTPException` 422 for given boxes, in requests about several photos."""
        if isinstance(self.instances, list):
            raise HTTPException(422, "boxes are for one photo: send it to /v1/segment, or ask for components")

    def check_instances(self) -> None:
        """Raise `HTTPException` 422 for fields that disagree about instances, as `PartSegmenter` would."""
        if self.instances is None and self.rest:
            raise HTTPException(422, "rest is for instances: say where objects are by the field instances")
        if self.instances is not None and self.zoom:
            raise HTTPException(422, "instances look at crops already: leave zoom out")

    def check_formats(self, names: Sequence[str], known: Mapping[str, Format]) -> None:
        """Raise `HTTPException` 422 for a format of instances where none are asked for."""
        needing = [name for name, kind in known.items() if kind.needs_instances and name in names]
        if self.instances is None and needing:
            what = f"the format {needing[0]}"
            raise HTTPException(422, f"{what} is for instances: say where objects are by the field instances")


class PhotoRequest(Question):
    """A photo and the words to look for in it."""

    photo_key: ClassVar[str | None] = "photo"

    photo: bytes = Field(
        description="The photo's file: JPEG, PNG, WebP, TIFF and others. A file in forms, base64 in JSON.",
        json_schema_extra={"format": "byte"},
    )
    name: str | None = Field(
        None, max_length=1000, description="The photo's name. Left out: in forms that of the file."
    )

    @field_validator("photo", mode="before")
    @classmethod
    def _decode(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            # Browsers encode a file as "data:image/png;base64,...".
            text = value.partition(",")[2] if value.startswith("data:") else value
            plain = text.encode("ascii").translate(_PLAIN, b" \t\r\n").rstrip(b"=")
            return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("the photo must be the file's bytes in base64") from None


class Output(Question):
    """The formats of an answer."""

    min_score: float = Field(
        0.0, ge=0, le=1, description="Parts whose score, 0 to 1, is lower than this become background."
    )
    opacity: float = Field(0.6, ge=0, le=1, description="Opacity of the colours in the format overlay, 0 to 1.")
    formats: Annotated[list[str], AfterValidator(_known_formats), BeforeValidator(listed)] = Field(
        ["json"], min_length=1, max_length=20, json_schema_extra=_describe_formats
    )

    def check_instances(self) -> None:
        super().check_instances()
        self.check_formats(self.formats, single_formats())


class SegmentRequest(PhotoRequest, Output):
    """A photo, the words to look for in it, and the formats of the answer."""


class BatchRequest(Output):
    """Several photos, the words to look for in them, and the formats of the answers."""

    photos: list[tuple[str | None, bytes]] = Field(min_length=1)
    """Name and file of each photo; in the form they are files `photo`."""


class ExplainRequest(PhotoRequest):
    """A photo and the words whose maps are wanted."""


def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a model with its definitions in place: references would point into the document."""
    schema = kind.model_json_schema()
    known = schema.pop("$defs", {})

    def in_place(node: Any) -> Any:
        if isinstance(node, list):
            return [in_place(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return in_place(known[node["$ref"].rpartition("/")[2]])
        return {name: in_place(one) for name, one in node.items()}

    return in_place(schema)


def form_schema(kind: type[Question]) -> dict[str, Any]:
    """Return the OpenAPI schema of the form: all fields but the files are text."""
    fields = kind.model_json_schema()["properties"]
    file: dict[str, Any] = {"type": "string", "format": "binary", "description": "The photo's file."}
    if "photos" in fields:
        file = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "The photos' files."}
    return {
        "type": "object",
        "required": ["photo"],
        "properties": {
            "photo": file,
            **{
                name: {"type": "string", "description": field["description"]}
                for name, field in fields.items()
                if name not in {"photo", "photos"}
            },
        },
    }
