"""Measure how much of a part a model finds when its word is asked without an object, object by object.

    python benchmarks/words_without_object.py                              # the built-in model and `handle`
    python benchmarks/words_without_object.py --word wheel --scenes 100

Prints JSON. Scenes are of PartShapes' test split, which show all objects evenly. For each object with the part, over
all its pixels together: "painted", percent of the part's pixels that the word takes; "probability", the mean of the
word's probability there, percent; "named", percent that get their label when all parts of the object are asked for
by name. "right" is the share of all painted pixels that are such a part.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

from measure import environment
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.registry import built_in_model
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import Vocabulary

LEAST_AREA = 8
"""Pixels of a part below which a scene is passed over."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="a model; the built-in one by default")
    parser.add_argument("--word", default="handle", help="a part word of PartShapes")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--size", type=int, default=128, help="side of the scenes, in pixels")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    world = partshapes_world()
    vocabulary, unseen = world.vocabulary, world.unseen_objects
    classes = {pair.object: i for i, pair in enumerate(vocabulary.object_parts) if pair.part == arguments.word}
    if not classes:
        parser.error(f"{arguments.word} is no part of PartShapes: choose one of {', '.join(vocabulary.parts)}")
    segmenter = PartSegmenter.from_pretrained(arguments.model, device="cpu", dtype="float32")
    dataset = PartShapesDataset("test", arguments.scenes, size=arguments.size)
    counts = {name: np.zeros(4) for name in classes}  # pixels, painted, sum of probabilities, named
    scenes = dict.fromkeys(classes, 0)
    painted = right = 0
    for index in range(len(dataset)):
        sample = dataset[index]
        places = {name: sample.part_labels == number for name, number in classes.items()}
        places = {name: place for name, place in places.items() if place.sum() >= LEAST_AREA}
        if not places:
            continue
        result = segmenter(sample.image, arguments.word)
        found, probability = result.label_map == 0, result.probability(arguments.word)
        painted += int(found.sum())
        right += int((found & np.isin(sample.part_labels, list(classes.values()))).sum())
        for name, place in places.items():
            named = Vocabulary(tuple(pair for pair in vocabulary.object_parts if pair.object == name))
            labels = segmenter(sample.image, named).label_map
            hits = labels == named.object_parts.index(vocabulary.object_parts[classes[name]])
            counts[name] += place.sum(), found[place].sum(), probability[place].sum(), hits[place].sum()
            scenes[name] += 1
    table = {
        name: {
            "seen in training": name not in unseen,
            "scenes": scenes[name],
            "pixels": int(total),
            **{
                key: round(100 * float(value / total), 1)
                for key, value in zip(("painted", "probability", "named"), values, strict=True)
            },
        }
        for name, (total, *values) in counts.items()
        if scenes[name]
    }
    content = {
        "environment": environment("cpu"),
        "model": arguments.model or built_in_model().rpartition("/")[2],
        "word": arguments.word,
        "scenes": arguments.scenes,
        "right": round(100 * right / painted, 1) if painted else None,
        "objects": table,
    }
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
