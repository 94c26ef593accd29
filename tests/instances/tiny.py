"""Small detectors and outliners with random weights, in directories such as the hub gives: each of 0.2 to 2 MB."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
import transformers

SIDE = 96
"""Side of the square that OWLv2 and SAM 2 look at."""

_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def build(kind: str, folder: Path) -> Path:
    """Write the model of a kind with its tokenizer and settings, always with the same weights."""
    torch.manual_seed(0)
    _BUILDERS[kind](folder)
    return folder


def letters(folder: Path, length: int) -> Any:
    """Save a CLIP tokenizer that spells words, whose padding has the number 0 and whose end token has the greatest."""
    signs = [chr(code) for code in range(33, 127)]
    tokens = [*signs, *(f"{sign}</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, merges=[], pad_token="!", model_max_length=length
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _owlv2(folder: Path) -> None:
    tokenizer = letters(folder, 40)
    text = {**_TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 40}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    vision = {**_TOWER, "image_size": SIDE, "patch_size": 16}
    config = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=32)
    transformers.Owlv2ForObjectDetection(config).save_pretrained(folder)


def _grounding_dino(folder: Path, name: str = "GroundingDino") -> None:
    special = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    vocabulary = {f"[unused{number}]": number for number in range(1030) if number not in special.values()}
    pieces = [piece for sign in string.ascii_lowercase + "'-," for piece in (sign, f"##{sign}")]
    free = sorted(vocabulary.items(), key=lambda item: item[1])[: len(pieces)]
    for (unused, number), piece in zip(free, pieces, strict=True):
        del vocabulary[unused]
        vocabulary[piece] = number
    transformers.BertTokenizer(vocab=vocabulary | special).save_pretrained(folder)
    backbone = transformers.SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4, out_indices=[2, 3, 4]
    )
    text = transformers.BertConfig(vocab_size=1030, max_position_embeddings=64, **_TOWER)
    config = getattr(transformers, f"{name}Config")(
        backbone_config=backbone, text_config=text, max_text_len=64, d_model=64, num_queries=20,
        encoder_layers=1, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64,  # one is refused
        encoder_attention_heads=2, decoder_attention_heads=2, disable_custom_kernels=True,
    )  # fmt: skip
    getattr(transformers, f"{name}ForObjectDetection")(config).save_pretrained(folder)
    settings = {"size": {"shortest_edge": 64, "longest_edge": 128}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def _sam2(folder: Path) -> None:
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16, num_attention_heads=1, image_size=[SIDE, SIDE], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128], num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[8, 4, 4, 4], window_positional_embedding_background_size=[7, 7],
        global_attention_blocks=[3],  # the first block of a stage may not be one
    )  # fmt: skip
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[128, 64, 32, 16], fpn_hidden_size=32,
        backbone_feature_sizes=[[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
    )  # fmt: skip
    config = transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config=transformers.Sam2PromptEncoderConfig(hidden_size=32, image_size=SIDE, patch_size=16),
        mask_decoder_config=transformers.Sam2MaskDecoderConfig(
            hidden_size=32, mlp_dim=64, iou_head_hidden_dim=32, num_attention_heads=2
        ),
    )
    transformers.Sam2Model(config).save_pretrained(folder)


def _sam(folder: Path, name: str = "Sam") -> None:
    vision = getattr(transformers, f"{name}VisionConfig")(
        hidden_size=32, output_channels=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=16,
        window_size=4, global_attn_indexes=[1], mlp_dim=64, num_pos_feats=16,
    )  # fmt: skip
    prompt = getattr(transformers, f"{name}PromptEncoderConfig")(hidden_size=32, image_size=SIDE, patch_size=16)
    decoder = {"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 2}
    decoder |= {"vit_dim": 32} if name == "SamHQ" else {}
    decoder_config = getattr(transformers, f"{name}MaskDecoderConfig")(**decoder)
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict(),
        mask_decoder_config=decoder_config.to_dict(),
    )  # fmt: skip
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder)


_SAM3_SIDE = 56


def _sam3_vision() -> dict[str, Any]:
    backbone = transformers.Sam3ViTConfig(
        image_size=_SAM3_SIDE, patch_size=14, pretrain_image_size=28, window_size=2, global_attn_indexes=[1],
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    )  # fmt: skip
    cells = _SAM3_SIDE // 14
    return transformers.Sam3VisionConfig(
        backbone_config=backbone.to_dict(), fpn_hidden_size=32,
        backbone_feature_sizes=[[4 * cells] * 2, [2 * cells] * 2, [cells] * 2],
    ).to_dict()  # fmt: skip


def _sam3(folder: Path) -> None:
    tokenizer = letters(folder, 32)
    text = {**_TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 32, "projection_dim": 32}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    small = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.Sam3Config(
        vision_config=_sam3_vision(), text_config={"model_type": "clip_text_model", **text},
        geometry_encoder_config=small, detr_encoder_config=small, detr_decoder_config={**small, "num_queries": 8},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )  # fmt: skip
    transformers.Sam3Model(config).save_pretrained(folder)


def _sam3_tracker(folder: Path) -> None:
    config = transformers.Sam3TrackerConfig(
        vision_config=_sam3_vision(),
        prompt_encoder_config={"hidden_size": 32, "image_size": _SAM3_SIDE, "patch_size": 14},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 2},
    )
    transformers.Sam3TrackerModel(config).save_pretrained(folder)


_BUILDERS = {
    "owlv2": _owlv2,
    "grounding-dino": _grounding_dino,
    "mm-grounding-dino": lambda folder: _grounding_dino(folder, "MMGroundingDino"),
    "sam3": _sam3,
    "sam": _sam,
    "sam_hq": lambda folder: _sam(folder, "SamHQ"),
    "sam2": _sam2,
    "sam3_tracker": _sam3_tracker,
}
