"""Who does not know the password learns nothing about a name: not from words, nor from the clock.

A name that nobody has, one with another password, one that is blocked, not allowed, locked or
expired: the same status, headers and page, and none of them sooner than another can be.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import ABSENT, HubProcess, python_config

from minihub.web.guard import LEAST_S

PASSWORD = "right-" + secrets.token_hex(8)
#: What may differ between two answers that say the same.
OWN = re.compile(r'nonce="[^"]*"|nonce-[^\']*|"xsrf_token": "[^"]*"|name="_xsrf" value="[^"]*"')
#: Headers that differ by the moment.
MOMENTS = {"date", "set-cookie", "content-security-policy", "server-timing"}


def refusal(hub: HubProcess, name: str, password: str) -> tuple[float, tuple]:
    """Return how long a refusal took, and all that somebody can see of it."""
    browser = hub.browser()
    form = {"_xsrf": browser.xsrf("/hub/login"), "username": name, "password": password}
    began = time.monotonic()
    answer = browser.post("/hub/login", data=form)
    took = time.monotonic() - began
    headers = {key.lower(): value for key, value in answer.headers.items()}
    policy = OWN.sub("", headers.get("content-security-policy", ""))
    seen = {key: value for key, value in headers.items() if key not in MOMENTS}
    cookies = sorted(one.name for one in answer.cookies)
    text = OWN.sub("", answer.text).replace(name, "NAME")
    return took, (answer.status_code, policy, tuple(sorted(seen.items())), tuple(cookies), text)


def assert_alike(hub: HubProcess, names: list[str], password: str = "wrong") -> None:
    assert len({len(name) for name in names}) == 1, "the page shows what was typed"
    found = {name: refusal(hub, name, password) for name in names}
    (_took, first), *others = found.values()
    assert first[0] == 403 and "Invalid username or password" in first[-1]
    for name, (took, seen) in found.items():
        assert seen == first, name
        assert took >= LEAST_S, (name, took)
    assert others


@contextmanager
def system_users(*names: str) -> Iterator[None]:
    """Let there be system users with PASSWORD."""
    made = []
    try:
        for name in names:
            subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
            made.append(name)
            words = f"{name}:{PASSWORD}"
            subprocess.run(["chpasswd"], input=words, text=True, check=True)
        yield
    finally:
        for name in made:
            subprocess.run(["userdel", "--force", name], check=True, stderr=subprocess.DEVNULL)


@pytest.mark.root
def test_pam_tells_no_names(start_hub):
    """Of a service that does not delay wrong passwords, as PAM does unless told not to."""
    run = secrets.token_hex(3)
    kinds = ("known", "other", "block", "locks", "expir", "empty")
    names = [f"mh{run}{kind}" for kind in kinds]
    known, other, blocked, locked, expired, empty = names
    service = Path("/etc/pam.d") / f"minihub-test-{run}"
    service.write_text("auth required pam_unix.so nodelay\naccount required pam_unix.so\n")
    try:
        with system_users(*names):
            subprocess.run(["usermod", "--lock", locked], check=True)
            subprocess.run(["usermod", "--expiredate", "2001-01-01", expired], check=True)
            subprocess.run(["passwd", "--delete", empty], check=True, stdout=subprocess.DEVNULL)
            hub = start_hub(
                {
                    "JupyterHub": {"authenticator_class": "pam"},
                    "PAMAuthenticator": {"service": service.name},
                    "Authenticator": {
                        "admin_users": ABSENT,
                        "allow_all": ABSENT,
                        "allowed_users": [known, blocked, locked, expired, empty],
                        "blocked_users": [blocked],
                    },
                }
            )
            nobody = f"mh{run}none1"
            assert_alike(hub, [nobody, *names, "-" * len(nobody), known.upper()])
            # Who knows the password is told what stands in the way, at once.
            assert hub.browser().login(known, PASSWORD).status_code == 302
            for name in (blocked, expired, other):
                answer = hub.browser().login(name, PASSWORD)
                assert answer.status_code == 403
                assert "Invalid username or password" not in answer.text
    finally:
        service.unlink()


@pytest.mark.parametrize("kind", ["dummy", "shared-password"])
def test_simple_authenticators_tell_no_names(start_hub, kind):
    hub = start_hub(
        {
            "JupyterHub": {"authenticator_class": kind},
            "DummyAuthenticator": {"password": PASSWORD},
            "SharedPasswordAuthenticator": {"user_password": PASSWORD},
            "Authenticator": {
                "allow_all": ABSENT,
                "allowed_users": ["zknown", "zblock"],
                "admin_users": ["zadmin"],
                "blocked_users": ["zblock"],
            },
        }
    )
    assert_alike(hub, ["znobod", "zknown", "zadmin", "zblock", "z/b/cd"])
    assert hub.browser().login("zknown", PASSWORD).status_code == 302


#: One that somebody else wrote: it looks a name up, and takes its time only for those it finds.
THEIRS = """
import time
from jupyterhub.auth import Authenticator

class Theirs(Authenticator):
    async def authenticate(self, handler, data):
        if data["username"] == "zknown":
            time.sleep(0.2)  # the hash
            if data["password"] == "PASSWORD":
                return "zknown"
        return None

c.JupyterHub.authenticator_class = Theirs
"""


def test_authenticator_of_ones_own_tells_no_names(start_hub, tmp_path):
    lines = THEIRS.replace("PASSWORD", PASSWORD)
    hub = start_hub(**python_config(tmp_path / "here", lines, {}))
    assert_alike(hub, ["znobod", "zknown"])
    assert hub.browser().login("zknown", PASSWORD).status_code == 302
    # The call of old clients that gives a token for a password says and takes the same.
    seen = set()
    for name in ("znobod", "zknown"):
        began = time.monotonic()
        auth = {"username": name, "password": "wrong"}
        answer = hub.browser().post(f"/hub/api/users/{name}/tokens", json={"auth": auth})
        assert time.monotonic() - began >= LEAST_S
        seen.add((answer.status_code, answer.text))
    assert len(seen) == 1 and seen.pop()[0] == 403


def test_class_tells_no_names(start_hub):
    """Nor of those who wait to be let in."""
    hub = start_hub(
        {
            "JupyterHub": {"authenticator_class": "classroom"},
            "ClassroomAuthenticator": {"signup": "approve"},
            "Authenticator": {"blocked_users": ["zblock"]},
        }
    )
    form = {"username": "zwaits", "password": PASSWORD, "again": PASSWORD}
    assert hub.browser().submit("/hub/join", form).status_code == 200
    assert_alike(hub, ["znobod", "zwaits", "zblock", "z/b/cd"])


def test_too_many_attempts_are_refused_at_once(start_hub):
    hub = start_hub({"DummyAuthenticator": {"password": PASSWORD}, "Authenticator": {
        "login_failures_per_client": 1}})  # fmt: skip
    assert hub.browser().login("ada", "wrong").status_code == 403
    times = []
    for _ in range(3):
        browser = hub.browser()
        form = {"_xsrf": browser.xsrf("/hub/login"), "username": "ada", "password": "wrong"}
        began = time.monotonic()
        assert browser.post("/hub/login", data=form).status_code == 429
        times.append(time.monotonic() - began)
    assert min(times) < LEAST_S
