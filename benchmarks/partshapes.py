"""Train and score every variant of the methods on PartShapes, over several seeds.

    python benchmarks/partshapes.py --output runs/evidence
    python benchmarks/partshapes.py --output runs/laptop --only default clipseg --seeds 0 --steps 4 --limit 8 \
        --backbone-steps 8 --guidance-steps 8 --scenes 64 --image-size 64

Each seed has a backbone of its own, or one of `--backbones`; every variant of the seed starts from it, with the same
number of steps and the same scenes. Each run leaves a JSON file in OUTPUT/results and is not repeated: training time,
and the scores by each protocol and each rule of averaging. The variants of `--looks` are scored once more on scenes of
384 pixels: by one look, with zoom, and with HOPS's masked crops; a PartCATSeg among them also with each of HOPS's two
filters of costs switched the other way than in its training.

Several processes may be given the same command at the same time, on one GPU or many: each takes the next run that
nobody has begun. `--seconds` ends a process after this time; a run that is not finished then is continued by the
next command with the same OUTPUT. `--towers-only` and `--scenes-only` end after what all runs share.

Equal training time in place of equal steps, in two commands:

    python benchmarks/partshapes.py --output runs/evidence --pace
    python benchmarks/partshapes.py --output runs/evidence --steps 1000 --equal-time default

The first measures the seconds a step of each variant, to OUTPUT/pace.json, and must have the GPU to itself. The second
gives each variant the steps that take as long as 1,000 of the variant `default`. The last lines of a command are the
tables of `partshapes_tables.py`, which are written to OUTPUT/summary.json and OUTPUT/summary.md too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch

from partclipseg.evaluation.choices import PROTOCOLS, Protocol
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.evaluation.photos import EvaluationPhoto, group_records, read_batches
from partclipseg.evaluation.resized_labels import label_size
from partclipseg.evaluation.run import predict
from partclipseg.files import write_text
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.training.folder import LOG
from partclipseg.training.loop import run_training
from partclipseg.training.recipe import Recipe
from partclipseg.training.towers import BackboneRecipe
from partshapes_stages import (
    TOWERS,
    add_stage_options,
    alone,
    claim,
    given_fields,
    on_towers,
    rendered,
    seed_of_towers,
    train_tower,
    training_data,
)
from partshapes_tables import line, summarise
from partshapes_variants import DEFAULT, VARIANTS, ordered
from zoom import LOOKS, score

LOOK_SIZE = 384
"""Side of the scenes of `--looks`, in pixels: three times the models' input."""

PACE_STEPS, PACE_LOG = 90, 30
"""Steps of a run that measures the pace, and those of each line of its log; the last line counts."""


def main() -> None:
    options = _parse()
    output = Path(options.output)
    told = _end_after(options.seconds)
    rank, world_size = (int(part) for part in options.share.split("/"))
    runs = ordered(options.only, options.seeds)[rank::world_size]
    if options.scenes_only:
        _render_all(output, options)
        return
    if options.towers_only is not None:
        for seed in sorted({seed_of_towers(seed, options) for _, seed in runs}):
            for name in options.towers_only or TOWERS:
                if told.is_set() or train_tower(name, seed, output, options) is None:
                    return  # the next tower would take no notice of the signal
        return
    if options.pace:
        for name in dict.fromkeys(name for name, _ in runs):
            _measure_pace(name, output, options)
        return
    locks = []
    # Scored by another process while the next one trains: neither keeps a GPU busy alone.
    with ProcessPoolExecutor(1, get_context("spawn")) as scorer:
        waiting = []
        for name, seed in runs:
            key = f"{name}, seed {seed}" + (", equal time" if options.equal_time else "")
            result = output / "results" / f"{key}.json"
            lock = None if told.is_set() or result.is_file() else claim(output, key)
            if lock is None:
                continue
            locks.append(lock)  # held until the process ends
            found = None if result.is_file() else _train(name, seed, key, output, options)
            if found is not None:
                waiting.append(scorer.submit(_score, *found, output, options, result))
        for future in waiting:
            future.result()
    with alone(output, "summary"):
        print(summarise(output, list(VARIANTS)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--share", default="0/1", metavar="K/N", help="do run K, K + N, …: for machines apart")
    parser.add_argument("--limit", type=int, default=1000, help="test scenes to score")
    parser.add_argument("--looks", nargs="*", choices=VARIANTS, default=["default", "partcatseg"], metavar="VARIANT",
                        help="variants that are scored on larger scenes, too")  # fmt: skip
    parser.add_argument("--look-scenes", type=int, default=300, help="number of the larger scenes")
    add_stage_options(parser)
    parser.add_argument("--seconds", type=float, help="begin and continue no run after this time")
    parser.add_argument("--beside", type=int, default=1, help="processes that share the GPU; noted in the results")
    parser.add_argument("--scenes-only", action="store_true", help="render all scenes, and end")
    parser.add_argument("--towers-only", nargs="*", choices=TOWERS, help="train these towers (default: all), and end")
    parser.add_argument("--pace", action="store_true", help="measure the seconds a step of each variant, and end")
    parser.add_argument("--equal-time", choices=VARIANTS, metavar="VARIANT",
                        help="give each variant the time that this one takes for --steps")  # fmt: skip
    return parser.parse_args()


# -- processes that share the work ------------------------------------------------------------------------------------


def _end_after(seconds: float | None) -> threading.Event:
    """Return an event that is set after `seconds` or by SIGTERM; a training that runs then saves a checkpoint."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())

    def tell() -> None:
        time.sleep(seconds or 0)
        while True:  # a training that begins after the first signal takes no notice of it
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(2)

    if seconds is not None:
        threading.Thread(target=tell, daemon=True).start()
    return told


# -- one run ----------------------------------------------------------------------------------------------------------


def _render_all(output: Path, options: argparse.Namespace) -> None:
    given = given_fields(options)
    base, parts = BackboneRecipe(**given), replace(DEFAULT, **given)
    assert parts.image_size is not None
    rendered("base", base.scenes, base.image_size, output)
    training_data(parts.scenes, parts.image_size, output)
    rendered("test", options.limit, parts.image_size, output)
    if options.looks:
        rendered("test", options.look_scenes, LOOK_SIZE, output)


def _recipe(name: str, seed: int, output: Path, options: argparse.Namespace, steps: int | None) -> Recipe | None:
    """Return the recipe of a run, whose towers are trained first; None if the time ended meanwhile."""
    changes = {"steps": steps, "batch_size": options.batch_size, **given_fields(options)}
    changes = {key: value for key, value in changes.items() if value is not None}
    recipe = replace(VARIANTS[name], seed=seed, held_out=0, **changes)
    return on_towers(recipe, seed_of_towers(seed, options), output, options)


def _train(
    name: str, seed: int, key: str, output: Path, options: argparse.Namespace
) -> tuple[dict[str, Any], Path] | None:
    """Train a variant; return the record of the training and its model, or None if the time ended before it."""
    recipe = _recipe(name, seed, output, options, _steps(name, output, options))
    if recipe is None:
        return None
    assert recipe.image_size is not None
    folder = output / "runs" / key
    data = training_data(recipe.scenes, recipe.image_size, output)
    started = time.perf_counter()
    trained = run_training(recipe, data, folder)
    if not trained.finished:
        print(f"{key}: stopped at step {trained.step} of {recipe.steps}; the same command continues it", flush=True)
        return None
    each = _seconds_a_step(folder, recipe)
    record = {
        "variant": name,
        "seed": seed,
        "budget": f"time of {options.equal_time}" if options.equal_time else "steps",
        "backbone": seed_of_towers(seed, options),
        "recipe": recipe.to_dict(),
        "steps": recipe.steps,
        "seconds": recipe.steps * each,
        "seconds_a_step": each,
        "wall_seconds_of_last_call": time.perf_counter() - started,
        "processes_on_the_gpu": options.beside,
        "machine": _machine(),
        "torch": torch.__version__,
    }
    return record, trained.directory


def _steps(name: str, output: Path, options: argparse.Namespace) -> int | None:
    """Return the steps of a variant: `--steps`, or as many as the variant of `--equal-time` takes time for."""
    if not options.equal_time:
        return options.steps
    pace = json.loads((output / "pace.json").read_text())
    steps = options.steps or VARIANTS[options.equal_time].steps
    return max(1, round(steps * pace[options.equal_time]["seconds_a_step"] / pace[name]["seconds_a_step"]))


def _seconds_a_step(folder: Path, recipe: Recipe) -> float:
    """Return the median over the lines of a run's log, so that start and compilation do not count."""
    lines = [json.loads(text) for text in (folder / LOG).read_text().splitlines()]
    return median(recipe.batch_size / entry["photos_per_second"] for entry in lines if "photos_per_second" in entry)


def _measure_pace(name: str, output: Path, options: argparse.Namespace) -> None:
    """Train a variant for a few steps; add its seconds a step and the GPU's peak memory to OUTPUT/pace.json."""
    file = output / "pace.json"
    pace = json.loads(file.read_text()) if file.is_file() else {}
    recipe = None if name in pace else _recipe(name, options.seeds[0], output, options, options.steps or PACE_STEPS)
    if recipe is None:
        return
    assert recipe.image_size is not None
    folder = output / "runs" / f"{name}, pace"
    shutil.rmtree(folder, ignore_errors=True)
    log = max(1, min(PACE_LOG, recipe.steps // 3))
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run_training(replace(recipe, log_every=log), training_data(recipe.scenes, recipe.image_size, output), folder)
    lines = [json.loads(text) for text in (folder / LOG).read_text().splitlines()]
    pace[name] = {
        "seconds_a_step": recipe.batch_size / lines[-1]["photos_per_second"],
        "peak_GiB": round(torch.cuda.max_memory_reserved() / 2**30, 1) if on_gpu else None,
        "machine": _machine(),
    }
    write_text(file, json.dumps(pace, indent=1))
    shutil.rmtree(folder)
    print(f"{name}: {pace[name]}", flush=True)


# -- scores -----------------------------------------------------------------------------------------------------------


def _score(record: dict, model: Path, output: Path, options: argparse.Namespace, result: Path) -> None:
    """Score a model on the test split by every protocol; `result` then holds that and the record of its training."""
    size = record["recipe"]["image_size"]
    segmenter = PartSegmenter.from_pretrained(model)
    started = time.perf_counter()
    record["scores"] = _scores(segmenter, options.limit, size, output)
    if record["variant"] in options.looks:
        record["looks"] = _look_scores(segmenter, options.look_scenes, output)
        record["filters"] = filter_scores(
            segmenter.model.config, lambda: _scores(segmenter, options.limit, size, output)
        )
    record["seconds_of_scoring"] = time.perf_counter() - started
    write_text(result, json.dumps(record, indent=1))
    shutil.rmtree(model.parent / "checkpoints", ignore_errors=True)  # the model itself stays
    print(f"{result.stem}: {line(record)}", flush=True)


def _scores(segmenter: PartSegmenter, limit: int, size: int, output: Path) -> dict[str, Any]:
    """Score by every protocol and rule; all rules take the same counts but OV-PARTS', whose labels are resized."""
    dataset = PartShapesDataset("test", limit, size, scenes=rendered("test", limit, size, output))
    make = partial(Evaluator, dataset.vocabulary, dataset.seen)
    evaluators: dict[Protocol, Evaluator] = {protocol: make(protocol) for protocol in PROTOCOLS}
    resized = make("oracle_obj", boundary=None, rule="ov-parts")
    photos: list[EvaluationPhoto]
    with torch.inference_mode():
        for photos in read_batches(dataset, group_records(dataset), segmenter.model.ahead_shape, 32, 0):
            for protocol, label_map, (key, parts, objects) in predict(
                segmenter, dataset.vocabulary, photos, evaluators
            ):
                evaluators[protocol].update(label_map, parts, objects, key=key)
                if protocol == "oracle_obj":
                    resized.update(label_map, parts, objects, key, label_size(segmenter.model, parts.shape))
    found = {protocol: evaluator.compute().to_dict() for protocol, evaluator in evaluators.items()}
    of_resized = {entry["rule"]: entry for entry in resized.compute().to_dict()["rules"]}
    rules = found["oracle_obj"]["rules"]
    found["oracle_obj"]["rules"] = [of_resized["ov-parts"] if e["rule"] == "ov-parts" else e for e in rules]
    return found


def _look_scores(segmenter: PartSegmenter, limit: int, output: Path) -> dict[str, Any]:
    """Score one look, zoom and HOPS's crops on larger scenes."""
    dataset = PartShapesDataset("test", limit, LOOK_SIZE, scenes=rendered("test", limit, LOOK_SIZE, output))
    samples = list(dataset)
    with torch.inference_mode():
        scores = {
            name: score(partial(look, segmenter, dataset.vocabulary), dataset, samples, 16)
            for name, look in LOOKS.items()
            if "outlines" not in name  # of the first look: says little for its time
        }
    return {"scenes": limit, "size": LOOK_SIZE, "scores": scores}


def filter_scores(config: Any, score: Callable[[], Any]) -> dict[str, Any]:
    """Score a PartCATSeg with each of HOPS's two filters of costs as it was not trained: switched on, or off.

    The configuration then is again that of training. Other methods have no filters and give nothing.
    """
    if not getattr(config, "has_pairs", False):
        return {}
    names, found = {"attention_filter": "attention filter", "pair_affinity": "affinity"}, {}
    trained = {field: getattr(config, field) for field in names}
    try:
        for field, name in names.items():
            config.change(**{**trained, field: not trained[field]})
            found[f"without {name}" if trained[field] else name] = score()
    finally:
        config.change(**trained)
    return found


def _machine() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
