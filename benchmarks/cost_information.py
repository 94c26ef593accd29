"""Measure what PartCATSeg's towers know on PartShapes before its aggregation is trained.

    partclipseg train partshapes-backbone --output runs/backbone
    partclipseg train partshapes-guidance --output runs/guidance
    python benchmarks/cost_information.py --backbone runs/backbone/model --guidance runs/guidance/model
    python benchmarks/cost_information.py --backbone … --guidance … --scenes 4      # to see that it runs

Prints JSON with five tables, of scenes of the test split:

- objects: how often the object word with the greatest cost at an object's patch is the right one (`right`, of 56), and
  how often a patch on an object has a greater cost for its word than one off it (`above`). CLIP's last block stands
  without attention, as PartCATSeg takes it, and with it, as the backbone trains it; beside them the CLIPSeg decoder of
  the same backbone.
- part words: how often a patch on a part has a greater cost for the part's word than another patch of the object
  (`above`), for objects whose parts are labelled in training and for others, whose words are (`above, unseen`); and the
  mean cosine of two part words (`alike`).
- parts: the share of patches whose part word a linear probe tells, and its mean over the words. It is trained on four
  fifths of the scenes and tested on the rest.
- variance: which share of the variance of the guidance features lies between scenes (`scene`) and between places
  (`place`); the rest tells the patches of a scene apart.
- grids: the mIoU of true labels after a detour over maps of fewer places, and the share of visible parts smaller than
  one of their cells.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from measure import environment
from partclipseg.evaluation.evaluator import Evaluator
from partclipseg.models.clip_dense import block_inputs, last_block
from partclipseg.models.clipseg.model import CLIPSegBaseline
from partclipseg.models.clipseg.settings import CLIPSegSettings
from partclipseg.models.partcatseg.model import PartCATSegModel
from partclipseg.models.partcatseg.settings import PartCATSegSettings
from partclipseg.models.registry import load_tokenizer
from partclipseg.shapes.dataset import PartShapesDataset

AT_ONCE = 8
"""Scenes in a pass."""

PATCH = 8

CLIP = ("CLIP without attention", "CLIP with attention")
"""Features that are compared with words."""


def main() -> None:
    options = _parse()
    dataset = PartShapesDataset("test", options.scenes, 128)
    torch.manual_seed(0)
    settings = PartCATSegSettings(guidance=options.guidance, sizes="tiny")
    model = PartCATSegModel.from_start(options.backbone, settings)
    with torch.inference_mode():
        features = patch_features(model, dataset)
        found: dict[str, Any] = {
            "scenes": options.scenes,
            "objects": objects_table(options.backbone, model, dataset, features),
            "part words": part_words_table(options.backbone, model, dataset, features),
            "variance": variance(features["guidance"]),
            "grids": grids(dataset),
        }
    found["parts"] = parts_table(dataset, features)
    result = json.dumps({**found, "environment": environment("cpu")}, indent=1)
    print(result)
    if options.output:
        Path(options.output).write_text(result + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="directory of the backbone's model")
    parser.add_argument("--guidance", required=True, help="directory of the guidance tower")
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--output", help="JSON file for the result")
    return parser.parse_args()


def at_patches(labels: np.ndarray | Tensor) -> Tensor:
    """Take labels `[..., H, W]` at the centres of the patches: int64 `[..., N]`."""
    return torch.as_tensor(np.asarray(labels)).long()[..., PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].flatten(-2)


def patch_features(model: PartCATSegModel, dataset: PartShapesDataset) -> dict[str, Tensor]:
    """Compute the features `[scenes, N, D]` of every patch by the towers, and its raw pixels."""
    kept: dict[str, list[Tensor]] = {}
    clip, guidance = model.clip, model.guidance
    for first in range(0, len(dataset), AT_ONCE):
        scenes = [dataset[index].image for index in range(first, min(first + AT_ONCE, len(dataset)))]
        inputs = model.prepare(scenes)
        pixels = inputs["pixel_values"]
        last = list(block_inputs(clip, pixels))[-1]
        width = pixels.shape[-1]
        of_scenes = {
            "CLIP without attention": last_block(clip, last, width).flatten(2).mT,
            "CLIP with attention": last_block(clip, last, width, attention=True).flatten(2).mT,
            "guidance": guidance.patch_features(inputs["guidance_pixels"]).flatten(2).mT,  # pyright: ignore
            "raw pixels": F.pixel_unshuffle(pixels, PATCH).flatten(2).mT,
        }
        for name, values in of_scenes.items():
            kept.setdefault(name, []).append(values.float())
    return {name: torch.cat(values) for name, values in kept.items()}


def objects_table(
    backbone: str, model: PartCATSegModel, dataset: PartShapesDataset, features: dict[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Compare patches with the object words, by cosines and by the backbone's decoder."""
    words, tokenizer = list(dataset.vocabulary.objects), load_tokenizer(backbone)
    labels = at_patches(np.stack([sample.object_labels for sample in dataset]))  # [scenes, N]
    texts = encoded(backbone, model, words)
    table = {name: agreement(F.normalize(features[name], dim=-1) @ texts.T, labels) for name in CLIP}
    decoder: Any = CLIPSegBaseline.from_start(backbone, CLIPSegSettings())
    tokens = tokenizer(words, padding="longest", return_tensors="pt")
    conditions = decoder.encode_text(tokens["input_ids"], tokens["attention_mask"])[None]
    scores = []
    for sample in dataset:  # one by one: all words of one scene take half a gigabyte
        pixels = decoder.prepare([sample.image])["pixel_values"]
        rows, _ = decoder.decoder.condition_features(decoder.encode_photo(pixels), conditions)
        logits = decoder.decoder.logits(rows, decoder.grid(pixels))
        scores.append(F.adaptive_avg_pool2d(logits, sample.image.shape[0] // PATCH).flatten(2).mT[0])
    return {**table, "CLIPSeg decoder": agreement(torch.stack(scores), labels)}


def part_words_table(
    backbone: str, model: PartCATSegModel, dataset: PartShapesDataset, features: dict[str, Tensor]
) -> dict[str, Any]:
    """Compare patches with the part words by cosines, among the patches of the part's own object."""
    texts = encoded(backbone, model, list(dataset.vocabulary.parts))
    objects, parts = object_and_part_words(dataset)
    trained = seen_words(dataset)
    above: dict[str, dict[str, list[Tensor]]] = {name: {"above": [], "above, unseen": []} for name in CLIP}
    for index, (of_objects, of_parts) in enumerate(zip(objects, parts, strict=True)):
        scores = {name: F.normalize(features[name][index], dim=-1) @ texts.T for name in CLIP}
        on = of_parts >= 0
        for object, word in torch.stack([of_objects, of_parts])[:, on].unique(dim=1).T.tolist():
            whole = on & (of_objects == object)
            own, other = whole & (of_parts == word), whole & (of_parts != word)
            seen = trained[object, word]
            if not other.any() or not (seen or trained[:, word].any()):
                continue
            for name, values in scores.items():
                shares = (values[own, word][:, None] > values[other, word]).float().mean()
                above[name]["above" if seen else "above, unseen"].append(shares)
    alike = (texts @ texts.T)[~torch.eye(len(texts), dtype=torch.bool)].mean()
    table = {
        name: {kind: round(float(torch.stack(values).mean()), 3) for kind, values in kinds.items() if values}
        for name, kinds in above.items()
    }
    return {**table, "alike": round(float(alike), 3)}


def seen_words(dataset: PartShapesDataset) -> Tensor:
    """Return whether each object-part is labelled in training, bool `[objects, part words]`."""
    vocabulary, seen = dataset.vocabulary, list(dataset.seen)
    trained = torch.zeros(len(vocabulary.objects), len(vocabulary.parts), dtype=torch.bool)
    trained[np.asarray(vocabulary.class_to_object)[seen], np.asarray(vocabulary.class_to_part)[seen]] = True
    return trained


def encoded(backbone: str, model: PartCATSegModel, words: list[str]) -> Tensor:
    """Return a unit vector of each word, the mean over the templates: `[words, D]`."""
    tokens = load_tokenizer(backbone)(model.word_prompts(words), padding="longest", return_tensors="pt")
    texts = model.encode_text(tokens["input_ids"], tokens["attention_mask"]).unflatten(0, (len(words), -1))
    return F.normalize(texts.mean(1), dim=-1)


def object_and_part_words(dataset: PartShapesDataset) -> tuple[Tensor, Tensor]:
    """Return the object and the part word at the patches, int64 `[scenes, N]` each, -1 for none."""
    objects = at_patches(np.stack([sample.object_labels for sample in dataset]))
    labels = at_patches(np.stack([sample.part_labels for sample in dataset]))
    part_of = torch.from_numpy(np.asarray(dataset.vocabulary.class_to_part)).long()
    return objects, torch.where(labels >= 0, part_of[labels.clamp(min=0)], -1)


def agreement(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Score `[scenes, N, O]` against labels `[scenes, N]`, of which negative ones lie on no object."""
    on = labels >= 0
    above = []
    for of_scene, own in zip(scores, labels, strict=True):
        for word in own[own >= 0].unique():
            inside, outside = of_scene[own == word, word], of_scene[own != word, word]
            above.append((inside[:, None] > outside).float().mean())
    right = (scores.argmax(-1) == labels)[on].float().mean()
    return {"right": round(float(right), 3), "above": round(float(torch.stack(above).mean()), 3)}


def parts_table(dataset: PartShapesDataset, features: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Probe all features for the part words."""
    _, parts = object_and_part_words(dataset)
    trained = torch.arange(len(parts)) < max(1, len(parts) * 4 // 5)
    on, seen = parts >= 0, trained[:, None].expand(parts.shape)
    known, asked = on & seen, on & ~seen
    table = {name: probe(x[known], parts[known], x[asked], parts[asked]) for name, x in features.items()}
    most = parts[known].mode().values
    return {**table, "most frequent word": {"right": round(float((parts[asked] == most).float().mean()), 3)}}


def probe(features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor) -> dict[str, float]:
    """Train a linear classifier of standardised features `[M, D]` by 60 steps of L-BFGS, and score it on others."""
    mean, spread = features.mean(0), features.std(0) + 1e-6
    x, test = (F.pad((values - mean) / spread, (0, 1), value=1.0) for values in (features, test_features))
    weight = torch.zeros(x.shape[1], int(labels.max()) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight, labels) + 1e-3 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    right = ((test @ weight).argmax(1) == test_labels).float()
    of_words = torch.stack([right[test_labels == word].mean() for word in test_labels.unique()])
    return {"right": round(float(right.mean()), 3), "mean over words": round(float(of_words.mean()), 3)}


def variance(features: Tensor) -> dict[str, float]:
    """Split the variance of features `[scenes, N, D]`."""
    centred = features - features.mean((0, 1))
    total = centred.square().sum(-1).mean()
    between = {"scene": centred.mean(1), "place": centred.mean(0)}
    return {name: round(float(means.square().sum(-1).mean() / total), 3) for name, means in between.items()}


def grids(dataset: PartShapesDataset) -> dict[str, dict[str, float]]:
    """Average true labels over cells, resize them bilinearly, label by the greatest, and score that by Pred-All."""
    table = {}
    for edge in (16, 32, 64):
        evaluator = Evaluator(dataset.vocabulary, dataset.seen, "pred_all", boundary=None)
        areas: list[int] = []
        for part_labels, object_labels in _labels(dataset):
            present = part_labels.unique()  # background, -1, too
            maps = (part_labels == present[:, None, None]).float()[None]
            coarse = F.adaptive_avg_pool2d(maps, edge)
            fine = F.interpolate(coarse, part_labels.shape, mode="bilinear", align_corners=False)
            evaluator.update(present[fine[0].argmax(0)], part_labels, object_labels)
            areas += maps[0, present >= 0].sum((1, 2)).int().tolist()
        cell = (dataset[0].image.shape[0] // edge) ** 2
        smaller = sum(area < cell for area in areas) / len(areas)
        scores = evaluator.compute().to_dict()
        table[f"{edge} x {edge}"] = {
            "mIoU": round(scores["all"]["iou"], 1),
            "small parts": round(scores["small_parts"]["iou"], 1),
            "parts smaller than a cell": round(smaller, 3),
        }
    return table


def _labels(dataset: PartShapesDataset) -> Iterator[tuple[Tensor, Tensor]]:
    for sample in dataset:
        yield torch.from_numpy(sample.part_labels).long(), torch.from_numpy(sample.object_labels).long()


if __name__ == "__main__":
    main()
