"""Train a tower of PartShapes from random weights: steps, checkpoints, log and end.

A `Pretraining` holds the modules and their losses: the backbone (`backbone.py`), the guidance tower
(`guidance.py`), the aggregation (`aggregation.py`) or the detector (`detector.py`).
All scenes lie on the device, where batches are gathered and changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.state import model_digest
from partclipseg.kept_files import KeptFiles
from partclipseg.losses.finite import check_finite
from partclipseg.models.cuda_graphs import StepGradients
from partclipseg.processes import join_processes, step_seed, termination
from partclipseg.shapes.cache import SceneArrays, render_split
from partclipseg.training.checkpoint import Checkpoint, CheckpointStore, differences
from partclipseg.training.folder import (
    CHECKPOINTS,
    CONFIGURATION,
    LOG,
    MODEL,
    check_new,
    model_folder,
    run_of,
    say_kept,
)
from partclipseg.training.log import RunLog, write_configuration
from partclipseg.training.optim import set_learning_rate
from partclipseg.training.start import check_compiled
from partclipseg.training.towers import TowerRecipe
from partclipseg.writing import claimed

_HARMLESS = ("checkpoint_every", "log_every")
"""Fields of a recipe that do not change what is trained."""


class Pretraining(Protocol):
    """Interface of a tower in training."""

    parameters: list[nn.Parameter]
    """Parameters that the optimiser changes."""

    @property
    def module(self) -> nn.Module:
        """Module with all weights that a checkpoint holds."""
        ...

    def losses(self, rows: Tensor) -> dict[str, Tensor]:
        """Compute the loss terms of the scenes `rows`, int64 `[B]`, with their sum as ``total``.

        Nothing may be read back from the device: on a GPU the step is captured.
        """
        ...

    def after_step(self, step: int) -> None:
        """Update weights that the optimiser does not change, after the update of `step`, from 0."""
        ...

    def save(self, directory: Path) -> None:
        """Write the trained weights as a directory that training can start from."""
        ...


R = TypeVar("R", bound=TowerRecipe)


def pretrain(
    recipe: R,
    output: str | Path,
    build: Callable[[R, SceneArrays, torch.device], Pretraining],
    scenes: SceneArrays | None = None,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Path | None:
    """Train from random weights, or continue the run that `output` holds.

    Args:
        recipe: the recipe of the tower.
        output: receives ``config.yaml``, ``log.jsonl``, ``checkpoints/`` and ``model/``.
        build: makes the `Pretraining`, with random weights from torch's generator.
        scenes: the first scenes of the recipe's split; None renders them here.
        report: called with step and losses at every line of the log.

    Returns:
        The directory ``model/``, or None if SIGTERM stopped the run, which the same call then continues.

    Raises:
        PartCLIPSegError: `output` holds a run with another recipe or on other towers, or a loss is not finite.
        UsageError: there are several processes, or layers are to be compiled on a CPU.
    """
    output = Path(output)
    processes = join_processes()
    if processes.num_processes > 1:
        if (output / MODEL).is_dir():
            return output / MODEL
        needs = "".join(f" --{name} {getattr(recipe, name)}" for name in recipe.needs)
        raise UsageError(
            f"the {recipe.name} is trained by one process: train it without torchrun first, "
            f"partclipseg train partshapes-{recipe.name}{needs} --output {output}"
        )
    with claimed(output):
        return _train(recipe, output, build, processes.device or torch.device("cpu"), scenes, report)


def _train(
    recipe: R,
    output: Path,
    build: Callable[[R, SceneArrays, torch.device], Pretraining],
    device: torch.device,
    scenes: SceneArrays | None,
    report: Callable[[int, Mapping[str, float]], None] | None,
) -> Path | None:
    store = CheckpointStore(output / CHECKPOINTS, states=("model", "optimizer", "recipe"))
    recorded = _recorded(recipe)
    checkpoint = _compatible_checkpoint(store, recipe, recorded, output)
    if (output / MODEL).is_dir() and (checkpoint is None or checkpoint.step == recipe.steps):
        return output / MODEL  # finished
    if getattr(recipe, "compile", False):
        check_compiled(device)  # before scenes are rendered
    scenes = scenes or render_split(recipe.split, recipe.scenes, recipe.image_size)

    torch.manual_seed(recipe.seed)
    trained = build(recipe, scenes, device)
    optimizer = _build_optimizer(recipe, trained.parameters, device)
    start = 0
    if checkpoint is not None:
        trained.module.load_state_dict(checkpoint.states["model"])
        optimizer.load_state_dict(checkpoint.states["optimizer"])
        start = checkpoint.step

    gradients = StepGradients(lambda inputs: trained.losses(inputs["rows"]), trained.parameters)
    files = KeptFiles(output, "train")
    towers = {"towers": {name: getattr(recipe, name) for name in recipe.needs}} if recipe.needs else {}
    write_configuration(files, CONFIGURATION, {"recipe": recorded, **towers, "device": str(device)})
    log = RunLog(output / LOG)
    log.rewind(start)
    with termination() as told_to_stop:
        for step in range(start, recipe.steps):
            set_learning_rate(optimizer, recipe.learning_rate * recipe.learning_rate_factor(step))
            seed = step_seed(recipe.seed, step)
            torch.manual_seed(seed)
            rows = np.random.default_rng(seed).integers(0, len(scenes), recipe.batch_size)
            terms = gradients({"rows": torch.from_numpy(rows)})
            torch.nn.utils.clip_grad_norm_(trained.parameters, recipe.max_gradient_norm)
            optimizer.step()
            trained.after_step(step)
            done = step + 1
            if done % recipe.log_every == 0 or done == recipe.steps:
                check_finite(terms)
                losses = {name: term.item() for name, term in terms.items()}
                log.write(done, losses=losses)
                if report is not None:
                    report(done, losses)
            if done % recipe.checkpoint_every == 0 or done == recipe.steps or told_to_stop.is_set():
                states = {
                    "model": trained.module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "recipe": recorded,
                }
                store.save(done, states)
            if told_to_stop.is_set() and done < recipe.steps:
                return None
    say_kept(files)
    with model_folder(files, MODEL) as unfinished:
        trained.save(unfinished)
    return output / MODEL


def _compatible_checkpoint(
    store: CheckpointStore, recipe: TowerRecipe, now: Mapping[str, Any], output: Path
) -> Checkpoint | None:
    """Return the last checkpoint, None without any; raise `PartCLIPSegError` for a run with another recipe."""
    checkpoint = store.load()
    harmless = (*_HARMLESS, *(name for name in recipe.needs if not now[name]))
    if checkpoint is None:
        check_new(output, now, harmless)
    elif changes := differences(checkpoint.states["recipe"], now, harmless):
        raise PartCLIPSegError(
            f"the {recipe.name} in {output} is of another recipe: name another output\n  " + "\n  ".join(changes)
        )
    return checkpoint


def check_same(recipe: TowerRecipe, output: Path, names: Collection[str]) -> None:
    """Check the tower in `output`, which may be of another recipe, before a run starts from it.

    Raises `PartCLIPSegError` if it was trained with other values of the fields `names`; towers are compared by their
    files. A folder without a configuration, as of a model that was copied there, is taken as it is.
    """
    run, now = run_of(output), _recorded(recipe)
    if run is None:
        return
    kept = {name: run["recipe"][name] for name in names if name in run["recipe"]}
    if changes := differences(kept, {name: now[name] for name in kept}):
        raise PartCLIPSegError(
            f"the {recipe.name} in {output} was trained otherwise: name another output, or move that folder away\n  "
            + "\n  ".join(changes)
        )


def _recorded(recipe: TowerRecipe) -> dict[str, Any]:
    """Return the recipe with the digests of its towers' files in place of their folders, which may be moved."""
    folders = {name: getattr(recipe, name) for name in recipe.needs}
    return {**asdict(recipe), **{name: folder and f"files {model_digest(folder)}" for name, folder in folders.items()}}


def _build_optimizer(
    recipe: TowerRecipe, parameters: Sequence[nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """Build AdamW, which decays matrices alone."""
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=True if device.type == "cuda" else None,
    )
