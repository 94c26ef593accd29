"""How many training samples a second does the loader deliver?

    python benchmarks/loader.py                              # about a minute; skips what is not on disk
    python benchmarks/loader.py --data PATH --seconds 20     # PATH holds PascalPart116, ADE20KPart234, car_parts

Prints JSON: samples a second for each layout, augmentation and number of workers, at the models' 352 pixels.
`plain` is the published recipe on Pascal-Part-116 written down directly with Pillow and torch, in one process,
without checks; `ratio_to_plain` compares the processor time of a sample, plain over ours, so that other load on the
machine does not count (above 1: ours is faster).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from partclipseg.data.augment import Augmentation
from partclipseg.data.datasets import open_dataset
from partclipseg.data.loader import build_loader

SIZE, BATCH = 352, 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYOUTS = {
    "pascal-part-116": ("PascalPart116", {}),
    "ade20k-part-234": ("ADE20KPart234", {}),
    "coco": ("car_parts", {"object": "car"}),
}
AUGMENTATIONS = {"published": Augmentation.published(), "default": Augmentation()}


def measure(step: Callable[[], object], seconds: float) -> dict[str, float]:
    """Of `step`, which makes `BATCH` samples; the first steps start workers and warm the disk."""
    for _ in range(3):
        step()
    start, processor, steps = time.perf_counter(), time.process_time(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        step()
        steps += 1
    processor = time.process_time() - processor
    return {
        "samples_per_second": round(steps * BATCH / elapsed, 1),
        "processor_ms_per_sample": round(1000 * processor / (steps * BATCH), 1),
    }


def loader_rates(name: str, root: Path, options: dict, seconds: float) -> dict[str, dict[str, float]]:
    """For every augmentation and number of workers; the processor time is that of the main process alone."""
    dataset = open_dataset(name, root, "train", **options)
    rates = {}
    for title, augmentation in AUGMENTATIONS.items():
        for workers in (0, 1, 2):
            batches = build_loader(
                dataset,
                batch_size=BATCH,
                augmentation=augmentation,
                seed=0,
                image_size=SIZE,
                workers=workers,
            )
            rates[f"{title}, {workers} workers"] = measure(lambda batches=batches: next(batches), seconds)
            batches.close()
    return rates


def plain_rate(root: Path, seconds: float) -> dict[str, float]:
    """The published recipe on Pascal-Part-116, written down directly."""
    keys = sorted(path.stem for path in (root / "images/train").glob("*.jpg"))
    generator = np.random.default_rng(0)

    def resized(image: Image.Image, flip: bool, method: Image.Resampling) -> Image.Image:
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        scale = min(800 / min(image.size), 1333 / max(image.size))
        image = image.resize((round(image.width * scale), round(image.height * scale)), method)
        return image.resize((SIZE, SIZE), method)

    def sample() -> tuple[torch.Tensor, ...]:
        key, flip = keys[generator.integers(len(keys))], generator.random() < 0.5
        photo = Image.open(root / f"images/train/{key}.jpg").convert("RGB")
        pixels = torch.from_numpy(np.array(resized(photo, flip, Image.Resampling.BILINEAR))).permute(2, 0, 1)
        pixels = (pixels.float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        maps = []
        for folder in ("annotations_detectron2_part", "annotations_detectron2_obj"):
            labels = Image.open(root / folder / f"train/{key}.png")
            maps.append(torch.from_numpy(np.array(resized(labels, flip, Image.Resampling.NEAREST))).long())
        return pixels, *maps

    def step() -> list[torch.Tensor]:
        return [torch.stack(tensors) for tensors in zip(*(sample() for _ in range(BATCH)), strict=True)]

    return measure(step, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared/data")
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as in a worker
    report: dict = {"processors": os.cpu_count(), "batch": BATCH, "image_size": SIZE, "layouts": {}}
    for name, (folder, options) in LAYOUTS.items():
        root = arguments.data / folder
        if not root.is_dir():
            report["layouts"][name] = f"skipped: {root} is not there"
            continue
        report["layouts"][name] = loader_rates(name, root, options, arguments.seconds)
        if name == "pascal-part-116":
            plain = plain_rate(root, arguments.seconds)
            ours = report["layouts"][name]["published, 0 workers"]
            ratio = plain["processor_ms_per_sample"] / ours["processor_ms_per_sample"]
            report |= {"plain": plain, "ratio_to_plain": round(ratio, 2)}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
