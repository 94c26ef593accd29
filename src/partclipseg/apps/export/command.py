"""``partclipseg export``: a model as ONNX in three files, with a script that needs no PyTorch."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from partclipseg import __version__
from partclipseg.apps.options import Ask, Asking, ModelArgument
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
        from rich.console import Console

        from partclipseg.inference.segmenter import PartSegmenter

        require_new(self.output)
        _require_packages()
        segmenter = PartSegmenter.from_pretrained(self.model, device="cpu", prompting=self.ask.prompting())
        agreement = export_model(segmenter, self.output, dtype=self.dtype, source=self.model)
        size = sum(path.stat().st_size for path in self.output.glob("*.onnx"))
        Console(soft_wrap=True, highlight=False).print(
            f"{self.output}: three graphs, {_bytes(size)}, {self.dtype}; "
            f"labels equal PyTorch's on {agreement:.2%} of the pixels checked",
            markup=False,
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
        (folder / "segment.py").write_text(_script(), encoding="utf-8")
        equal = agreement(segmenter, folder)
        if dtype == "float32" and equal < AGREEMENT:
            raise PartCLIPSegError(
                f"the exported model gives PyTorch's label at only {equal:.2%} of the pixels, so nothing is written: "
                "try other versions of torch, onnxscript and onnxruntime"
            )
        (folder / "README.md").write_text(_card(config, folder, source, equal), encoding="utf-8")
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


def _script() -> str:
    """Return ``segment.py``: `onnx_segment` with the readers of photos, words and files in place of their imports.

    The script then needs no PartCLIPSeg, and reads photos and words as PartCLIPSeg does.
    """
    from partclipseg import grammar, json_file, vocabulary
    from partclipseg.apps.export import segment as onnx_segment
    from partclipseg.data import pixels

    script, photos, rules, words, tables = (
        Path(str(module.__file__)).read_text(encoding="utf-8").strip()
        for module in (onnx_segment, pixels, grammar, vocabulary, json_file)
    )
    photos, rules, words, tables = (
        text.partition("from __future__ import annotations\n")[2].strip() for text in (photos, rules, words, tables)
    )
    photos = _replace(photos, "from partclipseg.errors import PartCLIPSegError", _ERRORS)
    rules = _replace(rules, "from partclipseg.errors import UsageError", "")
    catalogs = ", ".join(f'"{name}"' for name in grammar.CATALOGS)
    rules = _replace(rules, f"CATALOGS = ({catalogs})", "CATALOGS = ()")  # the class lists are not copied
    tables = _replace(tables, "from partclipseg.errors import PartCLIPSegError, first_line", _FIRST_LINE)
    tables = _replace(tables, "from partclipseg.files import is_regular", _IS_REGULAR)
    words = _replace(words, "from partclipseg.errors import PartCLIPSegError, UsageError", "")
    words = _replace(words, "from partclipseg.files import is_file, write_text", _FILES)
    readers = "from partclipseg.json_file import parse_json, read_json_or_yaml, read_text"
    words = _replace(words, readers, f"\n{tables}\n\n")
    before, _, after = words.partition("from partclipseg.grammar import (\n")
    words = before + after.partition("\n)\n")[2]
    photos = f"# -- reading photos -----\n\n{photos}\n"
    words = f"\n# -- reading words -----\n\n{rules}\n\n\n{words}\n\n\n# -- segmenting -----\n"
    script = _replace(script, "from partclipseg.data.pixels import read_photo", photos)
    for line in ("errors import PartCLIPSegError, UsageError, first_line", "json_file import read_json"):
        script = _replace(script, f"from partclipseg.{line}", "")
    return _replace(script, "from partclipseg.vocabulary import Vocabulary", words) + "\n"


_ERRORS = '''

class PartCLIPSegError(ValueError):
    """A photo or a file is wrong; the message names the remedy."""


class UsageError(PartCLIPSegError):
    """Words or their file are wrong; the message names the remedy."""

'''
_FIRST_LINE = '''

def first_line(error: Exception) -> str:
    """Return the first line of a library's error; the rest may be long."""
    return str(error).strip().partition("\\n")[0]

'''
_IS_REGULAR = '''

def is_regular(path: Path) -> bool:
    """Raise `OSError` for what is no file, such as a pipe, whose reader would wait for a writer."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.ENXIO, "it is no regular file", str(path))
    return path.exists()

'''
_FILES = '''

def is_file(path: Any) -> bool:
    """Whether `path` is an existing file; False, and no error, for text that no path can be."""
    try:
        return str(path) != "" and Path(path).is_file()
    except (OSError, ValueError):
        return False


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    path.write_text(text, encoding="utf-8")

'''
"""The functions of `partclipseg.files` that the reader of words uses."""


def _replace(text: str, line: str, replacement: str) -> str:
    before, found, after = text.partition(f"\n{line}\n")
    if not found:
        raise RuntimeError(f"the script to export has no line {line!r}")
    return f"{before}\n{replacement}\n{after}"


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


# -- the model card -------------------------------------------------------------------------------------------


def _card(config: dict[str, Any], folder: Path, source: str, equal: float) -> str:
    from partclipseg.models.fetch import find_model

    name = Path(source).name or "model"
    own_card = Path(find_model(source) if source else "") / "README.md"
    about = own_card.read_text(encoding="utf-8").strip() if source and own_card.is_file() else ""
    parts = [
        f"---\nlibrary_name: onnx\npipeline_tag: image-segmentation\ntags: [onnx, {config['kind']}]\n---\n",
        f"# {name}, exported to ONNX\n",
        "Open-vocabulary part segmentation: a photo and words in, the label of every pixel out. Exported from "
        f"`{source}` ({config['kind']}) by partclipseg {__version__} with torch {version('torch')}, "
        f"onnxscript {version('onnxscript')}, in {config['dtype']}.\n",
        "```\npip install numpy pillow onnxruntime tokenizers\n"
        'python segment.py photo.jpg --vocabulary "dog: head, torso, leg, tail; bus: body, wheel"\n```\n',
        "## Files\n\n" + _table(("file", "what"), _files(folder)),
        "## Graphs\n\n" + _interface(folder),
        _preparation(config),
        "## Checked\n",
        f"Run by onnxruntime {version('onnxruntime')} on rendered scenes, at a batch, number of words and photo size "
        f"that the graphs were not traced with: {equal:.3%} of the pixels have the label that the float32 PyTorch "
        "model gives.\n",
        "## Licence and limits\n",
        "The weights keep the licence and the limits of the model that they come from.\n",
    ]
    if about:
        parts += [
            "## Card of the source model\n",
            "As it stands there; files that it names are not in this directory.\n",
            about.removeprefix("---").split("\n---\n", 1)[-1].strip() + "\n",
        ]
    return "\n".join(parts)


def _preparation(config: dict[str, Any]) -> str:
    photos = config["photos"]
    if photos is None:
        height, width = config["image_size"]
        background = "Background is the last channel."
        if config["threshold"] is not None:
            background = (
                "There is no channel of background: it is where no class that competes has a probability of "
                f"{config['threshold']:g}, the `threshold` of `config.json`. The embeddings of a class stand together, "
                "one for each prompt there, and are averaged."
            )
        gate = "; the best object of a pixel decides which classes compete there"
        if "object_embeddings" not in config["prompts"]:
            gate = ", and all classes compete at every pixel"
        return (
            f"Photos are resized to {height} x {width} (bilinear with antialiasing, aspect ratio not kept), divided by "
            f"255 and normalised with the mean and deviation in `config.json`. Other sizes work in multiples of "
            f"{config['patch_size']} pixels. Logits are upsampled bilinearly to the photo's size"
            f"{gate}. {background}\n"
        )
    edges = photos["first_edges"]
    first = "" if edges is None else f"resized to a shortest edge of {edges[0]} pixels (at most {edges[1]}), "
    padded = "" if photos["divisor"] == 1 else f", padded to multiples of {photos['divisor']}"
    sizes = " and ".join(f"{' x '.join(map(str, value['size']))} (`{key}`)" for key, value in photos["inputs"].items())
    return (
        f"Photos are {first}normalised in 0..255 with the mean and deviation in `config.json`{padded}, then resized to "
        f"{sizes}, bilinear without antialiasing; other sizes are not taken. A word's embeddings stand together, one "
        "for each prompt of `config.json`. Probabilities are resized bilinearly to the photo's size, and the greatest "
        "wins. Background is the last channel.\n"
    )


def _files(folder: Path) -> list[tuple[str, str]]:
    what = {
        "photo_encoder.onnx": "photo to activations; once a photo",
        "text_encoder.onnx": "words to embeddings; once a vocabulary",
        "decoder.onnx": "activations and embeddings to a map of each class",
        "tokenizer.json": "for the `tokenizers` package",
        "tokenizer_config.json": "for transformers; the script does without it",
        "vocabulary.json": "the words that the model came with",
        "config.json": "sizes and normalisation",
        "segment.py": "segments a photo; needs neither PyTorch nor transformers",
    }
    return [
        (f"`{name}` ({_bytes((folder / name).stat().st_size)})", text)
        for name, text in what.items()
        if (folder / name).is_file()
    ]


def _bytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def _interface(folder: Path) -> str:
    import onnxruntime

    rows = []
    for name in ("photo_encoder", "text_encoder", "decoder"):
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for role, values in (("in", session.get_inputs()), ("out", session.get_outputs())):
            rows += [(name, role, f"`{v.name}`", v.type[7:-1], " x ".join(map(str, v.shape))) for v in values]
    return _table(("graph", "", "name", "type", "shape"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"
