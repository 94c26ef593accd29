"""The plot of docs/results.md: harmonic mIoU of every variant, a dot for each seed, a bar for their mean."""

from __future__ import annotations

import io
import json
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
TITLES = {"partshapes-2000.json": "2,000 steps, 3 seeds", "partshapes-500.json": "500 steps, 3 seeds"}
PROTOCOLS = {"pred_all": ("Pred-All", "#3b6fb6"), "oracle_obj": ("Oracle-Obj", "#c9a13b")}


def plot() -> Image.Image:
    """Every table below the other, each sorted by Pred-All."""
    tables = {title: json.loads((RESULTS / name).read_text(encoding="utf-8")) for name, title in TITLES.items()}
    rows = [len(table) for table in tables.values()]
    figure = Figure(figsize=(9, 1.6 + 0.42 * sum(rows)), dpi=110, layout="constrained")
    axes = figure.subplots(len(tables), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        variants = sorted(table, key=lambda name: table[name]["pred_all harmonic iou"]["mean"])
        for offset, (protocol, (label, colour)) in zip((0.2, -0.2), PROTOCOLS.items(), strict=True):
            for row, variant in enumerate(variants):
                found = table[variant][f"{protocol} harmonic iou"]
                axis.barh(row + offset, found["mean"], 0.36, color=colour, alpha=0.45, label=label if not row else None)
                axis.plot(found["values"], [row + offset] * len(found["values"]), "o", color=colour, markersize=5)
        axis.margins(y=0.02)
        axis.set_yticks(range(len(variants)), variants)
        axis.set_title(title, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.3)
    axes[-1].set_xlabel("harmonic mIoU of seen and unseen, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(PROTOCOLS), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")
