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
from tests.apps.serve.job_runs import Scripted

from partclipseg.apps.serve.api import create_api
from partclipseg.apps.serve.jobs.run import Setup
from partclipseg.apps.serve.jobs.runner import Jobs

buffer = io.BytesIO()
Image.new("RGB", (9, 7), "teal").save(buffer, "PNG")
PHOTO = buffer.getvalue()


def test_no_request_breaks_the_server(make_engine, tmp_path, request):
    (tmp_path / "photos/cars").mkdir(parents=True)
    jobs = Jobs(tmp_path / "photos", tmp_path / "results", Setup({"random": None}), Scripted)
    request.addfinalizer(jobs.close)
    api = create_api(make_engine(max_classes=20, max_pixels=10_000), jobs)
    operations = [found.ok() for found in schemathesis.openapi.from_asgi("/openapi.json", api).get_all_operations()]
    answered: Counter[tuple[str, int]] = Counter()
    for operation in operations:
        # Requests as the description has them, and requests that break it.
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and operation.method in {"get", "delete"}:
                continue  # there is nothing to break
            examples = 30 if operation.method == "post" and operation.path != "/v1/jobs" else 10
            _send_many(operation.as_strategy(generation_mode=mode), answered, examples)
    assert {path for path, _ in answered} == {operation.path for operation in operations}
    # The requests go deep enough: some were segmented, some refused.
    assert {200, 422} <= {code for path, code in answered if path == "/v1/segment"}
    assert {201, 422} <= {code for path, code in answered if path == "/v1/jobs"}


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
        starts = case.path == "/v1/jobs" and isinstance(case.body, dict) and "folder" in case.body
        if starts and len(str(case.body)) % 2:
            case.body = {**case.body, "folder": "cars", "vocabulary": "dog: head, leg", "model": None}
        response = case.call()
        answered[case.path, response.status_code] += 1
        assert response.status_code < 500, response.text
        if case.path == "/v1/segment" and response.status_code >= 400:
            assert isinstance(response.json()["detail"], str)

    send()
