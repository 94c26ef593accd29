"""Time PartCATSeg on a photo, beside a plain implementation of the same model in the same run.

    python benchmarks/partcatseg.py                                         # released size, two CPU threads
    python benchmarks/partcatseg.py --device cuda --dtypes float32 bfloat16 --batches 1 16 --compile
    python benchmarks/partcatseg.py --small                                 # to see that it runs

The weights are random, photos are 375 x 500. Prints JSON: milliseconds a photo from pixels to label maps, Pred-All and
Oracle-Obj with one object, peak memory, the ratio to the plain implementation, and the share of equal labels.
Training is timed by `partcatseg_training.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from measure import environment, measure
from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.compiled import compile_layers
from partclipseg.models.interface import Words
from partclipseg.models.partcatseg.aggregator import AggregationLayer, ClassBlock, CostAggregator, UpBlock, WindowBlock
from partclipseg.models.partcatseg.config import PartCATSegConfig
from partclipseg.models.partcatseg.model import PartCATSegModel, PartCATSegOutput
from partclipseg.vocabulary import Catalog, Vocabulary

SIZE = (375, 500)
SMALL: dict[str, Any] = {
    "clip_config": {
        "projection_dim": 16,
        "text_config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 600},
        "vision_config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 48,
                          "patch_size": 16},
    },
    "guidance_config": {"model_type": "dinov2", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
                        "mlp_ratio": 2, "image_size": 42},
    **{"image_size": 64, "guidance_image_size": 56, "templates": ["a {}.", "the {}."], "hidden_dim": 16},
    **{"num_heads": 2, "window_size": 2, "text_guidance_dim": 8, "appearance_guidance_dim": 8},
    **{"decoder_dims": [16, 16], "decoder_guidance_dims": [8, 8]},
}  # fmt: skip


def plain_outputs(model: PartCATSegModel, inputs: Mapping[str, Tensor], words: Words) -> PartCATSegOutput:
    """All outputs with every concatenation written out and every class decoded."""
    aggregator, vocabulary = model.aggregator, words.vocabulary
    count, parts, objects = len(model.config.templates), len(vocabulary.parts), len(vocabulary.objects)
    texts = words.embeddings.unflatten(0, (-1, count))
    background = F.normalize(model.background, dim=-1)[None].expand(-1, count, -1)
    photo, guidance = model.features(inputs)

    first_texts = torch.cat([texts[: parts + objects], background])
    cost = torch.einsum("bdyx,tpd->btpyx", photo, F.normalize(first_texts, dim=-1))
    first = plain_layers(
        aggregator, aggregator.layers, aggregator.cost_embedding(cost.flatten(0, 1)), first_texts, guidance
    )
    word_logits = plain_decode(aggregator, first, guidance)
    word_similarity = cost.mean(2)

    last = torch.full_like(words.class_to_part[:1], parts + objects)
    part_rows = torch.cat([words.class_to_part, last])
    object_rows = torch.cat([words.class_to_object + parts, last])
    pairs = torch.cat([first[:, part_rows], first[:, object_rows]], -1)  # [B, T, g, g, 2C]
    features = aggregator.pair_projection(pairs.flatten(0, 1).permute(0, 3, 1, 2)).unflatten(0, pairs.shape[:2])
    texts = torch.cat([texts[parts + objects :], background])
    cost = torch.einsum("btdyx,tpd->btpyx", F.normalize(features, dim=2), F.normalize(texts, dim=-1))
    embedded = aggregator.pair_cost_embedding(cost.flatten(0, 1))
    second = plain_layers(aggregator, aggregator.pair_layers, embedded, texts, guidance)
    return PartCATSegOutput(
        object_part_logits=plain_decode(aggregator, second, guidance),
        object_logits=word_logits[:, parts:],
        part_logits=word_logits[:, :parts],
        object_similarity=word_similarity[:, parts:],
        object_part_similarity=cost.mean(2),
    )


def plain_layers(aggregator: CostAggregator, layers: Any, embedded: Tensor, texts: Tensor, guidance: Any) -> Tensor:
    x = embedded.permute(0, 2, 3, 1).unflatten(0, (len(guidance.grid), -1))  # [B, T, g, g, C]
    text = aggregator.text_guidance(texts)
    for layer in layers:
        x = plain_layer(layer, x, guidance.grid, text)
    return x


def plain_layer(layer: AggregationLayer, x: Tensor, guidance: Tensor, text: Tensor) -> Tensor:
    photo = layer.guidance_norm(guidance.permute(0, 2, 3, 1))[:, None].expand(*x.shape[:-1], -1)
    for block in (layer.block1, layer.block2):
        x = plain_window(block, x, photo)
    return x + plain_classes(layer.classes, x, text)


def plain_window(block: WindowBlock, x: Tensor, photo: Tensor) -> Tensor:
    a = block.norm1(x)
    guided = torch.cat([a, photo], -1)
    x = x + block.project(block.attend(block.query(guided), block.key(guided), block.value(a)))
    return x + block.mlp(block.norm2(x))


def plain_classes(block: ClassBlock, x: Tensor, text: Tensor) -> Tensor:
    batch, classes, grid, _, width = x.shape
    pooled = F.avg_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), block.pooling)
    edge = pooled.shape[-1]
    places = pooled.view(batch, classes, width, edge * edge).permute(0, 3, 1, 2).flatten(0, 1)
    a = block.norm1(places)
    guided = torch.cat([a, text.expand(len(a), -1, -1)], -1)
    q, k, v = (
        t.unflatten(-1, (block.heads, -1)).transpose(1, 2)
        for t in (block.query(guided), block.key(guided), block.value(a))
    )
    places = places + block.attend(q, k, v).transpose(1, 2).flatten(2)
    places = places + block.mlp(block.norm2(places))
    pooled = places.unflatten(0, (batch, -1)).permute(0, 2, 3, 1).reshape(-1, width, edge, edge)
    spread = F.interpolate(pooled, (grid, grid), mode="bilinear", align_corners=True)
    return spread.permute(0, 2, 3, 1).view(x.shape)


def plain_decode(aggregator: CostAggregator, x: Tensor, guidance: Any) -> Tensor:
    classes = x.shape[1]
    y = x.flatten(0, 1).permute(0, 3, 1, 2)
    for block, level in ((aggregator.decoder1, guidance.decoder1), (aggregator.decoder2, guidance.decoder2)):
        y = plain_up(block, y, level.repeat_interleave(classes, 0))
    return aggregator.head(y).view(len(x), classes, *y.shape[-2:])


def plain_up(block: UpBlock, x: Tensor, guidance: Tensor) -> Tensor:
    x = torch.cat([block.up(x), guidance], 1)
    x = F.relu(block.norm1(block.conv1(x)))
    return F.relu(block.norm2(block.conv2(x)))


def plain_maps(model: PartCATSegModel, photos: list[np.ndarray], words: Words, present: int | None) -> list[Tensor]:
    """Label maps int64 `[H, W]`; in Oracle-Obj, the classes of the object `present` compete."""
    logits: Any = plain_outputs(model, model.prepare(photos), words).object_part_logits
    probabilities = logits.float().sigmoid()
    resized = F.interpolate(probabilities, SIZE, mode="bilinear", align_corners=False)  # [B, N_c + 1, H, W]
    if present is not None:
        resized[:, :-1][:, words.class_to_object != present] = -1
        resized[:, -1] = -1
    labels = resized.argmax(1)
    return list(labels.masked_fill(labels == len(words.class_to_object), -1))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--catalogs", nargs="+", default=["pascal-part-116"], help="whose words are asked")
    parser.add_argument("--compile", action="store_true", help="time compiled layers too")
    parser.add_argument("--small", action="store_true", help="a tiny model and three words")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"environment": environment(options.device), "options": vars(options)}
    lists = {name: Catalog.load(name).vocabulary for name in options.catalogs}
    if options.small:
        lists = {"three words": Vocabulary.from_text("dog: ear, tail; cat: ear")}
    for dtype in options.dtypes:
        like = options.small, options.device, getattr(torch, dtype)
        model, compiled = random_model(*like).eval(), None
        if options.compile:
            compiled = random_model(*like).eval()
            compile_layers(compiled)
        for name, vocabulary in lists.items():
            words = words_of(model, vocabulary)
            for batch in options.batches:
                key = f"{name}, {dtype}, batch {batch}"
                report[key] = cases(model, compiled, words, random_photos(batch), options)
                print(f"{key}: {report[key]}", file=sys.stderr, flush=True)
    print(json.dumps(report, indent=1))


def random_model(small: bool, device: str, dtype: torch.dtype = torch.float32) -> Any:
    """PartCATSeg of the released size, or a tiny one, always with the same random weights."""
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = PartCATSegModel(PartCATSegConfig(**SMALL) if small else PartCATSegConfig())
    return model.to(dtype)


def random_photos(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8))


def words_of(model: PartCATSegModel, vocabulary: Vocabulary) -> Words:
    generator = torch.Generator().manual_seed(0)
    shape = len(model.prompts(vocabulary)), model.config.clip_config.projection_dim
    embeddings = torch.randn(shape, generator=generator)
    return Words.of(vocabulary, F.normalize(embeddings, dim=-1).to(model.device, model.dtype))


def cases(
    model: PartCATSegModel, compiled: PartCATSegModel | None, words: Words, photos: list[np.ndarray], options: Any
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for protocol, present in (("pred_all", None), ("oracle_obj", 0)):
        known = None if present is None else [[present]] * len(photos)

        def fast(known: Any = known, model: PartCATSegModel = model) -> list[LabelMaps]:
            return model.label_maps(model.prepare(photos), words, [SIZE] * len(photos), known)

        def plain(present: int | None = present) -> list[Tensor]:
            return plain_maps(model, photos, words, present)

        calls: dict[str, Callable[[], object]] = {"plain": plain, "ours": fast}
        if compiled is not None:
            calls["ours, compiled"] = partial(fast, model=compiled)
        times: dict[str, Any] = {
            key: measure(call, options.device, options.rounds, len(photos)) for key, call in calls.items()
        }
        pairs = zip(fast(), plain(), strict=True)
        equal = [float((ours.label_map == theirs).float().mean()) for ours, theirs in pairs]
        times["equal labels"] = round(float(np.mean(equal)), 5)
        if "ms_per_photo" in times["plain"]:
            for key in calls:
                if key != "plain" and "ms_per_photo" in times[key]:
                    times[key]["ratio"] = round(times["plain"]["ms_per_photo"] / times[key]["ms_per_photo"], 2)
        found[protocol] = times
    return found


if __name__ == "__main__":
    main()
