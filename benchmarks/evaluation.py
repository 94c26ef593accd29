"""How long does scoring take, a photo, beside a plain NumPy implementation?

    python benchmarks/evaluation.py                       # CPU, about a minute
    python benchmarks/evaluation.py --device cuda --dtype bfloat16

Prints JSON: milliseconds a photo (median over rounds) for each boundary form, with ours and NumPy's counts compared.
Beside them stands the model, from photos of 375x500 to label maps: a PartCLIPSeg of the released size with random
weights (8 photos together on a GPU, one on a CPU). The scored maps are drawn at random, as regions of the size of
Pascal's parts. NumPy scores each class's mask on its own, with repeated 3×3 erosions, as the definitions are written.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from partclipseg.evaluation.boundary import boundary_width
from partclipseg.evaluation.choices import BoundaryKind
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary

SIZES = {"375x500": (375, 500), "1024x1360": (1024, 1360)}
BOUNDARIES: tuple[BoundaryKind | None, ...] = (None, "per_class", "reference")


def random_maps(size: tuple[int, int], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a label map, int32 `[H, W]`: 40 regions of 12 classes, half of the photo without label."""
    rows, columns = np.indices(size)
    nearest, best = np.zeros(size, np.int32), np.full(size, np.inf)
    for region in range(40):
        y, x = generator.uniform(0, size[0]), generator.uniform(0, size[1])
        distance = (rows - y) ** 2 + (columns - x) ** 2
        closer = distance < best
        nearest[closer], best[closer] = region, distance[closer]
    classes = generator.integers(0, 12, 40, dtype=np.int32)
    labels = np.where(columns < size[1] // 2, -1, classes[nearest]).astype(np.int32)
    wrong = np.where(generator.random(40) < 0.3, (classes + 1) % 12, classes)
    return np.roll(wrong[nearest], (3, 5), (0, 1)).astype(np.int32), labels


def eroded(values: np.ndarray, times: int) -> np.ndarray:
    """`times` erosions with a 3×3 square, 0 outside."""
    for _ in range(times):
        padded = np.pad(values, 1)
        across = np.minimum(np.minimum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
        values = np.minimum(np.minimum(across[:-2], across[1:-1]), across[2:])
    return values


def numpy_counts(prediction: np.ndarray, labels: np.ndarray, k: int, boundary: BoundaryKind | None) -> list[np.ndarray]:
    """Confusion matrix, and true positives, labels and predictions of the boundaries of each class."""
    prediction, labels = np.where(labels < 0, k, prediction), np.where(labels < 0, k, labels)
    counts = [np.bincount((prediction * (k + 1) + labels).ravel(), minlength=(k + 1) ** 2)]
    width = boundary_width(*labels.shape)
    if boundary == "reference":
        near = [m - eroded(m, width) for m in (prediction, labels)]
        counts.append(np.bincount((near[0] * (k + 1) + near[1]).ravel(), minlength=(k + 1) ** 2))
    elif boundary == "per_class":
        table = np.zeros((3, k), np.int64)
        for index in np.union1d(prediction, labels):
            if index < k:
                masks = [(m == index).astype(np.uint8) for m in (prediction, labels)]
                near = [mask - eroded(mask, width) for mask in masks]
                table[:, index] = (near[0] & near[1]).sum(), near[1].sum(), near[0].sum()
        counts.append(table)
    return counts


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(times), 2)


@torch.inference_mode()
def model_milliseconds(device: str, dtype: torch.dtype, classes: int, rounds: int) -> float:
    """Label maps of Pred-All as `evaluate` computes them, a photo."""
    config = PartCLIPSegConfig.from_reference()
    with torch.device(device):
        model = PartCLIPSegModel(config).eval().type(dtype)
    # Pascal-Part-116 has 42 part words and 16 objects.
    vocabulary = Vocabulary.from_names([(f"object {i % 16}", f"part {i % 42}") for i in range(classes)])
    photos = 8 if device.startswith("cuda") else 1
    inputs = {"pixel_values": torch.randn(photos, 3, *config.image_shape, device=device, dtype=dtype)}
    prompts = len(model.prompts(vocabulary))
    words = Words.of(vocabulary, torch.randn(prompts, config.projection_dim, device=device, dtype=dtype))

    def predict() -> None:
        maps = model.label_maps(inputs, words, [SIZES["375x500"]] * photos)
        maps[-1].label_map.cpu()  # waits for the device

    predict()
    return round(milliseconds(predict, max(1, rounds // 3)) / photos, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--classes", type=int, default=116)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--dtype", default="float32", help="of the model")
    options = parser.parse_args()
    vocabulary = Vocabulary.from_dict({"thing": [f"part {index}" for index in range(options.classes)]})
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.processor()
    result: dict[str, object] = {"device": f"{options.device} {name}".strip(), "threads": torch.get_num_threads()}
    for title, size in SIZES.items():
        prediction, labels = random_maps(size, np.random.default_rng(0))
        on_device = torch.from_numpy(prediction).to(options.device)
        for boundary in BOUNDARIES:
            evaluator = Evaluator(vocabulary, boundary=boundary)
            evaluator.update(on_device, labels, key="warm up")
            theirs = numpy_counts(prediction, labels, options.classes, boundary)
            assert np.array_equal(evaluator.regions.total.ravel(), theirs[0])
            total = evaluator.boundaries.total
            if boundary == "reference":
                assert np.array_equal(total.ravel(), theirs[1])
            elif boundary == "per_class":
                ours = np.stack([total.diagonal(), total.sum(axis=0), total.sum(axis=1)])[:, :-1]
                assert np.array_equal(ours, theirs[1])
            result[f"{title} boundary {boundary}"] = {
                "ours_ms": milliseconds(partial(evaluator.update, on_device, labels), options.rounds),
                "numpy_ms": milliseconds(
                    partial(numpy_counts, prediction, labels, options.classes, boundary), max(1, options.rounds // 3)
                ),
            }
    result["model, 375x500"] = {
        "dtype": options.dtype,
        "ms": model_milliseconds(options.device, getattr(torch, options.dtype), options.classes, options.rounds),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
