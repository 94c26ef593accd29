"""Tables of the runs of benchmarks/partshapes.py, as Markdown for docs/results.md.

    python benchmarks/partshapes_tables.py runs/evidence                    (of OUTPUT/results, as the benchmark does)
    python benchmarks/partshapes_tables.py benchmarks/results/X.json        (of a stored summary; writes nothing)

Every figure is the mean over the seeds, with the standard deviation where there are several.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from partclipseg.evaluation.choices import PROTOCOLS, RULES
from partclipseg.files import write_text
from partshapes_variants import VARIANTS

GROUPS = ("seen", "unseen", "harmonic")
FIGURES = ("iou", "recall", "boundary_iou")
TITLES = {"pred_all": "Pred-All", "oracle_obj": "Oracle-Obj", "strict": "strict"}
TIME_OF = ", time of "
"""Separates a variant from the one whose training time it has, in names of the summary."""
COLUMNS = ("pred_all", "oracle_obj", "strict")

Summary = dict[str, dict[str, Any]]
"""Figures of each variant: seeds, steps, seconds, and the spread of each score by its name."""


def summarise(output: Path, names: Iterable[str] = tuple(VARIANTS)) -> str:
    """Write OUTPUT/summary.json and OUTPUT/summary.md of the results that are there; return the latter."""
    results = [json.loads(path.read_text()) for path in sorted((output / "results").glob("*.json"))]
    summary = summary_of(results, names)
    text = tables(summary)
    write_text(output / "summary.json", json.dumps(summary, indent=1))
    write_text(output / "summary.md", text)
    return text


def summary_of(results: Sequence[Mapping[str, Any]], names: Iterable[str]) -> Summary:
    """Compute mean and standard deviation over the seeds of every variant and budget that has results."""
    summary: Summary = {}
    for budget in dict.fromkeys(result.get("budget", "steps") for result in results):
        for name in names:
            some = [r for r in results if r["variant"] == name and r.get("budget", "steps") == budget]
            if some:
                summary[name if budget == "steps" else f"{name}, {budget}"] = _figures(some)
    return summary


def _figures(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "seeds": [result["seed"] for result in results],
        "steps": sorted({result.get("steps") or result["recipe"]["steps"] for result in results}),
        "machines": sorted({result["machine"] for result in results}),
        "processes_on_the_gpu": sorted({result.get("processes_on_the_gpu", 1) for result in results}),
        "seconds": spread([result["seconds"] for result in results]),
    }
    for protocol in PROTOCOLS:
        scores = [result["scores"][protocol] for result in results]
        figures |= _of_protocol(protocol, scores)
        for rule in RULES:
            by_rule = [_rule(of_seed, rule) for of_seed in scores]
            if all(by_rule):
                for group in GROUPS:
                    figures[f"{protocol} {group} iou, {rule}"] = spread([entry[group] for entry in by_rule])
    looks = [result["looks"]["scores"] for result in results if "looks" in result]
    filters = [result["filters"] for result in results if result.get("filters")]
    for kind, extra in (("look", looks), ("filter", filters)):
        for name in extra[0] if extra else ():
            for protocol in PROTOCOLS:
                figures |= _of_protocol(f"{kind} {name}: {protocol}", [of_seed[name][protocol] for of_seed in extra])
    return figures


def _of_protocol(name: str, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures = {
        f"{name} {group} {figure}": spread([of_seed[group][figure] for of_seed in scores])
        for group in GROUPS
        for figure in FIGURES
    }
    for figure in ("iou", "recall"):
        figures[f"{name} small parts {figure}"] = spread([of_seed["small_parts"][figure] for of_seed in scores])
    return figures


def _rule(scores: Mapping[str, Any], rule: str) -> Mapping[str, Any]:
    return next((entry for entry in scores.get("rules", ()) if entry["rule"] == rule), {})


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, standard deviation over the seeds and each seed's value; null where the scenes were too few for one."""
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "values": list(values),
    }


# -- Markdown ---------------------------------------------------------------------------------------------------------


def tables(summary: Summary) -> str:
    """Return all tables that the summary has figures for."""
    equal_steps = {name: figures for name, figures in summary.items() if TIME_OF not in name}
    equal_time = _with_base({name: figures for name, figures in summary.items() if TIME_OF in name}, summary)
    parts = [
        _titled("Equal steps", _scores(equal_steps)),
        _titled("The same runs by each rule of averaging, harmonic mIoU", _rules(equal_steps)),
        _titled("Equal training time", _scores(equal_time)),
        _titled("A second look, on larger scenes", _extra(summary, "look")),
        _titled("Filters of costs, put after training", _extra(summary, "filter")),
    ]
    return "\n".join(part for part in parts if part)


def _with_base(equal_time: Summary, summary: Summary) -> Summary:
    """Return the runs of equal time below those of the variant whose time they have."""
    bases = {name.partition(TIME_OF)[2] for name in equal_time}
    return {**{base: summary[base] for base in bases if base in summary}, **equal_time}


def _titled(title: str, rows: Sequence[str]) -> str:
    return "\n".join([f"**{title}**", "", *rows, ""]) if len(rows) > 2 else ""


def _scores(summary: Summary) -> list[str]:
    rows = [
        "| | variant | seeds | steps | seconds | mIoU seen | unseen | harmonic | recall | Boundary IoU | small parts |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for protocol in COLUMNS:
        for place, (name, figures) in enumerate(summary.items()):
            keys = [f"{protocol} {group} iou" for group in GROUPS]
            cells = [cell(figures[key]) for key in keys]
            rest = ("harmonic recall", "harmonic boundary_iou", "small parts iou")
            cells += [cell(figures[f"{protocol} {key}"], with_spread=False) for key in rest]
            steps = ", ".join(f"{count:,}" for count in figures.get("steps", ()))
            seconds = cell(figures["seconds"], with_spread=False) if "seconds" in figures else ""
            start = (TITLES[protocol] if place == 0 else "", name, str(len(figures["seeds"])), steps, seconds)
            rows.append(f"| {' | '.join([*start, *cells])} |")
    return rows


def _rules(summary: Summary) -> list[str]:
    columns = [(protocol, rule) for protocol in ("pred_all", "oracle_obj") for rule in RULES]
    known = {n: f for n, f in summary.items() if f"pred_all harmonic iou, {RULES[0]}" in f}
    rows = [
        "| variant | " + " | ".join(f"{TITLES[protocol]}, `{rule}`" for protocol, rule in columns) + " |",
        "|---|" + "--:|" * len(columns),
    ]
    for name, figures in known.items():
        rows.append(f"| {name} | {' | '.join(cell(figures[f'{p} harmonic iou, {r}']) for p, r in columns)} |")
    return rows


def _extra(summary: Summary, kind: str) -> list[str]:
    groups = " | ".join(f"{TITLES[protocol]} seen / unseen / harmonic" for protocol in COLUMNS)
    rows = [
        f"| variant | {kind} | {groups} | Boundary IoU | small parts |",
        "|---|---|" + "--:|" * (len(COLUMNS) + 2),
    ]
    start, end = f"{kind} ", ": pred_all harmonic iou"
    for name, figures in summary.items():
        for extra in (key.removesuffix(end) for key in figures if key.startswith(start) and key.endswith(end)):
            cells = [
                " / ".join(cell(figures[f"{extra}: {protocol} {group} iou"]) for group in GROUPS)
                for protocol in COLUMNS
            ]
            for key in ("harmonic boundary_iou", "small parts iou"):
                cells.append(cell(figures[f"{extra}: pred_all {key}"], with_spread=False))
            rows.append(f"| {name} | {extra.removeprefix(start)} | {' | '.join(cells)} |")
    return rows


def cell(figure: Mapping[str, Any], with_spread: bool = True) -> str:
    """Return a figure as mean ± standard deviation, one place after the point."""
    if figure["mean"] is None:
        return "–"
    return f"{figure['mean']:.1f}" + (f" ± {figure['std']:.1f}" if with_spread and figure["std"] is not None else "")


def line(result: Mapping[str, Any]) -> str:
    """Return the mIoU of one run on one line."""
    return ", ".join(
        f"{protocol} " + " / ".join(f"{number(scores[group]['iou']):.2f}" for group in GROUPS)
        for protocol, scores in result["scores"].items()
    )


def number(value: float | None) -> float:
    """Return NaN for None, which JSON has in its place."""
    return float("nan") if value is None else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a folder of runs, or a summary.json")
    path = parser.parse_args().path
    print(summarise(path) if path.is_dir() else tables(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
