"""Recipes: everything that decides what a training run computes, one function for each published setting.

    from partclipseg.training.recipe import pascal
    recipe = dataclasses.replace(pascal(), steps=100)

Plain names (``pascal``) are the intended method. ``…_reference`` repeats the released
implementation with all that it does. ``…_clipseg`` is the paper's baseline, a CLIPSeg fine-tuned with one prompt
for each object-part. ``…_partcatseg`` trains PartCATSeg, with ``…_partcatseg_reference`` as its release does, and
``…_zsseg`` OV-PARTS' two-stage baseline.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

import tyro

from partclipseg.checks import (
    check_fields,
    check_seed,
    check_side,
    require,
    require_at_least,
    require_not_negative,
    require_positive,
)
from partclipseg.counts import count_of
from partclipseg.data.augment import Augmentation
from partclipseg.data.datasets.choice import dataset_option, may_train, names
from partclipseg.data.datasets.registry import dataset_spec
from partclipseg.data.few_shot import FewShot
from partclipseg.losses.config import LossConfig, MaskLossConfig
from partclipseg.models.clipseg.settings import CLIPSegSettings
from partclipseg.models.partcatseg.settings import CATSegSettings, PartCATSegSettings
from partclipseg.models.partclipseg.settings import PartCLIPSegSettings
from partclipseg.models.settings import MethodSettings
from partclipseg.models.zsseg.settings import ZSSegSettings
from partclipseg.shapes.world import partshapes_world

logger = logging.getLogger(__name__)

CLIP = "openai/clip-vit-base-patch16"
"""Start of PartCATSeg's two CLIP towers where CAT-Seg's weights are not given."""

DINOV2 = "facebook/dinov2-small"
"""Start of PartCATSeg's guidance."""

CLIPSEG = "CIDAS/clipseg-rd64-refined"
"""The published start: CLIP ViT-B/16 with a CLIPSeg decoder of width 64."""


@dataclass(frozen=True)
class Retention:
    """Word retention: keeps the start model's own maps of words that the labels do not cover."""

    weight: float = 0.0
    """Weight of the retention loss. 0 turns it off."""
    words: tuple[str, ...] = ()
    """Words whose maps are kept."""
    words_per_step: int = 8
    """Number of words drawn for each step."""

    def __post_init__(self) -> None:
        check_fields(self, "retention")
        require(self.weight >= 0, f"retention: weight must not be negative: {self.weight}")
        require(self.weight == 0 or bool(self.words), "retention has a weight and no words: name the words to keep")
        require(self.words_per_step >= 1, f"retention: words_per_step must be at least 1: {self.words_per_step}")


@dataclass(frozen=True)
class Recipe:
    """One training run. Raises `UsageError` for values that no run can have."""

    dataset: Annotated[str, dataset_option(may_train)]
    """Data set that the model is trained on: one of `DATASETS` that may be trained on."""

    start: str = CLIPSEG
    """Model to start from: a directory, a name on the hub, or partshapes, the built-in model. Empty, for PartShapes
    only: its own towers, which are trained first, into the output's folders ``backbone`` and, for PartCATSeg and
    CAT-Seg, ``guidance`` and ``aggregation``."""
    image_size: int | None = None
    """Side of the square that photos are resized to, in pixels. The start model's size by default."""
    settings: Annotated[MethodSettings, tyro.conf.arg(name="")] = field(default_factory=PartCLIPSegSettings)
    """Settings of the method; their class decides which method is trained."""
    retention: Retention = field(default_factory=Retention)
    """Word retention: keeps what the start model knew of other words."""

    augmentation: Augmentation = field(default_factory=Augmentation.published)
    """Random changes to the training photos."""
    colour_order: Literal["rgb", "bgr"] = "rgb"
    """Order of the colour channels in training. The reference trains on bgr and tests on rgb."""
    held_out: int = 200
    """Number of training photos that are set aside to score the model on. 0 turns the scores off."""
    scenes: int = 20_000
    """Number of scenes that are rendered ahead and trained on (PartShapes only)."""
    few_shot: Annotated[FewShot, tyro.conf.arg(name="")] = field(default_factory=FewShot)
    """Training on a few photos of each object."""

    steps: int = 20_000
    """Number of updates of the weights."""
    batch_size: int = 8
    """Number of photos in a step, over all processes and micro-batches."""
    gradient_accumulation: int = 1
    """Number of micro-batches that a step is split into, to save memory. The losses are means over the whole batch, so
    the result does not depend on the split, but for rounding."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW."""
    warmup_steps: int = 0
    """Number of steps over which the learning rate rises to its peak."""
    schedule: Literal["polynomial", "cosine"] = "polynomial"
    """Curve by which the learning rate falls to 0."""
    decay_power: float = 0.9
    """Power of the polynomial by which the learning rate falls to 0; not for cosine."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW. Norms and embeddings are never decayed."""
    max_gradient_norm: float = 0.01
    """Greatest norm of the gradient of the whole model; a greater one is scaled down to it."""
    seed: int = 12345678
    """Seed of the order of the photos, their augmentation and the new layers."""
    precision: Annotated[Literal["bfloat16", "float32", "bf16"], tyro.conf.arg(name="dtype")] = "bfloat16"
    """Number type of the forward and backward pass. With bfloat16 the weights and losses stay float32 (mixed
    precision). bf16 is the former name of bfloat16."""
    compile: bool = False
    """Compile layers and losses (GPU only): a minute at the start, then faster steps. Sums may round differently."""
    recompute: bool = False
    """Compute the decoder's hidden layers a second time in the backward pass rather than keep them: about half the
    memory for a little more time. Sums may round differently."""

    evaluate_every: int = 1000
    """Number of steps between two scores on the held-out photos."""
    checkpoint_every: int = 500
    """Number of steps between two checkpoints."""
    log_every: int = 20
    """Number of steps between two lines of the log."""

    def __post_init__(self) -> None:
        if self.precision == "bf16":
            logger.warning("precision bf16 is now called bfloat16; the next release no longer takes the former name")
            object.__setattr__(self, "precision", "bfloat16")
        check_fields(self)
        require_at_least(1, self, "steps", "batch_size", "gradient_accumulation", "evaluate_every")
        require_at_least(1, self, "checkpoint_every", "log_every", "scenes")
        require_positive(self, "learning_rate", "decay_power", "max_gradient_norm")
        require_not_negative(self, "weight_decay", "warmup_steps", "held_out")
        check_seed(self.seed)
        if self.image_size is not None:
            check_side(self.image_size)
        require(
            self.warmup_steps < self.steps,
            f"warmup_steps {self.warmup_steps:,} must be less than the {count_of(self.steps, 'step')}",
        )
        require(
            self.batch_size % self.gradient_accumulation == 0,
            f"batch_size {self.batch_size} cannot be split into {self.gradient_accumulation} micro-batches: "
            "use a divisor",
        )
        require(
            dataset_spec(self.dataset).trains,
            f"{self.dataset} is not for training: choose one of {', '.join(names(may_train))}",
        )
        require(bool(self.start) or self.dataset == "partshapes", "start is missing: name a CLIPSeg model")

    @property
    def method(self) -> str:
        """Name of the trained method: a family of `models.registry.FAMILIES`."""
        return self.settings.family

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested values, for YAML and for comparing two runs."""
        return {"method": self.method, **asdict(self)}


_LATER = (
    "attention_filter", "pair_affinity", "patch_attention", "guidance_image_size", "guidance_share", "own_size"
)  # fmt: skip
"""Settings of PartCATSeg and CAT-Seg that runs of their first release have not."""


def with_current_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the settings of a run of an older release, as `Recipe.to_dict` gave them, to the current names."""
    current = {"schedule": "polynomial", "few_shot": asdict(FewShot()), **values}
    if "augmentation" in current:
        later = {"object_crop": 0.0, "fit": "stretch", "hue": 0.0, "ssd": False}
        current["augmentation"] = {**later, **current["augmentation"]}
    if current.get("precision") == "bf16":
        current["precision"] = "bfloat16"
    if "settings" in current:
        if current.get("method") == "partclipseg":  # before one could choose, the class FiLM began as a copy
            current["settings"] = {"class_film": "copy", **current["settings"]}
        if current.get("method") in ("catseg", "partcatseg"):  # before costs could be filtered, and guidance chosen
            later = asdict((CATSegSettings if current["method"] == "catseg" else PartCATSegSettings)())
            current["settings"] = {**{name: later[name] for name in later if name in _LATER}, **current["settings"]}
        return current
    names = {"partclipseg": PartCLIPSegSettings, "clipseg": CLIPSegSettings}
    settings = names[current.pop("model", "partclipseg")]()
    old = {name: current.pop(name) for name in ("merges", "reference_object_lookup", "train_background", "loss")}
    kept = asdict(settings)
    kept["loss"] = {name: old["loss"][name] for name in kept["loss"]}
    kept |= {"class_film": "copy"} if "class_film" in kept else {}
    kept |= {name: value for name, value in old.items() if name in kept and name != "loss"}
    return {"method": settings.family, **current, "settings": kept}


HARMLESS = ("evaluate_every", "checkpoint_every", "log_every")
"""Fields that may change when a run is continued: the weights do not depend on them."""


def pascal() -> Recipe:
    """Train PartCLIPSeg on Pascal-Part-116 as its paper describes the method."""
    return Recipe(dataset="pascal-part-116")


def pascal_reference() -> Recipe:
    """Train PartCLIPSeg on Pascal-Part-116 as the released implementation does."""
    return as_reference(pascal())


def pascal_clipseg() -> Recipe:
    """Train the paper's CLIPSeg baseline on Pascal-Part-116."""
    return as_baseline(pascal())


def pascal_partcatseg() -> Recipe:
    """Train PartCATSeg on Pascal-Part-116 with its defects repaired."""
    return as_partcatseg(pascal())


def pascal_partcatseg_reference() -> Recipe:
    """Train PartCATSeg on Pascal-Part-116 as its released implementation does."""
    return as_partcatseg(pascal(), reference=True)


def ade20k() -> Recipe:
    """Train PartCLIPSeg on ADE20K-Part-234 as its paper describes the method."""
    return Recipe(dataset="ade20k-part-234", recompute=True)


def ade20k_reference() -> Recipe:
    """Train PartCLIPSeg on ADE20K-Part-234 as the released implementation does."""
    return as_reference(ade20k())


def ade20k_clipseg() -> Recipe:
    """Train the paper's CLIPSeg baseline on ADE20K-Part-234."""
    return as_baseline(ade20k())


def ade20k_partcatseg() -> Recipe:
    """Train PartCATSeg on ADE20K-Part-234 with its defects repaired."""
    return as_partcatseg(ade20k())


def ade20k_partcatseg_reference() -> Recipe:
    """Train PartCATSeg on ADE20K-Part-234 as its released implementation does."""
    return as_partcatseg(ade20k(), reference=True)


def part_imagenet() -> Recipe:
    """Train PartCLIPSeg on PartImageNet as its paper describes the method."""
    return Recipe(dataset="part-imagenet")


def part_imagenet_reference() -> Recipe:
    """Train PartCLIPSeg on PartImageNet as the released implementation does."""
    return as_reference(part_imagenet())


def part_imagenet_clipseg() -> Recipe:
    """Train the paper's CLIPSeg baseline on PartImageNet."""
    return as_baseline(part_imagenet())


def part_imagenet_partcatseg() -> Recipe:
    """Train PartCATSeg on PartImageNet with its defects repaired."""
    return as_partcatseg(part_imagenet())


def part_imagenet_partcatseg_reference() -> Recipe:
    """Train PartCATSeg on PartImageNet as its released implementation does."""
    recipe = with_settings(as_partcatseg(part_imagenet(), reference=True), own_size=True)
    return replace(recipe, augmentation=replace(Augmentation.none(), fit="corner"))


def own_data() -> Recipe:
    """Train on your own photos with part labels, from CLIPSeg's weights; `--start partshapes --learning-rate 1e-3`
    starts from the built-in model, which is small enough for a laptop and has never seen a photo."""
    return Recipe(
        dataset="coco",
        settings=PartCLIPSegSettings(loss=LossConfig(attention_control="off")),  # on PartShapes it costs accuracy
        augmentation=Augmentation(),
        held_out=20,
        steps=2000,
        evaluate_every=200,
        checkpoint_every=200,
    )


def own_data_partcatseg() -> Recipe:
    """Train PartCATSeg on your own photos with part labels, from CLIP's and DINOv2's weights."""
    return replace(as_partcatseg(own_data()), augmentation=own_data().augmentation)


def partshapes() -> Recipe:
    """Train on PartShapes, the built-in rendered benchmark, from its own backbone, with word retention and without
    attention control, which is best there."""
    return Recipe(
        dataset="partshapes",
        start="",
        image_size=128,
        settings=PartCLIPSegSettings(loss=LossConfig(attention_control="off")),
        retention=Retention(weight=1.0, words=partshapes_world().vocabulary.objects),
        augmentation=Augmentation(crop_edge=None, brightness=0, contrast=0, saturation=0),
        held_out=500,
        steps=3000,
        batch_size=16,
        learning_rate=1e-3,  # the tiny model has a tenth of the published steps
        evaluate_every=1000,
        checkpoint_every=500,
    )


def partshapes_reference() -> Recipe:
    """Train on PartShapes as the released implementation trains."""
    return as_reference(partshapes())


def partshapes_clipseg() -> Recipe:
    """Train the paper's CLIPSeg baseline on PartShapes."""
    return as_baseline(partshapes())


def partshapes_partcatseg() -> Recipe:
    """Train PartCATSeg on PartShapes with its defects repaired, from an aggregation that knows whole objects."""
    return _tiny(as_partcatseg(partshapes()))


def partshapes_partcatseg_reference() -> Recipe:
    """Train PartCATSeg on PartShapes as its released implementation does."""
    return _tiny(as_partcatseg(partshapes(), reference=True), patch_attention=False)


def partshapes_catseg() -> Recipe:
    """Train CAT-Seg on PartShapes with one prompt for each object-part, the plain form of PartCATSeg."""
    settings = CATSegSettings(guidance="", sizes="tiny", patch_attention=True, loss=MaskLossConfig())
    return replace(partshapes_partcatseg(), settings=settings)


def partshapes_zsseg() -> Recipe:
    """Train ZSSeg+ on PartShapes: a tiny MaskFormer from random weights, and prompts in the backbone's CLIP."""
    return replace(partshapes(), settings=ZSSegSettings(sizes="tiny"), retention=Retention())


RECIPES: dict[str, Callable[[], Recipe]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        pascal, pascal_reference, pascal_clipseg, pascal_partcatseg, pascal_partcatseg_reference,
        ade20k, ade20k_reference, ade20k_clipseg, ade20k_partcatseg, ade20k_partcatseg_reference,
        part_imagenet, part_imagenet_reference, part_imagenet_clipseg, part_imagenet_partcatseg,
        part_imagenet_partcatseg_reference,
        own_data, own_data_partcatseg,
        partshapes, partshapes_reference, partshapes_clipseg,
        partshapes_partcatseg, partshapes_partcatseg_reference, partshapes_catseg,
        partshapes_zsseg,
    )
}  # fmt: skip
"""Function that makes the recipe, by its name on the command line."""


def as_reference(recipe: Recipe) -> Recipe:
    """Return the recipe with every difference of the released implementation."""
    return replace(
        recipe,
        settings=PartCLIPSegSettings(
            merges="random",
            class_film="copy",
            reference_object_lookup=True,
            train_background=False,
            loss=LossConfig(attention_control="reference", outside="background"),
        ),
        retention=Retention(),
        colour_order="bgr",
        precision="float32",
    )


def as_baseline(recipe: Recipe) -> Recipe:
    """Return the recipe for the baseline; its background vector stays at its random start, as published."""
    return replace(recipe, settings=CLIPSegSettings(), retention=Retention())


def as_partcatseg(recipe: Recipe, reference: bool = False) -> Recipe:
    """Return the recipe with PartCATSeg and its published optimisation, from CLIP's and DINOv2's weights.

    Published runs start from CAT-Seg's own weights, which can be named as `start`. `reference` trains as released: with
    the defects of model and loss, and its changes to photos.
    """
    return replace(
        recipe,
        start=CLIP,
        settings=PartCATSegSettings(
            guidance=DINOV2,
            reference=reference,
            loss=MaskLossConfig(outside="background" if reference else "ignore"),
        ),
        retention=Retention(),
        augmentation=Augmentation.partcatseg()
        if reference
        else Augmentation(brightness=32 / 255, contrast=0.5, saturation=0.5),
        precision="float32" if reference else recipe.precision,
        recompute=False,
        batch_size=4,
        learning_rate=2e-4,
        schedule="cosine",
    )


def _tiny(recipe: Recipe, patch_attention: bool = True) -> Recipe:
    """Return a PartCATSeg recipe for PartShapes: towers of its own, and the built-in model's optimisation.

    With `patch_attention` CLIP's last block keeps the attention through which the backbone's patches were taught words.
    """
    own = partshapes()
    return replace(
        with_settings(recipe, guidance="", sizes="tiny", patch_attention=patch_attention),
        start="",
        augmentation=own.augmentation,
        steps=2000,  # a large GPU then needs some 22 minutes, towers included
        batch_size=own.batch_size,
        learning_rate=own.learning_rate,
    )


def with_settings(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with other settings of its method."""
    return replace(recipe, settings=replace(recipe.settings, **changes))
