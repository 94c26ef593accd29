"""Measure what the least probability of a part changes when only some parts of an object are asked for.

    python benchmarks/part_threshold.py                          # the built-in model, and its towers as a plain CLIPSeg
    python benchmarks/part_threshold.py --model runs/x/model     # another model
    python benchmarks/part_threshold.py --scenes 4               # a few scenes, to see that it runs

Prints JSON. Scenes are of PartShapes' val split. Of each, an object with at least two visible parts is asked for alone:
by each of three of its visible parts ("one"), by each with one other ("two"), by all parts that it may have ("all").
The IoU of the asked parts that are visible is averaged over (scene, part), "mean", and taken of all pixels together,
"pooled"; percent. "right": the share of part pixels that get their own label when all parts of a scene's objects are
asked for at once.

For PartCLIPSeg the probability is `--min-part-probability`, for CLIPSeg without training `--threshold`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measure import environment
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.clipseg.plain import write_processor
from partclipseg.models.clipseg_weights import to_clipseg
from partclipseg.models.prompting import Prompting
from partclipseg.models.registry import built_in_model
from partclipseg.shapes.dataset import PartShapesDataset
from partclipseg.vocabulary import ObjectPart, Vocabulary

PROBABILITIES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def questions(dataset: PartShapesDataset, index: int, rng: np.random.Generator) -> Iterator[tuple[str, Vocabulary]]:
    """Return the number of parts and the words for one object of a scene with at least two visible parts."""
    labels, vocabulary = dataset[index].part_labels, dataset.vocabulary
    visible = np.unique(labels[labels >= 0])
    owners, numbers = np.unique(vocabulary.class_to_object[visible], return_counts=True)
    if not (numbers > 1).any():
        return
    number = rng.choice(owners[numbers > 1])
    members = visible[vocabulary.class_to_object[visible] == number]
    for part in rng.permutation(members)[:3]:
        other = rng.choice(members[members != part])
        yield "one", Vocabulary((vocabulary.object_parts[part],))
        yield "two", Vocabulary((vocabulary.object_parts[part], vocabulary.object_parts[other]))
    yield "all", parts_of(vocabulary, [number])


def parts_of(vocabulary: Vocabulary, objects: Sequence[int]) -> Vocabulary:
    """Return all parts of some objects."""
    return Vocabulary(
        tuple(p for p, o in zip(vocabulary.object_parts, vocabulary.class_to_object, strict=True) if o in objects)
    )


def look(segmenter: PartSegmenter, photo: np.ndarray, words: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The best part of each pixel and its probability, before any threshold."""
    [maps] = segmenter.label_maps(segmenter.prepare([photo]), words, [photo.shape[:2]])
    return maps.label_map.numpy(), maps.scores.numpy()


def counts(segmenter: PartSegmenter, dataset: PartShapesDataset) -> dict[str, dict[float, list[tuple[int, int]]]]:
    """Intersection and union of each asked and visible part, by how many are asked for and the probability."""
    classes = {pair: index for index, pair in enumerate(dataset.vocabulary.object_parts)}
    found: dict[str, dict[float, list[tuple[int, int]]]] = {
        name: {p: [] for p in PROBABILITIES} for name in ("one", "two", "all")
    }
    rng = np.random.default_rng(0)
    for index in range(len(dataset)):
        sample = dataset[index]
        for name, words in questions(dataset, index, rng):
            labels, scores = look(segmenter, sample.image, words)
            for number, pair in enumerate(words.object_parts[:1] if name == "two" else words.object_parts):
                truth = sample.part_labels == classes[ObjectPart(*pair)]
                if not truth.any():
                    continue
                for p in PROBABILITIES:
                    mask = (labels == number) & (scores >= p)
                    found[name][p].append((int((mask & truth).sum()), int((mask | truth).sum())))
    return found


def summary(pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    inner, outer = np.array(pairs).T
    return {
        "mean": round(100 * float((inner / outer).mean()), 1),
        "pooled": round(100 * float(inner.sum() / outer.sum()), 1),
        "parts": len(pairs),
    }


def right(segmenter: PartSegmenter, dataset: PartShapesDataset, probability: float) -> float:
    """Percent of the part pixels of the scenes that get their label, all parts of a scene's objects asked for."""
    hits = total = 0
    for index in range(len(dataset)):
        sample = dataset[index]
        is_part = sample.part_labels >= 0
        if not is_part.any():
            continue
        owners = dataset.vocabulary.class_to_object[np.unique(sample.part_labels[is_part])]
        words = parts_of(dataset.vocabulary, owners.tolist())
        labels, scores = look(segmenter, sample.image, words)
        place = [dataset.vocabulary.object_parts.index(pair) for pair in words.object_parts]
        labels = np.append(place, -1)[np.where(scores >= probability, labels, -1)]
        hits += int((labels == sample.part_labels)[is_part].sum())
        total += int(is_part.sum())
    return round(100 * hits / total, 1)


def save_plain(segmenter: PartSegmenter, directory: Path) -> None:
    """Write the towers and the decoder of a model as a plain CLIPSeg."""
    model: Any = segmenter.model
    to_clipseg(model).save_pretrained(directory)
    segmenter.tokenizer.save_pretrained(directory)
    write_processor(directory, model.config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="a model on CLIPSeg's towers; the built-in one by default")
    parser.add_argument("--scenes", type=int, default=48, help="scenes of the tables of asked parts")
    parser.add_argument("--right-scenes", type=int, default=28, help="scenes of the share of pixels that are right")
    parser.add_argument("--size", type=int, default=128, help="side of the scenes, in pixels")
    arguments = parser.parse_args()

    torch.set_num_threads(2)
    segmenter = PartSegmenter.from_pretrained(arguments.model, device="cpu", dtype="float32")
    dataset = PartShapesDataset("val", arguments.scenes, size=arguments.size)
    few = PartShapesDataset("val", arguments.right_scenes, size=arguments.size)
    with tempfile.TemporaryDirectory() as folder:
        save_plain(segmenter, Path(folder))
        subjects = {type(segmenter.model).__name__: segmenter}
        for prompt in ("{object} {part}", "{part}"):
            for gate in (True, False):
                asked = Prompting((prompt,), threshold=0.0, object_gate=gate)
                name = f"CLIPSeg {prompt}{'' if gate else ', no object gate'}"
                subjects[name] = PartSegmenter.from_pretrained(folder, "cpu", "float32", prompting=asked)
    print(
        json.dumps(
            {
                "environment": environment("cpu"),
                "model": arguments.model or built_in_model().rpartition("/")[2],
                "scenes": arguments.scenes,
                "asked": {
                    name: {
                        asked: {f"{p:g}": summary(pairs) for p, pairs in table.items()}
                        for asked, table in counts(subject, dataset).items()
                    }
                    for name, subject in subjects.items()
                    if "no object gate" not in name  # with one object there is nothing to decide
                },
                "right": {
                    name: {f"{p:g}": right(subject, few, p) for p in (0.0, 0.3, 0.5)}
                    for name, subject in subjects.items()
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
