"""Build the model that training starts from: CLIP's towers with a new stage 1, or a ZSSeg+ that is there already."""

from __future__ import annotations

from typing import Any

import torch

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_file
from partclipseg.models.clip_start import START, load_clip
from partclipseg.models.directory import read_config, stated_type
from partclipseg.models.loading import saved_config
from partclipseg.models.zsseg.config import SIZES, ZSSegConfig
from partclipseg.models.zsseg.foreign import load_released
from partclipseg.models.zsseg.maskformer import fill_stage_1
from partclipseg.models.zsseg.model import ZSSegModel
from partclipseg.models.zsseg.settings import ZSSegSettings


def check_mask_settings(settings: ZSSegSettings) -> None:
    """Raise `PartCLIPSegError` for repairs that cannot be, and for weights of stage 1 that are not there."""
    ZSSegConfig(reference=settings.reference, repairs=settings.repairs)
    if settings.maskformer and not is_file(settings.maskformer):
        raise PartCLIPSegError(
            f"maskformer: there is no file {settings.maskformer[:200]}: name a .pth file of detectron2's MaskFormer"
        )


def start_zsseg(name: str, settings: ZSSegSettings) -> ZSSegModel:
    """Build a model to train, in float32 on the CPU.

    New layers come from torch's global generator. Raises `PartCLIPSegError` where the start or the weights of stage 1
    cannot be had.

    Args:
        name: a `.pth` file of ZSSeg+ as released, or a directory or hub name of CLIP, of CLIPSeg or of a ZSSeg+ of this
            package.
        settings: sizes, repairs, and weights of stage 1.
    """
    model = _started(name, settings)
    if settings.maskformer:
        fill_stage_1(model, settings.maskformer)
    return model


def _started(name: str, settings: ZSSegSettings) -> ZSSegModel:
    changes: dict[str, Any] = {"reference": settings.reference, "repairs": settings.repairs}
    if is_file(name):
        return load_released(name, ZSSegConfig(**changes))
    kind = read_config(name, remedy=START).get("model_type")
    if kind == ZSSegConfig.model_type:
        if not settings.reference and settings.repairs is None:
            return ZSSegModel.from_pretrained(name, dtype=torch.float32)
        own = {**saved_config(ZSSegConfig, name).to_dict(), **changes}
        return ZSSegModel.from_pretrained(name, config=ZSSegConfig.from_values(own), dtype=torch.float32)
    if kind not in ("clip", "clipseg"):
        raise PartCLIPSegError(
            f"{name} holds {stated_type(kind)}, from which {ZSSegConfig.model_type!r} cannot start: give CLIP, "
            "CLIPSeg or ZSSeg+; `partclipseg convert` makes a directory of a released .pth file"
        )
    clip = load_clip(name, kind)
    if settings.sizes == "released" and not settings.maskformer:
        raise PartCLIPSegError(
            f"{name} has no weights for the ResNet of stage 1, whose batch norms are not trained: name a file of "
            "detectron2's MaskFormer with --maskformer, or start from a ZSSeg+"
        )
    config = ZSSegConfig(**{**SIZES[settings.sizes], **changes, "clip_config": clip.config, **_signs(clip)})
    model = ZSSegModel(config)
    model.clip.load_state_dict(clip.state_dict())
    return model.eval()


def _signs(clip: Any) -> dict[str, int]:
    """Return tokens of comma and full stop that any text tower has; the tokenizer tells the true ones later."""
    last = clip.config.text_config.vocab_size - 1
    return {name: min(getattr(ZSSegConfig, name), last) for name in ("separator_id", "dot_id")}
