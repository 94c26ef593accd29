"""Tables of PartPQ and average precision, in the form of those of the other scores."""

from __future__ import annotations

from partclipseg.counts import count_of, noun
from partclipseg.evaluation.average_precision import ApScores
from partclipseg.evaluation.partpq import BACKGROUND, PartPQScores
from partclipseg.evaluation.tables import Table, figure

RULE_NAMES = {"paco": "PACO's rule for parts", "lvis": "LVIS' rules"}


def partpq_table(scores: PartPQScores) -> Table:
    """Return PartPQ, its two factors and the number of classes, by set of classes."""
    sets = {"all": scores.all, "with parts": scores.with_parts, "without parts": scores.without_parts}
    rows = [
        (label, *(figure(getattr(members, name)) for members in sets.values()))
        for label, name in (("PartPQ", "pq"), ("PartSQ", "sq"), ("PartRQ", "rq"))
    ]
    rows.append(("Classes", *(str(members.classes) for members in sets.values())))
    photos = count_of(scores.photos, "photo")
    note = f"{photos}. The surroundings are one of a segment's labels, so every matched segment scores."
    if all(item.name != BACKGROUND for item in scores.classes):
        note += " These labels do not cover all objects, so the background is void: what is invented there is no error."
    return Table("PartPQ: parts with their owner", ("", *sets), tuple(rows), note)


def partpq_class_table(scores: PartPQScores) -> Table:
    """Return a row for each class that occurs, in the order of the classes."""
    rows = [
        (item.name, figure(item.pq), figure(item.sq), figure(item.rq), *map(str, (item.tp, item.fp, item.fn)))
        for item in scores.classes
        if item.tp + item.fp + item.fn
    ]
    missing, classes = len(scores.classes) - len(rows), count_of(len(scores.classes), "class")
    note = f"{missing:,} of {classes} {noun(missing, 'does', 'do')} not occur." if missing else ""
    columns = ("class", "PartPQ", "PartSQ", "PartRQ", "matched", "false", "missed")
    return Table("Classes, PartPQ", columns, tuple(rows), note)


def ap_tables(scores: ApScores) -> list[Table]:
    """Return AP by the rules of LVIS and PACO, and COCO's AP of seen and unseen categories."""
    groups = (
        ("Objects (AP_obj)", scores.objects),
        ("Object-parts (AP_opart)", scores.object_parts),
        ("All", scores.all),
    )
    names = ("ap", "ap50", "ap75", "small", "medium", "large")
    rows = tuple((label, *(figure(getattr(members, name)) for name in names)) for label, members in groups)
    note = (
        f"{count_of(scores.photos, 'photo')}, masks, {RULE_NAMES[scores.rule]}. Object-parts: mean over part words of "
        "the mean over the objects with that part. No AP asks whose a part is: PartPQ does."
    )
    lvis = Table("AP by the rules of LVIS and PACO", ("", "AP", "AP50", "AP75", "small", "medium", "large"), rows, note)
    coco = (
        ("Objects", scores.coco_objects),
        ("Object-parts", scores.coco_object_parts),
        ("All", scores.coco_all),
    )
    split = not all(item.seen for item in scores.categories)
    names = ("ap", "ap50", "seen", "unseen") if split else ("ap", "ap50")
    rows = tuple((label, *(figure(getattr(members, name)) for name in names)) for label, members in coco)
    columns = ("", "AP", "AP50", "AP of seen", "AP of unseen")[: len(names) + 1]
    note = "Mean over the categories that have a true region; an object is seen if one of its parts is."
    return [lvis, Table("AP by COCO's rules", columns, rows, note if split else note.split(";")[0] + ".")]


def ap_class_table(scores: ApScores) -> Table:
    """Return a row for each category that has a true region, objects first."""
    ordered = sorted(scores.categories, key=lambda item: not item.is_object)
    rows = [
        (
            item.name,
            "seen" if item.seen else "unseen",
            *map(figure, (item.ap, item.ap50, item.coco_ap)),
            f"{item.truths:,}",
        )
        for item in ordered
        if item.truths
    ]
    missing, categories = len(ordered) - len(rows), count_of(len(ordered), "category", "categories")
    lacking = f"{missing:,} of {categories} {noun(missing, 'has', 'have')} no true region in these photos."
    note = lacking if missing else ""
    return Table("Categories, AP", ("category", "set", "AP", "AP50", "COCO AP", "regions"), tuple(rows), note)
