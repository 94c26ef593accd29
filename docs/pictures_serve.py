"""Takes the pictures of docs/serve.md from a started server, in Debian's chromium.

    python docs/pictures.py serve                   # built-in model
    python docs/pictures.py serve --model DIR
"""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

CHROMIUM_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def take_pictures(model: str | None, output: Path) -> None:
    """Write ``serve-….jpg`` to the folder; `model` is a directory or hub name, None the built-in one."""
    output.mkdir(parents=True, exist_ok=True)
    with started(["--model", model] if model else []) as address:
        with window(1280, 900) as page:
            open_example(page, address, 3)
            find(page)
            save(page, output / "serve-wide.jpg")
            page.locator("part-viewer [data-view=probability]").click()
            save(page, output / "serve-probability.jpg")
        with window(1280, 900) as page:
            open_example(page, address, 0)
            page.locator("#options button").first.click()
            page.get_by_label("Compare with other words").check()
            first = page.locator("#words textarea").input_value().splitlines()[0]
            page.locator("#words-b textarea").fill(first)
            find(page, 2)
            save(page, output / "serve-compare.jpg")
        with window(390, 844) as page:
            open_example(page, address, 2)
            find(page)
            save(page, output / "serve-narrow.jpg")


def open_example(page: Page, address: str, number: int) -> None:
    page.goto(address)
    page.locator("#examples button").nth(number).click()
    page.wait_for_selector("#photo img")
    page.wait_for_function("document.querySelector('#words textarea').value.length > 0")


def find(page: Page, count: int = 1) -> None:
    page.locator("#run").click()
    page.wait_for_function(f"document.querySelectorAll('part-viewer[data-ready]').length === {count}")
    page.wait_for_selector("#download:not([disabled])")


def save(page: Page, path: Path) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # gradio's transitions
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture.save(path, quality=88, subsampling=0)


@contextmanager
def window(width: int, height: int) -> Iterator[Page]:
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path="/usr/bin/chromium",
            args=CHROMIUM_OPTIONS,
            viewport={"width": width, "height": height},
            color_scheme="light",
        )
        yield context.pages[0]
        context.close()


@contextmanager
def started(options: list[str]) -> Iterator[str]:
    """The address of a server on a free port."""
    command = [sys.executable, "-m", "partclipseg.apps.cli", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield next(found[1] for line in process.stdout if (found := re.search(r"open (http://\S+)", line)))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
