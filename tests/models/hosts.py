"""A server on this machine that plays Google Drive and the Hugging Face hub, and small files for it to give."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import gdown
import huggingface_hub.constants
import pytest
import requests
import torch

from partclipseg.models.clipseg_weights import foreign_names
from partclipseg.models.fetch import fetch
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.tokenizer import CLIP_TOKENIZER

DRIVE_ID = "1ytZpfutk__67GLwB-4jMClehJlnAzYFS"
"""That of partclipseg-pascal in the catalogue."""

FORM = (
    '<html><body><form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    '<input type="hidden" name="id" value="{id}"><input type="hidden" name="confirm" value="t"></form></body></html>'
)
"""On one line, as Drive writes it."""

QUOTA = """<html><body><p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></body></html>"""


class Hosts(ThreadingHTTPServer):
    """Drive's files by id, the hub's by ``repository/file``, and what is wrong with the hosts today."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.drive: dict[str, bytes] = {}
        self.hub: dict[str, bytes] = {}
        self.trouble: str | None = None
        self.hub_says: tuple[int, str] | None = None
        """Status and error code that the hub answers to every question for a file."""
        self.limit: int | None = None
        """Bytes of a file after which the connection waits for `going_on`."""
        self.reached = threading.Event()
        self.going_on = threading.Event()
        self.asked: list[tuple[str, str | None]] = []
        """Path and range of each request."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hosts  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET(with_body=False)

    def do_GET(self, with_body: bool = True) -> None:
        address = urlsplit(self.path)
        self.server.asked.append((self.path, self.headers.get("Range")))
        if address.path in {"/uc", "/download"}:
            self._drive(parse_qs(address.query))
            return
        if address.path == "/":
            self._answer(200, b"hub", {}, with_body)
            return
        if self.server.hub_says is not None:
            status, code = self.server.hub_says
            self._answer(status, b"", {"X-Error-Code": code} if code else {}, with_body)
            return
        match = re.fullmatch(r"/(.+)/resolve/[^/]+/(.+)", address.path)
        content = self.server.hub.get(f"{match[1]}/{match[2]}") if match else None
        if match is None or content is None:
            known = any(match is not None and name.startswith(f"{match[1]}/") for name in self.server.hub)
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"}, with_body)
            return
        self._answer(200, content, {"X-Repo-Commit": "a" * 40}, with_body)

    def _drive(self, query: dict[str, list[str]]) -> None:
        content, trouble = self.server.drive.get(query["id"][0]), self.server.trouble
        page = {"Content-Type": "text/html; charset=utf-8"}
        if content is None:
            self._answer(404, b"<html>Not found</html>", page)
        elif trouble == "quota":
            self._answer(200, QUOTA.encode(), page)
        elif trouble == "busy":
            self._answer(503, b"<html>busy</html>", page)
        elif "confirm" not in query or trouble == "confirmation":
            self._answer(200, FORM.format(id=query["id"][0]).encode(), page)
        elif trouble == "page":
            self._answer(200, b"<!DOCTYPE html>".ljust(len(content)), {"Content-Disposition": "attachment"})
        else:
            self._answer(200, content, {"Content-Disposition": 'attachment; filename="model.pth"'})

    def _answer(self, status: int, content: bytes, headers: dict[str, str], with_body: bool = True) -> None:
        start, whole = 0, len(content)
        if status == 200 and (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            start, status = int(asked[1]), 206
            headers = {**headers, "Content-Range": f"bytes {start}-{whole - 1}/{whole}"}
        self.send_response(status)
        fixed = {"Content-Length": str(whole - start), "Content-Type": "application/octet-stream"}
        fixed["ETag"] = hashlib.sha256(content).hexdigest().join('""')
        for name, value in {**fixed, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        is_file = "Content-Disposition" in headers and self.server.trouble != "page"
        if not with_body:
            return
        try:
            if is_file and self.server.limit is not None and start <= self.server.limit:
                self.wfile.write(content[start : self.server.limit])
                self.wfile.flush()
                self.server.reached.set()
                self.server.going_on.wait(20)
                start = self.server.limit
            if is_file and self.server.trouble == "breaks":
                self.wfile.write(content[start : start + (whole - start) // 2])
                self.close_connection = True
                return
            if is_file and self.server.trouble == "stops":
                self.close_connection = True
                return
            self.wfile.write(content[start:])
        except OSError:
            self.close_connection = True


@contextmanager
def serving() -> Iterator[Hosts]:
    server = Hosts()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.going_on.set()
        server.shutdown()
        server.server_close()


def redirect(patch: pytest.MonkeyPatch, address: str) -> None:
    """Send this process's requests to Google Drive and to the hub to `address`."""
    send = requests.adapters.HTTPAdapter.send

    def local(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        request.url = re.sub(r"^https://[\w.]+\.google\.com", address, request.url)
        return send(self, request, *args, **kwargs)

    patch.setattr(requests.adapters.HTTPAdapter, "send", local)
    patch.setattr(sys.modules[gdown.download.__module__], "CHUNK_SIZE", 1 << 14)  # the files here are small
    patch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # whatever the environment of the tests says
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    patch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def released_file(config: PartCLIPSegConfig, seed: int = 0) -> bytes:
    """A file laid out as released PartCLIPSeg ones are, of a small random model."""
    torch.manual_seed(seed)
    tensors = {}
    for name, tensor in PartCLIPSegModel(config).state_dict().items():
        names = foreign_names(name, config)
        shares = tensor.chunk(len(names)) if len(names) > 1 else [tensor]
        tensors |= zip((f"partclipseg_model.{foreign}" for foreign in names), (s.clone() for s in shares), strict=True)
    file = io.BytesIO()
    torch.save({"model": tensors, "iteration": 7}, file)
    return file.getvalue()


def own_catalogue(home: Path, content: bytes, config: PartCLIPSegConfig) -> None:
    """Say in `home` that partclipseg-pascal is a file of the length of `content` and of the size of `config`."""
    entry = {
        "method": "partclipseg",
        "data": "Pascal-Part-116",
        "source": "part-clipseg",
        "drive": DRIVE_ID,
        "megabytes": len(content) / 1e6,
        "vocabulary": "dog: ear, tail",
        "config": {**config.to_dict(), "reference_object_lookup": True},
    }
    home.mkdir(parents=True, exist_ok=True)
    (home / "models.json").write_text(json.dumps({"models": {"partclipseg-pascal": entry}}))


def tokenizer_on_hub(folder: Path) -> dict[str, bytes]:
    """The files of a tokenizer, as the hub's `Hosts.hub` takes them."""
    return {f"{CLIP_TOKENIZER}/{path.name}": path.read_bytes() for path in folder.iterdir()}


def fetch_and_die(name: str, folder: str, address: str, point: str | None) -> None:
    """Fetch a model to `folder` in a process of its own, which kills itself when `point` is called."""
    os.environ["PARTCLIPSEG_HOME"] = folder
    patch = pytest.MonkeyPatch()
    redirect(patch, address)
    torch.set_num_threads(1)
    if point:
        patch.setattr(point, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    fetch(name)


def leftovers(cache: Path) -> list[str]:
    """Files in the cache that belong to no model."""
    return sorted(path.name for path in (cache / "files").iterdir() if path.suffix != ".lock")
