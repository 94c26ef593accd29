"""The plot of docs/results.md: harmonic mIoU of the default and of what it is compared with, a dot for each seed."""

from __future__ import annotations

import io
import json
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PROTOCOLS = {"pred_all": ("Pred-All", "#3b6fb6"), "oracle_obj": ("Oracle-Obj", "#c9a13b")}
SEEDS = range(3)

Table = dict[str, dict[str, list[float]]]
"""Values of the seeds by variant and protocol."""


def first() -> Table:
    """Read the default from the copied class FiLM, the baseline and the released code."""
    content = json.loads((RESULTS / "partshapes-2000.json").read_text(encoding="utf-8"))
    names = {"default": "default, from the copy", "clipseg": "clipseg", "reference": "reference"}
    return {
        shown: {protocol: content[name][f"{protocol} harmonic iou"]["values"] for protocol in PROTOCOLS}
        for name, shown in names.items()
    }


def second() -> Table:
    """Read the default by the start of its class FiLM."""
    runs = json.loads((RESULTS / "class-film.json").read_text(encoding="utf-8"))["runs"]
    return {
        f"default, from the {start}": {
            protocol: [runs[f"{start}, seed {seed}"]["scores"][protocol]["harmonic"]["iou"] for seed in SEEDS]
            for protocol in PROTOCOLS
        }
        for start in ("identity", "copy")
    }


def third() -> Table:
    """Read the default, the baseline and the released code on backbones that know part words."""
    content = json.loads((RESULTS / "partshapes-part-words.json").read_text(encoding="utf-8"))["2,000 steps"]
    return {
        name: {protocol: content[name][f"{protocol} harmonic iou"]["values"] for protocol in PROTOCOLS}
        for name in ("default", "clipseg", "reference")
    }


def methods() -> Table:
    """Read the methods that were trained for equal steps."""
    content = json.loads((RESULTS / "partshapes-methods.json").read_text(encoding="utf-8"))
    return {
        name: {protocol: content[name][f"{protocol} harmonic iou"]["values"] for protocol in PROTOCOLS}
        for name in ("default", "clipseg", "partcatseg", "partcatseg reference", "catseg")
    }


def plot() -> Image.Image:
    """Plot the experiments, one below the other, with the first variant of each on top."""
    tables = {
        "first experiment, 2,000 steps": first(),
        "second experiment, 2,000 steps": second(),
        "third experiment, 2,000 steps, part words in CLIP": third(),
        "the other methods, 1,000 steps": methods(),
    }
    rows = [len(table) for table in tables.values()]
    figure = Figure(figsize=(9, 1.4 + 0.42 * sum(rows)), dpi=110, layout="constrained")
    axes = figure.subplots(len(tables), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        variants = list(table)[::-1]
        for offset, (protocol, (label, colour)) in zip((0.2, -0.2), PROTOCOLS.items(), strict=True):
            for row, variant in enumerate(variants):
                values = table[variant][protocol]
                mean = sum(values) / len(values)
                axis.barh(row + offset, mean, 0.36, color=colour, alpha=0.45, label=label if not row else None)
                axis.plot(values, [row + offset] * len(values), "o", color=colour, markersize=5)
        axis.margins(y=0.05)
        axis.set_yticks(range(len(variants)), variants)
        axis.set_title(title, loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.3)
    axes[-1].set_xlabel("harmonic mIoU of seen and unseen, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(PROTOCOLS), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")
