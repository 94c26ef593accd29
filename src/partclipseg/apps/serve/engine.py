"""Engine shared by the HTTP API and the web page: loaded models, limits, and the queue."""

from __future__ import annotations

import io
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from partclipseg.apps.options import check_least, check_positive
from partclipseg.apps.serve.metrics import Metrics
from partclipseg.apps.serve.queue import Batcher
from partclipseg.apps.serve.words import check_count, read_words
from partclipseg.data.photo import photo_formats, read_photo
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.instances.found import FoundObject, ObjectSource
from partclipseg.instances.given import fitted_object
from partclipseg.machine import usable_cores
from partclipseg.models.directory import tokenize, unknown_texts
from partclipseg.models.prompting import Prompting
from partclipseg.models.registry import is_built_in
from partclipseg.vocabulary import Vocabulary


class TooLargeError(PartCLIPSegError):
    """The photo or the request exceeds a limit of the server; the message names it."""


class NoMemoryError(PartCLIPSegError, MemoryError):
    """Raised if the machine or its GPU has no memory for the photo."""

    def __init__(self) -> None:
        super().__init__("the server has no memory for this: send a smaller photo or fewer words")


@dataclass(frozen=True)
class Limits:
    """Limits on one request, and on the number of waiting ones."""

    max_bytes: int = 20_000_000
    """Maximum size of the photo's file, in bytes."""
    max_pixels: int = 25_000_000
    """Maximum size of the photo, width times height."""
    max_classes: int = 500
    """Maximum number of object-parts of a vocabulary."""
    queue: int = 64
    """Maximum number of waiting photos; more are refused at once, as are requests beyond twice as many."""
    timeout: float = 60
    """Maximum number of seconds from the arrival of a request to its answer."""
    max_held: int = 256_000_000
    """Maximum number of bytes of the bodies of all requests being received or answered."""
    max_photos: int = 32
    """Maximum number of photos of one request."""

    def __post_init__(self) -> None:
        check_positive(**vars(self))


class PhotoTask(NamedTuple):
    """Settings that photos must share to go through a model in one batch."""

    model: str
    vocabulary: Vocabulary
    objects: tuple[str, ...] | None
    """Objects known to be in the photo (protocol Oracle-Obj), or None (Pred-All)."""
    zoom: bool = False
    """Whether small objects are segmented a second time, enlarged."""
    min_part_probability: float | None = None
    """Minimum probability of a part at a pixel; None is the model's default."""
    explained: bool = False
    """Whether the result is an `Explained` instead of a `PartResult`."""
    instances: Literal["components", "detector", "given"] | None = None
    """Kind of the source of objects; None if no instances are asked for."""
    rest: bool = False
    """Whether to keep parts that belong to no object found."""


class Waiting(NamedTuple):
    """A photo in the queue, with the objects that the client gives."""

    photo: np.ndarray
    objects: tuple[FoundObject, ...] = ()


class Copy(NamedTuple):
    """Models by name and detector that one thread answers with."""

    segmenters: dict[str, PartSegmenter]
    detector: ObjectSource | None = None


@dataclass
class Engine:
    """Models by name, behind one queue. Thread-safe."""

    segmenters: dict[str, PartSegmenter]
    """Segmenters by model name; the first is the default."""
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    built_in: str | None = None
    """Name of the built-in model, which knows rendered scenes only; None if it is not loaded."""
    detector: ObjectSource | None = None
    """Detector that finds objects for instances, if the server has one."""
    others: tuple[Copy, ...] = ()
    """Further copies of the models, each used by a thread of its own."""

    def __post_init__(self) -> None:
        self._batcher = Batcher(
            *(partial(self._segment, number) for number in range(1 + len(self.others))),
            max_jobs=self.limits.queue,
            max_weight=4 * self.limits.max_pixels,
            on_batch=self.metrics.batch_photos.observe,
        )
        self.metrics.queue_length.set_function(lambda: self.waiting)

    @classmethod
    def load(
        cls,
        models: Sequence[str | None],
        device: str | None,
        dtype: str | None,
        limits: Limits,
        prompting: Prompting | None = None,
        detector: str | None = None,
        threshold: float | None = None,
        workers: int = 1,
    ) -> Engine:
        """Load models, each a directory or hub name, None for the built-in one; raises as `from_pretrained` does.

        `detector` is the directory or hub name of a detector, `threshold` the minimum score of what it finds. There
        are as many copies of all as `workers`, on the GPUs in turn.

        `prompting` is for the plain CLIPSeg among them; raises `UsageError` if there is none.
        """
        names = model_names(models)
        built_in = [name for name, model in zip(names, models, strict=True) if model is None or is_built_in(model)]

        def load(device: str | None) -> Copy:
            found = None
            if detector is not None:
                from partclipseg.instances.detectors import Detector

                found = Detector.from_pretrained(detector, device=device, threshold=threshold)
            segmenters = [PartSegmenter.from_pretrained(model, device, dtype) for model in models]
            if prompting is not None:
                plain = [segmenter.model for segmenter in segmenters if segmenter.model.takes_prompting]
                for model in plain or [segmenters[0].model]:  # which says that it is none
                    model.ask(prompting)
            return Copy(dict(zip(names, segmenters, strict=True)), found)

        first, *others = map(load, worker_devices(device, workers))
        if workers > 1 and next(iter(first.segmenters.values())).device.type == "cpu":
            torch.set_num_threads(max(1, usable_cores() // workers))
        return cls(
            first.segmenters,
            limits,
            built_in=next(iter(built_in), None),
            detector=first.detector,
            others=tuple(others),
        )

    # -- checks -- -----------------------------------------------------------------------

    def read_photo(self, content: bytes) -> np.ndarray:
        """Read a photo as uint8 `[H, W, 3]`.

        Raises `TooLargeError` beyond the limits, `PhotoError` for other files, and `NoMemoryError`.
        """
        if len(content) > self.limits.max_bytes:
            raise TooLargeError(
                f"the photo has {len(content):,} bytes, more than the limit of {self.limits.max_bytes:,}: "
                "make it smaller"
            )
        self._check_pixels(content)
        with memory_errors():
            file = io.BytesIO(content)
            file.name = "the photo"  # the name in error messages
            return read_photo(file, self.limits.max_pixels)

    def _check_pixels(self, content: bytes) -> None:
        # Read the header alone, to tell a photo that is too large from a damaged one.
        try:
            with Image.open(io.BytesIO(content), formats=photo_formats()) as image:
                width, height = image.size
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            width, height = 2 * (Image.MAX_IMAGE_PIXELS or 0), 1
        except Exception:  # read_photo reports the reason
            return
        if width * height > self.limits.max_pixels:
            raise TooLargeError(
                f"the photo has more than {self.limits.max_pixels:,} pixels, the limit of this server: make it smaller"
            )

    def model_name(self, name: str | None) -> str:
        """Return the model's name, or the default for None; raises `UsageError` that lists the models."""
        if name is None:
            return next(iter(self.segmenters))
        if name not in self.segmenters:
            raise UsageError(f"there is no model {name!r} here: choose from {', '.join(self.segmenters)}")
        return name

    def vocabulary(self, words: str | Mapping[str, Any] | Sequence[Any] | None, model: str) -> Vocabulary:
        """Return the vocabulary of words as `read_words` takes them; None or blank stands for `model`'s own words.

        Raises `UsageError` for wrong words or too many of them.
        """
        if isinstance(words, str):
            words = words.strip()
        if words is not None and words != "":
            return read_words(words, self.limits.max_classes)
        own = self.segmenters[model].vocabulary
        if own is None:
            raise UsageError('no words are given: write what to look for, such as "dog: head, torso, leg, tail"')
        check_count(len(own), self.limits.max_classes)
        return own

    def unknown_words(self, model: str, vocabulary: Vocabulary) -> list[str]:
        """Return words that the model's tokenizer has never seen."""
        tokenizer = self.segmenters[model].tokenizer
        words = [*vocabulary.objects, *vocabulary.parts, *vocabulary.anywhere]
        return unknown_texts(tokenizer, words, tokenize(tokenizer, words)["input_ids"])

    # -- queue -- --------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Number of photos that wait for the model; those in the running batch do not count."""
        return len(self._batcher)

    def check_room(self) -> None:
        """Raise `QueueFullError` if a photo would be refused now."""
        self._batcher.check_room()

    def submit(self, task: PhotoTask, photo: np.ndarray, given: Sequence[FoundObject] = ()) -> Future[Any]:
        """Queue a photo, uint8 `[H, W, 3]`. The future gives a `PartResult`, or an `Explained` if the task asks for it,
        or raises `NoMemoryError`. `given` are the photo's objects, if the task's instances are given.

        Raises `QueueFullError` at once, and `UsageError` as `check` does and for objects that are not in the photo.
        """
        self.check(task)
        size = photo.shape[0], photo.shape[1]
        objects = tuple(
            fitted_object(some, size, task.vocabulary, f"object {place} of instances")
            for place, some in enumerate(given, start=1)
        )
        return self._batcher.submit(task, Waiting(photo, objects), photo.shape[0] * photo.shape[1])

    def check(self, task: PhotoTask) -> None:
        """Raise `UsageError` for objects that are not in the vocabulary, and where instances cannot be had."""
        for word in task.objects or ():
            task.vocabulary.object_index(word)
        if task.instances is not None and task.vocabulary.paired is None:
            raise UsageError(
                'the vocabulary names no object, so there are no instances: write "kettle: body, lid, handle"'
            )
        if task.instances == "detector" and self.detector is None:
            raise UsageError("this server has no detector: use components or boxes, or start it with --detector")

    def close(self) -> None:
        """Finish the queued photos and accept no more."""
        self._batcher.close()

    def _segment(self, worker: int, task: Hashable, waiting: Sequence[Waiting]) -> Sequence[Any]:
        assert isinstance(task, PhotoTask)
        photos = [one.photo for one in waiting]
        copy = self.others[worker - 1] if worker else Copy(self.segmenters, self.detector)
        with self.metrics.model_seconds.time(), memory_errors():
            segmenter = copy.segmenters[task.model]
            if task.explained:
                from partclipseg.apps.serve.explain import explain

                asked = task.vocabulary, task.objects, task.zoom, task.min_part_probability
                explained = [explain(segmenter, photo, *asked) for photo in photos]
                if task.instances is None:
                    return explained
                # The maps are those of the whole photo; the result is that of the looks at each object.
                owned = _results(copy, task, waiting)
                return [replace(one, result=result) for one, result in zip(explained, owned, strict=True)]
            return _results(copy, task, waiting)


def _results(copy: Copy, task: PhotoTask, waiting: Sequence[Waiting]) -> Sequence[PartResult]:
    sources = {
        None: None,
        "components": "components",
        "detector": copy.detector,
        "given": [list(one.objects) for one in waiting],
    }
    return copy.segmenters[task.model](
        [one.photo for one in waiting],
        task.vocabulary,
        objects=task.objects,
        zoom=task.zoom,
        min_part_probability=task.min_part_probability,
        instances=sources[task.instances],
        rest=task.rest,
        batch_size=len(waiting),
    )


def worker_devices(device: str | None, workers: int) -> list[str | None]:
    """Return the device of each worker: the GPUs in turn, unless `device` names a single one."""
    check_least(workers=(workers, 1))
    count = torch.cuda.device_count() if device in {None, "cuda"} else 0
    if workers > 1 and count:
        return [f"cuda:{number % count}" for number in range(workers)]
    return [device] * workers


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise `NoMemoryError` for every error that says that the machine or its GPU has no memory."""
    try:
        yield
    except RuntimeError as error:
        # On a GPU the error has its own class; on a CPU only the message tells.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise NoMemoryError from error
    except MemoryError as error:
        raise NoMemoryError from error


def model_names(models: Sequence[str | None]) -> list[str]:
    """Return names of the models for clients: the last component of each path, or all of it if two are equal."""
    from partclipseg.models.registry import BUILT_IN

    full = [BUILT_IN if model is None else model for model in models]
    short = [Path(name).name or name for name in full]
    names = [name if short.count(name) == 1 else long for name, long in zip(short, full, strict=True)]
    if len(set(names)) < len(names):
        raise UsageError("the same model is named twice: name each once")
    return names


def named_result(result: PartResult, name: str | None) -> PartResult:
    """Return the result under the name of the photo's file, or else `photo`.

    Folders, characters that no file may have, and dots and spaces at both ends are left out; of a name with more than
    100 characters the last 100 stay. So two names may become one.
    """
    clean = "".join(letter for letter in (name or "").replace("\\", "/").rpartition("/")[2] if letter.isprintable())
    clean = clean.encode("utf-8", "ignore").decode().strip(". ")[-100:].lstrip(". ")
    return replace(result, name=clean or "photo")
