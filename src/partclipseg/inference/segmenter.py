"""Photos and words in, results out."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
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
from partclipseg.files import is_file
from partclipseg.inference.graphs import Graphs
from partclipseg.inference.label_maps import LabelMaps
from partclipseg.inference.pruned import pruned_maps
from partclipseg.inference.result import PartResult
from partclipseg.inference.zoom import look_again
from partclipseg.machine import usable_cores
from partclipseg.vocabulary import Vocabulary

log = logging.getLogger(__name__)

_THREADS = min(16, usable_cores())
"""Threads that decode and resize photos and make results; most of it lets them run beside each other and the model."""

_PROMPTS_AT_ONCE = 512
"""Prompts that go through the text tower together: what bounds the memory for long vocabularies."""

_KEPT_PROMPTS = 50_000
"""Prompts whose embeddings are kept, 100 MB at the released width: what bounds the memory whatever words come."""

BUILT_IN = "partshapes"
"""Name of the built-in model, where no directory has it; it knows PartShapes, the rendered benchmark, only."""


@dataclass(frozen=True, eq=False)
class _Photo:
    name: str
    pixels: np.ndarray
    """uint8 `[H, W, 3]`, as it was read."""
    resized: np.ndarray
    """uint8 `[h, w, 3]`, as the model takes it."""


class PartSegmenter:
    """A model with its tokenizer, ready for photos.

        segmenter = PartSegmenter.from_pretrained("models/pascal")
        result = segmenter("photo.jpg", {"dog": ["head", "ear"], "bus": ["wheel"]})

    Photos are resized to the model's input size, aspect ratio not kept, by Pillow's bilinear filter (antialiased
    where it shrinks), as in training and as the released models were; then divided by 255 and normalised.
    Embeddings of words are kept: a word costs the text tower once, or anew after 50,000 others.
    """

    def __init__(self, model: Any, tokenizer: Any, vocabulary: Vocabulary | None = None) -> None:
        """`model` is a `PartCLIPSegModel` or `CLIPSegBaseline`; `vocabulary` serves calls that give none."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self._embeddings: dict[str, Tensor] = {}
        self._stacked: tuple[list[str], Tensor] | None = None
        self._graphs = Graphs(self.model)
        self._mean_std: tuple[Tensor, Tensor] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        compile: bool = False,
    ) -> PartSegmenter:
        """Load a model directory or hub name; None or `BUILT_IN` is the built-in model, which knows PartShapes only.

        Args:
            name_or_path: a directory as `partclipseg convert` and `train` write it, with the tokenizer's files
                and perhaps a ``vocabulary.json``; a plain CLIPSeg checkpoint is taken as an untrained start.
            device: where to run; None takes CUDA where there is one, else the CPU.
            dtype: of weights and arithmetic, such as ``"float32"``; None is bfloat16 on GPUs that have it, which is
                several times faster there, else float32.
            compile: fuse what lies within the model's layers by `torch.compile`: the first batches take some ten
                seconds longer; after them the model takes up to a fifth less for a batch on a GPU, and as long as
                before for one photo. Pixels with nearly equal classes may change theirs.

        Raises:
            UsageError: unknown or absent device, unknown dtype.
            PartCLIPSegError: no model of that name can be found or loaded, or it cannot be compiled here.
        """
        from partclipseg.model.compiled import compile_layers
        from partclipseg.model.weights import load_model, load_tokenizer

        target = find_device(device)
        number_type = find_dtype(dtype, target)
        source = built_in_model() if name_or_path is None or is_built_in(name_or_path) else os.fspath(name_or_path)
        if source.endswith(".pth") and is_file(source):
            raise PartCLIPSegError(f"{source} is a checkpoint file: make a directory of it by `partclipseg convert`")
        model: Any = load_model(source, dtype=number_type)
        model.to(target)
        if compile:
            compile_layers(model)
        return cls(model, load_tokenizer(source), _load_vocabulary(source))

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
        zoom: bool = False,
        batch_size: int = 8,
        max_pixels: int = MAX_PIXELS,
    ) -> Any:
        """Segment one photo (gives a `PartResult`) or a list or tuple of them (gives a list, in their order).

        Args:
            photos: whatever `read_photo` reads: path, bytes, file, PIL image, uint8 array `[H, W, 3]`.
            vocabulary: whatever `Vocabulary.load` takes; None stands for the model's own.
            objects: the objects that are known to be in the photos. Their parts then share every pixel and there
                is no background (protocol Oracle-Obj); without it anything may be there (Pred-All).
            zoom: look a second time, at crops around small objects at full resolution; see `inference.zoom`.
            batch_size: photos that go through the model together.
            max_pixels: refuse larger photos.

        Raises:
            UsageError: wrong words or options.
            PhotoError: a photo that cannot be read; nothing is returned then. See `segment_many`.
        """
        words = self._vocabulary(vocabulary)
        present = _object_indices(words, objects)
        if not isinstance(photos, list | tuple):
            return self._segment([self._read(photos, max_pixels)], words, present, zoom)[0]()
        results: list[PartResult] = []
        for _, result in self._stream(_chunks(photos, batch_size), words, present, zoom, max_pixels):
            if isinstance(result, PhotoError):
                raise result
            results.append(result)
        return results

    def segment_many(
        self,
        paths: Iterable[Any],
        vocabulary: Any = None,
        *,
        objects: Iterable[str] | None = None,
        zoom: bool = False,
        batch_size: int = 8,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[tuple[Any, PartResult | PhotoError]]:
        """Segment a stream of photos; an unreadable one does not stop the others.

        While the model works on one batch, threads read the next one and make the results of the last; no more are
        held.

        Yields each of `paths` in order with its result, or with the error that says why there is none. Arguments
        as for a call; wrong words or options raise `UsageError` at the call itself.
        """
        words = self._vocabulary(vocabulary)
        present = _object_indices(words, objects)
        return self._stream(_chunks(paths, batch_size), words, present, zoom, max_pixels)

    def _stream(
        self, chunks: Iterator[list[Any]], words: Vocabulary, present: list[int] | None, zoom: bool, max_pixels: int
    ) -> Iterator[tuple[Any, PartResult | PhotoError]]:
        def read(path: Any) -> _Photo | PhotoError:
            try:
                return self._read(path, max_pixels)
            except PhotoError as error:
                return error

        def segmented(pool: ThreadPoolExecutor) -> Iterator[list[tuple[Any, Any]]]:
            for chunk in ahead(([(path, pool.submit(read, path)) for path in chunk] for chunk in chunks), 1):
                answers = [(path, future.result()) for path, future in chunk]
                good = [answer for _, answer in answers if isinstance(answer, _Photo)]
                results = map(pool.submit, self._segment(good, words, present, zoom) if good else [])
                yield [(path, next(results) if isinstance(answer, _Photo) else answer) for path, answer in answers]

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="photos") as pool:
            try:
                for chunk in ahead(segmented(pool), 1):
                    for path, answer in chunk:
                        yield path, answer.result() if isinstance(answer, Future) else answer
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, source: Any, max_pixels: int) -> _Photo:
        photo = read_photo(source, max_pixels)
        return _Photo(_name(source), photo, resize_photo(photo, self.model.config.image_shape))

    def _vocabulary(self, words: Any) -> Vocabulary:
        if words is not None:
            return Vocabulary.load(words)
        if self.vocabulary is None:
            raise UsageError('the model has no words of its own: give a vocabulary, such as "dog: ear, tail"')
        return self.vocabulary

    def _segment(
        self, photos: Sequence[_Photo], vocabulary: Vocabulary, present: list[int] | None, zoom: bool
    ) -> list[Callable[[], PartResult]]:
        """One batch of photos that have been read; the results are still to be made of the maps, in any thread."""
        present_objects = None if present is None else [present] * len(photos)
        maps = self.label_maps(
            self.pixel_values([photo.resized for photo in photos]),
            vocabulary,
            [(photo.pixels.shape[0], photo.pixels.shape[1]) for photo in photos],
            present_objects,
        )
        if zoom:
            maps = self.look_again([photo.pixels for photo in photos], maps, vocabulary, present_objects)
        arrays = _to_host([(m.label_map.int(), m.object_map.int(), m.scores) for m in maps])
        return [
            partial(PartResult.from_maps, labels, objects, scores, vocabulary, photo.pixels, photo.name)
            for (labels, objects, scores), photo in zip(arrays, photos, strict=True)
        ]

    # -- the model's own inputs and outputs -------------------------------------------------------------------

    def label_maps(
        self,
        pixel_values: Tensor,
        vocabulary: Vocabulary,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Label maps at `sizes` (H, W) of `pixel_values`, from what `pruned_maps` decodes; see there."""
        embeddings = self.text_embeddings(self.model.prompts(vocabulary))
        graphs = self._graphs if pixel_values.is_cuda else None
        return pruned_maps(
            self.model, pixel_values, embeddings, vocabulary, sizes, present_objects, with_background, graphs
        )

    def look_again(
        self,
        photos: Sequence[np.ndarray],
        maps: Sequence[LabelMaps],
        vocabulary: Vocabulary,
        present_objects: Sequence[Sequence[int]] | None = None,
    ) -> list[LabelMaps]:
        """The label maps of photos, uint8 `[H, W, 3]` of full size, after a second look: see `inference.zoom`.

        `maps` are those of the first, for the same photos and the same `present_objects`.
        """

        def predict(
            crops: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]], present: Any, with_background: bool
        ) -> list[LabelMaps]:
            return self.label_maps(self.pixel_values(crops), vocabulary, sizes, present, with_background)

        config = self.model.config
        least_area = (config.vision_config.patch_size // 2) ** 2  # a quarter of a patch: below that it is noise
        return look_again(predict, photos, maps, present_objects, config.image_shape, least_area)

    @torch.inference_mode()
    def outputs(self, photos: Sequence[np.ndarray], vocabulary: Vocabulary) -> Any:
        """`PartCLIPSegOutput` of photos, uint8 `[H, W, 3]` RGB of any sizes, in one batch: every class decoded.

        For maps of probabilities; label maps alone are cheaper by `label_maps`.
        """
        return self.model(
            self.pixel_values(photos),
            text_embeddings=self.text_embeddings(self.model.prompts(vocabulary)),
            class_to_part=torch.from_numpy(vocabulary.class_to_part).to(self.device),
            class_to_object=torch.from_numpy(vocabulary.class_to_object).to(self.device),
            num_parts=len(vocabulary.parts),
        )

    def pixel_values(self, photos: Sequence[np.ndarray]) -> Tensor:
        """Photos, uint8 `[H, W, 3]`, as the model takes them: `[B, 3, h, w]` of its dtype, on its device."""
        shape = self.model.config.image_shape
        resized = torch.empty(len(photos), *shape, 3, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        np.stack([resize_photo(photo, shape) for photo in photos], out=resized.numpy())
        mean, std = self._normalisation()
        values = (resized.to(self.device, non_blocking=True) / 255 - mean) / std  # [B, h, w, 3]
        return values.permute(0, 3, 1, 2).contiguous().to(self.model.dtype)

    def _normalisation(self) -> tuple[Tensor, Tensor]:
        # Kept: to make a tensor of numbers on a GPU is to wait for it.
        if self._mean_std is None or self._mean_std[0].device != self.device:
            config = self.model.config
            self._mean_std = (
                torch.tensor(config.image_mean, device=self.device),
                torch.tensor(config.image_std, device=self.device),
            )
        return self._mean_std

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
            if len(self._embeddings) + len(new) > _KEPT_PROMPTS:
                # Copies: each is a row of a batch, which would be kept as a whole.
                self._embeddings = {p: self._embeddings[p].clone() for p in prompts if p in self._embeddings}
            for start in range(0, len(new), _PROMPTS_AT_ONCE):
                rows = slice(start, start + _PROMPTS_AT_ONCE)
                ids, mask = (tokens[name][rows].to(self.device) for name in ("input_ids", "attention_mask"))
                self._embeddings.update(zip(new[rows], self.model.encode_text(ids, mask), strict=True))
        if self._stacked is None or self._stacked[0] != prompts:
            self._stacked = list(prompts), torch.stack([self._embeddings[prompt] for prompt in prompts])
        return self._stacked[1]

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


def find_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The number type of a name; for None bfloat16 if `device` is a GPU that has it, else float32.

    Raises `UsageError` for names other than float32, bfloat16 and float16.
    """
    if dtype is None:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    found = known.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise UsageError(f"unknown dtype {str(dtype)!r}: choose from {', '.join(known)}")
    return found


def _load_vocabulary(source: str) -> Vocabulary | None:
    path = Path(source) / "vocabulary.json"
    return Vocabulary.from_file(path) if is_file(path) else None


def _object_indices(vocabulary: Vocabulary, objects: Iterable[str] | None) -> list[int] | None:
    if objects is None:
        return None
    if isinstance(objects, str):
        raise UsageError(f"objects must be a list of words, not the single string {objects!r}")
    indices = [vocabulary.object_index(word) for word in objects]
    if not indices:
        raise UsageError("the list of objects is empty: name those in the photo, or leave it out")
    return indices


def _to_host(tensors: Sequence[tuple[Tensor, ...]]) -> list[tuple[np.ndarray, ...]]:
    """All of them as arrays, after one wait for their device."""
    if not tensors[0][0].is_cuda:
        return [tuple(tensor.cpu().numpy() for tensor in group) for group in tensors]
    copies = [
        tuple(torch.empty_like(t, device="cpu", pin_memory=True).copy_(t, non_blocking=True) for t in group)
        for group in tensors
    ]
    torch.cuda.current_stream(tensors[0][0].device).synchronize()
    return [tuple(tensor.numpy() for tensor in group) for group in copies]


def _name(photo: Any) -> str:
    if isinstance(photo, str | os.PathLike):
        return os.fsdecode(photo)
    return str(getattr(photo, "filename", "") or getattr(photo, "name", "") or "photo")


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    if size < 1:
        raise UsageError(f"the batch size must be at least 1, not {size}")
    return _batched(iter(items), size)


def ahead(items: Iterator[Any], count: int) -> Iterator[Any]:
    """The same items, each drawn while the one `count` places before it is still in use."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(items, size)):
        yield chunk
