"""The page of `partclipseg serve` in a real browser: everything that a person does there."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils
from tests.apps.serve.api_requests import picture

from partclipseg.formats.archive import zip_archive
from partclipseg.formats.registry import single_formats

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api")

from playwright.sync_api import sync_playwright

from partclipseg.apps.serve.engine import Engine
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.shapes.renderer import render_scene

CHROMIUM = Path("/usr/bin/chromium")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PIXELS = "c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
WORDS = "dog: ear, head\nbus: wheel"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium"),
]


@pytest.fixture(scope="module")
def address(random_segmenter, serving) -> Iterator[str]:
    """Two models: a plain one, and one that counts as the built-in one."""
    model, tokenizer = random_segmenter.model, random_segmenter.tokenizer
    segmenters = {name: PartSegmenter(model, tokenizer) for name in ("plain", "scenes")}
    with serving(Engine(segmenters, built_in="scenes")) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    """Debian's chromium; every request to another machine is refused and remembered in `refused`."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator:
    """The open page; neither an error of its script nor a request to elsewhere may remain at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.refused, page.troubles = [], []

    def guard(route) -> None:
        if re.match(r"https?://(127\.0\.0\.1|localhost|\[::1\])[:/]", route.request.url):
            route.continue_()
        else:
            page.refused.append(route.request.url)
            route.abort()

    context.route("**/*", guard)
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("console", lambda said: page.troubles.append(said.text) if said.type == "error" else None)
    open_page(page, address)
    yield page
    context.close()
    assert page.refused == []
    # The browser itself logs answers that are errors; the page shows their sentences.
    assert [said for said in page.troubles if "the server responded with a status of 4" not in said] == []


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "bad.jpg").write_text("just text")
    made = {"bad": folder / "bad.jpg"}
    for number, name in enumerate(("my scene.png", "other.jpg", "grey.tif", "<img src=x onerror=alert(1)>.png")):
        Image.fromarray(render_scene("test", number, 96).image[:80]).save(folder / name)
        made[name.partition(".")[0]] = folder / name
    return made


def until(page, condition: str) -> None:
    """Wait for a condition in JavaScript; the page's own policy forbids Playwright's `wait_for_function`."""
    end = time.monotonic() + 120
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


def open_page(page, address: str) -> None:
    page.goto("about:blank")
    page.goto(address)
    page.locator("html[data-ready]").wait_for()


def find(page, *photos: Any, words: str | None = WORDS) -> None:
    """Choose photos, fill in the words, press the button and wait for the end."""
    if photos:
        page.set_input_files("#file", photos)
    if words is not None:
        page.locator("#words").fill(words)
    page.locator("#run").click()
    page.locator("#run", has_text="Find parts").wait_for()


def painted(page, number: int = 0) -> int:
    """Pixels of the overlay that are not transparent."""
    return page.locator(".stage canvas:nth-child(2)").nth(number).evaluate(
        f"c => {PIXELS}.filter((v, i) => i % 4 === 3 && v).length"
    )


def downloaded(page, button: str) -> zipfile.ZipFile:
    with page.expect_download() as download:
        page.locator(button).click()
    archive = zipfile.ZipFile(download.value.path())
    assert archive.testzip() is None
    return archive


def test_the_whole_way(page, files, random_segmenter):
    photo = files["my scene"]
    find(page, photo)
    expected = random_segmenter(photo, WORDS)
    found = {segment.name for segment in expected.segments()}
    boxes = page.locator(".legend input")
    labels = [boxes.nth(i).get_attribute("aria-label") for i in range(boxes.count())]
    assert {label.partition(",")[0] for label in labels if not label.startswith("rest of")} == found
    assert all(label.startswith("rest of") != (", score " in label) for label in labels)
    share = 100 * expected[0].area / expected.label_map.size
    assert any(label.startswith(f"{expected[0].name}, {share:.{share < 10:d}f} %") for label in labels)

    # Hovering names the class; the legend, "minimum score" and "opacity" take away and give back.
    y, x = np.argwhere(expected.label_map >= 0)[0] + 0.5
    stage = page.locator(".stage")
    box = stage.bounding_box()
    height, width = expected.size
    stage.hover(position={"x": x / width * box["width"], "y": y / height * box["height"]})
    named = expected.vocabulary.names[expected.label_map[int(y), int(x)]]
    page.locator(".tip", has_text=named).wait_for()
    page.mouse.move(0, 0)
    before = painted(page)
    page.locator(".legend label").first.click()
    assert 0 < painted(page) < before
    page.locator(".legend label").first.click()
    page.get_by_label("Minimum score").fill("1")
    assert painted(page) < before  # at most the rest of objects remains
    page.get_by_label("Minimum score").fill("0")
    page.get_by_label("Opacity").fill("0")
    assert painted(page) == 0
    page.get_by_label("Opacity").fill("0.6")
    assert painted(page) == before
    page.get_by_role("button", name="hide all").click()
    assert painted(page) == 0
    page.get_by_role("button", name="show all").click()
    assert painted(page) == before
    for view in ("objects", "parts", "probability", "attention"):
        page.locator(f"[data-view={view}]").click()
        assert painted(page) > 0

    with downloaded(page, "#download") as archive:
        names = [name for name in archive.namelist() if ".masks/" not in name]
        usual = [kind for kind in single_formats().values() if not (kind.on_request or kind.needs_instances)]
        kinds = [kind for kind in usual if kind.make_many is None]
        assert sorted(names) == sorted(f"my scene{kind.suffix}" for kind in kinds)
        masks = {name for name in archive.namelist() if ".masks/" in name}
        assert len(masks) == len(found)
        mask = np.asarray(Image.open(io.BytesIO(archive.read("my scene.masks/dog_ear.png"))))
        assert np.array_equal(mask > 0, expected.mask("dog's ear"))
        labels = np.asarray(Image.open(io.BytesIO(archive.read("my scene.labels.png"))))
        assert np.array_equal(labels, np.where(expected.label_map < 0, 255, expected.label_map))
        coco = json.loads(archive.read("my scene.coco.json"))
        for annotation in coco["annotations"]:
            decoded = mask_utils.decode(annotation["segmentation"]) > 0
            index = annotation["category_id"] - 1
            count = len(expected.vocabulary)
            rest = (expected.label_map < 0) & (expected.object_map == index - count)
            assert np.array_equal(decoded, rest if index >= count else expected.label_map == index)


def test_the_download_follows_the_sliders(page, files, random_segmenter):
    photo = files["my scene"]
    find(page, photo)
    expected = random_segmenter(photo, WORDS)
    score = sorted(segment.score for segment in expected)[len(expected) // 2]
    page.get_by_label("Minimum score").fill(f"{score:.2f}")
    page.get_by_label("Opacity").fill("0.2")
    with downloaded(page, "#download") as archive:
        cut = expected.at_least(round(score, 2))
        found = json.loads(archive.read("my scene.parts.json"))
        assert [segment["name"] for segment in found["segments"]] == [segment.name for segment in cut]
        overlay = np.asarray(Image.open(io.BytesIO(archive.read("my scene.overlay.png"))))
        assert np.array_equal(overlay, np.asarray(cut.overlay(opacity=0.2)))


def test_several_photos_in_a_row(page, files):
    """One bad photo stops none of the others; files of photos with one stem get names of their own."""
    find(page, files["other"], files["bad"], files["grey"], files["other"])
    assert page.locator("#progress").inner_text() == "3 of 4 photos answered, 1 failed."
    badges = page.locator(".badge").all_inner_texts()
    assert badges[1] == "failed"
    assert all(re.fullmatch(r"no parts|1 part|\d+ parts", badge) for badge in (badges[0], *badges[2:]))
    assert page.locator(".name").all_inner_texts() == ["other.jpg", "bad.jpg", "grey.tif", "other-2.jpg"]
    page.keyboard.press("Escape")
    page.locator(".photo input").nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.locator("#message", has_text="not a photo in a known format").wait_for()
    page.locator("#result").wait_for(state="hidden")
    page.keyboard.press("ArrowRight")
    page.locator("#result[data-photo='grey.tif']").wait_for()
    page.locator("#message").wait_for(state="hidden")
    with downloaded(page, "#download-all") as archive:
        coco = sorted(name for name in archive.namelist() if name.endswith("coco.json"))
    assert coco == ["grey.coco.json", "other-2.coco.json", "other.coco.json"]
    page.get_by_role("button", name="remove bad.jpg").click()
    find(page, words=None)
    assert page.locator("#progress").inner_text() == "Nothing has changed: this is the result."
    page.set_input_files("#file", files["my scene"])
    assert page.locator("#progress").text_content() == ""  # it told of other photos


LONG = "screenshot of a product page with a very long title that its shop has given it, edited, final, 2026-11-28"


LONG_NAMES = tuple(f"{letter} - {LONG}.png" for letter in "ABC")


@pytest.mark.parametrize(
    ("names", "compared"),
    [
        (("a.png", "a.png"), False),
        (("a.png", "A.jpg"), False),
        (LONG_NAMES, False),  # the server keeps the end of long names
        (LONG_NAMES, True),
        ((".png", "png.png", "png"), False),
        ((" a.png", "a.png", "..a.png"), False),
        (("\u00e9.png", "e\u0301.png"), False),  # one letter with an accent, and two characters for it
    ],
)
def test_no_photo_is_lost_in_the_zip(page, names, compared):
    if compared:
        page.locator("#options summary").first.click()
        page.get_by_label("Compare with other words").check()
    widths = [40 + 10 * number for number in range(len(names))]
    photos = [
        {"name": name, "mimeType": "image/png", "buffer": picture(width, 40)}
        for name, width in zip(names, widths, strict=True)
    ]
    find(page, *photos)
    with downloaded(page, "#download-all") as archive:
        found = archive.namelist()
        # Some systems take upper and lower case for one, or the two forms of a letter with its accent.
        assert len({unicodedata.normalize("NFC", name).lower() for name in found}) == len(found)
        answers = [json.loads(archive.read(name)) for name in found if name.endswith(".parts.json")]
        assert sorted(one["width"] for one in answers) == sorted(widths * (1 + compared))
    if compared:
        assert {name.partition("/")[0].partition("-")[0] for name in found} == {"a", "b"}


@pytest.mark.parametrize(("count", "fits"), [(30_000, True), (40_000, False)])
def test_too_many_files_for_one_zip_are_a_sentence(page, address, count, fits):
    """The format has 16 bits for their number."""
    archive = base64.b64encode(zip_archive({f"{number}.txt": b"" for number in range(count)})).decode()
    join = """async ([address, packed]) => {
      const { joinArchives } = await import(address + "zip.js");
      const archive = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
      const parts = [{ folder: "", archive }, { folder: "b", archive }];
      try { return String(joinArchives(parts).size > archive.length); } catch (error) { return error.message; }
    }"""
    said = page.evaluate(join, [address, archive])
    assert said == "true" if fits else said.startswith("the files of all these photos are too many for one ZIP")


def test_two_vocabularies_side_by_side(page, files):
    page.locator("#options summary").first.click()
    page.get_by_label("Compare with other words").check()
    page.locator("#words-beside").fill("cat: tail\ncar: door")
    find(page, files["my scene"])
    titles = page.locator(".panel h3").all_inner_texts()
    assert titles == ["plain · dog: ear, head; bus: wheel", "scenes · cat: tail; car: door"]
    page.locator("[data-view=objects]").click()
    assert page.locator(".panel").nth(1).locator(".legend input").first.get_attribute("aria-label").startswith("ca")
    with downloaded(page, "#download") as archive:
        names = [name for name in archive.namelist() if name.endswith("coco.json")]
    assert names == ["a/my scene.coco.json", "b/my scene.coco.json"]


def test_objects_are_told_apart(page, files, random_segmenter):
    page.locator("#options summary").first.click()
    options = page.get_by_label("Tell objects of one kind apart").locator("option")
    assert options.all_inner_texts() == ["no", "by connected regions"]  # this server has no detector
    page.get_by_label("Tell objects of one kind apart").select_option("components")
    find(page, files["my scene"])
    expected = random_segmenter(files["my scene"], WORDS, instances="components")
    headings = set(page.locator(".legend h4").all_inner_texts())
    assert {f"{segment.object} {segment.instance}" for segment in expected if segment.instance} <= headings
    assert "instances=components" in page.url
    with downloaded(page, "#download") as archive:
        assert "my scene.instance.png" in archive.namelist()
        found = json.loads(archive.read("my scene.parts.json"))
    assert len(found["instances"]) == len(expected.instances)


def test_what_looks_at_crops_already_needs_no_second_look(page, files):
    page.locator("#options summary").first.click()
    second = page.get_by_label("Look again at small objects")
    second.check()
    page.get_by_label("Tell objects of one kind apart").select_option("components")
    assert second.is_disabled()
    find(page, files["my scene"])
    assert page.locator("#message").inner_text() == ""
    page.get_by_label("Tell objects of one kind apart").select_option("")
    assert (second.is_enabled(), second.is_checked()) == (True, True)


@pytest.mark.parametrize(("least", "wrong"), [("5", True), ("-0.1", True), ("0.33", False), ("", False)])
@pytest.mark.parametrize("by", ["button", "keys"])
def test_a_least_probability_outside_its_range_is_said(page, files, least, wrong, by):
    """Also where the options are closed, so that the browser could not point at the field."""
    page.set_input_files("#file", files["my scene"])
    page.locator("#words").fill(WORDS)
    page.locator("#options summary").first.click()
    page.get_by_label("Least probability").fill(least)
    page.locator("#options summary").first.click()
    if by == "button":
        page.locator("#run").click()
    else:
        page.locator("#words").press("Control+Enter")
    page.locator("#message" if wrong else "#result").wait_for()
    said = page.locator("#message").text_content()
    assert said.startswith("The least probability of a part is a number from 0 to 1") == wrong
    assert page.locator("#result").is_hidden() == wrong


def test_catalogues_are_searched(page):
    page.locator("#words-a summary").click()
    page.locator("#words-catalogue").select_option("pascal-part-116 (116 classes)")
    page.locator("#words-search").fill("wheel")
    rows = page.locator("#words-a .found button")
    assert rows.count() > 1
    assert all("wheel" in text for text in rows.all_inner_texts())
    page.locator("#words").fill("dog: ear")
    rows.first.click()
    first = rows.first.locator("b").inner_text()
    assert re.fullmatch(rf"dog: ear\n{first}: .*wheel.*", page.locator("#words").input_value())
    page.locator("#words-search").fill("")
    page.get_by_role("button", name="Take these instead").first.click()
    assert page.locator("#words").input_value().startswith("aeroplane: body, ")


def test_an_example_a_catalogue_and_an_error(page):
    page.locator("#run").click()
    alert = page.locator("#message")
    assert alert.inner_text() == "There is no photo yet: drop one here, or pick an example."
    page.locator("#scenes button").first.click()
    page.locator("#photos img").wait_for()
    assert ":" in page.locator("#words").input_value()
    alert.wait_for(state="hidden")
    page.locator("#words-a summary").click()
    page.locator("#words-catalogue").select_option("pascal-part-116 (116 classes)")
    page.get_by_role("button", name="Take these instead").first.click()
    find(page, words=None)
    assert page.locator("[data-view=attention]").count() == 0  # too many classes
    find(page, words="zebra.yaml")
    assert "'zebra.yaml' is no catalogue" in alert.inner_text()
    page.locator("#result").wait_for(state="hidden")
    assert page.locator("#empty").is_hidden()  # it would ask for a photo, which is there
    page.locator("#scenes button").nth(1).click()
    page.locator("#photos .name", has_text="scene-2.jpg").wait_for()
    assert page.locator(".photo").count() == 1


def test_the_built_in_model_that_meets_a_photo_has_a_yellow_box(page, files):
    box = page.locator("#no-photos")
    assert box.is_hidden()
    page.locator("#options summary").first.click()
    page.locator("#model").select_option("scenes")
    assert box.get_attribute("class") == "caption"
    assert "knows rendered scenes only, not photos: start the server with --model" in box.inner_text()
    page.locator("#scenes button").first.click()
    page.locator("#photos img").wait_for()
    assert box.get_attribute("class") == "caption"
    page.set_input_files("#file", files["my scene"])
    page.locator("#no-photos.note").wait_for()
    page.locator("#model").select_option("plain")
    box.wait_for(state="hidden")


def test_the_address_holds_the_state(page, address, files):
    page.locator("#scenes button").nth(2).click()
    page.locator("#photos img").wait_for()
    page.locator("#options summary").first.click()
    page.get_by_label("Look again at small objects").check()
    page.get_by_label("Least probability").fill("0.25")
    find(page, words=WORDS)
    page.locator("[data-view=objects]").click()
    page.get_by_label("Opacity").fill("0.35")
    where = page.url
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    open_page(page, where)
    assert page.locator("#words").input_value() == WORDS
    assert page.get_by_label("Look again at small objects").is_checked()
    assert page.get_by_label("Least probability").input_value() == "0.25"
    assert page.locator("#photos .name").inner_text() == "scene-3.jpg"
    find(page, words=None)
    assert page.locator("[data-view=objects]").get_attribute("aria-selected") == "true"
    assert page.get_by_label("Opacity").input_value() == "0.35"
    assert not [url for url in asked if "dog" in url or "ear" in url]  # the words go with the photo only
    open_page(page, f"{address}#score=7&view=nothing&model=x&opacity=%zz&scene=../../etc")
    assert page.locator("#message").inner_text().startswith("There is nothing at")
    find(page, files["my scene"])
    assert page.get_by_label("Minimum score").input_value() == "0"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *[("view", text) for text in ("constructor", "toString", "__proto__", "nothing", "")],
        *[("instances", "constructor"), ("model", "toString"), ("least", "__proto__"), ("opacity", "constructor")],
    ],
)
def test_damaged_fields_of_the_address_are_the_usual_ones(page, address, files, field, text):
    open_page(page, f"{address}#{field}={text}")
    find(page, files["my scene"])
    assert page.locator("#message").inner_text() == ""
    assert page.locator("[data-view=object_parts]").get_attribute("aria-selected") == "true"
    assert painted(page) > 0
    page.evaluate("text => { location.hash = text; }", f"{field}={text}&score=0.01")  # a link within the page
    until(page, "document.querySelector('[aria-label=\"Minimum score\"]').value === '0.01'")
    assert page.locator("[data-view=object_parts]").get_attribute("aria-selected") == "true"
    assert painted(page) > 0


@pytest.mark.parametrize("word", ["constructor", "__proto__", "toString"])
def test_words_that_every_object_of_javascript_has_are_words(page, files, word):
    find(page, files["my scene"], words=f"dog: {word}, ear\n{word}: head, {word}")
    assert page.locator("#message").inner_text() == ""
    legend = page.locator(".legend input").all()
    assert any(word in (box.get_attribute("aria-label") or "") for box in legend)
    for view in ("objects", "parts", "probability", "attention"):
        page.locator(f"[data-view={view}]").click()
        assert painted(page) > 0


def test_names_are_text(page, files):
    find(page, files["<img src=x onerror=alert(1)>"], words='dog: <b>ear</b>, "><script>')
    assert page.locator(".name").inner_text() == "<img src=x onerror=alert(1)>.png"
    assert page.locator("#message").inner_text() == ""
    assert {"<b>ear</b>"} <= set(page.locator(".legend span").all_inner_texts())
    assert page.locator(".legend b, .legend script, .name img").count() == 0


def test_pasting_and_dropping(page):
    script = """kind => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 30 });
      return new Promise((done) => canvas.toBlob((blob) => {
        const data = new DataTransfer();
        data.items.add(new File([blob], kind + ".png", { type: "image/png" }));
        const name = kind === "paste" ? "clipboardData" : "dataTransfer";
        const make = kind === "paste" ? ClipboardEvent : DragEvent;
        document.body.dispatchEvent(new make(kind, { [name]: data, bubbles: true, cancelable: true }));
        done();
      }));
    }"""
    for number, kind in enumerate(("paste", "drop"), 1):
        page.evaluate(script, kind)
        page.locator(".photo").nth(number - 1).wait_for()
    assert page.locator(".name").all_inner_texts() == ["paste.png", "drop.png"]
    assert page.locator("#camera").get_attribute("capture") == "environment"


def test_a_run_can_be_stopped(page, files, monkeypatch):
    go = threading.Event()
    segment = Engine.submit

    def slow(*arguments):
        go.wait(250)
        return segment(*arguments)

    monkeypatch.setattr(Engine, "submit", slow)
    page.set_input_files("#file", [files["my scene"], files["other"]])
    page.locator("#words").fill(WORDS)
    page.locator("#words").press("Control+Enter")
    page.locator("#run", has_text="Stop").click()
    page.locator("#run", has_text="Find parts").wait_for()
    assert page.locator(".badge").all_inner_texts() == ["stopped", ""]
    go.set()
    find(page, words=None)
    assert page.locator("#progress").inner_text() == "2 of 2 photos answered."


def test_by_keyboard_alone(page, files):
    """Tabs move by arrow keys; a focused line of the legend stands out in the picture."""
    page.set_input_files("#file", files["my scene"])
    page.locator("#words").fill(WORDS)
    page.locator("#words").press("Shift+Enter")
    page.locator("#result").wait_for()
    page.locator("[role=tab][aria-selected=true]").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.view") == "objects"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.view") == "attention"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.view") == "object_parts"
    sum_of_alpha = f"c => {PIXELS}.reduce((s, v, i) => s + (i % 4 === 3 ? v : 0), 0)"
    canvas = page.locator(".stage canvas").nth(1)
    before = canvas.evaluate(sum_of_alpha)
    page.locator(".legend input").first.focus()
    assert canvas.evaluate(sum_of_alpha) < before
    page.keyboard.press("Space")
    assert not page.locator(".legend input").first.is_checked()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(page, files, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme)
    page.locator("#options summary").first.click()
    page.get_by_label("Compare with other words").check()
    page.locator("#words-a summary").click()
    find(page, files["my scene"], files["bad"])
    for view in ("object_parts", "probability"):
        page.locator(f"[data-view={view}]").click()
        found = axe.run(page).response["violations"]
        assert [(one["id"], one["impact"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []
    page.locator(".photo input").nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert [one["id"] for one in axe.run(page).response["violations"]] == []


def test_light_and_dark(page, address):
    background = "getComputedStyle(document.documentElement).backgroundColor"
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    assert light != dark
    page.get_by_label("Colours").select_option("dark")
    assert page.evaluate(background) == dark
    open_page(page, address)
    assert page.evaluate(background) == dark


REFUSED = "throw new DOMException('Access is denied for this document.', 'SecurityError')"
STORAGE = {
    "no access": f"Object.defineProperty(window, 'localStorage', {{ get() {{ {REFUSED} }} }})",
    "none": "Object.defineProperty(window, 'localStorage', { value: null })",
    "full": "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }",
    "cookies and site data blocked": None,
}


@pytest.mark.parametrize("script", STORAGE.values(), ids=STORAGE)
def test_the_page_works_without_storage(browser, address, files, tmp_path, script):
    """Colours that are chosen hold until the page is left."""
    (tmp_path / "Default").mkdir()
    blocked = {"profile": {"default_content_setting_values": {"cookies": 2 if script is None else 1}}}
    (tmp_path / "Default" / "Preferences").write_text(json.dumps(blocked))
    start = browser.browser_type.launch_persistent_context
    context = start(tmp_path, executable_path=CHROMIUM, args=OPTIONS)
    try:
        page, troubles = context.pages[0], []
        context.set_default_timeout(120_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        if script:
            page.add_init_script(script)
        open_page(page, address)
        refused = "(() => { try { localStorage.setItem('a', 'b') } catch { return true } return false })()"
        assert page.evaluate(refused)
        page.get_by_label("Colours").select_option("dark")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.locator("#scenes button").count() == 4
        find(page, files["my scene"])
        assert painted(page) > 0
        open_page(page, address)
        assert page.evaluate("document.documentElement.dataset.theme") == ""
        assert troubles == []
    finally:
        context.close()


def test_a_narrow_window_shows_the_result(page, files):
    page.set_viewport_size({"width": 390, "height": 500})
    page.locator("#options summary").first.click()
    page.locator("#run").click()
    until(page, "document.getElementById('message').getBoundingClientRect().bottom < 500")  # there is no photo yet
    find(page, files["my scene"])
    until(page, "Math.abs(document.getElementById('output').getBoundingClientRect().y) < 60")


def test_a_narrow_window_needs_no_sideways_scrolling(page, files):
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#options summary").first.click()
    page.get_by_label("Compare with other words").check()
    page.locator("#words-beside").fill("cat: tail")
    find(page, files["my scene"], files["other"])
    assert page.locator(".panel").count() == 2
    until(page, "document.documentElement.scrollWidth == 390")
    until(page, "document.querySelector('.stage').getBoundingClientRect().width > 350")
    for width, rows in ((320, 2), (390, 1), (865, 1), (945, 1)):  # between them the layout changes: no tab is cut off
        page.set_viewport_size({"width": width, "height": 844})
        # All tabs are measured at one moment: the page may still be scrolling after the change of its width.
        tabs = "[...document.querySelectorAll('.tabs button')].map(tab => tab.getBoundingClientRect())"
        until(page, f"new Set({tabs}.map(tab => tab.y)).size == {rows} && innerWidth == {width}")
        until(page, f"Math.max(...{tabs}.map(tab => tab.right)) <= {width}")
