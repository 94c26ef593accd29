"""Names that a caller of an evaluation chooses from; this module imports nothing heavy, for command lines."""

from __future__ import annotations

from typing import Literal, get_args

Protocol = Literal["oracle_obj", "pred_all", "strict", "predicted_objects"]
"""What a model is told about a photo, and the pixels that count; see `evaluator`."""

ALL_PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

PROTOCOLS: tuple[Protocol, ...] = ("oracle_obj", "pred_all", "strict")
"""Protocols that are scored unless others are named."""

WITHIN_OBJECTS: tuple[Protocol, ...] = ("oracle_obj", "predicted_objects")
"""Protocols under which parts compete within an object, without background."""

PROTOCOL_HELP: dict[Protocol, str] = {
    "oracle_obj": "the model is told which objects are in the photo.",
    "pred_all": "it is told nothing; what it finds outside the labels is not counted.",
    "strict": "it is told nothing, and a part found on the background is an error.",
    "predicted_objects": "the parts within the objects that the model finds; pixels without one are left out.",
}
"""Explanation of each protocol, for help texts."""

PROTOCOL_TITLES: dict[Protocol, str] = {
    "oracle_obj": "Oracle-Obj: the objects in the photo are known",
    "pred_all": "Pred-All: nothing is known, labelled pixels count",
    "strict": "Strict: nothing is known, the whole photo counts",
    "predicted_objects": "Parts of predicted objects: what is found within the objects that the model finds",
}
"""Heading of each protocol in reports."""

Rule = Literal["partclipseg", "partcatseg", "ov-parts"]
"""Rule that selects the classes over which the mIoU of a set is averaged; see `scores.mean_iou`."""

RULES: tuple[Rule, ...] = get_args(Rule)

RULE_TITLES: dict[Rule, str] = {
    "partclipseg": "partclipseg: classes with labels",
    "partcatseg": "partcatseg: classes with an IoU above 0",
    "ov-parts": "ov-parts: classes with labels, over those labelled or predicted",
}
"""Rules of averaging, and the classes that each averages over."""

BoundaryKind = Literal["per_class", "reference"]
"""Form of Boundary IoU; see `boundary.boundary_maps`."""

BOUNDARY_KINDS: tuple[BoundaryKind, ...] = get_args(BoundaryKind)

Metric = Literal["partpq", "ap"]
"""Metric of parts with their owners; see `instances.evaluate_instances`."""

METRICS: tuple[Metric, ...] = get_args(Metric)

TRUE_OBJECTS = ("true-boxes", "true-masks")
"""Sources of objects that take them from the labels, to measure the parts alone."""

Task = Literal["zero-shot", "few-shot", "cross-dataset", "supervised"]
"""OV-PARTS' tasks, and training on all classes and photos, which it lists for comparison."""

TASKS: tuple[Task, ...] = get_args(Task)

StatedTask = Literal["zero-shot", "few-shot"]
"""Tasks that a caller may state where the words of a model do not tell its task."""

QuestionForm = Literal["referring", "instruction"]
"""Form in which InstructPart asks for a part."""

QUESTION_FORMS: dict[QuestionForm, str] = {
    "referring": "Oracle referring part segmentation: the part and its object are named",
    "instruction": "Instruction reasoning part segmentation: a sentence is given",
}
"""Forms of a question, and what is given in each."""
