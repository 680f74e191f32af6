"""The route table: which target a path belongs to, and what happened on each route.

Rules of this file: paths are bytes, percent-decoded, with a leading and without a trailing
slash, as configurable-http-proxy keeps them; with host routing the host is the first component.
The cost of a look-up depends on the depth of the deepest route, not on the number of routes.

Threads: readers take ``table.snapshot`` once and use it without a lock; it never changes.
Writers (the control thread) build the next snapshot and replace it whole. ``Route.active`` is a
single store by whichever loop thread serves the route. Counters are per loop thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from minihub import clock
from minihub.errors import ProtocolError

_HTTP = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^/?#@:\[\]\s\\]+)(?::([0-9]{1,5}))?(/[^?#\s\\]*)?",
    re.IGNORECASE,
)
_UNIX = re.compile(r"(?:http\+unix|unix\+http)://([^/?#@\s\\]+)(/[^?#\s\\]*)?", re.IGNORECASE)
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
#: What makes a path readable in more than one way.
_ODD = re.compile(rb"[%\\]|/\.")
#: Every spelling of a slash, and of a dot, that some program behind us may take for one.
_ANY_SLASH = re.compile(rb"/|\\|%2[Ff]|%5[Cc]")
_ANY_DOT = re.compile(rb"%2[Ee]")
_FALSE_SLASH = re.compile(rb"\\|%2[Ff]|%5[Cc]")

#: Parts of the table, of which a change copies one.
BUCKETS = 128


class Target:
    """Where a route leads: scheme, address and the path its requests are put under.

    ``key`` names the pool of connections that reach it. ``unix`` is a socket path or empty;
    ``path`` has no trailing slash and is empty for the root; ``host_field`` is the value of a
    Host field that names the target itself.
    """

    __slots__ = ("text", "is_tls", "host", "port", "unix", "path", "key", "host_field")

    def __init__(self, text: str) -> None:
        """Parse ``http[s]://host[:port][/path]`` or ``http+unix://%2Fpath%2Fto.sock[/path]``.

        Raises ValueError when ``text`` is neither.
        """
        self.text = text
        if not text.isprintable():
            raise ValueError(f"Must specify 'target' as string: {text!r} is no URL")
        self.unix = self.host = ""
        self.port = 0
        self.is_tls = False
        match = _HTTP.fullmatch(text)
        if match is not None:
            scheme, host, port, path = match.groups()
            self.is_tls = scheme.lower() == "https"
            self.host = host.strip("[]")
            self.port = int(port) if port else (443 if self.is_tls else 80)
            if not 0 < self.port < 65536 or not host.isascii():
                raise ValueError(f"Must specify 'target' as string: {text!r} is no URL")
            self.host_field = (f"{host}:{port}" if port else host).encode()
            self.key: tuple[object, ...] = (self.is_tls, self.host, self.port)
        else:
            match = _UNIX.fullmatch(text)
            if match is None:
                raise ValueError(f"Must specify 'target' as string: {text!r} is no URL")
            quoted, path = match.groups()
            try:
                self.unix = percent_decode(quoted.encode()).decode("utf-8", "surrogateescape")
            except ProtocolError as exc:
                raise ValueError(f"{text!r}: {exc}") from exc
            if "\0" in self.unix:
                raise ValueError(f"{text!r}: NUL in a path")
            self.host_field = b"localhost"
            self.key = (False, self.unix, 0)
        # A request line is ASCII: what is not is escaped, as every browser does.
        encoded = (path or "").rstrip("/").encode()
        self.path = b"".join(b"%c" % byte if byte < 128 else b"%%%02X" % byte for byte in encoded)


class Counters:
    """What one loop thread saw on one route; latency is summed in seconds."""

    __slots__ = ("requests", "tunnels", "bytes_in", "bytes_out", "latency", "slowest", "errors")

    def __init__(self) -> None:
        self.requests = self.tunnels = self.bytes_in = self.bytes_out = self.errors = 0
        self.latency = self.slowest = 0.0


class Route:
    """One entry of the table: path, target and the data posted with it.

    ``active`` is when something last succeeded on it, by :func:`clock.monotonic`; ``counters``
    maps a loop's name to its Counters; ``depth`` is how many components the path has.
    """

    __slots__ = ("path", "target", "data", "active", "counters", "depth")

    def __init__(self, path: bytes, target: Target, data: dict[str, object], active: float) -> None:
        self.path = path
        self.target = target
        self.data = data
        self.active = active
        self.counters: dict[str, Counters] = {}
        self.depth = 0 if path == b"/" else path.count(b"/")

    def counters_of(self, loop_name: str) -> Counters:
        """Return the counters that only that loop thread writes."""
        counters = self.counters.get(loop_name)
        if counters is None:
            counters = self.counters[loop_name] = Counters()
        return counters


class Snapshot:
    """An unchangeable state of the table; ``depth`` is that of its deepest route.

    The routes lie in BUCKETS dicts by the hash of their path, so that the next state shares all
    but one of them with this one.
    """

    __slots__ = ("depth", "_buckets")

    def __init__(self, buckets: tuple[dict[bytes, Route], ...], depth: int) -> None:
        self.depth = depth
        self._buckets = buckets

    def get(self, key: bytes) -> Route | None:
        """Return the route stored under exactly this path."""
        return self._buckets[hash(key) % BUCKETS].get(key)

    def __iter__(self) -> Iterator[Route]:
        for bucket in self._buckets:
            yield from bucket.values()

    def __len__(self) -> int:
        return sum(map(len, self._buckets))

    def changed(self, changes: Mapping[bytes, Route | None], depth: int) -> Snapshot:
        """Return the state after these changes; None removes what is under a path."""
        buckets = list(self._buckets)
        copied: set[int] = set()
        for key, route in changes.items():
            index = hash(key) % BUCKETS
            if index not in copied:
                copied.add(index)
                buckets[index] = buckets[index].copy()
            if route is None:
                del buckets[index][key]
            else:
                buckets[index][key] = route
        return Snapshot(tuple(buckets), depth)

    def find(self, path: bytes) -> Route | None:
        """Return the route with the longest prefix of ``path``, or None.

        ``path`` is decoded, starts with a slash and has no query.
        """
        depth = self.depth
        if depth:
            buckets = self._buckets
            key = path
            if path.count(b"/") > depth:
                key = b"/".join(path.split(b"/", depth + 1)[: depth + 1])
            while key:
                route = buckets[hash(key) % BUCKETS].get(key)
                if route is not None:
                    return route
                key = key[: key.rfind(b"/")]
        return self.get(b"/")

    def match(self, raw: bytes, host: bytes | None = None) -> Route | None:
        """Return the route of a request path as it stands on the wire, or None.

        ``raw`` may carry a query; ``host`` is the Host field where hosts take part in routing.
        Raises ProtocolError for a path that a program behind us could read as another route's.
        """
        path = raw.partition(b"?")[0] if b"?" in raw else raw
        if host is not None:
            prefix = b"/" + host_name(host)
            if _ODD.search(path):
                return self._match_odd(path, prefix)
            return self.find(prefix + path)
        if _ODD.search(path):
            return self._match_odd(path, b"")
        return self.find(path)

    def _match_odd(self, path: bytes, prefix: bytes) -> Route | None:
        if b"%00" in path:
            raise ProtocolError("NUL in the path")
        percent_decode(path)  # malformed escapes are refused wherever they stand
        # The components that routes are made of must be plain.
        shift = 1 if prefix else 0
        for part in path.split(b"/")[1 : 1 + max(0, self.depth - shift)]:
            if _FALSE_SLASH.search(part) or _ANY_DOT.sub(b".", part) in (b".", b".."):
                raise ProtocolError("dot segment or encoded slash in the routed part of the path")
        # A false slash further down is the target's business: here it must not look like one.
        route = self.find(prefix + percent_decode(_FALSE_SLASH.sub(b"%00", path)))
        # Behind the prefix no reading of the path may climb back into it.
        below = -max(0, (route.depth if route else 0) - shift)
        for part in _ANY_SLASH.split(path)[1:]:
            part = _ANY_DOT.sub(b".", part)
            if part == b"..":
                below -= 1
                if below < 0:
                    raise ProtocolError("dot segments leave the routed part of the path")
            elif part not in (b"", b"."):
                below += 1
        return route


class RouteTable:
    """The table that control changes and loops read.

    Threads: ``snapshot`` may be read by any; everything else belongs to the control thread.
    """

    def __init__(self, host_routing: bool = False) -> None:
        self.host_routing = host_routing
        self.snapshot = Snapshot(({},) * BUCKETS, 0)
        # How many routes there are of each depth.
        self._depths: dict[int, int] = {}
        self._anchor = clock.utcnow() - timedelta(seconds=clock.monotonic())

    def add(self, path: bytes, data: Mapping[str, object]) -> Route:
        """Add or replace one route; ``data`` holds a string ``target``. Raises ValueError."""
        return self.add_many([(path, data)])[0]

    def add_many(self, entries: Iterable[tuple[bytes, Mapping[str, object]]]) -> list[Route]:
        """Add or replace routes in one step, or none of them.

        Raises ValueError for a path that is no text and for a target that is none.
        """
        now = clock.monotonic()
        added = []
        for path, data in entries:
            target = data.get("target")
            if not isinstance(target, str):
                raise ValueError("Must specify 'target' as string")
            if b"\0" in path:
                raise ValueError("NUL in a path")
            path.decode()
            rest = {key: data[key] for key in data if key not in ("target", "last_activity")}
            path = clean_path(path)
            if self.host_routing and path != b"/":
                rest["host"] = path.split(b"/", 2)[1].decode("utf-8", "replace")
            added.append(Route(path, Target(target), rest, now))
        self._change({self._key(route.path): route for route in added})
        return added

    def _change(self, changes: Mapping[bytes, Route | None]) -> None:
        depths = self._depths
        for key, route in changes.items():
            old = self.snapshot.get(key)
            if old is not None:
                depths[old.depth] -= 1
                if not depths[old.depth]:
                    del depths[old.depth]
            if route is not None:
                depths[route.depth] = depths.get(route.depth, 0) + 1
        self.snapshot = self.snapshot.changed(changes, max(depths, default=0))

    def remove(self, path: bytes) -> Route | None:
        """Remove a route and return it; None when there was none."""
        key = self._key(clean_path(path))
        route = self.snapshot.get(key)
        if route is not None:
            self._change({key: None})
        return route

    def clear(self) -> None:
        """Remove every route."""
        self._change({self._key(route.path): None for route in self.snapshot})

    def get(self, path: bytes) -> Route | None:
        """Return the route of exactly this path."""
        return self.snapshot.get(self._key(clean_path(path)))

    def _key(self, path: bytes) -> bytes:
        # Host names are compared without case.
        if not self.host_routing or path == b"/":
            return path
        _, host, *rest = path.split(b"/", 2)
        return b"/".join([b"", host.lower(), *rest])

    def moment(self, active: float) -> datetime:
        """Return a reading of :func:`clock.monotonic` as a date.

        The same reading gives the same date until the system's clock is set.
        """
        anchor = clock.utcnow() - timedelta(seconds=clock.monotonic())
        if abs((anchor - self._anchor).total_seconds()) > 2:
            self._anchor = anchor
        return self._anchor + timedelta(seconds=active)

    def describe(self, route: Route) -> dict[str, object]:
        """Return a route as the REST API shows it."""
        shown: dict[str, object] = dict(route.data)
        shown["target"] = route.target.text
        text = clock.isoformat(self.moment(route.active))
        shown["last_activity"] = text[:-4] + "Z"
        return shown


def clean_path(path: bytes) -> bytes:
    """Return ``path`` with a leading and without a trailing slash."""
    if path[:1] != b"/":
        path = b"/" + path
    return path[:-1] if len(path) > 1 and path[-1:] == b"/" else path


def percent_decode(path: bytes) -> bytes:
    """Return ``path`` with its escapes decoded. Raises ProtocolError for a malformed one."""
    if b"%" not in path:
        return path
    return _ESCAPE.sub(_unescape, path)


def _unescape(match: re.Match[bytes]) -> bytes:
    digits = match.group(1)
    if digits is None:
        raise ProtocolError("malformed percent escape in the path")
    return bytes((int(digits, 16),))


def host_name(host: bytes) -> bytes:
    """Return the value of a Host field without its port, in lower case."""
    if host[:1] == b"[":
        return host.partition(b"]")[0].lower() + b"]"
    return host.partition(b":")[0].lower()


def strip_prefix(raw: bytes, depth: int) -> bytes:
    """Return a request path without its first ``depth`` components, query kept."""
    path, mark, query = raw.partition(b"?")
    parts = path.split(b"/", depth + 1)
    rest = parts[depth + 1] if len(parts) > depth + 1 else b""
    return b"/" + rest + mark + query
