"""Train the towers of PartShapes, each on those that it needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from partclipseg.training.aggregation import train_aggregation
from partclipseg.training.backbone import train_backbone
from partclipseg.training.detector import train_detector
from partclipseg.training.folder import MODEL
from partclipseg.training.guidance import train_guidance
from partclipseg.training.towers import (
    TOWER_RECIPES,
    AggregationRecipe,
    BackboneRecipe,
    DetectorRecipe,
    GuidanceRecipe,
    TowerRecipe,
)

logger = logging.getLogger(__name__)

OnTower = Callable[[str, int, Mapping[str, float]], None]
"""Called with a tower's name, the step and the losses."""

TRAINED_BY: dict[type[TowerRecipe], Callable[..., Path | None]] = {
    BackboneRecipe: train_backbone,
    GuidanceRecipe: train_guidance,
    AggregationRecipe: train_aggregation,
    DetectorRecipe: train_detector,
}
"""Function that trains the tower of a recipe, on the towers that the recipe names."""


def train_tower(recipe: TowerRecipe, output: str | Path, on_tower: OnTower | None = None) -> Path | None:
    """Train a tower of PartShapes, or continue the run that `output` holds.

    Args:
        recipe: of the tower; its class decides which one is trained. The towers that it needs and does not name are
            trained first, into folders of their names in `output`.
        output: folder of the run; see `pretraining.pretrain`, whose result and errors are those of this function.
        on_tower: called with the tower's name, the step and the losses at every line of the log.
    """
    given = {name: getattr(recipe, name) for name in recipe.needs if getattr(recipe, name)}
    towers = train_towers(recipe.needs, Path(output), getattr(recipe, "compile", False), on_tower, given)
    if towers is None:
        return None
    report = None if on_tower is None else partial(on_tower, recipe.name)
    return TRAINED_BY[type(recipe)](replace(recipe, **towers), output, report=report)


def train_towers(
    names: Sequence[str], output: Path, compiled: bool, on_tower: OnTower | None, given: Mapping[str, str]
) -> dict[str, str] | None:
    """Train the towers `names`, each on those before it, into the folders of `output` that have no model yet.

    Returns the directory of each tower, those of `given` as they are; None: SIGTERM stopped a training.
    """
    towers = dict(given)
    for name in names:
        if name in given:
            continue
        folder = output / name
        if not (folder / MODEL).is_dir():
            logger.warning("training PartShapes' %s into %s first, which is work for a GPU", name, folder)
            if train_tower(_recipe_of(name, towers, compiled), folder, on_tower) is None:
                return None
        towers[name] = str(folder / MODEL)
    return towers


def _recipe_of(name: str, towers: Mapping[str, str], compiled: bool) -> TowerRecipe:
    kind = TOWER_RECIPES[f"partshapes-{name}"]
    known: dict[str, Any] = {**towers, "compile": compiled}
    return kind(**{field.name: known[field.name] for field in fields(kind) if field.name in known})
