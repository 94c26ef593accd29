"""Build the model that training starts from: released weights, CLIP's own, or a directory that `train` wrote."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPSegForImageSegmentation,
    Dinov2Model,
    PreTrainedConfig,
    ResNetModel,
)

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.directory import stated_type
from partclipseg.models.loading import saved_config
from partclipseg.models.partcatseg.config import SIZES, CATSegConfig
from partclipseg.models.partcatseg.foreign import (
    family_of,
    fill_dinov2,
    load_released,
    read_tensors,
    released_config,
    renamed,
)
from partclipseg.models.partcatseg.model import CATSegModel, PartCATSegModel
from partclipseg.models.partcatseg.settings import CATSegSettings
from partclipseg.models.reading import check_complete, check_finite

logger = logging.getLogger(__name__)

_TOWERS: dict[str, Any] = {"dinov2": Dinov2Model, "resnet": ResNetModel}


def start_model(
    cls: type[CATSegModel], name: str, settings: CATSegSettings, config: CATSegConfig | None = None
) -> CATSegModel:
    """Build a model of class `cls` to train, in float32 on the CPU.

    Args:
        cls: `PartCATSegModel` or `CATSegModel`.
        name: a `.pth` file as released (for PartCATSeg usually CAT-Seg's `model_final_base.pth`), or a directory or
            hub name of CLIP, of CLIPSeg or of a model of this package. From a model of another family, what fits by
            name and shape is copied.
        settings: the guidance weights to load, the sizes, and the repairs.
        config: sizes of a model that starts from a `.pth` file, CLIP or CLIPSeg; None stands for `settings.sizes`.

    New layers come from torch's global generator. Raises `PartCLIPSegError` where the start or its guidance weights
    cannot be had.
    """
    model, new = _started(cls, name, settings, config)
    if settings.guidance:
        _load_guidance(model, settings.guidance)
    elif any(key.startswith("guidance.") for key in new):
        kind = model.config.guidance_config.model_type
        example = "facebook/dinov2-small" if kind == "dinov2" else "microsoft/resnet-101"
        raise PartCLIPSegError(
            f"{name} has no weights for the guidance tower ({kind}): name some in the setting guidance, "
            f"such as {example}"
        )
    # As released, a new second stage keeps the random values that the first one had before it was loaded.
    second_is_new = "aggregator.pair_cost_embedding.weight" in new
    if isinstance(model, PartCATSegModel) and second_is_new and model.config.repaired("copies"):
        model.aggregator.copy_to_pairs()
    return model.eval()


def _started(
    cls: type[CATSegModel], name: str, settings: CATSegSettings, config: CATSegConfig | None
) -> tuple[CATSegModel, list[str]]:
    """Return the model, and the names of its tensors that the start does not have."""
    config_class: Any = cls.config_class
    sizes = dict(SIZES[settings.sizes]) if config is None else _sizes(config)
    changes: dict[str, Any] = {"reference": settings.reference, "repairs": settings.repairs}
    if guidance := _guidance_config(settings):
        changes["guidance_config"] = guidance
    if Path(name).is_file():
        tensors = read_tensors(name)
        if family_of(tensors, name) is cls:
            own = released_config(tensors, name, **changes) if config is None else config_class(**{**sizes, **changes})
            return load_released(name, own), []
        model = cls(config_class(**{**sizes, **changes}))
        return model, _copy(model, renamed(model, tensors), name)
    kind = _model_type(name)
    if kind == config_class.model_type:
        if not settings.reference and settings.repairs is None:
            return cls.from_pretrained(name, dtype=torch.float32), []
        # Given to from_pretrained, changes would be set after the configuration is checked.
        own = config_class(**{**_sizes(saved_config(config_class, name)), **changes})
        return cls.from_pretrained(name, config=own, dtype=torch.float32), []
    if kind in ("clip", "clipseg"):
        clip = _clip(name, kind)
        model = cls(config_class(**{**sizes, **changes, "clip_config": clip.config}))
        return model, _copy(model, {f"clip.{key}": tensor for key, tensor in clip.state_dict().items()}, name)
    if kind == CATSegConfig.model_type:
        source: Any = CATSegModel.from_pretrained(name, dtype=torch.float32)
        sizes = {**_sizes(source.config), "guidance_image_size": None}
        if source.config.guidance_config.model_type != "dinov2":  # PartCATSeg cannot take a ResNet
            sizes["guidance_config"] = None
        model = cls(config_class(**{**sizes, **changes}))
        return model, _copy(model, source.state_dict(), name)
    raise PartCLIPSegError(
        f"{name} holds {stated_type(kind)}, from which {config_class.model_type!r} cannot start: give CLIP, "
        "CLIPSeg, CAT-Seg, or a released .pth file"
    )


def _clip(name: str, kind: str) -> CLIPModel:
    """Load CLIP, or the towers of a CLIPSeg, which are CLIP's with other names of their configurations."""
    if kind == "clip":
        loaded: Any = CLIPModel.from_pretrained(name, dtype=torch.float32)
        return loaded
    clipseg: Any = CLIPSegForImageSegmentation.from_pretrained(name, dtype=torch.float32)
    text, vision = (
        {key: value for key, value in part.to_dict().items() if key != "model_type"}
        for part in (clipseg.config.text_config, clipseg.config.vision_config)
    )
    clip = CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=clipseg.config.projection_dim)
    )
    clip.load_state_dict(clipseg.clip.state_dict())
    return clip


@torch.no_grad()
def _copy(model: CATSegModel, tensors: Mapping[str, Tensor], origin: str) -> list[str]:
    """Copy what fits by name and shape; return the names that stay new."""
    new = []
    for name, target in model.state_dict().items():
        if name in tensors and tensors[name].shape == target.shape:
            target.copy_(tensors[name])
        else:
            new.append(name)
    logger.info("%s starts %d of %d tensors", origin, len(model.state_dict()) - len(new), len(model.state_dict()))
    if len(new) == len(model.state_dict()):
        raise PartCLIPSegError(f"{origin} fits no tensor of the model: are its sizes the released ones?")
    return new


def _sizes(config: CATSegConfig) -> dict[str, Any]:
    """Return the fields that a start passes on: all but its repairs."""
    own = ("model_type", "architectures", "transformers_version", "dtype", "reference", "repairs")
    return {key: value for key, value in config.to_dict().items() if key not in own}


def _guidance_config(settings: CATSegSettings) -> Any:
    """Read the configuration beside the guidance weights; None, which is the released one, where there is none."""
    if not settings.guidance or Path(settings.guidance).is_file():
        return None
    values = _config_dict(settings.guidance)
    kind = values.get("model_type")
    if kind not in _TOWERS:
        raise PartCLIPSegError(f"{settings.guidance} holds {stated_type(kind)}: give a DINOv2 or a ResNet")
    if kind == "resnet":  # the guidance ends at res4
        return {**values, "depths": values["depths"][:3], "hidden_sizes": values["hidden_sizes"][:3]}
    return {**values, "use_mask_token": False}


@torch.no_grad()
def _load_guidance(model: CATSegModel, name: str) -> None:
    if Path(name).is_file():
        fill_dinov2(model, read_tensors(name), name)
        return
    kind = _model_type(name)
    expected = model.config.guidance_config.model_type
    if kind != expected:
        raise PartCLIPSegError(f"{name} holds {stated_type(kind)}, and the guidance tower is a {expected}")
    tensors = _TOWERS[expected].from_pretrained(name, dtype=torch.float32).state_dict()
    missing, misshapen = [], []
    for key, target in model.guidance.tower.state_dict().items():
        if key not in tensors:
            missing.append(key)
        elif tensors[key].shape != target.shape:
            misshapen.append((key, tuple(tensors[key].shape), tuple(target.shape)))
        else:
            target.copy_(tensors[key])
    check_complete(f"the guidance of {name}", missing, [], misshapen)
    check_finite(model.guidance, name)


def _model_type(name: str) -> str | None:
    return _config_dict(name).get("model_type")


def _config_dict(name: str) -> dict[str, Any]:
    try:
        return PreTrainedConfig.get_config_dict(name)[0]
    except (OSError, ValueError) as error:
        raise PartCLIPSegError(
            f"there is no file or directory {name!r} with a model, and the hub cannot be reached for one of that name: "
            "give a released .pth file, or a directory of CLIP or of a model of this package"
        ) from error
