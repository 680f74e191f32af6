"""Doctor's checks of what runs, of network and machine, each with the fault it is for."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
import requests
from doctor_tools import HEALTHY, NOBODY, close_config, doctor, flags, mend
from harness import FAKE_SERVER, ROOT, free_port, gone, make_certificate, merge, run_altered, until
from test_doctor_config import configure

ADMIN = HEALTHY["SharedPasswordAuthenticator"]["admin_password"]
KEEP = {"JupyterHub": {"cleanup_servers": False, "cleanup_proxy": False}}


@pytest.fixture
def tmp_path():
    """A directory that other users can enter, whatever other runs do with pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="minihub-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def hub(start_hub):
    """A healthy hub."""
    hub = start_hub(HEALTHY)
    close_config(hub.directory)
    return hub


def rows(path, statement):
    import sqlite3

    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()


# -- hub and proxy ---------------------------------------------------------------------------------


def test_hub_that_was_halted_is_told_and_goes_on(hub):
    hub.process.send_signal(signal.SIGSTOP)
    try:
        found = doctor(hub.directory)
        assert found.level("hub") == "fail" and "halted" in found.said("hub")
        mend(hub.directory, found.mends("hub")[0])
    finally:
        hub.process.send_signal(signal.SIGCONT)
    assert doctor(hub.directory).bad() == {}


def test_hub_version_other_than_the_file_is_told(start_hub, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(ROOT / "minihub", old / "minihub", ignore=shutil.ignore_patterns("__pycache__"))
    file = old / "minihub" / "__init__.py"
    text = file.read_text()
    file.write_text(re.sub(r'__version__ = "[^"]+"', '__version__ = "0.0.7"', text))
    command = [sys.executable, str(old / "minihub" / "__main__.py")]
    hub = start_hub(HEALTHY, command=command)
    found = doctor(hub.directory)
    assert found.level("hub-version") == "warn" and "minihub 0.0.7 runs" in found.said(
        "hub-version"
    )
    stop, _, _start = found.mends("hub-version")[0].partition(";")
    mend(hub.directory, stop)
    hub.process.wait(30)
    start_hub({}, directory=hub.directory, defaults={})
    assert doctor(hub.directory).level("hub-version") == "ok"


def test_hub_killed_is_told_until_the_next_start(hub, start_hub):
    hub.kill()
    found = doctor(hub.directory)
    assert found.level("hub-killed") == "warn" and str(hub.process.pid) in found.said("hub-killed")
    assert found.mends("hub-killed") == ["minihub.pyz"]
    start_hub({}, directory=hub.directory, defaults={})
    assert doctor(hub.directory).level("hub-killed") == "ok"


def test_pid_file_of_a_killed_hub_is_told(start_hub):
    hub = start_hub(merge(HEALTHY, {"JupyterHub": {"pid_file": "hub.pid"}}))
    assert doctor(hub.directory).level("pid-file") == "ok"
    hub.kill()
    found = doctor(hub.directory)
    assert found.level("pid-file") == "warn" and "no hub runs" in found.said("pid-file")
    mend(hub.directory, found.mends("pid-file")[0])
    assert doctor(hub.directory).level("pid-file") == "ok"


def test_proxy_that_was_halted_is_told_and_goes_on(hub):
    pid = hub.proxy()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        found = doctor(hub.directory)
        assert found.level("proxy") == "fail" and found.level("hub") == "ok"
        assert "halted" in found.said("proxy")
        mend(hub.directory, found.mends("proxy")[0])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    until(lambda: doctor(hub.directory).bad() == {}, 60)


def test_routes_that_are_lost_are_told_and_come_back(start_hub):
    """The hub looks by itself every few seconds; here it is made to wait for longer."""
    hub = start_hub(merge(HEALTHY, {"JupyterHub": {"proxy_check_interval": 8}}))
    hub.browser("root-admin", ADMIN).start_server("root-admin")
    close_config(hub.directory)
    assert doctor(hub.directory).bad() == {}
    facts = hub.proxy()
    for _attempt in range(5):  # the hub may look just now
        requests.delete(
            facts["api_url"] + "/api/routes/user/root-admin",
            headers={"Authorization": f"token {facts['auth_token']}"},
            timeout=5,
        )
        found = doctor(hub.directory)
        if found.level("routes") == "fail":
            break
    assert "root-admin" in found.said("routes") and found.level("routes") == "fail"
    mend(hub.directory, found.mends("routes")[0])
    until(lambda: doctor(hub.directory).level("routes") == "ok", 60)


def test_orphans_of_a_killed_hub_are_told_and_ended(start_hub):
    hub = start_hub(merge(HEALTHY, KEEP))
    hub.browser("root-admin", ADMIN).start_server("root-admin")
    server = hub.server_process("root-admin")
    hub.kill()
    assert doctor(hub.directory).level("orphans") == "ok"  # the next hub goes on with both
    rows(hub.directory / "jupyterhub.sqlite", "UPDATE servers SET state = '{}', target = NULL")
    try:
        found = doctor(hub.directory)
        assert found.level("orphans") == "warn" and str(server.pid) in found.said("orphans")
        mend(hub.directory, found.mends("orphans")[0])
        until(lambda: gone(server.pid))
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            server.kill()
    assert doctor(hub.directory).level("orphans") == "ok"


def test_warm_starts_that_stay_cold_are_told_with_the_reason(start_hub, tmp_path):
    program = tmp_path / "bin" / "small-server"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n" + FAKE_SERVER.read_text())
    program.chmod(0o755)
    spawner = {
        "Spawner": {"cmd": [str(program)]},
        "LocalProcessSpawner": {"warm": "on", "warm_mem_limit": "1M"},
    }
    hub = start_hub(merge(HEALTHY, spawner))
    hub.wait_text("small-server starts cold: ", 120)
    found = until(lambda: (f := doctor(hub.directory)).level("warm-starts") == "warn" and f, 60)
    assert "more than LocalProcessSpawner.warm_mem_limit" in found.said("warm-starts")
    hub.stop()
    del spawner["LocalProcessSpawner"]["warm_mem_limit"]
    hub = start_hub(merge(HEALTHY, spawner))
    hub.wait_text(" is warm: ", 120)
    found = until(lambda: (f := doctor(hub.directory)).said("warm-starts").endswith("warm") and f)
    assert found.level("warm-starts") == "ok"


def test_warm_starts_that_cannot_be_are_told_where_they_were_asked_for(tmp_path):
    directory = configure(
        tmp_path / "hub",
        Spawner={"cmd": ["/bin/true"]},
        LocalProcessSpawner={"warm": "on"},
    )
    found = doctor(directory)
    assert found.level("warm-starts") == "warn" and "no Python program" in found.said("warm-starts")
    assert doctor(directory, "--LocalProcessSpawner.warm=auto").level("warm-starts") == "ok"


def test_service_whose_restart_ends_servers_is_told_and_written_anew(tmp_path):
    directory = configure(tmp_path / "hub")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "PATH": "/usr/bin:/bin"}
    unit = tmp_path / "config" / "systemd" / "user" / "minihub.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(
        f"[Service]\nWorkingDirectory={directory}\nExecStart=/usr/bin/python3 /srv/minihub.pyz\n"
    )
    found = doctor(directory, env=env)
    assert found.level("service") == "fail"
    assert "KillMode=process" in found.said("service")
    assert "/srv/minihub.pyz, which is not there" in found.said("service")
    command = found.mends("service")[0]
    mend(directory, f"export XDG_CONFIG_HOME={tmp_path}/config; {command}")
    assert doctor(directory, env=env).level("service") == "ok"
    unit.write_text(unit.read_text().replace(str(directory), "/srv/other"))
    assert "none is installed" in doctor(directory, env=env).said("service")


# -- ports and addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["port", "hub_port"])
def test_ports_that_are_taken_are_told_with_who_has_them(tmp_path, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        directory = configure(tmp_path / "hub", JupyterHub={option: port})
        found = doctor(directory)
        assert found.level("ports") == "fail" and f"(process {os.getpid()})" in found.said("ports")
        better = doctor(directory, *flags(found.mends("ports")[0]))
        assert better.level("ports") == "ok"


def test_ports_at_an_address_of_another_machine_are_told(tmp_path):
    port = free_port()
    directory = configure(tmp_path / "hub", JupyterHub={"ip": "192.0.2.77", "port": port})
    found = doctor(directory)
    assert "no such address" in found.said("ports") and found.level("ports") == "fail"
    assert doctor(directory, *flags(found.mends("ports")[0])).level("ports") == "ok"


@pytest.mark.root
def test_ports_that_only_root_may_have_are_told(tmp_path):
    from test_doctor_files import open_above

    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 79:
        pytest.skip("everybody may listen on every port here")
    directory = configure(tmp_path / "hub", JupyterHub={"port": 79})
    (directory / "minihub.yaml").chmod(0o644)
    os.chown(directory, NOBODY, NOBODY)
    open_above(directory / "x")
    found = doctor(directory, user=NOBODY)
    assert "only root may listen" in found.said("ports")
    words = flags(found.mends("ports")[0])
    assert doctor(directory, *words, user=NOBODY).level("ports") == "ok"


def test_ports_of_the_proxy_that_the_next_hub_goes_on_with_are_fine(start_hub):
    port = free_port()
    hub = start_hub(merge(merge(HEALTHY, KEEP), {"JupyterHub": {"port": port}}))
    hub.kill()
    assert doctor(hub.directory).level("ports") == "ok"


def test_addresses_at_which_no_class_can_join_are_told(tmp_path):
    directory = configure(tmp_path / "hub", JupyterHub={"authenticator_class": "classroom"})
    found = doctor(directory)
    assert found.level("addresses") == "warn"
    assert doctor(directory, *flags(found.mends("addresses")[0])).level("addresses") == "ok"


def test_addresses_that_do_not_answer_are_told(start_hub):
    url = f"http://127.0.0.1:{free_port()}/"
    hub = start_hub(merge(HEALTHY, {"JupyterHub": {"public_url": url}}), wait=False)
    until(lambda: (hub.state_dir / "lock").exists(), 30)
    until(lambda: url in (hub.state_dir / "lock").read_text(), 30)
    found = doctor(hub.directory)
    assert found.level("addresses") == "warn" and f"{url} does not answer" in found.said(
        "addresses"
    )


def test_allowed_hosts_that_keep_people_out_are_told(start_hub):
    from minihub import machine

    if not machine.lan_addresses():
        pytest.skip("this machine has no network")
    settings = {"JupyterHub": {"ip": "", "allowed_hosts": ["hub.example.org"], "port": free_port()}}
    hub = start_hub(merge(HEALTHY, settings))
    host = machine.lan_addresses()[0]
    answer = requests.get(hub.url + "hub/login", headers={"Host": host}, timeout=10)
    assert answer.status_code == 400
    found = doctor(hub.directory)
    assert found.level("allowed-hosts") == "warn" and host in found.said("allowed-hosts")
    words = flags(found.mends("allowed-hosts")[0])
    assert doctor(hub.directory, *words).level("allowed-hosts") == "ok"
    hub.stop()
    hub = start_hub({}, directory=hub.directory, defaults={}, args=tuple(words))
    answer = requests.get(hub.url + "hub/login", headers={"Host": host}, timeout=10)
    assert answer.status_code == 200


def test_subdomains_that_no_name_server_knows_are_told(tmp_path):
    settings = {"subdomain_host": "http://hub.invalid:8000"}
    found = doctor(configure(tmp_path / "hub", JupyterHub=settings))
    assert found.level("subdomains") == "warn"
    assert "somebody.hub.invalid" in found.said("subdomains")
    settings = {"subdomain_host": "http://localhost:8000"}
    try:
        socket.getaddrinfo("somebody.localhost", None)
    except OSError:
        return  # not every system knows names below localhost
    assert doctor(configure(tmp_path / "hub", JupyterHub=settings)).level("subdomains") == "ok"


# -- certificates ----------------------------------------------------------------------------------


def ended_certificate(directory: Path, *, days: str) -> None:
    """Make a certificate whose end is so many days from now, perhaps in the past."""
    make = ["openssl", "x509", "-req", "-in", "request.pem", "-signkey", "key.pem"]
    subprocess.run(
        ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem"]
        + ["-out", "request.pem", "-subj", "/CN=localhost"],
        cwd=directory, check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        [*make, "-out", "cert.pem", "-days", days], cwd=directory, check=True, capture_output=True
    )


TLS = {"ssl_key": "key.pem", "ssl_cert": "cert.pem"}


def private(directory: Path) -> Path:
    (directory / "key.pem").chmod(0o600)
    return directory


def test_certificate_that_has_ended_is_told_and_made_anew(tmp_path):
    directory = configure(tmp_path / "hub", JupyterHub=TLS)
    ended_certificate(directory, days="-1")
    found = doctor(private(directory))
    assert found.level("certificate") == "fail" and " ago (" in found.said("certificate")
    mend(directory, found.mends("certificate")[0])
    assert doctor(private(directory)).level("certificate") == "ok"


def test_certificate_that_ends_soon_is_warned_of(tmp_path):
    directory = configure(tmp_path / "hub", JupyterHub=TLS)
    ended_certificate(directory, days="90")
    assert doctor(private(directory)).level("certificate") == "ok"
    change = (
        "from minihub import clock; from datetime import timedelta\n"
        "now = clock.utcnow; clock.utcnow = lambda: now() + timedelta(days=80)\n"
    )
    done = run_altered(change, "doctor", cwd=directory)
    assert re.search(r"warn  certificate: cert.pem ends in 9 d", done.stdout), done.stdout


def test_certificate_of_another_key_is_told(tmp_path):
    directory = configure(tmp_path / "hub", JupyterHub=TLS)
    ended_certificate(directory, days="90")
    kept = (directory / "cert.pem").read_bytes()
    ended_certificate(directory, days="90")
    (directory / "cert.pem").write_bytes(kept)
    found = doctor(private(directory))
    assert found.level("certificate") == "fail" and "do not fit" in found.said("certificate")


def test_certificate_of_another_name_is_told(tmp_path):
    settings = {**TLS, "public_url": "https://hub.example.org/"}
    directory = configure(tmp_path / "hub", JupyterHub=settings)
    make_certificate(directory, "other.example.org")
    found = doctor(private(directory))
    assert found.level("certificate") == "warn"
    assert "not for hub.example.org but for other.example.org" in found.said("certificate")
    mend(directory, found.mends("certificate")[0])
    assert doctor(private(directory)).level("certificate") == "ok"
    make_certificate(directory, "*.example.org")
    assert doctor(private(directory)).level("certificate") == "ok"


def test_forwarded_fields_that_nobody_believes_are_told(tmp_path):
    settings = {"public_url": "https://hub.example.org/"}
    directory = configure(tmp_path / "hub", JupyterHub=settings)
    found = doctor(directory)
    assert found.level("forwarded") == "warn"
    assert doctor(directory, *flags(found.mends("forwarded")[0])).level("forwarded") == "ok"


# -- the machine -----------------------------------------------------------------------------------


def test_python_without_fixes_is_told(tmp_path):
    """A Python of the future cannot be had: its time is put in the place of ours."""
    directory = configure(tmp_path / "hub")
    change = (
        "from minihub import clock; from datetime import timedelta\n"
        "now = clock.utcnow; clock.utcnow = lambda: now() + timedelta(days=3650)\n"
    )
    done = run_altered(change, "doctor", cwd=directory)
    assert re.search(r"^warn  python: Python 3\.\d+\.\d+ gets none since", done.stdout, re.M)


@pytest.mark.root
def test_unpacked_copy_that_cannot_be_made_is_told(tmp_path, pyz):
    """To somebody without a home, whose place for temporary files is another's."""
    from test_doctor_files import open_above

    user = random.randrange(2**30, 2**31 - 2)
    squatted = [Path(folder, f"minihub-{user}") for folder in ("/tmp", "/var/tmp")]
    directory = configure(tmp_path / "hub")
    (directory / "minihub.yaml").chmod(0o644)
    file = Path(shutil.copy(pyz, directory / "minihub.pyz"))
    file.chmod(0o644)
    os.chown(directory, user, user)
    open_above(directory / "x")
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "TMPDIR": "/nonexistent"}

    def told(**more):
        done = subprocess.run(
            ["/usr/bin/python3", str(file), "doctor", "--all"],
            cwd=directory,
            env=env | more,
            user=user,
            group=user,
            extra_groups=[],
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr

    try:
        for path in squatted:
            path.mkdir()
        first = told()
        assert re.search(r"^warn  unpacked: ", first, re.M), first
        assert "export MINIHUB_CACHE=" in first
        second = told(MINIHUB_CACHE=str(directory / "cache"))
        assert re.search(r"^ok    unpacked: cache", second, re.M), second
    finally:
        for path in squatted:
            path.rmdir()


def test_descriptors_too_few_for_a_class_are_told(tmp_path):
    from test_store_faults import write_users

    directory = configure(tmp_path / "hub", JupyterHub={"active_server_limit": 40})
    write_users(directory / "jupyterhub.sqlite", *(f"user{n}" for n in range(40)))

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    found = doctor(directory, preexec_fn=few)
    assert found.level("descriptors") == "warn" and "256 may be open" in found.said("descriptors")
    told = mend(directory, f"{found.mends('descriptors')[0]}\nminihub.pyz doctor"
                " --all --skip owner")  # fmt: skip
    assert "ok    descriptors: 1024" in told


def test_descriptors_of_the_running_proxy_count(start_hub):
    hub = start_hub(merge(HEALTHY, {"JupyterHub": {"active_server_limit": 40}}))
    assert doctor(hub.directory).level("descriptors") == "ok"
    one = psutil.Process(hub.proxy()["pid"])
    one.rlimit(psutil.RLIMIT_NOFILE, (300, one.rlimit(psutil.RLIMIT_NOFILE)[1]))
    assert "300 may be open" in doctor(hub.directory).said("descriptors")


def test_memory_that_is_promised_and_not_there_is_told(tmp_path):
    directory = configure(tmp_path / "hub", Spawner={"mem_guarantee": "900T"})
    found = doctor(directory)
    assert found.level("memory") == "warn" and "no server starts" in found.said("memory")
    assert doctor(directory, *flags(found.mends("memory")[0])).level("memory") == "ok"


@pytest.mark.root
def test_accounts_that_the_system_has_not_are_told(tmp_path):
    from test_store_faults import write_users

    directory = configure(tmp_path / "hub", JupyterHub={"spawner_class": "localprocess"})
    write_users(directory / "jupyterhub.sqlite", "no-such-person")
    found = doctor(directory)
    assert found.level("accounts") == "warn" and "no-such-person" in found.said("accounts")
    assert found.mends("accounts") == ["useradd --create-home no-such-person"]
    name = psutil.Process().username()
    rows(directory / "jupyterhub.sqlite", f"UPDATE users SET name = '{name}'")
    assert doctor(directory).level("accounts") == "ok"


def test_server_program_that_is_not_there_is_told(tmp_path, lab_bin):
    directory = configure(tmp_path / "hub", Spawner={"cmd": ["jupyterhub-singleuser"]})
    path = {"PATH": "/usr/bin:/bin"}
    found = doctor(directory, env=path)
    assert found.level("server-program") == "fail" and found.code == 1
    assert "pip install jupyterhub jupyterlab" in found.mends("server-program")[0]
    better = doctor(directory, env={"PATH": f"{lab_bin}:/usr/bin:/bin"})
    assert better.level("server-program") == "ok" and better.level("jupyter") == "ok"
    assert "jupyter_server 2." in better.said("jupyter")


def test_program_of_servers_is_looked_for_where_the_running_hub_does(start_hub, tmp_path):
    program = tmp_path / "own-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    configured = merge(HEALTHY, {"Spawner": {"cmd": [program.name]}})
    hub = start_hub(configured, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert doctor(hub.directory).level("server-program") == "ok"
    hub.stop()
    assert doctor(hub.directory).level("server-program") == "fail"


def interpreter_with(place: Path, **packages: str) -> Path:
    """Make an environment that says it has these packages, and the server program."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (site,) = (place / "lib").glob("python*/site-packages")
    for name, version in packages.items():
        facts = site / f"{name}-{version}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    program = place / "bin" / "jupyterhub-singleuser"
    program.write_text(f"#!{place}/bin/python\n")
    program.chmod(0o755)
    return place


@pytest.mark.parametrize(
    "packages, level, said",
    [
        ({"jupyterhub": "6.1.1"}, "fail", "neither jupyter_server nor notebook"),
        ({"jupyter_server": "2.14.0"}, "warn", "jupyter_server 2.14.0 is older than 2.20.0"),
        ({"jupyter_server": "2.21.1", "jupyterlab": "4.5.7"}, "warn", "older than 4.5.10"),
        ({"jupyter_server": "2.21.1", "jupyterlab": "4.4.9"}, "warn", "older than 4.6.2"),
        ({"jupyter_server": "2.20.0", "jupyterlab": "4.5.11"}, "ok", "jupyterlab 4.5.11"),
        ({"notebook": "6.0.3"}, "warn", "notebook 6.0.3"),
        ({"notebook": "7.5.0", "jupyter_server": "2.20.1"}, "ok", "notebook 7.5.0"),
    ],
    ids=lambda value: None,
)
def test_jupyter_that_is_incomplete_or_old_is_told(tmp_path, packages, level, said):
    place = interpreter_with(tmp_path / "venv", **packages)
    program = str(place / "bin" / "jupyterhub-singleuser")
    found = doctor(configure(tmp_path / "hub", Spawner={"cmd": [program]}))
    assert found.level("jupyter") == level and said in found.said("jupyter")
    if level != "ok":
        assert found.mends("jupyter")[0].startswith(f"{place}/bin/python -m pip install --upgrade")


# -- what does not answer --------------------------------------------------------------------------


def test_check_that_hangs_is_a_finding_and_not_the_end(tmp_path):
    """A server that takes the connection and says nothing, as the database's place."""
    pytest.importorskip("pymysql")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        held: list[socket.socket] = []

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    held.append(silent.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        port = silent.getsockname()[1]
        url = f"mysql+pymysql://hub:pw@127.0.0.1:{port}/hub"
        directory = configure(tmp_path / "hub", JupyterHub={"db_url": url})
        change = (
            "from minihub.doctor import finding, verb\n"
            "import dataclasses\n"
            "for id, one in finding.CHECKS.items():\n"
            "    finding.CHECKS[id] = dataclasses.replace(one, patience_s=1.0)\n"
        )
        began = time.monotonic()
        done = run_altered(change, "doctor", cwd=directory)
        for one in held:
            one.close()
    assert done.returncode == 1 and "no answer within 1 s" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and time.monotonic() - began < 100
