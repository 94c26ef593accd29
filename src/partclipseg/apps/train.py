"""``partclipseg train``: train a model by a recipe, on data, into a folder."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from partclipseg.apps.options import Own, OwnData, optional
from partclipseg.errors import UsageError
from partclipseg.likeness import nearest_name
from partclipseg.machine import usable_cores
from partclipseg.training.recipe import RECIPES
from partclipseg.training.towers import TOWER_RECIPES, TowerRecipe

STOPPED = 143
"""Exit code after SIGTERM, 128 + 15: the run is saved but not finished; the same command continues it."""

AnyRecipe = tyro.extras.subcommand_type_from_defaults(
    {name: make() for name, make in (RECIPES | TOWER_RECIPES).items()},
    {name: inspect.getdoc(make) or "" for name, make in (RECIPES | TOWER_RECIPES).items()},
    prefix_names=False,
)


@tyro.conf.configure(tyro.conf.CascadeSubcommandArgs, tyro.conf.AvoidSubcommands)
@dataclass(frozen=True)
class Train:
    """Train a model by a recipe. The same command continues a run that was stopped.

    Examples:
      partclipseg train partshapes --output runs/partshapes    (backbone and all)
      partclipseg train own-data --data photos --object car --output runs/cars
      partclipseg train pascal --data data/PascalPart116 --output runs/pascal
      torchrun --nproc-per-node 4 -m partclipseg.apps.cli -- train pascal --data data/PascalPart116 --output runs/pascal
    """

    recipe: Annotated[AnyRecipe, tyro.conf.arg(name="")]  # pyright: ignore[reportInvalidTypeForm]
    """Recipe to train by; `partclipseg train RECIPE --help` lists its settings, each of which can be changed."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the model, the log and the checkpoints.
    One that holds a stopped run of the same recipe continues it."""
    data: Annotated[Path | None, optional("DIR")] = None
    """The data set's folder.
    PartShapes needs none: its scenes are rendered, and kept in the folder if one is given."""
    vocabulary: Annotated[str | None, optional("WORDS")] = None
    """Train on these words only: a file, or text such as "dog: head, torso, leg, tail".
    Left out: a benchmark's seen classes, or all classes of your own data."""
    workers: Annotated[int | None, optional("N")] = None
    """Number of processes that read photos. Left out: one less than there are cores, at most 8."""
    tensorboard: bool = False
    """Write TensorBoard curves too, into the output folder."""
    verify: bool = False
    """Compare the photos with those that the run began with by their content, not by their size and time."""
    accept_changed_data: bool = False
    """Continue a run although its photos, annotations or start model have changed since it began."""
    own: Own = field(default_factory=OwnData)

    @classmethod
    def completed(cls, arguments: Sequence[str]) -> list[str]:
        """Return the arguments as they are; raises `UsageError` where none of them is a recipe."""
        names = [*RECIPES, *TOWER_RECIPES]
        if {*names, "-h", "--help"}.isdisjoint(arguments):
            words = [argument for argument in arguments if not argument.startswith("-")]
            close = [(word, near) for word in words if (near := nearest_name(word, names, 0.75))]
            if close:
                raise UsageError(f"there is no recipe {close[0][0]!r}, did you mean {close[0][1]}?")
            raise UsageError("no recipe is named, such as own-data: partclipseg train --help lists them")
        return list(arguments)

    def run(self) -> int:
        if isinstance(self.recipe, TowerRecipe):
            return 0 if self._train_tower(self.recipe) else STOPPED
        from partclipseg.apps.train_display import TrainingDisplay, saying_how_to_continue
        from partclipseg.training.run import train

        display = TrainingDisplay(self.recipe, self.output)
        with display.progress, saying_how_to_continue(display):
            result = train(
                self.recipe,
                self.data,
                self.output,
                vocabulary=self.vocabulary,
                workers=min(8, usable_cores() - 1) if self.workers is None else self.workers,
                tensorboard=self.tensorboard,
                observer=display,
                verify=self.verify,
                accept_changed_data=self.accept_changed_data,
                on_check=display.checked,
                on_tower=display.tower,
                **self.own.given(),
            )
        display.finished(result)
        return 0 if result.finished else STOPPED

    def _train_tower(self, recipe: TowerRecipe) -> bool:
        """Train a tower alone; return whether it is finished. False: the run was told to stop."""
        from partclipseg.apps.train_display import TrainingDisplay
        from partclipseg.training.tower_runs import train_tower

        display = TrainingDisplay(recipe, self.output)
        model = train_tower(recipe, self.output, display.tower)
        display.say(f"{recipe.name}: {model}" if model else "stopped and saved; the same command continues")
        return model is not None
