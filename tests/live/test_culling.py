"""The culler against a real hub: the verb, the hub's own thread, and jupyterhub-idle-culler."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from admin_tools import PROGRAM, Admin, wait_until
from harness import ROOT, serving

SCOPES = "list:users,read:users:activity,read:servers,delete:servers"


#: What the fake servers say of their kernels; it counts only where somebody asks them.
BUSY = json.dumps([{"id": "k", "execution_state": "busy"}])
FAKES = {"Spawner": {"environment": {"FAKE_KERNELS": BUSY}}}


@pytest.fixture(scope="module")
def admin(tmp_path_factory):
    """One hub for all tests of the verb; each uses user names of its own."""
    options = {"allow_named_servers": True, "admin_access": True}
    with serving(tmp_path_factory.mktemp("hub"), {"JupyterHub": options, **FAKES}) as hub:
        yield Admin(hub)


# -- the verb ---------------------------------------------------------------------------------


def test_pass_stops_what_is_idle_and_tells_why(admin):
    admin.start("idle")
    kept = admin.cull("--timeout=1h", "--explain")
    assert kept.returncode == 0, kept.stderr
    [line] = [line for line in kept.stdout.splitlines() if " idle:" in line]
    assert line.startswith("kept ") and "limit 1 h" in line and "last activity 20" in line
    lines = admin.cull_until(lambda: not admin.servers("idle"), "--timeout=1")
    stopped = [line for line in lines if line.get("user") == "idle" and line["action"] == "stopped"]
    assert stopped[0]["rule"] == "idle"
    assert lines[-1]["event"] == "pass"
    admin.hub.wait_text("Stopping server idle/: root-admin asked")


def test_pass_with_nothing_to_do_says_nothing(admin):
    admin.start("quiet")
    done = admin.cull("--timeout=1h")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_dry_run_stops_nothing_and_says_what_it_would(admin):
    admin.start("spared")
    wait_until(
        lambda: "would-stop   spared: idle" in admin.cull("--timeout=1", "--dry-run").stdout, "dry"
    )
    assert admin.servers("spared")[""]["ready"]


def test_server_too_old_goes_though_active(admin):
    admin.start("old")
    lines = admin.cull_until(lambda: not admin.servers("old"), "--timeout=1h", "--max-age=1")
    assert {"too-old"} == {one["rule"] for one in lines if one.get("action") == "stopped"}


def test_users_are_deleted_on_request_but_not_admins_that_are_spared(admin):
    admin.start("leaver")
    admin.cull_until(
        lambda: admin.call("GET", "/users/leaver").status_code == 404,
        "--timeout=1", "--cull-users", "--cull-admin-users=false",
    )  # fmt: skip
    assert admin.call("GET", "/users/root-admin").status_code == 200
    # By itself the culler spares the token's owner, who cannot delete themselves.
    done = admin.cull("--timeout=1", "--cull-users")
    assert done.returncode == 0, done.stderr


def test_every_page_is_read(admin):
    names = [f"page{number}" for number in range(5)]
    admin.call("POST", "/users", json={"usernames": names})
    done = admin.cull("--cull-users", "--json", "--api-page-size=2", "--timeout=1h")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    seen = [one["user"] for one in told if one["event"] == "user"]
    assert set(names) <= set(seen) and len(seen) == len(set(seen))


def test_token_with_the_scopes_of_the_docs_suffices(admin):
    token = admin.new_token("--scopes", SCOPES)
    admin.start("narrow")
    wait_until(
        lambda: "stopped      narrow" in admin.cull("--timeout=1", token=token).stdout, "stopped"
    )
    refused = admin.cull("--cull-users", "--timeout=1", token=token)
    assert refused.returncode == 6 and "403" in refused.stderr


def test_token_file_is_read(admin, tmp_path):
    file = tmp_path / "token"
    file.write_text(admin.token + "\n")
    done = admin.cull("--token-file", str(file), "--timeout=1h", token="wrong")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "options", "code", "said"),
    [
        ([], {"token": "wrong"}, 6, "403"),
        ([], {"url": "http://127.0.0.1:1/hub/api"}, 1, "cannot be reached"),
        (["--timout=1"], {}, 2, "Did you mean --timeout?"),
        (["--token-file=/nowhere"], {}, 2, "/nowhere: No such file"),
    ],
)
def test_exit_codes(admin, flags, options, code, said):
    done = admin.cull(*flags, **options)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr and "Traceback" not in done.stderr


def test_token_that_may_not_see_servers_is_refused(admin):
    admin.start("hidden")
    done = admin.cull(token=admin.new_token("--scopes=list:users"))
    assert done.returncode == 6 and "read:servers" in done.stderr


def test_page_instead_of_the_api_ends_with_1(admin):
    done = admin.cull(url=admin.hub.url)
    assert done.returncode == 1 and "It ends in /hub/api" in done.stderr


def test_loop_goes_on_until_it_is_told_to_stop(admin):
    admin.start("loop")
    environ = {"JUPYTERHUB_API_URL": admin.api, "JUPYTERHUB_API_TOKEN": admin.token}
    command = [*PROGRAM, "cull", "--timeout=2", "--cull-every=1"]
    loop = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: not admin.servers("loop"), "stopped by the loop")
        assert loop.poll() is None
        loop.send_signal(signal.SIGTERM)
        out, _err = loop.communicate(timeout=20)
        assert loop.returncode == 0 and "stopped      loop" in out
    finally:
        loop.kill()
        loop.wait()


def test_progress_is_shown_on_a_terminal(admin):
    admin.start("watched")
    leader, follower = os.openpty()
    command = [*PROGRAM, "cull", "--max-age=1", "--timeout=1h", f"--url={admin.api}"]
    environ = {"JUPYTERHUB_API_TOKEN": admin.token}
    wait_until(
        lambda: "would-stop" in admin.cull("--max-age=1", "--timeout=1h", "--dry-run").stdout, "due"
    )
    done = subprocess.run(command, env=environ, stderr=follower, capture_output=False)
    os.close(follower)
    shown = os.read(leader, 4096).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "\rminihub cull: 1 of " in shown and shown.endswith("\r\x1b[K")


def test_named_servers_are_stopped_and_removed_on_request(admin):
    admin.start("ana")
    admin.start("ana", "work")
    admin.cull_until(
        lambda: set(admin.servers("ana")) == {""}, "--timeout=1", "--cull-default-servers=no"
    )
    kept = admin.call("GET", "/users/ana?include_stopped_servers=1").json()["servers"]
    assert set(kept) == {"", "work"}
    admin.start("ana", "work")
    admin.cull_until(lambda: not admin.servers("ana"), "--timeout=1", "--remove-named-servers")
    kept = admin.call("GET", "/users/ana?include_stopped_servers=1").json()["servers"]
    assert set(kept) == {""}


def test_busy_server_is_spared_on_request(admin):
    admin.start("worker")
    flags = ("--timeout=1", "--spare-busy", "--json")
    wait_until(lambda: '"busy": 1' in admin.cull(*flags).stdout, "known to be busy")
    assert admin.servers("worker")[""]["ready"]
    notes = {one["note"] for one in admin.call("GET", "/users/worker/tokens").json()["api_tokens"]}
    assert "asks whether a kernel is busy" not in notes
    weak = admin.cull(*flags, token=admin.new_token("--scopes", SCOPES))
    assert weak.returncode == 6 and "--spare-busy needs a token with the scopes" in weak.stdout
    inner = json.loads((admin.hub.directory / "minihub-data" / "lock").read_text())["api_url"]
    wrong = admin.cull(*flags, url=inner)
    assert wrong.returncode == 1 and "must be the hub's public URL" in wrong.stdout
    admin.cull_until(lambda: not admin.servers("worker"), "--timeout=1")


# -- the thread inside the hub, and the verb as a service -------------------------------------


@pytest.fixture
def start(start_hub):
    def start(config=None, **options):
        return Admin(start_hub({"JupyterHub": options, **(config or {})}))

    return start


def test_hub_culls_servers_and_users_by_itself(start):
    cull = {"timeout": 2, "every": 1, "remove_named_servers": True, "cull_users": True}
    admin = start(cull=cull, allow_named_servers=True)
    admin.start("root-admin", "work")
    admin.start("ana")
    wait_until(lambda: admin.call("GET", "/users/ana").status_code == 404, "deleted")
    admin.hub.wait_text(r"Stopping server ana/: idle for \d+ s, limit 2 s")
    wait_until(lambda: not admin.servers("root-admin"), "culled")
    everything = "/users/root-admin?include_stopped_servers=1"
    wait_until(lambda: "work" not in admin.call("GET", everything).json()["servers"], "removed")
    # Admins stay, whatever their activity, unless cull_admin_users says otherwise.
    assert admin.call("GET", "/user").json()["name"] == "root-admin"
    assert admin.hub.stop() == 0 and "Traceback" not in admin.hub.text


def test_whose_server_was_culled_is_told_why(start):
    admin = start(cull={"timeout": 2, "every": 1})
    admin.start("root-admin")
    wait_until(lambda: not admin.servers("root-admin"), "culled")
    browser = admin.hub.browser("root-admin")
    for page in ("/hub/home", "/hub/user/root-admin/"):
        text = browser.get(page, headers={"Accept-Language": "de"}).text
        assert re.search(r"Der Hub hat diesen Server beendet: unbenutzt seit \d+ s", text), page
    admin.start("root-admin")
    assert "Der Hub hat" not in browser.get("/hub/home").text
    assert admin.hub.stop() == 0


def test_hub_spares_a_busy_server_until_it_is_too_old(start):
    admin = start(FAKES, cull={"timeout": 1, "every": 1, "max_age": 6}, log_level="DEBUG")
    admin.start("worker")
    admin.hub.wait_text(r"worker: 1 kernel is busy, though idle for")
    assert admin.servers("worker")[""]["ready"]
    wait_until(lambda: not admin.servers("worker"), "too old", 20)
    admin.hub.wait_text(r"Stopping server worker/: running for \d+ s, limit 6 s")
    assert "asks whether" not in admin.call("GET", "/users/worker/tokens").text


def test_verb_runs_as_a_managed_service(start):
    command = [*PROGRAM, "cull", "--timeout=2", "--cull-every=1"]
    admin = start(
        services=[{"name": "cull", "command": command}],
        load_roles=[{"name": "cull", "services": ["cull"], "scopes": SCOPES.split(",")}],
    )
    admin.start("ana")
    wait_until(lambda: not admin.servers("ana"), "culled by the service")
    admin.hub.wait_text("Stopping server ana/: cull asked through the API")


def test_wrong_cull_option_is_told_and_nothing_starts(start_hub):
    hub = start_hub({"JupyterHub": {"cull": {"timeut": 60}}}, wait=False)
    assert hub.process.wait(20) == 3
    assert 'unknown key "timeut". Did you mean "timeout"?' in hub.text


# -- other people's cullers -------------------------------------------------------------------


@pytest.mark.notebook
def test_jupyterhub_idle_culler_works_unchanged(admin):
    directory = Path(os.environ.get("MINIHUB_TEST_LAB_BIN", ROOT / ".venv-lab" / "bin"))
    admin.start("theirs")
    admin.call("POST", "/users/nobody-here")
    environ = {"JUPYTERHUB_API_URL": admin.api, "JUPYTERHUB_API_TOKEN": admin.token}
    command = [str(directory / "jupyterhub-idle-culler"), "--timeout=2", "--cull-every=1",
               "--cull-users=True", "--cull-admin-users=False", "--api-page-size=2"]  # fmt: skip
    theirs = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_until(lambda: admin.call("GET", "/users/theirs").status_code == 404, "culled", 30)
        wait_until(lambda: admin.call("GET", "/users/nobody-here").status_code == 404, "culled")
    finally:
        theirs.terminate()
        out, _err = theirs.communicate(timeout=20)
        print(out)  # shown when the test fails
    assert "Culling server theirs (inactive for" in out, out
    assert "Error processing" not in out, out
    assert admin.call("GET", "/users/root-admin").status_code == 200
