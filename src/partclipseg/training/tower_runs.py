"""Train the towers of PartShapes, each on those that it needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from partclipseg.processes import join_processes
from partclipseg.training.aggregation import check_towers, train_aggregation
from partclipseg.training.backbone import train_backbone
from partclipseg.training.detector import train_detector
from partclipseg.training.folder import MODEL
from partclipseg.training.guidance import train_guidance
from partclipseg.training.pretraining import check_same
from partclipseg.training.start import check_compiled
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
            trained first for the same image size, into folders of their names in `output`.
        output: folder of the run; see `pretraining.pretrain`, whose result and errors are those of this function.
        on_tower: called with the tower's name, the step and the losses at every line of the log.
    """
    output = Path(output)
    names = recipe.needs
    if (output / MODEL).is_dir():
        names = _finished(names, output)  # those that were removed since are no longer needed
    else:
        _check(recipe)
    settings = {"image_size": recipe.image_size, "compile": getattr(recipe, "compile", False)}
    given = {name: getattr(recipe, name) for name in _given(recipe)}
    towers = train_towers(names, output, on_tower, {**settings, **given})
    if towers is None:
        return None
    report = None if on_tower is None else partial(on_tower, recipe.name)
    return TRAINED_BY[type(recipe)](replace(recipe, **given, **towers), output, report=report)


def train_start(
    names: Sequence[str], output: Path, on_tower: OnTower | None, known: Mapping[str, Any]
) -> str | None:
    """Train the last of the towers `names`, and before it those that it needs, unless it is there.

    Returns its directory; the arguments, None and the errors are those of `train_towers`.
    """
    if (output / names[-1] / MODEL).is_dir():
        names = _finished(names, output)  # those that were removed since are no longer needed
    towers = train_towers(names, output, on_tower, known)
    return None if towers is None else towers[names[-1]]


def train_towers(
    names: Sequence[str], output: Path, on_tower: OnTower | None, known: Mapping[str, Any]
) -> dict[str, str] | None:
    """Train the towers `names`, each on those before it, into the folders of `output` that have no model yet.

    Args:
        names: names of the towers, in the order of their training.
        output: folder of the run that starts from them.
        on_tower: called with the tower's name, the step and the losses at every line of the log.
        known: values of fields of the towers' recipes, such as the directory of a tower that is there already; those
            towers are not trained. A field that a recipe does not have is left out.

    Returns the directories of the trained towers; None: SIGTERM stopped a training. Raises `PartCLIPSegError` where a
    tower in `output` was trained on others than those that are there now, or a tower that is given does not fit, before
    anything is trained.
    """
    towers: dict[str, str] = {}
    names = [name for name in names if name not in known]
    for name in names:  # before any of them is trained, which takes long
        found = {other: str(output / other / MODEL) for other in _finished(names, output)}
        recipe = _recipe_of(name, {**found, **known})
        if (output / name / MODEL).is_dir():
            check_same(recipe, output / name, [*_given(recipe), *({"patch_attention"} & known.keys())])
        else:
            _check(recipe)
    for name in names:
        folder = output / name
        if not (folder / MODEL).is_dir():
            logger.warning("training PartShapes' %s into %s first, which is work for a GPU", name, folder)
            if train_tower(_recipe_of(name, {**known, **towers}), folder, on_tower) is None:
                return None
        towers[name] = str(folder / MODEL)
    return towers


def _finished(names: Sequence[str], output: Path) -> list[str]:
    return [name for name in names if (output / name / MODEL).is_dir()]


def _given(recipe: TowerRecipe) -> list[str]:
    return [name for name in recipe.needs if getattr(recipe, name)]


def _recipe_of(name: str, known: Mapping[str, Any]) -> TowerRecipe:
    kind = TOWER_RECIPES[f"partshapes-{name}"]
    return kind(**{field.name: known[field.name] for field in fields(kind) if field.name in known})


def _check(recipe: TowerRecipe) -> None:
    """Raise for what `recipe` cannot be trained with, before the towers that it needs are trained."""
    if isinstance(recipe, AggregationRecipe):
        check_towers(recipe)
    if getattr(recipe, "compile", False):
        check_compiled(join_processes().device or torch.device("cpu"))
