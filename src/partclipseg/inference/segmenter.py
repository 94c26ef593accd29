"""Segment photos with a model and words."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from partclipseg.data.photo import PhotoError
from partclipseg.errors import UsageError
from partclipseg.files import whole_directory
from partclipseg.inference.asked import Asked, WithObjects, given_for_each, given_for_one
from partclipseg.inference.batch import segment_batch
from partclipseg.inference.options import SegmentOptions
from partclipseg.inference.photos import LoadedPhoto, stream
from partclipseg.inference.result import PartResult
from partclipseg.inference.zoom import look_again
from partclipseg.maps.crops import PredictCrops
from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.directory import load_tokenizer, load_vocabulary, tokenize, unknown_texts, write_directory
from partclipseg.models.fetch import find_model
from partclipseg.models.interface import Inputs, PartModel, PartOutput, WordMaps, Words
from partclipseg.models.names import check_hub_name
from partclipseg.models.number_types import PREDICTION_TYPES
from partclipseg.models.prompting import Prompting
from partclipseg.models.reading import library_errors
from partclipseg.models.registry import built_in_model as built_in_model  # its former place, for scripts of users
from partclipseg.models.registry import find_device, find_dtype, load_model
from partclipseg.vocabulary import Vocabulary
from partclipseg.writing import writing

log = logging.getLogger(__name__)

PROMPTS_AT_ONCE = 512
"""Number of prompts per batch of the text tower; it limits the memory for long vocabularies."""

KEPT_PROMPTS = 50_000
"""Number of prompts whose embeddings are cached, 100 MB at the released width."""


class PromptTooLongError(UsageError):
    """Raised for a prompt of more tokens than the text tower can read."""


class PartSegmenter:
    """A model with its tokenizer, ready for photos.

        segmenter = PartSegmenter.from_pretrained("models/pascal")
        result = segmenter("photo.jpg", {"dog": ["head", "torso", "leg", "tail"], "bus": ["body", "wheel"]})

    Photos are resized to the model's input size, aspect ratio not kept, by Pillow's bilinear filter (antialiased
    where it shrinks), as in training and as the released models were; then divided by 255 and normalised.
    Embeddings of words are cached: a word goes through the text tower once, or again after 50,000 others, and when the
    weights have changed; after a change in place through ``parameter.data`` call `model.renew_stamp`.

    Threads may share a segmenter: their photos go through the model one call after the other.
    """

    def __init__(self, model: PartModel, tokenizer: Any, vocabulary: Vocabulary | None = None) -> None:
        """Wrap a model and its tokenizer; `vocabulary` is for calls that give none."""
        self.model: PartModel = model.eval()
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self._embeddings: dict[str, Tensor] = {}
        self._embedded_by: Hashable = None
        self._stacked: tuple[list[str], Tensor] | None = None
        self._words: Words | None = None
        self._turn = RLock()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        compile: bool = False,
        prompting: Prompting | None = None,
    ) -> PartSegmenter:
        """Load a model; None or `BUILT_IN` is the built-in one, which knows PartShapes only.

        Args:
            name_or_path: a name that `partclipseg models` lists, which is fetched once and kept; a name on the hub; or
                a directory as `partclipseg convert` and `train` write it, with the tokenizer's files and perhaps a
                ``vocabulary.json``; or a plain CLIPSeg, which answers as it is, without training.
            device: device to run on; None takes CUDA or MPS if available, else the CPU.
            dtype: number type of weights and arithmetic, such as ``"float32"``; None is bfloat16 on GPUs that have it,
                which is several times faster there, else float32. ``"int8"`` is for CPUs: products of the photo tower
                and of the decoder's hidden layers in int8, the rest in float32.
            compile: fuse what lies within the model's layers by `torch.compile`: the first batches take some ten
                seconds longer; after them the model takes up to a fifth less for a batch on a GPU, and as long as
                before for one photo. Pixels with nearly equal classes may change theirs.
            prompting: prompts, threshold and object gate of a plain CLIPSeg; None are its defaults.

        Raises:
            UsageError: unknown or absent device, unknown dtype, `prompting` for a model of another type, int8 on a
                GPU, on a CPU without fast products of it, or for a model of another family than CLIPSeg's.
            PartCLIPSegError: no model of that name can be found or loaded, or it cannot be compiled here.
        """
        from partclipseg.models.compiled import compile_layers

        target = find_device(device)
        number_type = find_dtype(dtype, target, PREDICTION_TYPES)
        in_int8 = number_type == torch.int8
        if in_int8 and compile:
            raise UsageError("int8 layers cannot be compiled: give int8 or compile, not both")
        source = find_model(name_or_path)
        model = load_model(source, dtype=torch.float32 if in_int8 else number_type)
        if prompting is not None:
            model.ask(prompting)
        torch.nn.Module.to(model, target)  # transformers' own `to` hides its types
        if in_int8:
            model.quantise()
        if compile:
            compile_layers(model)
        return cls(model, load_tokenizer(source, model.text_config), load_vocabulary(source))

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write the model to a new directory that `from_pretrained` takes, whole or not at all.

        It gets weights and configuration, in the model's present number type, the tokenizer, ``vocabulary.json`` if
        the segmenter has words of its own, and a model card, ``README.md``. Returns the directory.

        Raises:
            UsageError: something stands there already, or the model is in int8.
            PartCLIPSegError: the disk is full or may not be written.
        """
        path = Path(directory)
        with writing(path), whole_directory(path, new=True) as folder:
            write_directory(folder, self.model, self.tokenizer, self.vocabulary, str(directory))
        return path

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a partclipseg model",
    ) -> str:
        """Upload the files of `save_pretrained` to the Hugging Face hub; return the address of the commit.

        Args:
            name: ``owner/model``, or ``model`` for the account that is logged in. It is made if it is not there.
            private: whether only its owners may see a model that is made now; None leaves it to the account's
                settings.
            token: access token; None takes that of `hf auth login`.
            commit_message: message in the hub's history.

        Raises:
            UsageError: a name that the hub does not take, or the model is in int8.
            PartCLIPSegError: nobody is logged in, the hub refuses or cannot be reached, or the disk is full.
        """
        check_hub_name(name)
        self.model.require_floats()
        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory(prefix="partclipseg-") as temporary:
            folder = Path(temporary)
            api = HfApi(token=token)
            with library_errors(
                f"the hub did not take {name}: log in by `hf auth login` with a token that may write, and check name "
                "and network"
            ):
                full_name = api.create_repo(name, private=private, exist_ok=True).repo_id
            with writing(folder):
                write_directory(folder, self.model, self.tokenizer, self.vocabulary, full_name)
            with library_errors(f"the upload to {full_name} failed: check the network, then give the same call again"):
                commit = api.upload_folder(repo_id=full_name, folder_path=folder, commit_message=commit_message)
        return str(commit.commit_url)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_turn"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _turn=RLock())

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    @property
    def kept_prompts(self) -> int:
        """Number of prompts whose embeddings are cached."""
        return len(self._embeddings)

    # -- photos to results ------------------------------------------------------------------------------------

    @overload
    def __call__(
        self, photos: list[Any] | tuple[Any, ...], vocabulary: Any = None, **options: Unpack[SegmentOptions]
    ) -> list[PartResult]: ...

    @overload
    def __call__(self, photos: Any, vocabulary: Any = None, **options: Unpack[SegmentOptions]) -> PartResult: ...

    def __call__(
        self, photos: Any, vocabulary: Any = None, **options: Unpack[SegmentOptions]
    ) -> PartResult | list[PartResult]:
        """Segment one photo to a `PartResult`, or a list or tuple of photos to a list of results in their order.

        Args:
            photos: whatever `read_photo` reads: path, bytes, file, PIL image, uint8 array `[H, W, 3]`.
            vocabulary: whatever `Vocabulary.load` takes; None stands for the model's own.
            objects: the objects that are known to be in the photos. Their parts then share every pixel and there
                is no background (protocol Oracle-Obj); without it anything may be there (Pred-All).
            zoom: segment crops around small objects a second time, at full resolution; see `inference.zoom`.
            min_part_probability: minimum probability of a part at a pixel, 0 to 1; below it the pixel belongs to the
                object without a part, so that parts that were not asked for are not given to one that was. None is
                0.3, or 0 where `objects` are known; a plain CLIPSeg has its threshold instead.
            instances: what says where single objects are, so that each part gets its owner (see docs/instances.md):
                ``"components"``, the regions of the first look; a detector, or another `ObjectSource`; a file of boxes
                or COCO annotations; or lists of `FoundObject`: one for one photo, a list of them for a list of photos,
                or a mapping from path to list. None asks for no instances.
            outlines: an `Outliner`, which draws masks of objects that are known by their boxes.
            rest: keep parts that belong to no instance where objects are found or given: it costs a first look.
            batch_size: number of photos per batch, 8 by default.
            max_pixels: refuse photos of more pixels, 80 million by default.
            keep_photo: keep the photo in the result, for pictures of it, as by default; without it reading takes less
                time and the result less memory.
            fast_reading: decode JPEG files of at least eight times the model's input size at a reduced size, and
                resize all photos by a faster filter. Some labels change, see docs/speed.md. Results have no photo.

        Raises:
            TypeError: an option that does not exist.
            UsageError: wrong words or options.
            PhotoError: a photo that cannot be read; nothing is returned then. See `segment_many`.
        """
        instances = options.get("instances")
        if isinstance(photos, list | tuple):
            source, photos = given_for_each(instances, photos)
            results = []
            for _, result in self._stream(photos, Asked.of(self, vocabulary, {**options, "instances": source})):
                if isinstance(result, PhotoError):
                    raise result
                results.append(result)
            return results
        source, given = given_for_one(instances)
        asked = Asked.of(self, vocabulary, {**options, "instances": source})
        photo = photos if given is None else WithObjects(photos, given)
        [make_result] = self._run(asked, [asked.read(photo, self.model.ahead_shape)])
        return make_result()

    def segment_many(
        self, paths: Iterable[Any], vocabulary: Any = None, **options: Unpack[SegmentOptions]
    ) -> Iterator[tuple[Any, PartResult | PhotoError]]:
        """Segment a stream of photos; an unreadable one does not stop the others.

        Yields each of `paths` in order with its result, or with the error that prevented it. Arguments
        as for a call; wrong words or options raise `UsageError` at the call itself.
        """
        if isinstance(options.get("instances"), list | tuple):
            raise UsageError("instances of many photos are given by a mapping from path to a list of FoundObject")
        return self._stream(paths, Asked.of(self, vocabulary, options))

    def _stream(self, photos: Iterable[Any], asked: Asked) -> Iterator[tuple[Any, PartResult | PhotoError]]:
        def read(source: Any) -> LoadedPhoto:
            return asked.read(source, self.model.ahead_shape)

        return stream(photos, read, partial(self._run, asked), asked.batch_size)

    def _run(self, asked: Asked, photos: Sequence[LoadedPhoto]) -> list[Callable[[], PartResult]]:
        with self._turn:  # caches of words, and those of models and detectors, are for one call at a time
            return segment_batch(self, asked, photos)

    def least_part_probability(self, asked: float | None, objects_known: bool) -> float:
        """Return the minimum probability of a part, by default the model's; raises `UsageError` outside of 0 to 1."""
        if asked is None:
            return 0.0 if objects_known else self.model.min_part_probability
        if not 0 <= asked <= 1:
            raise UsageError(f"min_part_probability must be from 0 to 1, not {asked}")
        return asked

    # -- the model's own inputs and outputs -------------------------------------------------------------------

    def prepare(self, photos: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Prepare photos, uint8 `[H, W, 3]` RGB of any sizes, as the model's inputs; see `PartModel.prepare`."""
        return self.model.prepare(photos)

    def words(self, vocabulary: Vocabulary) -> Words:
        """Return the vocabulary with embeddings; they are cached until the model's weights change."""
        embeddings = self.text_embeddings(self.model.prompts(vocabulary))
        kept = self._words
        if kept is None or kept.embeddings is not embeddings or kept.vocabulary != vocabulary:
            self._words = kept = Words.of(vocabulary, embeddings)
        return kept

    def label_maps(
        self,
        inputs: Inputs,
        vocabulary: Vocabulary,
        sizes: Sequence[tuple[int, int]],
        present_objects: Sequence[Sequence[int]] | None = None,
        with_background: bool = False,
    ) -> list[LabelMaps]:
        """Compute label maps at `sizes` (H, W) of prepared photos; see `PartModel.label_maps`."""
        return self.model.label_maps(inputs, self.words(vocabulary), sizes, present_objects, with_background)

    def word_maps(self, inputs: Inputs, vocabulary: Vocabulary, sizes: Sequence[tuple[int, int]]) -> list[WordMaps]:
        """Find the vocabulary's words without an object in prepared photos, see `PartModel.word_maps`; [] without any.

        Raises `UsageError` for a model that needs an object for every part.
        """
        embeddings = self.word_embeddings(vocabulary)
        return [] if embeddings is None else self.model.word_maps(inputs, embeddings, sizes)

    def word_embeddings(self, vocabulary: Vocabulary) -> Tensor | None:
        """Return the embeddings `[K, D]` of the vocabulary's words without an object; None without any."""
        if not vocabulary.anywhere:
            return None
        return self.text_embeddings(self.model.word_prompts(vocabulary.anywhere))

    def look_again(
        self,
        photos: Sequence[np.ndarray],
        maps: Sequence[LabelMaps],
        vocabulary: Vocabulary,
        present_objects: Sequence[Sequence[int]] | None = None,
    ) -> list[LabelMaps]:
        """Compute the label maps of photos, uint8 `[H, W, 3]` of full size, in a second pass: see `inference.zoom`.

        `maps` are those of the first pass, for the same photos and the same `present_objects`.
        """
        predict = self.predict_crops(vocabulary)
        return look_again(predict, photos, maps, present_objects, self.model.image_shape, self.model.least_area)

    def predict_crops(self, vocabulary: Vocabulary) -> PredictCrops:
        """Return the function that runs the model on crops of photos, see `maps.crops.PredictCrops`."""

        def predict(
            photos: Sequence[np.ndarray],
            sizes: Sequence[tuple[int, int]],
            present_objects: Sequence[Sequence[int]],
            with_background: bool,
            masks: Sequence[np.ndarray] | None = None,
        ) -> list[LabelMaps]:
            inputs = self.prepare(photos)
            if masks is not None and self.model.takes_object_masks:
                inputs = self.model.with_object_masks(inputs, [torch.from_numpy(mask) for mask in masks])
            return self.label_maps(inputs, vocabulary, sizes, present_objects, with_background)

        return predict

    @torch.inference_mode()
    def outputs(
        self, photos: Sequence[np.ndarray], vocabulary: Vocabulary, attention_pairs: Tensor | None = None
    ) -> PartOutput:
        """Compute logits of photos, uint8 `[H, W, 3]` RGB of any sizes, in one batch: every class is decoded.

        Use it for maps of probabilities and attention; `label_maps` is cheaper for label maps.
        """
        return self.model(self.prepare(photos), self.words(vocabulary), attention_pairs=attention_pairs)

    @torch.inference_mode()
    def text_embeddings(self, prompts: Sequence[str]) -> Tensor:
        """Return embeddings `[K, D]` of prompts; they are cached, so that only new prompts go through the text tower.

        Raises `PromptTooLongError`, a `UsageError`, for a prompt that is longer than the text tower can read.
        """
        with self._turn:
            return self._text_embeddings(prompts)

    def _text_embeddings(self, prompts: Sequence[str]) -> Tensor:
        if (stamp := self.model.weights_stamp()) != self._embedded_by:
            self._embeddings, self._stacked, self._embedded_by = {}, None, stamp
        if new := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._embeddings]:
            tokens = tokenize(self.tokenizer, new, padding=True, return_tensors="pt")
            longest = self.model.longest_prompt
            for prompt, length in zip(new, tokens["attention_mask"].sum(1).tolist(), strict=True):
                if length > longest:
                    raise PromptTooLongError(
                        f"{prompt!r} is {length} tokens long, more than {longest}: use a shorter word"
                    )
            if unknown := unknown_texts(self.tokenizer, new, tokens["input_ids"].tolist()):
                log.warning("the model has never seen these words and can only guess: %s", ", ".join(unknown))
            if len(self._embeddings) + len(new) > KEPT_PROMPTS:
                # Clone each row: a view would keep the whole batch in memory.
                self._embeddings = {p: self._embeddings[p].clone() for p in prompts if p in self._embeddings}
            for start in range(0, len(new), PROMPTS_AT_ONCE):
                rows = slice(start, start + PROMPTS_AT_ONCE)
                ids, mask = (tokens[name][rows].to(self.device) for name in ("input_ids", "attention_mask"))
                self._embeddings.update(zip(new[rows], self.model.encode_text(ids, mask), strict=True))
        if self._stacked is None or self._stacked[0] != prompts:
            self._stacked = list(prompts), torch.stack([self._embeddings[prompt] for prompt in prompts])
        return self._stacked[1]
