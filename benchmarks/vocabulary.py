"""How do time and memory grow with the vocabulary, from 10 to 10,000 object-parts?

    python benchmarks/vocabulary.py            # CPU, a small model, some minutes
    python benchmarks/vocabulary.py --quick    # one round, up to 1,000 object-parts
    python benchmarks/vocabulary.py --device cuda --real-size --dtype bfloat16

Prints JSON. Ten object-parts an object, part words drawn from 500. Random weights, one photo of 375x500; two winning
objects are forced, as random weights let nearly all of them win (see `forced_winners`). "first" encodes the words as
well, which later calls with the same words do not. Every class is decoded up to `--full-up-to` object-parts.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch

from measure import environment, forced_winners, measure
from partclipseg.maps.label_maps import pred_all
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary

SIZE = (375, 500)
PARTS_EACH = 10
PART_WORDS = 500


def small_config(image_size: int = 160) -> PartCLIPSegConfig:
    tower = {"intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 64}
    return PartCLIPSegConfig(
        text_config=tower,  # pyright: ignore[reportCallIssue]
        vision_config={**tower, "patch_size": 16},  # pyright: ignore[reportCallIssue]
        projection_dim=64,
        reduce_dim=32,
        decoder_intermediate_size=128,
        extract_layers=[1, 2, 3],
        use_complex_transposed_convolution=True,
        image_size=image_size,
    )


def vocabulary_of(classes: int) -> Vocabulary:
    generator = np.random.default_rng(0)
    return Vocabulary.from_dict(
        {
            f"object {o}": [f"part {p}" for p in generator.choice(PART_WORDS, PARTS_EACH, replace=False)]
            for o in range(classes // PARTS_EACH)
        }
    )


def results(model: PartCLIPSegModel, vocabulary: Vocabulary, options: argparse.Namespace) -> dict[str, Any]:
    device, text = options.device, model.config.text_config
    photo = torch.randn(1, 3, *model.image_shape, device=device, dtype=model.dtype)
    tokens = torch.randint(1000, 40_000, (len(model.prompts(vocabulary)), 4), device=device)
    tokens[:, 0], tokens[:, -1] = text.bos_token_id, text.eos_token_id

    @torch.inference_mode()
    def words() -> Words:
        embeddings = torch.cat([model.encode_text(some, torch.ones_like(some)) for some in tokens.split(512)])
        return Words.of(vocabulary, embeddings)

    kept, inputs = words(), {"pixel_values": photo}
    winners = list(range(min(2, len(vocabulary.objects))))

    def pruned(embedded: Words, named: list[list[int]] | None = None) -> object:
        with forced_winners(winners):
            return model.label_maps(inputs, embedded, [SIZE], named)

    @torch.inference_mode()
    def full() -> object:
        return pred_all(model(inputs, kept), [SIZE], kept.class_to_object)

    rounds = 1 if options.quick else options.rounds
    found = {
        "objects": len(vocabulary.objects),
        "pred_all": measure(lambda: pruned(kept), device, rounds),
        "pred_all, first": measure(lambda: pruned(words()), device, rounds),
        "oracle_obj, two objects named": measure(lambda: pruned(kept, [winners]), device, rounds),
    }
    if len(vocabulary) <= options.full_up_to:
        found["every class"] = measure(full, device, rounds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--real-size", action="store_true", help="the released size in place of a small model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full-up-to", type=int, default=1000, help="object-parts")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    with torch.device(options.device):
        model = PartCLIPSegModel(PartCLIPSegConfig.from_reference() if options.real_size else small_config())
    model = model.eval().to(getattr(torch, options.dtype))
    report: dict[str, Any] = {**environment(options.device), "dtype": options.dtype, "photo": SIZE}
    for classes in (10, 100, 1000) if options.quick else (10, 100, 1000, 10_000):
        report[f"{classes} object-parts"] = results(model, vocabulary_of(classes), options)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
