"""Time a training step of PartCATSeg, beside a plain implementation of the same model in the same run.

    python benchmarks/partcatseg_training.py --device cuda --compile      # 4 photos at the released size, every case
    python benchmarks/partcatseg_training.py --small --batch 2            # to see that it runs

Prints JSON. A step is what training does: gradients set back, forward pass, losses, backward pass, clipping, AdamW. The
vocabularies are the benchmarks' seen classes, whose text features are computed ahead as in training: CLIP is frozen.
The weights are random, the photos noise. The plain implementation writes every concatenation out and runs in float32,
TF32 off; ratios are to it. "captured" replays the step as one CUDA graph; "recomputed" keeps the inputs of layers and
decoders only. The loss of the first step stands beside that of the plain implementation.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from measure import environment, measure, reset_peak
from partcatseg import plain_outputs, random_model, random_photos, words_of
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
    Case("bfloat16, recomputed", bfloat16=True, recompute=True),
)
ON_GPU = (
    Case("bfloat16, captured", bfloat16=True, captured=True),
    Case("bfloat16, captured, recomputed", bfloat16=True, captured=True, recompute=True),
)
COMPILED = (
    Case("bfloat16, captured, compiled", bfloat16=True, captured=True, compiled=True),
    Case("bfloat16, captured, recomputed, compiled", bfloat16=True, captured=True, recompute=True, compiled=True),
)


class Step:
    """A fresh model, always with the same weights, and everything that a step of it needs."""

    def __init__(self, case: Case, vocabulary: Vocabulary, recipe: Any, options: argparse.Namespace) -> None:
        self.case, self.recipe, self.device = case, recipe, options.device
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
        return {**self.model.prepare(random_photos(batch)), **{n: labels[n] for n in ("part_labels", "object_labels")}}

    def losses(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.case.bfloat16):
            forward = partial(plain_outputs, self.model) if self.case.plain else self.model
            output = forward(inputs, self.words)
        classes = self.words.class_to_part, self.words.class_to_object
        return self.loss(output, inputs["part_labels"], inputs["object_labels"], *classes)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = self.gradients(inputs)
        optim.clip_gradients(self.parameters, self.recipe.max_gradient_norm)
        self.optimizer.step()
        return terms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--catalogs", nargs="+", default=list(RECIPE_OF), choices=RECIPE_OF)
    parser.add_argument("--batch", type=int, default=4, help="photos of a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="the captured steps with compiled layers and losses too")
    parser.add_argument("--small", action="store_true", help="a tiny model")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    on_gpu = options.device.startswith("cuda")
    cases = (*CASES, *(ON_GPU if on_gpu else ()), *(COMPILED if on_gpu and options.compile else ()))
    report: dict[str, Any] = {"environment": environment(options.device), "options": vars(options)}
    for name in options.catalogs:
        report[name] = results(name, cases, options)
    print(json.dumps(report, indent=1))


def results(name: str, cases: tuple[Case, ...], options: argparse.Namespace) -> dict[str, Any]:
    recipe, vocabulary = RECIPES[RECIPE_OF[name]](), Vocabulary.from_catalog(name, split="seen")
    found: dict[str, Any] = {"classes": len(vocabulary) + 1}
    for case in cases:
        try:
            step = Step(case, vocabulary, recipe, options)
            inputs = step.inputs(options.batch)
            clear(options.device)
            loss = step.gradients(inputs)["total"].item()
        except Exception as error:  # out of memory, no compiler, …: the others are measured all the same
            found[case.name] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        else:
            value = measure(lambda s=step, i=inputs: s(i), options.device, options.rounds, unit="step", whole=True)
            found[case.name] = {"loss": loss, **value}
        print(f"{name}, {case.name}: {found[case.name]}", file=sys.stderr, flush=True)
        step = inputs = None
    plain = found["plain float32"].get("ms_per_step")
    for value in found.values():
        if plain and isinstance(value, dict) and "ms_per_step" in value:
            value["times_faster"] = round(plain / value["ms_per_step"], 2)
    return found


def clear(device: str) -> None:
    """Give back what earlier cases held, and count peak memory from here."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    reset_peak(device)


if __name__ == "__main__":
    main()
