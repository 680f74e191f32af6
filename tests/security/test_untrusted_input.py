"""Whatever comes in: no answer is the hub's fault, no traceback, no unbounded time or memory.

Bodies, forms, queries, names, headers, cookies and tokens go to every route there is, with the
rights of an admin, so that they get as far as they can; configuration files to their reader.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import socket
import string
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import requests
from harness import ROOT, HubProcess
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minihub import config_yaml
from minihub.web import schemas, tables

ROUTES = [route for table in tables.ALL for route in table]
TAKING = [route for route in ROUTES if route.method not in ("GET", "HEAD")]
PLACED = [route for route in ROUTES if "<" in route.path]
ASKED = [route for route in ROUTES if route.method == "GET"]
TOKEN = "the-token-of-an-admin"
PASSWORD = "kind of blue"
#: Routes that would end the hub or give it another proxy if the body were good.
HARMFUL = {("POST", "api/shutdown"), ("PATCH", "api/proxy")}
#: How much memory the hub may have more at the end, whatever it was asked.
GROWTH_MIB = 150
LONG = "x" * 70_000

#: What is seldom seen in names and fields.
NASTY = [
    "",
    "\0",
    ".",
    "..",
    "../../etc/passwd",
    "//evil.example/",
    "\\\\evil.example",
    "a/b",
    "a%2fb",
    "%00",
    "%",
    "-1",
    "0",
    "9" * 5000,
    "1e999",
    "0x10",
    "NaN",
    "' OR 1=1 --",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "%(name)s %s %n",
    "{0.__class__}",
    "a\r\nSet-Cookie: x=1",
    "\x1b[31m",
    "\u202eabc",
    "\U0001d56c",
    "\ufffe",
    "İ",
    "con",
    "a" * 300,
    LONG,
    "self",
    "office",
    "admin:users!user=",
    "2026-99-99T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "0001-01-01",
]
#: Bodies that are no JSON, or no sensible one.
BROKEN = [
    b"",
    b"null",
    b"true",
    b"0",
    b'"x"',
    b"[]",
    b"{}",
    b"{",
    b"\xff\xfe",
    b"\0",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" * 100_000,
    b"-1e999999",
    b"NaN",
    b'{"a": 1, "a": 2}',
    b'"\\ud800"',
    b'{"\\ud800": "\\udfff"}',
    b"\xef\xbb\xbf{}",
    b"{" + b'"name": "x", ' * 5000 + b'"name": null}',
]
KINDS = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x", ""]
NO_FORMS = [b"", b"--x", b"--x--", b"a=%", b"\xff=\xfe&&;=", b"a=1&" * 20_000]
NO_QUERIES = [
    "&&&", "=%", "a" * 5000, "offset=-1", "limit=0", "offset=" + "9" * 400, "%ff=%fe", "a=b=c",
]  # fmt: skip
#: Names of fields that mean something somewhere.
FIELDS = sorted(
    {key for schema in schemas.SCHEMAS.values() for key in schema.get("properties", {})}
    | {
        name
        for page in (ROOT / "minihub" / "web" / "templates").glob("*.html")
        for name in re.findall(r' name="(\w+)"', page.read_text())
    }
    - {"_xsrf"}
)
QUERIES = sorted({*schemas.QUERIES, "next", "code", "error", "state", "theme", "lang", "q", "sort"})

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, float("inf"), float("nan"), -0.0])
    | st.text(st.characters(), max_size=30)
    | st.text(st.characters(categories=["Cs", "Cc", "Lu"]), max_size=3)
    | st.sampled_from(NASTY)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | st.sampled_from(NASTY), inner, max_size=4)
    ),
    max_leaves=6,
)
printable = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(NASTY)
FEW = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=4,
    suppress_health_check=list(HealthCheck),
)


class Intruder:
    """An admin who means harm, with a token, and with a browser that is logged in."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.api = requests.Session()
        self.api.trust_env = False
        self.api.headers["Authorization"] = f"token {TOKEN}"
        self.browser = hub.browser()
        self.fields: dict[str, str] = {}

    def be_logged_in(self) -> None:
        """Log in again if the last route ended the login."""
        if self.browser.get("/hub/home").status_code != 200:
            self.browser = self.hub.browser()
            answer = self.browser.login("office", PASSWORD)
            if answer.status_code == 429:
                time.sleep(float(answer.headers["Retry-After"]))
                answer = self.browser.login("office", PASSWORD)
            assert answer.status_code == 302, answer.text
        self.fields = {"_xsrf": self.browser.xsrf("/hub/home")}

    def send(self, route, path, *, data=None, kind="application/json"):
        """Send a body to a route, as whoever the route is for."""
        headers = {"Content-Type": kind} if data is not None else {}
        url = self.hub.url.rstrip("/") + path
        if path.startswith("/hub/api/"):
            session, given = self.api, headers
        else:
            session, given = self.browser, headers | {"X-XSRFToken": self.fields["_xsrf"]}
        return requests.Session.request(
            session,
            route.method,
            url,
            data=data,
            headers=given,
            allow_redirects=False,
            stream=True,
            timeout=30,
        )


def sound(answer, what) -> None:
    """Look at an answer: it blames nobody but the client, and tells nothing of the inside."""
    with answer:
        is_stream = answer.headers.get("Content-Type", "").startswith("text/event-stream")
        text = "" if is_stream else answer.text
    assert answer.status_code < 500, (what, answer.status_code, text[:500])
    assert "Traceback (most recent" not in text, what
    location = answer.headers.get("Location", "")
    assert not re.match(r"/[/\\]|[\\\s]|\w+:(?!//127\.0\.0\.1)", location), (what, location)
    assert "alert(1)</script>" not in text.replace("&lt;", "<<"), what


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with everything that has routes of its own switched on."""
    config = {
        "JupyterHub": {
            "authenticator_class": "classroom",
            "api_tokens": {TOKEN: "office"},
            "active_server_limit": 4,
            "allow_named_servers": True,
            "load_roles": [{"name": "user", "scopes": ["self", "shares!user", "list:users"]}],
        },
        "Authenticator": {"admin_users": ["office"]},
        "ClassroomAuthenticator": {"signup": "open"},
    }
    hub = HubProcess(tmp_path_factory.mktemp("hub"), config)
    try:
        hub.wait_ready()
        for name in ("ada", "bob"):
            secret = {"username": name, "password": PASSWORD, "again": PASSWORD}
            assert hub.browser().submit("/hub/join", secret).status_code == 302
        password = {"password": PASSWORD}
        assert hub.api("users/office/password", TOKEN, "PUT", json=password).ok
        assert hub.api("groups/ada", TOKEN, "POST", json={"users": ["ada", "bob"]}).ok
        process = psutil.Process(hub.process.pid)
        requests.get(hub.url + "hub/api/openapi.yaml", timeout=20)
        before = process.memory_info().rss
        yield hub
        grown = (process.memory_info().rss - before) / 2**20
    finally:
        code = hub.stop()
    assert code == 0, hub.text[-3000:]
    assert "Traceback (most recent" not in hub.text, re.findall(r"(?s)Traceback.{2000}", hub.text)
    assert grown < GROWTH_MIB
    assert max(map(len, hub.text.splitlines())) < 5000, "somebody's text fills the log"


@pytest.fixture(scope="module")
def intruder(hub):
    return Intruder(hub)


def name_of(route):
    return f"{route.method} {route.path}"


def filled(route, name):
    """Return a path of the route with this name, which is quoted already, wherever one stands."""
    return "/hub/" + re.sub(
        r"<\w+(:\w+)?>", lambda match: "1" if match[1] == ":int" else name, route.path
    )


def some_of(cases, count, route):
    """Return a few of many cases, others for each route and the same in each run."""
    return random.Random(name_of(route)).sample(cases, count)


@pytest.mark.parametrize("route", TAKING, ids=name_of)
def test_body_of_any_kind(intruder, route):
    intruder.be_logged_in()
    is_harmful = (route.method, route.path) in HARMFUL

    names = itertools.cycle(["ada", "ada", "nobody"])

    def send(data, kind):
        path = filled(route, next(names))
        sound(intruder.send(route, path, data=data, kind=kind), (path, kind, data[:200]))

    for data in some_of(BROKEN, 12, route):
        if not (is_harmful and (data in (b"", b"null") or data.endswith(b"}"))):
            send(data, "application/json")
    if is_harmful:
        for value in (7, "x", [], {}, None):
            send(json.dumps({"servers": value, "proxy": value, "port": {}}), "application/json")
        return
    for kind in KINDS:
        for data in some_of(NO_FORMS, 2, route):
            send(data, kind)

    @given(st.dictionaries(st.sampled_from(FIELDS), values, max_size=5) | values)
    @FEW
    def fuzz_json(value):
        send(json.dumps(value).encode(), "application/json")

    @given(st.dictionaries(st.sampled_from(FIELDS), st.lists(printable, max_size=3), max_size=5))
    @FEW
    def fuzz_form(fields):
        pairs = [f"{key}={quote(one)}" for key, many in fields.items() for one in many]
        send("&".join(pairs).encode(), "application/x-www-form-urlencoded")

    @given(st.dictionaries(st.sampled_from(FIELDS), st.binary(max_size=30), max_size=3))
    @FEW
    def fuzz_multipart(fields):
        head = '--x\r\nContent-Disposition: form-data; name="{0}"; filename="{0}"\r\n\r\n'
        parts = [head.format(key).encode() + value for key, value in fields.items()]
        send(b"\r\n".join([*parts, b"--x--\r\n"]), "multipart/form-data; boundary=x")

    if not route.path.startswith("api/") or not route.xsrf:
        fuzz_form()
        fuzz_multipart()
    if route.path.startswith(("api/", "preferences", "security")):
        fuzz_json()


@pytest.mark.parametrize("route", PLACED, ids=name_of)
def test_name_of_any_kind(intruder, route):
    """Those names that an HTTP client can send at all, quoted once, twice, and as raw bytes."""
    intruder.be_logged_in()
    names = [quote(name, safe="") for name in NASTY if name not in ("office", "", LONG)]
    names += [quote(name, safe="") for name in names]
    names += ["%ff%fe", "%c0%ae%c0%ae", "%ed%a0%80", "ada%00", "a" * 3000]
    for name in some_of(names, 10, route):
        path = filled(route, name)
        data = b"{}" if route.method not in ("GET", "DELETE") else None
        sound(intruder.send(route, path, data=data), path)


@pytest.mark.parametrize("route", ASKED, ids=name_of)
def test_query_of_any_kind(intruder, route):
    if route.path == "logout":
        return
    intruder.be_logged_in()
    path = filled(route, "ada")

    @given(st.dictionaries(st.sampled_from(QUERIES), printable, max_size=4))
    @FEW
    def fuzz(fields):
        query = "&".join(f"{key}={quote(value)}" for key, value in fields.items())
        sound(intruder.send(route, f"{path}?{query[:6000]}"), (path, query))

    fuzz()
    for query in some_of(NO_QUERIES, 3, route):
        sound(intruder.send(route, f"{path}?{query}"), (path, query))


HEADERS = [
    "Accept",
    "Accept-Language",
    "Authorization",
    "Connection",
    "Content-Type",
    "Cookie",
    "Expect",
    "Forwarded",
    "Host",
    "If-Modified-Since",
    "If-None-Match",
    "Origin",
    "Range",
    "Referer",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "User-Agent",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "X-XSRFToken",
    "X-HTTP-Method-Override",
]
HEADER_VALUES = [
    b"",
    b"token",
    b"token ",
    b"Bearer \xff\xfe",
    b"Basic !!!",
    b"token " + b"a" * 3000,
    b"jupyterhub-hub-login=; jupyterhub-session-id=\xff; _xsrf=",
    b'jupyterhub-hub-login="2|1:0|10:0|20:jupyterhub-hub-login|0:|' + b"0" * 64 + b'"',
    b'a="\\777"; b; =; ;;; $Version=1',
    b"=" * 3000,
    b"en;q=x, ;q=1, " + b"a-" * 500,
    b"[::1", b"[::1]:x", b"a:b:c", b"%00", b"127.0.0.1, " * 200,
    b'for="[::1"; proto=https;;,', b"bytes=0-,-1", b"bytes=99999999999-1",
    b"Mon, 99 Foo 9999 99:99:99 GMT", b'W/"' + b"x" * 500,
    b"null", b"http://[::1", b"cross-site", b"\x80\xff", b"application/json; charset=utf-99",
    b"multipart/form-data; boundary=", b"text/html;q=2;;;",
]  # fmt: skip


def raw_status(port: int, request: bytes) -> int:
    """Send bytes; return the status of the answer, 0 when there is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(request)
        head = b""
        while b"\r\n" not in head and (data := client.recv(4096)):
            head += data
    assert b"Traceback" not in head
    return int(head[9:12]) if head else 0


@pytest.mark.parametrize("path", ["hub/login", "hub/api/user", "hub/static/css/minihub.css"])
@pytest.mark.parametrize("through", ["proxy", "hub alone"])
def test_header_of_any_kind(hub, path, through):
    """To the hub through the proxy, and straight, as other programs of the machine can."""
    place = hub.url if through == "proxy" else hub.default_route()
    port = int(place.rstrip("/").rpartition(":")[2])
    noise = random.Random(7)
    seen = []
    for name in HEADERS:
        made = [bytes(noise.choices(range(0x20, 0x100), k=noise.randrange(60))) for _ in range(3)]
        for value in [*noise.sample(HEADER_VALUES, 9), *made]:
            host = b"" if name == "Host" else b"Host: a\r\n"
            head = f"GET /{path} HTTP/1.1\r\n{name}: ".encode() + value + b"\r\n" + host
            seen.append(raw_status(port, head + b"Connection: close\r\n\r\n"))
            assert seen[-1] < 500, (name, value)
    assert seen.count(0) < len(seen) / 20


TOKENS = ["", "x", "\0", "a" * 9000, "../x", "é", "x y", "token", "null", "%00", "' OR 1=1 --"]


@pytest.mark.parametrize("form", ["token {}", "bearer {}", "Bearer {}", "Basic {}", "{}"])
def test_token_of_any_kind_is_nobodys(hub, form):
    for token in [*TOKENS, TOKEN[:-1], TOKEN + "x", TOKEN.upper()]:
        headers = {"Authorization": form.format(token).encode()}
        answer = requests.get(hub.url + "hub/api/user", headers=headers, timeout=20)
        assert answer.status_code in (400, 403), (token, answer.status_code)
        answer = requests.get(hub.url + "hub/api/user", params={"token": token}, timeout=20)
        assert answer.status_code == 403


def test_cookie_of_any_kind_is_nobodys(hub, intruder):
    intruder.be_logged_in()
    name = "jupyterhub-hub-login"
    good = intruder.browser.cookies[name].strip('"')
    noise = random.Random(7)
    for _ in range(120):
        place, letter = noise.randrange(len(good)), noise.choice(string.printable[:90])
        made = good[:place] + letter + good[place + noise.choice([0, 1, 2]) :]
        if made == good or ";" in made or '"' in made:
            continue
        answer = requests.get(
            hub.url + "hub/home",
            headers={"Cookie": f'{name}="{made}"'},
            allow_redirects=False,
            timeout=20,
        )
        assert answer.status_code == 302, (good, made)
        assert "/hub/login" in answer.headers["Location"]


# -- configuration ------------------------------------------------------------------------------

SPICE = [
    "&a ", "*a", "<<: *a", "<<: [*a, *a]", "- ", "? ", ": ", "\n", "\n  ", "\n    ", "JupyterHub:",
    "Spawner:", "port: ", "{", "}", "[", "]", ",", "|", ">", "!!python/object/apply:os.system ",
    "!!python/name:os.system ", "!!binary ", "!!set ", "!!omap ", "!!int ", "!!float ", "!x ", "!!",
    "%YAML 1.1\n", "---\n", "...\n", "0x" + "f" * 5000, "1:00:00", ".nan", "2026-99-99", "~",
    '"\\ud800"', '"\\x00"', "'", '"', "#", "\t", "\u2028", "\0", "é", "=", "<<", "\ufeff", "@", "`",
]  # fmt: skip


@given(st.lists(st.sampled_from(SPICE) | st.text(max_size=6), max_size=30))
@settings(FEW, max_examples=600)
def test_configuration_of_any_kind_is_read_or_refused(tmp_path_factory, pieces):
    """Never an exception; problems are one line each and name the file."""
    file = Path(tmp_path_factory.getbasetemp()) / "fuzzed.yaml"
    file.write_bytes("".join(pieces).encode("utf-8", "surrogatepass"))
    _entries, problems = config_yaml.read(file, "minihub.yaml")
    for problem in problems:
        assert problem.startswith("minihub.yaml") and "\n" not in problem


#: Files of the largest size that is read at all, each hard on a reader in another way.
BOMBS = {
    "aliases": "a0: &a0 [x]\n"
    + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 12)),
    "doubling": "a0: &a0 [x, x]\n"
    + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
    "merges": "a0: &a0 {x0: 1}\n"
    + "".join(f"a{n}: &a{n} {{x{n}: 1, <<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 25)),
    "depth": "[" * 500_000,
    "depth of maps": "{a: " * 200_000,
    "depth of dashes": "- " * 400_000,
    "questions": "? " * 400_000,
    "sexagesimal": "JupyterHub:\n  port: 1" + ":00" * 340_000,
    "sexagesimal float": "JupyterHub:\n  port: 1" + ":00" * 340_000 + ".5",
    "hexadecimal": "JupyterHub:\n  port: 0x" + "f" * 1_000_000,
    "decimal": "JupyterHub:\n  port: " + "9" * 1_000_000,
    "keys": "".join(f"k{n}:\n" for n in range(120_000)),
    "values": "JupyterHub:\n  x: [" + "a," * 500_000 + "]",
    "quotes": '"' + "\\x41" * 250_000 + '"',
    "anchors": "".join(f"&a{n} k{n}: 1\n" for n in range(60_000)),
    "tags": "%TAG !x! tag:x,2000:\n" * 40_000,
    "recursion": "JupyterHub: &a\n  port: *a\n",
    "too long": "#" * 3_000_000,
}
READING = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (600 * 2**20,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from minihub import config_yaml
entries, problems = config_yaml.read(Path(sys.argv[2]), "bomb")
print(len(entries), *problems[:1])
"""


@pytest.mark.parametrize("bomb", BOMBS)
def test_bomb_costs_neither_time_nor_memory(tmp_path, bomb):
    file = tmp_path / "bomb.yaml"
    file.write_text(BOMBS[bomb])
    done = subprocess.run(
        [sys.executable, "-c", READING, str(ROOT), str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert len(done.stdout) < 400
    assert " bomb" in done.stdout, "it was taken for a configuration"
