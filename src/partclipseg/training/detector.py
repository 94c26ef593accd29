"""The detector of PartShapes: a tiny OWLv2, trained from random weights on the boxes of whole objects.

OWLv2 (Minderer et al., 2023) is a CLIP whose patches each predict a box and are compared with words. Its towers are
trained on photos with captions first, and then on boxes. Here one training does both, since few words and exact boxes
of all objects are there from the start:

- a patch that shows an object predicts the box of that object, of all that is visible of it;
- its score for the object's word is to be the IoU of its box with the true one (Li et al., 2020), and 0 for all other
  words, so that of the many boxes of one object the best stays when doubles are suppressed.

The backbone's vision tower has three million parameters, twice the whole detector: towers of its own keep it small.
No part is ever labelled or named. The result is a checkpoint of transformers' `Owlv2ForObjectDetection`, which
`instances.detectors.Detector` opens as it does the released ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Owlv2Config, Owlv2ForObjectDetection

from partclipseg.instances.detectors import OWN_THRESHOLD, owlv2_prompt
from partclipseg.instances.pretrained import CLIP
from partclipseg.losses.boxes import corners, overlaps, quality_focal_loss
from partclipseg.models.parameter_groups import trained
from partclipseg.shapes.cache import SceneArrays
from partclipseg.shapes.captions import words
from partclipseg.shapes.tokenizer import build_tokenizer
from partclipseg.shapes.world import partshapes_world
from partclipseg.training.pretraining import pretrain
from partclipseg.training.scene_photos import draw_mirrored, flip, photos_of, recolour
from partclipseg.training.towers import PATCH, DetectorRecipe

PROMPT_LENGTH = 16
"""Maximum number of tokens of a prompt, OWLv2's own."""

LEAST_SHARE = 0.25
"""Minimum share of a patch that an object covers, for the patch to predict its box."""

_FIRST_SCALE, _FIRST_SHIFT = 10.0, -0.6
"""Scale and shift of cosines before training: scores begin near 0, as nearly all patches and words need it."""


def detector_config(image_size: int, words: int, threshold: float) -> Owlv2Config:
    """Return a configuration of some 1.8 million parameters: 8 vision blocks of width 128, 2 text blocks of 64."""
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "image_size": image_size,
        "patch_size": PATCH,
    }
    text = {
        "vocab_size": words,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": PROMPT_LENGTH,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": words - 1,
    }
    own: Any = {OWN_THRESHOLD: threshold}  # kept beside OWLv2's own entries
    return Owlv2Config(vision_config=vision, text_config=text, projection_dim=64, **own)


def train_detector(
    recipe: DetectorRecipe,
    output: str | Path,
    scenes: SceneArrays | None = None,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Path | None:
    """Train the detector from random weights, or continue the run that `output` holds.

    ``model/`` in `output`, which is returned, is an `Owlv2ForObjectDetection` in half precision with its tokenizer. The
    other arguments, None and the errors are those of `pretraining.pretrain`.
    """
    return pretrain(recipe, output, DetectorTraining, scenes, report)


class DetectorTraining:
    """The detector in training; see `pretraining.Pretraining`."""

    def __init__(self, recipe: DetectorRecipe, scenes: SceneArrays, device: torch.device) -> None:
        self.recipe = recipe
        self.tokenizer = build_tokenizer(words(), PROMPT_LENGTH, end_last=True)
        self.module = Owlv2ForObjectDetection(detector_config(scenes.size, len(self.tokenizer), recipe.threshold))
        _start_heads(self.module)
        nn.Module.to(self.module, device)
        self.module.train()
        # CLIP's own comparison of whole photos with texts, which a detection does not read.
        self.module.owlv2.visual_projection.requires_grad_(False)
        self.module.owlv2.logit_scale.requires_grad_(False)
        self.parameters = trained(self.module)
        prompts = [owlv2_prompt(word) for word in partshapes_world().vocabulary.objects]
        encoded = self.tokenizer(prompts, padding="longest", return_tensors="pt")
        self.prompts = torch.as_tensor(encoded["input_ids"], device=device)  # [O, L]
        self.batches = _Batches(scenes, device)

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """Compute the losses of words, boxes and objectness of the scenes `rows [B]`."""
        model, recipe = self.module, self.recipe
        batch = self.batches(rows)
        with torch.autocast(batch.pixels.device.type, torch.bfloat16, enabled=batch.pixels.is_cuda):
            grid = model.image_embedder(batch.pixels)[0]  # [B, g, g, D]
            # Without a mask, which transformers would read back from the device: the tower is causal and reads at the
            # end token.
            text = model.owlv2.text_model(input_ids=self.prompts).pooler_output
        # Coordinates need more than bfloat16's eight bits.
        grid = grid.float()
        patches = grid.flatten(1, 2)  # [B, N, D]
        queries = model.owlv2.text_projection(text.float())  # [O, P]
        logits = model.class_predictor(patches, queries.expand(len(rows), -1, -1))[0]  # [B, N, O]
        boxes = model.box_predictor(patches, grid)  # [B, N, 4]
        objectness = model.objectness_predictor(patches)  # [B, N]

        # Each object counts alike in the losses of boxes, however many patches show it.
        shown = batch.owners >= 0  # [B, N]
        owners = batch.owners.clamp(min=0)
        counts = torch.zeros_like(batch.words, dtype=torch.float32).scatter_add(1, owners, shown.float())  # [B, M]
        share = shown / counts.gather(1, owners).clamp(min=1)
        objects = (counts > 0).sum().clamp(min=1)
        truth = batch.boxes.gather(1, owners[..., None].expand(-1, -1, 4))
        iou, generalised = overlaps(corners(boxes), corners(truth))
        distance = (share * (boxes - truth).abs().sum(-1)).sum() / objects
        overlap = (share * (1 - generalised)).sum() / objects

        quality = iou.detach() * shown  # [B, N]
        word = batch.words.gather(1, owners).clamp(min=0)
        targets = torch.zeros_like(logits).scatter(2, word[..., None], quality[..., None])
        patches_shown = shown.sum().clamp(min=1)
        of_words = quality_focal_loss(logits, targets).sum() / patches_shown
        of_objectness = F.binary_cross_entropy_with_logits(objectness, quality)  # its head alone learns from it
        total = of_words + recipe.distance_weight * distance + recipe.overlap_weight * overlap + of_objectness
        return {
            "words": of_words,
            "distance": distance,
            "overlap": overlap,
            "objectness": of_objectness,
            "total": total,
        }

    def after_step(self, step: int) -> None:
        pass

    def save(self, directory: Path) -> None:
        nn.Module.to(self.module, "cpu")
        self.module.half().save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


def _start_heads(model: Owlv2ForObjectDetection) -> None:
    """Draw the weights of the heads anew: transformers gives them a standard deviation of 1, made to be overwritten."""
    words, boxes, objectness = model.class_head, model.box_head, model.objectness_head
    for head in (words, boxes, objectness):
        for layer in head.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    # The first boxes are the patches themselves, and all scores begin alike.
    for layer in (words.logit_scale, words.logit_shift, boxes.dense2, objectness.dense2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.constant_(words.logit_scale.bias, _FIRST_SCALE - 1)
    nn.init.constant_(words.logit_shift.bias, _FIRST_SHIFT)


class _Batch(NamedTuple):
    """Inputs and truths of `B` scenes with up to `M` objects and `N` patches."""

    pixels: Tensor
    """Normalised `[B, 3, S, S]`."""
    boxes: Tensor
    """`[B, M, 4]`: x and y of the centre, width, height, as shares of the side."""
    words: Tensor
    """int64 `[B, M]`: index of the object word, -1 where there is no object."""
    owners: Tensor
    """int64 `[B, N]`: object that each patch shows, -1 none."""


class _Batches:
    """Batches gathered, mirrored and recoloured on the device of the scenes."""

    def __init__(self, scenes: SceneArrays, device: torch.device) -> None:
        self.photos = torch.from_numpy(np.array(scenes.images)).to(device)
        self.instances = torch.from_numpy(np.array(scenes.instances)).to(device)
        members = torch.from_numpy(np.array(scenes.members)).to(device)
        self.words = members[..., 0].long()  # [N, M]
        low, high = (members[..., 4:].float() / scenes.size).split(2, -1)
        self.boxes = torch.cat([(low + high) / 2, high - low], -1)  # [N, M, 4]
        self.mean, self.std = (torch.tensor(values, device=device).view(3, 1, 1) for values in CLIP)

    def __call__(self, rows: Tensor) -> _Batch:
        photos, object_words = photos_of(self.photos, rows), self.words[rows]
        mirrored = draw_mirrored(photos)
        instances = flip(self.instances[rows], mirrored)
        x, rest = self.boxes[rows].split((1, 3), -1)
        boxes = torch.cat([torch.where(mirrored, 1 - x, x), rest], -1)
        photos = recolour(flip(photos, mirrored), gain=0.3, shift=0.2)
        pixels = (photos - self.mean) / self.std
        return _Batch(pixels, boxes, object_words, patch_owners(instances, object_words.shape[1]))


def patch_owners(instances: Tensor, members: int) -> Tensor:
    """Return the object that each patch is to find, int64 `[B, N]`, -1 none.

    It is the one that covers most of the patch, at least `LEAST_SHARE`. The patch that an object covers most is its own
    in any case, so that small and thin objects are found too.

    Args:
        instances: integers `[B, S, S]`: object of each pixel, -1 none.
        members: maximum number of objects of a scene, M.
    """
    numbers = torch.arange(members, device=instances.device).view(1, -1, 1, 1)
    shares = F.avg_pool2d((instances[:, None] == numbers).float(), PATCH).flatten(2)  # [B, M, N]
    most, owners = shares.max(1)
    owners = torch.where(most >= LEAST_SHARE, owners, -1)
    for member in range(members):
        share, place = shares[:, member].max(1, keepdim=True)  # [B, 1]
        owners = owners.scatter(1, place, torch.where(share > 0, member, owners.gather(1, place)))
    return owners
