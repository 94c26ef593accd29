from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partclipseg import Evaluator, Vocabulary
from partclipseg.evaluation.choices import Rule
from partclipseg.evaluation.pictures import PhotoExample, draw_class_bars, draw_strip, write_photo_page
from partclipseg.evaluation.report import Report, class_table, figure, published, published_table, score_table
from partclipseg.evaluation.scores import Scores
from partclipseg.evaluation.tasks import published_rows
from partclipseg.formats.palette import part_colours
from partclipseg.kept_files import KeptFiles
from partclipseg.vocabulary import CATALOGS

VOCABULARY = Vocabulary.from_names(["cat's ear", "cat's leg", "dog's ear"])


def some_scores(protocol: str = "pred_all", seen: list[int] | None = None, **options: Any) -> Scores:
    evaluator = Evaluator(VOCABULARY, seen, protocol=protocol, **options)
    labels = np.array([[0, 0, 1, 1], [-1, -1, 1, 1]], np.int32)
    evaluator.update(np.array([[0, 1, 1, 1], [2, 2, 1, 1]], np.int32), labels, np.maximum(labels, -1) * 0, key="a")
    return evaluator.compute()


def some_report(*scores: Scores, dataset: str = "pascal-part-116") -> Report:
    return Report("m|odel", dataset, {"split": "test"}, scores, photos=1)


@pytest.mark.parametrize("dataset", CATALOGS)
@pytest.mark.parametrize("protocol", ["oracle_obj", "pred_all"])
def test_published_figures_hold_together(dataset: str, protocol: str) -> None:
    rows = published(dataset, protocol)
    assert "PartCLIPSeg" in {row.method for row in rows}
    for row in rows:
        if row.seen and row.unseen and row.harmonic and row.confirmed:
            # Papers print two decimals, and some average before rounding.
            assert row.harmonic == pytest.approx(2 * row.seen * row.unseen / (row.seen + row.unseen), abs=0.02), row
    assert published(dataset, "strict") == ()
    assert published("coco", protocol) == ()


def test_unconfirmed_figures_are_marked_and_ours_comes_last() -> None:
    scores = some_scores(seen=[0])
    table = published_table("model", scores, published("pascal-part-116", "pred_all"))
    names = [row[0] for row in table.rows]
    assert "PartCLIPSeg" in names
    assert "VLPart †" in names
    assert "not checked" in table.note
    assert table.rows[-1] == ("this: model", "50.00", "80.00", "61.54")  # ear 1 of 2, leg 4 of 5


def test_figures_of_one_source_have_one_rule() -> None:
    for row in published_rows():
        if row["task"] == "zero-shot" and row["seen"]:
            for other in published(row["dataset"], "oracle_obj"):
                if (other.seen, other.unseen) == (row["seen"], row["unseen"]):
                    assert other.rule == "ov-parts", other


@pytest.mark.parametrize(
    ("rule", "mean", "said"),
    # The ear is found; the leg is taken for the dog's ear, which has no label.
    [("partclipseg", "33.33", True), ("partcatseg", "100.00", False), ("ov-parts", "33.33", True)],
)
def test_the_score_table_says_what_its_rule_counts(rule: Rule, mean: str, said: bool) -> None:
    evaluator = Evaluator(VOCABULARY, protocol="pred_all", rule=rule)
    labels = np.array([[0, 0, 1, 1]], np.int32)
    evaluator.update(np.array([[0, 0, 2, 2]], np.int32), labels, labels * 0)
    table = score_table(evaluator.compute())
    assert table.rows[0] == ("mIoU", mean)
    assert ("mIoU of all counts a predicted class without any label as 0" in table.note) == said


def test_score_table_has_sets_only_where_something_is_unseen() -> None:
    assert score_table(some_scores(seen=[0])).columns == ("", "all", "seen", "unseen", "harmonic")
    table = score_table(some_scores(boundary=None))
    assert table.columns == ("", "all")
    assert "Boundary IoU" not in {row[0] for row in table.rows}
    assert all(len(row) == 2 for row in table.rows)


def test_class_table_leaves_out_classes_without_labels() -> None:
    table = class_table(some_scores())
    assert [row[0] for row in table.rows] == ["cat's ear", "cat's leg"]
    assert table.note == "1 of 3 classes has no label in these photos."


def test_class_table_has_only_the_columns_that_say_something() -> None:
    assert class_table(some_scores(seen=[0])).columns == ("class", "set", "IoU", "Boundary IoU", "Recall", "Pixels")
    table = class_table(some_scores(boundary=None))
    assert table.columns == ("class", "IoU", "Recall", "Pixels")
    assert all(len(row) == 4 for row in table.rows)


def test_undefined_figures_are_dashes() -> None:
    assert (figure(None), figure(float("nan")), figure(12.345), figure(0.0)) == ("–", "–", "12.35", "0.00")


def test_json_has_no_nan_and_holds_every_protocol() -> None:
    report = some_report(some_scores("oracle_obj", seen=[0, 1]), some_scores("strict"))
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert set(content["scores"]) == {"oracle_obj", "strict"}
    assert content["scores"]["oracle_obj"]["unseen"]["iou"] is None
    assert content["published"]["oracle_obj"][0]["method"]


def test_markdown_tables_are_well_formed() -> None:
    report = some_report(some_scores(seen=[0]), some_scores("strict"))
    text = report.to_markdown({"pred_all": "bars.png"}, "photos.html")
    lines = text.splitlines()
    assert lines[0] == r"# m\|odel on pascal-part-116"
    assert "![IoU of each class](bars.png)" in lines
    assert "(photos.html)" in text
    widths = [line.replace(r"\|", "").count("|") for line in lines if line.startswith("|")]
    heads = [line.count("|") for line in lines if line.startswith("| :--")]
    assert len(heads) == 6  # two of scores, one of rules, one of published figures, two of classes
    assert set(widths) == set(heads)


def test_numbers_and_nouns_agree() -> None:
    text = some_report(some_scores(), some_scores("strict")).to_markdown()
    for sentence in (
        "1 photo. All scores in percent.",
        "1 record with 2 of 3 classes.",
        "1 photo with 2 of 3 classes.",
        "1 of 3 classes has no label in these photos.",
    ):
        assert sentence in text


def test_a_remark_is_shown() -> None:
    report = Report("m", "coco", {}, (some_scores(),), 1, "Not comparable: *limit*.")
    assert r"> Not comparable: \*limit\*." in report.to_markdown()


@pytest.mark.parametrize("seen", [None, [0]])
def test_bars_are_drawn(tmp_path: Path, seen: list[int] | None) -> None:
    pytest.importorskip("matplotlib")
    draw_class_bars(some_scores(seen=seen), tmp_path / "bars.png", "title")
    with Image.open(tmp_path / "bars.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert (0x3B, 0x6F, 0xB6) in colours
    assert ((0xE0, 0x8A, 0x2B) in colours) == (seen is not None)


def example(key: str) -> PhotoExample:
    labels = np.full((30, 40), -1, np.int32)
    labels[5:20, 5:20] = 0
    prediction = np.roll(np.where(labels == 0, 2, -1).astype(np.int32), 5, axis=1)
    return PhotoExample(key, 12.0, np.full((30, 40, 3), 90, np.uint8), labels, prediction)


def test_strip_shows_photo_labels_and_prediction() -> None:
    colours = part_colours(VOCABULARY)
    strip = np.asarray(draw_strip(example("a"), colours, side=40))
    assert strip.shape == (30, 3 * 40 + 2 * 10, 3)
    photo, labels, prediction = strip[:, :40], strip[:, 50:90], strip[:, 100:]
    assert (photo == 90).all()
    # Where only one of the two maps has a part, the two panels differ; far away from any part they agree.
    assert not np.array_equal(labels[10:15, 8:10], prediction[10:15, 8:10])
    assert np.array_equal(labels[25:], prediction[25:])


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(str(dict(attrs)["src"]))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_photo_page_shows_every_example_and_escapes_names(tmp_path: Path) -> None:
    path = tmp_path / "photos.html"
    groups = {"Best photos": [example("<b>.jpg"), example("two")], "Worst photos": [example("three")]}
    write_photo_page(KeptFiles(tmp_path, "evaluate"), path.name, "m & n", "strict", groups, VOCABULARY)
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.images) == 3
    assert all((tmp_path / image).is_file() for image in page.images)
    for text in ("m & n", "<b>.jpg", "two", "three", "cat's ear", "dog's ear", "mIoU 12.00"):
        assert text in page.text
    assert "cat's leg" not in page.text
