"""Somebody at a browser of their own: what they do, and what went wrong on their pages.

Every page is looked at in several ways (light, dark, the width of a phone, that of a projector);
the pictures are kept in ``tests/artifacts``, and axe-core looks for barriers in each. A person
notices by themselves: errors on the hub's pages, pieces of a page that could not be loaded,
anything asked of another machine.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Error,
    Request,
    Response,
    expect,
)

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import environments  # noqa: E402

ARTIFACTS = ROOT / "tests" / "artifacts"
#: Pictures of the guides; a run renews them where this variable is set, and only then.
IMAGES = ROOT / "docs" / "images"
RENEW = "MINIHUB_DOCS_IMAGES"
#: What the machine that runs the hub is called in its room.
LAPTOP = "laptop.example"
#: A browser that asks nothing of anybody by itself, also where root runs it in a container.
FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
    f"--host-resolver-rules=MAP {LAPTOP} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
#: The window of a guide's picture.
PAGE = {"width": 1000, "height": 640}
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
WALL = {"width": 1920, "height": 1080}
#: How a page is looked at: part of the picture's name, colour scheme, size of the window.
LOOKS = (
    ("light", "light", DESK),
    ("dark", "dark", DESK),
    ("phone", "light", PHONE),
    ("wall", "light", WALL),
)
#: What axe-core checks: WCAG 2.2 at levels A and AA, and what its makers advise.
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
#: What a busy machine may take: for a page of the hub, for a real JupyterLab.
TIMEOUT_MS = 30_000
LAB_TIMEOUT_MS = 90_000
expect.set_options(timeout=TIMEOUT_MS)


@functools.cache
def axe_source() -> str:
    """The script of axe-core: ``$MINIHUB_TEST_AXE``, or installed when it is absent."""
    given = os.environ.get("MINIHUB_TEST_AXE")
    return (Path(given) if given else environments.ensure_axe()).read_text()


class Person:
    """A browser context with one page open, at one hub."""

    def __init__(self, context: BrowserContext, hub_url: str, *, scripts: bool = True) -> None:
        self.hub_url = hub_url
        #: Whether pages may run scripts; axe-core is one.
        self.scripts = scripts
        self.problems: list[str] = []
        self.page = context.new_page()
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self._on_hub_page(error.page.url, str(error.error)))
        context.on("request", self._on_request)
        context.on("response", self._on_response)
        self.page.on("websocket", lambda socket: self._stays_here(socket.url))

    # -- what they notice --------------------------------------------------------------------

    def _on_hub_page(self, url: str, problem: str) -> None:
        """Note a problem if the page is the hub's; JupyterLab's own are not ours."""
        if urlsplit(url).path.startswith(urlsplit(self.hub_url).path + "hub/"):
            self.problems.append(f"{url}: {problem}")

    def _on_console(self, message: ConsoleMessage) -> None:
        # What could not be loaded is seen in its response; a page that is an error is none. Our
        # pages have no WebSockets, but a test may open one on them.
        if message.type in ("error", "warning") and not message.text.startswith(
            ("Failed to load resource", "WebSocket connection to")
        ):
            page = message.page.url if message.page else ""
            self._on_hub_page(message.location["url"] or page, message.text)

    def _on_request(self, request: Request) -> None:
        self._stays_here(request.url)

    def _on_response(self, response: Response) -> None:
        if response.status >= 400 and not response.request.is_navigation_request():
            self._on_hub_page(response.url, f"status {response.status}")

    def _stays_here(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != urlsplit(self.hub_url).netloc:
            self.problems.append(f"asked another machine: {url}")

    # -- what they do ------------------------------------------------------------------------

    def open(self, path: str, status: int = 200) -> None:
        """Go to a page and see that it is answered with ``status``."""
        response = self.page.goto(urljoin(self.hub_url, path.lstrip("/")))
        assert response is not None and response.status == status, (path, response)

    def log_in(self, name: str, password: str) -> None:
        """Fill in the login form, which must be open, and send it."""
        self.page.fill("#username_input", name)
        self.page.fill("#password_input", password)
        self.page.click("#login_submit")

    def wait_path(self, pattern: str, timeout_ms: float = TIMEOUT_MS) -> None:
        """Wait until the page's path matches."""
        self.page.wait_for_url(
            lambda url: re.fullmatch(pattern, urlsplit(url).path), timeout=timeout_ms
        )

    def sees(self, text: str) -> None:
        """Wait until a text is on the page."""
        expect(self.page.get_by_text(text).first).to_be_visible()

    def tab_to(self, selector: str) -> None:
        """Press Tab until an element has the focus, which must be seen there."""
        page = self.page
        is_there = "selector => document.activeElement.matches(selector)"
        for _ in range(80):
            if page.evaluate(is_there, selector):
                break
            page.keyboard.press("Tab")
        assert page.evaluate(is_there, selector), f"no Tab leads to {selector}"
        width = page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
        assert width >= 2, f"{selector} has no visible focus"

    def overhang(self) -> list[str]:
        """Return what is wider than its place: the page, a table's card, a cut text's box."""
        found: Any = self.page.evaluate(
            """() => {
                const root = document.documentElement;
                const wide = [...document.querySelectorAll('.table-wrap, .card, th, td')].filter(
                    one => one.clientWidth && one.scrollWidth > one.clientWidth + 1);
                return [...(root.scrollWidth > root.clientWidth ? [root] : []), ...wide].map(
                    one => `${one.tagName} ${one.className}: ${one.scrollWidth} px in `
                        + `${one.clientWidth}: ${one.textContent.trim().slice(0, 40)}`);
            }"""
        )
        return found

    def run_cell(self, code: str, answer: str) -> None:
        """Make a notebook in JupyterLab, which must be opening; run a cell and see its answer."""
        page = self.page
        page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click(
            timeout=LAB_TIMEOUT_MS
        )
        # Until its kernel is there a notebook may be drawn again, without what was typed.
        expect(page.get_by_text("| Idle")).to_be_visible(timeout=LAB_TIMEOUT_MS)
        cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
        cell.click()
        page.keyboard.type(code)
        expect(cell).to_have_text(code)
        page.keyboard.press("Shift+Enter")
        output = page.locator(".jp-Notebook .jp-OutputArea-output").first
        expect(output).to_have_text(answer, timeout=LAB_TIMEOUT_MS)

    def run_terminal(self, name: str, line: str) -> str:
        """Type a line into a new terminal of JupyterLab, which must be open; return what it says.

        ``name`` is whose server it is. A terminal is drawn, not written: what it says is read from
        a file.
        """
        page = self.page
        page.locator('[data-jp-item-name="new-launcher"]').first.click(timeout=LAB_TIMEOUT_MS)
        card = page.locator('.jp-LauncherCard[title*="terminal" i]').first
        card.click(timeout=LAB_TIMEOUT_MS)
        terminal = page.locator(".jp-Terminal .xterm-helper-textarea").first
        terminal.wait_for(state="attached", timeout=LAB_TIMEOUT_MS)
        url = f"{urlsplit(page.url)._replace(path='', query='', fragment='').geturl()}"
        url += f"/user/{name}/api/contents/told.txt?content=1"
        deadline, again = time.monotonic() + LAB_TIMEOUT_MS / 1000, 0.0
        while True:
            if time.monotonic() > again:  # what is typed before it is connected is lost
                terminal.focus()
                page.keyboard.type(f"({line}) > told.txt; echo end >> told.txt\n", delay=10)
                again = time.monotonic() + 10
            answer = page.request.get(url)
            text = answer.json()["content"] if answer.status == 200 else ""
            if text.endswith("end\n"):
                return text.removesuffix("end\n").strip()
            assert time.monotonic() < deadline, f"{answer.status}: {text!r}"
            time.sleep(0.2)

    def barriers(self) -> list[str]:
        """Return what axe-core finds on the page, each with the rule and the elements.

        A page that loads itself anew meanwhile is looked at again.
        """
        for _ in range(5):
            try:
                return self._barriers()
            except Error as error:
                if "context was destroyed" not in str(error):
                    raise
                self.page.wait_for_load_state()
        return self._barriers()

    def _barriers(self) -> list[str]:
        self.page.evaluate(axe_source())
        found: Any = self.page.evaluate(
            "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})",
            list(RULES),
        )
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
            for one in found["violations"]
        ]

    def picture(self, name: str) -> None:
        """Renew a picture of the guides, where that is asked for."""
        if not os.environ.get(RENEW):
            return
        IMAGES.mkdir(exist_ok=True)
        self.page.set_viewport_size(PAGE)
        self.page.screenshot(path=IMAGES / f"{name}.png", animations="disabled")
        self.page.set_viewport_size(DESK)

    def look(self, name: str, *looks: str) -> None:
        """Keep pictures of the page, which must fit into the window; the hub's have no barriers.

        ``looks`` are the names in LOOKS; without any, all.
        """
        ARTIFACTS.mkdir(exist_ok=True)
        for look, scheme, size in LOOKS:
            if looks and look not in looks:
                continue
            self.page.emulate_media(color_scheme=scheme)
            self.page.set_viewport_size(size)
            self.page.screenshot(
                path=ARTIFACTS / f"{name}-{look}.png", full_page=True, animations="disabled"
            )
            overhang: Any = self.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert overhang <= 0, f"{name}-{look} is {overhang} px wider than the window"
            if self.scripts and urlsplit(self.page.url).path.startswith("/hub/"):
                assert self.barriers() == [], f"{name}-{look}"
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size(DESK)
