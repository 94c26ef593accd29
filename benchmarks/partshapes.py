"""Which changes to the published method help: every variant on PartShapes, over several seeds.

    python benchmarks/partshapes.py --output runs/evidence
    python benchmarks/partshapes.py --output runs/evidence --share 0/2      (this process does every second run)
    python benchmarks/partshapes.py --output runs/laptop --only default clipseg --seeds 0 --steps 4 --limit 8 \
        --backbone-steps 8 --scenes 64 --image-size 64

Each seed has a backbone of its own, or one of `--backbones`; every variant of the seed starts from it, with the same
number of steps and the same scenes. Each run leaves a JSON file in OUTPUT/results and is not repeated; the last lines
are a table of mean and standard deviation, which is written to OUTPUT/summary.json and OUTPUT/summary.md too. All
variants train in bfloat16 mixed precision, the reference's included, so that their time and arithmetic are alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from partclipseg.evaluation.run import evaluate
from partclipseg.evaluation.scores import PROTOCOLS
from partclipseg.files import write_text
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.losses.config import LossConfig
from partclipseg.models.partcatseg.config import REPAIRS
from partclipseg.shapes.cache import render_split
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.shapes.world import partshapes_world
from partclipseg.training.backbone import train_backbone
from partclipseg.training.data import TrainingData, render_training_data
from partclipseg.training.guidance import train_guidance
from partclipseg.training.loop import train
from partclipseg.training.recipe import (
    Recipe,
    Retention,
    partshapes,
    partshapes_catseg,
    partshapes_clipseg,
    partshapes_partcatseg,
    partshapes_partcatseg_reference,
    partshapes_reference,
    with_settings,
)
from partclipseg.training.towers import BackboneRecipe, GuidanceRecipe, TowerRecipe

WORLD = partshapes_world()
SEEN_WORDS = WORLD.seen_vocabulary.objects
HALF_OF_UNSEEN = WORLD.unseen_objects[::2]


DEFAULT = partshapes()


def _reference(**changes: object) -> Recipe:
    recipe = replace(partshapes_reference(), precision="bfloat16")
    own = {name: changes.pop(name) for name in list(changes) if hasattr(recipe.settings, name)}
    return with_settings(replace(recipe, **changes), **own)


def _loss(recipe: Recipe, **changes: object) -> Recipe:
    return with_settings(recipe, loss=replace(recipe.settings.loss, **changes))


def _retention(weight: float, words: tuple[str, ...] = WORLD.vocabulary.objects) -> Recipe:
    return replace(DEFAULT, retention=Retention(weight, words))


VARIANTS: dict[str, Recipe] = {
    "clipseg": partshapes_clipseg(),
    "reference": _reference(),
    # The reference with one change each.
    "reference + object words (D1)": _reference(reference_object_lookup=False),
    "reference + attention with gradient (D2, D3)": _loss(_reference(), attention_control="differentiable"),
    # Each of the two in the new form, without the other: in the released form separation has no gradient, enhancement
    # hardly any.
    "reference + separation with gradient (D2)": _loss(
        _reference(), attention_control="differentiable", enhancement_weight=0
    ),
    "reference + enhancement of own rows (D3)": _loss(
        _reference(), attention_control="differentiable", separation_weight=0
    ),
    "reference + trained background (D4)": _reference(train_background=True),
    "reference + RGB (D5)": _reference(colour_order="rgb"),
    "reference + outside left out (D6)": _loss(_reference(), outside="ignore"),
    "reference + mean merges": _reference(merges="mean"),
    "reference + retention": _reference(retention=DEFAULT.retention),
    # All of them as the paper means it; without attention control; with retention too, which is the default.
    "intended": with_settings(replace(DEFAULT, retention=Retention()), loss=LossConfig()),
    "intended, attention off": replace(DEFAULT, retention=Retention()),
    "default": DEFAULT,
    # The start of the classes' FiLM; the default begins with the identity.
    "default, class FiLM from a copy": with_settings(DEFAULT, class_film="copy"),
    # Attention control on top of the default.
    "default + attention": with_settings(DEFAULT, loss=LossConfig()),
    "default + attention, a tenth": with_settings(
        DEFAULT, loss=LossConfig(separation_weight=0.01, enhancement_weight=0.001)
    ),
    "default + separation": with_settings(DEFAULT, loss=LossConfig(enhancement_weight=0)),
    "default + enhancement": with_settings(DEFAULT, loss=LossConfig(separation_weight=0)),
    "default + attention as released": _loss(DEFAULT, attention_control="reference"),
    **{
        f"default + attention, threshold {threshold}": with_settings(DEFAULT, loss=LossConfig(threshold=threshold))
        for threshold in (0.1, 0.2, 0.4, 0.5)
    },
    # Retention: its weight, and how much of it is knowing the unseen objects' names.
    "default, retention 0.3": _retention(0.3),
    "default, retention 5": _retention(5.0),
    "default, retention of seen words": _retention(1.0, SEEN_WORDS),
    "default, retention of half the unseen words": _retention(1.0, (*SEEN_WORDS, *HALF_OF_UNSEEN)),
    # The other methods; guidance towers are trained once a seed, like the backbones.
    "catseg": partshapes_catseg(),
    "partcatseg": partshapes_partcatseg(),
    "partcatseg reference": replace(partshapes_partcatseg_reference(), precision="bfloat16"),
    **{
        f"partcatseg, {name} repaired alone": replace(
            with_settings(partshapes_partcatseg_reference(), reference=False, repairs=(name,)), precision="bfloat16"
        )
        for name in REPAIRS
    },
}


def main() -> None:
    options = _parse()
    output = Path(options.output)
    rank, world_size = (int(number) for number in options.share.split("/"))
    runs = [(name, seed) for seed in options.seeds for name in options.only]
    # Scored by another process while the next one trains: neither keeps a GPU busy alone.
    with ProcessPoolExecutor(1, get_context("spawn")) as scorer:
        waiting = []
        for name, seed in runs[rank::world_size]:
            result = output / "results" / f"{name}, seed {seed}.json"
            if result.is_file():
                print(f"{name}, seed {seed}: {_line(json.loads(result.read_text()))}", flush=True)
            else:
                record, model = _train(name, seed, output, options)
                size = record["recipe"]["image_size"]
                waiting.append(scorer.submit(_score, record, model, output, options.limit, size, result))
        for future in waiting:
            future.result()
    _summarise(output)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--share", default="0/1", metavar="K/N", help="do run K, K + N, …")
    parser.add_argument("--limit", type=int, default=1000, help="test scenes to score")
    parser.add_argument("--steps", type=int, help="steps of the part stage")
    parser.add_argument("--batch-size", type=int, help="scenes of a step of the part stage")
    parser.add_argument("--backbones", type=int, help="seed s starts from backbone s modulo this; default: its own")
    parser.add_argument("--backbone-steps", type=int)
    parser.add_argument("--guidance-steps", type=int)
    parser.add_argument("--scenes", type=int, help="scenes rendered ahead for each stage")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--compile", action="store_true", help="compile the layers: pays on a GPU")
    return parser.parse_args()


def _train(name: str, seed: int, output: Path, options: argparse.Namespace) -> tuple[dict, Path]:
    """Train a variant; return the record of the training, and its model."""
    changes = {"scenes": options.scenes, "image_size": options.image_size}
    backbone_seed = seed % options.backbones if options.backbones else seed
    given = {key: value for key, value in changes.items() if value is not None}
    of_backbone = {**given, "compile": options.compile}
    backbone = _tower(BackboneRecipe, backbone_seed, output, options.backbone_steps, of_backbone)
    method = VARIANTS[name].settings
    if method.needs_guidance:
        guidance = _tower(GuidanceRecipe, backbone_seed, output, options.guidance_steps, given)
        method = replace(method, guidance=str(guidance))  # pyright: ignore[reportCallIssue]
    changes |= {"settings": method, "steps": options.steps, "batch_size": options.batch_size}
    changes = {key: value for key, value in changes.items() if value is not None}
    recipe = replace(
        VARIANTS[name], start=str(backbone), seed=seed, held_out=0, compile=options.compile, **changes
    )
    folder = output / "runs" / f"{name}, seed {seed}"
    assert recipe.image_size is not None
    data = _data(recipe.scenes, recipe.image_size, output / "scenes")
    started = time.perf_counter()
    trained = train(recipe, data, folder)
    record = {
        "variant": name,
        "seed": seed,
        "backbone": backbone_seed,
        "recipe": recipe.to_dict(),
        "seconds": time.perf_counter() - started,
        "machine": _machine(),
        "torch": torch.__version__,
    }
    return record, trained.directory


def _score(record: dict, model: Path, output: Path, limit: int, size: int, result: Path) -> None:
    """Score a model on the test split by every protocol; `result` then holds that and the record of its training."""
    record["scores"] = _scores(model, output, limit, size)
    write_text(result, json.dumps(record, indent=1))
    shutil.rmtree(model.parent / "checkpoints")  # the model itself stays
    print(f"{record['variant']}, seed {record['seed']}: {_line(record)}", flush=True)


@cache
def _data(scenes: int, image_size: int, folder: Path) -> TrainingData:
    """Render the training scenes, which are the same for every variant."""
    return render_training_data(replace(DEFAULT, scenes=scenes, image_size=image_size, held_out=0), folder)


def _tower(kind: type[TowerRecipe], seed: int, output: Path, steps: int | None, changes: dict) -> Path:
    """Train a tower of the seed, unless it is there, and return its directory."""
    folder = output / f"{kind.name}-{seed}"
    if (folder / "model").is_dir():
        return folder / "model"
    steps = steps or kind.steps
    recipe = kind(seed=seed, steps=steps, warmup_steps=min(kind.warmup_steps, steps // 4), **changes)
    scenes = render_split("base", recipe.scenes, recipe.image_size, output / "scenes")
    train_one: Any = train_backbone if kind is BackboneRecipe else train_guidance
    model = train_one(recipe, folder, scenes, lambda step, losses: print(f"{kind.name} {seed}, {step}: {losses}"))
    assert model is not None
    return model


def _scores(model: Path, output: Path, limit: int, size: int) -> dict:
    segmenter = PartSegmenter.from_pretrained(model)
    scenes = render_split("test", limit, size, output / "scenes")
    dataset = PartShapesDataset("test", limit, size, scenes=scenes)
    scores = evaluate(segmenter, dataset, batch_size=32)
    return {protocol: found.to_dict() for protocol, found in scores.items()}


def _line(result: dict) -> str:
    groups = ("seen", "unseen", "harmonic")
    return ", ".join(
        f"{protocol} " + " / ".join(f"{_number(scores[group]['iou']):.2f}" for group in groups)
        for protocol, scores in result["scores"].items()
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value  # JSON has no NaN


def _summarise(output: Path) -> None:
    """Mean and standard deviation over the seeds of every variant that has results."""
    results = [json.loads(path.read_text()) for path in sorted((output / "results").glob("*.json"))]
    summary = {}
    for name in VARIANTS:
        of_variant = [result for result in results if result["variant"] == name]
        if not of_variant:
            continue
        summary[name] = {"seeds": [result["seed"] for result in of_variant]}
        for protocol in PROTOCOLS:
            scores = [result["scores"][protocol] for result in of_variant]
            for group in ("seen", "unseen", "harmonic"):
                for figure in ("iou", "recall", "boundary_iou"):
                    values = [of_seed[group][figure] for of_seed in scores]
                    summary[name][f"{protocol} {group} {figure}"] = _spread(values)
            for figure in ("iou", "recall"):
                values = [of_seed["small_parts"][figure] for of_seed in scores]
                summary[name][f"{protocol} small parts {figure}"] = _spread(values)
    write_text(output / "summary.json", json.dumps(summary, indent=1))
    rows = ["| variant | seeds | " + " | ".join(f"{p} seen / unseen / harmonic" for p in PROTOCOLS) + " |"]
    rows.append("|---|--:|" + "---|" * len(PROTOCOLS))
    for name, figures in summary.items():
        cells = [
            " / ".join(_cell(figures[f"{protocol} {group} iou"]) for group in ("seen", "unseen", "harmonic"))
            for protocol in PROTOCOLS
        ]
        rows.append(f"| {name} | {len(figures['seeds'])} | {' | '.join(cells)} |")
    write_text(output / "summary.md", "\n".join(rows) + "\n")
    print("\n".join(rows))


def _spread(values: list[float | None]) -> dict:
    """Mean, standard deviation over the seeds and each seed's value; null where the scenes were too few for one."""
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "values": values,
    }


def _cell(figure: dict) -> str:
    spread = "" if figure["std"] is None else f" ± {figure['std']:.1f}"
    return "-" if figure["mean"] is None else f"{figure['mean']:.1f}{spread}"


def _machine() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
