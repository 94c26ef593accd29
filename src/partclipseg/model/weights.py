"""Foreign weights in: released PartCLIPSeg files and CLIPSeg checkpoints.

The only place that knows how other code names its tensors.
"""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPSegConfig, CLIPSegForImageSegmentation, PreTrainedConfig
from transformers.utils.hub import cached_file

from partclipseg.errors import PartCLIPSegError
from partclipseg.model.clipseg import CLIPSegBaseline
from partclipseg.model.config import CLIPSegBaselineConfig, PartCLIPSegConfig
from partclipseg.model.decoder import PartDecoder
from partclipseg.model.partclipseg import PartCLIPSegModel
from partclipseg.model.towers import CLIPSegTowers

logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=CLIPSegTowers)

REFERENCE_PREFIX = "partclipseg_model."

REFERENCE_UNUSED = re.compile(r".*\.position_ids|text_adapter\.fc\.[02]\.weight|tunable_linear\.weight")
"""Tensors that stand in released files and have no effect there: buffers, and two layers that are never read."""

_RENAMED = (  # ours, theirs; the first that matches applies
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


def foreign_names(name: str, config: PartCLIPSegConfig) -> tuple[str, ...]:
    """What CLIPSeg and the reference call our tensor `name`: one name, or three that are stacked (q, k, v)."""
    for ours, theirs in _RENAMED:
        renamed, matches = re.subn(ours, theirs, name)
        if matches:
            name = renamed
            break
    if not config.use_complex_transposed_convolution:  # theirs is then a bare layer, not a sequence of one
        name = re.sub(r"(transposed_convolution|part_obj_with_cond_embed)\.0\.", r"\1.", name)
    return tuple(name.replace("{qkv}", letter) for letter in "qkv") if "{qkv}" in name else (name,)


def load_reference_checkpoint(
    path: str | Path, config: PartCLIPSegConfig | Mapping[str, Any] | None = None
) -> PartCLIPSegModel:
    """A model from a released PartCLIPSeg file (``{"model": {name: tensor}, …}``), float32 on the CPU.

    Args:
        path: the ``.pth`` file. Only tensors are read from it: a pickle that wants to run code is refused.
        config: ours, or the reference's own dictionary; None stands for the released CLIP ViT-B/16 models.

    The result is in reference mode unless `config` is ours and says otherwise. Raises `PartCLIPSegError` listing
    every missing, unknown and mis-shaped tensor.
    """
    path = Path(path)
    if not isinstance(config, PartCLIPSegConfig):
        config = PartCLIPSegConfig.from_reference(config)
    tensors = _read_checkpoint(path)
    tensors = {name.removeprefix(REFERENCE_PREFIX): tensor for name, tensor in tensors.items()}
    model = PartCLIPSegModel(config)
    unused = {name for name in tensors if REFERENCE_UNUSED.fullmatch(name)}
    _fill(model, {name: tensors[name] for name in tensors.keys() - unused}, str(path))
    return model.eval()


def start_from_clipseg(cls: type[Model], source: CLIPSegForImageSegmentation, **config_changes: Any) -> Model:
    """A model of class `cls` that starts as `source`: towers and decoder copied, the rest newly initialised.

    For PartCLIPSeg the classes' FiLM and up-sampling head start as copies of CLIPSeg's own, and the merges as
    means of their halves. `config_changes` override fields of the configuration.
    """
    values = source.config.to_dict()
    for key in ("model_type", "architectures", "transformers_version", "dtype", "_name_or_path"):
        values.pop(key, None)
    config_class = CLIPSegBaselineConfig if issubclass(cls, CLIPSegBaseline) else PartCLIPSegConfig
    model = cls(config_class(**{**values, **config_changes}))
    new = ("background", "visual_adapter.", "decoder.class_", "decoder.merge_")
    _fill(model, dict(source.state_dict()), "the CLIPSeg checkpoint", keep=new)
    if isinstance(model.decoder, PartDecoder):
        model.decoder.copy_to_classes()
    torch.nn.Module.to(model, source.dtype)  # transformers' own `to` adds nothing here and hides its types
    return model.eval()


@torch.no_grad()
def to_clipseg(model: CLIPSegBaseline) -> CLIPSegForImageSegmentation:
    """transformers' CLIPSeg with the towers and decoder of `model`; adapter and background have no place there."""
    fields = CLIPSegConfig().to_dict().keys() - {"model_type", "architectures", "transformers_version", "dtype"}
    target = CLIPSegForImageSegmentation(CLIPSegConfig(**{key: model.config.to_dict()[key] for key in fields}))
    theirs = target.state_dict()
    for name, tensor in model.state_dict().items():
        names = foreign_names(name, model.config)
        if names[0] in theirs:
            for foreign, share in zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor], strict=True):
                theirs[foreign].copy_(share)
    return target


def load_pretrained(cls: type[Model], name: Any, load: Callable[..., Model], *args: Any, **kwargs: Any) -> Model:
    """`from_pretrained` of the models: our directories through `load`, CLIPSeg's by `start_from_clipseg`."""
    hub_options = {key: kwargs[key] for key in ("revision", "cache_dir", "token", "local_files_only") if key in kwargs}
    kind = _config_dict(name, **hub_options).get("model_type")
    if kind == "clipseg":
        dtype = kwargs.pop("dtype", torch.float32)
        source = CLIPSegForImageSegmentation.from_pretrained(name, dtype=dtype, **hub_options)
        changes = {key: value for key, value in kwargs.items() if key not in hub_options}
        return start_from_clipseg(cls, source, **changes)
    expected = CLIPSegBaselineConfig if issubclass(cls, CLIPSegBaseline) else PartCLIPSegConfig
    if kind != expected.model_type:
        raise PartCLIPSegError(
            f"{name} holds a model of type {kind!r}, not {expected.model_type!r}: "
            "open it with partclipseg.PartSegmenter.from_pretrained, or convert it first"
        )
    return load(name, *args, **kwargs)


def load_model(name: str | Path, **kwargs: Any) -> PartCLIPSegModel | CLIPSegBaseline:
    """The model in a directory or on the hub, of whichever of the two classes it is.

    A plain CLIPSeg checkpoint becomes an untrained PartCLIPSeg. Keyword arguments go to `from_pretrained`.
    """
    kind = _config_dict(name).get("model_type")
    cls = CLIPSegBaseline if kind == CLIPSegBaselineConfig.model_type else PartCLIPSegModel
    return cls.from_pretrained(name, **kwargs)


def load_tokenizer(name: str | Path) -> Any:
    """The tokenizer in a directory or on the hub; raises `PartCLIPSegError` where there is none."""
    folder = Path(name)
    try:
        if not folder.is_dir():
            # First of all: where the hub cannot be reached, each file that a tokenizer may have is waited for.
            cached_file(name, "tokenizer_config.json")
        elif not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
            raise FileNotFoundError(folder)  # of such a folder transformers makes a tokenizer without words
        # Left to find the configuration itself, transformers warns that it does not know our model types.
        return AutoTokenizer.from_pretrained(name, config=CLIPSegConfig())
    except (OSError, ValueError) as error:
        raise PartCLIPSegError(
            f"{name} has no tokenizer, or the hub cannot be reached: give a directory with the files of the one that "
            "the model was trained with (tokenizer.json and tokenizer_config.json, or vocab.json and merges.txt)"
        ) from error


def _config_dict(name: Any, **hub_options: Any) -> dict[str, Any]:
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise PartCLIPSegError(
            f"{name} has no config.json: give a model's directory, as `partclipseg convert` or `train` writes it"
        )
    if not Path(name).is_dir():  # said at once: where there is no network, the hub is tried for half a minute
        logger.warning("there is no directory %s; asking the Hugging Face hub for a model of that name", name)
    try:
        return PreTrainedConfig.get_config_dict(name, **hub_options)[0]
    except OSError as error:
        raise PartCLIPSegError(
            f"there is no directory {str(name)!r}, and the hub cannot be reached for a model of that name: "
            "give a model's directory, as `partclipseg convert` or `train` writes it, or download the model where "
            "there is network"
        ) from error


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise PartCLIPSegError(f"there is no file {path}") from None
    except pickle.UnpicklingError as error:
        raise PartCLIPSegError(
            f"{path} is refused: it holds more than tensors, and reading it could run code. Ask its author for a "
            "file that has only weights"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise PartCLIPSegError(f"{path} is not a readable PyTorch checkpoint: {error}") from error
    tensors = content.get("model", content) if isinstance(content, dict) else None
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise PartCLIPSegError(f"{path} is no PartCLIPSeg checkpoint: it has no table of tensors under 'model'")
    return tensors


@torch.no_grad()
def _fill(model: CLIPSegTowers, tensors: dict[str, Tensor], origin: str, keep: tuple[str, ...] = ()) -> None:
    """Copy foreign `tensors` into every tensor of `model` whose name does not begin with one of `keep`."""
    problems: list[str] = []
    used: set[str] = set()
    for name, target in model.state_dict().items():
        if name.startswith(keep):
            continue
        sources = foreign_names(name, model.config)
        used.update(sources)
        if missing := [source for source in sources if source not in tensors]:
            problems += [f"missing: {source}" for source in missing]
            continue
        share = (target.shape[0] // len(sources), *target.shape[1:]) if target.ndim else ()
        wrong = [source for source in sources if tuple(tensors[source].shape) != share]
        if wrong:
            problems += [f"{source} has shape {tuple(tensors[source].shape)}, expected {share}" for source in wrong]
            continue
        found = [tensors[source] for source in sources]
        target.copy_(torch.cat(found) if len(found) > 1 else found[0])
    problems += [f"unknown: {name}" for name in sorted(tensors.keys() - used) if not name.endswith("position_ids")]
    if problems:
        raise PartCLIPSegError(
            f"{origin} does not fit the model ({len(problems)} tensors); is the configuration the right one?\n  "
            + "\n  ".join(problems)
        )
