"""PartShapes: the built-in benchmark, whose scenes are rendered when they are needed."""

from __future__ import annotations

from partclipseg.data.datasets.spec import DatasetSpec, Rendering

DATASET = DatasetSpec(
    name="partshapes",
    summary="the built-in benchmark, whose scenes are rendered as they are needed",
    rendering=Rendering("partclipseg.shapes.dataset:PartShapesDataset", scored=1000),
)
