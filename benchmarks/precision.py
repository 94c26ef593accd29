"""How far label maps of bfloat16 and int8 are from those of float32 on a CPU, and what they cost.

    python benchmarks/precision.py                  # the built-in model, 200 scenes of 256 pixels
    python benchmarks/precision.py --scenes 16      # to see that it runs

Prints JSON: the share of pixels with the label of float32, of all and of those on objects; the share with the right
label; processor milliseconds a scene, of one thread. Pred-All, pruned, with all words of the model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from statistics import median

import numpy as np
import torch

from measure import environment
from partclipseg.data.sample import PartSample
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.vocabulary import Vocabulary

BATCH = 8
NUMBER_TYPES = ("float32", "bfloat16", "int8")


def label_maps(segmenter: PartSegmenter, words: Vocabulary, samples: Sequence[PartSample]) -> list[np.ndarray]:
    found = []
    for start in range(0, len(samples), BATCH):
        photos = [sample.image for sample in samples[start : start + BATCH]]
        sizes = [(photo.shape[0], photo.shape[1]) for photo in photos]
        maps = segmenter.label_maps(segmenter.prepare(photos), words, sizes)
        found += [item.label_map.numpy() for item in maps]
    return found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model's directory; default: the built-in model")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="of measuring the time, on the first 32 scenes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = PartShapesDataset("test", options.scenes, 256)
    samples = list(dataset)
    truth = np.stack([sample.part_labels for sample in samples])
    segmenters = {name: PartSegmenter.from_pretrained(options.model, "cpu", name) for name in NUMBER_TYPES}
    maps = {name: np.stack(label_maps(s, dataset.vocabulary, samples)) for name, s in segmenters.items()}
    times: dict[str, list[float]] = {name: [] for name in segmenters}
    timed = samples[:32]
    for _ in range(options.rounds):
        for name, segmenter in segmenters.items():
            start = time.process_time()
            label_maps(segmenter, dataset.vocabulary, timed)
            times[name].append(1000 * (time.process_time() - start) / len(timed))
    report = {
        name: {
            "agreement": round(float((found == maps["float32"]).mean()), 5),
            "agreement on objects": round(float((found == maps["float32"])[truth >= 0].mean()), 5),
            "right": round(float((found == truth).mean()), 5),
            "milliseconds of one core": round(median(times[name]), 1),
        }
        for name, found in maps.items()
    }
    print(json.dumps({**environment("cpu"), "scenes": len(samples), **report}, indent=1))


if __name__ == "__main__":
    main()
