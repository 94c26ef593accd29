"""Train on one device or many; a run that was stopped continues exactly.

A run is a function of its recipe, its data and its start model. All random numbers of a step come from generators
seeded by (seed, step), the learning rate is a function of the step, and the order of the photos one of their
position, so a checkpoint needs only weights, optimiser and position. A checkpoint is saved before held-out photos are
scored; a run that ends meanwhile continues with the scoring. Processes and micro-batches share a step's photos: the
recipe's batch size is that of all of them together, the losses are means over the pixels of all, and the result does
not depend on the split, except for the order of sums.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from partclipseg.counts import count_of
from partclipseg.data.few_shot import SPLIT_FILE
from partclipseg.data.fingerprint import changed_data
from partclipseg.data.loader import PartDataset, StepSampler, build_loader
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.evaluation.scores import without_nan
from partclipseg.evaluation.state import model_digest
from partclipseg.kept_files import KeptFiles
from partclipseg.losses.finite import check_finite
from partclipseg.models.cuda_graphs import StepGradients
from partclipseg.models.directory import write_directory
from partclipseg.models.interface import PartModel
from partclipseg.models.parameter_groups import trained
from partclipseg.models.registry import is_built_in, load_tokenizer
from partclipseg.processes import join_processes, step_seed, termination
from partclipseg.training import optim
from partclipseg.training.checkpoint import Checkpoint, CheckpointStore, differences
from partclipseg.training.data import ReversedColours, TrainingData
from partclipseg.training.evaluate import HeldOutScores, score_held_out
from partclipseg.training.folder import (
    BEST,
    CHECKPOINTS,
    CONFIGURATION,
    LOG,
    MODEL,
    check_new,
    check_unchanged,
    model_folder,
    same_models,
    say_kept,
)
from partclipseg.training.log import RunLog, write_configuration
from partclipseg.training.new_words import learn_new_words
from partclipseg.training.observer import Observer, Progress
from partclipseg.training.recipe import HARMLESS, Recipe, with_current_settings
from partclipseg.training.start import build_model, compile_on, find_start, model_files, word_retention
from partclipseg.training.step import StepLosses
from partclipseg.training.streams import BatchStream, Scenes, SceneStream
from partclipseg.training.words import PromptTokens
from partclipseg.writing import claimed

logger = logging.getLogger(__name__)

_STATES = ("model", "optimizer", "stream", "log", "scores", "run")
"""Names of the states of a checkpoint."""


@dataclass(frozen=True)
class TrainingResult:
    """Outcome of a run."""

    step: int
    finished: bool
    """Whether the run is finished; if not, it was stopped by SIGTERM, is saved, and can be continued."""
    directory: Path
    """Directory of the final model, for `from_pretrained`; written when the run is finished."""
    scores: HeldOutScores | None
    """Last scores on the held-out photos; None if there are none."""
    best_step: int | None
    """Step of the model in ``best``; None if there is none."""


def run_training(
    recipe: Recipe,
    data: TrainingData,
    output: str | Path,
    *,
    workers: int = 0,
    tensorboard: bool = False,
    notes: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
    accept_changed_data: bool = False,
) -> TrainingResult:
    """Train, or continue the run that `output` holds.

    `output` receives ``config.yaml`` (recipe, versions, `notes`), ``log.jsonl``, ``checkpoints/``, ``best/`` (the
    model with the highest Pred-All mIoU on the held-out photos) and ``model/`` (the final one). SIGTERM ends the
    run after the current step, with a checkpoint. In a run of one process it also ends a scoring of held-out photos,
    which the continued run makes again. `accept_changed_data` continues although photos, annotations or the start model
    have changed since the run began.

    Raises:
        UsageError: the batch cannot be shared by the processes, the augmentation does not suit the data, or layers
            are to be compiled on a CPU.
        PartCLIPSegError: `output` holds a run with another recipe or vocabulary (the message lists the differences),
            on data that have changed, or with damaged checkpoints only; another run is writing there; the start model
            cannot be loaded; the data cannot be read; the disk is full or may not be written.
        NonFiniteLossError: a loss is infinite or not a number; the last checkpoint is from before that.
    """
    observer = observer or Observer()
    # Only the main process writes.
    with claimed(Path(output)) if join_processes().is_main_process else nullcontext():
        run = _Run(recipe, data, Path(output), workers, tensorboard, notes or {}, observer, accept_changed_data)
        return run.run()


class _StopError(Exception):
    """Raised to end the scoring of held-out photos early."""


class _Run:
    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        output: Path,
        workers: int,
        tensorboard: bool,
        notes: Mapping[str, Any],
        observer: Observer,
        accept_changed_data: bool,
    ) -> None:
        self.recipe, self.data, self.output = recipe, data, output
        self.observer = observer
        self.processes = join_processes()
        self.device = self.processes.device or torch.device("cpu")
        self.digest, self.models = dict(data.digest), model_files(recipe)
        if Path(start := find_start(recipe)).is_dir() and not is_built_in(recipe.start):
            self.digest["start model"] = self.models.get("start") or model_digest(start)
        self.store = CheckpointStore(output / CHECKPOINTS, states=_STATES)
        checkpoint = self._compatible_checkpoint(accept_changed_data)

        torch.manual_seed(recipe.seed)  # every process draws the same new layers
        model = build_model(recipe)
        model.trained_on(data.vocabulary)
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(find_start(recipe), model.text_config)
        model.take_tokenizer(self.tokenizer)
        learn_new_words(model, self.tokenizer, model.prompts(data.vocabulary))
        torch.nn.Module.to(model, self.device)  # transformers' own `to` hides its types
        self.model: PartModel = model.train()
        self.words = PromptTokens.tokenise(self.model, self.tokenizer, data.vocabulary, self.device)
        if recipe.compile:
            compile_on(self.device, self.model)
        retention = word_retention(recipe, self.model, self.tokenizer, self.device) if recipe.retention.weight else None
        loss = self.model.build_loss(recipe.settings, compiled=recipe.compile)
        self.losses = StepLosses(recipe, self.model, self.words, loss, retention, self.processes)
        self.parameters = trained(self.model)
        self.gradients = StepGradients(self.losses, self.parameters)
        self.optimizer = optim.build_optimizer(self.model, recipe.learning_rate, recipe.weight_decay)
        self.stream = self._open_stream(workers)
        self.step = 0
        self.logged = 0
        """Step of the last line of the log."""
        self.sums: dict[str, Tensor] = {}
        """Sums of the logged values since the last line, on the device, since reading them would wait for it."""
        self.best: tuple[int, float] | None = None
        self.scores: HeldOutScores | None = None
        self.score_due = False
        """Whether the held-out photos have to be scored before the next step."""
        if checkpoint is not None:
            self._continue_from(checkpoint)

        summary = self._summary(workers)
        self.files = KeptFiles(output, "train")
        self.log = None
        if self.processes.is_main_process:
            self.log = RunLog(output / LOG, output / "tensorboard" if tensorboard else None)
            self.log.rewind(self.step, without="held_out" if self.score_due else "")
            self._write_beginning(notes, summary)
            observer.started(summary)
        logger.info("%s", summary)

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> TrainingResult:
        recipe, stopped = self.recipe, False
        started, first = time.perf_counter(), self.step
        with termination() as told_to_stop:
            while not stopped and (self.score_due or self.step < recipe.steps):
                if self.score_due:
                    paused = time.perf_counter()
                    if not self._score(told_to_stop):
                        break  # the checkpoint from before the scoring is there
                    started += time.perf_counter() - paused
                else:
                    self._train_step()
                    self.step += 1
                    if self.step == recipe.steps or self.step % recipe.log_every == 0:
                        self._write_log(started, self.step - first)
                        started, first = time.perf_counter(), self.step
                    self.score_due = self._scores_at(self.step)
                stopped = self._agree_to_stop(told_to_stop)
                last = self.step == recipe.steps
                if self.score_due or last or stopped or self.step % recipe.checkpoint_every == 0:
                    self._save()
        self.stream.close()
        finished = self.step == recipe.steps and not self.score_due
        if finished:
            self._export(MODEL)
        if self.log is not None:
            self.log.close()
        return TrainingResult(self.step, finished, self.output / MODEL, self.scores, self.best and self.best[0])

    def _scores_at(self, step: int) -> bool:
        last = step == self.recipe.steps
        return len(self.data.held_out) > 0 and (last or step % self.recipe.evaluate_every == 0)

    def _train_step(self) -> None:
        recipe = self.recipe
        if recipe.schedule == "cosine":
            factor = optim.cosine_decay(self.step, recipe.steps, recipe.warmup_steps)
        else:
            factor = optim.polynomial_decay(self.step, recipe.steps, recipe.decay_power, recipe.warmup_steps)
        optim.set_learning_rate(self.optimizer, recipe.learning_rate * factor)
        torch.manual_seed(step_seed(recipe.seed, self.step, self.processes.process_index))
        micro_batches = [self.losses.inputs(next(self.stream), self.step) for _ in range(recipe.gradient_accumulation)]
        counts = self.losses.counts(micro_batches)
        for number, inputs in enumerate(micro_batches):
            self._add(self.gradients(inputs if counts is None else {**inputs, "counts": counts}, add=number > 0))
        optim.sum_gradients(self.parameters, self.processes.num_processes)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, recipe.max_gradient_norm)
        self.optimizer.step()
        self._add({"gradient_norm": norm / self.processes.num_processes})

    def _add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            # In float64, as a checkpoint holds them, so that a continued run logs the same digits.
            self.sums[name] = self.sums[name] + value if name in self.sums else value.double()

    # -- outputs ----------------------------------------------------------------------------------------------

    def _write_beginning(self, notes: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Write the configuration and the list of the few shots."""
        content = {
            "recipe": self.recipe.to_dict(), **notes, "digest": self.digest, "models": self.models, "run": summary
        }  # fmt: skip
        write_configuration(self.files, CONFIGURATION, content)
        if self.data.few_shot is not None:
            self.data.few_shot.write(self.files, self.data.shot_paths)
        say_kept(self.files)

    def _write_log(self, started: float, steps: int) -> None:
        """Write a line; the time from `started`, on the performance counter, to the end of `steps` gives the pace."""
        means = {name: value / (self.step - self.logged) for name, value in self._read_sums().items()}
        seconds = time.perf_counter() - started  # after the device has finished the steps, which reading waits for
        self.sums, self.logged = {}, self.step
        if self.log is None:
            return
        recipe = self.recipe
        progress = Progress(
            step=self.step,
            steps=recipe.steps,
            gradient_norm=means.pop("gradient_norm"),
            losses=means,
            learning_rate=max(group["lr"] for group in self.optimizer.param_groups),
            photos_per_second=steps * recipe.batch_size / seconds,
            seconds_left=(recipe.steps - self.step) * seconds / steps,
        )
        self.log.write(
            self.step,
            losses=progress.losses,
            gradient_norm=progress.gradient_norm,
            learning_rate=progress.learning_rate,
            photos_per_second=progress.photos_per_second,
        )
        self.observer.progressed(progress)

    def _read_sums(self) -> dict[str, float]:
        """Return the sums over all processes; waits for the device, and raises if a loss is not finite."""
        values = torch.stack([value.double() for value in self.sums.values()])
        if self.processes.num_processes > 1:
            torch.distributed.all_reduce(values)
        check_finite(dict(zip(self.sums, values, strict=True)))
        return dict(zip(self.sums, values.tolist(), strict=True))

    def _score(self, told_to_stop: threading.Event) -> bool:
        """Score the held-out photos; return False, with nothing changed, if this process is told to stop meanwhile.

        Several processes score to the end: they have different numbers of batches, so they cannot agree in between.
        """
        alone = self.processes.num_processes == 1

        def check(done: int, total: int) -> None:
            if alone and told_to_stop.is_set():
                raise _StopError

        try:
            self.scores = score_held_out(
                self.model,
                self.tokenizer,
                self.words,
                self._in_colour_order(self.data.held_out),
                batch_size=self.recipe.batch_size,
                precision=self.recipe.precision,
                rank=self.processes.process_index,
                world_size=self.processes.num_processes,
                on_progress=check,
            )
        except _StopError:
            return False
        self.score_due = False
        # NaN, where nothing is labelled, is never the best.
        best = self.scores.known and (self.best is None or self.scores.pred_all > self.best[1])
        if best:
            self.best = self.step, self.scores.pred_all
            self._export(BEST)
        if self.log is not None:
            self.log.write(self.step, held_out=without_nan(self.scores._asdict()))
            self.observer.scored(self.step, self.scores, best)
        return True

    def _save(self) -> None:
        sums = self._read_sums() if self.sums else {}
        if not self.processes.is_main_process:
            return
        run = {
            "recipe": self.recipe.to_dict(),
            "classes": list(self.data.vocabulary.names),
            "digest": self.digest,
            "models": self.models,
        }
        states = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream.state_dict(),
            "log": {"logged": self.logged, "sums": sums},
            "scores": {
                "last": self.scores and list(self.scores),
                "best": self.best and list(self.best),
                "due": self.score_due,
            },
            "run": run,
        }
        self.store.save(self.step, states)

    def _export(self, name: str) -> None:
        """Write the model for `PartSegmenter.from_pretrained`."""
        if not self.processes.is_main_process:
            return
        with model_folder(self.files, name) as unfinished:
            write_directory(unfinished, self.model, self.tokenizer, self.data.vocabulary, str(self.output / name))
            if self.data.few_shot is not None:  # a copy of the folder keeps what it was trained on
                (unfinished / SPLIT_FILE).write_text(self.data.few_shot.to_json(), encoding="utf-8")

    # -- start and resume -------------------------------------------------------------------------------------

    def _compatible_checkpoint(self, accept_changed_data: bool) -> Checkpoint | None:
        checkpoint = self.store.load()
        if checkpoint is None:
            check_new(self.output, self.recipe.to_dict(), HARMLESS, self.models, accept_changed_data)
            return None
        then = checkpoint.states["run"]
        harmless = (*HARMLESS, *same_models(then, self.models, accept_changed_data))
        changes = differences(with_current_settings(then["recipe"]), self.recipe.to_dict(), harmless)
        if then["classes"] != list(self.data.vocabulary.names):
            before = count_of(len(then["classes"]), "class")
            changes.append(f"vocabulary: {before} then, {count_of(len(self.data.vocabulary), 'other')} now")
        check_unchanged(self.output, changes)
        changed = changed_data(then.get("digest", self.digest), self.digest)  # older releases saved none
        if changed and not accept_changed_data:
            due = checkpoint.states["scores"].get("due", False)
            state = "finished" if checkpoint.step == self.recipe.steps and not due else "stopped"
            raise PartCLIPSegError(
                f"{self.output} holds a {state} run on other data ({changed} changed since): name another --output to "
                "train on what is there now, or continue all the same with --accept-changed-data"
            )
        return checkpoint

    def _continue_from(self, checkpoint: Checkpoint) -> None:
        states = checkpoint.states
        self.model.load_state_dict(states["model"])
        self.optimizer.load_state_dict(states["optimizer"])
        self.stream.load_state_dict(states["stream"])
        self.step, self.logged = checkpoint.step, states["log"]["logged"]
        share = 1 / self.processes.num_processes
        self.sums = {
            name: torch.tensor(value * share, dtype=torch.float64, device=self.device)
            for name, value in states["log"]["sums"].items()
        }
        scores = states["scores"]
        self.scores = scores["last"] and HeldOutScores(*scores["last"])
        self.best = scores["best"] and tuple(scores["best"])
        self.score_due = scores.get("due", False) and len(self.data.held_out) > 0  # older releases saved none
        logger.info("continuing at step %d of %d", self.step, self.recipe.steps)

    def _open_stream(self, workers: int) -> BatchStream:
        recipe = self.recipe
        height, width = self.model.image_shape
        if height != width:
            raise UsageError(f"training needs a model of square photos, not {height}x{width}")
        micro_batch = recipe.batch_size // recipe.gradient_accumulation
        rank, world_size = self.processes.process_index, self.processes.num_processes
        records = self.data.train
        if isinstance(records, Scenes):
            sampler = StepSampler(len(records), micro_batch, recipe.seed, rank=rank, world_size=world_size)
            scenes = records.to(self.device)
            if recipe.colour_order == "bgr":
                scenes = replace(scenes, images=scenes.images.flip(-1))
            return SceneStream(scenes, sampler, recipe.augmentation)
        return build_loader(
            self._in_colour_order(records),
            batch_size=micro_batch,
            augmentation=recipe.augmentation,
            seed=recipe.seed,
            image_size=height,
            workers=workers,
            rank=rank,
            world_size=world_size,
            pin_memory=self.device.type == "cuda",
        )

    def _in_colour_order(self, dataset: PartDataset) -> PartDataset:
        return ReversedColours(dataset) if self.recipe.colour_order == "bgr" else dataset

    def _summary(self, workers: int) -> dict[str, Any]:
        """Return the resolved settings, for display."""
        on_gpu = self.device.type == "cuda"
        threads = count_of(torch.get_num_threads(), "thread")
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return {
            "device": torch.cuda.get_device_name(self.device) if on_gpu else f"cpu, {threads}",
            "processes": self.processes.num_processes,
            "precision": self.recipe.precision,
            "attention": self.model.config._attn_implementation,
            "compiled": self.recipe.compile,
            "parameters": count,
            "trained_parameters": sum(parameter.numel() for parameter in self.parameters),
            "classes": len(self.data.vocabulary),
            "training_photos": len(self.data.train),
            "held_out_photos": len(self.data.held_out),
            "workers": workers,
        }

    def _agree_to_stop(self, told: threading.Event) -> bool:
        """Whether any process was told to stop; asked only now and then, since asking waits for all processes."""
        if self.processes.num_processes == 1:
            return told.is_set()
        if self.step % self.recipe.log_every:
            return False
        flag = torch.tensor(int(told.is_set()), device=self.device)
        torch.distributed.all_reduce(flag)
        return bool(flag)
