"""Train by a recipe's name: check and open the data, train PartShapes' own backbone if needed, then run the loop.

    partclipseg.train("own-data", "data/cars", output="runs/cars", object="car")

`training.loop.run_training` is the run itself, for data that are open already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from partclipseg.data.check import check_together
from partclipseg.data.datasets.registry import dataset_spec
from partclipseg.data.datasets.spec import OwnOptions
from partclipseg.errors import UsageError
from partclipseg.files import is_file
from partclipseg.models.names import check_model_name
from partclipseg.models.registry import family
from partclipseg.processes import join_processes
from partclipseg.training.aggregation import train_aggregation
from partclipseg.training.backbone import train_backbone
from partclipseg.training.data import TrainingData, open_training_data, render_training_data
from partclipseg.training.detector import train_detector
from partclipseg.training.folder import MODEL
from partclipseg.training.guidance import train_guidance
from partclipseg.training.loop import TrainingResult, run_training
from partclipseg.training.observer import Observer
from partclipseg.training.recipe import RECIPES, Recipe
from partclipseg.training.towers import AggregationRecipe, BackboneRecipe, DetectorRecipe, GuidanceRecipe, TowerRecipe
from partclipseg.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

OnTower = Callable[[str, int, Mapping[str, float]], None]
"""Called with a tower's name, the step and the losses."""


def train(
    recipe: Recipe | str,
    data: TrainingData | str | Path | None = None,
    output: str | Path = "",
    *,
    vocabulary: Vocabulary | str | Path | None = None,
    workers: int = 0,
    tensorboard: bool = False,
    observer: Observer | None = None,
    verify: bool = False,
    accept_changed_data: bool = False,
    on_check: Callable[[int, int], None] | None = None,
    on_tower: OnTower | None = None,
    on_backbone: Callable[[int, Mapping[str, float]], None] | None = None,
    **own: Unpack[OwnOptions],
) -> TrainingResult:
    """Train a model by a recipe, or continue the run that `output` holds.

        result = partclipseg.train("own-data", data="data/cars", output="runs/cars", object="car")
        segmenter = partclipseg.PartSegmenter.from_pretrained(result.directory)

    Args:
        recipe: a `Recipe`, or the name of one of `RECIPES`, such as ``"pascal"`` or ``"own-data"``.
        data: the folder of the recipe's data set, whose files are checked first, or data that are open already.
            PartShapes needs none: its scenes are rendered, and kept in the folder if one is given.
        output: folder for the model (``model/``, ``best/``), the log and the checkpoints; see
            `training.loop.run_training`.
        vocabulary: train on these words only; None takes a benchmark's seen classes, or all classes of own data.
        workers: number of processes that read photos ahead; 0 reads them in this one.
        tensorboard: write TensorBoard curves too.
        observer: receives progress and scores.
        verify: compare the data with those that the run began with by their content, not by size and time.
        accept_changed_data: continue although photos, annotations or the start model have changed.
        on_check: called with photos checked and photos in all, on the main process.
        on_tower: called with name, step and losses while a tower of PartShapes is trained.
        on_backbone: former argument in place of `on_tower`, called with step and losses while the backbone is trained.
            The next release no longer takes it.
        **own: options for own photos; see `OwnOptions`.

    Returns:
        How the run ended, with the directory of the model. It is not finished if SIGTERM stopped it; the same call
        then continues it.

    Raises:
        UsageError: an unknown recipe, no folder for data or output, options that do not apply to the data, or what
            `training.loop.run_training` raises it for.
        PartCLIPSegError: files of the data set are missing or damaged, or what
            `training.loop.run_training` raises it for.
    """
    recipe = find_recipe(recipe)
    if not str(output):
        raise UsageError("output is missing: name the folder for the model, the log and the checkpoints")
    output = Path(output)
    if on_backbone is not None:
        on_tower = _of_backbone(on_backbone, on_tower)
    if isinstance(data, TrainingData) and (vocabulary is not None or own):
        raise UsageError("vocabulary and options of own data belong to a folder: leave them out for data that are open")
    rendered = dataset_spec(recipe.dataset).rendering is not None
    if rendered and (unused := ["vocabulary"] * (vocabulary is not None) + list(own)):
        raise UsageError(f"--{unused[0]} does not apply to {recipe.dataset}: leave it out")
    if workers < 0:
        raise UsageError(f"workers must not be negative: {workers}")
    if recipe.start and not is_file(recipe.start):
        check_model_name(recipe.start)  # before data are read or rendered, which may take long
    family(recipe.settings.family).check_settings(recipe.settings)
    if rendered and recipe.image_size is None:
        raise UsageError(f"{recipe.dataset} has to be told how large to render: give --image-size")
    if not recipe.start:
        _check_towers_fit(recipe)
        with_towers = _train_towers(recipe, output, on_tower)
        if with_towers is None:
            return TrainingResult(0, False, output / MODEL, None, None)
        recipe = with_towers
    opened = data if isinstance(data, TrainingData) else _open(recipe, data, vocabulary, verify, on_check, own)
    return run_training(
        recipe,
        opened,
        output,
        workers=workers,
        tensorboard=tensorboard,
        notes={} if isinstance(data, TrainingData) else {"data": str(data) if data else None},
        observer=observer,
        accept_changed_data=accept_changed_data,
    )


def _of_backbone(on_backbone: Callable[[int, Mapping[str, float]], None], on_tower: OnTower | None) -> OnTower:
    """Return the `on_tower` that the former argument stands for, and say its present name."""
    if on_tower is not None:
        raise UsageError("on_backbone is the former name of on_tower: leave it out where on_tower is given")
    logger.warning(
        "on_backbone is now called on_tower, which receives the tower's name too; the next release no longer takes the "
        "former name"
    )

    def report(name: str, step: int, losses: Mapping[str, float]) -> None:
        if name == BackboneRecipe.name:
            on_backbone(step, losses)

    return report


def train_tower(recipe: TowerRecipe, output: str | Path, on_tower: OnTower | None = None) -> Path | None:
    """Train a tower of PartShapes, or continue the run that `output` holds.

    Args:
        recipe: of the tower; its class decides which one is trained. For the aggregation, towers that it does not name
            are trained first, into folders of their names in `output`.
        output: folder of the run; see `pretraining.pretrain`, whose result and errors are those of this function.
        on_tower: called with the tower's name, the step and the losses at every line of the log.
    """
    report = None if on_tower is None else partial(on_tower, recipe.name)
    if isinstance(recipe, GuidanceRecipe):
        return train_guidance(recipe, output, report=report)
    if isinstance(recipe, DetectorRecipe):
        return train_detector(recipe, output, report=report)
    if isinstance(recipe, AggregationRecipe):
        given = {name: getattr(recipe, name) for name in ("backbone", "guidance") if getattr(recipe, name)}
        towers = _train_missing(("backbone", "guidance"), Path(output), recipe.compile, on_tower, given)
        return None if towers is None else train_aggregation(replace(recipe, **towers), output, report=report)
    assert isinstance(recipe, BackboneRecipe)
    return train_backbone(recipe, output, report=report)


def _check_towers_fit(recipe: Recipe) -> None:
    """Raise `UsageError` for a model that cannot be built on PartShapes' towers, before these are trained."""
    sizes, edge = getattr(recipe.settings, "sizes", None), BackboneRecipe.image_size
    if sizes == "released":
        raise UsageError(
            "PartShapes' own towers do not fit a model of the released sizes: take --sizes tiny, or name CLIP's "
            "weights with --start"
        )
    if sizes and recipe.image_size != edge:
        raise UsageError(
            f"on PartShapes' own towers {recipe.method} takes scenes of {edge}x{edge} pixels only, not "
            f"{recipe.image_size}x{recipe.image_size}: leave --image-size out"
        )


def _train_towers(recipe: Recipe, output: Path, on_tower: OnTower | None) -> Recipe | None:
    """Train the towers of PartShapes that the recipe needs and `output` lacks; None: SIGTERM stopped one of them."""
    names, guidance = recipe.settings.towers, getattr(recipe.settings, "guidance", "")
    towers = _train_missing(names, output, recipe.compile, on_tower, {"guidance": guidance} if guidance else {})
    return None if towers is None else replace(recipe, start=towers[names[-1]])


def _train_missing(
    names: Sequence[str], output: Path, compiled: bool, on_tower: OnTower | None, given: Mapping[str, str]
) -> dict[str, str] | None:
    """Train the towers `names`, each on those before it, into the folders of `output` that have no model yet.

    Returns the directory of each tower, those of `given` as they are; None: SIGTERM stopped a training.
    """
    towers = dict(given)
    for name in names:
        folder = output / name
        if name in given:
            continue
        if not (folder / MODEL).is_dir():
            logger.warning("training PartShapes' %s into %s first, which is work for a GPU", name, folder)
            if train_tower(_tower_recipe(name, towers, compiled), folder, on_tower) is None:
                return None
        towers[name] = str(folder / MODEL)
    return towers


def _tower_recipe(name: str, towers: Mapping[str, str], compiled: bool) -> TowerRecipe:
    if name == BackboneRecipe.name:
        return BackboneRecipe(compile=compiled)
    if name == GuidanceRecipe.name:
        return GuidanceRecipe()
    return AggregationRecipe(compile=compiled, backbone=towers["backbone"], guidance=towers["guidance"])


def find_recipe(recipe: Recipe | str) -> Recipe:
    """Return the recipe of a name, or the recipe itself. Raises `UsageError` for unknown names and other values."""
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise UsageError(f"there is no recipe {recipe!r}: choose from {', '.join(RECIPES)}, or give a Recipe")
    return RECIPES[recipe]()


def _open(
    recipe: Recipe,
    folder: str | Path | None,
    vocabulary: Vocabulary | str | Path | None,
    verify: bool,
    on_check: Callable[[int, int], None] | None,
    own: Any,
) -> TrainingData:
    """Check the files and open the data set, or render the scenes."""
    if dataset_spec(recipe.dataset).rendering is not None:
        return render_training_data(recipe, folder)
    if folder is None:
        raise UsageError(f"--data is missing: name the folder of {recipe.dataset}")
    check_together(recipe.dataset, folder, "train", join_processes(), on_check, **own)
    return open_training_data(recipe, folder, vocabulary, verify, **own)
