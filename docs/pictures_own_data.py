"""The plot of docs/tutorial-own-data.md: how a run learnt, and what each part scored before and after it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

BLUE, GOLD, GREY = "#3b6fb6", "#c9a13b", "#9aa0a8"


def plot(run: Path, before: Path, after: Path) -> Image.Image:
    """`run` is the output folder of `partclipseg train`, `before` and `after` are those of `partclipseg evaluate`."""
    figure = Figure(figsize=(13.5, 3.6), dpi=110, layout="constrained")
    loss, curve, parts = figure.subplots(1, 3)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    _draw_loss(loss, [line for line in lines if "losses" in line])
    _draw_curve(curve, [line for line in lines if "held_out" in line])
    reports = [json.loads((folder / "scores.json").read_text(encoding="utf-8")) for folder in (before, after)]
    _draw_parts(parts, *reports)
    for axis in (loss, curve, parts):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x" if axis is parts else "both", alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _draw_loss(axis: Axes, lines: Sequence[dict]) -> None:
    axis.plot([line["step"] for line in lines], [line["losses"]["total"] for line in lines], color=GREY)
    axis.set(title="Loss", xlabel="step", xlim=(0, None), ylim=(0, None))


def _draw_curve(axis: Axes, lines: Sequence[dict]) -> None:
    steps = [line["step"] for line in lines]
    for name, label, colour in (("oracle_obj", "Oracle-Obj", GOLD), ("pred_all", "Pred-All", BLUE)):
        axis.plot(steps, [line["held_out"][name] for line in lines], "o-", color=colour, label=label)
    axis.set(title="Held-out photos, mIoU in %", xlabel="step", xlim=(0, None), ylim=(0, None))
    axis.legend(loc="lower right", frameon=False)


def _draw_parts(axis: Axes, before: dict, after: dict) -> None:
    """Oracle-Obj IoU of each part, the best at the end on top."""
    scores = [
        {part["name"].partition("'s ")[2]: part["iou"] for part in report["scores"]["oracle_obj"]["classes"]}
        for report in (before, after)
    ]
    names = sorted(scores[1], key=lambda name: scores[1][name])
    for offset, values, label, colour in ((0.2, scores[1], "after", BLUE), (-0.2, scores[0], "before", GREY)):
        rows = [row + offset for row in range(len(names))]
        axis.barh(rows, [values[name] for name in names], 0.4, color=colour, label=label)
    axis.set_yticks(range(len(names)), names)
    axis.set(title="Test photos, IoU of each part in % (Oracle-Obj)")
    axis.legend(loc="lower right", frameon=False)
