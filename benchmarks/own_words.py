"""Compare the words that may stand for an object in a model trained in reference mode (defect D1).

    python benchmarks/own_words.py "runs/evidence/runs/reference, seed 0/model" --output own-words.json

Such a model has learned to read each object's word at a wrong index, so that it is the word of some part. Four lookups
are compared on PartShapes' test scenes, with the same photos, words and weights:

- released: the wrong index in the vocabulary that is asked for;
- own: the object's own word;
- trained: the word that training read for objects that were trained, the object's own word for others;
- mixed: the word that training read for objects that were trained, the wrong index for others, which is the default.

Each is scored on the full vocabulary, and on small ones drawn for every scene: some of its objects, filled up with
random others to 1 to 5. Pixels of objects that a small vocabulary lacks do not count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from partclipseg.data.sample import objects_in
from partclipseg.evaluation.choices import Protocol
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.files import write_text
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.label_maps import oracle_obj, pred_all
from partclipseg.models.interface import PartOutput
from partclipseg.shapes.cache import render_split
from partclipseg.shapes.labels import LabelTable
from partclipseg.shapes.scene import Scene
from partclipseg.shapes.world import partshapes_world
from partclipseg.vocabulary import Vocabulary

WORLD = partshapes_world()
TRAINED = WORLD.seen_vocabulary

Lookup = Literal["released", "own", "trained", "mixed"]
LOOKUPS: tuple[Lookup, ...] = get_args(Lookup)
PROTOCOLS: tuple[Protocol, ...] = ("pred_all", "oracle_obj")
SIZES = (1, 2, 3, 4, 5)
"""Numbers of objects of the small vocabularies."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="directories of models that were trained in reference mode")
    parser.add_argument("--output", required=True, help="JSON file for the scores")
    parser.add_argument("--scenes", type=int, default=1000, help="test scenes for the full vocabulary")
    parser.add_argument("--small-scenes", type=int, default=400, help="test scenes for the small vocabularies")
    parser.add_argument("--directory", help="folder of rendered scenes, to use them again")
    parser.add_argument("--seed", type=int, default=0, help="seed of the small vocabularies")
    options = parser.parse_args()
    results = {}
    for model in options.models:
        results[model] = compare(model, options.scenes, options.small_scenes, options.directory, options.seed)
        write_text(Path(options.output), json.dumps(results, indent=1))
        for words, of_lookups in results[model]["scores"].items():
            print(words, {lookup: scores["pred_all"]["harmonic"] for lookup, scores in of_lookups.items()}, flush=True)


def compare(model: str, scenes: int, small_scenes: int, directory: str | None, seed: int) -> dict[str, Any]:
    """Scores of a model by vocabulary, lookup and protocol."""
    started = time.perf_counter()
    segmenter = PartSegmenter.from_pretrained(model)
    rendered = render_split("test", max(scenes, small_scenes), segmenter.model.image_shape[0], directory)

    def every(scene: int) -> Vocabulary:
        return WORLD.vocabulary

    evaluators = {"full": run(segmenter, rendered, scenes, every)}
    for size in SIZES:

        def small(scene: int, size: int = size) -> Vocabulary:
            return small_vocabulary(rendered[scene], size, seed, scene)

        evaluators[str(size)] = run(segmenter, rendered, small_scenes, small, f"{size}/")
    pooled = _evaluators()
    for size in SIZES:
        for lookup, of_protocols in evaluators[str(size)].items():
            for protocol, evaluator in of_protocols.items():
                pooled[lookup][protocol].merge(evaluator)
    evaluators["1 to 5"] = pooled
    return {
        "scenes": scenes,
        "small_scenes": small_scenes,
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "scores": {
            words: {
                lookup: {protocol: _figures(evaluator) for protocol, evaluator in of_protocols.items()}
                for lookup, of_protocols in of_lookups.items()
            }
            for words, of_lookups in evaluators.items()
        },
    }


def small_vocabulary(scene: Scene, size: int, seed: int, index: int) -> Vocabulary:
    """`size` objects with all their parts: as many of the scene's as fit, and random others."""
    generator = np.random.default_rng([seed, size, index])
    present = objects_in(scene.objects)
    absent = [item for item in range(len(WORLD.vocabulary.objects)) if item not in present]
    chosen = [*generator.permutation(present), *generator.permutation(absent)][:size]
    words = {WORLD.vocabulary.objects[item] for item in chosen}
    return Vocabulary(tuple(pair for pair in WORLD.vocabulary.object_parts if pair.object in words))


@torch.inference_mode()
def run(
    segmenter: PartSegmenter,
    scenes: Any,
    count: int,
    vocabulary_of: Callable[[int], Vocabulary],
    prefix: str = "",
) -> dict[Lookup, dict[Protocol, Evaluator]]:
    """Count the first `count` scenes, each asked for the words of its own vocabulary, under every lookup."""
    evaluators = _evaluators()
    index_of = {pair: index for index, pair in enumerate(WORLD.vocabulary.object_parts)}
    for index in range(count):
        scene, vocabulary = scenes[index], vocabulary_of(index)
        table = LabelTable(WORLD.vocabulary, vocabulary)
        present = [objects_in(table.objects(scene.objects))]
        owners, size = vocabulary.class_to_object, [scene.objects.shape]
        # Back to the world's classes; the last entry is read by background, -1.
        world = torch.tensor([*(index_of[pair] for pair in vocabulary.object_parts), -1], device=segmenter.device)
        labels = torch.from_numpy(table.parts(scene.parts)).to(segmenter.device)
        for lookup, output in outputs(segmenter, scene.image, vocabulary).items():
            maps = {"pred_all": pred_all(output, size, owners), "oracle_obj": oracle_obj(output, size, owners, present)}
            for protocol, evaluator in evaluators[lookup].items():
                predicted = world[maps[protocol][0].label_map]
                evaluator.update(predicted, world[labels.long()], key=f"{prefix}{scene.key}")
    return evaluators


def outputs(segmenter: PartSegmenter, photo: np.ndarray, vocabulary: Vocabulary) -> dict[Lookup, PartOutput]:
    """The logits of one photo, uint8 `[H, W, 3]`, under every lookup; only the class words differ."""
    model: Any = segmenter.model
    pixel_values, words = segmenter.prepare([photo])["pixel_values"], segmenter.words(vocabulary)
    conditions = torch.cat([words.embeddings.to(model.dtype), model.background])  # [N, D]
    num_parts, grid = len(vocabulary.parts), model.grid(pixel_values)
    features, _ = model.decoder.condition_features(model.encode_photo(pixel_values), conditions)
    word_logits = model.decoder.logits(features, grid)
    part_rows = torch.cat([words.class_to_part, words.class_to_part.new_tensor([len(conditions) - 1])])
    object_rows = torch.cat([words.class_to_object + num_parts, part_rows[-1:]])

    # The words that training read follow behind the conditions; nothing is decoded for them.
    known = [word for word in vocabulary.objects if word in TRAINED.objects]
    read = [TRAINED.parts[TRAINED.objects.index(word)] for word in known]
    table = torch.cat([conditions, segmenter.text_embeddings(read).to(model.dtype)]) if known else conditions
    row_of = {vocabulary.objects.index(word): len(conditions) + place for place, word in enumerate(known)}
    classes, last = vocabulary.class_to_object.tolist(), len(conditions) - 1
    rows: dict[Lookup, Tensor] = {
        "released": torch.cat([words.class_to_object, part_rows[-1:]]),
        "own": object_rows,
        "trained": object_rows.new_tensor([*(row_of.get(item, num_parts + item) for item in classes), last]),
        "mixed": object_rows.new_tensor([*(row_of.get(item, item) for item in classes), last]),
    }
    return {
        lookup: PartOutput(
            object_part_logits=model.decoder.class_logits(features, table, part_rows, object_rows, word_rows, grid),
            object_logits=word_logits[:, num_parts:],
            part_logits=word_logits[:, :num_parts],
        )
        for lookup, word_rows in rows.items()
    }


def _evaluators() -> dict[Lookup, dict[Protocol, Evaluator]]:
    return {
        lookup: {protocol: Evaluator(WORLD.vocabulary, WORLD.seen, protocol, None) for protocol in PROTOCOLS}
        for lookup in LOOKUPS
    }


def _figures(evaluator: Evaluator) -> dict[str, float | None]:
    """Mean IoU in percent, and of the harmonic mean the recall too; None where nothing is labelled."""
    scores = evaluator.compute().to_dict()
    return {
        **{group: scores[group]["iou"] for group in ("seen", "unseen", "harmonic")},
        "recall": scores["harmonic"]["recall"],
    }


if __name__ == "__main__":
    main()
