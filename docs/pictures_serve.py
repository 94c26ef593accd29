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
from typing import Literal

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
            page.locator("[data-view=probability]").click()
            save(page, output / "serve-probability.jpg")
        with window(1280, 900, "dark") as page:
            open_example(page, address, 0)
            page.locator("#options summary").first.click()
            page.get_by_label("Compare with other words").check()
            first = page.locator("#words").input_value().splitlines()[0]
            page.locator("#words-beside").fill(first)
            find(page)
            save(page, output / "serve-compare.jpg")
        with window(390, 844) as page:
            open_example(page, address, 2)
            find(page)
            save(page, output / "serve-narrow.jpg")


def open_example(page: Page, address: str, number: int) -> None:
    page.goto(address)
    page.locator("#scenes button").nth(number).click()
    page.locator("#photos img").wait_for()


def find(page: Page) -> None:
    page.locator("#run").click()
    page.locator("#run", has_text="Find parts").wait_for()
    page.locator("#download").wait_for()


def save(page: Page, path: Path) -> None:
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture.save(path, quality=68, optimize=True)


@contextmanager
def window(width: int, height: int, colours: Literal["light", "dark"] = "light") -> Iterator[Page]:
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path="/usr/bin/chromium",
            args=CHROMIUM_OPTIONS,
            viewport={"width": width, "height": height},
            color_scheme=colours,
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
