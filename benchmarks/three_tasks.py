"""OV-PARTS' three tasks on PartShapes: every method, zero-shot, with 16 shots, and asked the words of a second world.

    python benchmarks/three_tasks.py --output runs/evidence
    python benchmarks/three_tasks.py --output runs/evidence --page docs/ovparts-results.md
    python benchmarks/three_tasks.py --output runs/laptop --only CLIPSeg --seeds 0 --steps 4 --limit 8 \\
        --backbone-steps 8 --scenes 64 --image-size 64 --batch-size 2
    python benchmarks/three_tasks.py --results benchmarks/results/three-tasks.json --page docs/ovparts-results.md

Towers of benchmarks/partshapes.py in the same OUTPUT (backbone-SEED, guidance-SEED, aggregation-SEED) are taken over,
and so are its models; one of another recipe is refused, and what is missing is trained. Each run leaves a JSON file in
OUTPUT/three-tasks and is not repeated. Several processes may be given the same command at the same time: each takes the
next run that nobody has begun. A run that SIGTERM stops is continued by the next command. The last lines are a table of
mean and standard deviation; OUTPUT/three-tasks.json holds its figures. With `--page` the results become the section
"Figures" of a page, with a picture beside it; what stands above that section is kept. `--results` trains nothing and
takes the results that an OUTPUT has, all or some, or a stored three-tasks.json. Every score is Oracle-Obj by the rule
ov-parts, as `partclipseg benchmark ov-parts` gives it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from partclipseg.data.few_shot import FewShot
from partclipseg.evaluation.photos import group_records
from partclipseg.evaluation.run import make_evaluators, score_photos
from partclipseg.files import write_text
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.shapes.cache import render_split
from partclipseg.shapes.coarse import CoarseShapesDataset
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.training.checkpoint import differences
from partclipseg.training.data import render_training_data
from partclipseg.training.folder import CONFIGURATION, run_of
from partclipseg.training.loop import run_training
from partclipseg.training.recipe import (
    HARMLESS,
    Recipe,
    partshapes,
    partshapes_catseg,
    partshapes_clipseg,
    partshapes_partcatseg,
    partshapes_zsseg,
    with_current_settings,
)
from partshapes_stages import add_stage_options, alone, claim, given_fields, naming_towers, on_towers, seed_of_towers

METHODS: dict[str, tuple[str, Callable[[], Recipe]]] = {
    "PartCLIPSeg": ("default", partshapes),
    "CLIPSeg": ("clipseg", partshapes_clipseg),
    "PartCATSeg": ("partcatseg", partshapes_partcatseg),
    "CAT-Seg": ("catseg", partshapes_catseg),
    "ZSSeg+": ("zsseg", partshapes_zsseg),
}
"""Variant of each method in benchmarks/partshapes.py, and its recipe."""

SHOTS = 16
HEADING = "## Figures"
"""Heading of the section of the page that is made of results."""
FIGURES = {
    "zero-shot": ("seen", "unseen", "harmonic"),
    "16 shots": ("seen", "unseen", "all"),
    "cross-world": ("source", "all"),
}
"""Figures of each task. With 16 shots every class is trained; seen and unseen are those of the zero-shot task."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    if options.results is not None and options.results.is_file():
        summary = json.loads(options.results.read_text())
    else:
        output = options.results or Path(options.output)
        if options.results is None and not _run_all(output, options):
            return
        summary = _summary(output, options.backbones)
        write_text(output / "three-tasks.json", json.dumps(summary, indent=1))
    print("\n".join(_table(summary)))
    if options.page is not None:
        write_page(summary, Path(options.page))


def _run_all(output: Path, options: argparse.Namespace) -> bool:
    """Make every result that is not there; return False if a training was stopped."""
    (output / "three-tasks").mkdir(parents=True, exist_ok=True)
    for name, seed, few in [(n, seed, few) for seed in options.seeds for n in options.only for few in (False, True)]:
        result = output / "three-tasks" / f"{name}, {f'{SHOTS} shots, ' if few else ''}seed {seed}.json"
        lock = claim(output, f"three tasks, {result.stem}")
        if lock is None:
            continue
        with lock:
            if result.is_file():
                continue
            record = _run(name, seed, few, output, options)
            if record is None:
                print(f"{result.stem} was stopped; the same command continues it")
                return False
            write_text(result, json.dumps(record, indent=1))
            print(f"{result.stem}: {record['tasks']}", flush=True)
    return True


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--output")
    where.add_argument("--results", type=Path, help="train nothing: an OUTPUT, or a stored three-tasks.json")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=1000, help="test scenes to score")
    parser.add_argument("--page", help="write the results as a page of Markdown")
    add_stage_options(parser)
    options = parser.parse_args(arguments)
    if options.results is not None and not (options.results.is_file() or (options.results / "three-tasks").is_dir()):
        parser.error(f"{options.results} has no results: name a folder with three-tasks/, or a stored three-tasks.json")
    return options


def _run(name: str, seed: int, few: bool, output: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """Train a model, unless it is there, and score it in its tasks; None if the training was stopped."""
    variant, make = METHODS[name]
    changes = {"steps": options.steps, "batch_size": options.batch_size, **given_fields(options)}
    changes = {key: value for key, value in changes.items() if value is not None}
    recipe = replace(make(), seed=seed, held_out=0, **changes)
    if few:
        recipe = replace(recipe, few_shot=FewShot(shots=SHOTS, shot_seed=seed))
    model = output / "runs" / f"{variant}, {f'{SHOTS} shots, ' if few else ''}seed {seed}" / "model"
    if not model.is_dir() and not _trained(recipe, model.parent, seed, output, options):
        return None
    _check_recipe(model.parent, naming_towers(recipe, seed_of_towers(seed, options), output))
    segmenter = PartSegmenter.from_pretrained(model, dtype="float32")
    size = recipe.image_size or 128
    scenes = render_split("test", options.limit, size, output / "scenes")
    first = _score(segmenter, PartShapesDataset("test", options.limit, size, scenes=scenes))
    if few:
        tasks = {"16 shots": first}
    else:
        across = _score(segmenter, CoarseShapesDataset("test", options.limit, size, scenes=scenes))
        tasks = {"zero-shot": first, "cross-world": {"source": first["all"], "all": across["all"]}}
    split = model.parent / "few-shot.json"
    shots = len(json.loads(split.read_text())["files"]) if few else None
    return {
        "method": name,
        "seed": seed,
        "steps": recipe.steps,
        "photos": shots,
        "scenes": options.limit,
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "tasks": tasks,
    }


def _check_recipe(folder: Path, recipe: Recipe) -> None:
    """End the program if the finished model in a folder is of another recipe; towers count by the names of folders."""
    run = run_of(folder)
    if run is None:
        raise SystemExit(f"{folder} has no {CONFIGURATION} of a training: move it away, or give another --output")
    then, now = (_by_names(values) for values in (with_current_settings(run["recipe"]), recipe.to_dict()))
    if changes := differences(then, now, (*HARMLESS, "compile")):
        raise SystemExit(
            f"{folder} holds a model of another recipe: give the options that it was trained with, or another "
            "--output\n  " + "\n  ".join(changes)
        )


def _by_names(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe as a dictionary with the towers' names, as OUTPUT may have been moved."""
    settings = recipe["settings"]
    if settings.get("guidance"):
        settings = {**settings, "guidance": Path(settings["guidance"]).parent.name}
    return {**recipe, "settings": settings, "start": Path(recipe["start"]).parent.name}


def _trained(recipe: Recipe, folder: Path, seed: int, output: Path, options: argparse.Namespace) -> bool:
    """Train a model from the towers of its seed; return whether the training is finished."""
    started = on_towers(recipe, seed_of_towers(seed, options), output, options)
    if started is None:
        return False
    with alone(output, "train"):  # two processes would render the same scenes
        data = render_training_data(started, output / "scenes")
    return run_training(started, data, folder).finished


def _score(segmenter: PartSegmenter, dataset: PartShapesDataset) -> dict[str, float | None]:
    """Return the mIoU of every set of classes, in percent; None for NaN, which JSON does not have."""
    evaluators = make_evaluators(dataset, "oracle_obj", boundary=None, rule="ov-parts")
    for _ in score_photos(segmenter, dataset, group_records(dataset), evaluators, batch_size=32):
        pass
    scores = evaluators["oracle_obj"].compute()
    values = {group: getattr(scores, group).iou for group in ("seen", "unseen", "harmonic", "all")}
    return {group: value if value == value else None for group, value in values.items()}


def _summary(output: Path, backbones: int | None) -> dict[str, Any]:
    """Collect the figures of the runs that are there by task, method and figure, one value a seed."""
    records = [json.loads(path.read_text()) for path in (output / "three-tasks").glob("*.json")]
    records.sort(key=lambda record: record["seed"])
    tasks: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for task, figures in FIGURES.items():
        tasks[task] = {}
        for name in METHODS:
            found = [one for one in records if one["method"] == name and task in one["tasks"]]
            if found:
                values = {figure: [one["tasks"][task][figure] for one in found] for figure in figures}
                tasks[task][name] = {"seeds": [one["seed"] for one in found], **values}
    facts = ("seed", "steps", "photos", "scenes", "machine")
    runs = {key: sorted({r[key] for r in records if r[key] is not None}) for key in facts}
    return {"runs": {**runs, "backbones": backbones}, "tasks": tasks}


def _table(summary: dict[str, Any]) -> list[str]:
    """Return the lines of a Markdown table for each task, with a row for each method that was not run, too."""
    lines: list[str] = []
    for task, figures in FIGURES.items():
        methods = summary["tasks"].get(task, {})
        lines += ["", f"**{task.capitalize()}**", ""]
        lines += [f"| method | seeds | {' | '.join(figures)} |", "|---|--:|" + "--:|" * len(figures)]
        for name in METHODS:
            values = methods.get(name)
            cells = [_cell(values[figure]) for figure in figures] if values else ["not run"] * len(figures)
            lines.append(f"| {name} | {len(values['seeds']) if values else 0} | {' | '.join(cells)} |")
    return lines


def _cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{mean(known):.1f}" + (f" ± {stdev(known):.1f}" if len(known) > 1 else "")


def write_page(summary: dict[str, Any], path: Path) -> None:
    """Write the results as the last section of a page, whose text above it stays, with a picture of bars beside it."""
    runs = summary["runs"]
    last = {"zero-shot": "harmonic", "16 shots": "all", "cross-world": "all"}
    best = {
        task: max(methods, key=lambda name: mean([v for v in methods[name][last[task]] if v is not None] or [0]))
        for task, methods in summary["tasks"].items()
        if methods
    }
    towers = "one backbone, the same for all seeds" if runs["backbones"] == 1 else "one backbone, for each seed another"
    text = path.read_text(encoding="utf-8") if path.is_file() else "# The three tasks on PartShapes\n\n"
    lines = [
        text.partition(HEADING)[0] + HEADING,
        "",
        "<!-- from here on made by benchmarks/three_tasks.py --page; change that instead -->",
        "",
        f"Mean and standard deviation over at most the seeds {_listed(runs['seed'])}, {_listed(runs['steps'])} steps "
        f"each, scored on {_listed(runs['scenes'])} test scenes ({_listed(runs['machine'])}). All methods start from "
        f"{towers}.",
        "",
        "Every figure is the mIoU in percent under Oracle-Obj, by [the rule "
        "`ov-parts`](protocols.md#the-rule-of-averaging), on resized labels. *Zero-shot*: trained on the seen objects. "
        f"*16 shots*: trained on {_listed(runs['photos'])} scenes, of all objects; seen and unseen are those of "
        "zero-shot. *Cross-world*: the zero-shot model asked the words of `partshapes-coarse`, all classes; source is "
        "its mIoU in its own world.",
        *_table(summary),
        "",
        "![Bars of the last figure of each task](pictures/three-tasks.svg)",
        "",
        "Best by the last figure of each table: " + ", ".join(f"{name} ({task})" for task, name in best.items()) + ".",
        "",
    ]
    write_text(path, "\n".join(lines))
    write_text(path.parent / "pictures" / "three-tasks.svg", _bars(summary, last))


def _bars(summary: dict[str, Any], figures: dict[str, str]) -> str:
    """Draw a group of bars for each task, with the standard deviation as a line."""
    colours = dict(zip(METHODS, ("#3b6ea8", "#d9843b", "#5a9a57", "#b5545c", "#8a6bb1"), strict=True))
    values = {
        (task, name): [value for value in methods[name][figures[task]] if value is not None]
        for task, methods in summary["tasks"].items()
        for name in methods
    }
    tops = [mean(known) + (stdev(known) if len(known) > 1 else 0) for known in values.values() if known]
    scale = 200 / max([*tops, 1])
    shapes: list[str] = []
    for group, task in enumerate(summary["tasks"]):
        left = 20 + 230 * group
        shapes.append(f'<text x="{left + 100}" y="262" text-anchor="middle">{task}, {figures[task]}</text>')
        for place, name in enumerate(METHODS):
            known = values.get((task, name))
            x = left + 42 * place
            if not known:
                shapes.append(f'<text x="{x + 17}" y="236" font-size="10" text-anchor="middle">not run</text>')
                continue
            height = mean(known) * scale
            spread = stdev(known) * scale if len(known) > 1 else 0
            shapes.append(
                f'<rect x="{x}" y="{240 - height:.1f}" width="34" height="{height:.1f}" fill="{colours[name]}"/>'
                f'<path d="M{x + 17} {240 - height - spread:.1f}v{2 * spread:.1f}" stroke="#222" stroke-width="1.5"/>'
                f'<text x="{x + 17}" y="{234 - height - spread:.1f}" text-anchor="middle">{mean(known):.1f}</text>'
            )
    for place, name in enumerate(METHODS):
        x = 20 + 140 * place
        shapes.append(f'<rect x="{x}" y="276" width="12" height="12" fill="{colours[name]}"/>'
                      f'<text x="{x + 18}" y="287">{name}</text>')  # fmt: skip
    style = 'font-family="sans-serif" font-size="12" fill="#222"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 710 300" role="img" {style}>'
        '<title>mIoU of each method in the three tasks</title><rect width="710" height="300" fill="#fff"/>'
        + "".join(shapes)
        + "</svg>\n"
    )


def _listed(values: list[Any]) -> str:
    return ", ".join(str(value) for value in values) or "-"


if __name__ == "__main__":
    main()
