"""Names of OpenAI's CLIP in released files of other methods."""

from __future__ import annotations

from partclipseg.models.tensor_places import TensorPlace, place_by_rules

CLIP_RENAMED = (
    (r"^clip\.vision_model\.embeddings\.class_embedding$", "clip_model.visual.class_embedding"),
    (r"^clip\.vision_model\.embeddings\.patch_embedding\.", "clip_model.visual.conv1."),
    (r"^clip\.vision_model\.embeddings\.position_embedding\.weight$", "clip_model.visual.positional_embedding"),
    (r"^clip\.vision_model\.pre_layrnorm\.", "clip_model.visual.ln_pre."),
    (r"^clip\.vision_model\.post_layernorm\.", "clip_model.visual.ln_post."),
    (r"^clip\.visual_projection\.weight$", "clip_model.visual.proj"),
    (r"^clip\.text_projection\.weight$", "clip_model.text_projection"),
    (r"^clip\.text_model\.embeddings\.token_embedding\.", "clip_model.token_embedding."),
    (r"^clip\.text_model\.embeddings\.position_embedding\.weight$", "clip_model.positional_embedding"),
    (r"^clip\.text_model\.final_layer_norm\.", "clip_model.ln_final."),
    (r"^clip\.vision_model\.encoder\.layers\.", "clip_model.visual.transformer.resblocks."),
    (r"^clip\.text_model\.encoder\.layers\.", "clip_model.transformer.resblocks."),
    (r"^(clip_model\..*)\.self_attn\.[qkv]_proj\.(weight|bias)$", r"\1.attn.in_proj_\2"),
    (r"^(clip_model\..*)\.self_attn\.out_proj\.", r"\1.attn.out_proj."),
    (r"^(clip_model\..*)\.layer_norm([12])\.", r"\1.ln_\2."),
    (r"^(clip_model\..*)\.mlp\.fc1\.", r"\1.mlp.c_fc."),
    (r"^(clip_model\..*)\.mlp\.fc2\.", r"\1.mlp.c_proj."),
    (r"^clip\.logit_scale$", "clip_model.logit_scale"),
)
"""Ours, theirs, for a CLIP of transformers that is called ``clip``; every rule is applied, in order."""

CLIP_TRANSPOSED = ("clip.visual_projection.weight", "clip.text_projection.weight")
"""Our tensors that OpenAI's code has transposed."""


def clip_place(name: str) -> TensorPlace:
    """Say where our tensor ``clip.…`` stands among CLIP's own."""
    return place_by_rules(name, CLIP_RENAMED, CLIP_TRANSPOSED)
