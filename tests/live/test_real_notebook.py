"""A person's day with an unmodified jupyterhub-singleuser and JupyterLab, in plain HTTP."""

from __future__ import annotations

import os

import pytest
from notebook_tools import Notebook, run
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.notebook


def test_cell_runs_in_a_real_notebook_server(start_hub, lab_bin):
    """Login, start, OAuth, a kernel, 6*7; nobody else gets in; stop; logout revokes."""
    arguments = ["--HubOAuth.cache_max_age=1"]  # a logout is felt within a second
    if os.getuid() == 0:
        arguments.append("--allow-root")
    command = {"cmd": [str(lab_bin / "jupyterhub-singleuser")], "args": arguments}
    hub = start_hub({"Spawner": command})
    ada, eve = hub.browser("ada"), hub.browser("eve")
    ada.start_server("ada", timeout_s=60)

    # The way in: the server sends its visitor through the hub's login and back.
    response = ada.get("/user/ada/lab")
    assert response.status_code == 302
    assert "/hub/api/oauth2/authorize?" in response.headers["Location"]
    response = ada.follow("/user/ada/lab")
    assert response.status_code == 200 and "jupyter-config-data" in response.text
    version = ada.get("/user/ada/api/me").json()
    assert version["identity"]["username"] == "ada"

    notebook = Notebook(ada, "ada")
    kernel = notebook.new_kernel().json()["id"]
    with notebook.channels(kernel) as socket:
        assert run(socket, "6*7") == "42"
        assert run(socket, "import os; os.environ['JUPYTERHUB_USER']") == "'ada'"

    # Somebody else: not the page, not the API, not the kernel.
    assert eve.follow("/user/ada/lab").status_code == 403
    stranger = Notebook(eve, "ada")
    assert stranger.kernels().status_code == 403
    assert stranger.new_kernel().status_code == 403
    with pytest.raises(InvalidStatus) as refused:
        stranger.channels(kernel)
    assert refused.value.response.status_code == 403

    # The cookie that the server gave out ends with the login it came from.
    thief = hub.browser()
    for cookie in ada.cookies:
        if cookie.path == "/user/ada/":
            thief.cookies.set_cookie(cookie)
    stolen = Notebook(thief, "ada")
    assert stolen.kernels().status_code == 200
    assert ada.get("/hub/logout").status_code == 302
    stolen.wait_status(403)
    assert notebook.kernels().status_code == 403

    ada.login("ada")
    assert ada.submit("/hub/stop/ada", {}, page="/hub/home").status_code == 303
    assert ada.follow("/user/ada/api/kernels").status_code == 424
    assert hub.stop() == 0, hub.text
    assert "Traceback" not in hub.text, hub.text
