"""Client of a server that ``partclipseg serve`` has started."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from partclipseg.counts import count_of
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import refusal
from partclipseg.vocabulary import Vocabulary

AskedWords = str | Mapping[str, Iterable[str]] | Iterable[str] | Vocabulary | None


class Client:
    """Asks a server about photos. Every method raises `PartCLIPSegError` with the server's sentence.

    Words are text that the server reads, or what else `Vocabulary.load` takes. `options` are the further fields of
    ``POST /v1/segment``, such as ``model``, ``objects``, ``zoom``, ``instances`` or ``formats``.
    """

    def __init__(self, address: str = "http://127.0.0.1:7860", token: str | None = None, timeout: float = 120) -> None:
        """Make a client.

        Args:
            address: what the server has printed at its start; the token in it counts if no other is given.
            token: the server's token, if it asks for one.
            timeout: seconds without a byte of the answer after which a request has failed.

        Raises `UsageError` for an address that is none, a time that is not positive, and a token that no server takes.
        """
        if not timeout > 0:
            raise UsageError(f"timeout is {timeout}: give a number of seconds above 0")
        try:
            parts = urlsplit(address if "://" in address else f"http://{address}")
        except ValueError:  # brackets that are not closed, for one
            parts = urlsplit("")
        if not parts.netloc:
            raise UsageError(f"{address!r} is no address: write it as the server has printed it at its start")
        self._address, self._timeout = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", timeout
        token = token or next(iter(parse_qs(parts.query).get("token", ())), None)
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _SecondTry())
        if token := (token or "").strip():  # a token that was read from a file ends with a line break
            if not re.fullmatch("[!-~]+", token):
                raise UsageError("a token is one word of ASCII letters, digits and signs: give that of the server")
            self._session.headers["Authorization"] = f"Bearer {token}"

    def models(self) -> list[dict[str, Any]]:
        """Return the server's models; the first is the default."""
        return self._ask("GET", "/v1/models").json()["models"]

    def segment(self, photo: str | Path | bytes, vocabulary: AskedWords = None, **options: Any) -> dict[str, Any]:
        """Return the answer for one photo, a path or a file's content; by default its ``segments`` and ``objects``."""
        return self._post("/v1/segment", [photo], vocabulary, options).json()

    def archive(self, photo: str | Path | bytes, vocabulary: AskedWords = None, **options: Any) -> bytes:
        """Return a ZIP of the photo's files; by default of all formats but soft masks."""
        headers = {"Accept": "application/zip"}
        return self._post("/v1/segment", [photo], vocabulary, {"formats": "all", **options}, headers=headers).content

    def segment_many(
        self, photos: Iterable[str | Path | bytes], vocabulary: AskedWords = None, **options: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield the answer for each photo as it comes; ``status`` is 200, or else ``detail`` says why there is none.

        No photos have no answers. Raises `UsageError` for a single photo in place of a list.
        """
        if isinstance(photos, str | bytes | Path):
            raise UsageError("segment_many takes a list of photos: give one photo to segment")
        if not (asked := list(photos)):
            return
        answer = self._post("/v1/batch", asked, vocabulary, options, stream=True)
        with self._named_errors(), answer:
            yield from map(json.loads, answer.iter_lines())

    def start_job(self, folder: str, vocabulary: AskedWords = None, **options: Any) -> dict[str, Any]:
        """Have a folder on the server labelled, or go on with that, and return the job.

        `folder` is a path below the server's ``--jobs``; `options` are the further fields of ``POST /v1/jobs``.
        """
        asked = {"folder": folder, "vocabulary": _plain(vocabulary), **options}
        return self._ask("POST", "/v1/jobs", json={k: v for k, v in asked.items() if v is not None}).json()

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs of the server."""
        return self._ask("GET", "/v1/jobs").json()["jobs"]

    def job(self, name: str) -> dict[str, Any]:
        """Return one job: its ``state``, and how many of its ``photos`` are ``labelled``."""
        return self._ask("GET", _of_job(name)).json()

    def stop_job(self, name: str) -> dict[str, Any]:
        """Stop a job and return it; what is labelled is kept."""
        return self._ask("DELETE", _of_job(name)).json()

    def _post(
        self, path: str, photos: list[Any], vocabulary: AskedWords, options: Mapping[str, Any], **more: Any
    ) -> requests.Response:
        fields = {**options, "vocabulary": _plain(vocabulary)}
        data = {name: _field(value) for name, value in fields.items() if value is not None}
        with ExitStack() as stack:
            try:
                contents = [one if isinstance(one, bytes) else stack.enter_context(open(one, "rb")) for one in photos]
            except OSError as error:
                raise PartCLIPSegError(refusal(error)) from error
            except ValueError:  # of `open`, for this alone
                raise PartCLIPSegError("the path of a photo holds a NUL: give another, or the file's content") from None
            return self._ask("POST", path, data=data, files=[("photo", one) for one in contents], **more)

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        with self._named_errors():
            answer = self._session.request(method, self._address + path, timeout=self._timeout, **more)
        if answer.ok:
            return answer
        try:
            sentence = str(answer.json()["detail"])
        except (ValueError, KeyError, TypeError):
            sentence = f"{self._address} answered with status {answer.status_code}"
        raise PartCLIPSegError(sentence)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raise `PartCLIPSegError` for an answer, or the rest of one, that does not come."""
        try:
            yield
        except requests.RequestException as error:
            # Within the body of an answer, requests raises a ConnectionError that holds urllib3's.
            if any(isinstance(one, requests.ReadTimeout | ReadTimeoutError) for one in (error, *error.args)):
                limit = count_of(self._timeout, "second")
                raise PartCLIPSegError(
                    f"no answer from {self._address} within {limit}: raise timeout, or ask for less"
                ) from None
            raise PartCLIPSegError(f"no answer from {self._address}: is the server running there?") from error


class _SecondTry(HTTPAdapter):
    """Sends a request once more whose connection was closed before any answer.

    A server closes a connection that has been idle for some seconds: what is sent there at that moment is lost.
    """

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        try:
            return super().send(request, *args, **options)
        except requests.ConnectionError as error:
            if not isinstance(error.args[0], ProtocolError):  # such as one that nobody accepts
                raise
            return super().send(request, *args, **options)


def _plain(vocabulary: AskedWords) -> str | None:
    """Return words as text."""
    return vocabulary if isinstance(vocabulary, str | None) else Vocabulary.load(vocabulary).to_text()


def _of_job(name: str) -> str:
    if not name:
        raise UsageError("the name of a job is empty: give what start_job has returned as name")
    return f"/v1/jobs/{quote(name, safe='')}"


def _field(value: Any) -> Any:
    """Return a value as a form holds it: lists of words as they are, boxes as JSON."""
    is_table = isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value)
    return json.dumps(value) if is_table else value
