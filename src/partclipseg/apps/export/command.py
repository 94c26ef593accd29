"""``partclipseg export``: a model as ONNX in three files, with a script that needs no PyTorch."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from partclipseg.apps.export.card import exported_card, size_text
from partclipseg.apps.export.script import standalone_script
from partclipseg.apps.options import Ask, Asking, ModelArgument
from partclipseg.apps.terminal import plain_console
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.files import require_new, whole_directory
from partclipseg.machine import how_to_install

if TYPE_CHECKING:
    from partclipseg.inference.segmenter import PartSegmenter
    from partclipseg.models.onnx import OnnxGraph
    from partclipseg.vocabulary import Vocabulary

AGREEMENT = 0.999
"""Least share of pixels on which float32 ONNX must give PyTorch's label; the rest are ties in the last digits."""

ExportType = Literal["float32", "float16", "int8"]

CHECKED_WORDS = "dog: head, ear, tail; bus: wheel, window; bird: head, beak, wing"
"""Words for the check of a model without words of its own."""


@dataclass(frozen=True)
class Export:
    """Write a model as ONNX, to run without PyTorch.

    The directory gets photo_encoder.onnx, text_encoder.onnx and decoder.onnx, the tokenizer, config.json, a model
    card, and segment.py: a script that segments a photo with them.

    Example: partclipseg export partclipseg-pascal --output pascal-onnx
    """

    model: ModelArgument
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The directory to write; it must not exist yet."""
    dtype: ExportType = "float32"
    """Number type of weights and arithmetic. float16: files of half the size, for GPUs. int8: for CPUs; the text
    encoder stays float32. Inputs and outputs are float32 in any case."""
    ask: Ask = field(default_factory=Asking)

    def run(self) -> int:
        from partclipseg.inference.segmenter import PartSegmenter

        require_new(self.output)
        _require_packages()
        segmenter = PartSegmenter.from_pretrained(self.model, device="cpu", prompting=self.ask.prompting())
        agreement = export_model(segmenter, self.output, dtype=self.dtype, source=self.model)
        size = sum(path.stat().st_size for path in self.output.glob("*.onnx"))
        plain_console().print(
            f"{self.output}: three graphs, {size_text(size)}, {self.dtype}; "
            f"labels equal PyTorch's on {agreement:.2%} of the pixels checked"
        )
        return 0


def export_model(
    segmenter: PartSegmenter, directory: Path, *, dtype: ExportType = "float32", source: str = ""
) -> float:
    """Write a segmenter's model, which must be on the CPU in float32, to a new `directory`, and check it there.

    Args:
        dtype: number type of weights and arithmetic.
        source: origin of the model, for the model card.

    Returns the share of pixels at which ONNX gives PyTorch's label, see `agreement`. Raises `PartCLIPSegError`,
    and writes nothing, if that is less than `AGREEMENT` in float32, if 16-bit floats overflow, or if the model's own
    words have no object, and `UsageError` if something is at `directory`, or has come there meanwhile.
    """
    from partclipseg.apps.export.graphs import quantise_graph, trace
    from partclipseg.apps.written import naming

    if segmenter.vocabulary is not None:
        try:
            segmenter.vocabulary.with_objects("an exported model")
        except UsageError as error:
            raise PartCLIPSegError(f"vocabulary.json of {source or 'the model'}: {error}") from None
    model = copy.deepcopy(segmenter.model).half() if dtype == "float16" else segmenter.model
    with naming(directory), whole_directory(directory, new=True) as folder:
        graphs = model.onnx_graphs()
        for name, program in trace(graphs).items():
            path = folder / f"{name}.onnx"
            program.save(path, external_data=False)
            if dtype == "int8" and name != "text_encoder":  # which runs once a vocabulary
                quantise_graph(path, path)
        segmenter.tokenizer.save_pretrained(folder)
        if not (folder / "tokenizer.json").is_file():
            raise PartCLIPSegError(f"the tokenizer of {source} has no tokenizer.json: save it in its fast form first")
        if segmenter.vocabulary is not None:
            segmenter.vocabulary.save(folder / "vocabulary.json")
        config = _describe(segmenter, graphs, dtype)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (folder / "segment.py").write_text(standalone_script(), encoding="utf-8")
        equal = agreement(segmenter, folder)
        if dtype == "float32" and equal < AGREEMENT:
            raise PartCLIPSegError(
                f"the exported model gives PyTorch's label at only {equal:.2%} of the pixels, so nothing is written: "
                "try other versions of torch, onnxscript and onnxruntime"
            )
        (folder / "README.md").write_text(exported_card(config, folder, source, equal), encoding="utf-8")
    return equal


def agreement(segmenter: PartSegmenter, folder: Path) -> float:
    """Return the share of pixels at which the graphs in `folder`, run by onnxruntime, give PyTorch's label.

    Three rendered scenes at the model's own size, and one at another size and aspect ratio if the model takes it.
    Batch, number of words and sizes differ from those of the trace. Raises `PartCLIPSegError` if a value is not finite.
    """
    import numpy as np
    import torch
    from PIL import Image

    from partclipseg.apps.export.segment import Segmenter
    from partclipseg.shapes.renderer import render_scene

    onnx = Segmenter(folder)
    model: Any = segmenter.model
    if onnx.config["threshold"] is not None:  # compare without it, so that pixels that do not reach it count too
        model = copy.copy(model)
        model.ask(replace(model.prompting, threshold=0.0))
        onnx.config["threshold"] = 0.0
    height, width = model.image_shape
    scenes = [Image.fromarray(render_scene("val", index, 128).image).resize((144, 128)) for index in range(4)]
    vocabulary = _checked_words(segmenter, scenes)
    checked = [(scenes[:3], (height, width))]
    if (patch := onnx.config["patch_size"]) is not None:
        checked.append((scenes[3:], (height + 2 * patch, max(patch, width - patch))))
    equal: list[np.ndarray] = []
    for images, size in checked:
        inputs, sizes = onnx.photo_inputs(images, size), [(image.height, image.width) for image in images]
        outputs = onnx.decode(onnx.encode_photos(inputs), vocabulary.object_parts)
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise PartCLIPSegError("the exported model overflows 16-bit floats: export it with --dtype float32")
        if onnx.config["photos"] is None:
            prepared = {name: torch.from_numpy(values) for name, values in inputs.items()}
        else:
            prepared = model.prepare([np.asarray(image) for image in images])
        words = segmenter.words(vocabulary)
        with torch.inference_mode():
            expected = model.maps_of(model(prepared, words), prepared, words, sizes)
        found = onnx.label_maps(outputs, vocabulary.object_parts, sizes)
        equal += [theirs.label_map.numpy() == ours for theirs, ours in zip(expected, found, strict=True)]
    return float(np.mean(equal))


def _checked_words(segmenter: PartSegmenter, scenes: Sequence[Any]) -> Vocabulary:
    """Return at most nine classes, fewer than in the trace: those that cover most pixels, so that maps have labels."""
    import numpy as np

    from partclipseg.vocabulary import Vocabulary

    words = Vocabulary.from_text(CHECKED_WORDS) if segmenter.vocabulary is None else segmenter.vocabulary
    labels = np.stack([result.label_map for result in segmenter(list(scenes), words)])
    pixels = np.bincount(labels[labels >= 0], minlength=len(words))
    most = np.argsort(-pixels, kind="stable")[:9]
    return Vocabulary(tuple(words.object_parts[index] for index in most))


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise PartCLIPSegError(f"the export needs the package {error.name}: {how_to_install('export')}") from None


def _describe(segmenter: PartSegmenter, graphs: dict[str, OnnxGraph], dtype: str) -> dict[str, Any]:
    """Return the content of ``config.json``, which the script reads."""
    config, tokenizer = segmenter.model.config, segmenter.tokenizer
    photos = graphs["photo_encoder"].photos
    reference = getattr(config, "reference_object_lookup", False)
    return {
        "kind": config.model_type,
        "dtype": dtype,
        "image_size": list(segmenter.model.image_shape),
        "image_mean": list(config.image_mean),
        "image_std": list(config.image_std),
        "patch_size": None if photos else config.vision_config.patch_size,
        "photos": asdict(photos) if photos else None,
        "prompts": {name: list(templates) for name, templates in graphs["decoder"].prompts.items()},
        "threshold": graphs["decoder"].threshold,
        "min_part_probability": segmenter.model.min_part_probability,
        "max_tokens": segmenter.model.longest_prompt,
        "pad_token_id": tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        **({"object_words": config.object_words} if reference else {}),
    }
