"""A client of a hub's REST API, ours or JupyterHub's.

Rules of this file: standard library only, and no proxy, redirect or cookie from the environment:
the token goes to the one address it was given for and nowhere else. What the hub refuses becomes
:class:`~minihub.errors.NotPermitted`, everything else that is not a success
:class:`RestError`.

Threads: any; every request has a connection of its own.
Sources: JupyterHub 6's REST API, its pagination included.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from . import clock
from .errors import MinihubError, NotPermitted, UsageError

TIMEOUT_S = 60.0
PAGINATED = "application/jupyterhub-pagination+json"
#: An answer larger than this is none of a hub's.
MAX_ANSWER_BYTES = 256 * 1024 * 1024
#: So much is shown of what a hub says of an error.
MESSAGE_CHARS = 1000


class RestError(MinihubError):
    """Raised when the hub cannot be reached or answers with an error.

    ``answered`` is the status of the answer, 0 without one; ``said`` the hub's own words.
    """

    def __init__(self, message: str, answered: int = 0, said: str = "") -> None:
        self.answered = answered
        self.said = said
        super().__init__(message)


@dataclass(frozen=True)
class Answer:
    """A success: its status, its JSON (None when it is empty), and the hub's clock."""

    status: int
    data: Any
    date: datetime | None


class RestClient:
    """Calls the API at one URL with one token."""

    def __init__(self, url: str, token: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """``url`` is the API's, ``http://host:port/BASEhub/api``. Raises UsageError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{url!r} is no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no URL of a hub's API, http://HOST:PORT/hub/api")
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise UsageError("the token is empty, or holds what no token holds")
        self.url = url.rstrip("/")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, port
        self._path = parts.path.rstrip("/")
        self._headers = {"Authorization": f"token {token}"}
        self._timeout_s = timeout_s

    def request(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one request to ``path`` below the API (``/users?limit=2``) and return its answer.

        Raises NotPermitted for 401 and 403, RestError for everything else but 2xx.
        """
        connection, response = self._send(method, path, body, headers or {})
        try:
            raw = response.read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
        self._check(method, path, response, raw)
        try:
            data = json.loads(raw) if raw.strip() else None
        except ValueError as error:
            raise RestError(f"{self.url}{path} did not answer with JSON; is it a hub's?") from error
        return Answer(response.status, data, _date(response.headers.get("Date")))

    def items(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page by page where the hub has pages.

        Of the next page's URL only the query counts: its origin is what the hub believes its own
        to be, which behind other proxies is not always where it can be reached.
        """
        seen = set()
        while True:
            text = urlencode(query)
            if text in seen:
                raise RestError(f"{self.url}{path}: the pages lead in a circle")
            seen.add(text)
            where = f"{path}?{text}" if text else path
            data = self.request("GET", where, headers={"Accept": PAGINATED}).data
            if isinstance(data, list):  # a hub without pages
                yield from data
                return
            try:
                yield from data["items"]
                following = data["_pagination"]["next"]
            except (KeyError, TypeError) as error:
                raise RestError(f"{self.url}{path} did not answer with a list") from error
            if not following:
                return
            query = dict(parse_qsl(urlsplit(following["url"]).query))

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield the events of a stream (server-sent events with JSON) until it ends."""
        connection, response = self._send("GET", path, None, {"Accept": "text/event-stream"})
        try:
            if response.status != 200:
                self._check("GET", path, response, response.read(65536))
            for line in response:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = self._headers | headers
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection = connect(self._secure, self._host, self._port, self._timeout_s)
        try:
            connection.request(method, self._path + path, payload, headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> RestError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return RestError(f"the hub at {self.url} cannot be reached: {reason}")

    def _check(
        self, method: str, path: str, response: http.client.HTTPResponse, raw: bytes
    ) -> None:
        """Raise unless the answer is a success."""
        status = response.status
        if 200 <= status < 300:
            return
        said = _message(raw, response.reason)
        what = f"{method} {self.url}{path}: {status} {said}"
        if status in (401, 403):
            raise NotPermitted(what)
        if status < 400:
            what += f"; is {self.url} the URL of its API? It ends in /hub/api"
        raise RestError(what, status, said)


def connect(
    secure: bool, host: str, port: int | None, timeout_s: float
) -> http.client.HTTPConnection:
    """Return a connection that is not open yet."""
    if secure:
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(host, port, timeout=timeout_s)


def _message(raw: bytes, reason: str) -> str:
    """Return what the hub says about an error: its JSON's message, else the status's phrase."""
    try:
        message = json.loads(raw)["message"]
    except (ValueError, KeyError, TypeError):
        message = reason
    return "".join(c if c.isprintable() else " " for c in str(message))[:MESSAGE_CHARS]


def _date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (TypeError, ValueError):
        return None
    return moment.replace(tzinfo=clock.UTC) if moment.tzinfo is None else moment
