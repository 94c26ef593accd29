"""Build the model that training starts from: released weights, CLIP's own, or a directory that `train` wrote."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import Dinov2Model, ResNetModel

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_file
from partclipseg.models.clip_start import START, load_clip, load_tower, tower_folder
from partclipseg.models.directory import read_config, stated_type
from partclipseg.models.loading import saved_config
from partclipseg.models.names import is_local
from partclipseg.models.partcatseg.config import SIZES, CATSegConfig
from partclipseg.models.partcatseg.foreign import (
    family_of,
    fill_dinov2,
    load_released,
    read_released,
    released_config,
    with_our_names,
)
from partclipseg.models.partcatseg.model import CATSegModel, PartCATSegModel
from partclipseg.models.partcatseg.settings import CATSegSettings
from partclipseg.models.reading import check_complete, check_finite_weights, library_errors

logger = logging.getLogger(__name__)

_GUIDANCE = "give facebookresearch/dinov2's own file, or a directory or hub name of a DINOv2 or a ResNet"
"""Remedy for guidance weights that are not there."""

Model = TypeVar("Model", bound=CATSegModel)

_TOWERS: dict[str, Any] = {"dinov2": Dinov2Model, "resnet": ResNetModel}


def check_cost_settings(cls: type[CATSegModel], settings: CATSegSettings) -> None:
    """Raise `PartCLIPSegError` for repairs, filters and guidance that cannot be; nothing is fetched."""
    config_class: Any = cls.config_class
    config = config_class(reference=settings.reference, repairs=settings.repairs)
    config.change(**settings.switches)
    if settings.guidance and not is_file(settings.guidance) and is_local(settings.guidance, _GUIDANCE):
        guidance_config(settings)


def start_model(
    cls: type[Model], name: str, settings: CATSegSettings, config: CATSegConfig | None = None
) -> Model:
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
    model.config.change(**settings.switches, guidance_image_size=settings.guidance_image_size)
    if settings.own_size:
        model.config.shortest_edge = None
    if settings.guidance:
        _load_guidance(model, settings.guidance)
    elif any(key.startswith("guidance.") for key in new):
        kind = model.config.guidance_config.model_type
        example = "facebook/dinov2-small" if kind == "dinov2" else "microsoft/resnet-101"
        raise PartCLIPSegError(
            f"{name} has no weights for the guidance tower ({kind}): name some by --guidance, "
            f"such as {example}"
        )
    # As released, a new second stage keeps the random values that the first one had before it was loaded.
    second_is_new = "aggregator.pair_cost_embedding.weight" in new
    if isinstance(model, PartCATSegModel) and second_is_new and model.config.repaired("copies"):
        model.aggregator.copy_to_pairs()
    return model.eval()


def _started(
    cls: type[Model], name: str, settings: CATSegSettings, config: CATSegConfig | None
) -> tuple[Model, list[str]]:
    """Return the model, and the names of its tensors that the start does not have."""
    config_class: Any = cls.config_class
    sizes = dict(SIZES[settings.sizes]) if config is None else _sizes(config)
    changes: dict[str, Any] = {"reference": settings.reference, "repairs": settings.repairs}
    if guidance := guidance_config(settings):
        changes["guidance_config"] = guidance
    if settings.guidance_image_size is not None:  # given here too, since another tower may have other patches
        changes["guidance_image_size"] = settings.guidance_image_size
    if is_file(name):
        tensors = read_released(name)
        if family_of(tensors, name) is cls:
            own = released_config(tensors, name, **changes) if config is None else config_class(**{**sizes, **changes})
            released: Any = load_released(name, own)  # of the family that the file holds, which is `cls`
            return released, []
        model = cls(config_class(**{**sizes, **changes}))
        return model, _copy(model, with_our_names(model, tensors), name)
    kind = read_config(name, remedy=START).get("model_type")
    if kind == config_class.model_type:
        if not settings.reference and settings.repairs is None:
            return cls.from_pretrained(name, dtype=torch.float32), []
        # Given to from_pretrained, changes would be set after the configuration is checked.
        own = config_class(**{**_sizes(saved_config(config_class, name)), **changes})
        return cls.from_pretrained(name, config=own, dtype=torch.float32), []
    if kind in ("clip", "clipseg"):
        clip = load_clip(name, kind)
        model = cls(config_class(**{**sizes, **changes, "clip_config": clip.config}))
        return model, _copy(model, {f"clip.{key}": tensor for key, tensor in clip.state_dict().items()}, name)
    if kind == CATSegConfig.model_type:
        source: Any = CATSegModel.from_pretrained(name, dtype=torch.float32)
        sizes = _sizes(source.config)
        if source.config.guidance_config.model_type != "dinov2":  # PartCATSeg cannot take a ResNet
            sizes |= {"guidance_config": None, "guidance_image_size": None}
        model = cls(config_class(**{**sizes, **changes}))
        return model, _copy(model, source.state_dict(), name)
    raise PartCLIPSegError(
        f"{name} holds {stated_type(kind)}, from which {config_class.model_type!r} cannot start: give CLIP, "
        "CLIPSeg or CAT-Seg; `partclipseg convert` makes a directory of a released .pth file"
    )


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


def guidance_config(settings: CATSegSettings) -> Any:
    """Read the configuration beside the guidance weights; None, which is the released one, where there is none.

    Raises `PartCLIPSegError` where the weights are not there, or are no DINOv2 and no ResNet.
    """
    if not settings.guidance or is_file(settings.guidance):
        return None
    values = read_config(settings.guidance, remedy=_GUIDANCE)
    kind = values.get("model_type")
    if kind not in _TOWERS:
        raise PartCLIPSegError(f"{settings.guidance} holds {stated_type(kind)}: give a DINOv2 or a ResNet")
    tower_folder(_TOWERS[kind], settings.guidance, _GUIDANCE)  # before memory is taken for its sizes
    if kind == "resnet":  # the guidance ends at res4
        with library_errors(f"the config.json of {settings.guidance} is damaged: {_GUIDANCE}"):
            return {**values, "depths": values["depths"][:3], "hidden_sizes": values["hidden_sizes"][:3]}
    return {**values, "use_mask_token": False}


@torch.no_grad()
def _load_guidance(model: CATSegModel, name: str) -> None:
    if is_file(name):
        fill_dinov2(model, read_released(name), name)
        return
    kind = read_config(name, remedy=_GUIDANCE).get("model_type")
    expected = model.config.guidance_config.model_type
    if kind != expected:
        raise PartCLIPSegError(f"{name} holds {stated_type(kind)}, and the guidance tower is a {expected}")
    tensors = load_tower(_TOWERS[expected], name, _GUIDANCE).state_dict()
    missing, misshapen = [], []
    for key, target in model.guidance.tower.state_dict().items():
        if key not in tensors:
            missing.append(key)
        elif tensors[key].shape != target.shape:
            misshapen.append((key, tuple(tensors[key].shape), tuple(target.shape)))
        else:
            target.copy_(tensors[key])
    check_complete(f"the guidance of {name}", missing, [], misshapen)
    check_finite_weights(model.guidance, name)
