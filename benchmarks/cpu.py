"""Time a photo on a CPU by PyTorch, ONNX Runtime and OpenVINO, in float32, bfloat16 and int8.

    python benchmarks/cpu.py --output cpu.json      # two threads, some ten minutes on a quiet machine
    python benchmarks/cpu.py --models partshapes --rounds 2
    python benchmarks/cpu.py --threads 1 --processor-time   # on a machine with other load

Prints JSON. The models are one of the released size with random weights (CLIP ViT-B/16, 352x352) and the built-in one;
the words are those of Pascal-Part-116, the photo has 375x500 pixels. Each variant runs once a round, one after the
other, so that load from elsewhere meets all alike; the figures are medians, and ratios to float32 of PyTorch.

- "photo": the photo's encoder, in every runtime.
- "words": the decoder with every class, in every runtime, without up-sampling to the photo's size.
- "label map": photo to label map as `PartSegmenter` computes it, pruned. Two winning objects are forced at the
  released size; the built-in model decides by itself.

"error" is the relative difference of the photo's encoding from float32 of PyTorch. OpenVINO is left out where it is
not installed, and so is its int8 (weights by NNCF, activations rounded by the runtime) without NNCF.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image

from inference import SIZE, WINNERS
from measure import environment, forced_winners
from partclipseg.apps.export.graphs import quantise_graph, trace
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.models.interface import Words
from partclipseg.models.partclipseg.config import PartCLIPSegConfig
from partclipseg.models.partclipseg.model import PartCLIPSegModel
from partclipseg.shapes.renderer import render_scene
from partclipseg.vocabulary import Vocabulary

Case = dict[str, Callable[[], Any]]
"""Calls of a variant, by the name of what is measured."""
GRAPHS = ("photo_encoder", "decoder")


def build(name: str, dtype: str) -> Any:
    """Return a model: the built-in one, or one of the released size with random weights."""
    if name != "released size":
        return PartSegmenter.from_pretrained(name, "cpu", dtype).model
    torch.manual_seed(0)
    model = PartCLIPSegModel(PartCLIPSegConfig.from_reference()).eval()
    if dtype == "int8":
        model.quantise()
        return model
    return model.to(getattr(torch, dtype))


def torch_case(name: str, dtype: str, vocabulary: Vocabulary, photo: np.ndarray) -> tuple[Case, Any, Words]:
    model = build(name, dtype)
    text, count = model.config.text_config, len(vocabulary.parts) + len(vocabulary.objects)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1000 if name == "released size" else 3, text.vocab_size - 3, (count, 4), generator=generator)
    tokens[:, 0], tokens[:, -1] = text.bos_token_id or 0, text.eos_token_id
    with torch.inference_mode():
        words = Words.of(vocabulary, model.encode_text(tokens, torch.ones_like(tokens)))
    inputs = model.prepare([photo])
    forced = forced_winners(WINNERS) if name == "released size" else None
    decoder = model.onnx_graphs()["decoder"].module
    encoder = model.onnx_graphs()["photo_encoder"].module
    fed = decoder_inputs(vocabulary, words)
    with torch.inference_mode():
        encoded = encoder(inputs["pixel_values"])

    @torch.inference_mode()
    def label_map() -> Any:
        with forced_winners(WINNERS) if forced else nullcontext():
            return model.label_maps(inputs, words, [SIZE])

    case = {
        "photo": torch.inference_mode()(lambda: model.encode_photo(inputs["pixel_values"])),
        "words": torch.inference_mode()(lambda: decoder(*encoded, *fed)),
        "label map": label_map,
    }
    return case, model, words


def decoder_inputs(vocabulary: Vocabulary, words: Words) -> tuple[torch.Tensor, ...]:
    """Return embeddings of parts and objects, and the parts and objects of the classes."""
    count, embeddings = len(vocabulary.parts), words.embeddings.clone()
    return embeddings[:count], embeddings[count:], words.class_to_part.clone(), words.class_to_object.clone()


def onnx_case(folder: Path, end: str, pixels: np.ndarray, fed: dict[str, np.ndarray], threads: int) -> Case:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    encoder, decoder = (
        onnxruntime.InferenceSession(folder / f"{name}{end}.onnx", options, providers=["CPUExecutionProvider"])
        for name in GRAPHS
    )
    encoded = dict(zip(("class_tokens", "patches"), encoder.run(None, {"pixel_values": pixels}), strict=True))
    return {
        "photo": lambda: encoder.run(None, {"pixel_values": pixels}),
        "words": lambda: decoder.run(None, encoded | fed),
    }


def openvino_case(folder: Path, kind: str, pixels: np.ndarray, fed: dict[str, np.ndarray], threads: int) -> Case:
    import openvino  # pyright: ignore[reportMissingImports]

    core, compiled = openvino.Core(), []
    for name in GRAPHS:
        graph = core.read_model(folder / f"{name}.onnx")
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if kind == "bfloat16":
            options["INFERENCE_PRECISION_HINT"] = "bf16"
        if kind == "int8":
            import nncf  # pyright: ignore[reportMissingImports]

            graph = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
            options |= {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "128", "INFERENCE_PRECISION_HINT": "bf16"}
        compiled.append(core.compile_model(graph, "CPU", options))
    encoder, decoder = (model.create_infer_request() for model in compiled)

    def run(request: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [value.copy() for value in request.infer(inputs).values()]

    encoded = dict(zip(("class_tokens", "patches"), run(encoder, {"pixel_values": pixels}), strict=True))
    return {"photo": lambda: run(encoder, {"pixel_values": pixels}), "words": lambda: run(decoder, encoded | fed)}


def cases(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Case]:
    """Build every variant of a model; graphs are written to `folder`."""
    vocabulary = Vocabulary.from_catalog("pascal-part-116")
    photo = np.asarray(Image.fromarray(render_scene("test", 0, 256).image).resize((SIZE[1], SIZE[0])))
    found, model, words = {}, None, None
    for dtype in ("int8", "bfloat16", "float32"):
        found[f"torch, {dtype}"], model, words = torch_case(name, dtype, vocabulary, photo)
    graphs = {graph: value for graph, value in model.onnx_graphs().items() if graph in GRAPHS}
    names = graphs["decoder"].module.inputs[2:]
    fed = {k: v.numpy() for k, v in zip(names, decoder_inputs(vocabulary, words), strict=True)}
    pixels = model.prepare([photo])["pixel_values"].numpy()
    for graph, program in trace(graphs).items():
        program.save(folder / f"{graph}.onnx", external_data=False)
        quantise_graph(folder / f"{graph}.onnx", folder / f"{graph}-int8.onnx")
    found["onnxruntime, float32"] = onnx_case(folder, "", pixels, fed, options.threads)
    found["onnxruntime, int8"] = onnx_case(folder, "-int8", pixels, fed, options.threads)
    kinds = ("float32", "bfloat16", *(["int8"] if find_spec("nncf") else [])) if find_spec("openvino") else ()
    for kind in kinds:
        found[f"openvino, {kind}"] = openvino_case(folder, kind, pixels, fed, options.threads)
    return found


def measured(found: dict[str, Case], rounds: int, clock: Callable[[], float]) -> dict[str, dict[str, Any]]:
    """Run each variant once a round, in turn; return medians and ratios to float32 of PyTorch."""
    times = {name: {part: [] for part in case} for name, case in found.items()}
    for number in range(rounds + 1):
        for name, case in found.items():
            for part, call in case.items():
                start = clock()
                call()
                if number:  # the first round warms up
                    times[name][part].append(1000 * (clock() - start))
    median = {name: {part: statistics.median(v) for part, v in parts.items()} for name, parts in times.items()}
    plain = median["torch, float32"]
    expected = patches(found["torch, float32"]["photo"]())
    return {
        name: {
            "error of the photo": float(f"{relative(patches(found[name]['photo']()), expected):.2g}"),
            **{
                part: {
                    "ms": round(value, 1),
                    "least": round(min(times[name][part]), 1),
                    "times faster": round(plain[part] / value, 2),
                }
                for part, value in parts.items()
            },
        }
        for name, parts in median.items()
    }


def patches(encoded: Any) -> np.ndarray:
    """Return the patches of an encoded photo, `[L, g·g', V]`, of PyTorch or of a graph."""
    if isinstance(encoded[0], torch.Tensor):
        return torch.stack(list(encoded))[:, 0, 1:].float().numpy()
    _, found = encoded
    return found[:, 0].reshape(len(found), -1, found.shape[-1])


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["released size", "partshapes"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor-time", action="store_true", help="of the process, not of the clock")
    parser.add_argument("--output", type=Path, help="a file for the JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.processor_time else time.perf_counter
    packages = ("onnxruntime", "openvino", "nncf")
    report: dict[str, Any] = {
        **environment("cpu"),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **{name: __import__(name).__version__ for name in packages if find_spec(name)},
        "rounds": options.rounds,
        "time": "processor" if options.processor_time else "clock",
    }
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            report[name] = measured(cases(name, options, Path(folder)), options.rounds, clock)
    text = json.dumps(report, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
