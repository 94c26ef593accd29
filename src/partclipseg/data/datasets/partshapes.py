"""PartShapes: the built-in benchmark, whose scenes are rendered when they are needed."""

from __future__ import annotations

from partclipseg.data.datasets.spec import DatasetSpec, Rendering

DATASET = DatasetSpec(
    name="partshapes",
    summary="the built-in benchmark, whose scenes are rendered as they are needed",
    rendering=Rendering(
        "partclipseg.shapes.dataset:PartShapesDataset",
        # Objects of one kind are looked at on crops: larger pictures, so that a crop shows more.
        splits={"train": (1000, 128), "test": (1000, 128), "instances": (300, 384)},
    ),
)
