"""Rendered scenes to try, with the words of what they show: ``GET /v1/examples``."""

from __future__ import annotations

import io
from threading import Lock
from typing import NamedTuple

from fastapi import FastAPI, HTTPException, Response
from PIL import Image

from partclipseg.apps.serve.answers import ExampleInfo, ExampleList

SCENES, SCENE_SIZE = 4, 384
"""Number of scenes, and their side in pixels."""


class Example(NamedTuple):
    """Example photo, as a JPEG file, and words."""

    picture: bytes
    vocabulary: dict[str, list[str]]


class ExampleScenes:
    """Scenes of PartShapes by file name, rendered when they are first asked for. Thread-safe."""

    def __init__(self) -> None:
        self._made: dict[str, Example] = {}
        self._turn = Lock()

    @property
    def examples(self) -> dict[str, Example]:
        """Return the scenes, each with the words of its objects."""
        with self._turn:  # many may ask at once, and they are rendered once
            self._made = self._made or _render()
            return self._made


def _render() -> dict[str, Example]:
    from partclipseg.shapes.renderer import render_scene
    from partclipseg.shapes.world import partshapes_world

    parts = partshapes_world().vocabulary.to_dict()
    made = {}
    for index in range(SCENES):
        scene = render_scene("test", index, SCENE_SIZE)
        buffer = io.BytesIO()
        Image.fromarray(scene.image).save(buffer, "JPEG", quality=92, subsampling=0)
        words = {member.object: parts[member.object] for member in scene.members}
        made[f"scene-{index + 1}.jpg"] = Example(buffer.getvalue(), words)
    return made


def add_examples(app: FastAPI, scenes: ExampleScenes) -> None:
    """Add the paths of the examples to the API. They run in threads, since rendering takes a moment."""

    @app.get("/v1/examples", summary="Rendered scenes to try")
    def examples() -> ExampleList:
        found = [ExampleInfo(name=name, vocabulary=one.vocabulary) for name, one in scenes.examples.items()]
        return ExampleList(examples=found)

    @app.get(
        "/v1/examples/{name}",
        summary="The picture of a scene",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    def picture(name: str) -> Response:
        if name not in scenes.examples:
            raise HTTPException(404)
        return Response(scenes.examples[name].picture, media_type="image/jpeg")
