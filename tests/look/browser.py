"""Opens the page in Chromium: pictures for a person's eye, axe-core, and that it asks nobody for anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TITLE = "The page in Chromium"
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PICTURED = ("demo", "hostile", "stopped", "held", "hundred", "first", "empty", "dry")
"""Pages of which pictures are left; the others are only checked."""

LARGEST_HEIGHT = 16_000


def missing() -> list[str]:
    """What has to be installed first."""
    needs = []
    if chromium() is None:
        needs.append("Chromium: apt-get install chromium (or name one in $CHROMIUM)")
    if shutil.which("pdftoppm") is None:
        needs.append("pdftoppm: apt-get install poppler-utils")
    if find_spec("playwright") is None or find_spec("axe_playwright_python") is None:
        needs.append("Playwright and axe-core: pip install --require-hashes -r tests/look/requirements.lock")
    return needs


def chromium() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def look(directory: Path) -> list[str]:
    """Every fault found, a sentence each."""
    from playwright.sync_api import sync_playwright

    from tests.look.pages import publish_pages

    faults: list[str] = []
    with tempfile.TemporaryDirectory() as made, sync_playwright() as playwright:
        pages = publish_pages(Path(made))
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        print(f"Chromium {browser.version}")
        for name, path in pages.items():
            for width, (across, down) in WIDTHS.items():
                for dress in ("light", "dark"):
                    context = browser.new_context(
                        viewport={"width": across, "height": down}, color_scheme=dress, java_script_enabled=True
                    )
                    found = list(
                        _visit(context, path, directory / f"{name}-{width}-{dress}.png" if name in PICTURED else None)
                    )
                    faults += [f"{name}, {width}, {dress}: {fault}" for fault in found]
                    print(f"  {name:8} {width:8} {dress:6} {'wrong' if found else 'fine'}")
                    context.close()
            if name in PICTURED:
                _print(browser, path, directory / f"{name}-print")
        faults += list(_keyboard(browser, pages["demo"]))
        browser.close()
    return faults


def _visit(context: Any, path: Path, picture: Path | None) -> Iterator[str]:
    from axe_playwright_python.sync_playwright import Axe

    asked: list[str] = []
    said: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
    page.goto(path.as_uri())
    page.wait_for_timeout(100)
    yield from (f"asked for {url}" for url in asked if url != path.as_uri() and not url.startswith("data:"))
    yield from (f"the browser said: {text}" for text in said)
    if page.locator("script, iframe, img, object, embed, form").count():
        yield "something on the page could run or fetch"
    if (beyond := page.evaluate("document.documentElement.scrollWidth - window.innerWidth")) > 0:
        yield f"{beyond} pixels wider than the screen"
    if picture is not None:
        height = min(page.evaluate("document.documentElement.scrollHeight"), LARGEST_HEIGHT)
        page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
        page.screenshot(path=picture)
    for detail in page.locator("details").all():
        detail.evaluate("each => each.open = true")
    for violation in Axe().run(page).response["violations"]:
        places = [node["target"] for node in violation["nodes"][:3]]
        yield f"axe-core: {violation['id']}: {violation['help']}: {places}"


def _print(browser: Any, path: Path, picture: Path) -> None:
    """As on paper: a PDF, and each of its pages as a picture."""
    page = browser.new_page(color_scheme="dark")
    page.goto(path.as_uri())
    page.pdf(path=picture.with_suffix(".pdf"), format="A4", prefer_css_page_size=True)
    page.close()
    subprocess.run(["pdftoppm", "-r", "70", "-png", picture.with_suffix(".pdf"), picture], check=True)


def _keyboard(browser: Any, path: Path) -> Iterator[str]:
    """The first stop of the keyboard leads past the links to the report, and everything that it stops at can be seen."""
    page = browser.new_page()
    page.goto(path.as_uri())
    page.keyboard.press("Tab")
    if page.evaluate("document.activeElement.className") != "skip":
        yield "keyboard: the first stop is not the link to the report"
    for _ in range(40):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e); return e === document.body || s.outlineStyle !== 'none' }"
        )
        if not seen:
            yield f"keyboard: no outline at {page.evaluate('document.activeElement.outerHTML')[:80]}"
    page.close()
