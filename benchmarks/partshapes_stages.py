"""Locks, scenes, towers and their options serve the runs of both partshapes.py and three_tasks.py."""

from __future__ import annotations

import argparse
import fcntl
import time
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import IO, Any

from partclipseg.shapes.cache import SceneArrays, render_split
from partclipseg.training.data import TrainingData, render_training_data
from partclipseg.training.pretraining import check_same
from partclipseg.training.recipe import HARMLESS, Recipe, partshapes, with_settings
from partclipseg.training.tower_runs import TRAINED_BY
from partclipseg.training.towers import TOWER_RECIPES, AggregationRecipe, BackboneRecipe, GuidanceRecipe

TOWERS = tuple(recipe.name for recipe in (BackboneRecipe, GuidanceRecipe, AggregationRecipe))
"""Names of the towers that methods start from, each after those that it needs."""


def add_stage_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that shorten the stages of a training: towers, then parts."""
    parser.add_argument("--steps", type=int, help="steps of the part stage")
    parser.add_argument("--batch-size", type=int, help="scenes of a step of the part stage")
    parser.add_argument("--backbones", type=int, help="seed s starts from towers s modulo this; default: its own")
    for name in TOWERS:
        parser.add_argument(f"--{name}-steps", type=int)
    parser.add_argument("--part-weight", type=float, help="of the backbones' loss; 0: they know objects' words alone")
    parser.add_argument("--scenes", type=int, help="scenes rendered ahead for each stage")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--compile", action="store_true", help="compile the layers: pays on a GPU")


def given_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of all recipes that the command line changes."""
    values = {"scenes": options.scenes, "image_size": options.image_size}
    return {key: value for key, value in values.items() if value is not None}


def seed_of_towers(seed: int, options: argparse.Namespace) -> int:
    return seed % options.backbones if options.backbones else seed


# -- locks between processes ------------------------------------------------------------------------------------------


def claim(output: Path, key: str) -> IO[str] | None:
    """Lock `key` against other processes until the file is closed; None if another one holds it."""
    file = _lock_file(output, key)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def alone(output: Path, key: str) -> IO[str]:
    """Lock `key` against other processes until the file is closed, after waiting for the one that holds it."""
    file = _lock_file(output, key)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _lock_file(output: Path, key: str) -> IO[str]:
    path = output / "claims" / f"{key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")


# -- scenes -----------------------------------------------------------------------------------------------------------


def rendered(split: Any, count: int, size: int, output: Path) -> SceneArrays:
    """Render scenes of a split once for all processes."""
    with alone(output, f"{split}-{count}x{size}"):
        return render_split(split, count, size, output / "scenes")


@cache
def training_data(scenes: int, image_size: int, output: Path) -> TrainingData:
    """Render the training scenes, which are the same for every method."""
    with alone(output, "train"):
        recipe = replace(partshapes(), scenes=scenes, image_size=image_size, held_out=0)
        # With boxes, which variants without crops of objects leave alone.
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, object_crop=1))
        return render_training_data(recipe, output / "scenes")


# -- towers -----------------------------------------------------------------------------------------------------------


def train_tower(
    name: str, seed: int, output: Path, options: argparse.Namespace, patch_attention: bool = True
) -> Path | None:
    """Train a tower of the seed, and those that it needs, unless they are there; return its directory.

    An aggregation without `patch_attention` is another tower than one with it. None: SIGTERM stopped a training. Raises
    `PartCLIPSegError` for a tower in OUTPUT that was trained otherwise.
    """
    kind = TOWER_RECIPES[f"partshapes-{name}"]
    folder = _folder_of_tower(name, seed, output, patch_attention)
    steps = getattr(options, f"{name}_steps") or kind.steps
    warmup = min(kind.warmup_steps, steps // 4)
    changes = {"seed": seed, "steps": steps, "warmup_steps": warmup, **given_fields(options)}
    if hasattr(kind, "patch_attention"):
        changes["patch_attention"] = patch_attention
    if kind is BackboneRecipe and options.part_weight is not None:
        changes["part_weight"] = options.part_weight
    recipe = kind(**changes)
    with alone(output, folder.name):
        if (folder / "model").is_dir():
            others = {*kind.needs, "compile", *HARMLESS}
            check_same(recipe, folder, [field.name for field in fields(kind) if field.name not in others])
            return folder / "model"
        for other in kind.needs:
            directory = train_tower(other, seed, output, options)
            if directory is None:
                return None
            recipe = replace(recipe, **{other: str(directory)})
        if hasattr(kind, "compile"):
            recipe = replace(recipe, compile=options.compile)
        scenes = rendered(recipe.split, recipe.scenes, recipe.image_size, output)
        started = time.perf_counter()

        def report(step: int, losses: Any) -> None:
            print(f"{folder.name}, step {step}, {time.perf_counter() - started:.0f} s: {losses}", flush=True)

        return TRAINED_BY[kind](recipe, folder, scenes, report)


def _folder_of_tower(name: str, seed: int, output: Path, patch_attention: bool = True) -> Path:
    plain = not patch_attention and hasattr(TOWER_RECIPES[f"partshapes-{name}"], "patch_attention")
    return output / (f"{name}-plain-{seed}" if plain else f"{name}-{seed}")


def on_towers(recipe: Recipe, seed: int, output: Path, options: argparse.Namespace) -> Recipe | None:
    """Return the recipe with the towers of a seed, which are trained first; None if SIGTERM stopped one of them.

    The recipe's `start` may be the name of a tower; "" stands for the one that the method starts from.
    """
    start, attention = _start_tower(recipe)
    if train_tower(start, seed, output, options, attention) is None:
        return None
    if "guidance" in recipe.settings.towers and train_tower("guidance", seed, output, options) is None:
        return None
    return replace(naming_towers(recipe, seed, output), compile=options.compile)


def naming_towers(recipe: Recipe, seed: int, output: Path) -> Recipe:
    """Return the recipe of `on_towers` but for its compilation, whether the towers are there or not."""
    start, attention = _start_tower(recipe)
    if "guidance" in recipe.settings.towers:
        recipe = with_settings(recipe, guidance=str(_folder_of_tower("guidance", seed, output) / "model"))
    return replace(recipe, start=str(_folder_of_tower(start, seed, output, attention) / "model"))


def _start_tower(recipe: Recipe) -> tuple[str, bool]:
    """Return the name of the tower that the recipe starts from, and whether that keeps CLIP's last attention."""
    return recipe.start or recipe.settings.towers[-1], getattr(recipe.settings, "patch_attention", None) is not False
