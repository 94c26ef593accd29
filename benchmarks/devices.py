"""Does training on several devices compute what one does, and how many more photos a second?

    python benchmarks/devices.py --processes 1 2              # a GPU for each process, both methods, the released size
    python benchmarks/devices.py --one-gpu --batch 8          # the processes share a GPU: losses alone say something
    python benchmarks/devices.py --quick                      # two processes on a CPU, tiny models: a minute

Prints JSON. Each run is `training.loop.run_training` in processes that torchrun starts, as it starts those of
`partclipseg train`: the recipe of the method with Pascal-Part-116's seen classes, random weights and photos of noise,
the same batch over all processes. Photos a second are the median of the later half of the steps, each of which writes
a line of the log; `ratio` is to the first number of processes. `loss` is that of the first step, and `differences` are
the greatest relative ones to the first number of processes, of the first step and of the first ten. In float32 the
order of sums alone differs; in bfloat16 each device has a part of the photos in one product, which is rounded.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from files import save_model
from measure import environment
from partcatseg import FEW_WORDS, SMALL
from partclipseg.data.augment import Augmentation
from partclipseg.data.sample import UNLABELLED, PartSample
from partclipseg.models.partcatseg.config import PartCATSegConfig
from partclipseg.models.partcatseg.model import PartCATSegModel
from partclipseg.models.partcatseg.settings import PartCATSegSettings
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.training.data import TrainingData
from partclipseg.training.loop import run_training
from partclipseg.training.recipe import RECIPES, Recipe
from partclipseg.vocabulary import Vocabulary
from vocabulary import small_config

RECIPE_OF = {"partclipseg": "pascal", "partcatseg": "pascal-partcatseg"}
SIZE, SMALL_SIZE = 352, 64
FEW = 10
"""Steps whose losses are compared."""


class Noise:
    """Photos of noise; each shows an object, whose parts are its quarters."""

    def __init__(self, vocabulary: Vocabulary, side: int, size: int = 256) -> None:
        self.vocabulary, self.side, self.size = vocabulary, side, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> PartSample:
        generator, side = np.random.default_rng(index), self.side
        image = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        to_object = self.vocabulary.class_to_object
        own = np.flatnonzero(to_object == generator.integers(len(self.vocabulary.objects)))
        parts, objects = (np.full((side, side), UNLABELLED, np.int32) for _ in range(2))
        half = side // 2
        for place in range(4):
            corner = np.s_[place // 2 * half :, place % 2 * half :]
            parts[corner] = own[place % len(own)]
            objects[corner] = to_object[own[0]]
        return PartSample(image, parts, objects, key=f"noise-{index}")


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.worker:
        train(options)
        return
    report: dict[str, Any] = {**environment("cpu" if options.quick else "cuda"), "options": vars(options)}
    with tempfile.TemporaryDirectory() as name:
        for method in options.methods:
            start = Path(name) / method
            save_start(method, start, options.quick)
            for dtype in options.dtypes:
                report[f"{method}, {dtype}"] = compared(options, method, start, dtype)
                print(f"{method}, {dtype}: {report[f'{method}, {dtype}']}", file=sys.stderr, flush=True)
    print(json.dumps(report, indent=1))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--methods", nargs="+", default=list(RECIPE_OF), choices=RECIPE_OF)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=16, help="photos in a step, over all processes")
    parser.add_argument("--steps", type=int, default=60)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--one-gpu", action="store_true", help="all processes on one GPU, exchanging through gloo")
    place.add_argument("--quick", action="store_true", help="tiny models on a CPU, few steps, float32")
    parser.add_argument("--worker", nargs=4, metavar=("METHOD", "START", "OUTPUT", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.batch, options.steps, options.dtypes = 4, 12, ["float32"]
    return options


def compared(options: argparse.Namespace, method: str, start: Path, dtype: str) -> dict[str, Any]:
    """Photos a second and losses by the number of processes."""
    found: dict[str, Any] = {}
    losses: dict[int, list[float]] = {}
    first = options.processes[0]
    for count in options.processes:
        with tempfile.TemporaryDirectory() as output:
            lines = run(options, count, [method, str(start), f"{output}/run", dtype])
        losses[count] = [line["losses"]["total"] for line in lines]
        rate = statistics.median(line["photos_per_second"] for line in lines[len(lines) // 2 :])
        differences = [abs(a - b) / abs(b) for a, b in zip(losses[count], losses[first], strict=True)]
        found[f"{count} processes"] = {
            "photos_per_second": round(rate, 2),
            "ratio": round(rate / found[f"{first} processes"]["photos_per_second"], 2) if found else 1.0,
            "loss": losses[count][0],
            "differences": [float(f"{max(differences[:number]):.2g}") for number in (1, FEW)],
        }
    return found


def run(options: argparse.Namespace, count: int, words: list[str]) -> list[dict[str, Any]]:
    """Train in `count` processes; return the lines of the log that have losses."""
    device = {"CUDA_VISIBLE_DEVICES": ""} if options.quick else {}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), __file__]
    more = ["--batch", str(options.batch), "--steps", str(options.steps)]
    more += [name for name, given in (("--one-gpu", options.one_gpu), ("--quick", options.quick)) if given]
    subprocess.run([*command, *more, "--worker", *words], check=True, env={**os.environ, **device}, stdout=sys.stderr)
    lines = (Path(words[2]) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if "losses" in line]


def train(options: argparse.Namespace) -> None:
    """Train in this process, one of torchrun's."""
    method, start, output, dtype = options.worker
    if options.one_gpu:
        os.environ["LOCAL_RANK"] = "0"
        PartialState(backend="gloo")  # NCCL wants a GPU for each process; the training's state is this one
    side = SMALL_SIZE if options.quick else SIZE
    changes = {"start": start, "batch_size": options.batch, "steps": options.steps, "precision": dtype,
               "held_out": 0, "log_every": 1, "augmentation": Augmentation(crop_edge=None),
               "evaluate_every": options.steps, "checkpoint_every": options.steps}  # fmt: skip
    recipe: Recipe = replace(RECIPES[RECIPE_OF[method]](), **changes)
    if isinstance(recipe.settings, PartCATSegSettings):
        recipe = replace(recipe, settings=replace(recipe.settings, guidance=""))  # the start has both towers
    vocabulary = FEW_WORDS if options.quick else Vocabulary.from_catalog("pascal-part-116", split="seen")
    data = TrainingData.split(Noise(vocabulary, side), held_out=0, seed=0)
    run_training(recipe, data, output, workers=0 if options.quick else 6)


def save_start(method: str, directory: Path, quick: bool) -> None:
    """Write a model of random weights, with a tokenizer whose words are not Pascal's: that costs no time."""
    torch.manual_seed(0)
    if method == "partclipseg":
        model: Any = PartCLIPSegModel(small_config(SMALL_SIZE) if quick else PartCLIPSegConfig())
    else:
        model = PartCATSegModel(PartCATSegConfig(**SMALL) if quick else PartCATSegConfig())
    save_model(model, directory)


if __name__ == "__main__":
    main()
