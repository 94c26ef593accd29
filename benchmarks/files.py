"""How many photos a second, from JPEG files to PNG files with their labels?

    python benchmarks/files.py                        # CPU, some minutes
    python benchmarks/files.py --quick                # a few photos, a small model
    python benchmarks/files.py --device cuda --dtype bfloat16 --compile
    python benchmarks/files.py --device cuda --dtype bfloat16 --processes 3
    python benchmarks/files.py --device cuda --dtype bfloat16 --label 8 12 16 --fast-reading
    python benchmarks/files.py --steps                # what each step takes one core, three sizes of photos

Prints JSON. Photos of 375x500 are written first: smooth colours and noise, some 60 KB each. They go through
`PartSegmenter.segment_many`, and threads save the label maps, as `partclipseg predict --format png` does it. The
model has the released size, random weights whose fine pixels are alike (label maps are patches, as those of trained
models, not noise, which PNG could not compress), and two winning objects a photo (see `measure.forced_winners`).
Beside the rate: what each step takes one core, alone. Processes share the device, each with a model of its own, as the
workers of `partclipseg label` do: Python lets only one thread of a process run at a time.

`--label` runs `partclipseg label` itself, with PNG, told the two objects, by each number of workers. Its rate counts
from when they have labelled two batches each, since loading a model takes seconds; what follows the last photo (checks,
files about all photos, report) stands beside it. So does the processor time of all processes: what a photo takes less
than the cores had time for is waiting, and waiting for a GPU by spinning counts as work. `--steps` ends with the whole
of one worker whose model answers at once: the steps and all that lies between them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import active_children, get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from inference import SIZE, WINNERS
from measure import environment, forced_winners
from partclipseg.apps.label.command import Label
from partclipseg.apps.label.drafts import done_record, write_draft
from partclipseg.apps.label.job import ManifestRecord
from partclipseg.apps.label.messages import Messages
from partclipseg.apps.label.photos import LabelPhoto
from partclipseg.data.photo import MAX_PIXELS, PhotoError, read_picture
from partclipseg.data.resize import resize_picture
from partclipseg.inference.photos import LoadedPhoto, ahead
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.label_maps import LabelMaps
from partclipseg.models.compiled import compile_layers
from partclipseg.models.interface import PartModel
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.models.registry import built_in_model, load_tokenizer
from partclipseg.vocabulary import Vocabulary
from vocabulary import small_config

DIFFERENT = 64
"""Photos that differ; the others have the same content under other names."""

STEP_SIZES = (SIZE, (960, 1280), (3000, 4000))
"""Height and width of the photos whose steps are measured."""


class SomeWords:
    """In place of a tokenizer: four random tokens for each prompt."""

    unk_token_id = None

    def __init__(self, config: PartCLIPSegConfig) -> None:
        self._config = config.text_config

    def __call__(self, prompts: Sequence[str], **_: Any) -> dict[str, torch.Tensor]:
        tokens = torch.randint(1000, 40_000, (len(prompts), 4))
        tokens[:, 0], tokens[:, -1] = self._config.bos_token_id, self._config.eos_token_id
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def build_segmenter(options: argparse.Namespace) -> PartSegmenter:
    torch.manual_seed(0)
    model = PartCLIPSegModel(small_config() if options.quick else PartCLIPSegConfig.from_reference())
    with torch.no_grad():
        for layer in model.decoder.modules():
            if isinstance(layer, torch.nn.ConvTranspose2d):
                layer.weight.copy_(5 * layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    model = model.to(options.device, getattr(torch, options.dtype))  # pyright: ignore[reportArgumentType]
    if options.compile:
        compile_layers(model)
    return PartSegmenter(model, SomeWords(model.config), Vocabulary.from_catalog(options.vocabulary))


def write_photos(folder: Path, count: int, size: tuple[int, int] = SIZE) -> list[Path]:
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if number >= DIFFERENT:
            path.write_bytes(paths[number % DIFFERENT].read_bytes())
            continue
        generator = np.random.default_rng(number)
        colours = Image.fromarray(generator.integers(0, 256, (24, 32, 3), np.uint8))
        smooth = np.asarray(colours.resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float32)
        noisy = (smooth + generator.normal(0, 6, (*size, 1))).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=90)
    return paths


def _save(result: PartResult | PhotoError, output: Path) -> None:
    if isinstance(result, PhotoError):
        raise result
    result.save(output, None, ["png"])


def rate(segmenter: PartSegmenter, paths: Sequence[Path], output: Path, batch_size: int) -> dict[str, float]:
    """Photos a second, and the processor time of one in milliseconds, all cores together."""
    start, processor = time.perf_counter(), time.process_time()
    with forced_winners(WINNERS), ThreadPoolExecutor() as pool:
        stream = segmenter.segment_many(paths, batch_size=batch_size, keep_photo=False)
        saved = (pool.submit(_save, result, output) for _, result in stream)
        for future in ahead(saved, 2 * batch_size):
            future.result()
    seconds = time.perf_counter() - start
    return {
        "photos_per_second": round(len(paths) / seconds, 1),
        "processor_ms_per_photo": round(1000 * (time.process_time() - processor) / len(paths), 2),
    }


def rate_of_processes(
    options: argparse.Namespace, paths: Sequence[Path], output: Path, batch_size: int
) -> dict[str, float]:
    """Photos a second of several processes that begin together; all of them have warmed up."""
    context, count = get_context("spawn"), options.processes
    arguments = options, output, batch_size, context.Barrier(count)
    with ProcessPoolExecutor(count, context, _Worker.start, arguments) as pool:
        spans = list(pool.map(_Worker.share, [paths[number::count] for number in range(count)]))
    seconds = max(end for _, end in spans) - min(start for start, _ in spans)
    return {"photos_per_second": round(len(paths) / seconds, 1)}


class _Worker:
    """What a process of `rate_of_processes` keeps between its start and its share."""

    options: argparse.Namespace
    output: Path
    batch_size: int
    together: Barrier

    @classmethod
    def start(cls, *arguments: Any) -> None:
        cls.options, cls.output, cls.batch_size, cls.together = arguments

    @classmethod
    def share(cls, paths: Sequence[Path]) -> tuple[float, float]:
        """When the work on these photos began and ended. Takes as long as all processes need to get ready."""
        torch.set_num_threads(max(1, torch.get_num_threads() // cls.options.processes))
        segmenter = build_segmenter(cls.options)
        rate(segmenter, paths[: 3 * cls.batch_size], cls.output, cls.batch_size)
        cls.together.wait(timeout=300)  # for one that has failed the others need not wait longer
        start = time.time()
        rate(segmenter, paths, cls.output, cls.batch_size)
        return start, time.time()


class _Watch(Messages):
    """Says nothing, and notes when a run started, when each batch came, and the processor time until then."""

    def __init__(self) -> None:
        super().__init__()
        self.console.quiet = True
        self.batches: list[tuple[float, float, int]] = []

    def watched(
        self, stream: Iterator[list[ManifestRecord]], total: int, todo: int
    ) -> Iterator[list[ManifestRecord]]:
        self.batches.append((time.perf_counter(), _processor_seconds(), 0))  # the start
        for records in stream:
            yield records
            self.batches.append((time.perf_counter(), _processor_seconds(), len(records)))


def _processor_seconds() -> float:
    """Processor time of this process and its workers so far; of itself alone where there is no /proc."""
    seconds = time.process_time()
    for worker in active_children():
        with suppress(OSError):
            user, system = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            seconds += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return seconds


def rate_of_label(
    options: argparse.Namespace, model: Path, photos: Path, output: Path, batch_size: int, workers: int, fast: bool
) -> dict[str, float]:
    """Photos a second of `partclipseg label`, the processor time of one in all processes, and what follows the last."""
    watch = _Watch()
    names = Vocabulary.from_catalog(options.vocabulary).objects
    label = Label(
        photos, output, options.vocabulary, str(model), ("png",), tuple(names[index] for index in WINNERS),
        workers=workers, device=options.device, dtype=options.dtype, batch_size=batch_size, fast_reading=fast,
    )  # fmt: skip
    if label.run(watch):
        raise RuntimeError("some photos could not be labelled")
    end = time.perf_counter()
    times, processor, counts = zip(*watch.batches, strict=True)
    begun = min(2 * workers, len(times) - 2)
    measured = sum(counts[begun + 1 :])
    return {
        "photos_per_second": round(measured / (times[-1] - times[begun]), 1),
        "processor_ms_per_photo": round(1000 * (processor[-1] - processor[begun]) / measured, 2),
        "ms_per_photo_after_the_last": round(1000 * (end - times[-1]) / sum(counts), 2),
    }


def host_work(options: argparse.Namespace, folder: Path, count: int) -> dict[str, float]:
    """Run `rate_of_label` for one worker whose model answers at once: the processor time is that of all the rest."""
    vocabulary = Vocabulary.from_catalog(options.vocabulary)
    labels, scores = _patches(SIZE, 5), _patches(SIZE, 50).astype(np.float32) / 50
    maps = LabelMaps(*map(torch.from_numpy, (labels, vocabulary.class_to_object[labels], scores)))
    photos, model, shape = folder / "photos", folder / "model", (352, 352)
    photos.mkdir()
    write_photos(photos, count)
    save_model(PartCLIPSegModel(small_config(shape[0])), model)
    options = argparse.Namespace(**{**vars(options), "device": "cpu", "dtype": "float32"})

    def prepare(self: PartModel, photos: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return {"pixel_values": np.stack(photos)}  # the rest is done by a GPU

    def answer(self: PartModel, inputs: Any, words: Any, sizes: Sequence[Any], *_: Any) -> list[LabelMaps]:
        return [maps] * len(sizes)

    with mock.patch.object(PartModel, "prepare", prepare), mock.patch.object(PartCLIPSegModel, "label_maps", answer):
        return rate_of_label(options, model, photos, folder / "labels", 32, 1, options.fast_reading)


def save_model(model: PartModel, directory: Path) -> None:
    """Write a model that `label` can load; the words of its tokenizer are not Pascal's, which costs no time."""
    tokenizer, text = load_tokenizer(built_in_model()), model.config.text_config
    text.bos_token_id, text.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    PartSegmenter(model, tokenizer).save_pretrained(directory)


def steps(segmenter: PartSegmenter, path: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of one core, the least of some rounds; a wait for the disk counts in the last row alone."""
    shape, vocabulary = segmenter.model.image_shape, segmenter.vocabulary
    assert vocabulary is not None
    picture = read_picture(path)
    labels = _patches(picture.size, 5) - 1
    objects = np.where(labels < 0, np.int32(-1), vocabulary.class_to_object[labels]).astype(np.int32)
    scores = _patches(picture.size, 50).astype(np.float32) / 50
    resized = [resize_picture(picture.image, shape)] * 8

    def make() -> PartResult:
        return PartResult.from_maps(labels, objects, scores, vocabulary, None, path.name, 0.1)

    result, output = make(), path.with_suffix(".png")
    png = result.content("png")
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: read_picture(path),
        "colours to an array": lambda: np.array(picture.image),
        "resize": lambda: resize_picture(picture.image, shape),
        "read and resize, photo kept": lambda: LoadedPhoto.read(path, shape, MAX_PIXELS),
        "read and resize": lambda: LoadedPhoto.read(path, shape, MAX_PIXELS, keep=False),
        "read and resize, fast": lambda: LoadedPhoto.read(path, shape, MAX_PIXELS, keep=False, fast=True),
        "result": make,
        "PNG": lambda: result.content("png"),
        "record of label": lambda: done_record(LabelPhoto(path.name, path.stem), replace(result)),
        "write and flush": lambda: write_draft(output, png),
    }
    found = {name: round(min(_milliseconds(call) for _ in range(rounds)), 2) for name, call in calls.items()}
    waited = sorted(_milliseconds(calls["write and flush"], time.perf_counter) for _ in range(rounds))
    found["write and flush, waiting for the disk, median"] = round(waited[rounds // 2], 2)
    if segmenter.device.type == "cpu":
        found["normalise"] = round(min(_milliseconds(lambda: segmenter.prepare(resized)) for _ in range(5)) / 8, 2)
    return found


def _patches(size: tuple[int, int], count: int) -> np.ndarray:
    """Smooth patches of `count` labels, int32 `[H, W]`."""
    noise = torch.randn(1, count, 4, 5, generator=torch.Generator().manual_seed(count))
    return torch.nn.functional.interpolate(noise, size, mode="bicubic")[0].argmax(0).int().numpy()


def _milliseconds(call: Callable[[], object], clock: Callable[[], float] = time.thread_time) -> float:
    start = clock()
    call()
    return 1000 * (clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--vocabulary", default="pascal-part-116")
    parser.add_argument("--photos", type=int, help="default: 64; on a GPU 2048")
    parser.add_argument("--batch-size", type=int, nargs="+", help="default: 8; on a GPU 16 and 32")
    parser.add_argument("--compile", action="store_true", help="compile the layers")
    parser.add_argument("--processes", type=int, default=1, help="that share the device")
    parser.add_argument("--label", type=int, nargs="+", metavar="N", help="measure the label command by N workers")
    parser.add_argument("--fast-reading", action="store_true", help="measure the label command with this option too")
    parser.add_argument("--steps", action="store_true", help="measure the steps alone")
    parser.add_argument("--quick", action="store_true", help="a small model, eight photos")
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    batch_sizes = options.batch_size or ([16, 32] if cuda else [8])
    count = 8 if options.quick else options.photos or (2048 if cuda else 64)
    segmenter = build_segmenter(options)
    report: dict[str, Any] = {**environment(options.device), "photo": SIZE, "dtype": options.dtype, "photos": count}
    with tempfile.TemporaryDirectory() as name:
        folder, output, model = Path(name, "photos"), Path(name, "labels"), Path(name, "model")
        folder.mkdir()
        if not options.steps:
            paths = write_photos(folder, count)
            report["kilobytes of a photo"] = round(paths[0].stat().st_size / 1000, 1)
            for batch_size in batch_sizes:
                rate(segmenter, paths[: 3 * batch_size], output, batch_size)  # warms up, compiles and captures
                report[f"batches of {batch_size}"] = rate(segmenter, paths, output, batch_size)
                if options.processes > 1:
                    several = rate_of_processes(options, paths, output, batch_size)
                    report[f"batches of {batch_size}, {options.processes} processes"] = several
            size = (output / f"{paths[0].stem}.labels.png").stat().st_size
            report["kilobytes of a label map"] = round(size / 1000, 1)
        if options.label:
            save_model(segmenter.model, model)
            runs = [(b, n, f) for b in batch_sizes for n in options.label for f in {False, options.fast_reading}]
            for batch_size, workers, fast in runs:
                title = f"label, {workers} workers, batches of {batch_size}{', fast reading' if fast else ''}"
                place = Path(name, title)
                report[title] = rate_of_label(options, model, folder, place, batch_size, workers, fast)
        torch.set_num_threads(1)
        for size in STEP_SIZES[:1] if options.quick else STEP_SIZES:
            [path] = write_photos(Path(tempfile.mkdtemp(dir=name)), 1, size)
            few = 5 if size[0] > 1000 else 20
            report[f"ms of one core, {size[1]}x{size[0]}"] = steps(segmenter, path, few)
        report["label, one worker, model answers at once"] = host_work(
            options, Path(tempfile.mkdtemp(dir=name)), 8 if options.quick else 320
        )
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
