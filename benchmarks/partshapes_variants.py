"""Variants of the methods that benchmarks/partshapes.py compares, and the order of their runs.

All train in bfloat16 mixed precision, the references included, so that their time and arithmetic are alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from partclipseg.losses.config import LossConfig
from partclipseg.models.partcatseg.config import REPAIRS
from partclipseg.shapes.world import partshapes_world
from partclipseg.training.recipe import (
    Recipe,
    Retention,
    partshapes,
    partshapes_catseg,
    partshapes_clipseg,
    partshapes_partcatseg,
    partshapes_partcatseg_reference,
    partshapes_reference,
    partshapes_zsseg,
    with_settings,
)

WORLD = partshapes_world()
SEEN_WORDS = WORLD.seen_vocabulary.objects
HALF_OF_UNSEEN = WORLD.unseen_objects[::2]

DEFAULT = partshapes()
PARTCATSEG = partshapes_partcatseg()
PARTCATSEG_REFERENCE = replace(partshapes_partcatseg_reference(), precision="bfloat16")


def _reference(**changes: object) -> Recipe:
    recipe = replace(partshapes_reference(), precision="bfloat16")
    own = {name: changes.pop(name) for name in list(changes) if hasattr(recipe.settings, name)}
    return with_settings(replace(recipe, **changes), **own)


def _loss(recipe: Recipe, **changes: object) -> Recipe:
    return with_settings(recipe, loss=replace(recipe.settings.loss, **changes))


def _retention(weight: float, words: tuple[str, ...] = WORLD.vocabulary.objects) -> Recipe:
    return replace(DEFAULT, retention=Retention(weight, words))


VARIANTS: dict[str, Recipe] = {
    "clipseg": partshapes_clipseg(),
    "reference": _reference(),
    # The reference with one change each.
    "reference + object words (D1)": _reference(reference_object_lookup=False),
    "reference + attention with gradient (D2, D3)": _loss(_reference(), attention_control="differentiable"),
    # Each of the two in the new form, without the other: in the released form separation has no gradient, enhancement
    # hardly any.
    "reference + separation with gradient (D2)": _loss(
        _reference(), attention_control="differentiable", enhancement_weight=0
    ),
    "reference + enhancement of own rows (D3)": _loss(
        _reference(), attention_control="differentiable", separation_weight=0
    ),
    "reference + trained background (D4)": _reference(train_background=True),
    "reference + RGB (D5)": _reference(colour_order="rgb"),
    "reference + outside left out (D6)": _loss(_reference(), outside="ignore"),
    "reference + mean merges": _reference(merges="mean"),
    "reference + retention": _reference(retention=DEFAULT.retention),
    # All of them as the paper means it; without attention control; with retention too, which is the default.
    "intended": with_settings(replace(DEFAULT, retention=Retention()), loss=LossConfig()),
    "intended, attention off": replace(DEFAULT, retention=Retention()),
    "default": DEFAULT,
    "default + object crops": replace(DEFAULT, augmentation=replace(DEFAULT.augmentation, object_crop=0.5)),
    # The start of the classes' FiLM; the default begins with the identity.
    "default, class FiLM from a copy": with_settings(DEFAULT, class_film="copy"),
    # Attention control on top of the default.
    "default + attention": with_settings(DEFAULT, loss=LossConfig()),
    "default + attention, a tenth": with_settings(
        DEFAULT, loss=LossConfig(separation_weight=0.01, enhancement_weight=0.001)
    ),
    "default + separation": with_settings(DEFAULT, loss=LossConfig(enhancement_weight=0)),
    "default + enhancement": with_settings(DEFAULT, loss=LossConfig(separation_weight=0)),
    "default + attention as released": _loss(DEFAULT, attention_control="reference"),
    **{
        f"default + attention, threshold {threshold}": with_settings(DEFAULT, loss=LossConfig(threshold=threshold))
        for threshold in (0.1, 0.2, 0.4, 0.5)
    },
    # Retention: its weight, and how much of it is knowing the unseen objects' names.
    "default, retention 0.3": _retention(0.3),
    "default, retention 5": _retention(5.0),
    "default, retention of seen words": _retention(1.0, SEEN_WORDS),
    "default, retention of half the unseen words": _retention(1.0, (*SEEN_WORDS, *HALF_OF_UNSEEN)),
    # The other methods; their towers are trained once a seed, like the backbones. CAT-Seg and PartCATSeg start from an
    # aggregation that was trained on whole objects, or from the backbone's CLIP alone.
    "catseg": partshapes_catseg(),
    "zsseg": partshapes_zsseg(),
    "partcatseg": PARTCATSEG,
    "partcatseg, from CLIP": replace(PARTCATSEG, start="backbone"),
    # An aggregation has no maps of single words to keep, the backbone has.
    "partcatseg, from CLIP + retention": replace(PARTCATSEG, start="backbone", retention=DEFAULT.retention),
    "catseg, from CLIP": replace(partshapes_catseg(), start="backbone"),
    # The published methods leave out the attention of CLIP's last block; so does the aggregation that these start from.
    "partcatseg, no patch attention": with_settings(PARTCATSEG, patch_attention=False),
    "catseg, no patch attention": with_settings(partshapes_catseg(), patch_attention=False),
    # HOPS's filters of costs.
    "partcatseg + attention filter": with_settings(PARTCATSEG, attention_filter=True),
    "partcatseg + affinity": with_settings(PARTCATSEG, pair_affinity=True),
    "partcatseg + both filters": with_settings(PARTCATSEG, attention_filter=True, pair_affinity=True),
    # These choices of the recipe for PartShapes were made without a measurement: rates, and what the towers compute.
    **{
        f"partcatseg, learning rate {rate:g}": replace(PARTCATSEG, learning_rate=rate, warmup_steps=50)
        for rate in (3e-4, 1e-3, 3e-3)
    },
    "partcatseg, gradient norm 1": replace(PARTCATSEG, max_gradient_norm=1.0),
    "partcatseg, guidance at the full rate": with_settings(PARTCATSEG, guidance_share=1.0),
    "partcatseg, finer guidance": with_settings(PARTCATSEG, guidance_image_size=256),
    "partcatseg, finer guidance at the full rate": with_settings(
        PARTCATSEG, guidance_image_size=256, guidance_share=1.0
    ),
    "partcatseg, all choices": with_settings(
        replace(PARTCATSEG, start="backbone", retention=DEFAULT.retention, learning_rate=3e-3, warmup_steps=50),
        guidance_image_size=256, guidance_share=1.0,
    ),
    **{f"zsseg, learning rate {rate:g}": replace(partshapes_zsseg(), learning_rate=rate, warmup_steps=50)
       for rate in (1e-4, 3e-4)},
    "zsseg, gradient norm 1": replace(partshapes_zsseg(), max_gradient_norm=1.0),
    # The published weights of masks are those of a MaskFormer that has learned from photos before.
    "zsseg, dice weighs 5 times": _loss(partshapes_zsseg(), dice_weight=5.0),
    "zsseg, dice weighs 20 times": _loss(partshapes_zsseg(), focal_weight=100.0, dice_weight=20.0),
    "zsseg, dice weighs 20 times, learning rate 0.0003": replace(
        _loss(partshapes_zsseg(), focal_weight=100.0, dice_weight=20.0), learning_rate=3e-4, warmup_steps=50
    ),
    "partcatseg reference": PARTCATSEG_REFERENCE,
    **{
        f"partcatseg, {name} repaired alone": with_settings(PARTCATSEG_REFERENCE, reference=False, repairs=(name,))
        for name in REPAIRS
    },
}
"""Recipe of each variant, by its name in the tables."""

ORDER: tuple[tuple[str, ...], ...] = (
    ("default", "partcatseg", "catseg", "clipseg"),
    ("partcatseg, no patch attention", "partcatseg reference", "catseg, no patch attention"),
    ("partcatseg, from CLIP", "partcatseg, from CLIP + retention", "catseg, from CLIP", "intended, attention off"),
    ("partcatseg + attention filter", "partcatseg + affinity"),
    tuple(f"partcatseg, {name} repaired alone" for name in REPAIRS),
)
"""Groups of variants in the order of their runs: all seeds of a group come before the next, what none names is last."""


def ordered(names: Iterable[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Return the runs, variant and seed, the most important first."""
    wanted = list(names)
    rest = tuple(name for name in VARIANTS if not any(name in group for group in ORDER))
    groups = [[name for name in group if name in wanted] for group in (*ORDER, rest)]
    return [(name, seed) for group in groups for seed in seeds for name in group]
