"""Convert tensors from and to CLIPSeg: names, a start from a CLIPSeg checkpoint, and a CLIPSeg from a model.

No other module knows how CLIPSeg and the released PartCLIPSeg files name their tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from partclipseg.errors import PartCLIPSegError
from partclipseg.models.clipseg_config import CLIPSegTowersConfig
from partclipseg.models.clipseg_ranges import CLIPSEG, known_values
from partclipseg.models.directory import read_config, stated_type
from partclipseg.models.hub import HUB_OPTIONS
from partclipseg.models.names import quoted_name
from partclipseg.models.reading import (
    check_complete,
    check_finite_weights,
    check_number_of_weights,
    load_complete,
    read_tensors,
    without_prefixes,
)

if TYPE_CHECKING:
    from partclipseg.models.clipseg_towers import CLIPSegTowers

TowersModel = TypeVar("TowersModel", bound="CLIPSegTowers")

_UNUSED = re.compile(r".*\.position_ids|text_adapter\.fc\.[02]\.weight|tunable_linear\.weight")
"""Tensors of released files without any effect: buffers, and two layers that are never read."""

_RENAMED = (  # our name, their name; the first that matches applies
    (r"^background$", "non_object_embedding"),
    (r"^visual_adapter\.down\.", "visual_adapter.fc.0."),
    (r"^visual_adapter\.up\.", "visual_adapter.fc.2."),
    (r"^decoder\.film\.(mul|add)\.", r"decoder.film_\1."),
    (r"^decoder\.class_film\.(mul|add)\.", r"decoder.cond_film_\1."),
    (r"^decoder\.reduce\.", "decoder.reduces."),
    (r"^decoder\.upsample\.", "decoder.transposed_convolution."),
    (r"^decoder\.class_upsample\.", "decoder.part_obj_with_cond_embed."),
    (r"^decoder\.merge_features\.", "decoder.part_obj_mlp.0."),
    (r"^decoder\.merge_words\.", "decoder.reduce_cond_embed."),
    (r"^(decoder\.layers\.\d+)\.qkv\.", r"\1.self_attn.{qkv}_proj."),
    (r"^(decoder\.layers\.\d+)\.project\.", r"\1.self_attn.out_proj."),
    (r"^(decoder\.layers\.\d+)\.norm([12])\.", r"\1.layer_norm\2."),
    (r"^(decoder\.layers\.\d+)\.expand\.", r"\1.mlp.fc1."),
    (r"^(decoder\.layers\.\d+)\.contract\.", r"\1.mlp.fc2."),
)


def foreign_names(name: str, config: CLIPSegTowersConfig) -> tuple[str, ...]:
    """Return the names of our tensor `name` in CLIPSeg and the reference: one, or three that are stacked (q, k, v)."""
    for ours, theirs in _RENAMED:
        renamed, matches = re.subn(ours, theirs, name)
        if matches:
            name = renamed
            break
    if not config.use_complex_transposed_convolution:  # their head is then a bare layer, not a sequence of one
        name = re.sub(r"(transposed_convolution|part_obj_with_cond_embed)\.0\.", r"\1.", name)
    return tuple(name.replace("{qkv}", letter) for letter in "qkv") if "{qkv}" in name else (name,)


def start_from_clipseg(
    cls: type[TowersModel], source: CLIPSegForImageSegmentation, **config_changes: Any
) -> TowersModel:
    """Make a model of class `cls` that starts as `source`: towers and decoder copied, the rest newly initialised.

    `config_changes` override fields of the configuration.
    """
    values = known_values(source.config.to_dict(), cls.config_class.ranges())
    model = cls(cls.config_class(**{**values, **config_changes}))
    new = ("background", "visual_adapter.", "decoder.class_", "decoder.merge_")
    fill(model, dict(source.state_dict()), "the CLIPSeg checkpoint", keep=new)
    model.decoder.initialise_composition()
    torch.nn.Module.to(model, source.dtype)  # transformers' own `to` hides its types
    return model.eval()


@torch.no_grad()
def to_clipseg(model: CLIPSegTowers) -> CLIPSegForImageSegmentation:
    """Build transformers' CLIPSeg with the towers and decoder of `model`; it has no adapter and no background."""
    fields = CLIPSegConfig().to_dict().keys() - {"model_type", "architectures", "transformers_version", "dtype"}
    target = CLIPSegForImageSegmentation(CLIPSegConfig(**{key: model.config.to_dict()[key] for key in fields}))
    theirs = target.state_dict()
    for name, tensor in model.state_dict().items():
        names = foreign_names(name, model.config)
        if names[0] in theirs:
            for foreign, share in zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor], strict=True):
                theirs[foreign].copy_(share)
    return target


def load_clipseg(cls: type[TowersModel], name: Any, load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Load a directory or hub name of class `cls` through `load`, and a CLIPSeg's by `start_from_clipseg`.

    Raises `PartCLIPSegError` for a model that is not there, of another type, incomplete or damaged.
    """
    hub_options = {key: kwargs.pop(key) for key in HUB_OPTIONS if key in kwargs}
    values = read_config(name, **hub_options)
    kind = values.get("model_type")
    expected = cls.config_class
    if kind not in (expected.model_type, CLIPSegConfig.model_type):
        raise PartCLIPSegError(
            f"{name} holds {stated_type(kind)}, not {quoted_name(expected.model_type)}: give a directory of that type, "
            "as `partclipseg convert` or `train` writes it, or a CLIPSeg model to start from"
        )
    changes = {key: kwargs.pop(key) for key in expected.ranges() if key in kwargs}
    try:
        config = kwargs.pop("config", None) or expected.from_values({**values, **changes})
    except PartCLIPSegError as error:
        raise PartCLIPSegError(f"{name}: {error}; give the config.json that belongs to the weights") from None
    config.architectures = [cls.__name__]  # as in this package's files
    if kind == expected.model_type != CLIPSegConfig.model_type:
        with_info = kwargs.pop("output_loading_info", False)
        model = load_complete(load, lambda: cls(config), name, *args, config=config, **hub_options, **kwargs)
        return (model, {}) if with_info else model
    dtype = kwargs.pop("dtype", torch.float32)
    theirs = CLIPSegConfig(**known_values(values, CLIPSEG))
    source = load_complete(
        CLIPSegForImageSegmentation.from_pretrained,
        lambda: CLIPSegForImageSegmentation(theirs),
        name,
        config=theirs,
        dtype=dtype,
        **hub_options,
    )
    return start_from_clipseg(cls, source, **changes)


def named_by(prefix: str, names: Collection[str]) -> bool:
    """Whether a released file's tensors are called as a CLIPSeg's, with `prefix` in front or nothing."""
    return any(name.removeprefix(prefix).startswith(("clip.", "decoder.")) for name in names)


def load_reference(cls: type[TowersModel], path: str | Path, config: CLIPSegTowersConfig, prefix: str) -> TowersModel:
    """Load a model of class `cls` from a released file (``{"model": {prefix + name: tensor}, …}``), float32 on the CPU.

    Args:
        path: only tensors are read from it: a pickle that wants to run code is refused.
        prefix: the beginning of the names of the method's tensors; files without it are read too.

    Raises `PartCLIPSegError` for the file of another method, and lists missing, unknown and mis-shaped tensors.
    """
    path, read = Path(path), read_tensors(path)
    if not named_by(prefix, read):
        raise PartCLIPSegError(
            f"{path} is no checkpoint of {prefix.removesuffix('_model.')}: no tensor's name begins with {prefix}; "
            "`partclipseg convert` tells by itself whose file it is"
        )
    tensors = without_prefixes(read, str(path), prefix)
    check_number_of_weights(lambda: cls(config), sum(tensor.numel() for tensor in tensors.values()), str(path))
    model = cls(config)
    fill(model, {name: tensor for name, tensor in tensors.items() if not _UNUSED.fullmatch(name)}, str(path))
    check_finite_weights(model, str(path))
    return model.eval()


@torch.no_grad()
def fill(model: CLIPSegTowers, tensors: dict[str, Tensor], origin: str, keep: tuple[str, ...] = ()) -> None:
    """Copy foreign `tensors` into every tensor of `model` whose name does not begin with one of `keep`."""
    missing: list[str] = []
    misshapen: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    used: set[str] = set()
    for name, target in model.state_dict().items():
        if name.startswith(keep):
            continue
        sources = foreign_names(name, model.config)
        used.update(sources)
        if absent := [source for source in sources if source not in tensors]:
            missing += absent
            continue
        share = (target.shape[0] // len(sources), *target.shape[1:]) if target.ndim else ()
        wrong = [source for source in sources if tuple(tensors[source].shape) != share]
        if wrong:
            misshapen += [(source, tuple(tensors[source].shape), share) for source in wrong]
            continue
        found = [tensors[source] for source in sources]
        target.copy_(torch.cat(found) if len(found) > 1 else found[0])
    check_complete(origin, missing, sorted(tensors.keys() - used), misshapen)
