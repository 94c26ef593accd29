"""Load OV-PARTS' released ZSSeg+ files: CLIP, the composed prompts and stage 1 are all in one.

No other module knows how the released code names these tensors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from partclipseg.models.clip_names import clip_place
from partclipseg.models.reading import check_finite_weights, check_number_of_weights, read_tensors, without_prefixes
from partclipseg.models.tensor_places import TensorPlace, copy_tensors, place_by_rules
from partclipseg.models.zsseg.config import ZSSegConfig
from partclipseg.models.zsseg.model import ZSSegModel

REMARK = (
    "reference mode, as released; it is made for objects whose masks are known: score it with Oracle-Obj, since "
    "without a mask it takes each photo as a whole for the object"
)
"""Remark for people about a model from a released file."""

UNUSED = re.compile(
    r"criterion\.empty_weight|clip_adapter\.fuse_weight|clip_adapter\.prompt_learner\.(start|ss|dot|end|pad)_signal|"
    r"clip_adapter\.clip_model\.(logit_scale|input_resolution|context_length|vocab_size)|pixel_(mean|std)"
)
"""Tensors without effect: class weights of a loss (E5), the prompts' weight a second time, embeddings of single tokens
that the table of embeddings has too, and constants."""

_OPTIONAL = re.compile(r"clip\.logit_scale|.*\.num_batches_tracked|.*\.position_ids")
"""Tensors of our model that a file may lack: they have no effect."""

_PARALLEL = "module."
"""Beginning of names that PyTorch's parallel training writes."""

_HEAD, _LAYERS = "sem_seg_head.", "sem_seg_head.predictor.transformer.decoder."

_RENAMED = (  # ours, theirs; every rule is applied, in order
    (r"^background$", "clip_adapter.non_object_embedding"),
    (r"^composed\.prefix$", "clip_adapter.prompt_learner.prefix_prompt"),
    (r"^composed\.connection$", "clip_adapter.prompt_learner.connect_prompt"),
    (r"^composed\.fuse_weight$", "clip_adapter.prompt_learner.fuse_weight"),
    # ResNet
    (r"^proposals\.pixel_level\.encoder\.embedder\.embedder\.", "backbone.stem.conv1."),
    (
        r"^proposals\.pixel_level\.encoder\.encoder\.stages\.(\d+)\.layers\.(\d+)\.",
        lambda found: f"backbone.res{int(found[1]) + 2}.{found[2]}.",
    ),
    (r"^(backbone\.res\d+\.\d+)\.layer\.(\d+)\.", lambda found: f"{found[1]}.conv{int(found[2]) + 1}."),
    (r"^(backbone\..*)\.convolution\.", r"\1."),
    (r"^(backbone\..*)\.normalization\.", r"\1.norm."),
    # pixel decoder: theirs count from the finest features, ours from the coarsest
    (r"^proposals\.pixel_level\.decoder\.mask_projection\.", _HEAD + "pixel_decoder.mask_features."),
    (r"^proposals\.pixel_level\.decoder\.fpn\.stem\.", _HEAD + "pixel_decoder.layer_4."),
    (
        r"^proposals\.pixel_level\.decoder\.fpn\.layers\.(\d+)\.(proj|block)\.",
        lambda found: (
            f"{_HEAD}pixel_decoder.{'adapter' if found[2] == 'proj' else 'layer'}_{3 - int(found[1])}."
        ),
    ),
    (r"^(sem_seg_head\.pixel_decoder\.(?:layer|adapter)_\d+)\.0\.", r"\1."),
    (r"^(sem_seg_head\.pixel_decoder\.(?:layer|adapter)_\d+)\.1\.", r"\1.norm."),
    # transformer decoder and heads
    (r"^proposals\.transformer\.queries_embedder\.", _HEAD + "predictor.query_embed."),
    (r"^proposals\.transformer\.input_projection\.", _HEAD + "predictor.input_proj."),
    (r"^proposals\.transformer\.decoder\.layernorm\.", _LAYERS + "norm."),
    (r"^proposals\.transformer\.decoder\.layers\.", _LAYERS + "layers."),
    (r"^(sem_seg_head\..*)\.encoder_attn\.", r"\1.multihead_attn."),
    (r"^(sem_seg_head\..*_attn)\.[qkv]_proj\.(weight|bias)$", r"\1.in_proj_\2"),
    (r"^(sem_seg_head\..*_attn)\.o_proj\.", r"\1.out_proj."),
    (r"^(sem_seg_head\..*)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"^(sem_seg_head\..*)\.encoder_attn_layer_norm\.", r"\1.norm2."),
    (r"^(sem_seg_head\..*)\.multihead_attn_layer_norm\.", r"\1.norm2."),
    (r"^(sem_seg_head\..*)\.final_layer_norm\.", r"\1.norm3."),
    (r"^(sem_seg_head\..*)\.mlp\.fc([12])\.", r"\1.linear\2."),
    (r"^proposals\.(mask|class)_head\.(\d+)\.0\.", r"sem_seg_head.predictor.\1_embed.layers.\2."),
)


def place_of(name: str) -> TensorPlace:
    """Say where our tensor `name` stands in a released file."""
    if name.startswith("clip."):
        found = clip_place(name)
        return found._replace(name=f"clip_adapter.{found.name}")
    return place_by_rules(name, _RENAMED)


def knows(names: Collection[str]) -> bool:
    """Whether these are names of tensors in a ZSSeg+ file."""
    bare = [name.removeprefix(_PARALLEL) for name in names]
    return any(name.startswith("clip_adapter.") for name in bare) and any(name.startswith(_HEAD) for name in bare)


def config_for(
    values: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], origin: str, dataset: str | None = None
) -> ZSSegConfig:
    """Return the configuration for a file's tensors: the released one, or the given `values` in reference mode."""
    return ZSSegConfig.from_values({"reference": True, **(values or {})})


def load_released(path: str | Path, config: ZSSegConfig | None = None) -> ZSSegModel:
    """Load a ZSSeg+ file (``{"model": {name: tensor}, …}``), float32 on the CPU.

    Args:
        path: the ``.pth`` file. Only tensors are read from it: a pickle that wants to run code is refused.
        config: None stands for the released sizes, in reference mode.

    Raises `PartCLIPSegError` that counts the missing, unknown, mis-shaped or non-finite tensors and names the first.
    """
    tensors = without_prefixes(read_tensors(path), str(path), _PARALLEL)
    config = config or config_for(None, tensors, str(path))
    check_number_of_weights(lambda: ZSSegModel(config), sum(tensor.numel() for tensor in tensors.values()), str(path))
    model = ZSSegModel(config)
    copy_tensors(model, tensors, place_of, _OPTIONAL, UNUSED).check(str(path))
    check_finite_weights(model, str(path))
    return model.eval()
