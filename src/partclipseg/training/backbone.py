"""The tiny backbone: a small CLIP and a CLIPSeg decoder, trained from nothing on PartShapes.

The released models were made in the same way on photos: CLIP from captions, CLIPSeg from referring expressions of
whole objects. Here all losses run together, since few scenes and words cannot replace 400 million captions:

- captions name objects of the scene, any object, and are contrasted with the photos of the batch (CLIP);
- patches on an object are contrasted with the words of all objects, which a short training needs: a caption alone
  says of some 256 patches together what it says of one;
- patches on a part of a *seen* object are contrasted with all part words, since CLIP has read part words on the web;
- object words, those in the photo and some that are not, are referred to their masks (CLIPSeg).

No part of an unseen object is ever labelled or named. `BackboneRecipe.part_weight` of 0 leaves parts out altogether.
The result is a CLIPSeg checkpoint like the real one, and the recipes for PartShapes start from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from partclipseg.losses.labels import shown
from partclipseg.models.clipseg.config import CLIPSegBaselineConfig
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg_weights import to_clipseg
from partclipseg.models.parameter_groups import trained
from partclipseg.shapes.cache import SceneArrays
from partclipseg.shapes.captions import caption, words
from partclipseg.shapes.tokenizer import build_tokenizer
from partclipseg.shapes.world import partshapes_world
from partclipseg.training.pretraining import pretrain
from partclipseg.training.scene_photos import LabelledScenes
from partclipseg.training.start import compile_on
from partclipseg.training.towers import PATCH, BackboneRecipe

CAPTION_LENGTH = 48
"""Maximum number of tokens of the text tower; longer captions are cut."""


def backbone_config(image_size: int, words: int) -> CLIPSegBaselineConfig:
    """Return a configuration of some 4.5 million parameters: 7 vision blocks of width 192, 3 text blocks of 128."""
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
            "patch_size": PATCH,
        },
        projection_dim=128,
        reduce_dim=64,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=256,
        extract_layers=[2, 4, 6],
        use_complex_transposed_convolution=True,
    )


def train_backbone(
    recipe: BackboneRecipe,
    output: str | Path,
    scenes: SceneArrays | None = None,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Path | None:
    """Train the towers and the decoder together from random weights, or continue the run that `output` holds.

    ``model/`` in `output`, which is returned, is a CLIPSeg checkpoint with its tokenizer. The other arguments, None
    and the errors are those of `pretraining.pretrain`; `UsageError` also where it is to be compiled on a CPU.
    """
    return pretrain(recipe, output, Backbone, scenes, report)


class Backbone:
    """The backbone in training; see `pretraining.Pretraining`."""

    def __init__(self, recipe: BackboneRecipe, scenes: SceneArrays, device: torch.device) -> None:
        self.recipe = recipe
        self.tokenizer = build_tokenizer(words(), CAPTION_LENGTH)
        self.module = CLIPSegBaseline(backbone_config(scenes.size, len(self.tokenizer)))
        nn.Module.to(self.module, device)
        self.module.train()
        self.module.visual_adapter.requires_grad_(False)
        self.module.background.requires_grad_(False)
        if recipe.compile:
            compile_on(device, self.module)
        self.parameters = trained(self.module)
        self.batches = _Batches(scenes, self.tokenizer, self.module, recipe, device)

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        return _losses(self.module, self.batches, rows, self.recipe)

    def after_step(self, step: int) -> None:
        pass

    def save(self, directory: Path) -> None:
        nn.Module.to(self.module, "cpu")
        to_clipseg(self.module).half().save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


class _Batches:
    """Scenes with their captions, and the words of all objects and parts, on a device."""

    def __init__(
        self,
        scenes: SceneArrays,
        tokenizer: PreTrainedTokenizerBase,
        model: CLIPSegBaseline,
        recipe: BackboneRecipe,
        device: torch.device,
    ) -> None:
        vocabulary = partshapes_world().vocabulary
        rng = np.random.default_rng(recipe.seed)
        parts = [part_words(scenes.parts)] if recipe.part_weight else []
        self.scenes = LabelledScenes(scenes, device, scenes.objects, *parts)
        self.captions = _tokenise(tokenizer, [caption(scene, rng) for scene in scenes], device)  # [N, L]
        self.object_words = _tokenise(tokenizer, list(vocabulary.objects), device)  # [O, L']
        self.part_words = _tokenise(tokenizer, list(vocabulary.parts), device)  # [P, L'']
        labels = self.scenes.labels[0].split(4096)
        self.present = torch.cat([shown(some, len(vocabulary.objects)) for some in labels])  # [N, O]
        self._normalise = model.normalise

    def __call__(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return normalised pixels `[B, 3, S, S]`, object labels `[B, S, S]` and, if they are trained, part labels."""
        pixels, *labels = self.scenes(rows)
        return self._normalise(pixels)["pixel_values"], *labels


def part_words(object_parts: np.ndarray) -> np.ndarray:
    """Return the part word of each pixel of a seen object, int8 `[N, S, S]`, -1 elsewhere.

    `object_parts` are indices into the world's object-parts, int16 `[N, S, S]`, -1 for none.
    """
    world = partshapes_world()
    words = np.full(len(world.vocabulary) + 1, -1, np.int8)  # the last stands for no part, index -1
    words[list(world.seen)] = np.asarray(world.vocabulary.class_to_part)[list(world.seen)]
    return words[object_parts]


def _losses(model: CLIPSegBaseline, batches: _Batches, rows: Tensor, recipe: BackboneRecipe) -> dict[str, Tensor]:
    """Compute mask loss and contrastive loss of the scenes `rows [B]`; nothing is read back from the device."""
    pixels, labels, *part_labels = batches(rows)
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.is_cuda):
        activations = model.encode_photo(pixels)

        # Referring: the objects of the photo first, then words drawn from the absent ones.
        present = batches.present[rows]  # [B, O]
        order = torch.rand(present.shape, device=present.device) + present
        asked = order.topk(min(recipe.phrases, present.shape[1]), dim=1).indices  # [B, K]
        words_of_objects = _encode(model, batches.object_words)  # [O, D]
        features, _ = model.decoder.condition_features(activations, words_of_objects[asked])
        logits = model.decoder.logits(features, model.grid(pixels)).float()  # [B, K, h, w]
        small = F.interpolate(labels[:, None].float(), logits.shape[-2:], mode="nearest-exact")
        masks = F.binary_cross_entropy_with_logits(logits, (small == asked[..., None, None]).float())

        # Inputs of CLIP's contrast: the photo and its patches, sentences and words.
        ids = batches.captions[rows]  # [B, L]
        tokens = model.clip.visual_projection(model.clip.vision_model.post_layernorm(activations[0]))  # [B, T, D]
        sentences = _encode(model, ids)
        words_of_parts = _encode(model, batches.part_words) if recipe.part_weight else None  # [P, D]
    tokens, sentences, object_words = (
        F.normalize(x.float(), dim=-1) for x in (tokens, sentences, words_of_objects)
    )
    scale = model.clip.logit_scale.clamp(max=math.log(100)).exp()

    # Captions: photos and texts of the batch, where an equal caption is no mistake.
    similarity = scale * tokens[:, 0] @ sentences.T  # [B, B]
    same = (ids[:, None] == ids).all(-1).float()
    same = same / same.sum(1, keepdim=True)
    captions = (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2

    # Patches: each one on an object is compared with the words of all objects, and on a part with those of all parts.
    patches = _contrast(scale * tokens[:, 1:], object_words, labels)
    total = masks + recipe.caption_weight * captions + recipe.patch_weight * patches
    terms = {"masks": masks, "captions": captions, "patches": patches}
    if words_of_parts is not None:
        words_of_parts = F.normalize(words_of_parts.float(), dim=-1)
        terms["parts"] = _contrast(scale * tokens[:, 1:], words_of_parts, part_labels[0])
        total = total + recipe.part_weight * terms["parts"]
    return {**terms, "total": total}


def _encode(model: CLIPSegBaseline, ids: Tensor) -> Tensor:
    return model.encode_text(ids, torch.ones_like(ids))


def _contrast(tokens: Tensor, words: Tensor, labels: Tensor) -> Tensor:
    """Compare patches `[B, g·g, D]` with words `[W, D]` by the labels `[B, S, S]` at their centres, -1 left out."""
    at_centres = labels[:, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].flatten().long()  # [B·g·g]
    losses = F.cross_entropy((tokens @ words.T).flatten(0, 1), at_centres, ignore_index=-1, reduction="none")
    return losses.sum() / (at_centres >= 0).sum().clamp(min=1)


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str], device: torch.device) -> Tensor:
    """Tokenise texts as int64 `[N, L]`, padded to the longest; the tower reads nothing after the end token."""
    encoded = tokenizer(texts, padding="longest", truncation=True, return_tensors="pt")
    return torch.as_tensor(encoded["input_ids"], device=device)
