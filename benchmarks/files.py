"""How many photos a second, from JPEG files to PNG files with their labels?

    python benchmarks/files.py                        # CPU, some minutes
    python benchmarks/files.py --quick                # a few photos, a small model
    python benchmarks/files.py --device cuda --dtype bfloat16 --compile
    python benchmarks/files.py --device cuda --dtype bfloat16 --processes 3

Prints JSON. Photos of 375x500 are written first: smooth colours and noise, some 60 KB each. They go through
`PartSegmenter.segment_many`, and threads save the label maps, as `partclipseg predict --format png` does it. The
model has the released size, random weights whose fine pixels are alike (label maps are patches, as those of trained
models, not noise, which PNG could not compress), and two winning objects a photo (see `measure.forced_winners`).
Beside the rate: what each step takes one core, alone. Processes share the device, each with a model of its own, as the
workers of `partclipseg label` do: Python lets only one thread of a process run at a time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from inference import SIZE, WINNERS
from measure import environment, forced_winners
from partclipseg.data.augment import resize_photo
from partclipseg.data.photo import PhotoError, read_photo
from partclipseg.inference.photos import ahead
from partclipseg.inference.result import PartResult
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.compiled import compile_layers
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.vocabulary import Vocabulary
from vocabulary import small_config

DIFFERENT = 64
"""Photos that differ; the others have the same content under other names."""


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


def write_photos(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if number >= DIFFERENT:
            path.write_bytes(paths[number % DIFFERENT].read_bytes())
            continue
        generator = np.random.default_rng(number)
        colours = Image.fromarray(generator.integers(0, 256, (24, 32, 3), np.uint8))
        smooth = np.asarray(colours.resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC), np.float32)
        noisy = (smooth + generator.normal(0, 6, (*SIZE, 1))).clip(0, 255).astype(np.uint8)
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
        stream = segmenter.segment_many(paths, batch_size=batch_size)
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


def steps(segmenter: PartSegmenter, path: Path, output: Path) -> dict[str, float]:
    """Milliseconds on one core: least of 20."""
    photo = read_photo(path)
    result: PartResult = segmenter(path)
    scores = np.ones(result.size, np.float32)
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: read_photo(path),
        "resize": lambda: resize_photo(photo, segmenter.model.image_shape),
        "result": lambda: PartResult.from_maps(result.label_map, result.object_map, scores, result.vocabulary, photo),
        "save": lambda: result.save(output, "one", ["png"]),
    }
    return {name: round(min(_seconds(call) for _ in range(20)) * 1000, 2) for name, call in calls.items()}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--vocabulary", default="pascal-part-116")
    parser.add_argument("--photos", type=int, help="default: 64; on a GPU 2048")
    parser.add_argument("--batch-size", type=int, nargs="+", help="default: 8; on a GPU 16 and 32")
    parser.add_argument("--compile", action="store_true", help="compile the layers")
    parser.add_argument("--processes", type=int, default=1, help="that share the device")
    parser.add_argument("--quick", action="store_true", help="a small model, eight photos")
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    batch_sizes = options.batch_size or ([16, 32] if cuda else [8])
    count = 8 if options.quick else options.photos or (2048 if cuda else 64)
    segmenter = build_segmenter(options)
    report: dict[str, Any] = {**environment(options.device), "photo": SIZE, "dtype": options.dtype, "photos": count}
    with tempfile.TemporaryDirectory() as folder:
        paths, output = write_photos(Path(folder), count), Path(folder, "labels")
        report["kilobytes of a photo"] = round(paths[0].stat().st_size / 1000, 1)
        for batch_size in batch_sizes:
            rate(segmenter, paths[: 3 * batch_size], output, batch_size)  # warms up, compiles and captures
            report[f"batches of {batch_size}"] = rate(segmenter, paths, output, batch_size)
            if options.processes > 1:
                several = rate_of_processes(options, paths, output, batch_size)
                report[f"batches of {batch_size}, {options.processes} processes"] = several
        report["ms on one core"] = steps(segmenter, paths[0], output)
        report["kilobytes of a label map"] = round((output / f"{paths[0].stem}.labels.png").stat().st_size / 1000, 1)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
