"""Options of the authenticators, seen at the login of a real hub."""

import json
import os
import secrets
import subprocess
from pathlib import Path

import pytest
from harness import ABSENT, HubProcess, merge, python_config, until

TOKEN = "t" * 32
DUMMY = {"JupyterHub": {"api_tokens": {TOKEN: "root-admin"}}}


def may_log_in(hub, name, password="pw", **fields):
    """Return whether the login form lets somebody in."""
    browser = hub.browser()
    form = {"username": name, "password": password, **fields}
    return browser.submit("/hub/login", form).status_code == 302


def user(hub, name):
    """Return what the API says of a user, None if there is none."""
    answer = hub.api(f"users/{name}", TOKEN)
    return answer.json() if answer.status_code == 200 else None


# -- who may log in --------------------------------------------------------------------------------


@pytest.mark.parametrize("allow_all", [True, False])
def test_allow_all_lets_everybody_in(start_hub, allow_all):
    hub = start_hub({"Authenticator": {"allow_all": allow_all}})
    assert may_log_in(hub, "ada") is allow_all
    assert may_log_in(hub, "root-admin")  # admins may in any case
    assert ("Nobody but the hub's admins may log in" in hub.text) is not allow_all


def test_any_allow_config_silences_the_warning(start_hub):
    hub = start_hub({"Authenticator": {"allow_all": False, "any_allow_config": True}})
    assert not may_log_in(hub, "ada")
    assert "may log in" not in hub.text
    hub.stop()
    hub = start_hub({"Authenticator": {"allow_all": False, "any_allow_config": False}})
    assert "Nobody but the hub's admins may log in" in hub.text
    hub.stop()
    hub = start_hub({"Authenticator": {"allow_all": True, "any_allow_config": False}})
    assert may_log_in(hub, "ada")
    assert "may log in" not in hub.text  # it would not be true


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A hub with lists of names, maps and patterns."""
    config = {
        "allow_all": ABSENT,
        "allowed_users": ["ada", "blocked", "x-professor"],
        "blocked_users": ["blocked", "boss"],
        "admin_users": ["chief", "boss"],
        "username_map": {"prof": "x-professor"},
        "username_pattern": "[a-z][a-z-]*|s[0-9]{3}",
        "request_otp": True,
        "otp_prompt": "Code of your card",
        "allow_existing_users": True,
    }
    tokens = {"JupyterHub": {"api_tokens": {TOKEN: "chief", "e" * 32: "existing"}}}
    hub = HubProcess(
        tmp_path_factory.mktemp("listed"),
        merge(tokens, {"Authenticator": config, "DummyAuthenticator": {"password": "sesame"}}),
    ).wait_ready()
    yield hub
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text


def test_allowed_users_may_log_in_and_others_not(listed):
    assert may_log_in(listed, "ada", "sesame")
    assert not may_log_in(listed, "stranger", "sesame")


def test_password_of_the_dummy_is_asked_for(listed):
    assert not may_log_in(listed, "ada", "guess")


def test_blocked_users_may_not_whatever_else_allows_them(listed):
    assert not may_log_in(listed, "blocked", "sesame")
    assert not may_log_in(listed, "boss", "sesame")


def test_admin_users_are_admins(listed):
    assert listed.browser("chief", "sesame").get("/hub/admin").status_code == 200
    assert user(listed, "chief")["admin"] is True and user(listed, "ada")["admin"] is False


def test_username_map_gives_another_name(listed):
    browser = listed.browser("Prof", "sesame")
    assert ">x-professor<" in browser.get("/hub/home").text.replace("\n", "")


def test_username_pattern_must_fit_the_whole_name(listed):
    answer = listed.browser().login("ada9", "sesame")
    assert answer.status_code == 403
    assert "username_pattern" in answer.text
    for name in ("ada9", "s1234"):  # names that only the pattern keeps out
        assert listed.api("users", TOKEN, "POST", json={"usernames": [name]}).status_code == 400
    assert listed.api("users", TOKEN, "POST", json={"usernames": ["s123"]}).status_code == 201


def test_request_otp_asks_with_the_prompt(listed):
    page = listed.browser().get("/hub/login").text
    assert 'name="otp"' in page and "Code of your card" in page


def test_allow_existing_users_may_come_again(listed):
    assert may_log_in(listed, "existing", "sesame")


def test_allow_existing_users_may_be_switched_off(start_hub):
    config = {"allow_all": ABSENT, "allowed_users": ["ada"], "allow_existing_users": False}
    hub = start_hub(merge(DUMMY, {"Authenticator": config}))
    hub.api("users/newcomer", TOKEN, "POST")
    assert not may_log_in(hub, "newcomer") and may_log_in(hub, "ada")


def test_old_spellings_work_with_a_warning(start_hub):
    config = {"allow_all": ABSENT, "whitelist": ["ada", "eve"], "blacklist": ["eve"]}
    hub = start_hub({"Authenticator": config})
    assert may_log_in(hub, "ada")
    assert not may_log_in(hub, "eve") and not may_log_in(hub, "ben")
    assert "Authenticator.whitelist is the old spelling of Authenticator.allowed_users" in hub.text
    assert "Authenticator.blacklist is the old spelling of Authenticator.blocked_users" in hub.text


@pytest.mark.parametrize("delete", [True, False])
def test_delete_invalid_users_deletes_whom_the_authenticator_cannot_have(start_hub, delete):
    hub = start_hub(DUMMY)
    hub.api("users/user9", TOKEN, "POST")
    hub.stop()
    config = {"username_pattern": "[a-z-]+", "delete_invalid_users": delete}
    hub = start_hub(merge(DUMMY, {"Authenticator": config}), directory=hub.directory)
    assert (user(hub, "user9") is None) is delete
    assert "The authenticator cannot have the user user9" in hub.text


# -- around the login ------------------------------------------------------------------------------


def test_post_auth_hook_may_change_or_refuse(start_hub, tmp_path):
    lines = (
        "async def hook(authenticator, handler, model):\n"
        "    if model['name'] == 'eve':\n"
        "        return None\n"
        "    return {**model, 'name': model['name'] + '-x'}\n"
        "c.Authenticator.post_auth_hook = hook\n"
    )
    hub = start_hub(**python_config(tmp_path / "own", lines, DUMMY))
    assert may_log_in(hub, "ada") and not may_log_in(hub, "eve")
    assert user(hub, "ada-x") is not None


def test_auto_login_asks_nobody_for_anything(start_hub, tmp_path):
    lines = (
        "from jupyterhub.auth import Authenticator\n"
        "class Known(Authenticator):\n"
        "    def authenticate(self, handler, data):\n"
        "        return handler.request.headers.get('X-Remote-User')\n"
        "c.JupyterHub.authenticator_class = Known\n"
        "c.Authenticator.auto_login = True\n"
    )
    hub = start_hub(**python_config(tmp_path / "own", lines))
    browser = hub.browser()
    answer = browser.get("/hub/login?next=/hub/token", headers={"X-Remote-User": "ada"})
    assert answer.headers["Location"] == "/hub/token"
    assert browser.get("/hub/token").status_code == 200
    assert hub.browser().get("/hub/login").status_code == 403


def test_auto_login_only_where_a_server_sends_somebody(start_hub, tmp_path):
    lines = (
        "from jupyterhub.auth import Authenticator\n"
        "class Known(Authenticator):\n"
        "    def authenticate(self, handler, data):\n"
        "        return handler.request.headers.get('X-Remote-User') or data['username']\n"
        "c.JupyterHub.authenticator_class = Known\n"
        "c.Authenticator.auto_login_oauth2_authorize = True\n"
    )
    hub = start_hub(**python_config(tmp_path / "own", lines))
    hub.browser("ada").start_server("ada")
    browser = hub.browser()
    browser.headers["X-Remote-User"] = "ada"
    page = browser.follow("/hub/home")
    assert page.status_code == 200 and 'name="password"' in page.text
    assert browser.follow("/user/ada/").json()["visitor"]["name"] == "ada"
    assert browser.get("/hub/home").status_code == 200


def test_manage_groups_gives_the_groups_of_the_password(start_hub):
    config = {
        "JupyterHub": {"authenticator_class": "shared-password"},
        "Authenticator": {"manage_groups": True},
        "SharedPasswordAuthenticator": {
            "user_password": "everybody's",
            "admin_password": "a" * 32,
            "password_groups": {"physics-password": ["physics", "science"]},
        },
    }
    hub = start_hub(merge(DUMMY, config))
    assert may_log_in(hub, "ada", "everybody's") and user(hub, "ada")["groups"] == []
    assert may_log_in(hub, "ada", "physics-password")
    assert sorted(user(hub, "ada")["groups"]) == ["physics", "science"]
    assert may_log_in(hub, "ada", "everybody's") and user(hub, "ada")["groups"] == []


def test_shared_passwords_are_one_for_users_and_one_for_admins(start_hub):
    passwords = {"user_password": "everybody's", "admin_password": "a" * 32}
    config = {
        "JupyterHub": {"authenticator_class": "shared-password"},
        "SharedPasswordAuthenticator": passwords,
    }
    hub = start_hub(config)
    assert may_log_in(hub, "ada", "everybody's") and not may_log_in(hub, "ada", "a" * 32)
    assert may_log_in(hub, "root-admin", "a" * 32)
    assert not may_log_in(hub, "root-admin", "everybody's")
    assert "everybody's" not in hub.text and "a" * 32 not in hub.text


ROLES = """
import json, os
from jupyterhub.auth import Authenticator
here = os.path.dirname(os.path.abspath(__file__))

class Deciding(Authenticator):
    def authenticate(self, handler, data):
        with open(os.path.join(here, "roles.json")) as file:
            return {"name": data["username"], "roles": json.load(file)}

c.JupyterHub.authenticator_class = Deciding
c.JupyterHub.load_roles = [{"name": "reader", "scopes": ["read:groups"]}]
"""


def test_manage_roles_gives_the_roles_that_the_authenticator_says(start_hub, tmp_path):
    changes = merge(DUMMY, {"Authenticator": {"manage_roles": True}})
    hub = start_hub(**python_config(tmp_path / "own", ROLES, changes))
    roles = hub.directory / "roles.json"

    def log_in(name, given):
        roles.write_text(json.dumps(given))
        return hub.browser(name)

    lister = {"name": "lister", "scopes": ["list:users"], "description": "Sees everybody."}
    browser = log_in("ada", [lister, {"name": "reader", "scopes": ["admin:users"]}, {"name": "-"}])
    assert sorted(user(hub, "ada")["roles"]) == ["lister", "reader", "user"]
    assert browser.get("/hub/api/users").status_code == 200
    scopes = browser.get("/hub/api/user").json()["scopes"]
    assert "read:groups" in scopes and "admin:users" not in scopes  # the configuration's
    hub.wait_text("A role that the authenticator gave ada: name must have")
    hub.stop()
    hub = start_hub(**python_config(tmp_path / "own", ROLES, changes))
    assert sorted(user(hub, "ada")["roles"]) == ["lister", "reader", "user"]
    browser = log_in("ada", ["reader"])
    assert sorted(user(hub, "ada")["roles"]) == ["reader", "user"]
    assert browser.get("/hub/api/users").status_code == 403
    log_in("ada", ["admin"])
    assert user(hub, "ada")["admin"] is True
    log_in("ben", None)
    hub.wait_text('manage_roles is on, but Deciding gave no roles for "ben": left as they are')


def test_roles_of_an_authenticator_that_does_not_manage_them_are_told(start_hub, tmp_path):
    hub = start_hub(**python_config(tmp_path / "own", ROLES, DUMMY))
    (hub.directory / "roles.json").write_text('[{"name": "lister", "scopes": ["list:users"]}]')
    assert may_log_in(hub, "ada") and user(hub, "ada")["roles"] == ["user"]
    hub.wait_text('gave roles for "ada", which are not taken: Authenticator.manage_roles is off')


def test_manage_roles_and_members_in_load_roles_do_not_go_together(start_hub):
    roles = [{"name": "lister", "scopes": ["list:users"], "users": ["ada"]}]
    config = {"JupyterHub": {"load_roles": roles}, "Authenticator": {"manage_roles": True}}
    hub = start_hub(config, wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.load_roles, role lister: it names users or groups" in hub.text


REFRESHING = """
import json, os
from jupyterhub.auth import Authenticator
here = os.path.dirname(os.path.abspath(__file__))

class Asked(Authenticator):
    manage_groups = True

    def authenticate(self, handler, data):
        return {"name": data["username"], "groups": []}

    async def refresh_user(self, user, handler=None):
        with open(os.path.join(here, "asked"), "a") as file:
            print(user.name, handler.request.path, file=file)
        with open(os.path.join(here, "answer")) as file:
            return json.load(file)

c.JupyterHub.authenticator_class = Asked
"""


def refreshing(start_hub, directory, **options):
    """Start a hub whose authenticator is asked again and answers what the file ``answer`` says."""
    hub = start_hub(
        **python_config(directory, REFRESHING, merge(DUMMY, {"Authenticator": options}))
    )
    (directory / "answer").write_text("true")
    return hub


def test_auth_refresh_age_asks_again_about_who_is_logged_in(start_hub, tmp_path):
    hub = refreshing(start_hub, tmp_path / "own", auth_refresh_age=1)
    browser = hub.browser("ada")
    asked = hub.directory / "asked"
    until(lambda: browser.get("/hub/home").status_code == 200 and asked.exists())
    assert asked.read_text().startswith("ada /hub/home\n")
    (hub.directory / "answer").write_text('{"groups": ["physics"], "admin": true}')
    until(lambda: browser.get("/hub/admin").status_code == 200)
    assert user(hub, "ada")["groups"] == ["physics"]
    (hub.directory / "answer").write_text("false")
    until(lambda: browser.get("/hub/home").status_code == 302)
    assert may_log_in(hub, "ada")
    assert "ada must log in again" in hub.text and "Traceback" not in hub.text


def test_auth_refresh_age_0_never_asks(start_hub, tmp_path):
    hub = refreshing(start_hub, tmp_path / "own", auth_refresh_age=0)
    browser = hub.browser("ada")
    browser.start_server("ada")
    assert browser.get("/hub/home").status_code == 200
    assert not (hub.directory / "asked").exists()


def test_refresh_pre_spawn_asks_before_a_server_starts(start_hub, tmp_path):
    hub = refreshing(start_hub, tmp_path / "own", refresh_pre_spawn=True)
    browser = hub.browser("ada")
    browser.get("/hub/home")
    assert not (hub.directory / "asked").exists()
    (hub.directory / "answer").write_text("false")
    assert browser.get("/hub/spawn/ada").status_code == 403
    assert (hub.directory / "asked").read_text() == "ada /hub/spawn/ada\n"
    (hub.directory / "answer").write_text("true")
    again = hub.browser("ada")
    again.start_server("ada")
    assert hub.api("users/ada/server", TOKEN, "DELETE").status_code in (202, 204)
    (hub.directory / "answer").write_text("false")
    until(lambda: hub.api("users/ada/server", TOKEN, "POST").status_code == 403)


# -- system users ----------------------------------------------------------------------------------

SYSTEM = (
    "from jupyterhub.auth import LocalAuthenticator\n"
    "class Local(LocalAuthenticator):\n"
    "    def authenticate(self, handler, data):\n"
    "        return data['username']\n"
    "c.JupyterHub.authenticator_class = Local\n"
)


@pytest.mark.parametrize("option", ["allowed_groups", "group_whitelist"])
def test_allowed_groups_let_in_their_members(start_hub, tmp_path, option):
    closed = {"Authenticator": {"allow_all": ABSENT, "admin_users": ABSENT}}
    lines = SYSTEM + f"c.LocalAuthenticator.{option} = {{'daemon'}}\n"
    hub = start_hub(**python_config(tmp_path / "own", lines, closed))
    assert may_log_in(hub, "daemon") and not may_log_in(hub, "bin")
    old = "LocalAuthenticator.group_whitelist is the old spelling"
    assert (old in hub.text) is (option == "group_whitelist")


@pytest.mark.parametrize("create", [True, False])
def test_system_users_are_created_by_the_command(start_hub, tmp_path, create):
    command = tmp_path / "add"
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/added\n')
    command.chmod(0o755)
    lines = SYSTEM + (
        f"c.LocalAuthenticator.create_system_users = {create}\n"
        f"c.LocalAuthenticator.add_user_cmd = [{str(command)!r}, '--home', '/srv/USERNAME']\n"
        "c.LocalAuthenticator.uids = {'no-such-one': 61234}\n"
    )
    changes = {"Authenticator": {"admin_users": ABSENT}}
    hub = start_hub(**python_config(tmp_path / "own", lines, changes))
    assert may_log_in(hub, "no-such-one") is create
    assert may_log_in(hub, "daemon")  # the system has this one
    added = tmp_path / "added"
    if create:
        assert added.read_text() == "--home /srv/no-such-one --uid 61234 no-such-one\n"
    else:
        assert not added.exists()


# -- PAM -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def account():
    """A system user with a password in Latin-1, and another name for the same account."""
    name = f"mhtest{secrets.token_hex(3)}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    password = "pässword" + secrets.token_hex(6)
    try:
        line = f"{name}:{password}\n".encode("latin-1")
        # As it is, whatever the locale: chpasswd hashes bytes.
        subprocess.run(["chpasswd"], input=line, check=True, env={**os.environ, "LC_ALL": "C"})
        yield name, password
    finally:
        subprocess.run(["userdel", "--force", name], check=True, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def service():
    """A PAM service whose sessions are refused and that does not delay wrong passwords."""
    yield from made_service(
        "auth required pam_unix.so nodelay\naccount required pam_unix.so\n"
        "session required pam_deny.so\n"
    )


@pytest.fixture(scope="module")
def closed_service():
    """A PAM service that lets nobody in."""
    yield from made_service("auth required pam_deny.so\naccount required pam_permit.so\n")


def made_service(rules):
    """Yield the name of a PAM service with these rules."""
    name = f"minihub-test-{secrets.token_hex(4)}"
    file = Path("/etc/pam.d") / name
    file.write_text(rules)
    yield name
    file.unlink()


@pytest.mark.root
def test_pam_service_and_encoding_check_the_systems_passwords(
    start_hub, account, service, closed_service
):
    name, password = account
    config = {
        "JupyterHub": {"authenticator_class": "pam"},
        "Authenticator": {"admin_users": ABSENT},
    }
    for rules, encoding, right in (
        (service, "latin-1", True),
        (service, "utf8", False),
        (closed_service, "latin-1", False),
    ):
        options = {"service": rules, "encoding": encoding}
        hub = start_hub(merge(config, {"PAMAuthenticator": options}))
        assert may_log_in(hub, name, password) is right
        assert not may_log_in(hub, name, "wrong")
        assert password not in hub.text
        hub.stop()


@pytest.mark.root
def test_pam_accounts_sessions_groups_and_names(start_hub, account, service):
    name, password = account
    group = subprocess.run(["id", "-gn", name], capture_output=True, text=True).stdout.strip()
    config = {
        "JupyterHub": {"authenticator_class": "pam", "api_tokens": {TOKEN: "root"}},
        "Authenticator": {"admin_users": ABSENT},
        "PAMAuthenticator": {
            "service": service,
            "encoding": "latin-1",
            "check_account": False,
            "admin_groups": [group],
        },
    }
    subprocess.run(["usermod", "--expiredate", "2001-01-01", name], check=True)
    try:
        for opened in (True, False):
            config["PAMAuthenticator"]["open_sessions"] = opened
            hub = start_hub(config)
            browser = hub.browser(name, password)  # expired, but nobody asks
            assert browser.get("/hub/admin").status_code == 200  # by the group
            browser.start_server(name)
            hub.stop()
            # The service refuses every session.
            assert (f'PAM could not open a session for "{name}": ' in hub.text) is opened
        config["PAMAuthenticator"]["check_account"] = True
        hub = start_hub(config)
        assert not may_log_in(hub, name, password)
    finally:
        subprocess.run(["usermod", "--expiredate", "", name], check=True)


@pytest.mark.root
def test_pam_normalize_username_takes_the_systems_own_name(start_hub, account, service):
    name, password = account
    uid = int(subprocess.run(["id", "-u", name], capture_output=True, text=True).stdout)
    other = f"z{name}"  # found after it by uid
    subprocess.run(
        ["useradd", "--no-create-home", "--non-unique", "--uid", str(uid), "--shell", "/bin/sh"]
        + [other],
        check=True,
    )
    try:
        line = f"{other}:{password}\n".encode("latin-1")
        subprocess.run(["chpasswd"], input=line, check=True, env={**os.environ, "LC_ALL": "C"})
        options = {"service": service, "encoding": "latin-1", "pam_normalize_username": True}
        config = {
            "JupyterHub": {"authenticator_class": "pam"},
            "Authenticator": {"admin_users": ABSENT},
            "PAMAuthenticator": options,
        }
        hub = start_hub(config)
        browser = hub.browser(other, password)
        assert other not in browser.get("/hub/home").text
        assert hub.rows("select name from users") == [(name,)]
    finally:
        subprocess.run(["userdel", "--force", other], check=True, stderr=subprocess.DEVNULL)
