"""Paths of labelling jobs: ``/v1/jobs``, which only servers with ``--jobs`` answer."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import PurePosixPath
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from partclipseg.apps.serve.access import drain
from partclipseg.apps.serve.answers import PROBLEMS, ErrorAnswer
from partclipseg.apps.serve.intake import Intake
from partclipseg.apps.serve.jobs.job import JobInfo, JobList, JobOptions, JobRequest
from partclipseg.apps.serve.jobs.runner import Jobs
from partclipseg.apps.serve.question import schema_of
from partclipseg.vocabulary import Vocabulary

PATH = "/v1/jobs"

_OFF = "this server labels no folders: that needs a server that was started with --jobs"

_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "there is no such job"}}
_OTHER: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "there is a job of this name with other options"}
}


def add_jobs(app: FastAPI, intake: Intake, jobs: Jobs | None) -> None:
    """Add the paths to the API; without `jobs` they refuse everything with 403."""
    if jobs is None:
        for path in (PATH, f"{PATH}/{{name:path}}"):
            app.add_api_route(path, _off, methods=["GET", "POST", "DELETE"], include_in_schema=False)
        return

    @app.post(
        PATH,
        summary="Label a folder on the server",
        response_model=JobInfo,
        responses={201: {"model": JobInfo, "description": "the job is new"}, **PROBLEMS, **_OTHER},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": schema_of(JobRequest),
                        "example": {"folder": "cars/monday", "vocabulary": {"car": ["body", "window", "wheel"]}},
                    }
                },
            }
        },
    )
    async def start_job(request: Request) -> Response:
        """Queue a job that runs `partclipseg label` on a folder.

        The same request again goes on with the job where it was: after it was stopped or has failed, or for photos
        that came since. One job runs at a time.
        """
        async with intake.within_time(), AsyncExitStack() as held:
            wanted = await intake.receive(request, JobRequest, held, max_photos=0)
            name, options, vocabulary = await _asked(intake, wanted)
            try:
                job, new = await intake.in_thread(jobs.submit, name, options, vocabulary)
            except OSError as error:
                raise HTTPException(503, f"the job cannot be stored: {error.strerror}") from error
        return JSONResponse(job.model_dump(), 201 if new else 200, {"Location": f"{PATH}/{name}"})

    @app.get(PATH, summary="All jobs")
    async def all_jobs() -> JobList:
        return JobList(jobs=jobs.all())

    @app.get(f"{PATH}/{{name}}", summary="How far a job is", responses=_UNKNOWN)
    async def one_job(name: str) -> JobInfo:
        return _known(jobs.get(name))

    @app.delete(f"{PATH}/{{name}}", summary="Stop a job", responses=_UNKNOWN)
    async def stop_job(name: str) -> JobInfo:
        """Stop a job that waits or runs; what is labelled is kept, and the same request goes on with it.

        A run that is `stopping` finishes its batch of photos first.
        """
        return _known(await intake.in_thread(jobs.stop, name))


async def _off(request: Request) -> Response:
    await drain(request.receive)
    raise HTTPException(403, _OFF)


def _known(job: JobInfo | None) -> JobInfo:
    if job is None:
        raise HTTPException(404)
    return job


async def _asked(intake: Intake, wanted: JobRequest) -> tuple[str, JobOptions, Vocabulary]:
    """Return the job's name, options and vocabulary; raises `UsageError` and `HTTPException` 422 for wrong ones."""
    name = wanted.job_name()
    wanted.refuse_boxes()
    task = await intake.task(wanted)
    intake.engine.check(task)
    assert task.instances != "given"
    options = JobOptions(
        folder=PurePosixPath(wanted.folder).as_posix(),
        model=task.model,
        vocabulary=list(task.vocabulary.names),
        objects=list(task.objects or ()),
        zoom=task.zoom,
        instances=task.instances,
        rest=task.rest,
        min_score=wanted.min_score,
        min_part_probability=wanted.min_part_probability,
        formats=wanted.formats,
    )
    return name, options, task.vocabulary
