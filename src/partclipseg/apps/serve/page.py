"""The web page of ``partclipseg serve``: a photo and words in, an interactive picture out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import asynccontextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
import gradio.themes
from fastapi import FastAPI
from gradio.data_classes import ImageData
from PIL import Image

from partclipseg.apps.serve.engine import Engine, Task, renamed
from partclipseg.apps.serve.explain import Explained
from partclipseg.apps.serve.page_gate import PageGate
from partclipseg.apps.serve.uploads import KEPT_SECONDS, Uploads
from partclipseg.apps.serve.viewer import viewer_html, viewer_script
from partclipseg.apps.serve.words import shortened
from partclipseg.errors import PartCLIPSegError, UsageError
from partclipseg.formats.archive import zip_archive
from partclipseg.vocabulary import CATALOGS, Vocabulary

SCENE_SIZE = 384
"""Side of the example scenes in pixels."""

_OWN_WORDS = "the model's own words"

_STYLE = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; padding: 28px 24px 32px !important; }
.gradio-container > .main { padding: 0 !important; }
#output .generating { border: none !important; }
.title p, .caption { color: var(--body-text-color-subdued) !important; }
.title p { margin: 2px 0 0 !important; font-size: 14px; }
#no-photos { margin-top: -12px; }
#no-photos code { white-space: nowrap; }
.title h1 { font-size: 22px !important; margin: 0 !important; }
.alert, .note { border-radius: 8px; padding: 11px 14px; overflow-wrap: anywhere; }
.alert { color: #991b1b; background: #fef2f2; border: 1px solid #fecaca; }
.note { color: #854d0e; background: #fefce8; border: 1px solid #fde68a; }
.dark .alert { color: #fecaca; background: #451a1a; border-color: #7f1d1d; }
.dark .note { color: #fde68a; background: #3b2f0b; border-color: #713f12; }
.empty { display: grid; place-content: center; min-height: 360px; text-align: center; border-radius: 10px;
  border: 1.5px dashed var(--border-color-primary); color: var(--body-text-color-subdued); padding: 24px; }
.gradio-container .html-container { padding: 0 !important; }
.gradio-container .block:has(> .html-container .caption) { margin-bottom: -10px; }
.caption { font-size: 13px; }
.examples { border: none !important; background: none !important; }
.examples .grid-wrap { padding: 0 !important; min-height: 0 !important; overflow: visible !important; }
.examples .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; gap: 8px !important;
  padding: 2px !important; }
@media (max-width: 640px) {
  #views { flex-direction: column; }
  #views > * { width: 100%; }
  .gradio-container { padding: 16px 14px 24px !important; }
  .empty { min-height: 120px; }
}
"""

_TITLE = "<h1>partclipseg</h1><p>Finds the parts of things in photos, by your own words.</p>"
_NO_PHOTOS = (
    "<p>This is the built-in model, which knows rendered scenes only, not photos: start the server with "
    "<code>--model</code> for photos.</p>"
)
_SHOW_RESULT = "() => innerWidth < 700 && document.querySelector('#output').scrollIntoView({ behavior: 'smooth' })"
"""Script that scrolls to the result, which is below the form in a narrow window."""
_EMPTY = "<div class='empty'><div>Choose a photo, say what to look for, and press <b>Find parts</b>.</div></div>"


class Example(NamedTuple):
    """Example photo and words."""

    picture: Image.Image
    words: str


def scene_examples(count: int = 4) -> list[Example]:
    """Render scenes of PartShapes, each with the words of its objects."""
    from partclipseg.shapes.renderer import render_scene
    from partclipseg.shapes.world import partshapes_world

    parts = partshapes_world().vocabulary.to_dict()
    examples = []
    for index in range(count):
        scene = render_scene("test", index, SCENE_SIZE)
        objects = dict.fromkeys(member.object for member in scene.members)
        words = as_text({word: parts[word] for word in objects})
        examples.append(Example(Image.fromarray(scene.image), words))
    return examples


def as_text(words: dict[str, list[str]]) -> str:
    """Format an object-to-parts mapping as people write it, one line per object."""
    return "\n".join(f"{word}: {', '.join(parts)}" for word, parts in words.items())


def mount_page(app: FastAPI, engine: Engine, examples: Sequence[Example]) -> FastAPI:
    """Mount the page at ``/`` of the application; its existing routes take precedence."""
    limit = engine.limits.max_bytes
    uploads = Uploads(max_bytes=50 * (limit + 1_000_000))
    page = create_page(engine, examples)
    uploads.keep()
    page.has_launched = True  # else gradio skips its checks of file origins; mounting does not set it
    app.add_middleware(
        PageGate,
        own_paths=frozenset({*app.openapi()["paths"], str(app.openapi_url)}),
        uploads=uploads,
        max_upload=limit + 1_000_000,
        timeout=engine.limits.timeout,
    )
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def with_uploads(app: FastAPI) -> AsyncIterator[Any]:
        async with uploads.cleaned(), lifespan(app) as state:
            yield state

    app.router.lifespan_context = with_uploads
    font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
    theme = gradio.themes.Default(
        primary_hue="blue", neutral_hue="slate", radius_size="md", font=font, font_mono=["ui-monospace", "monospace"]
    )
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme,
        # Not as css: gradio would rewrite it and lose the rules for narrow windows.
        head=f"<style>{_STYLE}</style><script type='module'>{viewer_script()}</script>",
        max_file_size=limit,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
    )


def create_page(engine: Engine, examples: Sequence[Example]) -> gr.Blocks:
    """Create the page's Gradio blocks."""
    models = list(engine.segmenters)
    # Gradio's clean-up stops at the first file that it cannot remove; `Uploads` goes on.
    with gr.Blocks(
        title="partclipseg", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS), fill_width=True
    ) as page:
        gr.HTML(_TITLE, elem_classes="title")
        no_photos = gr.HTML(_NO_PHOTOS, elem_classes="title", elem_id="no-photos", visible=models[0] == engine.built_in)
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                photo = gr.Image(
                    label="Photo",
                    type="filepath",
                    sources=["upload", "clipboard"],
                    height=250,
                    buttons=[],
                    placeholder="Drop a photo here\n- or -\nclick to choose one",
                    elem_id="photo",
                )
                # The photo stays a path: read_photo knows more formats, limits and messages than gradio.
                photo.preprocess = _path
                gr.HTML("<div class='caption'>Or try a rendered scene</div>", visible=bool(examples))
                gallery = gr.Gallery(
                    [example.picture for example in examples],
                    show_label=False,
                    columns=max(1, len(examples)),
                    height="auto",
                    object_fit="cover",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_classes="examples",
                    elem_id="examples",
                    visible=bool(examples),
                )
                first = _WordChoice.create(engine, models[0], "What to look for", "words")
                run = gr.Button("Find parts", variant="primary", elem_id="run")
                with gr.Accordion("Options", open=False, elem_id="options"):
                    objects = gr.Textbox(
                        label="Objects that are known to be in the photo",
                        info="Their parts then share every pixel, without background. Empty: anything may be there.",
                        placeholder="dog, bus",
                        elem_id="objects",
                    )
                    zoom = gr.Checkbox(label="Look again at small objects (slower)", elem_id="zoom")
                    least = gr.Number(
                        value=None,
                        label="Least probability of a part, 0 to 1",
                        info="Below it a pixel belongs to the object without a part. Empty: 0.3.",
                        minimum=0,
                        maximum=1,
                        step=0.05,
                        elem_id="least",
                    )
                    model = gr.Dropdown(models, value=models[0], label="Model", visible=len(models) > 1)
                    compare = gr.Checkbox(label="Compare with other words or another model", elem_id="compare")
                    with gr.Group(visible=False) as other:
                        model_b = gr.Dropdown(
                            models, value=models[-1], label="Model beside it", visible=len(models) > 1
                        )
                        second = _WordChoice.create(engine, models[-1], "Words beside it (empty: the same)", "words-b")
            with gr.Column(scale=8, min_width=300, elem_id="output"):
                message = gr.HTML(visible=False, elem_id="message")
                with gr.Row(equal_height=False, elem_id="views"):
                    views = [
                        gr.HTML(_EMPTY, min_height=None, elem_id="result", min_width=300),
                        gr.HTML(visible=False, elem_id="result-b", min_width=300),
                    ]
                download = gr.DownloadButton(
                    "Download: COCO, PNGs and LabelMe as ZIP", visible=False, elem_id="download"
                )

        def choose(event: gr.SelectData) -> tuple[Image.Image, str]:
            example = examples[event.index]
            return example.picture, example.words

        gallery.select(choose, None, [photo, first.words], show_progress="hidden", api_visibility="private")
        model.change(
            lambda name: gr.update(visible=name == engine.built_in),
            model,
            no_photos,
            show_progress="hidden",
            api_visibility="private",
        )
        compare.change(
            lambda on: gr.update(visible=on), compare, other, show_progress="hidden", api_visibility="private"
        )
        find = _Finder(engine).run
        inputs = [photo, first.words, objects, zoom, model, compare, model_b, second.words, least]
        gr.on(
            [run.click, first.words.submit],
            find,
            inputs,
            [message, *views, download],
            api_visibility="private",
            show_progress_on=views[0],
            concurrency_limit=16,
        )
        run.click(None, js=_SHOW_RESULT)
    page.queue(max_size=4 * engine.limits.queue)
    return page


def _path(payload: ImageData | None) -> str | None:
    return payload and payload.path


class _WordChoice(NamedTuple):
    """Text box for words, and a list of catalogues that fills it."""

    words: gr.Textbox

    @classmethod
    def create(cls, engine: Engine, model: str, label: str, name: str) -> _WordChoice:
        words = gr.Textbox(
            label=label,
            placeholder="dog: head, torso, leg, tail\nbus: body, wheel",
            info="An object, a colon, its parts; a line for each object.",
            lines=3,
            max_lines=8,
            elem_id=name,
        )
        own = engine.segmenters[model].vocabulary
        lists = {_OWN_WORDS: own} if own else {}
        sizes = {name: len(Vocabulary.from_catalog(name)) for name in CATALOGS}
        choice = gr.Dropdown(
            [("...", ""), *lists, *((f"{name} ({size} classes)", name) for name, size in sizes.items())],
            value="",
            label="Or take the words of a catalogue",
            filterable=False,
            elem_id=f"{name}-catalogue",
        )

        def fill(chosen: str) -> Any:
            if not chosen:
                return gr.skip()
            return as_text((lists.get(chosen) or Vocabulary.from_catalog(chosen)).to_dict())

        choice.input(fill, choice, words, show_progress="hidden", api_visibility="private")
        return cls(words)


class _Finder:
    """Handler of the button."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(
        self,
        photo: str | None,
        words: str | None,
        objects: str | None,
        zoom: bool,
        model: str,
        compare: bool,
        model_b: str,
        words_b: str | None,
        least: float | None = None,
    ) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Yield updates of message, both views and the download."""
        hidden = gr.update(visible=False)
        try:
            runs = [(model, words or "")]  # an untouched box holds None
            if compare:
                runs.append((model_b, words_b or words or ""))
            found = self._find(photo, runs, objects or "", zoom, least)
        except PartCLIPSegError as error:
            # Clear the old result, which would be mistaken for this photo's.
            empty = gr.update(value=_EMPTY, visible=True)
            alert = gr.update(value=_box("alert", str(error)), visible=True)
            yield alert, empty, hidden, gr.update(value=None, interactive=False, visible=False)
            return
        titles = self._titles(runs)
        views = [
            gr.update(value=viewer_html(one, title), visible=True) for one, title in zip(found, titles, strict=True)
        ]
        note = self._note(runs, found)
        yield (
            gr.update(value=_box("note", note), visible=True) if note else hidden,
            views[0],
            views[1] if compare else hidden,
            gr.update(interactive=False, visible=True),
        )
        with tempfile.TemporaryDirectory(prefix="partclipseg-") as folder:
            path = Path(folder) / f"{Path(found[0].result.name).stem}.parts.zip"
            path.write_bytes(_archive(found))
            yield gr.skip(), gr.skip(), gr.skip(), gr.update(value=str(path), interactive=True, visible=True)

    def _find(
        self, photo: str | None, runs: Sequence[tuple[str, str]], objects: str, zoom: bool, least: float | None
    ) -> list[Explained]:
        if not photo:
            raise UsageError("there is no photo yet: drop one above, or pick an example")
        try:
            content = Path(photo).read_bytes()
        except OSError:
            raise UsageError("the photo is not there any more: choose it again") from None
        known = tuple(word for part in objects.split(",") if (word := part.strip())) or None
        tasks = []
        for model, words in runs:
            name = self._engine.model_name(model)
            tasks.append(Task(name, self._engine.vocabulary(words, name), known, zoom, least, explained=True))
        array = self._engine.read_photo(content)
        futures = [self._engine.submit(task, array) for task in tasks]
        try:
            found = [future.result(self._engine.limits.timeout) for future in futures]
        except FutureTimeoutError:
            for future in futures:
                future.cancel()
            limit = f"{self._engine.limits.timeout:g} seconds"
            raise PartCLIPSegError(f"not done within {limit}: take a smaller photo or fewer words") from None
        return [replace(one, result=renamed(one.result, Path(photo).name)) for one in found]

    def _titles(self, runs: Sequence[tuple[str, str]]) -> list[str]:
        if len(self._engine.segmenters) == 1:
            return [""] if len(runs) == 1 else [_shortened(words) for _, words in runs]
        if len(runs) == 2 and runs[0][1] != runs[1][1]:
            return [f"{model} · {_shortened(words)}" for model, words in runs]
        return [model for model, _ in runs]

    def _note(self, runs: Sequence[tuple[str, str]], found: Sequence[Explained]) -> str:
        unknown: dict[str, None] = {}
        for (model, _), one in zip(runs, found, strict=True):
            unknown.update(dict.fromkeys(self._engine.unknown_words(model, one.result.vocabulary)))
        if not unknown:
            return ""
        return f"The model has never seen these words and can only guess: {', '.join(unknown)}."


def _archive(found: Sequence[Explained]) -> bytes:
    if len(found) == 1:
        return zip_archive(found[0].result.files())
    return zip_archive(
        {
            f"{side}/{name}": content
            for side, one in zip("ab", found, strict=True)
            for name, content in one.result.files().items()
        }
    )


def _box(kind: str, sentence: str) -> str:
    sentence = shortened(sentence[:1].upper() + sentence[1:])
    role = "alert" if kind == "alert" else "status"
    return f"<div class='{kind}' role='{role}'>{escape(sentence)}{'' if sentence.endswith('.') else '.'}</div>"


def _shortened(words: str) -> str:
    line = "; ".join(line.strip() for line in words.splitlines() if line.strip())
    return line if len(line) <= 200 else f"{line[:197]}..."
