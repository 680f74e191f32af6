"""The file for a help thread holds nothing that lets anybody in, whatever form it may have taken.

A hub gets every kind of secret there is, its servers and its own log say all of them aloud, and the
unpacked file is searched for each: as it is, in hexadecimal, in base64 at any offset, and quoted.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import secrets
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from harness import FAKE_SERVER, ROOT, make_certificate, merge, run_altered, settled

from minihub import readable
from minihub.doctor import redaction

PROGRAM = [sys.executable, str(ROOT / "minihub" / "__main__.py")]
ENV = {
    "JUPYTERHUB_CRYPT_KEY": secrets.token_hex(32),
    "CONFIGPROXY_AUTH_TOKEN": "proxy-Token-" + secrets.token_urlsafe(12),
    "SOME_API_KEY": "sk-" + secrets.token_urlsafe(24),
}
USER_TOKEN, SERVICE_TOKEN = secrets.token_hex(16), "grader " + secrets.token_urlsafe(9)
SERVICE_TOKEN = SERVICE_TOKEN.replace(" ", "-")
GIVEN = {
    "user_token": USER_TOKEN,
    "service_token": SERVICE_TOKEN,
    "service_env": "Pa55-of-the-grader",
    "old_token": "an-old-token-of-service_tokens",
    "spawner_env": 'quo"ted & s\\ashed $ecret',
    "spawner_url": "pg-p@ss/word",
    "config_key": secrets.token_hex(32),
    "template": "template-secret-Zq81",
}


def settings():
    """Return a configuration with secrets wherever one may stand."""
    return {
        "JupyterHub": {
            "authenticator_class": "classroom",
            "api_tokens": {GIVEN["user_token"]: "root-admin"},
            "service_tokens": {GIVEN["old_token"]: "reporter"},
            "services": [
                {
                    "name": "grader",
                    "api_token": GIVEN["service_token"],
                    "environment": {"DB_PASSWORD": GIVEN["service_env"]},
                },
                {"name": "reporter"},
            ],
            "extra_log_file": "hub.log",
            "template_vars": {"analytics_token": GIVEN["template"]},
            "ssl_key": "key.pem",
            "ssl_cert": "cert.pem",
            "log_level": "DEBUG",
        },
        "CryptKeeper": {"keys": [GIVEN["config_key"]]},
        "Spawner": {
            # Everything in a server's environment stands in its log.
            "cmd": ["/bin/sh", "-c", f'env; exec {sys.executable} {FAKE_SERVER} "$@"', "server"],
            "environment": {
                "MY_SECRET": GIVEN["spawner_env"],
                "DATABASE": f"postgresql://me:{quote(GIVEN['spawner_url'], safe='')}@db/x",
            },
        },
    }


#: What the hub itself does not know: of these only hashes are kept. Logs hold them as people and
#: programs write them.
UNKNOWN = ("made token", "server token", "one-time code", "owner's link", "cookie ")


def forms(secret: str, name: str = "") -> set[str]:
    """Return what a secret looks like in a text; found by other means than those of the program."""
    if name.startswith(UNKNOWN):
        plain = {secret, quote(secret, safe=""), secret.encode().hex()}
        if re.fullmatch(r"[0-9a-f]{32,}", secret):
            plain.add(secret.upper())
        return plain | ({base64.b64encode(secret.encode()).decode()} if len(secret) > 20 else set())
    raws = {secret.encode()}
    if re.fullmatch(r"[0-9a-f]{32,}", secret):
        raws.add(bytes.fromhex(secret))
    found = {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}
    for raw in raws:
        found |= {raw.hex(), raw.hex().upper()}
        for before, start in ((b"", 0), (b"u", 2), (b"us", 3)):
            end = (len(before) + len(raw)) * 8 // 6  # what stands behind it changes the next sign
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                found.add(encode(before + raw + b"!!").decode()[start:end])
    return {one for one in found if len(one) >= 8}


def unpack(file: Path) -> dict[str, str]:
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def search(parts: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Return which secrets are in which part."""
    return [
        f"{name} in {part}: {form}"
        for name, secret in wanted.items()
        for form in forms(secret, name)
        for part, text in parts.items()
        if form.lower() in text.lower() or form.lower() in part.lower()
    ]


def make(directory: Path, name: str, *args: str, env: dict[str, str] | None = None) -> Path:
    """Have doctor write the file."""
    file = directory / name
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MINIHUB_")}
    done = subprocess.run(
        [*PROGRAM, "doctor", "--bundle", str(file), *args],
        cwd=directory,
        env=clean | (ENV if env is None else env),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    return file


@pytest.fixture
def talkative(start_hub, tmp_path):
    """A hub full of secrets whose logs hold them all; returns it and the secrets."""
    directory = tmp_path / "hub0"
    directory.mkdir()
    make_certificate(directory, "127.0.0.1")
    hub = start_hub(settings(), directory=directory, env=ENV, wait=False)
    hub.wait_text("Stop with Ctrl-C", 60)
    hub.url = json.loads((hub.state_dir / "lock").read_text())["url"]
    hub.verify = str(directory / "cert.pem")
    wanted = GIVEN | {f"env {name}": value for name, value in ENV.items()}
    wanted["cookie secret"] = (directory / "jupyterhub_cookie_secret").read_text().strip()
    wanted["proxy token"] = hub.proxy()["auth_token"]
    key = (directory / "key.pem").read_text().splitlines()
    wanted |= {f"key line {number}": line for number, line in enumerate(key[1:3])}

    def api(path, method="POST", body=None):
        answer = hub.api(path, USER_TOKEN, method, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.text else {}

    api("users", body={"usernames": ["ada", "bob"]})
    wanted["made token"] = api("users/ada/tokens", body={})["token"]
    wanted["one-time code"] = api("users/ada/one-time-code")["code"]
    with closing(sqlite3.connect(directory / "jupyterhub.sqlite")) as db:
        code = readable.new_code(8)
        now, later = "2026-01-01T00:00:00.000000Z", "2036-01-01T00:00:00.000000Z"
        db.execute(
            "INSERT INTO class_codes (code, note, uses, used, created, created_by, expires_at) "
            "VALUES (?, '', 40, 0, ?, '', ?)",
            (code, now, later),
        )
        db.execute("UPDATE users SET auth_state = ? WHERE name = 'ada'", (f"gAAAAAB{'x3' * 40}",))
        db.commit()
        wanted["class code"] = readable.grouped(code)
        wanted["class code, plain"] = code
        wanted["auth state"] = f"gAAAAAB{'x3' * 40}"
        (wanted["hash of the code"],) = db.execute("SELECT hashed FROM credentials").fetchone()
    browser = hub.browser()
    browser.verify = hub.verify
    link = subprocess.run(
        [*PROGRAM, "admin", "link"], cwd=directory, capture_output=True, text=True, env=os.environ
        | ENV, check=True,
    ).stdout.split()[0]  # fmt: skip
    wanted["owner's link"] = link.rpartition("=")[2]
    api("users/ada/server")
    process = psutil.Process(hub.server_pid("ada"))
    wanted["server token"] = process.environ()["JUPYTERHUB_API_TOKEN"]
    subprocess.run(
        [*PROGRAM, "user", "passwd", "bob"], cwd=directory, check=True, text=True,
        input="a-Long-passw0rd\n", env=os.environ | ENV, capture_output=True,
    )  # fmt: skip
    assert browser.login("bob", "a-Long-passw0rd").status_code == 302
    cookies = {name: value for name, value in browser.cookies.items() if len(value) > 20}
    assert any("login" in name for name in cookies), cookies
    wanted |= {f"cookie {name}": value for name, value in cookies.items()}
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    with closing(sqlite3.connect(directory / "jupyterhub.sqlite")) as db:
        for number, (hashed,) in enumerate(db.execute("SELECT hashed FROM api_tokens")):
            wanted[f"hash {number}"] = hashed
    say(hub, wanted, cookie, link)
    return hub, wanted


def say(hub, wanted, cookie, link):
    """Let each log hold each secret, in every form, in the words that programs put around it."""
    lines = [
        f"GET /hub/home HTTP/1.1\nCookie: {cookie}",
        f"open {link}",
        f'{{"cookie": "{cookie}"}}',
    ]
    for name, secret in wanted.items():
        for form in sorted(forms(secret, name)):
            lines += [f"{name} is {form}.", f"[W] token={form} x"]
            lines += [] if name.startswith(UNKNOWN) else [f"before{form}after"]
        for before in () if name.startswith(UNKNOWN) else (b"", b"u", b"us"):
            lines.append(f"body {base64.b64encode(before + secret.encode() + b'!!').decode()}")
        basic = base64.b64encode(f"ada:{secret}".encode()).decode()
        lines += [f"Authorization: token {secret}", f"-H 'Authorization: Basic {basic}'"]
        lines += [f"GET /user/ada/lab?token={quote(secret)} 200", repr({"password": secret})]
    random.Random(1).shuffle(lines)
    chunks = [lines[start : start + 150] for start in range(0, len(lines), 150)]
    logs = hub.state_dir / "logs"
    for number, chunk in enumerate(chunks[:15]):
        (logs / f"talker{number}.log").write_text("\n".join(chunk) + "\n")
    for path in (hub.directory / "hub.log", logs / "proxy.log"):
        with open(path, "a") as file:
            file.write("\n".join(chunks[0]) + "\n")
    (logs / f"{wanted['made token']}.log").write_text("a log whose name is a secret\n")


def test_running_and_stopped_hub_give_a_file_without_any_secret(talkative):
    hub, wanted = talkative
    said = "\n".join(path.read_text() for path in (hub.state_dir / "logs").glob("*.log"))
    silent = [
        name for name in wanted if not any(form in said for form in forms(wanted[name], name))
    ]
    assert silent == []  # every one of them is there to be found
    parts = unpack(make(hub.directory, "running.zip"))
    assert search(parts, wanted) == []
    names = {name.partition("/")[2] for name in parts}
    assert {"README.txt", "doctor.txt", "doctor.json", "configuration.yaml", "versions.json",
            "processes.json", "database.json", "files.txt", "logs/hub.log", "logs/proxy.log",
            "logs/ada.log"} <= names  # fmt: skip
    assert hub.stop() == 0
    assert search(unpack(make(hub.directory, "stopped.zip")), wanted) == []


def test_what_helpers_need_is_still_there(talkative):
    hub, _wanted = talkative
    parts = {k.partition("/")[2]: v for k, v in unpack(make(hub.directory, "x.zip")).items()}
    shown = parts["configuration.yaml"]
    assert re.search(r"authenticator_class: classroom  # minihub.yaml:\d+:\d+", shown)
    assert "cookie_secret_file: jupyterhub_cookie_secret  # default" in shown
    assert "api_tokens: '***'  # minihub.yaml:" in shown
    kinds = [one["kind"] for one in json.loads(parts["processes.json"])]
    assert {"hub", "proxy", "server"} <= set(kinds)
    database = json.loads(parts["database.json"])
    assert database["rows"]["users"] == 3 and database["servers"]["running"] == 1
    checks = json.loads(parts["doctor.json"])
    assert len(checks) > 40 and all(one["id"] and one["title"] for one in checks)
    assert "/hub/api/users/ada/server" in parts["logs/hub.log"]
    assert "JUPYTERHUB_SERVICE_PREFIX=/user/ada/" in parts["logs/ada.log"]
    assert "JUPYTERHUB_API_TOKEN=[removed]" in parts["logs/ada.log"]
    assert json.loads(parts["versions.json"])["sqlite"] == sqlite3.sqlite_version


@pytest.mark.parametrize("how", ["configuration", "database"])
def test_broken_hub_gives_a_file_without_any_secret(talkative, how):
    """What cannot be read as a whole is still known to hold secrets."""
    hub, wanted = talkative
    assert hub.stop() == 0
    if how == "configuration":
        file = hub.directory / "minihub.yaml"
        file.write_text(file.read_text() + "\nBroken: [\n")
    else:
        path = hub.directory / "jupyterhub.sqlite"
        path.write_bytes(b"\xa5" * path.stat().st_size)
        # What only the damaged database knew must go by the look of it; eight signs have none.
        lost = ("class code", "hash", "auth state")
        del wanted["class code, plain"]
        wanted = {f"made token {name}" if name.startswith(lost) else name: secret
                  for name, secret in wanted.items()}  # fmt: skip
    parts = unpack(make(hub.directory, "broken.zip"))
    assert search(parts, wanted) == []
    assert '"fail"' in next(text for name, text in parts.items() if name.endswith("doctor.json"))


def test_password_of_a_database_server_is_not_in_it(tmp_path):
    pytest.importorskip("pymysql")
    import yaml

    directory = tmp_path / "hub"
    directory.mkdir()
    given = {"url": "Kx7 s3cret/pw", "query": "query-s3cret-Q"}
    url = f"mysql+pymysql://hub:{quote(given['url'], safe='')}@127.0.0.1:1/hub"
    config = {
        "JupyterHub": {"db_url": url, "db_kwargs": {"connect_args": {"password": "N0-u5e-pw"}}}
    }
    (directory / "minihub.yaml").write_text(yaml.safe_dump(settled(merge({}, config))))
    parts = unpack(make(directory, "x.zip"))
    assert search(parts, {"a": given["url"], "b": "N0-u5e-pw"}) == []
    assert any("mysql://hub@127.0.0.1:1/hub" in text for text in parts.values())


def test_file_that_is_there_is_not_replaced(tmp_path):
    (tmp_path / "x.zip").write_text("mine")
    done = subprocess.run(
        [*PROGRAM, "doctor", "--bundle", "x"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and "exists; give another name" in done.stderr
    assert (tmp_path / "x.zip").read_text() == "mine"


def test_file_that_would_hold_a_secret_is_thrown_away(tmp_path):
    """The last look finds what the redactor itself has missed."""
    (tmp_path / "minihub.yaml").write_text(
        "JupyterHub: {authenticator_class: dummy}\nDummyAuthenticator: {password: Tr0ub4dor-7}\n"
    )
    change = (
        "from minihub.doctor import redaction\n"
        "redaction.Redactor.clean = lambda self, text: text + 'Tr0ub4dor-7'\n"
    )
    done = run_altered(change, "doctor", "--bundle", "x.zip", cwd=tmp_path)
    assert done.returncode == 1 and "would have held a secret" in done.stderr, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["minihub.yaml"]


# -- texts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "SimpleLocalProcessSpawner.sandbox_read: /srv/course",
        "/usr/lib/python3.11/site-packages/jupyter_server/services/contents/filemanager.py",
        "minihub-backup-2026-11-28-031500.tar.gz: 120 kB, 5 files, verified",
        "[I 2026-11-28 14:10:57.102 ServerApp] Kernel started: python3",
        "200 GET /hub/api/users?limit=200 (ada@127.0.0.1) 12.6ms",
        "cookie_secret_file: jupyterhub_cookie_secret  # default",
        "token_expires_in_max_seconds: 86400",
        "the token was refused; 14 tokens are left",
        "ModuleNotFoundError: No module named 'jupyterhub'",
        "The password was wrong 3 times",
        "Linux-6.18.44-x86_64-with-glibc2.36",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redaction.Redactor([]).clean(text) == text


@pytest.mark.parametrize(
    "text, secret",
    [
        ("Set-Cookie: sid=abc; Path=/", "abc"),
        ("curl -H 'Authorization: Bearer xyzzy-plugh-1'", "xyzzy"),
        ("--password hunter2 --verbose", "hunter2"),
        ("psql postgresql://me:hunter2@db/x", "hunter2"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalr"),
        ("password: 'two words'", "two words"),
        ('{"api_key": "short1"}', "short1"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2ln", "eyJ"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----", "MIIabc"),
        ("code K7MX-4PRT for all", "K7MX"),
        ("?owner=espYa7LHIJhiQwzXPcaTQmOMJhIk23vi", "espY"),
        ("sha512:1:deadbeef:cafe", "cafe"),
        ("got 3f786850e387550fdab836ed7e6dc881de23001b", "3f78"),
    ],
)
def test_what_looks_like_a_secret_goes(text, secret):
    assert secret not in redaction.Redactor([]).clean(text)
