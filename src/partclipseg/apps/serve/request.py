"""Bodies of requests about photos: a form with files, or JSON with the photo in base64."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from partclipseg.apps.serve.question import Question, listed
from partclipseg.apps.serve.queue import QueueFullError
from partclipseg.apps.serve.words import check_words, shortened
from partclipseg.counts import count_of
from partclipseg.json_file import distinct_keys

Wanted = TypeVar("Wanted", bound=Question)


class Budget:
    """Maximum number of bytes of all request bodies held at the same time; a single body may be larger."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], bool]]:
        """Yield a function that reserves a number of bytes if available; they are released at the end."""
        taken = 0

        def take(count: int) -> bool:
            nonlocal taken
            if self.held > taken and self.held + count > self.limit:
                return False
            self.held += count
            taken += count
            return True

        try:
            yield take
        finally:
            self.held -= taken


async def receive_body(
    request: Request, max_bytes: int, max_classes: int, take: Callable[[int], bool], max_photos: int = 1
) -> bytearray:
    """Receive the body: `max_photos` photos of `max_bytes` on average, base64 in JSON, and `_words_limit` bytes for
    the rest.

    Several photos come in a form, and requests without photos as JSON. Raises `HTTPException` 413 for a body that is
    too long and 415 for another type, and `QueueFullError` if `take`, called for each chunk, returns False. The rest of
    the request has been read by then.
    """
    body, size = bytearray(), 0
    kinds = _kinds(max_photos)
    photo = 3 * max_bytes // 2 if _kind(request.headers) == "application/json" else max_bytes
    limit, full = max_photos * photo + _words_limit(max_classes), False
    async for chunk in request.stream():
        size += len(chunk)
        if size > 5 * limit:
            break
        if size > limit or full or not take(len(chunk)):
            full = full or size <= limit
            body.clear()
        else:
            body += chunk
    if size > limit:
        several = f", and a request {max_photos} photos" if max_photos > 1 else ""
        longest = f"photos may have {max_bytes:,} bytes" if max_photos else f"it may have {limit:,} bytes"
        raise HTTPException(413, f"the request is too long: {longest} on this server{several}")
    if full:
        raise QueueFullError("the server receives too many bytes at once: try again in a few seconds")
    if _kind(request.headers) not in kinds:
        raise HTTPException(415, f"send {', or '.join(kinds.values())}")
    return body


def read_request(
    headers: Headers, body: bytearray, max_classes: int, kind: type[Wanted], max_photos: int = 1
) -> Wanted:
    """Read and check the body of a request of this kind. This can take long: call it in a thread.

    Raises `HTTPException` 400 for a body that cannot be read, 413 for one that is too long beside the photo, 422
    for wrong fields, `UsageError` for words beyond the limits; each with a sentence about the first fault.
    """
    sent_names: Mapping[str, str] = {"photos": "photo"}
    if _kind(headers) == "application/json":
        sent_names = kind.sent_names
        fields = kind.translated(_json_fields(body, max_classes, kind.photo_key))
    else:
        fields = asyncio.run(_form_fields(headers, body, max_classes, kind, max_photos))
    for name in fields:
        if name not in kind.model_fields:
            known = ", ".join(sent_names.get(field, field) for field in kind.model_fields)
            raise HTTPException(422, shortened(f"there is no field {name!r}: the fields are {known}"))
    check_words(fields.get("vocabulary"), max_classes)
    objects = fields.get("objects")
    check_words(listed(objects) if isinstance(objects, str) else objects, max_classes)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise HTTPException(422, shortened(_sentence(error, sent_names))) from None


def _kind(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _kinds(max_photos: int) -> dict[str, str]:
    """Return the content types of requests with so many photos at most, each with its description."""
    kinds = {"multipart/form-data": "multipart/form-data with a file 'photo'", "application/json": "application/json"}
    left_out = {0: "multipart/form-data", 1: None}.get(max_photos, "application/json")
    return {kind: text for kind, text in kinds.items() if kind != left_out}


def _words_limit(max_classes: int) -> int:
    """Return the maximum number of bytes beside the photo: each class may be a long word, written as JSON escapes."""
    return 64_000 + 1_000 * max_classes


def _values_limit(max_classes: int) -> int:
    """Return the maximum number of values of a JSON body: a pair of words and their list for each class."""
    return 1_000 + 10 * max_classes


async def _form_fields(
    headers: Headers, body: bytearray, max_classes: int, kind: type[Question], max_photos: int
) -> dict[str, Any]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield bytes(body)

    words = _words_limit(max_classes)
    try:
        parser = MultiPartParser(headers, stream(), max_files=max_photos, max_fields=20, max_part_size=words)
        parser.spool_max_size = len(body) + 1  # photos stay in memory: none is written to the disk
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            remedy = "send several to /v1/batch" if max_photos == 1 else "send the others in another request"
            most = count_of(max_photos, "photo")
            raise HTTPException(413, f"a request here may have {most} on this server: {remedy}") from None
        raise HTTPException(400, shortened(f"the form cannot be read: {error.message.rstrip('.')}")) from None
    except (LookupError, ValueError) as error:  # no boundary, unknown charset
        raise HTTPException(400, shortened(f"the form cannot be read: {error}")) from None
    try:
        fields: dict[str, Any] = {}
        for name in form:
            values = form.getlist(name)
            if name == "photo":
                files = [value for value in values if isinstance(value, UploadFile)]
                if len(files) < len(values):
                    raise HTTPException(422, "photo must be a file: with curl, -F photo=@picture.jpg")
                if "photos" in kind.model_fields:
                    fields["photos"] = [(file.filename, await file.read()) for file in files]
                else:
                    fields["photo"] = await files[0].read()
                    fields.setdefault("name", files[0].filename)
            elif name == "photos":
                raise HTTPException(422, "there is no field 'photos': send each photo as 'photo'")
            elif any(isinstance(value, UploadFile) for value in values):
                if name not in kind.model_fields:
                    raise HTTPException(422, shortened(f"there is no field {name!r}: send the photo as 'photo'"))
                raise HTTPException(422, f"{name} must be text, not a file")
            elif text := ",".join(map(str, values)):  # a list may come as repeated fields; empty ones are left out
                fields[name] = text
        return fields
    finally:
        await form.close()


def _json_fields(body: bytearray, max_classes: int, photo: str | None) -> dict[str, Any]:
    _check_json_size(body, max_classes, photo)
    try:
        fields = json.loads(body, object_pairs_hook=distinct_keys)
    except RecursionError:
        raise HTTPException(400, "the body is not valid JSON: it is nested too deeply") from None
    except ValueError as error:
        raise HTTPException(400, shortened(f"the body is not valid JSON: {error}")) from None
    if not isinstance(fields, dict):
        field = f" with a field {photo!r}" if photo else ""
        raise HTTPException(422, f"the JSON body must be an object{field}")
    if photo and not isinstance(fields.get(photo, ""), str):
        raise HTTPException(422, f"{photo} must be the file's bytes in base64")
    return fields


def _check_json_size(body: bytearray, max_classes: int, photo: str | None) -> None:
    """Refuse JSON that would take long to parse, by counts that `bytes` computes quickly.

    A body has as many values as commas and brackets, and one string, the photo, may be long. Base64 has neither
    commas nor brackets nor quotes.
    """
    most = _values_limit(max_classes)
    values = sum(map(body.count, (b",", b"[", b"{")))
    if values > most or body.count(b'"') > 4 * most:
        raise HTTPException(413, f"the request is too long: its JSON may have {most:,} values on this server")
    words = _words_limit(max_classes)
    if len(body) <= words:
        return
    pieces = body.split(b'"')  # strings, and the text between them
    longest = max(range(len(pieces)), key=lambda index: len(pieces[index]))
    key = pieces[longest - 2] if longest >= 3 and pieces[longest - 1].strip() == b":" else b""
    if photo is None or key != photo.encode() or len(body) - len(pieces[longest]) > words:
        raise HTTPException(
            413, f"the request is too long: beside the photo it may have {words:,} bytes on this server"
        )


_FAULTS = {
    "missing": "is missing",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "may have letters, digits, _, - and . alone, a letter or digit first and no . last",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "list_type": "must be a list",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} entries",
}
"""Sentence about a field for each of pydantic's kinds of error: its own messages name no remedy."""

_WORDS = (
    'must be text such as "dog: head, torso, leg, tail", a mapping from each object to a list of its parts, '
    "or a list of names"
)


def _sentence(error: ValidationError, sent_names: Mapping[str, str]) -> str:
    """Return a sentence about the first fault; `sent_names` as in `Question`."""
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "the body"
    field, kind = sent_names.get(name, name), first["type"]
    if name == "vocabulary":  # pydantic names the first of its forms alone
        return f"{field} {_WORDS}"
    if kind == "string_type" and len(first["loc"]) > 1:
        return f"{field} must be a list of words"
    if kind in _FAULTS:
        return f"{field} {_FAULTS[kind].format(**first.get('ctx', {}))}"
    return f"{field}: {first['msg'].removeprefix('Value error, ')}"
