"""Start stage 1 from a plain MaskFormer of detectron2 (Cheng et al., NeurIPS 2021).

Its tensors are named as those of ZSSeg+, which grew out of it. All are taken over but the classifier of its fixed
classes, in whose place ZSSeg+ has a head into CLIP's space, and the class weights of its loss.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.reading import check_finite_weights, read_tensors
from partclipseg.models.tensor_places import copy_tensors
from partclipseg.models.zsseg.foreign import place_of
from partclipseg.models.zsseg.model import ZSSegModel

logger = logging.getLogger(__name__)

LEFT_ASIDE = re.compile(
    r"sem_seg_head\.predictor\.class_embed\.(weight|bias)|criterion\.empty_weight|pixel_(mean|std)|.*\.num_batches_tracked"
)
"""Tensors of a MaskFormer that ZSSeg+ has no place for."""

_NOT_THERE = re.compile(r"proposals\.class_head\..*|.*\.num_batches_tracked")
"""Tensors of stage 1 that a MaskFormer lacks."""


def fill_stage_1(model: ZSSegModel, path: str | Path) -> None:
    """Copy the weights of a MaskFormer into stage 1, in place.

    Args:
        model: a ZSSeg+ of the file's sizes, whose backbone has batch norms.
        path: a ``.pth`` file, from which tensors alone are read.

    Raises `PartCLIPSegError` for a model with group norms, and for a file that is unreadable or does not fit: it counts
    the missing, unknown and mis-shaped tensors and names the first.
    """
    if model.config.backbone_norm != "batch":
        raise PartCLIPSegError(
            f"{path} cannot start this model: a MaskFormer has batch norms in its backbone, and this one group norms; "
            "train with --sizes released"
        )
    tensors = {_current(name): tensor for name, tensor in read_tensors(path).items()}
    copy_tensors(model, tensors, place_of, _NOT_THERE, LEFT_ASIDE, "proposals.").check(str(path))
    check_finite_weights(model.proposals, str(path))
    taken = sum(not LEFT_ASIDE.fullmatch(name) for name in tensors)
    logger.info("%s starts stage 1 with %d of its %d tensors", path, taken, len(tensors))


def _current(name: str) -> str:
    """Return the name in files of today: the first version had no ``pixel_decoder.`` in it."""
    name = name.removeprefix("module.")
    return re.sub(r"^sem_seg_head\.(?!pixel_decoder\.|predictor\.)", "sem_seg_head.pixel_decoder.", name)
