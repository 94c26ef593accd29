"""Measure how much of a part a model finds when its word is asked without an object, object by object.

    python benchmarks/words_without_object.py                              # the built-in model and `handle`
    python benchmarks/words_without_object.py --word wheel --scenes 100
    python benchmarks/words_without_object.py --every-word --scenes 140    # each part word, asked alone

Prints JSON. Scenes are of PartShapes' test split, which show all objects evenly. For each object with the part, over
all its pixels together: "painted", percent of the part's pixels that the word takes; "probability", the mean of the
word's probability there, percent; "named", percent that get their label when all parts of the object are asked for
by name. "right" is the share of all painted pixels that are such a part, in the scenes that show one.

With --every-word, percent over all pixels of a word together, then the mean over the words: precision, recall and IoU
of "word", each part word asked alone, and of "named", the world's whole vocabulary asked at once and its labels grouped
by their part words. "taught" is the recall on objects whose parts were labelled in training, "untaught" on the others.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch

from measure import environment
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.upsample import upsample
from partclipseg.models.registry import built_in_model
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import Vocabulary

LEAST_AREA = 8
"""Pixels of a part below which a scene is passed over."""

COUNTS = ("right", "painted", "pixels", "right untaught", "pixels untaught")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="a model; the built-in one by default")
    parser.add_argument("--word", default="handle", help="a part word of PartShapes")
    parser.add_argument("--every-word", action="store_true", help="measure every part word of PartShapes")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--size", type=int, default=128, help="side of the scenes, in pixels")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    parts = partshapes_world().vocabulary.parts
    if arguments.word not in parts:
        parser.error(f"{arguments.word} is no part of PartShapes: choose one of {', '.join(parts)}")
    segmenter = PartSegmenter.from_pretrained(arguments.model, device="cpu", dtype="float32")
    dataset = PartShapesDataset("test", arguments.scenes, size=arguments.size)
    content = {
        "environment": environment("cpu"),
        "model": arguments.model or built_in_model().rpartition("/")[2],
        "scenes": arguments.scenes,
        **(every_word(segmenter, dataset) if arguments.every_word else one_word(segmenter, dataset, arguments.word)),
    }
    print(json.dumps(content, indent=1))


def one_word(segmenter: PartSegmenter, dataset: PartShapesDataset, word: str) -> dict[str, Any]:
    """Measure a part word on each object that has the part."""
    world = partshapes_world()
    vocabulary, unseen = world.vocabulary, world.unseen_objects
    classes = {pair.object: i for i, pair in enumerate(vocabulary.object_parts) if pair.part == word}
    counts = {name: np.zeros(4) for name in classes}  # pixels, painted, sum of probabilities, named
    scenes = dict.fromkeys(classes, 0)
    painted = right = 0
    for index in range(len(dataset)):
        sample = dataset[index]
        places = {name: sample.part_labels == number for name, number in classes.items()}
        places = {name: place for name, place in places.items() if place.sum() >= LEAST_AREA}
        if not places:
            continue
        result = segmenter(sample.image, word)
        found, probability = result.label_map == 0, result.probability(word)
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
    return {"word": word, "right": round(100 * right / painted, 1) if painted else None, "objects": table}


@torch.inference_mode()
def every_word(segmenter: PartSegmenter, dataset: PartShapesDataset) -> dict[str, Any]:
    """Measure each part word asked alone, and the same words read off the labels of the whole vocabulary."""
    world = partshapes_world()
    vocabulary = world.vocabulary
    part_of = np.append(vocabulary.class_to_part, -1)  # label -1 reads the last entry
    untaught = np.array([pair.object in world.unseen_objects for pair in vocabulary.object_parts] + [False])
    least = segmenter.least_part_probability(None, False)
    counts = {way: np.zeros((len(vocabulary.parts), len(COUNTS))) for way in ("word", "named")}
    embeddings = segmenter.text_embeddings(segmenter.model.word_prompts(vocabulary.parts))
    for index in range(len(dataset)):
        sample = dataset[index]
        size = sample.part_labels.shape
        logits = upsample(segmenter.model.part_word_logits(segmenter.prepare([sample.image]), embeddings)[0], size)
        probability = logits.sigmoid().numpy()  # background last
        labels = part_of[segmenter(sample.image, vocabulary).label_map]
        truth, strange = part_of[sample.part_labels], untaught[sample.part_labels]
        for part in range(len(vocabulary.parts)):
            place = truth == part
            alone = (probability[part] >= least) & (probability[part] > probability[-1])
            for way, found in (("word", alone), ("named", labels == part)):
                areas = found & place, found, place, found & place & strange, place & strange
                counts[way][part] += [area.sum() for area in areas]
    return {way: _means(table[table[:, COUNTS.index("pixels")] > 0]) for way, table in counts.items()}


def _means(table: np.ndarray) -> dict[str, float]:
    """Return the means over words, percent, of a table `[W, 5]` of `COUNTS`."""
    right, painted, pixels, strange, strange_pixels = table.T
    shares = {
        "precision": (right, painted),
        "recall": (right, pixels),
        "IoU": (right, painted + pixels - right),
        "taught": (right - strange, pixels - strange_pixels),
        "untaught": (strange, strange_pixels),
    }
    # A word that is never painted, or never shown, has no such share; without a painted pixel its precision is 0.
    means = {
        name: np.mean(np.where(whole > 0, part / np.maximum(whole, 1), 0)[(whole > 0) | (name == "precision")])
        for name, (part, whole) in shares.items()
    }
    return {"words": len(table), **{name: round(100 * float(value), 1) for name, value in means.items()}}


if __name__ == "__main__":
    main()
