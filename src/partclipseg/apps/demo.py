"""``partclipseg demo``: built-in scenes, segmented by the built-in model, without network."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from partclipseg.apps.options import Device, check_least
from partclipseg.errors import PartCLIPSegError

SCENE_SIZE = 384
"""Side of the rendered scenes in pixels."""


@dataclass(frozen=True)
class Demo:
    """See what part segmentation does: rendered scenes in, overlays out. Needs no photo, no words and no network.

    The scenes are PartShapes, the built-in benchmark, from its test split. For objects marked as unseen the model was
    taught the name and the whole, but no part: it knows the parts from other objects. The folder gets each scene, its
    prediction and its true labels; `partclipseg predict` tries other words on a scene.
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
        from PIL import Image
        from rich.console import Console

        from partclipseg.apps.predict import describe, make_folder
        from partclipseg.apps.written import KeptError, OwnFiles, kept_sentence
        from partclipseg.inference.result import PartResult
        from partclipseg.inference.segmenter import PartSegmenter
        from partclipseg.shapes.renderer import render_scene
        from partclipseg.shapes.world import partshapes_world

        check_least(scenes=(self.scenes, 1))
        console = Console(soft_wrap=True, highlight=False)
        make_folder(self.output)
        files, kept = OwnFiles(self.output, "demo", self.overwrite), []
        segmenter = PartSegmenter.from_pretrained(None, self.device)
        console.print(describe(segmenter, None), markup=False)
        world = partshapes_world()
        for index in range(self.scenes):
            scene = render_scene("test", index, SCENE_SIZE)
            result = segmenter(scene.image, world.vocabulary)
            truth = PartResult.from_maps(
                scene.parts, scene.objects, np.ones(scene.parts.shape), world.vocabulary, scene.image
            )
            pictures = {
                "png": Image.fromarray(scene.image),
                "prediction.png": result.overlay(),
                "truth.png": truth.overlay(),
            }
            for name, picture in pictures.items():
                content = io.BytesIO()
                picture.save(content, format="PNG")
                try:
                    files.write(f"scene{index}.{name}", content.getvalue())
                except KeptError as error:
                    kept.append(str(error))
            right = result.label_map == truth.label_map
            names = dict.fromkeys(member.object for member in scene.members)
            marked = ", ".join(f"{name} (unseen)" if name in world.unseen_objects else name for name in names)
            console.print(
                f"  scene {index} ({marked}): {right.mean():.0%} of the pixels right, "
                f"{right[truth.label_map >= 0].mean():.0%} of those on objects",
                markup=False,
            )
        console.print(f"pictures -> {self.output}", markup=False)
        console.print(
            'for a photo of yours: partclipseg predict photo.jpg --vocabulary "dog: head, ear, torso, leg, tail" '
            "--model partclipseg-pascal",
            markup=False,
        )
        if kept:
            raise PartCLIPSegError(kept_sentence(kept))
        return 0
