"""Write the model card of an exported model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from partclipseg import __version__


def exported_card(config: dict[str, Any], folder: Path, source: str, equal: float) -> str:
    """Return ``README.md`` of the exported model in `folder`.

    Args:
        config: content of its ``config.json``.
        source: origin of the model: a name, or a folder whose card is added at the end.
        equal: share of the checked pixels at which it gives PyTorch's label.
    """
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
        (f"`{name}` ({size_text((folder / name).stat().st_size)})", text)
        for name, text in what.items()
        if (folder / name).is_file()
    ]


def size_text(count: int) -> str:
    """Return a number of bytes in words, such as ``1.5 MiB``."""
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
