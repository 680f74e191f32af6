"""Two system users and the hub of root's: what the server of one cannot learn of the other's.

One of them tries to read the other's files, environment, memory, descriptors, ports and tokens,
and the hub's.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import resource
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from harness import FAKE_SERVER, ROOT, HubProcess, until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

sys.path.insert(0, str(ROOT / "scripts"))

import environments  # noqa: E402

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes system users: run as root"),
]

#: What this process lets the hub have of descriptors at its start.
DESCRIPTORS = 777
#: What each system user may have of processes and threads.
MOST_PROCESSES = 150
REFUSED = ("Permission denied", "Operation not permitted")
#: Runs as the user of whose server it is: a real JupyterLab for the name that ends so.
COMMAND = 'case "$USER" in *lab) exec {lab} --allow-root ;; *) exec {python} {server} ;; esac'


class Person:
    """A system user with a running server, and commands that run in it."""

    def __init__(self, hub: HubProcess, name: str) -> None:
        self.hub = hub
        self.account = pwd.getpwnam(name)
        self.name = name
        self.browser = hub.browser(name)
        self.browser.start_server(name, timeout_s=90)
        self.server = hub.server_process(name)
        self.token = self.server.environ()["JUPYTERHUB_API_TOKEN"]
        self.target = hub.routes()[f"/user/{name}"]["target"]

    def run(self, command: str) -> str:
        """Run a command in the server; return all it prints."""
        answer = self.browser.get(f"/user/{self.name}/run", params={"command": command})
        assert answer.status_code == 200, answer.text
        return answer.content.decode(errors="replace").strip()

    def is_refused(self, command: str) -> bool:
        said = self.run(command)
        return any(words in said for words in REFUSED)

    def fetch(self, url: str, **headers: str) -> str:
        """Ask for a page from within the server; return its status and text."""
        program = (
            "import sys, urllib.request, urllib.error\n"
            "request = urllib.request.Request(sys.argv[1], headers=eval(sys.argv[2]))\n"
            "try: answer = urllib.request.urlopen(request, timeout=20)\n"
            "except urllib.error.HTTPError as error: answer = error\n"
            "print(answer.status, answer.read().decode())\n"
        )
        words = [environments.public_python(), "-c", program, url, repr(headers)]
        return self.run(shlex.join(words))


@pytest.fixture(scope="module")
def room(lab_bin):
    directory = Path(tempfile.mkdtemp(prefix="minihub-users-"))
    directory.chmod(0o755)
    run = f"u{secrets.token_hex(3)}"
    names = [f"{run}{who}" for who in ("ada", "eve", "lab")]
    hub = None
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, before[1]))
    try:
        for name in names:
            command = ["useradd", "--create-home", "--key", "HOME_MODE=0700", name]
            subprocess.run([*command, "--shell", "/bin/sh"], check=True)
        server = shutil.copy(FAKE_SERVER, directory)
        Path(server).chmod(0o755)
        words = {
            "lab": lab_bin / "jupyterhub-singleuser",
            "python": environments.public_python(),
            "server": server,
        }
        shell = COMMAND.format(**{key: shlex.quote(str(word)) for key, word in words.items()})
        hub = HubProcess(
            directory / "hub",
            {
                "JupyterHub": {"spawner_class": "localprocess"},
                "Spawner": {"cmd": ["/bin/sh", "-c", shell], "http_timeout": 90},
                "LocalProcessSpawner": {"rlimits": {"nproc": MOST_PROCESSES}},
            },
            env={"MINIHUB_CACHE": str(directory / "cache")},
        )
        hub.wait_ready()
        ada, eve, lab = (Person(hub, name) for name in names)
        ada.run("echo private > $HOME/work; umask 077; echo private > /tmp/$USER")
        yield SimpleNamespace(hub=hub, ada=ada, eve=eve, lab=lab)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        code = 0 if hub is None else hub.stop()
        for name in names:
            subprocess.run(["userdel", "--remove", name], check=False, capture_output=True)
            Path("/tmp", name).unlink(missing_ok=True)
        shutil.rmtree(directory)
    assert code == 0, hub.text


def test_each_server_is_its_own_user_with_no_more_groups(room):
    for person in (room.ada, room.eve, room.lab):
        account = person.account
        assert person.server.uids() == (account.pw_uid,) * 3
        assert person.server.gids() == (account.pw_gid,) * 3
        status = Path(f"/proc/{person.server.pid}/status").read_text()
        groups = re.search(r"^Groups:\s*(.*)$", status, re.M)[1].split()
        assert set(groups) <= {str(account.pw_gid)}
        assert re.search(r"^CapEff:\s*0+$", status, re.M), "no right of root's"
        assert re.search(r"^CapPrm:\s*0+$", status, re.M)
    assert room.eve.run("echo $HOME; cd; pwd; id -un").split() == [
        room.eve.account.pw_dir,
        room.eve.account.pw_dir,
        room.eve.name,
    ]


def test_each_server_has_the_limits_that_the_machine_gives(room):
    """Those that the hub was started with; it has raised its own since."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert psutil.Process(room.hub.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (hard, hard)
    for person in (room.ada, room.eve):
        given = Path("/proc/self/limits").read_text()
        got = Path(f"/proc/{person.server.pid}/limits").read_text()
        assert re.search(rf"^Max processes +{MOST_PROCESSES} +{MOST_PROCESSES} ", got, re.M)
        lines = set(got.splitlines()) - set(given.splitlines())
        assert {line.split()[1] for line in lines} == {"processes"}, got
        assert re.search(rf"^Max open files +{DESCRIPTORS} +{hard} ", got, re.M)


def test_program_that_starts_copies_without_end_is_stopped_by_the_limit(room):
    """Only for its user: limits of processes are counted for each system user."""
    bomb = (
        "import subprocess\n"
        "made = []\n"
        f"for _ in range({MOST_PROCESSES} + 50):\n"
        "    try: made.append(subprocess.Popen(['sleep', '600']))\n"
        "    except BlockingIOError as error: print(len(made), error); break\n"
        "for one in made: one.kill()\n"
    )
    said = room.eve.run(shlex.join([environments.public_python(), "-c", bomb]))
    count, _, why = said.partition(" ")
    assert 0 < int(count) < MOST_PROCESSES and "Resource temporarily unavailable" in why
    assert room.ada.run("echo works") == "works"


def test_files_of_the_other_are_closed(room):
    home = room.ada.account.pw_dir
    for command in (
        f"cat {home}/work",
        f"ls {home}",
        f"echo x > {home}/mine",
        f"cat /tmp/{room.ada.name}",
        f"rm -f /tmp/{room.ada.name}",
        f"ln -s {home}/work $HOME/link; cat $HOME/link",
    ):
        assert room.eve.is_refused(command), command
    assert room.ada.run("cat $HOME/work") == "private"


def test_every_file_of_the_hub_is_closed(room):
    """Those beside the configuration too; who may read the configuration is up to its owner."""
    files = [one for one in room.hub.directory.rglob("*") if one.is_file()]
    names = {one.name for one in files}
    assert {"jupyterhub.sqlite", "jupyterhub_cookie_secret", "lock", "proxy.json"} <= names
    assert f"{room.ada.name}.log" in names and f"{room.eve.name}.log" in names
    for file in files:
        if file.name == "minihub.yaml":
            continue
        assert room.eve.is_refused(f"cat {file}"), file
        assert room.eve.is_refused(f"echo x >> {file}"), file
        assert room.eve.is_refused(f"rm -f {file}"), file
    assert room.eve.is_refused(f"ls {room.hub.state_dir}")
    assert room.eve.is_refused(f"touch {room.hub.directory}/yaml.py")


def processes(room) -> dict[str, int]:
    """Return who runs what is not eve's."""
    return {
        "hub": room.hub.process.pid,
        "proxy": room.hub.proxy()["pid"],
        "server": room.ada.server.pid,
    }


@pytest.mark.parametrize("whose", ["hub", "proxy", "server"])
def test_processes_of_others_are_closed(room, whose):
    pid = processes(room)[whose]
    for name in ("environ", "maps", "mem", "auxv", "stack"):
        assert room.eve.is_refused(f"head -c 1 /proc/{pid}/{name}"), name
    for name in ("fd", "fdinfo", "map_files"):
        assert room.eve.is_refused(f"ls /proc/{pid}/{name}"), name
    for name in ("cwd", "root", "exe", "fd/1"):
        assert room.eve.is_refused(f"ls -L /proc/{pid}/{name}/"), name
    for number in (0, 2, 9, 19):
        assert room.eve.is_refused(f"kill -{number} {pid}"), number
    assert psutil.Process(pid).status() != psutil.STATUS_STOPPED


def secrets_of(room) -> dict[str, str]:
    """Return every secret that eve has no business with."""
    found = {
        "cookie secret": (room.hub.directory / "jupyterhub_cookie_secret").read_text().strip(),
        "proxy token": room.hub.proxy()["auth_token"],
        "ada's token": room.ada.token,
        "lab's token": room.lab.token,
        "ada's login": room.ada.browser.cookies["jupyterhub-hub-login"].strip('"'),
    }
    for pid in (room.hub.process.pid, room.hub.proxy()["pid"]):
        for name, value in psutil.Process(pid).environ().items():
            if re.search("TOKEN|SECRET|KEY|PASSWORD", name) and value:
                found[f"{name} of {pid}"] = value
    return found


def test_nothing_that_everybody_sees_holds_a_secret(room):
    """Command lines, the own environment, what is mounted and listening, temporary files."""
    places = (
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/comm 2>/dev/null | tr '\\0' ' '",
        "env",
        "cat /proc/net/unix",
        "cat /tmp/* /var/tmp/* /dev/shm/* 2>/dev/null | head -c 3000000",
    )
    seen = "\n".join(room.eve.run(command) for command in places)
    assert str(FAKE_SERVER.name) in seen and "USER=" in seen
    for what, value in secrets_of(room).items():
        assert value not in seen, what
    assert room.hub.directory.name + "/jupyterhub.sqlite" not in room.eve.run("env")


def test_server_has_no_descriptor_of_the_hubs(room):
    """Nothing but its input, its log, and what it has opened itself."""
    for person in (room.ada, room.eve, room.lab):
        log = room.hub.state_dir / "logs" / f"{person.name}.log"
        for number in os.listdir(f"/proc/{person.server.pid}/fd"):
            where = os.readlink(f"/proc/{person.server.pid}/fd/{number}")
            if str(room.hub.directory) in where:
                assert where == str(log) and number in ("1", "2"), (number, where)
        inodes = {
            os.readlink(f"/proc/{pid}/fd/{number}")
            for pid in (room.hub.process.pid, room.hub.proxy()["pid"])
            for number in os.listdir(f"/proc/{pid}/fd")
        }
        mine = {
            os.readlink(f"/proc/{person.server.pid}/fd/{number}")
            for number in os.listdir(f"/proc/{person.server.pid}/fd")
        }
        shared = {one for one in inodes & mine if one.startswith(("socket:", "pipe:"))}
        assert not shared, shared


def test_ports_of_the_hub_say_nothing_without_a_token(room):
    hub, proxy = room.hub.default_route().rstrip("/"), room.hub.proxy()["api_url"]
    own = {"Authorization": f"token {room.eve.token}"}
    made_up = {"Authorization": f"token {'0' * 64}"}
    for headers in ({}, own, made_up):
        assert room.eve.fetch(f"{proxy}/api/routes", **headers)[:3] in ("401", "403"), headers
        for path in ("users", f"users/{room.ada.name}", f"users/{room.ada.name}/tokens", "proxy"):
            answer = room.eve.fetch(f"{hub}/hub/api/{path}", **headers)
            assert answer[:3] in ("403", "404"), (path, headers, answer)
    assert json.loads(room.eve.fetch(f"{hub}/hub/api/user", **own)[4:])["name"] == room.eve.name
    told = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-User": "root", "Remote-User": "root"}
    assert room.eve.fetch(f"{hub}/hub/api/users", **told)[:3] == "403"


def test_port_of_a_server_answers_its_own_token_and_cookie_alone(room):
    """A real single-user server, asked from a process of another user on the same machine."""
    lab = room.lab
    base = f"{lab.target}/user/{lab.name}/"
    assert urlsplit(base).hostname == "127.0.0.1"
    contents = base + "api/contents"
    cookies = "; ".join(f"{one.name}={one.value}" for one in room.eve.browser.cookies)
    assert "jupyterhub-hub-login" in cookies
    stranger = room.hub.browser(room.eve.name)
    stranger.follow(f"/user/{lab.name}/lab")  # whatever she gets of lab's server on the way
    more = "; ".join(f"{one.name}={one.value}" for one in stranger.cookies)
    for headers in (
        {},
        {"Authorization": f"token {room.eve.token}"},
        {"Authorization": "token " + "0" * 64},
        {"Authorization": "token "},
        {"Cookie": cookies},
        {"Cookie": more},
        {"X-Forwarded-User": lab.name},
    ):
        for path in ("api/contents", "api/kernels", "api/terminals", "files/x", "lab"):
            answer = room.eve.fetch(base + path, **headers)
            assert not answer.startswith("200") or "login" in answer, (path, headers, answer[:300])
        answer = room.eve.fetch(contents, **headers)
        assert answer[:3] == "403", (headers, answer[:300])
    assert room.eve.fetch(contents, Authorization=f"token {lab.token}")[:3] == "200"
    assert lab.browser.follow(f"/user/{lab.name}/lab").status_code == 200
    assert lab.browser.get(f"/user/{lab.name}/api/contents").status_code == 200
    # Nor by the public way.
    for browser in (stranger, room.hub.browser()):
        answer = browser.get(f"/user/{lab.name}/api/contents")
        assert answer.status_code in (302, 403), answer.text[:300]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "{hub}.evil.example", "file://"])
def test_socket_of_another_origin_is_refused(room, origin):
    """Through the proxy, with the cookies of whose server it is; the own origin is taken."""
    lab = room.lab
    assert lab.browser.follow(f"/user/{lab.name}/lab").status_code == 200
    url = f"{room.hub.url.replace('http', 'ws', 1)}user/{lab.name}/api/events/subscribe"
    own = room.hub.url.rstrip("/")
    cookie = {"Cookie": "; ".join(f"{one.name}={one.value}" for one in lab.browser.cookies)}
    with connect(url, origin=own, additional_headers=cookie):
        pass
    with pytest.raises(InvalidStatus) as refused:
        connect(url, origin=origin.format(hub=own), additional_headers=cookie).close()
    assert refused.value.response.status_code == 403


def test_token_of_a_server_that_has_stopped_opens_nothing(room):
    name = room.ada.name
    token = room.ada.token
    assert room.hub.api("user", token).status_code == 200
    room.ada.browser.submit(f"/hub/stop/{name}", {}, page="/hub/home")
    until(lambda: room.hub.server_pid(name) is None, 30)
    assert room.hub.api("user", token).status_code == 403
    answer = requests.get(f"{room.hub.url}user/{name}/run?command=id", timeout=20)
    assert "uid=" not in answer.text
