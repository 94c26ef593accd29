"""``partclipseg demo``: built-in scenes, segmented by the built-in model, without network."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from partclipseg.apps.options import Device, check_least
from partclipseg.apps.terminal import plain_console
from partclipseg.errors import PartCLIPSegError

if TYPE_CHECKING:
    from partclipseg.apps.written import OwnFiles
    from partclipseg.inference.segmenter import PartSegmenter

SCENE_SIZE = 384
"""Side of the rendered scenes in pixels."""

DOGS = 25250
"""Index in the split instances: two dogs close to each other."""


@dataclass(frozen=True)
class Demo:
    """See what part segmentation does: rendered scenes in, overlays out. Needs no photo, no words and no network.

    The scenes are PartShapes, the built-in benchmark, from its test split. For objects marked as unseen the model was
    taught the name and the whole, but no part: it knows the parts from other objects. The folder gets each scene, its
    prediction and its true labels; `partclipseg predict` tries other words on a scene. In one more scene the built-in
    detector finds two dogs, and each part says whose it is.
    """

    output: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("partclipseg-demo")
    """Folder for the pictures. Those of an earlier run are replaced, if nobody has changed them since."""
    overwrite: bool = False
    """Replace also files in that folder that somebody else made or changed."""
    scenes: Annotated[int, tyro.conf.arg(metavar="N")] = 8
    """Number of scenes to render."""
    device: Device = None

    def run(self) -> int:
        import numpy as np

        from partclipseg.apps.model_line import describe
        from partclipseg.apps.written import OwnFiles, kept_sentence, make_folder
        from partclipseg.inference.result import PartResult
        from partclipseg.inference.segmenter import PartSegmenter
        from partclipseg.shapes.renderer import render_scene
        from partclipseg.shapes.world import partshapes_world

        check_least(scenes=(self.scenes, 1))
        console = plain_console()
        make_folder(self.output)
        files, kept = OwnFiles(self.output, "demo", self.overwrite), []
        segmenter = PartSegmenter.from_pretrained(None, self.device)
        console.print(describe(segmenter, None))
        world = partshapes_world()
        for index in range(self.scenes):
            scene = render_scene("test", index, SCENE_SIZE)
            result = segmenter(scene.image, world.vocabulary)
            truth = PartResult.from_maps(
                scene.parts, scene.objects, np.ones(scene.parts.shape), world.vocabulary, scene.image
            )
            kept += _write(files, f"scene{index}", scene.image, {"prediction": result, "truth": truth})
            right = result.label_map == truth.label_map
            names = dict.fromkeys(member.object for member in scene.members)
            marked = ", ".join(f"{name} (unseen)" if name in world.unseen_objects else name for name in names)
            console.print(
                f"  scene {index} ({marked}): {right.mean():.0%} of the pixels right, "
                f"{right[truth.label_map >= 0].mean():.0%} of those on objects"
            )
        kept += self._tell_dogs_apart(segmenter, files, console)
        console.print(f"pictures -> {self.output}")
        console.print(
            'for a photo of yours: partclipseg predict photo.jpg --vocabulary "dog: head, ear, torso, leg, tail" '
            "--model partclipseg-pascal"
        )
        if kept:
            raise PartCLIPSegError(kept_sentence(kept))
        return 0

    def _tell_dogs_apart(self, segmenter: PartSegmenter, files: OwnFiles, console: Any) -> list[str]:
        """Write whose each part is in a scene with two dogs; return what was not written, and why."""
        from partclipseg.instances.detectors import Detector
        from partclipseg.models.registry import built_in_detector
        from partclipseg.shapes.renderer import render_scene
        from partclipseg.shapes.world import partshapes_world

        detector = Detector.from_pretrained(built_in_detector(), self.device)
        scene = render_scene("instances", DOGS, SCENE_SIZE)
        result = segmenter(scene.image, partshapes_world().vocabulary, instances=detector)
        kept = _write(files, "dogs", scene.image, {"prediction": result})
        named = ", ".join(segment.title for segment in result.segments())
        console.print(f"  two dogs, told apart by the built-in detector: {named}")
        return kept


def _write(files: OwnFiles, name: str, photo: Any, results: Mapping[str, Any]) -> list[str]:
    """Write a scene and the overlays of its results; return why any of them was not written."""
    from PIL import Image

    from partclipseg.apps.written import KeptError

    pictures = {"png": Image.fromarray(photo)}
    pictures |= {f"{kind}.png": result.overlay() for kind, result in results.items()}
    kept = []
    for ending, picture in pictures.items():
        content = io.BytesIO()
        picture.save(content, format="PNG")
        try:
            files.write(f"{name}.{ending}", content.getvalue())
        except KeptError as error:
            kept.append(str(error))
    return kept
