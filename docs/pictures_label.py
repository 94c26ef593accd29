"""Takes the picture of docs/labelling.md, a report of `partclipseg label`, in Debian's chromium."""

from __future__ import annotations

import io
import tempfile
from contextlib import chdir
from pathlib import Path

from pictures_serve import window
from PIL import Image

from partclipseg.apps.cli import main
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.world import partshapes_world

SCENES = 12
HEIGHT = 1330
"""Size of the window, in pixels: it shows the counts, the failures, the sample and the first classes."""


def report_picture() -> Image.Image:
    """The top of the report on some scenes and a file that is no photo, with the built-in model and all its words."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder), window(1280, HEIGHT) as page:
        Path("scenes").mkdir()
        for index in range(SCENES):
            Image.fromarray(render_scene("test", index, 384).image).save(f"scenes/scene{index:02}.png")
        Path("scenes/broken.jpg").write_bytes(b"not a photo")
        partshapes_world().vocabulary.save("words.json")
        main(["label", "scenes", "--vocabulary", "words.json", "--output", "labels"])
        page.goto(Path("labels/report.html").absolute().as_uri())
        return Image.open(io.BytesIO(page.screenshot())).convert("RGB")
