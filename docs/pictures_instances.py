"""The picture of docs/instances.md: one scene, and whose each part is by three ways to say where objects are."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.instances.detectors import Detector
from partclipseg.instances.found import FoundObject
from partclipseg.models.registry import BUILT_IN_DETECTOR
from partclipseg.shapes.renderer import render_scene
from partclipseg.shapes.world import partshapes_world

SCENE = 5565
"""Index in the split test: this scene is the first that shows three animals of one kind beside another object."""

SIDE, GAP, LINE = 380, 16, 30


def drawing(model: str | None) -> Image.Image:
    """The scene, then what regions, the built-in detector's boxes and true masks give; RGB."""
    scene, world = render_scene("test", SCENE, 384), partshapes_world()
    words = {member.object: list(world.objects_by_word[member.object].parts) for member in scene.members}
    masks = [
        FoundObject.from_mask(member.object, scene.instances == index) for index, member in enumerate(scene.members)
    ]
    segmenter, detector = PartSegmenter.from_pretrained(model), Detector.from_pretrained(BUILT_IN_DETECTOR)
    columns = [("the photo", Image.fromarray(scene.image))]
    for title, instances in (("components", "components"), ("boxes, found", detector), ("masks", masks)):
        result = segmenter(scene.image, words, instances=instances)
        columns.append((title, result.overlay(legend=False, long_side=2 * SIDE)))
    sheet = Image.new("RGB", (GAP + len(columns) * (SIDE + GAP), SIDE + LINE + 2 * GAP), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for column, (title, picture) in enumerate(columns):
        left = GAP + column * (SIDE + GAP)
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, GAP + LINE))
        pen.text((left, GAP), title, fill=(32, 35, 40), font=font)
    return sheet
