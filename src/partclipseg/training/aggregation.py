"""The cost aggregation of PartShapes: a tiny CAT-Seg, trained on the masks of whole objects.

The released PartCATSeg starts from a CAT-Seg that was trained on COCO-Stuff, so that its aggregation can turn the
similarities of patches and words into masks before it sees a part. Here the backbone's CLIP compares every patch with
the words of all objects, and the aggregation learns the objects' masks. The two towers are not changed.

No part is ever labelled or named. The result is a CAT-Seg checkpoint, from which the recipes of CAT-Seg and PartCATSeg
for PartShapes start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from partclipseg.checks import require
from partclipseg.errors import PartCLIPSegError
from partclipseg.models.directory import read_config, stated_type
from partclipseg.models.interface import PartOutput
from partclipseg.models.parameter_groups import trained
from partclipseg.models.partcatseg.config import SIZES, CATSegConfig
from partclipseg.models.partcatseg.loss import CATSegLoss
from partclipseg.models.partcatseg.model import CATSegModel
from partclipseg.models.partcatseg.settings import CATSegSettings
from partclipseg.models.partcatseg.start import guidance_config, start_model
from partclipseg.models.registry import load_tokenizer
from partclipseg.shapes.cache import SceneArrays
from partclipseg.shapes.world import partshapes_world
from partclipseg.training.folder import MODEL
from partclipseg.training.pretraining import pretrain
from partclipseg.training.scene_photos import LabelledScenes
from partclipseg.training.start import compile_on
from partclipseg.training.towers import PATCH, AggregationRecipe

_BACKBONE = "give a directory or hub name of CLIP or CLIPSeg, such as `partclipseg train partshapes-backbone` writes"
"""Remedy for a backbone that is not there."""


def aggregation_config(image_size: int, **towers: Any) -> CATSegConfig:
    """Return the sizes of the aggregation for scenes of `image_size` pixels and the configurations of its towers.

    Towers that are left out have the patches of PartShapes' own. Raises `PartCLIPSegError` for sizes that no model can
    be built from.
    """
    sizes, grid = SIZES["tiny"], image_size // PATCH
    window = next(edge for edge in range(sizes["window_size"], 0, -1) if grid % edge == 0)
    edges = dict.fromkeys(("image_size", "guidance_image_size", "shortest_edge"), image_size)
    own = {
        "clip_config": {"vision_config": {"patch_size": PATCH, "image_size": image_size}},
        "guidance_config": {"model_type": "dinov2", "patch_size": PATCH},
    }
    return CATSegConfig(**{**sizes, **edges, "window_size": window, **own, **towers})


def check_towers(recipe: AggregationRecipe) -> None:
    """Raise `PartCLIPSegError` for a tower of the recipe that the aggregation cannot be trained on.

    Only configurations are read. A tower that is not given is not checked.
    """
    towers = {}
    if recipe.backbone:
        values = read_config(recipe.backbone, remedy=_BACKBONE)
        if (kind := values.get("model_type")) not in ("clip", "clipseg"):
            raise PartCLIPSegError(f"{recipe.backbone} holds {stated_type(kind)}: {_BACKBONE}")
        patch = (values.get("vision_config") or {}).get("patch_size", PATCH)
        towers["clip_config"] = {"vision_config": {"patch_size": patch}}
    if guidance := guidance_config(_settings(recipe)):
        towers["guidance_config"] = guidance
    try:
        aggregation_config(recipe.image_size, **towers)
    except PartCLIPSegError as error:
        raise PartCLIPSegError(
            f"the given towers do not fit scenes of {recipe.image_size}x{recipe.image_size} pixels ({error}): give "
            "PartShapes' own, or none"
        ) from error


def train_aggregation(
    recipe: AggregationRecipe,
    output: str | Path,
    scenes: SceneArrays | None = None,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Path | None:
    """Train the aggregation on the recipe's towers, or continue the run that `output` holds.

    ``model/`` in `output`, which is returned, is a CAT-Seg with its tokenizer. The other arguments, None and the errors
    are those of `pretraining.pretrain`; `PartCLIPSegError` also where a tower cannot be loaded, and `UsageError` where
    one is not given. `tower_runs.train_tower` trains those first.
    """
    if not (Path(output) / MODEL).is_dir():  # a finished one no longer needs its towers
        for name in recipe.needs:
            require(bool(getattr(recipe, name)), f"the aggregation is trained on a {name}: name its directory")
        check_towers(recipe)
    return pretrain(recipe, output, Aggregation, scenes, report)


def _settings(recipe: AggregationRecipe) -> CATSegSettings:
    return CATSegSettings(guidance=recipe.guidance, sizes="tiny", patch_attention=recipe.patch_attention)


class Aggregation:
    """The aggregation in training; see `pretraining.Pretraining`."""

    def __init__(self, recipe: AggregationRecipe, scenes: SceneArrays, device: torch.device) -> None:
        settings = _settings(recipe)
        self.tokenizer = load_tokenizer(recipe.backbone)
        self.module = start_model(CATSegModel, recipe.backbone, settings, aggregation_config(scenes.size))
        nn.Module.to(self.module, device)
        self.module.train()
        self.module.trained_parameters(settings)
        self.module.guidance.requires_grad_(False)
        if recipe.compile:
            compile_on(device, self.module)
        self.parameters = trained(self.module)
        self.scenes = LabelledScenes(scenes, device, scenes.objects)
        self.texts = self._texts()
        self.loss = CATSegLoss(self.module.config, settings.loss)
        config = self.module.config
        # Scenes have the size of both towers' inputs. Not by `prepare`, which copies to the device in every step.
        self.normalisations = {
            name: tuple(torch.tensor(values, device=device).view(3, 1, 1) / 255 for values in statistics)
            for name, statistics in (
                ("pixel_values", (config.image_mean, config.image_std)),
                ("guidance_pixels", (config.guidance_mean, config.guidance_std)),
            )
        }

    @torch.no_grad()
    def _texts(self) -> Tensor:
        """Encode every object word in every template, `[O, P, D]`; CLIP does not change, so once is enough."""
        words = partshapes_world().vocabulary.objects
        tokens = self.tokenizer(self.module.templated(words), padding="longest", return_tensors="pt")
        tokens = tokens.to(self.module.device)
        return self.module.encode_text(tokens["input_ids"], tokens["attention_mask"]).unflatten(0, (len(words), -1))

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """Compute the loss of the masks of all objects and background of the scenes `rows [B]`."""
        model = self.module
        pixels, labels = self.scenes(rows)
        inputs = {name: (pixels - mean) / std for name, (mean, std) in self.normalisations.items()}
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=pixels.is_cuda):
            texts = torch.cat([self.texts, model.background_texts(self.texts.shape[1])])
            photo, guidance = model.features(inputs)
            volume = model.aggregator.aggregate(photo.vectors, texts, guidance)
            logits = model.aggregator.decode(volume.embedding, guidance)  # [B, O + 1, 4g, 4g]
        terms = self.loss(PartOutput(object_part_logits=logits), labels, labels)
        return {"objects": terms["object_part"], "total": terms["total"]}

    def after_step(self, step: int) -> None:
        pass

    def save(self, directory: Path) -> None:
        nn.Module.to(self.module, "cpu")
        self.module.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
