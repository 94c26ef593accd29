"""The tiny backbone: a small CLIP and a CLIPSeg decoder, trained from nothing on PartShapes.

The real ones were made in the same way on photos: CLIP from captions, CLIPSeg from referring expressions of whole
objects. Here both losses run together, since a small set of scenes and words is no match for 400 million captions:

- captions name objects of the scene, any object, and are contrasted with the photos of the batch (CLIP);
- object words, those in the photo and some that are not, are referred to their masks (CLIPSeg).

No part is ever labelled or named, of seen and unseen objects alike.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from partclipseg.model.capture import StepGradients
from partclipseg.model.clipseg import CLIPSegBaseline
from partclipseg.model.config import CLIPSegBaselineConfig
from partclipseg.shapes.cache import SceneArrays
from partclipseg.shapes.captions import caption, words
from partclipseg.shapes.tokenizer import build_tokenizer
from partclipseg.shapes.world import partshapes_world

logger = logging.getLogger(__name__)

CAPTION_LENGTH = 48
"""Tokens that the text tower has places for; the longest captions are cut."""


@dataclass(frozen=True)
class BackboneRecipe:
    """How the tiny backbone is made."""

    steps: int = 6000
    batch: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    """Steps over which the learning rate rises; then it falls to zero along a cosine."""
    weight_decay: float = 0.05
    phrases: int = 6
    """Object words referred to in each photo: those in it, and words of absent objects up to this number."""
    caption_weight: float = 0.1
    """Weight of the contrastive loss beside the mask loss."""
    seed: int = 0

    def learning_rate_factor(self, step: int) -> float:
        """Factor on the learning rate at `step`, from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)))


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
    scenes: SceneArrays,
    recipe: BackboneRecipe,
    device: torch.device,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> tuple[CLIPSegBaseline, PreTrainedTokenizerBase]:
    """Train the towers and the decoder together, from random weights.

    All scenes lie on the device. `report` is called now and then with the step and its losses. Returns the model
    (float32, evaluation mode, on the CPU) and its tokenizer.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    object_words = partshapes_world().vocabulary.objects
    tokenizer = build_tokenizer(words(), CAPTION_LENGTH)
    model = CLIPSegBaseline(backbone_config(scenes.size, len(tokenizer)))
    nn.Module.to(model, device).train()
    model.visual_adapter.requires_grad_(False)
    model.background.requires_grad_(False)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    texts = [caption(scene, rng) for scene in scenes]
    batches = _Batches(scenes, _tokenise(tokenizer, texts, device), len(object_words), model, device)
    named = _tokenise(tokenizer, list(object_words), device)

    def compute(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pixels, labels, present, captions = batches.make(inputs["rows"])
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            masks, contrast = _losses(model, pixels, labels, present, named, captions, recipe.phrases)
        return {"masks": masks, "captions": contrast, "total": masks + recipe.caption_weight * contrast}

    gradients = StepGradients(compute, parameters)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=device.type == "cuda",
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.learning_rate_factor)
    started = time.perf_counter()
    for step in range(recipe.steps):
        terms = gradients({"rows": torch.from_numpy(rng.integers(0, len(scenes), recipe.batch))})
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == recipe.steps - 1:
            losses = {name: term.item() for name, term in terms.items()}
            seconds = time.perf_counter() - started
            logger.info("backbone step %d of %d, %.0f s: %s", step + 1, recipe.steps, seconds, losses)
            if report is not None:
                report(step + 1, losses)
    nn.Module.to(model, "cpu")
    return model.eval(), tokenizer


class _Batches:
    """Batches gathered, mirrored and re-lit where the scenes lie."""

    def __init__(
        self,
        scenes: SceneArrays,
        captions: Tensor,
        num_objects: int,
        model: CLIPSegBaseline,
        device: torch.device,
    ) -> None:
        self.photos = torch.from_numpy(np.asarray(scenes.images)).to(device)
        self.labels = torch.from_numpy(np.asarray(scenes.objects)).to(device)
        self.captions = captions
        self.present = torch.cat([_presence(part, num_objects) for part in self.labels.split(4096)])  # bool [N, O]
        self.mean, self.std = (
            torch.tensor(values, device=device).view(3, 1, 1)
            for values in (model.config.image_mean, model.config.image_std)
        )

    def make(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised pixels `[B, 3, S, S]`, object labels `[B, S, S]`, presence `[B, O]`, caption ids `[B, L]`."""
        pixels = self.photos[rows].permute(0, 3, 1, 2).float() / 255
        labels = self.labels[rows]
        batch, device = len(rows), pixels.device
        mirrored = torch.rand(batch, 1, 1, device=device) < 0.5
        pixels = torch.where(mirrored.unsqueeze(1), pixels.flip(-1), pixels)
        labels = torch.where(mirrored, labels.flip(-1), labels)
        gain = 1 + 0.3 * (torch.rand(batch, 3, 1, 1, device=device) - 0.5)
        shift = 0.2 * (torch.rand(batch, 1, 1, 1, device=device) - 0.5)
        pixels = (pixels * gain + shift).clamp(0, 1)
        return (pixels - self.mean) / self.std, labels, self.present[rows], self.captions[rows]


def _losses(
    model: CLIPSegBaseline,
    pixels: Tensor,
    labels: Tensor,
    present: Tensor,
    named: Tensor,
    captions: Tensor,
    phrases: int,
) -> tuple[Tensor, Tensor]:
    """Mask loss and contrastive loss of a batch; `named [O, L']` are the ids of the object words."""
    activations = model.encode_photo(pixels)

    # Referring: the objects of the photo first, then words drawn from the absent ones.
    order = torch.rand(present.shape, device=present.device) + present
    asked = order.topk(min(phrases, present.shape[1]), dim=1).indices  # [B, K]
    embeddings = model.encode_text(named, torch.ones_like(named))[asked]  # [B, K, D]
    features, _ = model.decoder.condition_features(activations, embeddings)
    logits = model.decoder.logits(features, model.grid(pixels)).float()  # [B, K, h, w]
    small = F.interpolate(labels[:, None].float(), logits.shape[-2:], mode="nearest-exact")
    masks = F.binary_cross_entropy_with_logits(logits, (small == asked[..., None, None]).float())

    # Captions: photos and texts of the batch, where an equal caption is no mistake.
    photo = model.clip.visual_projection(model.clip.vision_model.post_layernorm(activations[0][:, 0]))
    text = model.encode_text(captions, torch.ones_like(captions))
    similarity = F.normalize(photo.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T  # [B, B]
    similarity = similarity * model.clip.logit_scale.clamp(max=math.log(100)).exp()
    same = (captions[:, None] == captions).all(-1).float()
    same = same / same.sum(1, keepdim=True)
    contrast = (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2
    return masks, contrast


def _presence(labels: Tensor, count: int) -> Tensor:
    """Which of `count` objects each map shows: `[N, S, S]` → bool `[N, count]`."""
    flat = labels.flatten(1).long() + 1  # 0 is background
    return torch.zeros(len(flat), count + 1, dtype=torch.bool, device=flat.device).scatter_(1, flat, True)[:, 1:]


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str], device: torch.device) -> Tensor:
    """int64 `[N, L]`, padded to the longest; behind the end token the tower does not look."""
    encoded = tokenizer(texts, padding="longest", truncation=True, return_tensors="pt")
    return torch.as_tensor(encoded["input_ids"], device=device)
