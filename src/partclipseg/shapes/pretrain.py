"""The tiny backbone: a small CLIP and a CLIPSeg decoder, trained from nothing on PartShapes.

The real ones were made in the same way on photos: CLIP from captions, CLIPSeg from referring expressions of whole
objects. Here both losses run together, since a small set of scenes and words is no match for 400 million captions:

- captions name objects of the scene, any object, and are contrasted with the photos of the batch (CLIP);
- object words, those in the photo and some that are not, are referred to their masks (CLIPSeg).

No part is ever labelled or named, of seen and unseen objects alike.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from partclipseg.model.clipseg import CLIPSegBaseline
from partclipseg.model.config import CLIPSegBaselineConfig
from partclipseg.shapes.tokenizer import build_tokenizer

log = logging.getLogger(__name__)

TEMPLATES = ("{}", "a {}", "a photo of a {}", "a picture of a {}", "there is a {} here")
CAPTION_LENGTH = 24
"""Tokens a caption may have."""


@dataclass(frozen=True)
class BackboneRecipe:
    """How the tiny backbone is made."""

    steps: int = 6000
    batch: int = 128
    learning_rate: float = 1e-3
    warmup: int = 300
    """Steps of linear warm-up; then the learning rate falls to zero along a cosine."""
    weight_decay: float = 0.05
    phrases: int = 6
    """Object words referred to in each photo: those in it, and words of absent objects up to this number."""
    caption_weight: float = 0.1
    """Weight of the contrastive loss beside the mask loss."""
    seed: int = 0


def backbone_config(image_size: int, words: int) -> CLIPSegBaselineConfig:
    """Some 4.5 million parameters: 7 vision blocks of width 192 on 8-pixel patches, 3 text blocks of width 128."""
    return CLIPSegBaselineConfig(
        image_size=image_size,
        visual_adapter_ratio=0.0,  # CLIPSeg has no adapter; PartCLIPSeg brings its own
        text_config={
            "vocab_size": words,
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": CAPTION_LENGTH,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        vision_config={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 7,
            "num_attention_heads": 6,
            "image_size": image_size,
            "patch_size": 8,
        },
        projection_dim=128,
        reduce_dim=64,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=256,
        extract_layers=[2, 4, 6],
        use_complex_transposed_convolution=True,
    )


def train_backbone(
    images: np.ndarray,
    objects: np.ndarray,
    object_words: tuple[str, ...],
    known_words: list[str],
    recipe: BackboneRecipe,
    device: torch.device,
) -> tuple[CLIPSegBaseline, PreTrainedTokenizerFast]:
    """Train the towers and the decoder together.

    Args:
        images: uint8 `[N, S, S, 3]`, RGB.
        objects: integer `[N, S, S]`, index into `object_words` or -1.
        object_words: what the objects are called.
        known_words: every word that the tokenizer shall know, also those that no caption says (parts).

    Returns the model (float32, evaluation mode) and its tokenizer.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator(device).manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    caption_words = " ".join([*TEMPLATES, "and"]).replace("{}", "").split()
    tokenizer = build_tokenizer([w for word in [*known_words, *caption_words] for w in word.split()], CAPTION_LENGTH)
    model = CLIPSegBaseline(backbone_config(images.shape[1], len(tokenizer))).to(device).train()
    model.visual_adapter.requires_grad_(False)
    model.background.requires_grad_(False)

    photos = torch.from_numpy(images).to(device)
    labels = torch.from_numpy(objects).to(device)
    present = _presence(labels, len(object_words))  # bool [N, O]
    present_on_host = present.cpu().numpy()
    words = _tokenise(tokenizer, list(object_words), device)
    mean = torch.tensor(model.config.image_mean, device=device).view(3, 1, 1)
    std = torch.tensor(model.config.image_std, device=device).view(3, 1, 1)

    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=device.type == "cuda",
    )
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=recipe.warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, recipe.steps - recipe.warmup)),
        ],
        milestones=[recipe.warmup],
    )
    started = time.perf_counter()
    for step in range(recipe.steps):
        rows = rng.integers(0, len(images), recipe.batch)
        captions = _tokenise(tokenizer, [_caption(present_on_host[row], object_words, rng) for row in rows], device)
        index = torch.from_numpy(rows).to(device)
        pixels, targets = _augment(photos[index], labels[index], generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            masks, contrast = _losses(
                model, (pixels - mean) / std, targets, present[index], words, captions, recipe.phrases, generator
            )
        loss = masks + recipe.caption_weight * contrast
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == recipe.steps - 1:
            log.info(
                "backbone step %d of %d: masks %.4f, captions %.3f, %.0f s",
                step + 1, recipe.steps, masks.item(), contrast.item(), time.perf_counter() - started,
            )  # fmt: skip
    return model.eval(), tokenizer


def _losses(
    model: CLIPSegBaseline,
    pixels: Tensor,
    targets: Tensor,
    present: Tensor,
    words: tuple[Tensor, Tensor],
    captions: tuple[Tensor, Tensor],
    phrases: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Mask loss and contrastive loss of a batch: pixels `[B, 3, S, S]`, targets `[B, S, S]`, present `[B, O]`."""
    activations = model.encode_photo(pixels)

    # Referring: the objects of the photo first, then words drawn from the absent ones.
    order = torch.rand(present.shape, generator=generator, device=present.device) + present
    asked = order.topk(min(phrases, order.shape[1]), dim=1).indices  # [B, K]
    embeddings = model.encode_text(*words)[asked]  # [B, K, D]
    features, _ = model.decoder.condition_features(activations, embeddings)
    logits = model.decoder.logits(features, model.grid(pixels)).float()  # [B, K, h, w]
    small = F.interpolate(targets[:, None].float(), logits.shape[-2:], mode="nearest-exact")
    masks = F.binary_cross_entropy_with_logits(logits, (small == asked[..., None, None]).float())

    # Captions: photos and texts of the batch, where an equal caption is no mistake.
    photo = model.clip.visual_projection(model.clip.vision_model.post_layernorm(activations[0][:, 0]))
    text = model.encode_text(*captions)
    similarity = F.normalize(photo.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T  # [B, B]
    similarity = similarity * model.clip.logit_scale.clamp(max=4.6).exp()
    same = (captions[0][:, None] == captions[0][None]).all(-1).float()
    same = same / same.sum(1, keepdim=True)
    contrast = (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2
    return masks, contrast


def _presence(labels: Tensor, count: int) -> Tensor:
    flat = labels.flatten(1).long() + 1  # 0 is background
    rows = [torch.zeros(len(part), count + 1, dtype=torch.bool, device=part.device).scatter_(1, part, True)
            for part in flat.split(4096)]  # fmt: skip
    return torch.cat(rows)[:, 1:]


def _caption(present: np.ndarray, words: tuple[str, ...], rng: np.random.Generator) -> str:
    there = rng.permutation(np.flatnonzero(present))[: rng.integers(1, 4)]
    named = " and a ".join(words[index] for index in there) or "scene"
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(named)


def _tokenise(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], device: torch.device
) -> tuple[Tensor, Tensor]:
    # Padded to one length: the graph keeps its shapes, and nothing is read back from the device to cut it.
    encoded = tokenizer(texts, padding="longest", truncation=True, return_tensors="pt")
    return encoded["input_ids"].to(device, non_blocking=True), encoded["attention_mask"].to(device, non_blocking=True)


def _augment(photos: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """uint8 `[B, S, S, 3]` → float `[B, 3, S, S]` in 0..1, mirrored and re-lit at random, with its labels."""
    batch, device = len(photos), photos.device
    pixels = photos.permute(0, 3, 1, 2).float() / 255
    mirrored = torch.rand(batch, generator=generator, device=device) < 0.5
    pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
    labels = torch.where(mirrored[:, None, None], labels.flip(-1), labels)
    gain = 1 + 0.3 * (torch.rand(batch, 3, 1, 1, generator=generator, device=device) - 0.5)
    shift = 0.2 * (torch.rand(batch, 1, 1, 1, generator=generator, device=device) - 0.5)
    return (pixels * gain + shift).clamp(0, 1), labels
