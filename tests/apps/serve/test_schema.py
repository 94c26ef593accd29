"""Whatever a client sends, the server does not break: requests generated from its own description."""

from __future__ import annotations

import base64
import io
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

pytest.importorskip("schemathesis")
pytest.importorskip("fastapi")

import schemathesis
from schemathesis import GenerationMode

from partclipseg.apps.serve.api import create_api

buffer = io.BytesIO()
Image.new("RGB", (9, 7), "teal").save(buffer, "PNG")
PHOTO = buffer.getvalue()


def test_no_request_breaks_the_server(make_engine):
    api = create_api(make_engine(max_classes=20, max_pixels=10_000))
    operations = [found.ok() for found in schemathesis.openapi.from_asgi("/openapi.json", api).get_all_operations()]
    answered: Counter[tuple[str, int]] = Counter()
    for operation in operations:
        # Requests as the description has them, and requests that break it.
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and operation.method == "get":
                continue  # there is nothing to break
            examples = 10 if operation.method == "get" else 60
            _send_many(operation.as_strategy(generation_mode=mode), answered, examples)
    assert {path for path, _ in answered} == {operation.path for operation in operations}
    # The requests go deep enough: some were segmented, some refused.
    assert {200, 422} <= {code for path, code in answered if path == "/v1/segment"}


def _send_many(cases, answered: Counter, count: int) -> None:
    checks = list(HealthCheck)

    @settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=checks)
    @given(case=cases)
    def send(case):
        # Random bytes are never a photo: most requests get a real one, so that their other fields matter.
        if isinstance(case.body, dict) and isinstance(case.body.get("photo"), str | bytes) and len(str(case.body)) % 4:
            form = case.media_type != "application/json"
            case.body["photo"] = PHOTO if form else base64.b64encode(PHOTO).decode()
            if len(str(case.body)) % 3:
                case.body["vocabulary"] = "dog: head, leg"  # random text is seldom a list of words
        response = case.call()
        answered[case.path, response.status_code] += 1
        assert response.status_code < 500, response.text
        if case.path == "/v1/segment" and response.status_code >= 400:
            assert isinstance(response.json()["detail"], str)

    send()
