"""Doctor's checks of the configuration, each with the fault it is for and what mends it."""

from __future__ import annotations

import os
import re

import pytest
import yaml
from doctor_tools import HEALTHY, close_config, doctor, flags, mend, run
from harness import DEFAULTS, ROOT, Browser, merge, run_altered, settled

from minihub import landlock
from minihub.doctor import verb

NEEDS_LANDLOCK = pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")


def configure(directory, **sections):
    """Write a configuration that is right but for what is given."""
    directory.mkdir(exist_ok=True)
    settings = settled(merge(merge(DEFAULTS, HEALTHY), sections))
    (directory / "minihub.yaml").write_text(yaml.safe_dump(settings))
    close_config(directory)
    return directory


# -- the verb itself -------------------------------------------------------------------------------


def test_nothing_is_found_where_all_is_well(start_hub, tmp_path):
    """While the hub runs with a server, when it has stopped, and before its first start."""
    directory = configure(tmp_path / "hub0")
    assert doctor(directory).bad() == {}
    hub = start_hub(HEALTHY, wait=False, directory=directory)
    close_config(directory)
    hub.wait_ready()
    browser = hub.browser("root-admin", HEALTHY["SharedPasswordAuthenticator"]["admin_password"])
    browser.start_server("root-admin")
    found = doctor(directory)
    assert found.bad() == {} and found.code == 0
    quiet = run(directory, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    loud = run(directory)
    assert loud.stdout.count("\n") == 2 and "all is well" in loud.stdout
    everything = run(directory, "--all").stdout
    assert all(f"ok    {id}: " in everything for id in found)
    assert hub.stop() == 0
    assert doctor(directory).bad() == {}


def test_nothing_is_changed_by_looking(start_hub):
    hub = start_hub(HEALTHY)
    assert hub.stop() == 0

    def state():
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_mode, path.stat().st_size)
            for path in sorted(hub.directory.rglob("*"))
        }

    before = state()
    doctor(hub.directory)
    assert state() == before


def test_empty_directory_stays_empty(tmp_path):
    place = tmp_path / "empty"
    place.mkdir()
    doctor(place)
    assert list(place.iterdir()) == []


def test_exit_code_is_1_for_a_failure_and_0_for_a_warning(tmp_path):
    directory = configure(tmp_path / "hub", Authenticator={"allow_all": False})
    found = doctor(directory)
    assert found.level("access") == "warn" and found.code == 0
    assert doctor(configure(tmp_path / "hub", Spawner={"cmd": ["absent"]})).code == 1


def test_checks_can_be_left_out_by_their_ids(tmp_path):
    directory = configure(tmp_path / "hub", Spawner={"cmd": ["absent"]})
    found = doctor(directory, "--skip", "server-program,backup")
    assert found.code == 0 and "server-program" not in found
    wrong = run(directory, "--skip", "servr-program")
    assert wrong.returncode == 2 and "there is no check servr-program" in wrong.stderr


def test_failure_is_told_with_its_reason_and_its_command(tmp_path):
    directory = configure(tmp_path / "hub", Spawner={"cmd": ["absent"]})
    told = run(directory).stdout
    assert "FAIL  server-program: there is no program absent" in told
    assert "No server starts." in told and "      Mend: " in told
    assert "1 failure." in told and max(map(len, told.splitlines())) <= 120


def test_every_check_has_a_line_in_the_docs_and_a_test_of_its_own():
    """The table there is this one: make it anew from ``all_checks`` when it is not."""
    text = (ROOT / "docs" / "doctor.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| `[a-z]", line)]
    assert rows == [f"| `{one.id}` | {one.title} | {one.why} |" for one in verb.all_checks()]
    listed = [one.id for one in verb.all_checks()]
    tests = "".join(path.read_text() for path in (ROOT / "tests/faults").glob("test_doctor*.py"))
    for id in listed:
        assert re.search(rf"def test_{id.replace('-', '_')}_", tests), id


# -- the configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, said",
    [
        ("JupyterHub: {prot: 1}\n", 'Did you mean "port"'),
        ("JupyterHub: {port: [\n", "minihub.yaml:"),
        ("JupyterHub: {port: eighty, base_url: /lab/}\n", "port"),
        ("JupyterHub: {load_roles: [{name: x, scopes: [nonsense]}]}\n", "nonsense"),
        ("JupyterHub: {ssl_cert: absent.pem}\n", "ssl_cert"),
        ("\0\0", "minihub.yaml"),
    ],
    ids=["unknown", "unreadable", "value", "role", "file", "binary"],
)
def test_configuration_that_is_wrong_is_told_and_the_rest_is_looked_at(tmp_path, text, said):
    place = tmp_path / "hub"
    place.mkdir()
    (place / "minihub.yaml").write_text(text)
    found = doctor(place)
    assert found.code == 1 and found.level("configuration") == "fail"
    assert said in found.said("configuration")
    assert found.level("disk") == "ok" and len(found) > 40
    assert found.mends("configuration")[0] == "minihub.pyz config check"
    (place / "minihub.yaml").unlink()
    assert doctor(place).level("configuration") == "ok"


def test_configuration_in_python_that_raises_is_told(tmp_path):
    place = tmp_path / "hub"
    place.mkdir()
    (place / "jupyterhub_config.py").write_text("c.JupyterHub.port = 8123\n1 / 0\n")
    found = doctor(place)
    assert "jupyterhub_config.py:2" in found.said("configuration")


def test_options_that_are_unknown_in_a_python_file_are_warned_of(tmp_path):
    place = tmp_path / "hub"
    place.mkdir()
    (place / "jupyterhub_config.py").write_text("c.JupyterHub.prot = 8123\n")
    found = doctor(place)
    assert found.level("options") == "warn" and "prot" in found.said("options")


def test_configuration_mode_is_told_where_there_is_a_password(tmp_path):
    directory = configure(tmp_path / "hub")
    (directory / "minihub.yaml").chmod(0o644)
    found = doctor(directory)
    assert found.level("configuration-mode") == "warn"
    mend(directory, found.mends("configuration-mode")[0])
    assert doctor(directory).level("configuration-mode") == "ok"
    (directory / "minihub.yaml").write_text("JupyterHub: {port: 8123}\n")
    (directory / "minihub.yaml").chmod(0o644)  # nothing in it is secret
    assert doctor(directory).level("configuration-mode") == "ok"


def test_access_of_nobody_is_told(tmp_path):
    directory = configure(tmp_path / "hub", Authenticator={"allow_all": False})
    found = doctor(directory)
    assert found.level("access") == "warn"
    assert doctor(directory, *flags(found.mends("access")[0])).level("access") == "ok"


def test_login_without_a_password_is_told(tmp_path):
    directory = configure(tmp_path / "hub", JupyterHub={"authenticator_class": "dummy"})
    found = doctor(directory)
    assert found.level("login") == "warn" and "without a password" in found.said("login")


def test_login_of_admins_that_cannot_be_is_told(tmp_path):
    directory = configure(
        tmp_path / "hub",
        SharedPasswordAuthenticator={"user_password": "correct-horse", "admin_password": ""},
    )
    assert "Admins cannot log in" in doctor(directory).said("login")


def test_owner_that_is_absent_comes_by_the_printed_link(start_hub):
    settings = merge(HEALTHY, {"Authenticator": {"admin_users": []}})
    hub = start_hub(settings)
    hub.browser("ada", HEALTHY["SharedPasswordAuthenticator"]["user_password"])
    found = doctor(hub.directory)
    assert found.level("owner") == "warn"
    link = mend(hub.directory, found.mends("owner")[0]).split()[0]
    assert "Make this hub yours" in Browser(hub.url).get(link).text
    mend(hub.directory, "minihub.pyz user add boss --admin")  # as its button does
    assert doctor(hub.directory).level("owner") == "ok"


@NEEDS_LANDLOCK
def test_isolation_that_is_off_is_told(tmp_path):
    directory = configure(tmp_path / "hub", SimpleLocalProcessSpawner={"sandbox": "off"})
    found = doctor(directory)
    assert found.level("isolation") == "warn"
    assert "can read everybody's files" in found.said("isolation")
    better = doctor(directory, *flags(found.mends("isolation")[0]))
    assert better.level("isolation") == "ok" and "in a sandbox" in better.said("isolation")


def test_isolation_says_how_people_are_kept_apart(tmp_path):
    directory = configure(tmp_path / "hub", JupyterHub={"spawner_class": "localprocess"})
    told = doctor(directory).said("isolation")
    assert ("system user" if os.geteuid() == 0 else "alone") in told


def test_isolation_of_an_old_kernel_is_told(tmp_path, monkeypatch):
    """No kernel without Landlock can be had here: the answer of one is put in its place."""
    directory = configure(tmp_path / "hub", SimpleLocalProcessSpawner={"sandbox": "on"})
    for version, id, level in ((0, "isolation", "fail"), (5, "sandbox", "warn")):
        change = (
            "from minihub import landlock, confinement, local\n"
            f"for one in (landlock, confinement, local): \n  if hasattr(one, 'abi'):"
            f" one.abi = lambda: {version}\n"
            f"landlock.abi = lambda: {version}\n"
        )
        done = run_altered(change, "doctor", "--all", cwd=directory)
        label = {"fail": "FAIL", "warn": "warn"}[level]
        assert re.search(rf"^{label}  {id}: ", done.stdout, re.M), done.stdout + done.stderr
    assert "signals" in done.stdout and "interface 5" in " ".join(done.stdout.split())


@NEEDS_LANDLOCK
def test_sandbox_with_a_hole_is_told(tmp_path):
    directory = configure(
        tmp_path / "hub", SimpleLocalProcessSpawner={"sandbox_read": [str(tmp_path)]}
    )
    found = doctor(directory)
    assert found.level("sandbox") == "warn"
    assert f"{tmp_path} contains files of the hub" in found.said("sandbox")


def test_limits_that_cannot_be_held_are_told(tmp_path):
    found = doctor(configure(tmp_path / "hub", Spawner={"cpu_limit": 0.5}))
    # Where a control group can be had, half a processor can be held exactly.
    is_held = "held exactly" not in found.said("limits")
    assert found.level("limits") == ("ok" if is_held else "warn")


def test_crypt_key_that_is_absent_is_told(tmp_path):
    directory = configure(tmp_path / "hub", Authenticator={"enable_auth_state": True})
    found = doctor(directory)
    assert found.level("crypt-key") == "fail" and found.code == 1
    told = mend(directory, f"{found.mends('crypt-key')[0]}; minihub.pyz doctor --all")
    assert "ok    crypt-key" in told


def test_pam_service_that_is_not_there_is_told(tmp_path):
    directory = configure(
        tmp_path / "hub",
        JupyterHub={"authenticator_class": "pam", "spawner_class": "localprocess"},
        PAMAuthenticator={"service": "no-such-service"},
    )
    found = doctor(directory)
    assert found.level("pam-service") == "fail"
    assert doctor(directory, *flags(found.mends("pam-service")[0])).level("pam-service") == "ok"
