"""``partclipseg demo``: built-in scenes, segmented by the built-in model, without network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from partclipseg.apps.options import Device
from partclipseg.errors import PartCLIPSegError, UsageError

if TYPE_CHECKING:
    from partclipseg.inference.segmenter import PartSegmenter

SCENE_SIZE = 384
"""Side of the rendered scenes in pixels."""


@dataclass(frozen=True)
class Demo:
    """See what part segmentation does: rendered scenes in, overlays out. Needs no photo, no words and no network.

    The scenes are PartShapes, the built-in benchmark, from its test split: some of their objects were never shown
    to the model in training. Beside each prediction lies the truth.
    """

    output: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("partclipseg-demo")
    """Folder for the pictures."""
    scenes: Annotated[int, tyro.conf.arg(metavar="N")] = 4
    """How many scenes to render."""
    device: Device = None

    def run(self) -> int:
        import numpy as np
        from rich.console import Console

        from partclipseg.apps.predict import describe, make_folder
        from partclipseg.files import whole_file
        from partclipseg.inference.result import PartResult
        from partclipseg.inference.segmenter import PartSegmenter, built_in_model
        from partclipseg.shapes.renderer import render_scene
        from partclipseg.shapes.world import partshapes_world

        if self.scenes < 1:
            raise UsageError(f"--scenes must be at least 1, not {self.scenes}")
        console = Console(soft_wrap=True, highlight=False)
        make_folder(self.output)
        try:
            built_in_model()
        except PartCLIPSegError:
            segmenter = _untrained(self.device)
            console.print("model: random weights, for this installation has no built-in model: expect no sense")
        else:
            segmenter = PartSegmenter.from_pretrained(None, self.device)
            console.print(describe(segmenter, None), markup=False)
        vocabulary = partshapes_world().vocabulary
        for index in range(self.scenes):
            scene = render_scene("test", index, SCENE_SIZE)
            result = segmenter(scene.image, vocabulary)
            truth = PartResult.from_maps(
                scene.parts, scene.objects, np.ones(scene.parts.shape), vocabulary, scene.image
            )
            for picture, name in ((result, "prediction"), (truth, "truth")):
                with whole_file(self.output / f"scene{index}.{name}.png") as temporary:
                    picture.overlay().save(temporary)
            right = np.mean(result.label_map == truth.label_map)
            members = ", ".join(member.object for member in scene.members)
            console.print(f"  scene {index} ({members}): {right:.0%} of the pixels right", markup=False)
        console.print(f"pictures -> {self.output}", markup=False)
        return 0


def _untrained(device: str | None) -> PartSegmenter:
    """A model of the built-in one's kind with random weights, for a source tree that has not trained it yet."""
    import torch

    from partclipseg.inference.segmenter import PartSegmenter, find_device
    from partclipseg.model.config import PartCLIPSegConfig
    from partclipseg.model.partclipseg import PartCLIPSegModel
    from partclipseg.shapes.tokenizer import build_tokenizer
    from partclipseg.shapes.world import partshapes_world

    words = partshapes_world().vocabulary
    tokenizer = build_tokenizer(" ".join([*words.objects, *words.parts]).split(), max_length=16)
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
    torch.manual_seed(0)
    model: Any = PartCLIPSegModel(
        PartCLIPSegConfig(
            image_size=128,
            text_config={
                **text,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": 16,
                "pad_token_id": tokenizer.pad_token_id,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
            },
            vision_config={**vision, "image_size": 128, "patch_size": 8},
            projection_dim=64,
            reduce_dim=32,
            extract_layers=[0, 1, 2],
        )
    )
    return PartSegmenter(model.to(find_device(device)), tokenizer)
