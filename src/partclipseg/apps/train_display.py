"""The display of a run of ``partclipseg train``, apart from the options, whose help then imports no rich."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from partclipseg.apps.terminal import plain_console
from partclipseg.training.observer import Observer
from partclipseg.training.observer import Progress as Line
from partclipseg.training.recipe import Recipe
from partclipseg.training.towers import TowerRecipe

if TYPE_CHECKING:
    from partclipseg.training.evaluate import HeldOutScores
    from partclipseg.training.loop import TrainingResult


@contextmanager
def saying_how_to_continue(display: TrainingDisplay) -> Iterator[None]:
    """Tell on Ctrl-C how to continue the run; unlike SIGTERM, Ctrl-C does not wait for the current step."""
    try:
        yield
    except KeyboardInterrupt:
        display.say("interrupted: the same command continues from the last checkpoint, or from the start before one")
        raise


class TrainingDisplay(Observer):
    """Progress bar with the losses on a terminal; otherwise only settings, scores and the end are printed."""

    def __init__(self, recipe: Recipe | TowerRecipe, output: Path) -> None:
        self._console = plain_console(stderr=True)
        self.progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self.steps = recipe.steps
        self.output = output
        self.task: TaskID = self.progress.add_task("", total=self.steps, visible=False)

    def say(self, text: str) -> None:
        """Print a line above the bar; in a file it stays one line however long it is."""
        self._console.print(text)

    def checked(self, done: int, total: int) -> None:
        self.progress.update(self.task, completed=done, total=total, description="files checked", visible=True)

    def tower(self, tower: str, step: int, losses: Mapping[str, float]) -> None:
        values = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
        self.say(f"{tower}, step {step}: {values}")

    def started(self, summary: Mapping[str, Any]) -> None:
        self.say(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in summary.items()))
        self.progress.reset(self.task, total=self.steps, description="", visible=True)

    def progressed(self, progress: Line) -> None:
        losses = " ".join(f"{name} {value:.3g}" for name, value in progress.losses.items())
        text = f"{losses}, {progress.photos_per_second:.0f} photos/s"
        self.progress.update(self.task, completed=progress.step, description=text)

    def scored(self, step: int, scores: HeldOutScores, best: bool) -> None:
        self.say(f"step {step}: {_words(scores)}{', the best so far' if best else ''}")

    def finished(self, result: TrainingResult) -> None:
        if not result.finished:
            self.say(f"stopped after step {result.step} and saved; the same command continues")
            return
        scores = f" ({_words(result.scores)})" if result.scores else ""
        self.say(f"model: {result.directory}{scores}")
        if result.best_step is not None and result.best_step != result.step:
            self.say(f"best on the held-out photos, of step {result.best_step}: {self.output / 'best'}")


def _words(scores: HeldOutScores) -> str:
    if not scores.known:
        return "no score, since no part is labelled in the held-out photos: label some, or set --held-out 0"
    return f"held-out mIoU {scores.pred_all:.1f} (Pred-All), {scores.oracle_obj:.1f} (Oracle-Obj)"
