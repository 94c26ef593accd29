"""How long does a training step take, and how much memory, beside a plain implementation? Are its losses the same?

    python benchmarks/training.py --quick                    # a small model, two photos: seconds
    python benchmarks/training.py --device cuda --compile    # 8 photos at the released size, every case
    python benchmarks/training.py --batch 1 --rounds 1       # the released size on a CPU, some minutes

Prints JSON. A step is what training does: gradients set back, forward pass, losses with attention control, backward
pass, clipping, AdamW. The vocabularies are the benchmarks' seen classes. The released size (CLIP ViT-B/16, 352x352,
decoder 64) has random weights, with the last decoder layer's queries enlarged tenfold: attention of random weights is
so even that nothing would be left to separate. Photos are noise; each shows two objects with all their parts, an
unlabelled rest of each object, an unknown object and background. Prompts are four random tokens a word.

The plain implementation (`plain_step.py`) runs in float32, TF32 off; ratios are to it. "differences" compares terms
and gradients of one step with its own, from the same weights and inputs. In float32 only the order of sums differs
(1e-5); bfloat16 keeps 8 bits: 1e-3 in the terms, of attention 1e-1 in the separation, which counts only what exceeds a
threshold, and some 3e-2 in the gradient. "captured" replays the step as one CUDA graph; "recomputed" keeps no
hidden layers for the backward pass. "kept" is what lies between forward and backward pass beside weights and inputs.
On a GPU the peak counts warm-up and capture; "reserved" is what the process took from the device.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from measure import environment, measure, reset_peak
from partclipseg.data.sample import OUTSIDE, UNLABELLED
from partclipseg.losses.labels import present_pairs
from partclipseg.models import recomputing
from partclipseg.models.compiled import compile_layers
from partclipseg.models.cuda_graphs import StepGradients
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.training import optim
from partclipseg.training.recipe import RECIPES, Recipe
from partclipseg.training.step import PAIRS_PER_PHOTO
from partclipseg.training.words import PromptTokens
from partclipseg.vocabulary import Vocabulary
from plain_step import plain_losses
from vocabulary import small_config

RECIPE_OF = {"pascal-part-116": "pascal", "ade20k-part-234": "ade20k"}
PADDED = 77
"""Tokens of a prompt in the plain implementation."""


@dataclass(frozen=True)
class Case:
    """One way to make the step."""

    plain: bool = False
    bf16: bool = False
    captured: bool = False
    recompute: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        if self.plain:
            return "plain float32"
        words = ["bfloat16" if self.bf16 else "float32", "captured" if self.captured else "eager"]
        return ", ".join(words + ["recomputed"] * self.recompute + ["compiled"] * self.compiled)


class Step:
    """A fresh model, always with the same weights, and everything that a step of it needs."""

    def __init__(self, case: Case, recipe: Recipe, vocabulary: Vocabulary, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.case, self.recipe, self.device = case, recipe, options.device
        config = small_config(96) if options.quick else PartCLIPSegConfig.from_reference()
        settings: Any = recipe.settings
        config.reference_object_lookup = settings.reference_object_lookup
        with torch.device(options.device):
            self.model: Any = PartCLIPSegModel(config).train()
        with torch.no_grad():
            self.model.decoder.layers[-1].qkv.weight[: config.reduce_dim] *= 10
        self.parameters = self.model.trained_parameters(recipe.settings)
        self.model.recompute(case.recompute)
        if case.compiled:
            compile_layers(self.model)
        self.words = random_words(self.model, vocabulary, PADDED if case.plain else 4, options.device)
        self.loss = self.model.build_loss(recipe.settings, compiled=case.compiled)
        self.optimizer = optim.build_optimizer(self.model, recipe.learning_rate, recipe.weight_decay)
        self.gradients = StepGradients(self.losses, self.parameters, capture=case.captured)

    def losses(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        words = self.words
        classes = words.class_to_part, words.class_to_object
        if self.case.plain:
            tokens = words.input_ids, words.attention_mask
            return plain_losses(self.model, tokens, *classes, inputs, self.loss.config)
        pairs = inputs["attention_pairs"]
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.case.bf16):
            photos = {"pixel_values": inputs["pixel_values"]}
            output = self.model(photos, words.encode(self.model), attention_pairs=pairs)
        return self.loss(output, inputs["part_labels"], inputs["object_labels"], *classes, pairs)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = self.gradients(inputs)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.max_gradient_norm)
        self.optimizer.step()
        return terms

    def first(self, inputs: Mapping[str, Tensor]) -> tuple[dict[str, float], Tensor]:
        """Terms and all gradients in one vector, before any update."""
        terms = {name: term.item() for name, term in self.gradients(inputs).items()}
        return terms, torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None]).cpu()

    def kept(self, inputs: Mapping[str, Tensor]) -> int:
        """Bytes that the forward pass keeps for the backward pass, beside weights and inputs."""
        own = {t.untyped_storage().data_ptr() for t in [*self.model.parameters(), *inputs.values()]}
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage  # alive, so that no other takes its place
            return tensor.detach()  # the tensor itself may hold what holds it, and would never be freed

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self.losses(inputs)
        return sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in own)


def random_words(model: PartCLIPSegModel, vocabulary: Vocabulary, length: int, device: str) -> PromptTokens:
    """Four tokens for each prompt, the same for every `length` that they are padded to."""
    text, count = model.config.text_config, len(model.prompts(vocabulary))
    ids = torch.full((count, length), text.eos_token_id)
    ids[:, :4] = torch.randint(1000, 40_000, (count, 4), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, 3] = text.bos_token_id, text.eos_token_id
    mask = (torch.arange(length) < 4).long().expand(count, -1)
    classes = (torch.from_numpy(a).to(device) for a in (vocabulary.class_to_part, vocabulary.class_to_object))
    return PromptTokens(vocabulary, ids.to(device), mask.to(device), *classes)


def random_photos(vocabulary: Vocabulary, size: int, batch: int, device: str) -> dict[str, Tensor]:
    """Photos with two objects each, one above the other, whose parts lie side by side in two rows."""
    generator = torch.Generator().manual_seed(1)
    parts = torch.full((batch, size, size), UNLABELLED)
    objects = torch.full((batch, size, size), UNLABELLED)
    objects[:, -size // 8 :] = OUTSIDE
    of_object = torch.from_numpy(vocabulary.class_to_object)
    height, half = size * 3 // 8, size * 3 // 16
    for photo in range(batch):
        for place in range(2):
            number, top = (2 * photo + place) % len(vocabulary.objects), place * (height + size // 16)
            objects[photo, top : top + height, : size * 7 // 8] = number
            own = (of_object == number).nonzero().flatten().tolist()
            columns = (len(own) + 1) // 2
            width = size * 3 // 4 // columns
            for index, label in enumerate(own):
                row, column = divmod(index, columns)
                across = slice(column * width, (column + 1) * width)
                parts[photo, top + row * half : top + (row + 1) * half, across] = label
    capacity = PAIRS_PER_PHOTO * batch if device.startswith("cuda") else None  # as the training loop has it
    inputs = {
        "pixel_values": torch.randn(batch, 3, size, size, generator=generator),
        "part_labels": parts,
        "object_labels": objects,
        "attention_pairs": present_pairs(parts, len(vocabulary), capacity),
    }
    return {name: value.to(device) for name, value in inputs.items()}


def cases(options: argparse.Namespace) -> list[Case]:
    """From plain to the fastest; captured and compiled ones where the device and the options have them."""
    found = [Case(plain=True), *(Case(bf16=bf16, recompute=again) for bf16 in (False, True) for again in (False, True))]
    if options.device.startswith("cuda"):
        found += [replace(case, captured=True) for case in found[-2:]]
    if options.compile:
        found += [replace(case, compiled=True) for case in found[-2:]]
    return found


def results(options: argparse.Namespace, name: str) -> dict[str, Any]:
    recipe, vocabulary = RECIPES[RECIPE_OF[name]](), Vocabulary.from_catalog(name, split="seen")
    found: dict[str, Any] = {"conditions": 0, "classes": len(vocabulary) + 1}
    expected: tuple[dict[str, float], Tensor] | None = None
    for case in cases(options):
        step = Step(case, recipe, vocabulary, options)
        found["conditions"] = len(step.words.input_ids) + 1
        inputs = random_photos(vocabulary, step.model.image_shape[0], options.batch, options.device)
        try:
            kept = step.kept(inputs)
            clear(options.device)
            first = step.first(inputs)
        except Exception as error:  # out of memory, no compiler, …: the others are measured all the same
            found[str(case)] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            continue
        value = measure(lambda s=step, i=inputs: s(i), options.device, options.rounds, unit="step", whole=True)
        value["kept_MiB"] = round(kept / 2**20)
        if options.device.startswith("cuda"):
            value["reserved_MiB"] = round(torch.cuda.max_memory_reserved() / 2**20)
        if case.plain:
            expected, found["terms"], found["pairs shown"] = first, first[0], shown_pairs(inputs, vocabulary)
        elif expected is not None:
            value["differences"] = differences(first, expected)
        if options.profile and not case.plain:
            value["kernels"] = kernels(step, inputs)
        found[str(case)] = value
        print(f"{name}, {case}: {value}", file=sys.stderr)  # what is known if a later case takes the machine down
        del step, first
    plain = found["plain float32"].get("ms_per_step")
    for value in found.values():
        if plain and isinstance(value, dict) and "ms_per_step" in value:
            value["times_faster"] = round(plain / value["ms_per_step"], 2)
    return found


def shown_pairs(inputs: Mapping[str, Tensor], vocabulary: Vocabulary) -> int:
    """How many of the pairs whose attention is asked for are object-parts that a photo shows."""
    return len(present_pairs(inputs["part_labels"].cpu(), len(vocabulary)))


def differences(
    ours: tuple[dict[str, float], Tensor], plain: tuple[dict[str, float], Tensor]
) -> dict[str, float]:
    """Of each term, relative to its value; of the gradient, its norm relative to the gradient's."""
    terms = {name: float(f"{abs(ours[0][name] / value - 1):.2g}") for name, value in plain[0].items()}
    gradient = (ours[1] - plain[1]).norm() / plain[1].norm()
    return {**terms, "gradient": float(f"{gradient.item():.2g}")}


def kernels(step: Step, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the device did in one step: milliseconds and launches of all kernels together, and of the longest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step(inputs)
        torch.cuda.synchronize()
    rows = [row for row in profile.key_averages() if row.self_device_time_total > 0]
    rows.sort(key=lambda row: -row.self_device_time_total)
    return {
        "ms": round(sum(row.self_device_time_total for row in rows) / 1000, 2),
        "launches": sum(row.count for row in rows),
        "longest": [(row.key[:100], row.count, round(row.self_device_time_total / 1000, 2)) for row in rows[:15]],
    }


def clear(device: str) -> None:
    """Give back what earlier cases held, and count peak memory from here."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    reset_peak(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vocabulary", nargs="+", choices=RECIPE_OF, default=list(RECIPE_OF))
    parser.add_argument("--batch", type=int, default=8, help="photos of a step; 2 with --quick")
    parser.add_argument("--rounds", type=int, help="default: 3; on a GPU 20")
    parser.add_argument("--compile", action="store_true", help="the step with compiled layers and losses too")
    parser.add_argument("--rows", type=int, default=recomputing.RECOMPUTED_ROWS, help="recomputed at once")
    parser.add_argument("--profile", action="store_true", help="on a GPU: which kernels a step consists of")
    parser.add_argument("--quick", action="store_true", help="a small model, two photos, one round")
    options = parser.parse_args()
    if options.profile and not options.device.startswith("cuda"):
        parser.error("--profile looks at a GPU: give --device cuda")
    options.rounds = options.rounds or (20 if options.device.startswith("cuda") else 3)
    if options.quick:
        options.batch, options.rounds = 2, 1
    torch.backends.cudnn.allow_tf32 = False
    recomputing.RECOMPUTED_ROWS = options.rows
    settings = {"photos a step": options.batch, "recomputed rows": options.rows, "quick": options.quick}
    report: dict[str, Any] = {**environment(options.device), **settings}
    for name in options.vocabulary:
        report[name] = results(options, name)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
