"""PartShapes' scenes in other, coarser words, for models that were trained on the first ones."""

from __future__ import annotations

from partclipseg.data.datasets.spec import DatasetSpec, Rendering

DATASET = DatasetSpec(
    name="partshapes-coarse",
    summary="the scenes of partshapes in other, coarser words, to score models across data sets",
    rendering=Rendering("partclipseg.shapes.coarse:CoarseShapesDataset", splits={"test": (1000, 128)}),
    trains=False,
)
