"""Train by a recipe's name: check and open the data, train PartShapes' own towers if needed, then run the loop.

    partclipseg.train("own-data", "data/cars", output="runs/cars", object="car")

`training.loop.run_training` is the run itself, for data that are open already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from partclipseg.data.check import check_together
from partclipseg.data.datasets.registry import dataset_spec
from partclipseg.data.datasets.spec import OwnOptions
from partclipseg.errors import UsageError
from partclipseg.models.names import check_model_name
from partclipseg.models.registry import family
from partclipseg.processes import join_processes
from partclipseg.training.checkpoint import CheckpointStore, differences
from partclipseg.training.data import TrainingData, open_training_data, render_training_data
from partclipseg.training.folder import CHECKPOINTS, MODEL, check_new, check_unchanged, run_of, same_models
from partclipseg.training.loop import TrainingResult, run_training
from partclipseg.training.observer import Observer
from partclipseg.training.recipe import HARMLESS, RECIPES, Recipe, with_current_settings
from partclipseg.training.start import model_files
from partclipseg.training.tower_runs import OnTower, train_start
from partclipseg.training.towers import BackboneRecipe
from partclipseg.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


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
    if recipe.start:
        check_model_name(recipe.start)  # before data are read or rendered, which may take long
    family(recipe.settings.family).check_settings(recipe.settings)
    if rendered and recipe.image_size is None:
        raise UsageError(f"{recipe.dataset} has to be told how large to render: give --image-size")
    if not recipe.start:
        _check_towers_fit(recipe)
        _check_folder(recipe, output, accept_changed_data)
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
    if recipe.retention.weight and recipe.settings.towers[-1] != BackboneRecipe.name:
        raise UsageError(
            f"{recipe.method} starts from an aggregation, which has no maps of words to keep: set --retention.weight "
            "0, or name a backbone with --start and a guidance tower with --guidance"
        )


def _check_folder(recipe: Recipe, output: Path, accept_changed_data: bool) -> None:
    """Raise `PartCLIPSegError` for a folder of another run, before towers are trained; `run_training` compares more."""
    recipe = replace(recipe, start=str(output / recipe.settings.towers[-1] / MODEL))
    now, models = recipe.to_dict(), model_files(recipe)
    if not CheckpointStore(output / CHECKPOINTS).steps():
        check_new(output, now, HARMLESS, models, accept_changed_data)
    elif (run := run_of(output)) and "dataset" in run["recipe"]:
        harmless = (*HARMLESS, *same_models(run, models, accept_changed_data))
        check_unchanged(output, differences(with_current_settings(run["recipe"]), now, harmless))


def _train_towers(recipe: Recipe, output: Path, on_tower: OnTower | None) -> Recipe | None:
    """Train the towers of PartShapes that the recipe needs and `output` lacks; None: SIGTERM stopped one of them."""
    settings = {name: getattr(recipe.settings, name, None) for name in ("guidance", "patch_attention")}
    known = {name: value for name, value in settings.items() if value not in ("", None)}
    start = train_start(recipe.settings.towers, output, on_tower, {**known, "compile": recipe.compile})
    return None if start is None else replace(recipe, start=start)


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
