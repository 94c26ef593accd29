"""Makes docs/api.md, the reference of what can be imported, from the docstrings.

    python docs/api.py

Reads the source with griffe and imports none of it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe

PAGE = Path(__file__).with_name("api.md")
SOURCE = Path(__file__).parents[1] / "src"

CONTENT: dict[str, tuple[str, ...]] = {
    "Words": ("vocabulary.Vocabulary", "vocabulary.ObjectPart", "vocabulary.Catalog"),
    "Photos to parts": (
        *("inference.segmenter.PartSegmenter", "inference.result.PartResult", "inference.result.Segment"),
        *("data.runs.LabelRuns", "data.photo.read_photo"),
    ),
    "Parts with their owner": (
        *("instances.found.FoundObject", "formats.segment.Instance", "instances.detectors.Detector"),
        *("instances.outlines.Outliner", "instances.found.ObjectSource"),
    ),
    "Asking a server": ("client.Client",),
    "Models": (
        *("models.registry.load_model", "models.interface.PartModel", "models.interface.PartOutput"),
        *("models.interface.Words", "models.partclipseg.model.PartCLIPSegModel"),
        "models.clipseg.model.CLIPSegBaseline",
        *("models.partclipseg.config.PartCLIPSegConfig", "models.partclipseg.foreign.load_reference_checkpoint"),
    ),
    "Scores": (
        *("evaluation.run.evaluate", "evaluation.evaluator.Evaluator", "evaluation.scores.Scores"),
        *("evaluation.scores.SetScores", "evaluation.scores.SmallPartScores", "evaluation.scores.ClassScores"),
        *("evaluation.instances.evaluate_instances", "evaluation.partpq.PartPQScores"),
        *("evaluation.partpq.QualityScores", "evaluation.average_precision.ApScores"),
    ),
    "Training": (
        *("training.run.train", "training.loop.TrainingResult"),
        *("training.recipe.Recipe", "training.recipe.RECIPES", "training.recipe.Retention"),
        *("training.data.open_training_data", "training.data.TrainingData"),
        *("training.observer.Observer", "training.observer.Progress"),
    ),
    "Losses": (
        *("losses.config.LossConfig", "losses.classes.ClassLoss", "losses.finite.check_finite"),
        "models.partclipseg.loss.PartLoss",
    ),
    "Data": (
        *("data.datasets.open_dataset", "data.sample.PartSample", "data.check.check_dataset"),
        *("data.augment.Augmentation", "data.loader.build_loader"),
    ),
    "PartShapes": (
        *("shapes.dataset.PartShapesDataset", "shapes.renderer.render_scene", "shapes.scene.Scene"),
        *("shapes.world.partshapes_world", "shapes.contact_sheet.contact_sheet"),
    ),
    "Errors": ("errors.PartCLIPSegError", "errors.UsageError", "data.photo.PhotoError"),
}
"""Heading: names below `partclipseg`."""

_HEAD = """# API

What can be imported, from the docstrings (`python docs/api.py` makes this page). Shapes are in brackets, `[H, W]` is
the photo's height and width; indices of classes count from 0, and -1 is background or "no label". Scores of segments
are 0 to 1, scores of models are in percent, areas and boxes (x, y, width, height) in pixels. Names marked with ★ can be
imported from `partclipseg` itself. Every error that names a mistake is a `PartCLIPSegError`; wrong arguments raise its
kind `UsageError`.

## The main jobs

```python
import partclipseg

segmenter = partclipseg.PartSegmenter.from_pretrained("models/pascal")  # a directory, or a name of `partclipseg models`
words = {"dog": ["head", "ear", "torso", "leg", "tail"]}

# The parts of a photo: masks, maps, files.
result = segmenter("photo.jpg", words)
print(result.label_map.dtype, result.label_map.shape)  # int32 (H, W)
for segment in result:
    print(segment.name, segment.score, segment.area, segment.box)
mask = result.mask("dog's ear")  # bool [H, W]
result.save("parts", formats=["overlay", "coco"])

# Many photos: one that cannot be read does not stop the others.
for path, outcome in segmenter.segment_many(["photo.jpg", "missing.jpg"], words):
    print(path, outcome if isinstance(outcome, partclipseg.PartCLIPSegError) else len(outcome))

# Parts get their owner where objects are told apart.
result = segmenter("photo.jpg", words, instances="components")
print([(owner.number, owner.object, owner.box) for owner in result.instances])

# The scores of a model on data with labels.
dataset = partclipseg.open_dataset("index-png", "data/pets")
scores = partclipseg.evaluate(segmenter, dataset, ["pred_all"])
print(scores["pred_all"].all.iou)  # percent
```

<!-- not run: needs CLIPSeg's weights -->
```python
# A model for labelled photos of your own.
run = partclipseg.train("own-data", data="data/cars", output="runs/cars", object="car")
segmenter = partclipseg.PartSegmenter.from_pretrained(run.directory)
```

More of each: [photos](prediction.md#in-python), [owners](instances.md#in-python), [scores](scores.md#in-python),
[training](training.md), [data](data.md#in-python).

## Contents
"""


def page() -> str:
    """The whole page."""
    logging.getLogger("griffe").setLevel(logging.ERROR)  # it warns of arguments that are described together
    package = griffe.load("partclipseg", search_paths=[SOURCE], docstring_parser="google")
    top = set(_names(package["__all__"].value))
    lines, told = [_HEAD], set()
    for heading, paths in CONTENT.items():
        names = ", ".join(f"`{path.rpartition('.')[2]}`" for path in paths)
        lines.append(f"- [{heading}](#{heading.lower().replace(' ', '-')}): {names}")
    for heading, paths in CONTENT.items():
        lines.append(f"\n## {heading}\n")
        for path in paths:
            lines += _entry(package[path], path, top, told)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _names(value: Any) -> Iterator[str]:
    return (str(element).strip("'\"") for element in value.elements)


def _entry(item: Any, path: str, top: set[str], told: set[str]) -> Iterator[str]:
    module, _, name = path.rpartition(".")
    yield f"### {name}\n"
    yield f"★ `from partclipseg import {name}`\n" if name in top else f"`from partclipseg.{module} import {name}`\n"
    if item.is_attribute:
        yield from _docstring(item)
        return
    if item.is_class and not _has_init(item):
        yield from _docstring(item)
    else:
        yield f"```python\n{_signature(item, name)}\n```\n"
        yield from _docstring(item)
    if item.is_class:
        if "__init__" in item.members:
            yield from _docstring(item.members["__init__"])
        yield from _members(item, told)


def _has_init(item: Any) -> bool:
    """Whether its own code, or that of a dataclass, says how to make one."""
    return "__init__" in item.members or "dataclass" in item.labels


def _signature(item: Any, name: str) -> str:
    parameters = [p for p in item.parameters if p.name not in {"self", "cls"}]
    shown = []
    starred = False
    for parameter in parameters:
        keyword = parameter.kind is griffe.ParameterKind.keyword_only
        if keyword and not starred:
            shown.append("*")
        starred |= keyword or parameter.kind is griffe.ParameterKind.var_positional
        text = _PREFIX.get(parameter.kind, "") + parameter.name
        text += f": {parameter.annotation}" if parameter.annotation is not None else ""
        if parameter.default is not None and parameter.kind not in _PREFIX:
            text += f" = {parameter.default}"
        shown.append(text)
    answer = f" -> {item.returns}" if item.is_function and item.returns is not None else ""
    line = f"{name}({', '.join(shown)}){answer}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {text},\n" for text in shown) + f"){answer}"


_PREFIX = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}


def _members(item: Any, told: set[str]) -> Iterator[str]:
    """`told` are the functions that the page has described, with which this one's are united."""
    members = {**item.inherited_members, **item.members}  # of what is inherited, what this package wrote
    public = [m for name, m in members.items() if not name.startswith("_") or name in _SPOKEN]
    fields = [m for m in public if m.is_attribute and m.docstring is not None]
    if fields:
        yield "".join(f"- `{m.name}`{_annotation(m)}: {_in_line(m.docstring.value)}\n" for m in fields)
    functions = [m for m in public if m.is_function and m.docstring is not None]
    if repeated := [f"`{m.name}`" for m in functions if m.canonical_path in told]:
        yield f"And, as above: {', '.join(repeated)}.\n"
    for member in functions:
        if member.canonical_path not in told:
            told.add(member.canonical_path)
            if member.name == "__call__":
                yield f"#### Calling a {item.name}\n"
                name = re.findall("[A-Z][a-z]+", item.name)[-1].lower()
            else:
                yield f"#### {item.name}.{member.name}\n"
                name = f".{member.name}"
            yield f"```python\n{_signature(member, name)}\n```\n"
            yield from _docstring(member)


_SPOKEN = {"__call__"}
"""Methods with underscores that users call."""


def _annotation(member: Any) -> str:
    return f", `{member.annotation}`" if member.annotation is not None else ""


def _in_line(text: str) -> str:
    return " ".join(text.split())


def _docstring(item: Any) -> Iterator[str]:
    if item.docstring is None:
        return
    for section in item.docstring.parsed:
        kind = section.kind.value
        if kind == "text":
            yield f"{section.value}\n"
        elif kind in _TITLES:
            yield f"{_TITLES[kind]}\n\n" + "".join(_bullets(kind, section.value))


_TITLES = {"parameters": "Arguments:", "raises": "Raises:", "returns": "Returns:", "yields": "Yields:"}


def _bullets(kind: str, values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        name = value.name if kind == "parameters" else value.annotation if kind == "raises" else None
        yield f"- `{name}`: {_in_line(value.description)}\n" if name else f"- {_in_line(value.description)}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {len(PAGE.read_text(encoding='utf-8').splitlines())} lines")
