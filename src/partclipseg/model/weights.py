"""Foreign weights in: released PartCLIPSeg files and CLIPSeg checkpoints.

The only place that knows how other code names its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPSegConfig, CLIPSegForImageSegmentation

from partclipseg.errors import PartCLIPSegError
from partclipseg.files import is_directory, is_file
from partclipseg.model.clipseg import CLIPSegBaseline
from partclipseg.model.config import CLIPSegBaselineConfig, PartCLIPSegConfig
from partclipseg.model.decoder import PartDecoder
from partclipseg.model.names import find_file, quoted
from partclipseg.model.partclipseg import PartCLIPSegModel
from partclipseg.model.ranges import CLIPSEG, PARTCLIPSEG, known_values
from partclipseg.model.reading import (
    check_complete,
    check_finite,
    check_size,
    library_errors,
    load_complete,
    read_json_table,
    read_tensors,
)
from partclipseg.model.towers import CLIPSegTowers

Model = TypeVar("Model", bound=CLIPSegTowers)

_KINDS = (PartCLIPSegConfig.model_type, CLIPSegBaselineConfig.model_type, CLIPSegConfig.model_type)

_HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only")

_TOKENIZER_REMEDY = (
    "give a directory with the files of the one that the model was trained with (tokenizer.json and "
    "tokenizer_config.json, or vocab.json and merges.txt)"
)

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
    tensors = read_tensors(path)
    tensors = {name.removeprefix(REFERENCE_PREFIX): tensor for name, tensor in tensors.items()}
    check_size(lambda: PartCLIPSegModel(config), sum(tensor.numel() for tensor in tensors.values()), str(path))
    model = PartCLIPSegModel(config)
    unused = {name for name in tensors if REFERENCE_UNUSED.fullmatch(name)}
    _fill(model, {name: tensors[name] for name in tensors.keys() - unused}, str(path))
    check_finite(model, str(path))
    return model.eval()


def start_from_clipseg(cls: type[Model], source: CLIPSegForImageSegmentation, **config_changes: Any) -> Model:
    """A model of class `cls` that starts as `source`: towers and decoder copied, the rest newly initialised.

    For PartCLIPSeg the classes' FiLM and up-sampling head start as copies of CLIPSeg's own, and the merges as
    means of their halves. `config_changes` override fields of the configuration.
    """
    values = known_values(source.config.to_dict())
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


def load_pretrained(cls: type[Model], name: Any, load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`from_pretrained` of the models: our directories through `load`, CLIPSeg's by `start_from_clipseg`.

    Raises `PartCLIPSegError` for a model that is not there, of another type, incomplete or damaged.
    """
    hub_options = {key: kwargs.pop(key) for key in _HUB_OPTIONS if key in kwargs}
    values = _config_dict(name, **hub_options)
    kind = values.get("model_type")
    expected = CLIPSegBaselineConfig if issubclass(cls, CLIPSegBaseline) else PartCLIPSegConfig
    if kind not in (expected.model_type, CLIPSegConfig.model_type):
        raise _wrong_kind(name, kind, expected.model_type)
    changes = {key: kwargs.pop(key) for key in PARTCLIPSEG if key in kwargs}
    try:
        config = kwargs.pop("config", None) or expected.from_values({**values, **changes})
    except PartCLIPSegError as error:
        raise PartCLIPSegError(f"{name}: {error}; give the config.json that belongs to the weights") from None
    if kind == expected.model_type:
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


def load_model(name: str | Path, **kwargs: Any) -> PartCLIPSegModel | CLIPSegBaseline:
    """The model in a directory or on the hub, of whichever of the two classes it is.

    A plain CLIPSeg checkpoint becomes an untrained PartCLIPSeg. Keyword arguments go to `from_pretrained`.
    """
    kind = _config_dict(name).get("model_type")
    if kind not in _KINDS:
        raise _wrong_kind(name, kind, None)
    cls = CLIPSegBaseline if kind == CLIPSegBaselineConfig.model_type else PartCLIPSegModel
    return cls.from_pretrained(name, **kwargs)


def load_tokenizer(name: str | Path, text_config: Any = None) -> Any:
    """The tokenizer in a directory or on the hub, checked against the text tower's configuration if it is given.

    Raises `PartCLIPSegError` where there is none, or where it is damaged or another model's.
    """
    files = ("tokenizer.json", "vocab.json")
    # First of all: where the hub cannot be reached, each file that a tokenizer may have is waited for.
    folder = find_file(name, "tokenizer_config.json").parent
    # Of a folder without these transformers makes a tokenizer without words.
    if is_directory(name) and not any(is_file(folder / file) for file in files):
        raise PartCLIPSegError(f"{name} has no tokenizer: {_TOKENIZER_REMEDY}")
    for file in (*files, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if is_file(folder / file):
            read_json_table(folder / file)
    with library_errors(f"the tokenizer in {name} cannot be loaded: {_TOKENIZER_REMEDY}"):
        # Left to find the configuration itself, transformers warns that it does not know our model types.
        tokenizer = AutoTokenizer.from_pretrained(name, config=CLIPSegConfig(), trust_remote_code=False)
        tokenizer.padding_side = "right"  # the text tower is causal and reads no mask
    if text_config is not None:
        check_tokenizer(tokenizer, text_config, name)
    return tokenizer


def check_tokenizer(tokenizer: Any, text_config: Any, name: str | Path) -> None:
    """Raise `PartCLIPSegError` if `tokenizer`, from `name`, makes tokens that the text tower does not know.

    Every text must end with the end token, at which the text tower reads.
    """
    with library_errors(f"the tokenizer in {name} cannot be used: {_TOKENIZER_REMEDY}"):
        size = len(tokenizer)
        ids = tokenizer(["dog", "a striped \N{SNOWMAN} qzx"], padding=True, return_tensors="pt")["input_ids"]
        largest = max(size - 1, int(ids.max()), *tokenizer.get_vocab().values())
    if largest >= text_config.vocab_size:
        raise PartCLIPSegError(
            f"the tokenizer in {name} has {largest + 1:,} tokens and the text tower {text_config.vocab_size:,}: "
            f"{_TOKENIZER_REMEDY}"
        )
    end = text_config.eos_token_id
    if end != 2 and not bool((ids == end).any(1).all()):  # 2 stands for the largest token in old files of CLIP
        raise PartCLIPSegError(
            f"the tokenizer in {name} does not end a text with the token {end}, at which the text tower reads: "
            f"{_TOKENIZER_REMEDY}"
        )


def _config_dict(name: Any, **hub_options: Any) -> dict[str, Any]:
    path = find_file(name, "config.json", **hub_options)
    if not is_file(path):
        raise PartCLIPSegError(
            f"{name} has no config.json: give a model's directory, as `partclipseg convert` or `train` writes it"
        )
    return read_json_table(path)


def _wrong_kind(name: Any, kind: Any, expected: str | None) -> PartCLIPSegError:
    what = f"a model of type {quoted(kind)}" if isinstance(kind, str) else "a config.json without a model_type"
    if expected is None or kind not in _KINDS:
        return PartCLIPSegError(
            f"{name} holds {what}, not {quoted(expected) if expected else 'one of ' + ', '.join(_KINDS)}: give a "
            "directory that `partclipseg convert` or `train` wrote, or a CLIPSeg model to start from"
        )
    return PartCLIPSegError(
        f"{name} holds {what}, not {quoted(expected)}: open it with partclipseg.PartSegmenter.from_pretrained, or "
        f"start from a model of type {quoted(expected)} or 'clipseg'"
    )


@torch.no_grad()
def _fill(model: CLIPSegTowers, tensors: dict[str, Tensor], origin: str, keep: tuple[str, ...] = ()) -> None:
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
