"""The interface of a model: `PartModel`, its words and its output.

Segmenter, zoom, evaluation, training, server, labelling and export use models only through this interface. A family
must define how words become prompts (`prompts`) and embeddings (`encode_text`), and logits (`forward`); its
configuration has `image_shape`, `image_mean` and `image_std`, or it overrides `prepare`. All else has a default that
is right for every family and may be overridden for speed or for a method of its own.

Letters in shapes: B photos, K prompts, D width of a word, N_c object-parts, N_o objects, N_p parts, H x W a photo,
h x w the model's input or its logits.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils.generic import ModelOutput

from partclipseg.data.resize import resize_photo
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.losses.classes import ClassLoss
from partclipseg.maps.label_maps import Contest, LabelMaps, oracle_obj, pred_all
from partclipseg.models.imports import fitting_torchvision
from partclipseg.models.parameter_groups import groups_by_decay
from partclipseg.models.prompting import Prompting
from partclipseg.models.settings import MethodSettings
from partclipseg.vocabulary import Vocabulary

with fitting_torchvision():
    from transformers.modeling_utils import PreTrainedModel

if TYPE_CHECKING:
    from partclipseg.models.onnx import OnnxGraph

Inputs = Mapping[str, Tensor]
"""Result of `PartModel.prepare` and input of `PartModel.forward`, by name; the first dimension is B."""

ModelClass = TypeVar("ModelClass", bound="type[PartModel]")

MIN_PART_PROBABILITY = 0.3
"""Default of `PartModel.min_part_probability`, chosen from the measurement in docs/prediction.md."""


@dataclass(frozen=True, eq=False)
class Words:
    """Vocabulary with its embeddings and index tensors, the input of a model."""

    vocabulary: Vocabulary
    embeddings: Tensor
    """`[K, D]`, the embeddings of `PartModel.prompts(vocabulary)`."""
    class_to_part: Tensor
    """int64 `[N_c]`: part of each class, on the device of the embeddings."""
    class_to_object: Tensor
    """int64 `[N_c]`: object of each class, on the device of the embeddings."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, embeddings: Tensor) -> Words:
        """Make the words of a vocabulary with their embeddings `[K, D]`."""
        device = embeddings.device
        return cls(
            vocabulary,
            embeddings,
            torch.from_numpy(vocabulary.class_to_part).to(device),
            torch.from_numpy(vocabulary.class_to_object).to(device),
        )


class WordMaps(NamedTuple):
    """Part words without an object in one photo of size `H × W`."""

    word_map: Tensor
    """int64 `[H, W]`: index of the most probable word, -1 where background is more probable."""
    scores: Tensor
    """float32 `[H, W]`: probability of the word, or of background."""


@dataclass
class PartOutput(ModelOutput):
    """Logits of a forward pass, before the sigmoid, at the decoder's size h x w."""

    object_part_logits: Tensor | None = None
    """`[B, N_c + 1, h, w]`, background last; every model has them."""
    object_logits: Tensor | None = None
    """`[B, N_o + 1, h, w]`, background last; None for a model that has no logits of whole objects."""
    part_logits: Tensor | None = None
    """`[B, N_p, h, w]` of generalized parts; None for a model that has none."""
    attention: Tensor | None = None
    """float32 `[P, T, T]`: attention of each requested pair, rows are queries, the class token first."""


class PartModel(PreTrainedModel):
    """Base class of all models."""

    main_input_name = "pixel_values"
    supports_gradient_checkpointing = False

    config_class: Any
    settings_class: ClassVar[type[MethodSettings]] = MethodSettings
    """The family's own settings of a training run."""
    has_attention: ClassVar[bool] = False
    """Whether `forward` takes `attention_pairs`."""
    takes_object_masks: ClassVar[bool] = False
    """Whether Oracle-Obj tells it the masks of the objects too, by `with_object_masks`. Such a model is trained on one
    object of each photo, with its mask."""
    takes_prompting: ClassVar[bool] = False
    """Whether `ask` can change prompts and threshold."""
    colour_fields: ClassVar[tuple[str, ...]] = ("image_mean", "image_std")
    """Fields of the configuration with numbers for red, green and blue, in the order of `colours`."""
    _colours: list[Tensor] | None = None
    """Cache of `colours`."""
    _stamped: tuple[object, list[nn.Parameter]] | None = None
    """Cache of `weights_stamp`: a token and all parameters."""
    _renewed: int = 0
    """Number of calls of `renew_stamp`."""
    int8: bool = False
    """Whether the products are computed in int8, see `quantise`."""

    # -- what a family must define ----------------------------------------------------------------------------

    def prompts(self, vocabulary: Vocabulary) -> list[str]:
        """Return the K strings whose embeddings `forward` expects, in its order."""
        raise TypeError(f"{type(self).__name__} does not define prompts")

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed K prompts, int64 tokens and mask `[K, L]`, as `[K, D]`."""
        raise TypeError(f"{type(self).__name__} does not define encode_text")

    def forward(self, inputs: Inputs, words: Words, attention_pairs: Tensor | None = None) -> PartOutput:
        """Compute logits of every class for every photo.

        Args:
            inputs: result of `prepare` for the photos.
            words: the vocabulary with its embeddings.
            attention_pairs: int64 `[P, 2]`, (photo, k): class k where `k < N_c`, else object `k - N_c`; only for
                models that have attention.
        """
        raise TypeError(f"{type(self).__name__} does not define forward")

    @property
    def longest_prompt(self) -> int:
        """Maximum number of tokens of a prompt."""
        return getattr(self.text_config, "max_position_embeddings", 77)

    @property
    def text_config(self) -> Any:
        """Configuration of the text tower, which its tokenizer must fit; None for a family without one."""
        return getattr(self.config, "text_config", None)

    def _refuse_attention(self, attention_pairs: Tensor | None) -> None:
        """Raise `TypeError` for the `attention_pairs` of a `forward` without attention."""
        if attention_pairs is not None:
            raise TypeError(f"{type(self).__name__} has no attention control: leave attention_pairs out")

    # -- photos -----------------------------------------------------------------------------------------------

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the model's input, in pixels."""
        return self.config.image_shape

    @property
    def ahead_shape(self) -> tuple[int, int] | None:
        """Height and width to which photos may be resized before `prepare`; None if it needs their own size."""
        return self.image_shape

    @property
    def least_area(self) -> int:
        """Minimum area of an object for the second pass of `zoom`, in pixels of the model's input: below a quarter of a
        patch it is noise."""
        vision = getattr(self.config, "vision_config", None)
        return (getattr(vision, "patch_size", 16) // 2) ** 2

    def first_size(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Return height and width of a photo and its labels after the released code's first resizing, from `size`.

        It is `size` itself where that code resizes to the model's size at once.
        """
        return size[0], size[1]

    def prepare(self, photos: Sequence[np.ndarray] | Tensor) -> dict[str, Tensor]:
        """Resize photos, scale them to 0..1 and normalise them, on the model's device.

        Args:
            photos: uint8 `[H, W, 3]` RGB of any sizes; or, in training, a tensor `[B, 3, h, w]` of the model's size,
                uint8 or float in 0..1.
        """
        if isinstance(photos, Tensor):
            values = photos.to(self.device, non_blocking=True)
            return self.normalise(values if values.is_floating_point() else values / 255)
        shape = self.image_shape
        resized = torch.empty(len(photos), *shape, 3, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        np.stack([resize_photo(photo, shape) for photo in photos], out=resized.numpy())
        values = resized.to(self.device, non_blocking=True) / 255  # [B, h, w, 3]
        return self.normalise(values.permute(0, 3, 1, 2))

    def normalise(self, photos: Tensor) -> dict[str, Tensor]:
        """Normalise photos in 0..1, float `[B, 3, h, w]` on the model's device, by the model's mean and std."""
        mean, std = self.colours()[:2]
        return {"pixel_values": ((photos - mean) / std).contiguous().to(self.dtype)}

    def colours(self) -> list[Tensor]:
        """Return the numbers of `colour_fields` on the model's device, float32 `[3, 1, 1]` each."""
        # They are cached, because creating a tensor from numbers waits for the GPU.
        kept = self._colours
        if kept is None or kept[0].device != self.device:
            values = (getattr(self.config, name) for name in self.colour_fields)
            self._colours = kept = [torch.tensor(value, device=self.device).view(3, 1, 1) for value in values]
        return kept

    def with_object_masks(self, inputs: Inputs, masks: Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
        """Add the objects' masks, bool `[H, W]` at each photo's own size, to inputs of a family that takes them.

        Training gives them as one tensor `[B, H, W]` at the model's size.
        """
        raise TypeError(f"{type(self).__name__} takes no object masks")

    # -- predictions ------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def label_maps(
        self,
        inputs: Inputs,
        words: Words,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Compute the label maps of B photos. Here every class is decoded; an override must give the maps of `maps_of`.

        Args:
            sizes: (H, W) of each photo.
            present_objects: object indices of each photo for Oracle-Obj; None for Pred-All.
            with_background: let background compete with the `present_objects`: Pred-All among these objects alone.
        """
        return self.maps_of(self(inputs, words), inputs, words, sizes, present_objects, with_background)

    def maps_of(
        self,
        output: PartOutput,
        inputs: Inputs,
        words: Words,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Compute the label maps of photos whose `output` is given, by the method's rule from logits to labels.

        Here objects decide first, where the output has them, then classes. Other arguments as in `label_maps`.
        """
        owners = words.class_to_object
        if present_objects is None or with_background:
            return pred_all(output, sizes, owners, present_objects)
        return oracle_obj(output, sizes, owners, present_objects)

    @torch.inference_mode()
    def word_maps(self, inputs: Inputs, embeddings: Tensor, sizes: Sequence[tuple[int, int]]) -> list[WordMaps]:
        """Find the most probable of W part words without an object, or background, at every pixel of B photos.

        Args:
            inputs: result of `prepare` for the photos.
            embeddings: `[K, D]`, those of `word_prompts`.
            sizes: (H, W) of each photo.

        Raises `UsageError` for a family that has no maps of parts without objects.
        """
        logits = self.part_word_logits(inputs, embeddings)  # [B, W + 1, h, w]
        photos, count = logits.shape[:2]
        contest = Contest(sizes, logits.device)
        labels = torch.arange(count, device=logits.device)
        contest.add(np.repeat(np.arange(photos), count), logits.flatten(0, 1), labels.repeat(photos))
        return [WordMaps(maps.label_map, maps.scores) for maps in contest.maps(labels[: self.num_words(embeddings)])]

    def num_words(self, embeddings: Tensor) -> int:
        """Return W of the embeddings `[K, D]` of `word_prompts`."""
        return len(embeddings) // len(self.word_prompts(["part"]))

    def word_prompts(self, part_words: Sequence[str]) -> list[str]:
        """Return the K strings for W part words without an object; here the bare words."""
        return list(part_words)

    def part_word_logits(self, inputs: Inputs, embeddings: Tensor) -> Tensor:
        """Compute logits `[B, W + 1, h, w]` of part words without an object, background last.

        `embeddings [K, D]` are those of `word_prompts`. A family without a background leaves its row out.

        Raises `UsageError` for a family that has no maps of parts without an object.
        """
        raise UsageError(
            f"{type(self).__name__} has no maps of parts without an object: name the object of every part, such as "
            '"kettle: body, handle, spout"'
        )

    def word_logits(self, inputs: Inputs, embeddings: Tensor) -> Tensor:
        """Compute logits `[B, W, h, w]` of single words, whose `embeddings [K, D]` are those of `word_prompts`.

        A family with one prompt a word takes each photo's own words `[B, W, D]`, too.

        Raises `PartCLIPSegError` for a family without them, which cannot use word retention.
        """
        raise PartCLIPSegError(f"{type(self).__name__} has no maps of single words: leave word retention out")

    # -- descriptions and defaults -------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """Name of the model in a line for people; the class's name unless the family has more to say."""
        return type(self).__name__

    @property
    def min_part_probability(self) -> float:
        """Minimum probability of the part of a pixel outside of the benchmark protocols, which have none."""
        return MIN_PART_PROBABILITY

    def ask(self, prompting: Prompting) -> None:
        """Change prompts and threshold. Raises `UsageError` for a family whose prompts belong to its training."""
        raise UsageError(
            f"--prompt, --threshold and --no-object-gate are for a plain CLIPSeg, and this is {self.title}: leave them "
            "out"
        )

    # -- speed ------------------------------------------------------------------------------------------------

    def repeated_layers(self) -> list[nn.Module]:
        """Return the repeated layers, which are compiled one by one; none unless the family names them."""
        return []

    def quantise(self) -> None:
        """Compute most products in int8 from now on, for predictions on a CPU.

        Raises `UsageError` for a family that has not been measured so.
        """
        raise UsageError(
            f"int8 is for PartCLIPSeg and the CLIPSeg models, and this is {self.title}: leave --dtype int8 out"
        )

    def require_floats(self) -> None:
        """Raise `UsageError` for a model in int8, whose weights are rounded: it is loaded, not stored, so."""
        if self.int8:
            raise UsageError(
                "a model in int8 cannot be saved: load it in float32, or write it by `partclipseg export --dtype int8`"
            )

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Save as in transformers; raises `UsageError` for a model in int8."""
        self.require_floats()
        return super().save_pretrained(*args, **kwargs)

    @property
    def number_type(self) -> str:
        """Name of the number type of the products, such as ``float32``, or ``int8`` after `quantise`."""
        return "int8" if self.int8 else str(self.dtype).removeprefix("torch.")

    def weights_stamp(self) -> Hashable:
        """Return a value that changes whenever weights are changed in place, moved, cast or exchanged, for caches.

        PyTorch counts no change in place through `data` or `numpy`, as by ``parameter.data.copy_(average)``: call
        `renew_stamp` after it, or write ``with torch.no_grad(): parameter.copy_(average)``.
        """
        stamped, first = self._stamped, next(self.parameters())
        if stamped is None or stamped[1][0] is not first:
            self._stamped = stamped = object(), list(self.parameters())
        token, parameters = stamped
        # Inference tensors have no version. All weights are moved and cast together, so one tells of all.
        versions = 0 if first.is_inference() else sum([parameter._version for parameter in parameters])
        places = hash(tuple([parameter.data_ptr() for parameter in parameters]))  # 35 µs for 500 parameters
        return token, versions, places, first.dtype, first.device

    def renew_stamp(self) -> None:
        """Change the stamp, and drop captured passes: after a module of the model got another parameter, was compiled,
        or was changed through `data`."""
        self._stamped = None
        self._renewed += 1

    # -- training ---------------------------------------------------------------------------------------------

    @classmethod
    def check_settings(cls: type[Any], settings: MethodSettings) -> None:
        """Raise `PartCLIPSegError` for settings that no start makes good, before anything slow; most families have
        none."""

    @classmethod
    def from_start(cls: type[Any], name: str, settings: MethodSettings) -> Any:
        """Load the start of training, in float32 on the CPU. Raises `PartCLIPSegError` if it cannot be loaded."""
        return cls.from_pretrained(name, dtype=torch.float32)

    def trained_parameters(self, settings: MethodSettings) -> list[nn.Parameter]:
        """Freeze all parameters but those that training changes, and return these in the model's order; here all."""
        self.requires_grad_(True)
        return list(self.parameters())

    def take_tokenizer(self, tokenizer: Any) -> None:
        """Note what the model must know of the tokenizer of its start, and add to both what its prompts need beside
        words; most families need nothing."""

    @classmethod
    def word_teacher(cls: type[Any], name: str) -> Any:
        """Load the start in the form whose `word_logits` word retention keeps; None if that start has none."""
        return None

    def trained_on(self, vocabulary: Vocabulary) -> None:
        """Note in the configuration which words the model is or was trained on; most families need no such note."""

    def parameter_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Group the trained parameters by `weight_decay`, and by `lr` where it differs from the run's `learning_rate`.

        Here all have the run's rate; which are decayed, `parameter_groups.groups_by_decay` says.
        """
        return groups_by_decay(self, weight_decay)

    def build_loss(self, settings: MethodSettings, compiled: bool = False) -> Any:
        """Build the training loss, see `losses.classes.ClassLoss`, which is the default and fits every family."""
        return ClassLoss(settings.loss, compiled)

    def add_tokens(self, count: int) -> None:
        """Add embeddings of `count` new tokens to the text tower, in place.

        Raises `PartCLIPSegError` for a family that cannot learn new words.
        """
        raise PartCLIPSegError(f"{type(self).__name__} cannot learn words that its tokenizer lacks: use other words")

    def recompute(self, enabled: bool) -> None:
        """Compute activations again in the backward pass to save memory, if the family supports it."""

    def attention_tokens(self, inputs: Inputs) -> int:
        """Return the number of image tokens of the attention of `inputs`; 0 for a model without attention."""
        return 0

    @torch.no_grad()
    def logits_size(self, inputs: Inputs, words: Words) -> tuple[int, int]:
        """Return height and width of the logits of `inputs`."""
        output = self({name: value[:1] for name, value in inputs.items()}, words)
        return output.object_part_logits.shape[-2], output.object_part_logits.shape[-1]

    # -- export -----------------------------------------------------------------------------------------------

    def onnx_graphs(self) -> dict[str, OnnxGraph]:
        """Return the modules to export, by the name of their file.

        Raises `PartCLIPSegError` for a family that has no export.
        """
        raise PartCLIPSegError(
            f"models of type {self.config.model_type} cannot be exported to ONNX: choose another method"
        )


def register(cls: ModelClass) -> ModelClass:
    """Register a family's class and configuration with transformers' `AutoModel` and `AutoConfig`, as a decorator."""
    AutoConfig.register(cls.config_class.model_type, cls.config_class, exist_ok=True)
    AutoModel.register(cls.config_class, cls, exist_ok=True)
    return cls
