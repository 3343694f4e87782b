"""Pages in a browser, wide and narrow, light and dark: nothing is loaded from elsewhere, nothing scrolls sideways, and
search, filter and folding work with the keyboard. Pictures go to build/pages. `make pages` runs these; they skip
where there is no Chromium or no Playwright.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from detr_conformance.evidence.clauses import load_chapters
from detr_conformance.reporting.pages.report_page import web_page
from detr_conformance.reporting.pages.site import site
from helpers.places import ROOT
from helpers.reports.shown_reports import failing_report, passing_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PICTURES = ROOT / "build" / "pages"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
WIDTHS, SCHEMES = (1400, 400), ("light", "dark")
SHOWN = ("failing.html", "passing.html", "several.html")
OF_THE_SITE = ("index", "matrix", "deviations", "clauses/MSDA-1", "implementations/planted")

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="Playwright is not installed; `make pages` installs it"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with 30 failures, one with none, both in one page; and a site of them."""
    folder = tmp_path_factory.mktemp("pages")
    failing, passing, chapters = failing_report(30, folder / "cases"), passing_report(), load_chapters()
    for name, reports in zip(SHOWN, ([failing], [passing], [failing, passing]), strict=True):
        (folder / name).write_text(web_page(reports, chapters, Path("/")), encoding="utf-8")
    pages = site([("old", failing), ("new", failing_report(3))], chapters)
    for place in (*(f"{name}.html" for name in OF_THE_SITE), "site.css", "site.js", "icon.svg", "badges/planted.svg"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(pages[place](), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield browser
        browser.close()


def opened(
    browser: Browser, folder: Path, name: str, width: int = 1400, scheme: str = "light"
) -> tuple[Page, list[str]]:
    """The page, and a list that grows by whatever goes wrong on it."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: None if within(request.url, folder) else heard.append(request.url))
    page.goto((folder / name).as_uri())
    return page, heard


def within(address: str, folder: Path) -> bool:
    return address.startswith((folder.as_uri(), "data:"))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_pages_load_nothing_from_elsewhere_and_never_scroll_sideways(
    browser: Browser, folder: Path, width: int, scheme: str
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in (*SHOWN, *(f"{name}.html" for name in OF_THE_SITE)):
        page, heard = opened(browser, folder, name, width, scheme)
        page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
        widest = page.evaluate("document.documentElement.scrollWidth")
        assert (name, widest, heard) == (name, width, [])
        picture = f"report-{name.removesuffix('.html').replace('/', '-')}-{width}-{scheme}.png"
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=PICTURES / picture)
        page.close()


def test_a_report_is_one_request(browser: Browser, folder: Path) -> None:
    """Served, as browsers then also look for an icon."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/failing.html", wait_until="networkidle")
        page.close()
        server.shutdown()
    assert asked == ["/failing.html"]


@pytest.mark.parametrize("name", ["failing.html", "matrix.html"])
def test_search_and_filter_work_with_the_keyboard(browser: Browser, folder: Path, name: str) -> None:
    page, heard = opened(browser, folder, name)
    rows, shown = page.locator(".filtered .row"), page.locator(".filtered .row:visible")
    every = rows.count()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    while page.evaluate("document.activeElement.type") != "search":
        page.keyboard.press("Tab")
    page.keyboard.type("channel order")
    assert shown.count() == 1
    page.keyboard.press("Escape")
    assert shown.count() == every
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.verdict") == "fail"
    page.keyboard.press("Space")
    assert 0 < shown.count() < every
    assert page.locator(".found").inner_text() == f"{shown.count()} of {every}"
    page.keyboard.press("Space")
    assert shown.count() == every
    page.locator(".search").fill("no such word")
    assert page.locator(".nothing").is_visible()
    assert heard == []
    page.close()


def test_the_focus_is_seen(browser: Browser, folder: Path) -> None:
    page, _ = opened(browser, folder, "failing.html")
    for _ in range(12):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            "(([style, box]) => style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 && box.width > 0)"
            "([getComputedStyle(document.activeElement), document.activeElement.getBoundingClientRect()])"
        )
        assert seen, page.evaluate("document.activeElement.outerHTML")
    page.close()


def test_a_link_to_something_folded_opens_it(browser: Browser, folder: Path) -> None:
    page, _ = opened(browser, folder, "failing.html")
    echo = page.locator("#MSDA-6")
    assert not echo.is_visible()
    page.locator("a[href='#MSDA-6']").first.press("Enter")
    assert echo.is_visible()
    assert echo.locator(".requirement").is_visible()
    page.close()


def test_the_command_is_copied(browser: Browser, folder: Path) -> None:
    page, _ = opened(browser, folder, "failing.html")
    page.locator("#MSDA-2 .copy").first.press("Enter")
    page.wait_for_function("document.querySelector('#MSDA-2 .copy').textContent === 'Copied'")
    page.locator(".search").focus()
    page.keyboard.press("ControlOrMeta+v")
    assert page.locator(".search").input_value() == "detr-spec check mine.py:target --replay MSDA-2.safetensors"
    page.close()


def test_the_switch_turns_the_colours(browser: Browser, folder: Path) -> None:
    page, _ = opened(browser, folder, "failing.html")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").press("Enter")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark != before
    page.close()


def test_printed_everything_is_open(browser: Browser, folder: Path) -> None:
    page, _ = opened(browser, folder, "failing.html")
    page.locator(".search").fill("channel order")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#MSDA-6 .requirement").is_visible()
    assert page.locator(".row:visible").count() == page.locator(".row").count()
    assert not page.locator(".tools").first.is_visible()
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.locator("#MSDA-6").is_visible()
    page.close()


def test_without_scripts_everything_can_be_read(browser: Browser, folder: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto((folder / "failing.html").as_uri())
    assert page.locator("#MSDA-2 .figures").is_visible()
    assert not page.locator(".tools").first.is_visible()
    page.close()
