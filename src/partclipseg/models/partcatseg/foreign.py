"""Load released weights: the files of PartCATSeg, CAT-Seg and OV-PARTS, and DINOv2's own.

No other module knows how other code names these tensors.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clip_names import CLIP_RENAMED, CLIP_TRANSPOSED
from partclipseg.models.partcatseg.config import CATSegConfig
from partclipseg.models.partcatseg.model import CATSegModel, PartCATSegModel
from partclipseg.models.reading import check_finite_weights, check_number_of_weights, read_tensors, without_prefixes
from partclipseg.models.tensor_places import TensorPlace, copy_tensors, place_by_rules

logger = logging.getLogger(__name__)

REMARK = "reference mode, as released; `predict` takes the words that you give, 80 prompts for each"
"""Remark for people about a model from a released file."""

TAKEN_WHOLE = ("part-imagenet",)
"""Data sets whose photos the released code does not resize before the padding, in training and testing."""

UNUSED = re.compile(r".*attn_mask|transformer\.layers_object\..*|.*mask_token|.*logit_scale")
"""Tensors of released files that have no effect: constants, a branch that is never called, unused tokens and scales."""

_OPTIONAL = re.compile(r"clip\.logit_scale|.*\.num_batches_tracked")
"""Tensors of our models that a file may lack: they have no effect."""

_DINO = "backbone.dinov2."

_PREFIXES = ("module.", "sem_seg_head.predictor.")
"""Beginnings of names that say nothing."""

_SECOND_STAGE = ("transformer.conv_proj_feat.", "transformer.conv2.", "transformer.layers_specific_part.")
"""Beginnings of names of tensors that PartCATSeg has and CAT-Seg has not."""

_LAYERS = {"layers": "layers", "pair_layers": "layers_specific_part"}
_DOUBLE_CONV = {"conv1": 0, "norm1": 1, "conv2": 3, "norm2": 4}

_RENAMED = (  # ours, theirs; every rule is applied, in order
    (r"^background$", "non_object_embedding"),
    *CLIP_RENAMED,
    # DINOv2; its attention has other names in earlier versions of transformers
    (
        r"^(guidance\..*)\.attention\.attention\.(query|key|value)\.",
        lambda found: f"{found[1]}.attention.{found[2][0]}_proj.",
    ),
    (r"^(guidance\..*)\.attention\.output\.dense\.", r"\1.attention.o_proj."),
    (r"^guidance\.tower\.embeddings\.cls_token$", _DINO + "cls_token"),
    (r"^guidance\.tower\.embeddings\.position_embeddings$", _DINO + "pos_embed"),
    (r"^guidance\.tower\.embeddings\.patch_embeddings\.projection\.", _DINO + "patch_embed.proj."),
    (r"^guidance\.tower\.layernorm\.", _DINO + "norm."),
    (r"^guidance\.tower\.encoder\.layer\.", _DINO + "blocks."),
    (r"^(backbone\..*)\.attention\.[qkv]_proj\.", r"\1.attn.qkv."),
    (r"^(backbone\..*)\.attention\.o_proj\.", r"\1.attn.proj."),
    (r"^(backbone\..*)\.layer_scale([12])\.lambda1$", r"\1.ls\2.gamma"),
    # ResNet
    (r"^guidance\.tower\.embedder\.embedder\.convolution\.", "backbone.stem.conv1."),
    (r"^guidance\.tower\.embedder\.embedder\.normalization\.", "backbone.stem.conv1.norm."),
    (r"^guidance\.tower\.encoder\.stages\.(\d+)\.layers\.(\d+)\.", r"backbone.stage\1.\2."),
    (r"^backbone\.stage(\d+)\.", lambda found: f"backbone.res{int(found[1]) + 2}."),
    (r"^(backbone\.res\d+\.\d+)\.layer\.(\d+)\.", lambda found: f"{found[1]}.conv{int(found[2]) + 1}."),
    (r"^(backbone\.res.*)\.convolution\.", r"\1."),
    (r"^(backbone\.res.*)\.normalization\.", r"\1.norm."),
    # the aggregation
    (r"^aggregator\.(layers|pair_layers)\.", lambda found: f"transformer.{_LAYERS[found[1]]}."),
    (r"^(transformer\.layers\w*\.\d+)\.guidance_norm\.", r"\1.swin_block.guidance_norm."),
    (r"^(transformer\.layers\w*\.\d+)\.block([12])\.", r"\1.swin_block.block_\2."),
    (r"^(transformer\..*\.block_[12])\.(query|key|value)\.", lambda found: f"{found[1]}.attn.{found[2][0]}."),
    (r"^(transformer\..*\.block_[12])\.project\.", r"\1.attn.proj."),
    (r"^(transformer\..*\.block_[12])\.mlp\.0\.", r"\1.mlp.fc1."),
    (r"^(transformer\..*\.block_[12])\.mlp\.2\.", r"\1.mlp.fc2."),
    (
        r"^(transformer\.layers\w*\.\d+)\.classes\.(query|key|value)\.",
        lambda found: f"{found[1]}.attention.attention.{found[2][0]}.",
    ),
    (r"^(transformer\.layers\w*\.\d+)\.classes\.mlp\.", r"\1.attention.MLP."),
    (r"^(transformer\.layers\w*\.\d+)\.classes\.norm([12])\.", r"\1.attention.norm\2."),
    (r"^aggregator\.cost_embedding\.", "transformer.conv1."),
    (r"^aggregator\.pair_cost_embedding\.", "transformer.conv2."),
    (r"^aggregator\.pair_projection\.", "transformer.conv_proj_feat."),
    (r"^aggregator\.guidance_projection\.", "transformer.guidance_projection.0."),
    (r"^aggregator\.text_projection\.", "transformer.text_guidance_projection.0."),
    (r"^aggregator\.decoder_guidance_projections\.([01])\.", r"transformer.decoder_guidance_projection.\1.0."),
    (r"^aggregator\.(decoder[12])\.up\.", r"transformer.\1.up."),
    (
        r"^aggregator\.(decoder[12])\.(conv1|norm1|conv2|norm2)\.",
        lambda found: f"transformer.{found[1]}.conv.double_conv.{_DOUBLE_CONV[found[2]]}.",
    ),
    (r"^aggregator\.head\.", "transformer.head."),
)


def place_of(name: str) -> TensorPlace:
    """Say where our tensor `name` stands in a released file."""
    return place_by_rules(name, _RENAMED, CLIP_TRANSPOSED)


def load_released(path: str | Path, config: CATSegConfig | None = None) -> CATSegModel:
    """Load a released file (``{"model": {name: tensor}, …}``), in float32 on the CPU, with the file's background.

    Args:
        path: a `.pth` file of PartCATSeg, or of CAT-Seg as part-catseg, OV-PARTS or CAT-Seg itself wrote it. Only
            tensors are read from it: a pickle that wants to run code is refused.
        config: of the right family; None stands for the released sizes, in reference mode.

    Raises `PartCLIPSegError` that counts the missing, unknown, mis-shaped or non-finite tensors and names the first.
    """
    tensors = read_released(path)
    cls = family_of(tensors, str(path))
    expected: Any = cls.config_class
    if config is not None and type(config) is not expected:
        raise PartCLIPSegError(
            f"{path} holds a model of type {expected.model_type!r}, and the configuration is of type "
            f"{config.model_type!r}: give the one that fits, or none"
        )
    config = config or released_config(tensors, str(path))
    check_number_of_weights(lambda: cls(config), sum(tensor.numel() for tensor in tensors.values()), str(path))
    model = cls(config)
    fit = copy_tensors(model, tensors, place_of, _OPTIONAL, UNUSED)
    if cls is CATSegModel and fit.missing == ["non_object_embedding"]:
        logger.warning("%s has no background: the model has an untrained one", path)
        fit = fit._replace(missing=[])
    fit.check(str(path))
    check_finite_weights(model, str(path))
    return model.eval()


def knows(names: Collection[str]) -> bool:
    """Whether these are names of tensors in a file of PartCATSeg or CAT-Seg."""
    bare = [_bare(name) for name in names]
    maskformer = any(name.startswith("transformer.decoder.") for name in bare)  # whose names begin alike
    return not maskformer and any(name.startswith("transformer.") for name in bare)


def config_for(
    values: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], origin: str, dataset: str | None = None
) -> CATSegConfig:
    """Return the configuration for a file's tensors, trained on `dataset`, in reference mode unless `values` differ.

    `values` replace those of the released sizes.
    """
    tensors = without_prefixes(tensors, origin, *_PREFIXES)
    released, given = _released_values(tensors), dict(values or {})
    if dataset in TAKEN_WHOLE:
        released["shortest_edge"] = None
    if isinstance(tower := given.get("guidance_config"), Mapping):
        given["guidance_config"] = {**released.get("guidance_config", {}), **tower}
    return family_of(tensors, origin).config_class.from_values({**released, **given})


def family_of(tensors: Mapping[str, Tensor], origin: str) -> type[CATSegModel]:
    """Return the class of the model of the tensors of `read_released`; raises `PartCLIPSegError` if of none."""
    if not any(name.startswith("transformer.") for name in tensors):
        raise PartCLIPSegError(f"{origin} is no checkpoint of CAT-Seg or PartCATSeg: it has no cost aggregation")
    return PartCATSegModel if any(name.startswith(_SECOND_STAGE) for name in tensors) else CATSegModel


def released_config(tensors: Mapping[str, Tensor], origin: str, **changes: Any) -> CATSegConfig:
    """Return the configuration of the released sizes; in reference mode unless `changes` say otherwise."""
    return family_of(tensors, origin).config_class(**{**_released_values(tensors), **changes})


def _released_values(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what the names of a file's tensors tell of its configuration."""
    if any(name.startswith(_DINO) for name in tensors):
        return {"reference": True, "guidance_config": {"model_type": "dinov2"}}
    return {"reference": True}


def read_released(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a `.pth` file by name, without `module.` and `sem_seg_head.predictor.` in front.

    Raises `PartCLIPSegError` for a file that is missing, unreadable, or holds more than the tensors of one model.
    """
    return without_prefixes(read_tensors(path), str(path), *_PREFIXES)


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def with_our_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of `read_released` under our names, as far as `model` has them."""
    places = {name: place_of(name) for name in model.state_dict()}
    return {name: place.of(tensors[place.name]) for name, place in places.items() if place.name in tensors}


def fill_dinov2(model: CATSegModel, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy the tensors of facebookresearch/dinov2's own file into the guidance tower.

    Raises `PartCLIPSegError` that names the tensors that do not fit.
    """
    named = {_DINO + name.removeprefix(_DINO): tensor for name, tensor in tensors.items()}
    copy_tensors(model, named, place_of, _OPTIONAL, UNUSED, "guidance.").check(f"the guidance of {origin}")
