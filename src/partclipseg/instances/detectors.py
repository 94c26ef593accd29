"""Detectors that find the objects of any words: OWLv2, Grounding DINO, MM Grounding DINO, and SAM 3 by name.

The models are transformers'; text and photos are prepared here, so that neither torchvision nor SciPy is needed.
Each photo runs alone: in a batch, Grounding DINO finds other objects in a photo that is padded beside a larger one.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from partclipseg.data.values import quoted
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.instances.found import FoundObject
from partclipseg.instances.pretrained import (
    CLIP,
    HALVES,
    IMAGENET,
    PhotoSettings,
    Pretrained,
    enlarge,
    load_foreign,
    resized_shape,
    squared,
    to_values,
)
from partclipseg.models.directory import check_tokenizer, load_tokenizer, tokenize, unknown_texts
from partclipseg.models.registry import BUILT_IN_DETECTOR, built_in_detector, is_built_in

log = logging.getLogger(__name__)

PROMPTS_AT_ONCE = 500
"""Number of OWLv2's prompts in one pass; it limits the memory for long lists of words."""

OWN_THRESHOLD = "detection_threshold"
"""Entry of a detector's configuration that sets its threshold in place of the usual one."""

_BERT = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
"""Tokens that Grounding DINO's own code knows by these numbers: they cut its text into words."""


class Boxes(NamedTuple):
    """Boxes and scores found in one photo, float32 tensors on the detector's device."""

    corners: Tensor
    """`[n, 4]`: x, y, x, y of two corners, in pixels of the photo."""
    scores: Tensor
    """`[n]`, 0 to 1."""
    words: Tensor
    """int64 `[n]`: index of the word."""
    masks: Tensor | None = None
    """`[n, h, w]` of any size: enlarged bilinearly, they are above 0 at the object's pixels."""


class Detector(ABC):
    """A pretrained detector; it finds objects of any words in photos.

        detector = Detector.from_pretrained("IDEA-Research/grounding-dino-tiny")
        result = segmenter("photo.jpg", words, instances=detector)

    Boxes may reach beyond the photo and lie over each other, as the model gives them: `instances.found.select`, which
    the segmenter calls, sees to both. Threads may share a detector.
    """

    usual_threshold: ClassVar[float]
    """Threshold of the model's authors or of transformers; none was tuned here."""

    def __init__(self, pretrained: Pretrained, threshold: float | None = None) -> None:
        """Use a loaded model; `threshold` is the minimum score, 0 to 1, of an object."""
        self.model = pretrained.model
        self.pretrained = pretrained
        self.threshold = self._own_threshold() if threshold is None else threshold
        if not _is_share(self.threshold):
            raise UsageError(f"the threshold of a detector must be from 0 to 1, not {quoted(threshold)}")

    @staticmethod
    def from_pretrained(
        name_or_dir: str | Path,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        threshold: float | None = None,
    ) -> Detector:
        """Load a detector.

        Args:
            name_or_dir: name on the hub, such as ``"google/owlv2-base-patch16-ensemble"``, or a directory; or
                ``"partshapes-detector"``, the built-in one, which knows PartShapes only.
            device: device to run on; None takes CUDA or MPS if available, else the CPU.
            dtype: number type of weights and arithmetic; None is float32. In bfloat16 boxes come in steps of some
                four pixels of 1,000.
            threshold: minimum score of an object, 0 to 1; None is the one that the model's own configuration states
                (``detection_threshold``), else 0.1 for OWLv2, 0.25 for Grounding DINO, 0.4 for MM
                Grounding DINO, 0.3 for SAM 3.

        Raises:
            UsageError: unknown or absent device, unknown dtype, threshold outside of 0 to 1.
            PartCLIPSegError: no such model can be found or loaded, or it is none of these detectors.
        """
        if is_built_in(name_or_dir, BUILT_IN_DETECTOR):
            name_or_dir = built_in_detector()
        classes = {kind: model_class for kind, (_, model_class) in _FAMILIES.items()}
        pretrained = load_foreign(name_or_dir, classes, "a detector", device, dtype)
        return _FAMILIES[pretrained.kind][0](pretrained, threshold)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    @torch.inference_mode()
    def find(self, photos: Sequence[np.ndarray], words: Sequence[str]) -> list[list[FoundObject]]:
        """Return the objects that `words` name in each photo, uint8 `[H, W, 3]`, the surest first.

        Each of them has the word that fits it best. Raises `UsageError` for a word that the detector cannot read.
        """
        words = list(words)
        if not words:
            return [[] for _ in photos]
        passes = self.passes(words)
        return [self._found(self.look(photo, passes), words, (photo.shape[0], photo.shape[1])) for photo in photos]

    def _own_threshold(self) -> float:
        """Return the threshold that the model's configuration states, else the usual one of its kind."""
        threshold = getattr(self.model.config, OWN_THRESHOLD, self.usual_threshold)
        if not _is_share(threshold):
            raise PartCLIPSegError(
                f"the config.json in {self.pretrained.folder} states a {OWN_THRESHOLD} of {quoted(threshold)}, which "
                "must be a number from 0 to 1: correct it there, or give a threshold"
            )
        return float(threshold)

    @abstractmethod
    def passes(self, words: Sequence[str]) -> list[Any]:
        """Return the text inputs of the model: one for each pass that it takes for all `words`."""

    @abstractmethod
    def look(self, photo: np.ndarray, passes: list[Any]) -> Boxes:
        """Return everything in a photo, uint8 `[H, W, 3]`, of whatever score."""

    def _found(self, boxes: Boxes, words: list[str], size: tuple[int, int]) -> list[FoundObject]:
        order = torch.argsort(boxes.scores, descending=True, stable=True)
        order = order[boxes.scores[order] >= self.threshold]
        masks: Iterator[np.ndarray | None] = iter([None] * len(order))
        if boxes.masks is not None:
            masks = (enlarge(boxes.masks[place], size) for place in order)
        rows = zip(
            boxes.corners[order].double().tolist(), boxes.scores[order].tolist(), boxes.words[order].tolist(), masks,
            strict=True,
        )  # fmt: skip
        return [
            FoundObject.from_corners(words[word], x0, y0, x1, y1, score, mask)
            for (x0, y0, x1, y1), score, word, mask in rows
        ]


def _is_share(value: Any) -> bool:
    """Whether a value is a number from 0 to 1."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= 1


def _corners(centre_and_size: Tensor, width: float, height: float) -> Tensor:
    """Return the corners `[n, 4]` in pixels of boxes `[n, 4]`: x and y of the centre, width, height, as shares."""
    centre, size = centre_and_size.float().split(2, -1)
    scale = torch.tensor([width, height] * 2, device=centre.device)
    return torch.cat([centre - size / 2, centre + size / 2], -1) * scale


def owlv2_prompt(word: str) -> str:
    """Return the prompt by which OWLv2 is asked for a word."""
    return f"a photo of a {word}"


class Owlv2(Detector):
    """OWLv2: 3,600 boxes of a photo, each compared with all words."""

    usual_threshold = 0.1

    def __init__(self, pretrained: Pretrained, threshold: float | None = None) -> None:
        super().__init__(pretrained, threshold)
        self._words: list[str] = []

    @cached_property
    def _tokenizer(self) -> Any:
        # The text tower reads at the token of the greatest number, which must be the end token.
        return load_tokenizer(self.pretrained.folder, self.model.config.text_config)

    def passes(self, words: Sequence[str]) -> list[dict[str, Tensor]]:
        """Return token ids `[Q, 16]` and their mask of up to `PROMPTS_AT_ONCE` prompts each."""
        length = self.model.config.text_config.max_position_embeddings
        prompts = [owlv2_prompt(word) for word in words]
        if list(words) != self._words:
            self._words = list(words)
            self._warn(words, length)
        tokens = tokenize(
            self._tokenizer, prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        names = ("input_ids", "attention_mask")
        return [
            {name: tokens[name][start : start + PROMPTS_AT_ONCE].to(self.device) for name in names}
            for start in range(0, len(prompts), PROMPTS_AT_ONCE)
        ]

    def _warn(self, words: Sequence[str], length: int) -> None:
        """Name the words that are cut to `length` tokens, and those that the tokenizer does not know."""
        tokens = tokenize(self._tokenizer, [owlv2_prompt(word) for word in words], verbose=False)["input_ids"]
        if cut := [word for word, ids in zip(words, tokens, strict=True) if len(ids) > length]:
            log.warning("the detector reads the first %d tokens only of: %s", length, ", ".join(cut))
        if unknown := unknown_texts(self._tokenizer, words, tokens):
            log.warning("the detector has never seen these words and can only guess: %s", ", ".join(unknown))

    @cached_property
    def _statistics(self) -> Any:
        return self.pretrained.statistics(CLIP)

    def look(self, photo: np.ndarray, passes: list[Any]) -> Boxes:
        """Return all boxes with their best word."""
        side = self.model.config.vision_config.image_size
        values = to_values(squared(photo), (side, side), self._statistics).to(self.device, self.model.dtype)
        outputs = [self.model(**tokens, pixel_values=values) for tokens in passes]
        # A photo's boxes are the same in each pass.
        logits, words = torch.cat([output.logits[0].float() for output in outputs], -1).max(-1)
        longer = max(photo.shape[:2])
        return Boxes(_corners(outputs[0].pred_boxes[0], longer, longer), logits.sigmoid(), words)


class Phrases(NamedTuple):
    """Text of one pass of Grounding DINO."""

    inputs: dict[str, Tensor]
    spans: list[slice]
    """Tokens of each word."""
    first: int
    """Index of the first word."""


class GroundingDino(Detector):
    """Grounding DINO: 900 boxes of a photo and a text of words, each ended by a full stop."""

    usual_threshold = 0.25

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = load_tokenizer(self.pretrained.folder)
        numbers = {token: tokenizer.convert_tokens_to_ids(token) for token in _BERT}
        if numbers != _BERT or len(tokenizer) > self.model.config.text_config.vocab_size:
            raise PartCLIPSegError(
                f"the tokenizer in {self.pretrained.folder} is not BERT's, which Grounding DINO reads by: give a "
                "directory with the tokenizer that the model was trained with"
            )
        return tokenizer

    def passes(self, words: Sequence[str]) -> list[Phrases]:
        """Return the text of as many words as fit, for one pass after another."""
        most = self.model.config.max_text_len - 2  # but for the tokens at both ends
        marks = set(_BERT.values())
        texts: list[list[list[int]]] = [[]]
        ids = tokenize(self._tokenizer, [word.lower() for word in words], add_special_tokens=False)["input_ids"]
        for word, tokens in zip(words, ids, strict=True):
            # A full stop or question mark within a word would end it.
            tokens = [token for token in tokens if token not in marks]
            unknown = not set(tokens) - {self._tokenizer.unk_token_id}
            if unknown or len(tokens) >= most:
                reason = "has nothing that the detector can read" if unknown else "is too long for the detector"
                raise UsageError(f"the word {word!r} {reason}: name the object by other words")
            if texts[-1] and sum(len(some) + 1 for some in texts[-1]) + len(tokens) + 1 > most:
                texts.append([])
            texts[-1].append(tokens)
        starts = accumulate((len(some) for some in texts), initial=0)
        return [self._phrases(some, first) for some, first in zip(texts, starts, strict=False)]

    def _phrases(self, words: list[list[int]], first: int) -> Phrases:
        ids, spans = [_BERT["[CLS]"]], []
        for tokens in words:
            spans.append(slice(len(ids), len(ids) + len(tokens)))
            ids += [*tokens, _BERT["."]]
        text = torch.tensor([[*ids, _BERT["[SEP]"]]], device=self.device)
        inputs = {"input_ids": text, "token_type_ids": torch.zeros_like(text), "attention_mask": torch.ones_like(text)}
        return Phrases(inputs, spans, first)

    @cached_property
    def _preparation(self) -> PhotoSettings:
        return self.pretrained.preparation(800, 1333, IMAGENET)

    def look(self, photo: np.ndarray, passes: list[Any]) -> Boxes:
        """Return the boxes of all passes, each with the best word of its pass."""
        height, width = photo.shape[:2]
        shortest, longest, statistics = self._preparation
        values = to_values(photo, resized_shape(height, width, shortest, longest), statistics)
        values = values.to(self.device, self.model.dtype)
        found = []
        for text in passes:
            output = self.model(**text.inputs, pixel_values=values)
            tokens = output.logits[0].float()
            # A word's score is that of its best token; what transformers decodes from tokens is no word of the list.
            logits, words = torch.stack([tokens[:, span].amax(-1) for span in text.spans], -1).max(-1)
            found.append(Boxes(_corners(output.pred_boxes[0], width, height), logits.sigmoid(), words + text.first))
        return Boxes(*(torch.cat([boxes[field] for boxes in found]) for field in range(3)))


class MMGroundingDino(GroundingDino):
    """MM Grounding DINO: the same, trained by OpenMMLab."""

    usual_threshold = 0.4


class Sam3(Detector):
    """SAM 3: 200 boxes and masks of a photo for each word, one word after another."""

    usual_threshold = 0.3

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = load_tokenizer(self.pretrained.folder)
        check_tokenizer(tokenizer, self.model.config.text_config, self.pretrained.folder)
        return tokenizer

    def passes(self, words: Sequence[str]) -> list[Any]:
        """Return the embedded text of each word and the mask of its tokens `[1, 32]`."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = tokenize(
            self._tokenizer, words, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).to(self.device)
        rows = zip(tokens["input_ids"].split(1), tokens["attention_mask"].split(1), strict=True)
        return [
            (self.model.get_text_features(input_ids=ids, attention_mask=mask, return_dict=True), mask)
            for ids, mask in rows
        ]

    @cached_property
    def _statistics(self) -> Any:
        return self.pretrained.statistics(HALVES)

    def look(self, photo: np.ndarray, passes: list[Any]) -> Boxes:
        """Return what is found of each word, with masks."""
        height, width = photo.shape[:2]
        side = self.model.config.vision_config.image_size
        values = to_values(photo, (side, side), self._statistics).to(self.device, self.model.dtype)
        vision = self.model.get_vision_features(pixel_values=values)
        scale = torch.tensor([width, height] * 2, device=self.device)
        found = []
        for word, (text, mask) in enumerate(passes):
            output = self.model(vision_embeds=vision, text_embeds=text, attention_mask=mask)
            scores = output.pred_logits[0].float().sigmoid() * output.presence_logits[0].float().sigmoid()
            keep = scores >= self.threshold  # masks of all queries of all words would take gigabytes
            words = torch.full_like(scores[keep], word, dtype=torch.long)
            # Probabilities are enlarged, not logits, as by the authors: from one half on a pixel is the object's.
            masks = output.pred_masks[0][keep].float().sigmoid() - 0.5
            found.append((output.pred_boxes[0][keep].float() * scale, scores[keep], words, masks))
        return Boxes(*(torch.cat(values) for values in zip(*found, strict=True)))


_FAMILIES: dict[str, tuple[type[Detector], str]] = {
    "owlv2": (Owlv2, "Owlv2ForObjectDetection"),
    "grounding-dino": (GroundingDino, "GroundingDinoForObjectDetection"),
    "mm-grounding-dino": (MMGroundingDino, "MMGroundingDinoForObjectDetection"),
    "sam3": (Sam3, "Sam3Model"),
    "sam3_video": (Sam3, "Sam3Model"),
}
"""Our class and that of transformers for each `model_type`; the files of SAM 3 say ``sam3_video``."""
