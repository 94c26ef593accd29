"""The page of `partclipseg serve`: what it is given to show, and the whole way in a browser."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_utils

from partclipseg.formats.registry import single_formats
from partclipseg.vocabulary import Vocabulary

pytest.importorskip("gradio")

from gradio.utils import get_upload_folder
from starlette.testclient import TestClient

from partclipseg.apps.serve.command import create_app
from partclipseg.apps.serve.explain import MAX_ATTENTION, MAX_HEAT_SIDE, explain
from partclipseg.apps.serve.page import _Finder, as_text, create_page, scene_examples
from partclipseg.apps.serve.viewer import viewer_data, viewer_html
from partclipseg.inference.segmenter import PartSegmenter
from partclipseg.maps.crops import Crop
from partclipseg.shapes.renderer import render_scene

WORDS = Vocabulary.from_text("dog: ear, head; bus: wheel; cat: ear")
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return render_scene("test", 0, 96).image[:80]  # not square


# -- what led to a result -------------------------------------------------------------------------------------


@pytest.mark.parametrize("objects", [None, ("dog", "cat")])
def test_explained_results_are_those_of_the_segmenter(random_segmenter, scene, objects):
    explained = explain(random_segmenter, scene, WORDS, objects)
    expected = random_segmenter(scene, WORDS, objects=objects)
    assert np.array_equal(explained.result.label_map, expected.label_map)
    assert np.array_equal(explained.result.object_map, expected.object_map)
    np.testing.assert_allclose(explained.result.scores, expected.scores, atol=1e-6)  # the same sums, in float32


@pytest.mark.parametrize("objects", [None, ("dog", "cat")])
def test_a_second_look_is_that_of_the_segmenter(random_segmenter, scene, monkeypatch, objects):
    crops = [Crop(WORDS.objects.index("dog"), 8, 8, 40, 48)]  # what the random model finds is everywhere
    monkeypatch.setattr("partclipseg.inference.zoom.find_crops", lambda *_: crops)
    once, twice = (explain(random_segmenter, scene, WORDS, objects, zoom) for zoom in (False, True))
    expected = random_segmenter(scene, WORDS, objects=objects, zoom=True)
    assert np.array_equal(twice.result.label_map, expected.label_map)
    assert np.array_equal(twice.result.object_map, expected.object_map)
    assert not np.array_equal(twice.result.label_map, once.result.label_map)
    assert np.array_equal(twice.part_map < 0, expected.label_map < 0)
    for first, second in zip(once.probabilities, twice.probabilities, strict=True):
        assert np.array_equal(first.values, second.values)


def test_part_map_is_the_best_part_inside_the_objects(random_segmenter, scene):
    explained = explain(random_segmenter, scene, WORDS)
    logits = random_segmenter.outputs([scene], WORDS).part_logits
    upsampled = torch.nn.functional.interpolate(logits, size=scene.shape[:2], mode="bilinear")[0]
    expected = np.where(explained.result.label_map >= 0, upsampled.argmax(0).numpy(), -1)
    assert np.array_equal(explained.part_map, expected)
    for index in range(len(WORDS.parts)):
        inside = torch.from_numpy(expected == index)
        score = float(upsampled[index][inside].sigmoid().mean()) if inside.any() else 0.0
        assert explained.part_scores[index] == pytest.approx(score, abs=1e-5)  # float32 sums in two orders


def test_heat_maps(random_segmenter, scene):
    explained = explain(random_segmenter, scene, WORDS)
    output = random_segmenter.outputs([scene], WORDS)
    assert [(heat.kind, heat.name) for heat in explained.probabilities] == [
        *(("object-part", name) for name in WORDS.names),
        *(("object", name) for name in WORDS.objects),
        *(("part", name) for name in WORDS.parts),
    ]
    third = output.object_part_logits[0, 2].sigmoid()
    assert explained.probabilities[2].peak == pytest.approx(float(third.max()))
    assert np.array_equal(explained.probabilities[2].values, (third * 255).round().to(torch.uint8).numpy())
    assert [heat.name for heat in explained.attention] == list(WORDS.names)
    for heat in explained.attention:
        assert heat.values.shape == (4, 4)  # tokens of the small model
        assert heat.values.max() == 255
        assert 1 / 17 < heat.peak < 1  # the greatest of 17 shares of attention


def test_large_maps_are_reduced_and_long_vocabularies_have_no_attention(random_segmenter, scene, monkeypatch):
    monkeypatch.setattr("partclipseg.apps.serve.explain.MAX_HEAT_SIDE", 16)
    monkeypatch.setattr("partclipseg.apps.serve.explain.MAX_HEAT_MAPS", 10)
    long = Vocabulary.from_dict({"dog": [f"p{i}" for i in range(MAX_ATTENTION + 1)]})
    explained = explain(random_segmenter, scene, long)
    assert MAX_HEAT_SIDE > 16
    assert {heat.values.shape for heat in explained.probabilities} == {(16, 16)}
    assert len(explained.probabilities) == 10
    assert explained.attention == ()


def test_the_baseline_groups_its_classes_by_part(random_segmenter, scene):
    from partclipseg.models.clipseg.model import CLIPSegBaseline

    torch.manual_seed(0)
    baseline = PartSegmenter(CLIPSegBaseline(random_segmenter.model.config), random_segmenter.tokenizer)
    explained = explain(baseline, scene, WORDS)
    labels = explained.result.label_map
    assert np.array_equal(explained.part_map, np.append(WORDS.class_to_part, -1)[labels])
    assert {heat.kind for heat in explained.probabilities} == {"object-part"}
    assert explained.attention == ()
    assert "attention" not in viewer_data(explained, "")["heat"]


# -- what the viewer is given ---------------------------------------------------------------------------------


def decoded(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_the_viewer_has_every_class_of_every_pixel(random_segmenter, scene):
    explained = explain(random_segmenter, scene, WORDS)
    data = viewer_data(explained, "a title")
    for name, labels in (
        ("object-parts", explained.result.label_map),
        ("objects", explained.result.object_map),
        ("parts", explained.part_map),
    ):
        pixels = decoded(data["layers"][name]["map"]).astype(int)
        assert np.array_equal(pixels[..., 0] + 256 * pixels[..., 1], labels + 1)
        entries = data["layers"][name]["entries"]
        assert {entry["index"] for entry in entries} == set(np.unique(labels[labels >= 0] + 1).tolist())
        assert all(entry["area"] == (labels + 1 == entry["index"]).sum() for entry in entries)
    atlas = data["heat"]["probability"]
    sheet, (height, width) = decoded(atlas["atlas"]), (atlas["height"], atlas["width"])
    for index, heat in enumerate(explained.probabilities):
        row, column = divmod(index, atlas["columns"])
        found = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert np.array_equal(found, heat.values)
        assert atlas["entries"][index]["name"] == heat.name


def test_more_classes_than_a_byte_can_count(random_segmenter, scene):
    explained = explain(random_segmenter, scene, Vocabulary.from_dict({"dog": [f"p{i}" for i in range(300)]}))
    labels = np.full_like(explained.result.label_map, -1)
    labels[0, :2] = 299, 254
    explained = replace(explained, result=replace(explained.result, label_map=labels))
    pixels = decoded(viewer_data(explained, "")["layers"]["object-parts"]["map"]).astype(int)
    assert (pixels[0, :3, 0] + 256 * pixels[0, :3, 1]).tolist() == [300, 255, 0]


def test_words_cannot_break_out_of_the_page(random_segmenter, scene):
    evil = Vocabulary.from_dict({'"><script>x': ["<img src=x>"]})
    text = viewer_html(explain(random_segmenter, scene, evil), '"><b>')
    assert re.fullmatch(r'<part-viewer data-result="[^"<>]*"></part-viewer>', text)
    data = json.loads(html.unescape(text.partition('"')[2].rpartition('"')[0]))
    assert data["title"] == '"><b>'


# -- the button -----------------------------------------------------------------------------------------------


@pytest.fixture
def photo_file(tmp_path, scene) -> str:
    Image.fromarray(scene).save(tmp_path / "my scene.png")
    return str(tmp_path / "my scene.png")


def test_errors_are_sentences(make_engine, photo_file, tmp_path):
    finder = _Finder(make_engine(max_classes=2, max_pixels=80 * 96))
    (tmp_path / "bad.jpg").write_text("x")
    Image.new("RGB", (96, 81)).save(tmp_path / "large.png")
    model = "random"
    for (photo, words, objects), sentence in {
        (None, "dog: ear", None): "There is no photo yet: drop one above, or pick an example.",
        (photo_file, None, None): "No words are given: write what to look for, such as &quot;dog: head, torso, leg, "
        "tail&quot;.",
        (photo_file, "dog: a, b, c", None): "3 classes are more than the limit of 2: ask for them in portions.",
        (photo_file, "dog: ear", "<cat>"): "&#x27;&lt;cat&gt;&#x27; is not an object of the vocabulary (dog).",
        (str(tmp_path / "bad.jpg"), "dog: ear", None): "not a photo in a known format",
        (str(tmp_path / "large.png"), "dog: ear", None): "more than 7,680 pixels",
    }.items():
        [(message, first, second, download)] = finder.run(photo, words, objects, False, model, False, model, None)
        assert sentence in message["value"]
        assert "role='alert'" in message["value"]
        # Nothing of an earlier photo stays.
        assert "Choose a photo" in first["value"]
        assert not second["visible"]
        assert not download["visible"]
        assert not download["interactive"]


def test_no_memory_is_a_sentence(make_engine, photo_file, monkeypatch):
    engine = make_engine()
    monkeypatch.setattr("partclipseg.apps.serve.explain.explain", lambda *_: torch.empty(1 << 50))  # a petabyte
    [(message, *_)] = _Finder(engine).run(photo_file, "dog: ear", None, False, "random", False, "random", None)
    assert "The server has no memory for this: send a smaller photo or fewer words." in message["value"]


@pytest.mark.parametrize("zoom", [False, True])
def test_a_second_look_when_asked(make_engine, photo_file, monkeypatch, zoom):
    engine, looks = make_engine(), []

    def noted(photos, maps, *_):
        looks.append(len(photos))
        return maps

    monkeypatch.setattr(engine.segmenters["random"], "look_again", noted)
    updates = _Finder(engine).run(photo_file, "dog: ear", "", zoom, "random", False, "random", None)
    assert "part-viewer" in next(updates)[1]["value"]
    assert looks == [1] * zoom


def test_two_vocabularies_side_by_side(make_engine, photo_file):
    finder = _Finder(make_engine())
    updates = finder.run(photo_file, "dog: ear", "", False, "random", True, "random", "bus: wheel\ncar: door")
    message, first, second, download = next(updates)
    assert message == {"visible": False, "__type__": "update"}
    assert "dog: ear" in first["value"]
    assert "bus: wheel; car: door" in second["value"]
    assert not download["interactive"]
    path = Path(next(updates)[3]["value"])
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert [name for name in names if name.endswith("coco.json")] == ["a/my scene.coco.json", "b/my scene.coco.json"]
    assert next(updates, None) is None
    assert not path.exists()  # gradio has made its own copy by then


def test_examples_come_with_words_of_what_they_show():
    [example] = scene_examples(1)
    members = {member.object for member in render_scene("test", 0, 96).members}
    assert set(Vocabulary.from_text(example.words).objects) == members
    assert as_text({"a": ["b", "c"], "d": ["e"]}) == "a: b, c\nd: e"


def test_the_page_keeps_no_history_and_sends_no_statistics(make_engine):
    page = create_page(make_engine(), [])
    assert page.analytics_enabled is False
    assert page.delete_cache is not None


@pytest.mark.parametrize(("built_in", "shown"), [("first", True), ("second", False), (None, False)])
def test_the_page_says_what_the_built_in_model_does_not_know(make_engine, built_in, shown):
    engine = make_engine("first", "second")
    engine.built_in = built_in
    components = TestClient(create_app(engine)).get("/config").json()["components"]
    [notice] = [one["props"] for one in components if one["props"].get("elem_id") == "no-photos"]
    assert "knows rendered scenes only, not photos: start the server with" in notice["value"]
    assert notice["visible"] == shown


@pytest.fixture
def client(make_engine) -> TestClient:
    """Of the whole application, with one photo uploaded."""
    return TestClient(create_app(make_engine()), raise_server_exceptions=False)


def upload(client: TestClient, content: bytes) -> dict:
    """What a click names a photo by, once it is uploaded."""
    [path] = client.post("/gradio_api/upload", files={"files": ("a.png", content)}).json()
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def click(client: TestClient, photo: object) -> int:
    """Status of pressing the button with this as the photo."""
    functions = client.get("/config").json()["dependencies"]
    index = next(number for number, function in enumerate(functions) if len(function["inputs"]) == 9)
    data = [photo, "dog: ear", "", False, "random", False, "random", "", 0.3]
    click = {"data": data, "fn_index": functions[index]["id"], "session_hash": "x"}
    return client.post("/gradio_api/queue/join", json=click).status_code


@pytest.mark.parametrize("where", ["path", "nested", "url"])
def test_only_uploaded_files_are_photos(client, tmp_path, where):
    """Gradio would copy any file of the server to where it can be read, and fetch any address."""
    secret = tmp_path / "secret.png"
    secret.write_text("secret")
    path = "http://127.0.0.1:9/x.png" if where == "url" else str(secret)
    photo: object = {"path": path, "meta": {"_type": "gradio.FileData"}}
    assert click(client, [photo] if where == "nested" else photo) == 422
    assert click(client, {"path": f"{get_upload_folder()}/../../{secret}"}) == 422
    assert click(client, {"path": 3}) == 422
    assert client.get(f"/gradio_api/file={secret}").status_code == 403


def test_uploaded_files_are_photos(client, scene):
    buffer = io.BytesIO()
    Image.fromarray(scene).save(buffer, "PNG")
    assert click(client, upload(client, buffer.getvalue())) == 200
    assert click(client, None) == 200


def bad_photos() -> dict[str, tuple[bytes, str]]:
    """Files that are no photos, or too large a one, and the beginning of what the page says of each."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return {
        "not a picture": (b"just text", "The photo: not a photo in a known format"),
        "empty": (b"", "The photo: empty"),
        "400 megapixels": (buffer.getvalue(), "The photo has more than 25,000,000 pixels"),
    }


@pytest.mark.parametrize("name", bad_photos())
def test_bad_photos_are_sentences_on_the_page(make_engine, name, capfd):
    """Gradio would open the file first, and show its own message with a path of the server in it."""
    content, sentence = bad_photos()[name]
    with TestClient(create_app(make_engine())) as client:
        assert click(client, upload(client, content)) == 200
        stream = client.get("/gradio_api/queue/data", params={"session_hash": "x"}).text
    messages = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: ")]
    [done] = [message for message in messages if message["msg"] == "process_completed"]
    assert done["success"], done
    assert f"<div class='alert' role='alert'>{sentence}" in stream
    assert get_upload_folder() not in stream
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "path", ["run/run", "api/run", "call/run", "proxy=http://127.0.0.1:9/", "vibe-edit", "runs", "heartbeat/x"]
)
def test_nothing_else_of_gradio_is_open(client, path):
    for method in ("GET", "POST"):
        assert client.request(method, f"/gradio_api/{path}").status_code == 404


def test_clicks_are_small_and_json(client):
    for body, code in ((b"{", 422), (b"[" * 100_000, 422), (b" " * 5_000_000, 413)):
        assert client.post("/gradio_api/queue/join", content=body).status_code == code


# -- in a browser ---------------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path) -> Iterator:
    """A page in Debian's chromium; every request to another machine is refused and remembered in `page.refused`."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("needs /usr/bin/chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=CHROMIUM, args=options, viewport={"width": 1280, "height": 900}
        )
        page = context.pages[0]
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
        yield page
        context.close()


def painted(page) -> int:
    """Pixels of the overlay that are not transparent."""
    return page.locator("part-viewer .stage canvas").nth(1).evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 3 && v).length"
    )


def upload_and_find(page, address: str, photo_file: str, words: str) -> None:
    page.goto(address)
    page.locator("#photo input[type=file]").set_input_files(photo_file)
    page.wait_for_selector("#photo img")
    page.locator("#words textarea").fill(words)
    page.locator("#run").click()
    page.wait_for_selector("part-viewer[data-ready]")


def find_again(page, done: str) -> None:
    """Press the button until the script `done` is true: a press while the last answer still arrives is not taken."""
    from playwright.sync_api import TimeoutError as Waited

    for attempt in range(6):
        page.locator("#run").click()
        try:
            page.wait_for_function(done, timeout=8000)
            return
        except Waited:
            if attempt == 5:
                raise


@pytest.mark.slow
def test_the_whole_way(page, served, photo_file, random_segmenter):
    words = "dog: ear, head\nbus: wheel"
    upload_and_find(page, served, photo_file, words)
    expected = random_segmenter(photo_file, words)
    found = {segment.name for segment in expected.segments()}
    boxes = page.locator("part-viewer .legend input")
    assert {boxes.nth(i).get_attribute("aria-label") for i in range(boxes.count())} == found

    # Hovering names the class; the legend, "minimum score" and "opacity" take away and give back.
    y, x = np.argwhere(expected.label_map >= 0)[0] + 0.5
    stage = page.locator("part-viewer .stage")
    box = stage.bounding_box()
    height, width = expected.size
    stage.hover(position={"x": x / width * box["width"], "y": y / height * box["height"]})
    named = expected.vocabulary.names[expected.label_map[int(y), int(x)]]
    assert named in page.locator("part-viewer .tip").inner_text()
    before = painted(page)
    page.locator("part-viewer .legend label").first.click()
    assert 0 < painted(page) < before
    page.locator("part-viewer .legend label").first.click()
    page.mouse.move(0, 0)
    page.locator("part-viewer").get_by_label("Minimum score").fill("1")
    assert painted(page) == 0
    page.locator("part-viewer").get_by_label("Minimum score").fill("0")
    assert painted(page) == before
    page.get_by_role("button", name="hide all").click()
    assert painted(page) == 0
    for view in ("objects", "parts", "probability", "attention"):
        page.locator(f"part-viewer [data-view={view}]").click()
        assert painted(page) > 0

    with page.expect_download() as download:
        page.locator("#download:not([disabled])").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = archive.namelist()
        suffixes = [kind.suffix.removeprefix(".") for kind in single_formats().values()]
        assert sorted(names) == sorted(f"my scene.{suffix}" for suffix in suffixes)
        labels = np.asarray(Image.open(io.BytesIO(archive.read("my scene.labels.png"))))
        assert np.array_equal(labels, np.where(expected.label_map < 0, 255, expected.label_map))
        coco = json.loads(archive.read("my scene.coco.json"))
        for annotation in coco["annotations"]:
            mask = mask_utils.decode(annotation["segmentation"]) > 0
            assert np.array_equal(mask, expected.label_map == annotation["category_id"] - 1)
        assert {shape["label"] for shape in json.loads(archive.read("my scene.labelme.json"))["shapes"]} <= found
    assert page.refused == []
    assert page.troubles == []


@pytest.mark.slow
def test_a_catalogue_an_example_and_an_error(page, served):
    page.goto(served)
    page.locator("#run").click()
    alert = page.locator("#message [role=alert]")
    alert.wait_for()
    assert alert.inner_text() == "There is no photo yet: drop one above, or pick an example."
    page.locator("#examples button").first.click()
    page.wait_for_selector("#photo img")
    words = page.locator("#words textarea")
    assert ":" in words.input_value()
    page.locator("#words-catalogue input").click()
    page.get_by_role("option", name="pascal-part-116 (116 classes)").click()
    page.wait_for_function("document.querySelector('#words textarea').value.startsWith('aeroplane: body')")
    page.locator("#run").click()
    page.wait_for_selector("part-viewer[data-ready]")
    assert page.locator("part-viewer [data-view=attention]").count() == 0  # too many classes
    alert.wait_for(state="hidden")
    page.wait_for_selector("#download:not([disabled])")
    words.fill("zebra.yaml")
    find_again(page, "document.querySelector('#message [role=alert]')")
    assert "'zebra.yaml' is no catalogue" in alert.inner_text()
    page.wait_for_function("!document.querySelector('part-viewer')")
    page.locator("#download").wait_for(state="hidden")
    assert page.refused == []
    assert page.troubles == []


@pytest.mark.slow
def test_a_narrow_window_needs_no_sideways_scrolling(page, served, photo_file):
    page.set_viewport_size({"width": 390, "height": 844})
    upload_and_find(page, served, photo_file, "dog: ear, head\nbus: wheel")
    page.locator("#options button").first.click()
    page.get_by_label("Look again at small objects").check()
    page.get_by_label("Compare with other words").check()
    page.locator("#words-b textarea").fill("cat: tail")
    find_again(page, "document.querySelectorAll('part-viewer[data-ready]').length === 2")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    viewer = page.locator("part-viewer").first.bounding_box()
    assert viewer["width"] > 350
