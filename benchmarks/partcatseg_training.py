"""Time a training step of PartCATSeg, beside a plain implementation of the same model in the same run.

    python benchmarks/partcatseg_training.py --device cuda --compile      # 4 photos at the released size, every case
    python benchmarks/partcatseg_training.py --small --batch 2            # to see that every case runs

Prints JSON, which is written to `--output` after every case too. A step is what training does: gradients set back,
forward pass, losses, backward pass, clipping, AdamW. The vocabularies are the benchmarks' seen classes, whose text
features are computed ahead as in training: CLIP is frozen. The weights are random, the photos noise. The plain
implementation writes every concatenation out and runs in float32; TF32 is off everywhere, and ratios are to it.
"captured" replays the step as one CUDA graph; "recomputed" keeps the inputs of layers and decoders only. The loss of
the first step stands beside that of the plain implementation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from measure import environment, measure
from partcatseg import FEW_WORDS, SIZE, SMALL_SIZE, clear, finish, plain_outputs, random_model, random_photos, words_of
from partclipseg.models.compiled import compile_layers
from partclipseg.models.cuda_graphs import StepGradients
from partclipseg.training import optim
from partclipseg.training.recipe import RECIPES
from partclipseg.vocabulary import Vocabulary
from training import random_photos as labelled_photos

RECIPE_OF = {"pascal-part-116": "pascal-partcatseg", "ade20k-part-234": "ade20k-partcatseg"}


@dataclass(frozen=True)
class Case:
    """One way to make the step."""

    name: str
    plain: bool = False
    bfloat16: bool = False
    captured: bool = False
    recompute: bool = False
    compiled: bool = False


CASES = (
    Case("plain float32", plain=True),
    Case("float32"),
    Case("bfloat16", bfloat16=True),
    Case("bfloat16, captured", bfloat16=True, captured=True),
    Case("bfloat16, captured, recomputed", bfloat16=True, captured=True, recompute=True),
    Case("bfloat16, captured, compiled", bfloat16=True, captured=True, compiled=True),
    Case("bfloat16, captured, recomputed, compiled", bfloat16=True, captured=True, recompute=True, compiled=True),
)
"""A step is captured on a GPU only; elsewhere the captured cases are steps as any others."""


class Step:
    """A fresh model, always with the same weights, and everything that a step of it needs."""

    def __init__(self, case: Case, vocabulary: Vocabulary, recipe: Any, options: argparse.Namespace) -> None:
        self.case, self.recipe, self.device = case, recipe, options.device
        self.size = SMALL_SIZE if options.small else SIZE
        self.model: Any = random_model(options.small, options.device).train()
        self.parameters = self.model.trained_parameters(recipe.settings)
        self.model.recompute(case.recompute)
        if case.compiled:
            compile_layers(self.model)
        self.words = words_of(self.model, vocabulary)
        self.loss = self.model.build_loss(recipe.settings, compiled=case.compiled)
        self.optimizer = optim.build_optimizer(self.model, recipe.learning_rate, recipe.weight_decay)
        self.gradients = StepGradients(self.losses, self.parameters, capture=case.captured)

    def inputs(self, batch: int) -> dict[str, Tensor]:
        size = self.model.image_shape[0]
        labels = labelled_photos(self.words.vocabulary, size, batch, self.device)
        photos = self.model.prepare(random_photos(batch, self.size))
        return {**photos, **{name: labels[name] for name in ("part_labels", "object_labels")}}

    def losses(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.case.bfloat16):
            forward = partial(plain_outputs, self.model) if self.case.plain else self.model
            output = forward(inputs, self.words)
        classes = self.words.class_to_part, self.words.class_to_object
        return self.loss(output, inputs["part_labels"], inputs["object_labels"], *classes)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = self.gradients(inputs)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.max_gradient_norm)
        self.optimizer.step()
        return terms


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--catalogs", nargs="+", default=list(RECIPE_OF), choices=RECIPE_OF)
    parser.add_argument("--batch", type=int, default=4, help="photos of a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="the captured steps with compiled layers and losses too")
    parser.add_argument("--seconds", type=float, help="begin no case after this time")
    parser.add_argument("--output", help="file of the JSON")
    parser.add_argument("--small", action="store_true", help="a tiny model")
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {"environment": environment(options.device), "options": vars(options)}
    finish(step_rows(options), report, options)
    print(json.dumps(report, indent=1))
    return report


def step_rows(options: argparse.Namespace) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Yield the rows of steps: after the plain one the compiled ones, so that `--seconds` leaves out others first."""
    cases = [case for case in CASES if options.compile or not case.compiled]
    in_order = sorted(cases, key=lambda case: (not case.plain, not case.compiled))
    for name in [name for name in options.catalogs if name in RECIPE_OF]:
        vocabulary = FEW_WORDS if options.small else Vocabulary.from_catalog(name, split="seen")
        for case in in_order:
            yield f"step of {options.batch}, {name}", case.name, partial(time_step, case, name, vocabulary, options)


def time_step(case: Case, name: str, vocabulary: Vocabulary, options: argparse.Namespace) -> dict[str, Any]:
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        step = Step(case, vocabulary, RECIPES[RECIPE_OF[name]](), options)
        inputs = step.inputs(options.batch)
        clear(options.device)
        loss = step.gradients(inputs)["total"].item()
        found = measure(lambda: step(inputs), options.device, options.rounds, unit="step", whole=True)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
    if "error" in found:
        raise RuntimeError(found["error"])
    return {"classes": len(vocabulary) + 1, "loss": loss, **found}


if __name__ == "__main__":
    main()
