"""Segment a photo with an exported model: no PyTorch, no transformers.

    pip install numpy pillow onnxruntime tokenizers
    python segment.py photo.jpg --vocabulary "dog: head, torso, leg, tail; bus: body, wheel"

The file lies beside the exported files. It is a script and a module: `Segmenter(folder)(image, words)` gives the
label map, int32 `[H, W]`.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

from partclipseg.data.pixels import read_photo
from partclipseg.errors import PartCLIPSegError, UsageError, first_line
from partclipseg.json_file import read_json
from partclipseg.vocabulary import Vocabulary

BACKGROUND = -1

GRAPHS = ("photo_encoder", "text_encoder", "decoder")

AGAIN = "export the model again"
"""Remedy for a folder that is not as it was exported."""


class Segmenter:
    """The three graphs, the tokenizer and the configuration of one folder."""

    def __init__(self, folder: str | Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        """Load graphs, tokenizer and configuration of one folder.

        Raises `PartCLIPSegError` for a file that is missing or damaged.
        """
        folder = Path(folder)
        self.config = read_config(folder / "config.json")
        self.tokenizer = _load(folder / "tokenizer.json", lambda path: Tokenizer.from_file(str(path)))
        self.tokenizer.no_truncation()
        self.tokenizer.enable_padding(pad_id=self.config["pad_token_id"])
        self.photo_encoder, self.text_encoder, self.decoder = (
            _load(
                folder / f"{name}.onnx",
                lambda path: onnxruntime.InferenceSession(path, providers=list(providers)),
            )
            for name in GRAPHS
        )

    def __call__(self, image: Image.Image, words: Sequence[tuple[str, str]]) -> np.ndarray:
        """Return the label map int32 `[H, W]` of an RGB image: index into the pairs `words`; background -1."""
        outputs = self.decode(self.encode_photos(self.photo_inputs([image])), words)
        return self.label_maps(outputs, words, [(image.height, image.width)], self.config["min_part_probability"])[0]

    def label_maps(
        self,
        outputs: dict[str, Any],
        words: Sequence[tuple[str, str]],
        sizes: Sequence[tuple[int, int]],
        least: float = 0.0,
    ) -> list[np.ndarray]:
        """Return the label map of each photo, int32 of its (height, width) in `sizes`, from the decoder's outputs.

        A pixel whose best class is less probable than `least`, or than the model's threshold, gets `BACKGROUND`.
        """
        least = max(least, self.config["threshold"] or 0.0)
        owners = index(words)[2]
        if "object_part_logits" in outputs:
            objects = outputs.get("object_logits", [None] * len(sizes))
            logits = outputs["object_part_logits"]
            return [
                label_map(values, of_objects, owners, size, logit(least))
                for values, of_objects, size in zip(logits, objects, sizes, strict=True)
            ]
        probabilities = outputs["object_part_probabilities"]
        # A model that pads photos takes the map for one of the resized photo, from its first pixel.
        seen = [self._first_size(size) if self._padded() else probabilities.shape[2:] for size in sizes]
        return [
            label_map(values[:, :height, :width], None, owners, size, least)
            for values, (height, width), size in zip(probabilities, seen, sizes, strict=True)
        ]

    def photo_inputs(self, images: Sequence[Image.Image], size: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Return RGB images as the photo encoder takes them, by name: float32 `[B, 3, h, w]`.

        `size` is h and w, multiples of the patch size, for models that take any; by default the trained one.
        """
        photos = self.config["photos"]
        if photos is not None:
            sizes = [self._first_size((image.height, image.width)) for image in images]
            images = [
                image.resize((width, height), Image.Resampling.BILINEAR)
                for image, (height, width) in zip(images, sizes, strict=True)
            ]
            return {
                name: np.stack([self._resized(image, **values) for image in images])
                for name, values in photos["inputs"].items()
            }
        height, width = size or self.config["image_size"]
        resized = [image.resize((width, height), Image.Resampling.BILINEAR) for image in images]
        values = np.stack([np.asarray(image, dtype=np.float32) for image in resized]) / 255
        values = (values - np.float32(self.config["image_mean"])) / np.float32(self.config["image_std"])
        return {"pixel_values": np.ascontiguousarray(values.transpose(0, 3, 1, 2))}

    def _resized(self, image: Image.Image, size: Sequence[int], mean: Any, std: Any) -> np.ndarray:
        """Normalise, pad and resize an image to float32 `[3, h, w]`."""
        values = (np.asarray(image, dtype=np.float32) - np.float32(mean)) / np.float32(std)
        bottom, right = (-length % self.config["photos"]["divisor"] for length in values.shape[:2])
        values = np.pad(values, ((0, bottom), (0, right), (0, 0)))
        return np.stack([upsample(channel, (size[0], size[1])) for channel in values.transpose(2, 0, 1)])

    def _first_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Return height and width after the first resizing of a photo of `size`, height and width."""
        edges = self.config["photos"]["first_edges"]
        if edges is None:
            return size[0], size[1]
        # The model rounds so: it does not multiply the shortest edge, and multiplies the other one in two steps.
        scale = edges[0] / min(size)
        height, width = (edges[0], scale * size[1]) if size[0] < size[1] else (scale * size[0], edges[0])
        if (longest := max(height, width)) > edges[1]:
            height, width = height * (edges[1] / longest), width * (edges[1] / longest)
        return max(1, int(height + 0.5)), max(1, int(width + 0.5))

    def _padded(self) -> bool:
        return self.config["photos"]["divisor"] > 1

    def encode_photos(self, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the photo encoder's outputs for `photo_inputs`; needed once per photo."""
        return self._run(self.photo_encoder, inputs)

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        """Return embeddings `[K, D]`; needed once per vocabulary."""
        encoded = self.tokenizer.encode_batch(list(prompts))
        for prompt, tokens in zip(prompts, encoded, strict=True):
            if sum(tokens.attention_mask) > self.config["max_tokens"]:
                raise UsageError(f"{prompt!r} is longer than {self.config['max_tokens']} tokens: use a shorter word")
        inputs = {
            "input_ids": np.array([tokens.ids for tokens in encoded], dtype=np.int64),
            "attention_mask": np.array([tokens.attention_mask for tokens in encoded], dtype=np.int64),
        }
        return self._run(self.text_encoder, inputs)["text_embeddings"]

    def decode(self, photos: dict[str, Any], words: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Return maps of pairs (object, part), by name: `[B, channels, h, w]`.

        Background is the last channel, but for a model with a threshold, which has none.
        """
        objects, parts, class_to_object, class_to_part = index(words)
        # A model in reference mode reads the object's word at the object's index: there it finds these.
        read = object_words(objects, parts, self.config["object_words"] or {}) if "object_words" in self.config else []
        inputs = photos | {"class_to_part": class_to_part + len(read), "class_to_object": class_to_object}
        for name, templates in self.config["prompts"].items():
            lists = {
                "object_embeddings": [(word, "") for word in objects],
                "part_embeddings": [("", word) for word in [*read, *parts]],
            }
            inputs[name] = self.encode_text(
                [fill(text, *pair) for pair in lists.get(name, words) for text in templates]
            )
        taken = {value.name for value in self.decoder.get_inputs()}
        outputs = self._run(self.decoder, {name: value for name, value in inputs.items() if name in taken})
        return outputs | {name: values[:, len(read) :] for name, values in outputs.items() if name == "part_logits"}

    @staticmethod
    def _run(session: onnxruntime.InferenceSession, inputs: dict[str, Any]) -> dict[str, Any]:
        names = [output.name for output in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:  # onnxruntime's errors have no class in common
            message = f"a graph cannot be run ({first_line(error)}): where it is not for want of memory, {AGAIN}"
            raise PartCLIPSegError(message) from None


def read_config(path: Path) -> dict[str, Any]:
    """Read ``config.json``. Raises `PartCLIPSegError` where an entry is missing or has a value of no use."""
    try:
        config = read_json(path)
    except PartCLIPSegError as error:
        raise PartCLIPSegError(f"{path}: it {error}, or {AGAIN}") from None
    if not isinstance(config, dict):
        raise PartCLIPSegError(f"{path}: it is no configuration of an exported model: {AGAIN}")
    for name, fits in _ENTRIES.items():
        if name not in config or not fits(config[name]):
            state = f"has no use for the value {str(config[name])[:50]!r} of" if name in config else "lacks the entry"
            raise PartCLIPSegError(f"{path}: it {state} {name!r}: {AGAIN}")
    return config


def _numbers(value: Any, count: int, least: float, greatest: float, kinds: tuple[type, ...] = (int, float)) -> bool:
    """Whether a value is a list of so many numbers within limits."""
    return (
        isinstance(value, list)
        and len(value) == count
        and all(type(number) in kinds and least <= number <= greatest for number in value)
    )


def _is_size(value: Any) -> bool:
    return _numbers(value, 2, 1, 10_000, (int,))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(text, str) for text in value)


def _is_photos(value: Any) -> bool:
    """Whether a value says how photos are resized twice."""
    if value is None:
        return True
    inputs, edges, divisor = (
        (value.get(name) for name in ("inputs", "first_edges", "divisor")) if isinstance(value, dict) else [None] * 3
    )
    return (
        isinstance(inputs, dict)
        and inputs != {}
        and all(isinstance(one, dict) and one.keys() == {"size", "mean", "std"} for one in inputs.values())
        and all(_is_size(one["size"]) and _is_mean(one["mean"]) and _is_std(one["std"]) for one in inputs.values())
        and (edges is None or _is_size(edges))
        and _numbers([divisor], 1, 1, 10_000, (int,))
    )


def _is_mean(value: Any) -> bool:
    return _numbers(value, 3, -1e3, 1e3)


def _is_std(value: Any) -> bool:
    return _numbers(value, 3, 1e-3, 1e3)


_ENTRIES: dict[str, Callable[[Any], bool]] = {
    "image_size": _is_size,
    "image_mean": _is_mean,
    "image_std": _is_std,
    "photos": _is_photos,
    "prompts": lambda value: isinstance(value, dict) and value != {} and all(map(_is_texts, value.values())),
    "threshold": lambda value: value is None or _numbers([value], 1, 0, 1),
    "min_part_probability": lambda value: _numbers([value], 1, 0, 1),
    "max_tokens": lambda value: _numbers([value], 1, 1, 10**6, (int,)),
    "pad_token_id": lambda value: _numbers([value], 1, 0, 2**31, (int,)),
}
"""Entries of ``config.json`` that the script reads, with what tells whether a value can be used."""


def _load(path: Path, load: Callable[[Path], Any]) -> Any:
    """Load a file by its library. Raises `PartCLIPSegError` if it is missing or damaged."""
    if not path.is_file():
        raise PartCLIPSegError(f"{path}: no such file: it belongs beside the other exported files; or {AGAIN}")
    try:
        return load(path)
    except Exception as error:  # tokenizers raises plain ones, and onnxruntime's have no class in common
        raise PartCLIPSegError(f"{path}: it is damaged ({first_line(error)}): {AGAIN}") from None


def index(words: Sequence[tuple[str, str]]) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Return objects and parts, each sorted without repeats, and the int64 `[N_c]` indices of each pair's two."""
    objects, parts = (sorted({pair[side] for pair in words}) for side in (0, 1))
    class_to_object = np.array([objects.index(pair[0]) for pair in words], dtype=np.int64)
    class_to_part = np.array([parts.index(pair[1]) for pair in words], dtype=np.int64)
    return objects, parts, class_to_object, class_to_part


def fill(template: str, thing: str, part: str) -> str:
    """Put words in the places `{object}` and `{part}`; a word that itself has braces stays as it is."""
    return re.sub("{object}|{part}", lambda match: thing if match[0] == "{object}" else part, template)


def logit(probability: float) -> float:
    """Return the logit of a probability; for 1 that from which on float32 calls the probability 1."""
    return -np.inf if probability <= 0 else float(np.log(probability / max(1 - probability, 2.0**-25)))


def object_words(objects: Sequence[str], parts: Sequence[str], trained: dict[str, str]) -> list[str]:
    """Return the word that stands for each object of a user's own list, as `models.partclipseg.lookup.own_words`."""
    folded = [word.casefold() for word in objects]
    if not trained or trained.keys() <= set(folded):
        return []
    return [trained.get(word, read) for word, read in zip(folded, [*parts, *objects], strict=False)]


def label_map(
    class_logits: np.ndarray,
    object_logits: np.ndarray | None,
    class_to_object: np.ndarray,
    size: tuple[int, int],
    least: float = -np.inf,
) -> np.ndarray:
    """Return the best class of every pixel, int32 `size`; a class counts only where its object is the best object.

    A pixel whose best class has a value below `least` gets `BACKGROUND`. Logits are `[N_c + 1, h, w]` and
    `[N_o + 1, h, w]`, background last, or both without it; None for a model without objects.
    """
    background = len(class_to_object)
    if object_logits is None:
        labels, values = best_channel(class_logits, range(len(class_logits)), size)
    else:
        owners, _ = best_channel(object_logits, range(len(object_logits)), size)
        owner_of = np.append(class_to_object, len(object_logits) - 1)[: len(class_logits)]
        alive = np.flatnonzero(np.isin(owner_of, owners))
        labels, values = best_channel(class_logits, alive.tolist(), size, owner_of, owners)
    return np.where((labels == background) | (values < least), BACKGROUND, labels).astype(np.int32)


def best_channel(
    logits: np.ndarray,
    channels: Iterable[int],
    size: tuple[int, int],
    owner_of: np.ndarray | None = None,
    owners: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return index and value of the greatest upsampled channel at every pixel; one at a time, to save memory."""
    best, winner = np.full(size, -np.inf, np.float32), np.zeros(size, np.int64)
    for channel in channels:
        value = upsample(logits[channel], size)
        better = value > best
        if owner_of is not None:
            better &= owners == owner_of[channel]
        best[better], winner[better] = value[better], channel
    return winner, best


def upsample(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upsample float32 `[h, w]` to `size`: bilinear, pixel centres aligned (PyTorch's ``align_corners=False``)."""
    for axis, count in enumerate(size):
        old = values.shape[axis]
        place = np.maximum((np.arange(count, dtype=np.float32) + 0.5) * np.float32(old / count) - 0.5, 0)
        low = np.minimum(place.astype(np.int64), old - 1)
        high = np.minimum(low + 1, old - 1)
        share = np.expand_dims(place - low, 1 - axis).astype(np.float32)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values


def read_words(text: str) -> list[tuple[str, str]]:
    """Return pairs (object, part) of words as `partclipseg predict` takes them: text, or a file.

    Raises `ValueError` with a sentence for words that cannot be read.
    """
    return [(pair.object, pair.part) for pair in Vocabulary.load(text).with_objects("an exported model").object_parts]


def read_image(path: str | Path) -> Image.Image:
    """Read a photo as upright RGB, as PartCLIPSeg itself does; raises `PhotoError` for other files."""
    return Image.fromarray(read_photo(path))


def label_image(labels: np.ndarray, classes: int) -> Image.Image:
    """Return indices as 8-bit grey, background 255; with more than 255 classes as 16-bit grey, background 65535."""
    if classes <= 255:
        return Image.fromarray(np.where(labels < 0, 255, labels).astype(np.uint8))
    return Image.fromarray(np.where(labels < 0, 65535, labels).astype(np.uint16))


def check_output(path: Path, photo: str, overwrite: bool) -> None:
    """Raise `UsageError` for an output that would lose labels, or a file that is there; `OSError` for no such place."""
    if path.suffix.lower() != ".png" or "\0" in str(path):
        raise UsageError(f"{str(path)!r} cannot keep the labels: name a file that ends in .png")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}: make it, or name another file with --output")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file in it")
    if os.path.lexists(path) and os.path.realpath(path) == os.path.realpath(photo):
        raise UsageError(f"{path} is the photo itself: name another file")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path} exists already: name another file with --output, or give --overwrite to replace it")


def write_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    """Write `label_image` as PNG, whole or not at all."""
    content = io.BytesIO()
    label_image(labels, classes).save(content, "PNG")
    temporary = path.with_name(f".{os.getpid()}.tmp.png")
    try:
        with temporary.open("xb") as file:
            file.write(content.getvalue())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def summary(labels: np.ndarray, words: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield one line for each class that was found, the largest first."""
    areas = np.bincount(labels.ravel() + 1, minlength=len(words) + 1)[1:]
    for number in np.argsort(-areas, kind="stable"):
        if areas[number]:
            word, part = words[number]
            yield f"{number:5d}  {areas[number] / labels.size:6.1%}  {word}'s {part}"


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong words, photo or options."""
    folder = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Segment the parts of things in a photo.")
    parser.add_argument("photo")
    parser.add_argument("--vocabulary", help='"dog: head, torso, leg, tail", or a file; default: the model\'s own')
    parser.add_argument("--output", help="PNG of class indices; default: the photo's name with .labels.png")
    parser.add_argument("--overwrite", action="store_true", help="replace the PNG if it is there")
    options = parser.parse_args()
    own = folder / "vocabulary.json"
    if options.vocabulary is None and not own.is_file():
        parser.error("the model has no words of its own: give --vocabulary")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # terminals cannot show every word
    try:
        words = read_words(str(own) if options.vocabulary is None else options.vocabulary)
        image = read_image(options.photo)
        default = Path(options.photo).with_suffix(".labels.png").name
        output = Path(default if options.output is None else options.output)
        check_output(output, options.photo, options.overwrite)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{str(error.filename)[:100]}: {error.strerror}: name another file")
    except ModuleNotFoundError as error:
        parser.error(f"this kind of file needs the package {error.name}: install it, or use another kind")
    try:
        labels = Segmenter(folder)(image, words)
        write_labels(output, labels, len(words))
    except UsageError as error:
        parser.error(str(error))
    except PartCLIPSegError as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    except OSError as error:
        reason = f"{output} cannot be written ({error.strerror}): name another file with --output"
        parser.exit(1, f"{parser.prog}: error: {reason}\n")
    print("\n".join(summary(labels, words)) or "nothing found")
    print(f"-> {output}")


if __name__ == "__main__":
    main()
