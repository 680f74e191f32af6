"""Real PAM with real, temporary system users."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import secrets
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from traitlets.config import Config

from minihub import aio
from minihub.auth.base import InvalidLogin, NotAllowed
from minihub.auth.pam import PAMAuthenticator

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="creates system users: run as root"),
]

REQUEST = SimpleNamespace(request=SimpleNamespace(remote_ip="192.0.2.7"))
PASSWORD = "pässwörd " + secrets.token_hex(8)


@pytest.fixture(scope="module")
def name():
    """A system user with PASSWORD."""
    name = f"mhtest{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    try:
        subprocess.run(["chpasswd"], input=f"{name}:{PASSWORD}", text=True, check=True)
        yield name
    finally:
        subprocess.run(["userdel", "--force", name], check=True, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def service():
    """A PAM service that does not delay wrong passwords; sessions are refused."""
    name = f"minihub-test-{secrets.token_hex(4)}"
    file = Path("/etc/pam.d") / name
    file.write_text(
        "auth required pam_unix.so nodelay nullok\n"
        "account required pam_unix.so\n"
        "session required pam_deny.so\n"
    )
    yield name
    file.unlink()


@pytest.fixture
def authenticator(service):
    return make(service=service)


def make(**options) -> PAMAuthenticator:
    return PAMAuthenticator(config=Config({"PAMAuthenticator": {"allow_all": True, **options}}))


def login(authenticator, name, password=PASSWORD):
    return authenticator.log_in(REQUEST, {"username": name, "password": password})


def test_right_password_logs_in_through_the_default_service(name):
    assert login(make(), name).name == name


def test_wrong_password_and_unknown_user_are_the_same_to_the_outside(authenticator, name, caplog):
    for who, password in ((name, "wrong"), ("no-such-user-here", PASSWORD), (name, PASSWORD[:-1])):
        with pytest.raises(InvalidLogin, match="^Invalid username or password$"):
            login(authenticator, who, password)
    assert f'PAM refused "{name}" from 192.0.2.7: Authentication failure' in caplog.text
    assert len(caplog.records) == 3 and PASSWORD not in caplog.text


def test_capital_letters_are_not_another_user(authenticator, name):
    """The system knows no such name, so its password is wrong."""
    with pytest.raises(InvalidLogin):
        login(authenticator, name.upper())


def test_account_without_a_password_stays_closed(authenticator, name):
    """The service says nullok: left to itself, PAM would let anybody in, whatever they type."""
    hashed = subprocess.run(
        ["getent", "shadow", name], capture_output=True, text=True, check=True
    ).stdout.split(":")[1]
    subprocess.run(["passwd", "--delete", name], check=True, stdout=subprocess.DEVNULL)
    try:
        for password in ("", "anything"):
            with pytest.raises(InvalidLogin):
                login(authenticator, name, password)
    finally:
        subprocess.run(["usermod", "--password", hashed, name], check=True)
    assert login(authenticator, name).name == name


def test_expired_account_with_the_right_password_is_told_so(authenticator, service, name, caplog):
    subprocess.run(["usermod", "--expiredate", "2001-01-01", name], check=True)
    try:
        with pytest.raises(NotAllowed, match="password are right.*expired"):
            login(authenticator, name)
        assert "account check" in caplog.text and "192.0.2.7" in caplog.text
        with pytest.raises(InvalidLogin):
            login(authenticator, name, "wrong")
        assert login(make(service=service, check_account=False), name).name == name
    finally:
        subprocess.run(["usermod", "--expiredate", "", name], check=True)


def test_locked_account_is_closed(authenticator, name):
    subprocess.run(["usermod", "--lock", name], check=True)
    try:
        with pytest.raises(InvalidLogin):
            login(authenticator, name)
    finally:
        subprocess.run(["usermod", "--unlock", name], check=True)


def test_unknown_service_falls_to_pams_catch_all_and_the_log_says_so(name, caplog):
    authenticator = make(service="no-such-service")
    with pytest.raises(InvalidLogin):
        login(authenticator, name, "wrong")
    assert 'PAM has no service "no-such-service"' in caplog.text


def test_failing_session_is_logged_once_and_stops_nothing(service, name, caplog):
    authenticator = make(service=service, open_sessions=True)
    user = pwd_user(name)
    authenticator.pre_spawn_start(user, None)
    assert "could not open a session" in caplog.text
    caplog.clear()
    authenticator.post_spawn_stop(user, None)
    authenticator.pre_spawn_start(user, None)
    assert caplog.text == ""


def test_session_is_opened_and_closed(name, tmp_path, caplog):
    """A session module runs for the user, once at each end."""
    record = tmp_path / "record"
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\necho "$PAM_TYPE $PAM_USER" >> {record}\n')
    script.chmod(0o755)
    service = Path("/etc/pam.d") / f"minihub-test-{secrets.token_hex(4)}"
    service.write_text(f"session required pam_exec.so {script}\n")
    try:
        authenticator = make(service=service.name, open_sessions=True)
        authenticator.pre_spawn_start(pwd_user(name), None)
        authenticator.post_spawn_stop(pwd_user(name), None)
    finally:
        service.unlink()
    assert record.read_text() == f"open_session {name}\nclose_session {name}\n"
    assert caplog.text == ""


def test_limits_of_a_session_are_the_servers_and_not_the_hubs(name, tmp_path):
    """pam_limits sets those of the process that opens the session, which is not the hub."""
    limits = tmp_path / "limits.conf"
    limits.write_text(f"{name} soft nofile 222\n{name} hard nofile 333\n* hard nproc 4000\n")
    service = Path("/etc/pam.d") / f"minihub-test-{secrets.token_hex(4)}"
    service.write_text(f"session required pam_limits.so conf={limits}\n")
    own = Path("/proc/self/limits").read_text()
    spawner = SimpleNamespace(session_limits=None)
    try:
        make(service=service.name).pre_spawn_start(pwd_user(name), spawner)
        assert spawner.session_limits == {}, "no session without open_sessions"
        authenticator = make(service=service.name, open_sessions=True)
        authenticator.pre_spawn_start(pwd_user(name), spawner)
    finally:
        service.unlink()
    assert Path("/proc/self/limits").read_text() == own
    assert spawner.session_limits["RLIMIT_NOFILE"] == (222, 333)
    assert spawner.session_limits["RLIMIT_NPROC"][1] == 4000


def test_logins_run_side_by_side(authenticator, name):
    """Eight threads, right and wrong passwords mixed: every one gets its own answer."""
    from concurrent.futures import ThreadPoolExecutor

    def attempt(number):
        try:
            return login(authenticator, name, PASSWORD if number % 2 else "wrong").name
        except InvalidLogin:
            return None

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(24)))
    assert answers == [None, name] * 12


def test_subclass_may_await_or_call_what_it_overrides(service, name):
    """Configuration files written for coroutines say ``await super().authenticate(…)``."""

    class Awaiting(PAMAuthenticator):
        async def authenticate(self, handler, data):
            await asyncio.sleep(0)
            found = await super().authenticate(handler, data)
            return found and {"name": found, "auth_state": {"how": "awaited"}}

    class Calling(PAMAuthenticator):
        def authenticate(self, handler, data):
            return super().authenticate(handler, data)

    config = Config({"PAMAuthenticator": {"allow_all": True, "service": service}})
    try:
        assert login(Awaiting(config=config), name).auth_state == {"how": "awaited"}
        with pytest.raises(InvalidLogin):
            login(Awaiting(config=config), name, "wrong")
        assert login(Calling(config=config), name).name == name
    finally:
        aio.close()


def test_unprivileged_hub_checks_its_own_users_password_only(service, name):
    """As everywhere: without root the system lets a program check its own user alone."""
    code = (
        "import json, sys\n"
        "from traitlets.config import Config\n"
        "from minihub.auth.base import InvalidLogin\n"
        "from minihub.auth.pam import PAMAuthenticator\n"
        "service, password, *names = json.load(sys.stdin)\n"
        "a = PAMAuthenticator(config=Config({'PAMAuthenticator': "
        "{'allow_all': True, 'service': service}}))\n"
        "for name in names:\n"
        "    try:\n"
        "        data = {'username': name, 'password': password}\n"
        "        print(a.log_in(None, data).name)\n"
        "    except InvalidLogin:\n"
        "        print('refused')\n"
    )
    as_user = {
        "user": name,
        "group": pwd.getpwnam(name).pw_gid,
        "extra_groups": [],
        "cwd": Path(__file__).parents[2],
        "text": True,
        "capture_output": True,
    }
    try:
        subprocess.run([sys.executable, "-c", "import minihub, pamela"], check=True, **as_user)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("other users cannot read this checkout or its Python")
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([service, PASSWORD, name, "root"]),
        **as_user,
    )
    assert done.stdout.split() == [name, "refused"], done.stderr
    assert f'check the password of its own user "{name}" only' in done.stderr


def test_system_user_is_created_by_the_default_command():
    from minihub.auth.base import InvalidUser
    from minihub.auth.system import LocalAuthenticator

    name = f"mhnew{secrets.token_hex(4)}"
    user = SimpleNamespace(name=name)
    with pytest.raises(InvalidUser, match="no system user"):
        LocalAuthenticator().add_user(user)
    authenticator = LocalAuthenticator(
        config=Config({"LocalAuthenticator": {"create_system_users": True}})
    )
    try:
        authenticator.add_user(user)
        assert Path(pwd.getpwnam(name).pw_dir).is_dir()
        authenticator.add_user(user)
    finally:
        subprocess.run(["userdel", "--remove", name], stderr=subprocess.DEVNULL)


def pwd_user(name):
    """Return what the hub hands to an authenticator's hooks, as far as PAM reads it."""
    return SimpleNamespace(name=name)
