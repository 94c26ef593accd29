"""Photos and words in, results out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from partclipseg.data.augment import resize_photo
from partclipseg.data.photo import MAX_PIXELS, PhotoError, read_photo
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.inference.label_maps import LabelMaps, oracle_obj, pred_all
from partclipseg.inference.result import PartResult
from partclipseg.vocabulary import Vocabulary

log = logging.getLogger(__name__)

BUILT_IN = "partshapes"
"""Name of the built-in model, where no directory has it; it knows PartShapes, the rendered benchmark, only."""


class PartSegmenter:
    """A model with its tokenizer, ready for photos.

        segmenter = PartSegmenter.from_pretrained("models/pascal")
        result = segmenter("photo.jpg", {"dog": ["head", "ear"], "bus": ["wheel"]})

    Photos are resized to the model's input size, aspect ratio not kept, by Pillow's bilinear filter (antialiased
    where it shrinks), as in training and as the released models were; then divided by 255 and normalised.
    Embeddings of words are kept: a word costs the text tower once for the life of the segmenter.
    """

    def __init__(self, model: Any, tokenizer: Any, vocabulary: Vocabulary | None = None) -> None:
        """`model` is a `PartCLIPSegModel` or `CLIPSegBaseline`; `vocabulary` serves calls that give none."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self._embeddings: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> PartSegmenter:
        """Load a model directory or hub name; None or `BUILT_IN` is the built-in model, which knows PartShapes only.

        Args:
            name_or_path: a directory as `partclipseg convert` and `train` write it, with the tokenizer's files
                and perhaps a ``vocabulary.json``; a plain CLIPSeg checkpoint is taken as an untrained start.
            device: where to run; None takes CUDA where there is one, else the CPU.
            dtype: of weights and arithmetic, such as ``"bfloat16"``; None is float32.

        Raises:
            UsageError: unknown or absent device, unknown dtype.
            PartCLIPSegError: no model of that name can be found or loaded.
        """
        from partclipseg.model.weights import load_model, load_tokenizer

        target, number_type = find_device(device), find_dtype(dtype)
        source = built_in_model() if name_or_path is None or is_built_in(name_or_path) else os.fspath(name_or_path)
        if source.endswith(".pth") and Path(source).is_file():
            raise PartCLIPSegError(f"{source} is a checkpoint file: make a directory of it by `partclipseg convert`")
        model: Any = load_model(source, dtype=number_type)
        return cls(model.to(target), load_tokenizer(source), _load_vocabulary(source))

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    # -- photos to results ------------------------------------------------------------------------------------

    def __call__(
        self,
        photos: Any,
        vocabulary: Any = None,
        *,
        objects: Iterable[str] | None = None,
        batch_size: int = 8,
        max_pixels: int = MAX_PIXELS,
    ) -> Any:
        """Segment one photo (gives a `PartResult`) or a list or tuple of them (gives a list, in their order).

        Args:
            photos: whatever `read_photo` reads: path, bytes, file, PIL image, uint8 array `[H, W, 3]`.
            vocabulary: whatever `Vocabulary.load` takes; None stands for the model's own.
            objects: the objects that are known to be in the photos. Their parts then share every pixel and there
                is no background (protocol Oracle-Obj); without it anything may be there (Pred-All).
            batch_size: photos that go through the model together.
            max_pixels: refuse larger photos.

        Raises:
            UsageError: wrong words or options.
            PhotoError: a photo that cannot be read; nothing is returned then. See `segment_many`.
        """
        words = self._vocabulary(vocabulary)
        present = _object_indices(words, objects)
        if not isinstance(photos, list | tuple):
            return self._segment([(_name(photos), read_photo(photos, max_pixels))], words, present)[0]
        results: list[PartResult] = []
        for chunk in _chunks(photos, batch_size):
            read = [(_name(photo), read_photo(photo, max_pixels)) for photo in chunk]
            results += self._segment(read, words, present)
        return results

    def segment_many(
        self,
        paths: Iterable[Any],
        vocabulary: Any = None,
        *,
        objects: Iterable[str] | None = None,
        batch_size: int = 8,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[tuple[Any, PartResult | PhotoError]]:
        """Segment a stream of photos, holding one batch at a time; an unreadable one does not stop the others.

        Yields each of `paths` in order with its result, or with the error that says why there is none. Arguments
        as for a call; wrong words or options raise `UsageError` at the call itself.
        """
        words = self._vocabulary(vocabulary)
        present = _object_indices(words, objects)
        return self._stream(_chunks(paths, batch_size), words, present, max_pixels)

    def _stream(
        self, chunks: Iterator[list[Any]], words: Vocabulary, present: list[int] | None, max_pixels: int
    ) -> Iterator[tuple[Any, PartResult | PhotoError]]:
        for chunk in chunks:
            good: list[tuple[str, np.ndarray]] = []
            errors: dict[int, PhotoError] = {}
            for position, path in enumerate(chunk):
                try:
                    good.append((_name(path), read_photo(path, max_pixels)))
                except PhotoError as error:
                    errors[position] = error
            results = iter(self._segment(good, words, present) if good else [])
            for position, path in enumerate(chunk):
                yield path, errors[position] if position in errors else next(results)

    def _vocabulary(self, words: Any) -> Vocabulary:
        if words is not None:
            return Vocabulary.load(words)
        if self.vocabulary is None:
            raise UsageError('the model has no words of its own: give a vocabulary, such as "dog: ear, tail"')
        return self.vocabulary

    def _segment(
        self, photos: Sequence[tuple[str, np.ndarray]], vocabulary: Vocabulary, present: list[int] | None
    ) -> list[PartResult]:
        """One batch of named photos, uint8 `[H, W, 3]`."""
        sizes = [(photo.shape[0], photo.shape[1]) for _, photo in photos]
        with torch.inference_mode():
            output = self.outputs([photo for _, photo in photos], vocabulary)
            if present is None:
                maps = pred_all(output, sizes, vocabulary.class_to_object)
            else:
                maps = oracle_obj(output, sizes, vocabulary.class_to_object, [present] * len(photos))
        return [_result(m, vocabulary, photo, name) for m, (name, photo) in zip(maps, photos, strict=True)]

    # -- the model's own inputs and outputs -------------------------------------------------------------------

    @torch.inference_mode()
    def outputs(self, photos: Sequence[np.ndarray], vocabulary: Vocabulary) -> Any:
        """`PartCLIPSegOutput` of photos, uint8 `[H, W, 3]` RGB of any sizes, in one batch."""
        return self.model(
            self.pixel_values(photos),
            text_embeddings=self.text_embeddings(self.model.prompts(vocabulary)),
            class_to_part=torch.from_numpy(vocabulary.class_to_part).to(self.device),
            class_to_object=torch.from_numpy(vocabulary.class_to_object).to(self.device),
            num_parts=len(vocabulary.parts),
        )

    def pixel_values(self, photos: Sequence[np.ndarray]) -> Tensor:
        """Photos, uint8 `[H, W, 3]`, as the model takes them: `[B, 3, h, w]` of its dtype, on its device."""
        config = self.model.config
        resized = torch.from_numpy(np.stack([resize_photo(photo, config.image_shape) for photo in photos]))
        mean, std = (torch.tensor(x, device=self.device) for x in (config.image_mean, config.image_std))
        values = (resized.to(self.device) / 255 - mean) / std  # [B, h, w, 3]
        return values.permute(0, 3, 1, 2).contiguous().to(self.model.dtype)

    @torch.inference_mode()
    def text_embeddings(self, prompts: Sequence[str]) -> Tensor:
        """`[K, D]`, from what is kept; only new prompts go through the text tower.

        Raises `UsageError` for a prompt that is longer than the text tower can read.
        """
        if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._embeddings]:
            tokens = self.tokenizer(new, padding=True, return_tensors="pt")
            longest = self.model.config.text_config.max_position_embeddings
            for prompt, length in zip(new, tokens["attention_mask"].sum(1).tolist(), strict=True):
                if length > longest:
                    raise UsageError(f"{prompt!r} is {length} tokens long, more than {longest}: use a shorter word")
            self._warn_of_unknown(new, tokens["input_ids"])
            embeddings = self.model.encode_text(
                tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
            )
            self._embeddings.update(zip(new, embeddings, strict=True))
        return torch.stack([self._embeddings[prompt] for prompt in prompts])

    def _warn_of_unknown(self, prompts: Sequence[str], input_ids: Tensor) -> None:
        # CLIP's own tokenizer spells out any word; that of the built-in model has a list of whole words.
        unknown = self.tokenizer.unk_token_id
        if unknown is None or unknown == self.tokenizer.eos_token_id:
            return
        if words := [word for word, ids in zip(prompts, input_ids, strict=True) if (ids == unknown).any()]:
            log.warning("the model has never seen these words and can only guess: %s", ", ".join(words))


def is_built_in(name_or_path: str | Path) -> bool:
    """Whether a name stands for the built-in model: `BUILT_IN`, unless there is a directory of that name."""
    return os.fspath(name_or_path) == BUILT_IN and not Path(BUILT_IN).exists()


def built_in_model() -> str:
    """Directory of the built-in model; raises `PartCLIPSegError` where this installation has none."""
    directory = Path(str(files("partclipseg"))) / "assets" / BUILT_IN
    if not (directory / "config.json").is_file():
        raise PartCLIPSegError("this installation has no built-in model: name a model's directory with --model")
    return str(directory)


def find_device(device: str | torch.device | None) -> torch.device:
    """The device to run on; None takes CUDA where there is one. Raises `UsageError` for one that is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # absent devices raise any of the three
        raise UsageError(f"there is no device {str(device)!r} here: use 'cpu' or leave the option out") from error
    return found


def find_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """float32 for None; raises `UsageError` for names other than float32, bfloat16 and float16."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    found = known.get(str(dtype).removeprefix("torch.")) if dtype is not None else torch.float32
    if found is None:
        raise UsageError(f"unknown dtype {str(dtype)!r}: choose from {', '.join(known)}")
    return found


def _load_vocabulary(source: str) -> Vocabulary | None:
    path = Path(source) / "vocabulary.json"
    return Vocabulary.from_file(path) if path.is_file() else None


def _object_indices(vocabulary: Vocabulary, objects: Iterable[str] | None) -> list[int] | None:
    if objects is None:
        return None
    if isinstance(objects, str):
        raise UsageError(f"objects must be a list of words, not the single string {objects!r}")
    indices = [vocabulary.object_index(word) for word in objects]
    if not indices:
        raise UsageError("the list of objects is empty: name those in the photo, or leave it out")
    return indices


def _result(maps: LabelMaps, vocabulary: Vocabulary, photo: np.ndarray, name: str) -> PartResult:
    labels, objects, scores = (tensor.cpu().numpy() for tensor in maps)
    return PartResult.from_maps(labels, objects, scores, vocabulary, photo, name)


def _name(photo: Any) -> str:
    if isinstance(photo, str | os.PathLike):
        return os.fsdecode(photo)
    return str(getattr(photo, "filename", "") or getattr(photo, "name", "") or "photo")


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    if size < 1:
        raise UsageError(f"the batch size must be at least 1, not {size}")
    return _batched(iter(items), size)


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(items, size)):
        yield chunk
