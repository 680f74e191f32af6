"""Which browser somebody sits at, in words they know it by.

Rules of this file: pure functions over ``User-Agent``. It is for people who look at the list of
their logins; nothing is decided by it, since every client says of itself what it likes. Only the
names are kept, never the whole field.

Threads: any.
Sources: RFC 9110, section 10.1.5; the fields that browsers send.
"""

from __future__ import annotations

import re

from ..texts import Text

#: What a field holds, and the browser's name; the first that fits, since many name others too.
_BROWSERS = (
    (r"Edg(?:e|A|iOS)?/", "Edge"),
    (r"(?:OPR|Opera)[/ ]", "Opera"),
    (r"Vivaldi/", "Vivaldi"),
    (r"SamsungBrowser/", "Samsung Internet"),
    (r"(?:Firefox|FxiOS)/", "Firefox"),
    (r"(?:HeadlessChrome|Chromium)/", "Chromium"),
    (r"(?:Chrome|CriOS)/", "Chrome"),
    (r"Version/\S+ .*Safari/", "Safari"),
    (r"python-requests/|python-httpx/|aiohttp/|Python-urllib/", "Python"),
    (r"curl/", "curl"),
    (r"Wget/", "Wget"),
)
_SYSTEMS = (
    (r"iPad", "iPad"),
    (r"iPhone", "iPhone"),
    (r"Android", "Android"),
    (r"CrOS", "ChromeOS"),
    (r"Windows", "Windows"),
    (r"Mac OS X|Macintosh", "macOS"),
    (r"Linux|X11", "Linux"),
)


def recognise(agent: str) -> tuple[str, str]:
    """Return the names of the browser and of the system it runs on; "" for what is not known."""
    agent = agent[:512]

    def first(table: tuple[tuple[str, str], ...]) -> str:
        return next((name for pattern, name in table if re.search(pattern, agent)), "")

    return first(_BROWSERS), first(_SYSTEMS)


def named(browser: str, system: str) -> str:
    """Return what a browser is called in a list."""
    if browser and system:
        return Text("%(browser)s on %(system)s", browser=browser, system=system)
    return browser or system or Text("A browser")
