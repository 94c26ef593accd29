"""The plot of docs/results.md: harmonic mIoU of every variant, a dot for each seed, a bar for their mean."""

from __future__ import annotations

import io
import json
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

RESULTS = Path(__file__).parent / "results"
TITLES = {"partshapes-600.json": "600 steps, 2 seeds"}
PROTOCOLS = {"pred_all": ("Pred-All", "#3b6fb6"), "oracle_obj": ("Oracle-Obj", "#c9a13b")}


def plot() -> Image.Image:
    """Every table side by side, each sorted by Pred-All."""
    tables = {title: json.loads((RESULTS / name).read_text(encoding="utf-8")) for name, title in TITLES.items()}
    figure = Figure(figsize=(8 * len(TITLES), 4.2), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(tables), sharex=True, squeeze=False)[0]
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        variants = sorted(table, key=lambda name: table[name]["pred_all harmonic iou"]["mean"])
        for offset, (protocol, (label, colour)) in zip((0.2, -0.2), PROTOCOLS.items(), strict=True):
            for row, variant in enumerate(variants):
                found = table[variant][f"{protocol} harmonic iou"]
                axis.barh(row + offset, found["mean"], 0.36, color=colour, alpha=0.45, label=label if not row else None)
                axis.plot(found["values"], [row + offset] * len(found["values"]), "o", color=colour, markersize=5)
        axis.set_yticks(range(len(variants)), variants)
        axis.set_title(title, loc="left")
        axis.set_xlabel("harmonic mIoU of seen and unseen, %")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(PROTOCOLS), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")
