"""The ``proxy`` verb.

Rules of this file: like ``cli``, it may print and give the exit code; nothing below it does.

Threads: the main thread.
"""

from __future__ import annotations

import sys

from minihub import __version__
from minihub.errors import ProxyError, UsageError
from minihub.proxy import log
from minihub.proxy.options import parse, usage


def main(argv: list[str]) -> int:
    """Run the proxy with this command line (without the verb) and return its exit code.

    0 after ``--help`` and ``--version``, 1 for a bad option or an address that cannot be had,
    2 after SIGINT or SIGTERM, as configurable-http-proxy ends.
    """
    try:
        options = parse(argv)
    except UsageError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    if options.help:
        print(usage(), end="")
        return 0
    if options.version:
        print(__version__)
        return 0
    from minihub.proxy.server import SIGNAL_EXIT_CODE, Proxy

    log.set_level(options.log_level)
    try:
        return Proxy(options).run()
    except ProxyError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return SIGNAL_EXIT_CODE  # before the proxy handles signals itself
