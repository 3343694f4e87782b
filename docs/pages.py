"""`make pages`, or `docs/pages.py BROWSER`: looks at the built site with Chromium, wide and narrow, light and dark.

Pictures of some pages go to build/pages. Wrong are: an error in the browser's console, a request that leaves the site,
a page of 400 pixels' width that scrolls sideways, and a search that finds nothing, on a server or on the disk. Without
Chromium nothing is looked at.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"
PICTURES = ROOT / "build" / "pages"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOOKED_AT = {
    "start": "index.html",
    "guide": "guides/check-a-kernel.html",
    "chapter": "spec/01-deformable-attention.html",
    "pseudocode": "spec/19-dino.html",
    "claims": "spec/10-claims.html",
    "chapters": "spec/index.html",
    "api": "api/deformable_attention.html",
    "results": "results/index.html",
    "results-matrix": "results/matrix.html",
    "results-clause": "results/clauses/MSDA-16.html",
    "results-implementation": "results/implementations/my-broken-kernel.html",
    "source": "source/reference/detr_reference/deformable_attention/core.py.html",
}
WIDTHS = (1400, 400)
SCHEMES = ("light", "dark")
SEARCHED, EXPECTED = "four corners outside", "spec/01-deformable-attention.html"


def main() -> int:
    if not sys.argv[1:]:
        print("there is no Chromium here, so nothing was looked at")
        return 0
    from playwright.sync_api import sync_playwright

    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir(parents=True)
    with sync_playwright() as playwright, served(SITE) as address:
        browser = playwright.chromium.launch(executable_path=sys.argv[1], args=list(FLAGS))
        faults = [*faults_of_pages(browser, address), *faults_of_search(browser, address)]
        faults += faults_of_search(browser, SITE.as_uri())
        browser.close()
    print(*faults, f"{len(faults)} faults; pictures are in {PICTURES.relative_to(ROOT)}", sep="\n")
    return int(bool(faults))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which the folder is served meanwhile."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A request is no news."""


def faults_of_pages(browser: Browser, address: str) -> Iterator[str]:
    """What is wrong with each page in each form, of which a picture is kept."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            heard = listen(page, address)
            for name, path in LOOKED_AT.items():
                page.goto(f"{address}/{path}", wait_until="networkidle")
                page.screenshot(path=PICTURES / f"{name}-{width}-{scheme}.png", full_page=name != "source")
                widest = page.evaluate("document.documentElement.scrollWidth")
                if widest > width:
                    heard.append(f"is {widest} pixels wide")
                yield from (f"{path}, {width} pixels, {scheme}: {fault}" for fault in heard)
                heard.clear()
            page.close()


def faults_of_search(browser: Browser, address: str) -> Iterator[str]:
    """What is wrong when a word is searched."""
    from playwright.sync_api import TimeoutError

    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
    heard = listen(page, address)
    page.goto(f"{address}/index.html", wait_until="load")
    page.locator("input.md-search__input").click()
    page.keyboard.type(SEARCHED)
    try:
        page.wait_for_selector(f".md-search-result__link[href*='{EXPECTED}']", timeout=10_000)
    except TimeoutError:
        heard.append(f"the search for {SEARCHED!r} does not find {EXPECTED}")
    page.screenshot(path=PICTURES / f"search-{address.partition(':')[0]}.png")
    yield from (f"search at {address}: {fault}" for fault in heard)
    page.close()


def listen(page: Page, address: str) -> list[str]:
    """A list that grows by whatever goes wrong on the page."""
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("requestfailed", lambda request: heard.append(f"request failed: {request.url}"))

    def judge(url: str) -> None:
        if not url.startswith((address, "data:", "blob:", "about:")):
            heard.append(f"a request leaves the site: {url}")

    page.on("request", lambda request: judge(request.url))
    return heard


if __name__ == "__main__":
    sys.exit(main())
