"""Time PartCATSeg on photos, and with `--training` its steps, beside a plain implementation of it in the same run.

    python benchmarks/partcatseg.py                                         # released size, two CPU threads
    python benchmarks/partcatseg.py --device cuda --compile --training --catalogs pascal-part-116 ade20k-part-234 \
        --dtypes float32 bfloat16 --batches 1 16 --rounds 5 --seconds 230 --output runs/steps.json
    python benchmarks/partcatseg.py --device cuda --compile --catalogs pascal-part-116 ade20k-part-234 \
        --dtypes float32 bfloat16 --batches 1 16 --rounds 5 --seconds 220 --output runs/photos.json
    python benchmarks/partcatseg.py --small --training --batches 1 2        # every row on a tiny model, in a minute

The weights are random, photos are 375 x 500. Prints JSON, which is written to `--output` after every row too:
milliseconds a photo from prepared inputs to label maps, Pred-All and Oracle-Obj with one object, which is another for
each photo of a batch, peak memory, the ratio to the plain implementation of the same number type (steps: in float32),
and the share of labels equal to its own. `prepare` is what makes the inputs of photos. On a GPU small batches are
captured; "not captured" says what that brings.
The rows of training are those of `partcatseg_training.py`. A row that fails says why, and the others are measured all
the same; a row that would begin after `--seconds` is left out. On an H200 the steps take the first call's time.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from measure import environment, measure, reset_peak
from partclipseg.files import write_text
from partclipseg.models.compiled import compile_layers
from partclipseg.models.interface import Words
from partclipseg.models.partcatseg.aggregator import AggregationLayer, ClassBlock, CostAggregator, WindowBlock
from partclipseg.models.partcatseg.config import PartCATSegConfig
from partclipseg.models.partcatseg.model import PartCATSegModel, PartCATSegOutput
from partclipseg.models.partcatseg.up_block import UpBlock
from partclipseg.vocabulary import Catalog, Vocabulary

SIZE, SMALL_SIZE = (375, 500), (45, 60)
"""Height and width of the photos; those of a tiny model are small too."""
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
    **{"shortest_edge": 64, "longest_edge": 96, "num_heads": 2, "window_size": 2},
    **{"text_guidance_dim": 8, "appearance_guidance_dim": 8},
    **{"decoder_dims": [16, 16], "decoder_guidance_dims": [8, 8]},
}  # fmt: skip


FEW_WORDS = Vocabulary.from_text("dog: ear, tail; cat: ear")


def plain_outputs(model: PartCATSegModel, inputs: Mapping[str, Tensor], words: Words) -> PartCATSegOutput:
    """All outputs with every concatenation written out and every class decoded."""
    aggregator, vocabulary = model.aggregator, words.vocabulary
    count, parts, objects = len(model.config.templates), len(vocabulary.parts), len(vocabulary.objects)
    texts = words.embeddings.unflatten(0, (-1, count))
    background = F.normalize(model.background, dim=-1)[None].expand(-1, count, -1)
    patches, guidance = model.features(inputs)
    photo = patches.vectors

    first_texts = torch.cat([texts[: parts + objects], background])
    cost = torch.einsum("bdyx,tpd->btpyx", photo, F.normalize(first_texts, dim=-1))
    embedded = plain_convolution(aggregator.cost_embedding, cost.flatten(0, 1))
    first = plain_layers(aggregator, aggregator.layers, embedded, first_texts, guidance)
    word_logits = plain_decode(aggregator, first, guidance)
    word_similarity = cost.mean(2)

    last = torch.full_like(words.class_to_part[:1], parts + objects)
    part_rows = torch.cat([words.class_to_part, last])
    object_rows = torch.cat([words.class_to_object + parts, last])
    pairs = torch.cat([first[:, part_rows], first[:, object_rows]], -1)  # [B, T, g, g, 2C]
    features = aggregator.pair_projection(pairs.flatten(0, 1).permute(0, 3, 1, 2)).unflatten(0, pairs.shape[:2])
    texts = torch.cat([texts[parts + objects :], background])
    cost = torch.einsum("btdyx,tpd->btpyx", F.normalize(features, dim=2), F.normalize(texts, dim=-1))
    embedded = plain_convolution(aggregator.pair_cost_embedding, cost.flatten(0, 1))
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
    shift, grid = block.shift, x.shape[2]
    rolled = [t.roll((-shift, -shift), (2, 3)) for t in (block.query(guided), block.key(guided), block.value(a))]
    q, k, v = (windows_of(t, block.window).unflatten(-1, (block.heads, -1)).transpose(-3, -2) for t in rolled)
    place = torch.arange(grid, device=x.device)
    region = (place >= grid - block.window).long() + (place >= grid - shift) if shift else 0 * place
    region = windows_of((3 * region[:, None] + region)[None, None, :, :, None], block.window)[0, :, :, 0]  # [n·n, w·w]
    mask = -100.0 * (region[:, None] != region[:, :, None]).to(q.dtype)  # [n·n, w·w, w·w]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None, :, None]).transpose(-3, -2).flatten(-2)
    side, window = grid // block.window, block.window
    mixed = mixed.unflatten(2, (window, window)).unflatten(1, (side, side)).transpose(2, 3).reshape(x.shape)
    x = x + block.project(mixed).roll((shift, shift), (2, 3))
    return x + block.mlp(block.norm2(x))


def windows_of(x: Tensor, window: int) -> Tensor:
    """Split `[B, T, g, g, C]` into windows, `[B·T, n·n, w·w, C]`."""
    x = x.flatten(0, 1).unflatten(2, (-1, window)).unflatten(1, (-1, window))  # [B·T, n, w, n, w, C]
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def plain_classes(block: ClassBlock, x: Tensor, text: Tensor) -> Tensor:
    batch, classes, grid, _, width = x.shape
    pooled = F.avg_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), block.pooling)
    edge = pooled.shape[-1]
    places = pooled.reshape(batch, classes, width, edge * edge).permute(0, 3, 1, 2).flatten(0, 1)
    a = block.norm1(places)
    guided = torch.cat([a, text.expand(len(a), -1, -1)], -1)
    q, k, v = (
        t.unflatten(-1, (block.heads, -1)).transpose(1, 2)
        for t in (block.query(guided), block.key(guided), block.value(a))
    )
    shares = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-2) + 1e-8  # over the queries
    mixed = (shares / shares.sum(-1, keepdim=True)).to(v.dtype) @ v
    places = places + mixed.transpose(1, 2).flatten(2)
    places = places + block.mlp(block.norm2(places))
    pooled = places.unflatten(0, (batch, -1)).permute(0, 2, 3, 1).reshape(-1, width, edge, edge)
    spread = F.interpolate(pooled, (grid, grid), mode="bilinear", align_corners=True)
    return spread.permute(0, 2, 3, 1).reshape(x.shape)


def plain_decode(aggregator: CostAggregator, x: Tensor, guidance: Any) -> Tensor:
    classes = x.shape[1]
    y = x.flatten(0, 1).permute(0, 3, 1, 2)
    for block, level in ((aggregator.decoder1, guidance.decoder1), (aggregator.decoder2, guidance.decoder2)):
        y = plain_up(block, y, level.repeat_interleave(classes, 0))
    return plain_convolution(aggregator.head, y).view(len(x), classes, *y.shape[-2:])


def plain_up(block: UpBlock, x: Tensor, guidance: Tensor) -> Tensor:
    x = torch.cat([block.up(x), guidance], 1)
    for convolution, norm in ((block.conv1, block.norm1), (block.conv2, block.norm2)):
        x = F.relu(F.group_norm(convolution(x), norm.num_groups, norm.weight, norm.bias, norm.eps))
    return x


def plain_convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)


def plain_maps(
    model: PartCATSegModel,
    inputs: Mapping[str, Tensor],
    words: Words,
    size: tuple[int, int],
    present: Sequence[int] | None = None,
) -> list[Tensor]:
    """Label maps int64 of `size`; in Oracle-Obj, the classes of one object compete for each photo."""
    logits: Any = plain_outputs(model, inputs, words).object_part_logits
    probabilities = logits.float().sigmoid()
    resized = F.interpolate(probabilities, size, mode="bilinear", align_corners=False)  # [B, N_c + 1, H, W]
    if present is not None:
        others = words.class_to_object != torch.tensor(present, device=resized.device)[:, None]  # [B, N_c]
        resized[:, :-1].masked_fill_(others[:, :, None, None], -1)
        resized[:, -1] = -1
    labels = resized.argmax(1)
    return list(labels.masked_fill(labels == len(words.class_to_object), -1))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"environment": environment(options.device), "options": vars(options)}
    rows = photo_rows(options)
    if options.training:
        from partcatseg_training import step_rows

        # The steps first: they matter most, and their memory is given back after each.
        rows = chain(step_rows(training_options(options)), rows)
    finish(rows, report, options)
    print(json.dumps(report, indent=1))
    return report


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--catalogs", nargs="+", default=["pascal-part-116"], help="whose words are asked")
    parser.add_argument("--compile", action="store_true", help="time compiled layers too, in bfloat16 if that is asked")
    parser.add_argument("--training", action="store_true", help="time the steps of partcatseg_training.py too")
    parser.add_argument("--seconds", type=float, help="begin no row after this time")
    parser.add_argument("--output", help="file of the JSON, written after each row")
    parser.add_argument("--small", action="store_true", help="a tiny model and few words, to see that every row runs")
    return parser.parse_args(arguments)


def training_options(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options of `partcatseg_training.py` that go with those of photos."""
    return argparse.Namespace(**{**vars(options), "batch": 2 if options.small else 4})


def finish(rows: Iterator[tuple[str, str, Callable[[], Any]]], report: dict[str, Any], options: Any) -> None:
    """Measure rows, (table, name, how), into `report`: a failing one leaves its error, a late one is named."""
    started = time.perf_counter()
    for table, name, row in rows:
        late = options.seconds is not None and time.perf_counter() - started > options.seconds
        if late:
            found: Any = {"error": "left out: the time was over"}
        else:
            try:
                found = row()
            except Exception as error:  # out of memory, no compiler, a kernel that the device lacks, …
                found = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        report.setdefault(table, {})[name] = found
        report["seconds"] = round(time.perf_counter() - started, 1)
        with_ratios(report[table])
        print(f"{report['seconds']} s, {table}, {name}: {found}", file=sys.stderr, flush=True)
        if options.output:
            write_text(Path(options.output), json.dumps(report, indent=1))
        clear(options.device)


def with_ratios(table: dict[str, Any]) -> None:
    """Note how many times faster each row is than the plain one of its number type, or else of float32."""
    for name, row in table.items():
        plain = table.get("plain " + name.split(",")[0]) or table.get("plain float32", {})
        for unit in ("ms_per_photo", "ms_per_step"):
            if unit in row and unit in plain and not name.startswith(("plain", "prepare")):
                row["times_faster"] = round(plain[unit] / row[unit], 2)


def clear(device: str) -> None:
    """Give back what earlier rows held, and count peak memory from here."""
    if device.startswith("cuda"):
        gc.collect()
        torch.cuda.empty_cache()
    reset_peak(device)


def photo_rows(options: argparse.Namespace) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Yield the rows of photos: those of a number type share its model, the compiled ones one that is compiled once."""
    lists = {name: Catalog.load(name).vocabulary for name in options.catalogs}
    if options.small:
        lists = {"few words": FEW_WORDS}
    on_gpu = options.device.startswith("cuda")
    for dtype in reversed(options.dtypes):  # bfloat16 first
        photos = Photos(options, dtype)
        kinds = {"": False, ", compiled": True} if options.compile and dtype == options.dtypes[-1] else {"": False}
        for name, vocabulary in lists.items():
            for batch in options.batches:
                table = f"{name}, batch {batch}"
                yield table, f"prepare {dtype}", partial(photos.prepare, batch)
                yield table, f"plain {dtype}", partial(photos.plain, vocabulary, batch)
                for ending, compiled in kinds.items():
                    row = partial(photos.ours, vocabulary, batch, compiled)
                    yield table, dtype + ending, row
                    yield table, f"{dtype}{ending}, Oracle-Obj", partial(row, named=True)
                    if on_gpu or options.small:
                        yield table, f"{dtype}{ending}, not captured", partial(row, captured=False)


class Photos:
    """Rows of one number type: what they share is made when the first one needs it."""

    def __init__(self, options: argparse.Namespace, dtype: str) -> None:
        self.options, self.dtype = options, getattr(torch, dtype)
        self.size = SMALL_SIZE if options.small else SIZE
        self._models: dict[bool, PartCATSegModel] = {}

    def model(self, compiled: bool = False) -> PartCATSegModel:
        if compiled not in self._models:
            model = random_model(self.options.small, self.options.device, self.dtype).eval()
            if compiled:
                compile_layers(model)
            self._models[compiled] = model
        return self._models[compiled]

    def prepare(self, batch: int) -> dict[str, Any]:
        photos = random_photos(batch, self.size)
        return self.timed(lambda: self.model().prepare(photos), batch)

    @torch.inference_mode()
    def plain(self, vocabulary: Vocabulary, batch: int) -> dict[str, Any]:
        model, inputs, words = self.asked(self.model(), vocabulary, batch)
        return self.timed(lambda: plain_maps(model, inputs, words, self.size), batch)

    @torch.inference_mode()
    def ours(
        self, vocabulary: Vocabulary, batch: int, compiled: bool, named: bool = False, captured: bool = True
    ) -> dict[str, Any]:
        model, inputs, words = self.asked(self.model(compiled), vocabulary, batch)
        present = [photo % len(vocabulary.objects) for photo in range(batch)] if named else None
        known = None if present is None else [[index] for index in present]
        with nullcontext() if captured else mock.patch.object(PartCATSegModel, "graphs", return_value=None):
            call = partial(model.label_maps, inputs, words, [self.size] * batch, known)
            found = self.timed(call, batch)
            maps = call()
        plain = plain_maps(self.model(), inputs, words, self.size, present)
        equal = [(ours.label_map == theirs).float().mean() for ours, theirs in zip(maps, plain, strict=True)]
        return {**found, "equal labels": round(float(torch.stack(equal).mean()), 5)}

    def asked(
        self, model: PartCATSegModel, vocabulary: Vocabulary, batch: int
    ) -> tuple[PartCATSegModel, dict[str, Tensor], Words]:
        return model, model.prepare(random_photos(batch, self.size)), words_of(model, vocabulary)

    def timed(self, call: Callable[[], object], batch: int) -> dict[str, Any]:
        for _ in range(2):  # a first call compiles, a second one is captured
            call()
        found = measure(call, self.options.device, self.options.rounds, batch)
        if "error" in found:
            raise RuntimeError(found["error"])
        return found


def random_model(small: bool, device: str, dtype: torch.dtype = torch.float32) -> Any:
    """PartCATSeg of the released size, or a tiny one, always with the same random weights."""
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = PartCATSegModel(PartCATSegConfig(**SMALL) if small else PartCATSegConfig())
    return model.to(dtype)


def random_photos(count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8))


def words_of(model: PartCATSegModel, vocabulary: Vocabulary) -> Words:
    generator = torch.Generator().manual_seed(0)
    shape = len(model.prompts(vocabulary)), model.config.clip_config.projection_dim
    embeddings = torch.randn(shape, generator=generator)
    return Words.of(vocabulary, F.normalize(embeddings, dim=-1).to(model.device, model.dtype))


if __name__ == "__main__":
    main()
