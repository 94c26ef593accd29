"""The tiny backbone: a small CLIP and a CLIPSeg decoder, trained from nothing on PartShapes.

The released models were made in the same way on photos: CLIP from captions, CLIPSeg from referring expressions of
whole objects. Here all losses run together, since few scenes and words cannot replace 400 million captions:

- captions name objects of the scene, any object, and are contrasted with the photos of the batch (CLIP);
- patches on an object are contrasted with the words of all objects, which a short training needs: a caption alone
  says of some 256 patches together what it says of one;
- object words, those in the photo and some that are not, are referred to their masks (CLIPSeg).

No part is ever labelled or named, of seen and unseen objects alike. The result is a CLIPSeg checkpoint like the
real one, and the recipes for PartShapes start from it.
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
from partclipseg.training.scene_photos import draw_mirrored, flip, photos_of, recolour
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
        self.batches = _Batches(scenes, self.tokenizer, self.module, recipe.seed, device)

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        return _losses(self.module, self.batches, rows, self.recipe)

    def after_step(self, step: int) -> None:
        pass

    def save(self, directory: Path) -> None:
        nn.Module.to(self.module, "cpu")
        to_clipseg(self.module).half().save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


class _Batches:
    """Batches gathered, mirrored and recoloured on the device of the scenes."""

    def __init__(
        self,
        scenes: SceneArrays,
        tokenizer: PreTrainedTokenizerBase,
        model: CLIPSegBaseline,
        seed: int,
        device: torch.device,
    ) -> None:
        object_words = partshapes_world().vocabulary.objects
        rng = np.random.default_rng(seed)
        self.photos = torch.from_numpy(np.array(scenes.images)).to(device)
        self.labels = torch.from_numpy(np.array(scenes.objects)).to(device)
        self.captions = _tokenise(tokenizer, [caption(scene, rng) for scene in scenes], device)  # [N, L]
        self.object_words = _tokenise(tokenizer, list(object_words), device)  # [O, L']
        self.present = torch.cat([shown(part, len(object_words)) for part in self.labels.split(4096)])  # [N, O]
        self._normalise = model.normalise

    def photos_and_labels(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised pixels `[B, 3, S, S]` and object labels `[B, S, S]`."""
        photos = photos_of(self.photos, rows)
        mirrored = draw_mirrored(photos)
        photos = recolour(flip(photos, mirrored), gain=0.3, shift=0.2)
        return self._normalise(photos)["pixel_values"], flip(self.labels[rows], mirrored)


def _losses(model: CLIPSegBaseline, batches: _Batches, rows: Tensor, recipe: BackboneRecipe) -> dict[str, Tensor]:
    """Compute mask loss and contrastive loss of the scenes `rows [B]`; nothing is read back from the device."""
    pixels, labels = batches.photos_and_labels(rows)
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.is_cuda):
        activations = model.encode_photo(pixels)

        # Referring: the objects of the photo first, then words drawn from the absent ones.
        present = batches.present[rows]  # [B, O]
        order = torch.rand(present.shape, device=present.device) + present
        asked = order.topk(min(recipe.phrases, present.shape[1]), dim=1).indices  # [B, K]
        words_of_objects = model.encode_text(batches.object_words, torch.ones_like(batches.object_words))  # [O, D]
        features, _ = model.decoder.condition_features(activations, words_of_objects[asked])
        logits = model.decoder.logits(features, model.grid(pixels)).float()  # [B, K, h, w]
        small = F.interpolate(labels[:, None].float(), logits.shape[-2:], mode="nearest-exact")
        masks = F.binary_cross_entropy_with_logits(logits, (small == asked[..., None, None]).float())

        # Inputs of CLIP's contrast: the photo and its patches, sentences and words.
        ids = batches.captions[rows]  # [B, L]
        tokens = model.clip.visual_projection(model.clip.vision_model.post_layernorm(activations[0]))  # [B, T, D]
        sentences = model.encode_text(ids, torch.ones_like(ids))
    tokens, sentences, object_words = (
        F.normalize(x.float(), dim=-1) for x in (tokens, sentences, words_of_objects)
    )
    scale = model.clip.logit_scale.clamp(max=math.log(100)).exp()

    # Captions: photos and texts of the batch, where an equal caption is no mistake.
    similarity = scale * tokens[:, 0] @ sentences.T  # [B, B]
    same = (ids[:, None] == ids).all(-1).float()
    same = same / same.sum(1, keepdim=True)
    captions = (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2

    # Patches: each one on an object is compared with the words of all objects.
    on_patches = labels[:, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].flatten().long()  # [B·g·g]
    patches = F.cross_entropy((scale * tokens[:, 1:] @ object_words.T).flatten(0, 1), on_patches, ignore_index=-1)
    total = masks + recipe.caption_weight * captions + recipe.patch_weight * patches
    return {"masks": masks, "captions": captions, "patches": patches, "total": total}


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str], device: torch.device) -> Tensor:
    """Tokenise texts as int64 `[N, L]`, padded to the longest; the tower reads nothing after the end token."""
    encoded = tokenizer(texts, padding="longest", truncation=True, return_tensors="pt")
    return torch.as_tensor(encoded["input_ids"], device=device)
