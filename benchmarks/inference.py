"""How long does a photo take, from pixels to its label map, beside a plain implementation?

    python benchmarks/inference.py                                  # CPU, real size, some minutes
    python benchmarks/inference.py --quick                          # one round each, on a laptop
    python benchmarks/inference.py --device cuda --compile          # every GPU case, compiled ones among them

On a GPU "pruned" replays captured graphs where batches are small, as `PartSegmenter` does; "eager" beside it does not.

Prints JSON. The model has the released size (CLIP ViT-B/16, 352x352, decoder 64) and random weights; photos are
noise, 375x500 pixels when they come out. With random weights nearly every object wins some pixel, so two winning
objects a photo are forced (see `forced_winners`); "full" decodes every class. Prompts are random tokens, four a word.

The plain implementation decodes every class in float32, encodes the prompts at each call, takes one photo at a time,
and upsamples every class before it compares them, as the released code does. Ratios are to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from measure import environment, forced_winners, measure
from partclipseg.maps.label_maps import pred_all
from partclipseg.models.compiled import compile_layers
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.vocabulary import CATALOGS, Vocabulary

SIZE = (375, 500)
WINNERS = (3, 7)
"""Objects that win in every photo: of Pascal's, bus and cow."""


class Case:
    """A model and what it is given."""

    def __init__(self, vocabulary: Vocabulary, device: str) -> None:
        torch.manual_seed(0)
        self.vocabulary, self.device = vocabulary, device
        self.config = PartCLIPSegConfig.from_reference()
        with torch.device(device):
            self.model = PartCLIPSegModel(self.config).eval()
        prompts = len(vocabulary.parts) + len(vocabulary.objects)
        text = self.config.text_config
        self.tokens = torch.randint(1000, 40_000, (prompts, 4), device=device)
        self.tokens[:, 0], self.tokens[:, -1] = text.bos_token_id, text.eos_token_id
        self.to_object = torch.from_numpy(vocabulary.class_to_object).to(device)

    def photos(self, number: int) -> torch.Tensor:
        return torch.randn(number, 3, *self.config.image_shape, device=self.device, dtype=self.model.dtype)

    def words(self) -> Words:
        with torch.inference_mode():
            return Words.of(self.vocabulary, self.model.encode_text(self.tokens, torch.ones_like(self.tokens)))

    def output(self, photos: torch.Tensor, words: Words) -> Any:
        return self.model({"pixel_values": photos}, words)

    @torch.inference_mode()
    def plain(self, photo: torch.Tensor) -> torch.Tensor:
        """Label map of one photo `[1, 3, h, w]`: method and order of the released code."""
        output = self.output(photo, self.words())
        classes, objects = (
            F.interpolate(logits.float(), SIZE, mode="bilinear", align_corners=False)[0].sigmoid()
            for logits in (output.object_part_logits, output.object_logits)
        )
        winner = objects.argmax(0)
        owners = F.pad(self.to_object, (0, 1), value=len(objects) - 1)
        classes[owners[:, None, None] != winner] = 0
        return classes.argmax(0)

    @torch.inference_mode()
    def full(self, photos: torch.Tensor, words: Words) -> object:
        return pred_all(self.output(photos, words), [SIZE] * len(photos), self.to_object)

    def pruned(self, photos: torch.Tensor, words: Words, captured: bool = True) -> object:
        eager = mock.patch.object(self.model, "graphs", _no_graphs)
        with forced_winners(WINNERS), nullcontext() if captured else eager:
            return self.model.label_maps({"pixel_values": photos}, words, [SIZE] * len(photos))

    @torch.inference_mode()
    def towers(self, photos: torch.Tensor) -> object:
        return self.model.encode_photo(photos)


def _no_graphs() -> None:
    """Stands in for `graphs` of a model, so that nothing is captured."""


def agreement(case: Case, photos: torch.Tensor, words: Words, expected: list[torch.Tensor]) -> float:
    """Share of pixels on which the label maps, every class decoded, are as `expected`."""
    with torch.inference_mode():
        maps = pred_all(case.output(photos, words), [SIZE] * len(photos), case.to_object)
    pairs = zip(maps, expected, strict=True)
    return round(sum((m.label_map == e).float().mean().item() for m, e in pairs) / len(expected), 5)


def results(options: argparse.Namespace, vocabulary: Vocabulary) -> dict[str, Any]:
    case, rounds = Case(vocabulary, options.device), 1 if options.quick else options.rounds
    plain_photo = case.photos(1)

    def run(call: Callable[[], object], photos: int = 1) -> dict[str, Any]:
        return measure(call, options.device, rounds, photos)

    found: dict[str, Any] = {"plain float32, batch 1": run(lambda: case.plain(plain_photo))}
    words, test = case.words(), case.photos(2)
    with torch.inference_mode():
        maps = pred_all(case.output(test, words), [SIZE] * len(test), case.to_object)
    expected = [m.label_map for m in maps]

    def pruned_passes(title: str, words: Words) -> None:
        on_gpu = options.device.startswith("cuda")
        passes = {"pruned": True, "pruned, eager": False} if on_gpu else {"pruned": True}
        for batch in options.batches:
            photos = case.photos(batch)
            for name, captured in passes.items():
                call = partial(case.pruned, photos, words, captured)
                with suppress(Exception):  # which `measure` will meet again, and report
                    call()  # captured at the second call, which is the one that warms up
                found[title.format(batch, name)] = run(call, batch)

    for dtype in options.dtypes:
        case.model.to(getattr(torch, dtype))
        words = case.words()
        if dtype != "float32":
            found[f"{dtype}, every class decoded: share of pixels as in float32"] = agreement(
                case, test.to(case.model.dtype), words, expected
            )
        for batch in options.batches:
            photos = case.photos(batch)
            found[f"{dtype}, batch {batch}, towers of the photo alone"] = run(lambda p=photos: case.towers(p), batch)
            found[f"{dtype}, batch {batch}, every class"] = run(lambda p=photos, w=words: case.full(p, w), batch)
        pruned_passes(f"{dtype}, batch {{}}, {{}}", words)
    if options.compile:
        torch.compiler.reset()  # of another vocabulary's sizes
        compile_layers(case.model)
        if (graphs := case.model.graphs()) is not None:
            graphs.clear()  # those captured before would go on without the compiled layers
        pruned_passes(f"{options.dtypes[-1]}, batch {{}}, {{}}, compiled", words)
    plain = found["plain float32, batch 1"].get("ms_per_photo")
    for value in found.values():
        if plain and isinstance(value, dict) and "ms_per_photo" in value:
            value["times_faster"] = round(plain / value["ms_per_photo"], 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vocabulary", nargs="+", default=["pascal-part-116"], choices=CATALOGS)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, help="default: 1; on a GPU 1 and 32")
    parser.add_argument("--rounds", type=int, help="default: 5; on a GPU 20")
    parser.add_argument("--compile", action="store_true", help="the pruned passes once more, with compiled layers")
    parser.add_argument("--quick", action="store_true", help="one round of each")
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    options.batches = options.batches or ([1, 32] if cuda else [1])
    options.rounds = options.rounds or (20 if cuda else 5)
    report: dict[str, Any] = {**environment(options.device), "photo": SIZE, "forced winners a photo": len(WINNERS)}
    for name in options.vocabulary:
        report[name] = results(options, Vocabulary.from_catalog(name))
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
