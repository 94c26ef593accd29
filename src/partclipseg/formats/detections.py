"""Convert segments to detections of the package supervision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from partclipseg.errors import PartCLIPSegError
from partclipseg.formats.segment import Segment


def supervision_detections(segments: Sequence[Segment], with_instances: bool = False) -> Any:
    """Return `supervision.Detections` with masks, one for each segment; `class_id` is the class index.

    Names are in ``data["class_name"]``, where supervision's label annotators look. With instances, ``data["object"]``
    has the object words and ``data["instance"]`` the numbers of the owners, 0 for none. Raises `PartCLIPSegError` if
    the package supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise PartCLIPSegError("this needs the package supervision: pip install supervision") from error
    if not segments:
        return supervision.Detections.empty()
    boxes = np.array([segment.box for segment in segments], dtype=np.float32)  # x, y, width, height
    boxes[:, 2:] += boxes[:, :2]
    data: dict[str, Any] = {"class_name": np.array([segment.name for segment in segments])}
    if with_instances:
        data["object"] = np.array([segment.object for segment in segments])
        data["instance"] = np.array([segment.instance or 0 for segment in segments])
    return supervision.Detections(
        xyxy=boxes,
        mask=np.stack([segment.mask for segment in segments]),
        confidence=np.array([segment.score for segment in segments], dtype=np.float32),
        class_id=np.array([segment.index for segment in segments]),
        data=data,
    )
