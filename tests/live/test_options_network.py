"""Options that say where the hub listens and by which addresses it is known."""

import re
import select
import socket
import socketserver
import ssl
import sys
import threading

import psutil
import pytest
import requests
from harness import (
    ABSENT,
    FAKE_SERVER,
    Browser,
    HubProcess,
    free_port,
    make_certificate,
    resolve_to_loopback,
)
from websockets.sync.client import connect


class Forwarder(socketserver.ThreadingTCPServer):
    """Listens on an address of its own and passes every connection on to ``target``."""

    daemon_threads = True

    def __init__(self, ip, target):
        super().__init__((ip, 0), None)
        self.target = target
        threading.Thread(target=self.serve_forever, args=(0.05,)).start()

    def __exit__(self, *args):
        self.shutdown()
        super().__exit__(*args)

    def finish_request(self, request, client_address):
        with socket.create_connection(self.target) as upstream:
            ends = {request: upstream, upstream: request}
            while True:
                for source in select.select(list(ends), [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    ends[source].sendall(data)


class PlainBrowser(Browser):
    """Sends Secure cookies over http as well: what ends TLS before the proxy is left out."""

    def request(self, *args, **kwargs):
        response = super().request(*args, **kwargs)
        for cookie in self.cookies:
            cookie.secure = False
        return response


# -- addresses and ports -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    """A hub that listens on addresses and ports of its own."""
    ports = {"port": free_port("127.0.0.2"), "hub_port": free_port("127.0.0.3")}
    places = {"ip": "127.0.0.2", "hub_ip": "127.0.0.3", **ports}
    hub = HubProcess(tmp_path_factory.mktemp("placed"), {"JupyterHub": places}).wait_ready()
    hub.ports = ports
    yield hub
    assert hub.stop() == 0, hub.text


def test_ip_and_port_are_where_people_reach_the_hub(placed):
    port = placed.ports["port"]
    assert placed.url == f"http://127.0.0.2:{port}/"
    assert f"open        http://127.0.0.2:{port}/" in placed.text
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/hub/api", timeout=5)


def test_hub_ip_and_hub_port_are_where_servers_reach_the_hub(placed):
    port = placed.ports["hub_port"]
    assert requests.get(f"http://127.0.0.3:{port}/hub/api", timeout=5).status_code == 200
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/hub/api", timeout=5)
    browser = placed.browser("ada")
    browser.start_server("ada")
    env = browser.follow("/user/ada/").json()["env"]
    assert env["JUPYTERHUB_API_URL"] == f"http://127.0.0.3:{port}/hub/api"


def test_port_0_takes_a_free_one_and_prints_it(start_hub):
    hub = start_hub({"JupyterHub": {"ip": ""}})
    port = hub.url.rstrip("/").rpartition(":")[2]
    assert int(port) not in (0, 8000) and f"open        http://127.0.0.1:{port}/" in hub.text


def test_hub_and_proxy_on_one_port_are_refused(start_hub):
    port = free_port()
    hub = start_hub({"JupyterHub": {"port": port, "hub_port": port}}, wait=False)
    assert hub.process.wait(20) == 3
    assert f"port {port}" in hub.text and "Traceback" not in hub.text


def test_hub_connect_ip_and_port_are_told_and_not_bound(start_hub, tmp_path):
    hub_port = free_port()
    with Forwarder("127.0.0.4", ("127.0.0.1", hub_port)) as forwarder:
        port = forwarder.server_address[1]
        told = {"hub_connect_ip": "127.0.0.4", "hub_connect_port": port}
        hub = start_hub({"JupyterHub": {"hub_port": hub_port, **told}})
        assert requests.get(f"http://127.0.0.1:{hub_port}/hub/api", timeout=5).status_code == 200
        browser = hub.browser("ada")
        browser.start_server("ada")
        env = browser.follow("/user/ada/").json()["env"]
        place = f"http://127.0.0.4:{port}"
        assert env["JUPYTERHUB_API_URL"] == f"{place}/hub/api"
        assert hub.default_route() == place
        hub.stop()


def test_urls_set_addresses_ports_and_base_url_at_once(start_hub):
    bind, inner = free_port("127.0.0.2"), free_port("127.0.0.3")
    config = {
        "bind_url": f"http://127.0.0.2:{bind}/class",
        "hub_bind_url": f"http://*:{inner}",
        "hub_connect_url": f"http://127.0.0.3:{inner}/ignored",
    }
    given = {"ip": ABSENT, "port": ABSENT, "hub_port": ABSENT}
    hub = start_hub({"JupyterHub": config | given})
    assert hub.url == f"http://127.0.0.2:{bind}/class/"
    url = f"http://127.0.0.4:{inner}/class/hub/api"
    assert requests.get(url, timeout=5).status_code == 200
    assert hub.default_route() == f"http://127.0.0.3:{inner}"


def test_bind_url_with_https_and_no_certificate_means_tls_before_the_proxy(start_hub):
    port = free_port()
    given = {"ip": ABSENT, "port": ABSENT, "bind_url": f"https://127.0.0.1:{port}"}
    hub = start_hub({"JupyterHub": given}, ready={"url": f"http://127.0.0.1:{port}/"})
    hub.wait_text(f"open        https://127.0.0.1:{port}/")
    login = PlainBrowser(hub.url).login("ada")
    assert all("; Secure" in one for one in login.raw.headers.getlist("Set-Cookie"))


def test_flag_url_sets_the_public_side(start_hub):
    port = free_port("127.0.0.2")
    hub = start_hub(args=(f"--url=http://127.0.0.2:{port}/lab/",))  # over the file's ip and port
    assert hub.url == f"http://127.0.0.2:{port}/lab/"


def test_bind_url_on_a_socket_is_refused_with_the_reason(start_hub):
    hub = start_hub({"JupyterHub": {"hub_bind_url": "http+unix://%2Frun%2Fhub"}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "hub_bind_url" in hub.text and "TCP" in hub.text


def test_base_url_moves_pages_servers_and_api(start_hub):
    hub = start_hub({"JupyterHub": {"base_url": "class/2026"}})
    assert hub.url.endswith("/class/2026/")
    browser = hub.browser("ada")
    browser.start_server("ada")
    page = browser.follow("/user/ada/").json()
    assert page["path"] == "/class/2026/user/ada/"
    assert page["env"]["JUPYTERHUB_BASE_URL"] == "/class/2026/"
    outside = requests.get(hub.url.replace("class/2026/", "other"), allow_redirects=False)
    assert outside.headers["Location"] == "/class/2026/hub/"


# -- TLS -----------------------------------------------------------------------------------------


def test_certificate_makes_everything_https(start_hub, tmp_path):
    key, cert = make_certificate(tmp_path, "127.0.0.1")
    tls = {"ssl_key": str(key), "ssl_cert": str(cert)}
    hub = start_hub({"JupyterHub": tls}, ready={"verify": str(cert)})
    assert hub.url.startswith("https://127.0.0.1:")
    assert f"open        {hub.url}" in hub.text or f"open        {hub.url}hub/login" in hub.text
    browser = hub.browser()
    login = browser.login("ada")
    assert login.status_code == 302
    cookies = login.raw.headers.getlist("Set-Cookie")
    assert cookies and all("; Secure" in cookie for cookie in cookies)
    browser.start_server("ada")
    page = browser.follow("/user/ada/").json()
    assert page["headers"]["X-Forwarded-Proto"] == "https"
    context = ssl.create_default_context(cafile=str(cert))
    sent = "; ".join(f"{c.name}={c.value}" for c in browser.cookies)
    url = hub.url.replace("https", "wss") + "user/ada/ws"
    with connect(url, ssl=context, additional_headers={"Cookie": sent}) as websocket:
        websocket.send("hello")
        assert websocket.recv(timeout=10) == "hello"
    with pytest.raises(requests.exceptions.RequestException):
        requests.get(hub.url.replace("https", "http"), timeout=5)


@pytest.mark.parametrize("given", ["ssl_key", "ssl_cert"])
def test_key_and_certificate_are_needed_together_and_must_exist(start_hub, tmp_path, given):
    key, cert = make_certificate(tmp_path, "127.0.0.1")
    path = {"ssl_key": key, "ssl_cert": cert}[given]
    hub = start_hub({"JupyterHub": {given: str(path)}}, wait=False)
    assert hub.process.wait(20) == 3
    other = "ssl_cert" if given == "ssl_key" else "ssl_key"
    assert f"JupyterHub.{given}: needs {other} as well" in hub.text


# -- other programs before the proxy -------------------------------------------------------------


def test_public_url_is_told_and_makes_cookies_secure(start_hub):
    port = free_port()
    outside = {"port": port, "public_url": "hub.example.org", "base_url": "/lab/"}
    hub = start_hub({"JupyterHub": outside}, ready={"url": f"http://127.0.0.1:{port}/lab/"})
    hub.wait_text("open        https://hub.example.org/lab/")
    browser = PlainBrowser(hub.url)
    login = browser.login("ada", target="https://hub.example.org/lab/hub/token")
    assert login.headers["Location"] == "/lab/hub/token"
    assert all("; Secure" in one for one in login.raw.headers.getlist("Set-Cookie"))
    browser.start_server("ada")
    env = hub.server_process("ada").environ()
    assert env["JUPYTERHUB_PUBLIC_URL"] == "https://hub.example.org/lab/user/ada/"
    assert env["JUPYTERHUB_PUBLIC_HUB_URL"] == "https://hub.example.org/lab/hub/"
    [server] = browser.get("/hub/api/users/ada").json()["servers"].values()
    assert server["full_url"] == "https://hub.example.org/lab/user/ada/"
    progress = "https://hub.example.org/lab/hub/api/users/ada/server/progress"
    assert server["full_progress_url"] == progress


@pytest.mark.parametrize(
    "option, address",
    [("ip", "192.0.2.77"), ("hub_ip", "192.0.2.77"), ("hub_ip", "no-such-host.invalid")],
)
def test_address_that_is_not_this_machines_is_refused_by_its_option(start_hub, option, address):
    hub = start_hub({"JupyterHub": {option: address, "port": free_port()}}, wait=False)
    assert hub.process.wait(60) == 3
    assert f"JupyterHub.{option}: {address} is no address of this machine: " in hub.text


def test_services_reach_a_hub_on_all_addresses_without_the_machines_name(start_hub):
    service = {
        "name": "told",
        "url": f"http://127.0.0.1:{free_port()}",
        "command": [sys.executable, str(FAKE_SERVER)],
    }
    hub = start_hub(
        {
            "JupyterHub": {
                "hub_ip": "0.0.0.0",
                "hub_connect_ip": "hub.somewhere.invalid",
                "services": [service],
            },
        },
        wait=False,
    )
    found = hub.wait_text(r"Service told: pid (\d+)", 60)
    env = psutil.Process(int(found[1])).environ()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/hub/api", env["JUPYTERHUB_API_URL"])
    assert hub.stop() == 0, hub.text


def test_public_url_with_another_path_than_base_url_is_refused(start_hub):
    hub = start_hub({"JupyterHub": {"public_url": "https://x.example.org/lab/"}}, wait=False)
    assert hub.process.wait(20) == 3
    assert "JupyterHub.public_url: must end in base_url" in hub.text


@pytest.mark.parametrize("trusted, seen", [([], "127.0.0.1"), (["127.0.0.0/8"], "203.0.113.9")])
def test_trusted_downstream_ips_decide_whose_word_counts(start_hub, trusted, seen):
    hub = start_hub({"JupyterHub": {"trusted_downstream_ips": trusted}})
    headers = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9", "X-Forwarded-Proto": "https"}
    answer = requests.get(hub.url + "hub/login", headers=headers, timeout=5)
    assert ("; Secure" in answer.headers["Set-Cookie"]) is bool(trusted)
    assert f"/hub/login (@{seen})" in hub.text


@pytest.mark.parametrize("header", ["X-Our-Host", ""])
def test_forwarded_host_header_tells_the_host_people_asked_for(start_hub, header):
    hub = start_hub({"JupyterHub": {"forwarded_host_header": header}})
    browser = hub.browser("ada")
    answer = browser.get(
        "/hub/login?next=http%3A%2F%2Foutside.test%2Fhub%2Ftoken",
        headers={"X-Our-Host": "outside.test"},
    )
    assert answer.headers["Location"] == ("/hub/token" if header else "/hub/spawn")


# -- hosts of users ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subdomains(tmp_path_factory):
    """A hub whose users and services have hosts of their own below hub.test."""
    patch = pytest.MonkeyPatch()
    resolve_to_loopback(patch, "hub.test")
    port = free_port()
    service = {"name": "board", "url": f"http://127.0.0.1:{free_port()}", "api_token": "x" * 32}
    config = {"port": port, "subdomain_host": f"http://hub.test:{port}", "services": [service]}
    hub = HubProcess(tmp_path_factory.mktemp("sub"), {"JupyterHub": config}).wait_ready()
    hub.port = port
    yield hub
    assert hub.stop() == 0, hub.text
    patch.undo()


def test_subdomain_host_gives_each_user_a_host(subdomains):
    hub, port = subdomains, subdomains.port
    assert hub.url == f"http://hub.test:{port}/"
    browser = hub.browser("ada")
    browser.start_server("ada")
    response = browser.follow("/user/ada/lab")
    assert response.url.startswith(f"http://ada.hub.test:{port}/user/ada/lab")
    page = response.json()
    assert page["visitor"]["name"] == "ada"
    env = page["env"]
    assert env["JUPYTERHUB_HOST"] == f"http://hub.test:{port}"
    callback = f"http://ada.hub.test:{port}/user/ada/oauth_callback"
    assert env["JUPYTERHUB_OAUTH_CALLBACK_URL"] == callback
    assert env["JUPYTERHUB_PUBLIC_URL"] == f"http://ada.hub.test:{port}/user/ada/"
    assert "jupyterhub-hub-login" not in page["headers"]["Cookie"]
    assert "jupyterhub-session-id" in page["headers"]["Cookie"]
    assert "/ada.hub.test/user/ada" in hub.routes()
    home = browser.get("/hub/home").text
    assert f'href="http://ada.hub.test:{port}/user/ada/"' in home


def test_other_users_host_shows_none_of_the_hubs_pages(subdomains):
    url = f"http://ada.hub.test:{subdomains.port}/hub/login?x=1"
    answer = requests.get(url, allow_redirects=False, timeout=5)
    assert answer.headers["Location"] == f"http://hub.test:{subdomains.port}/hub/login?x=1"
    assert requests.post(url, data={"username": "ada"}, timeout=5).status_code == 404


def test_cookies_of_a_hub_with_subdomains_have_the_right_domains(subdomains):
    login = subdomains.browser().login("bob")
    cookies = {one.partition("=")[0]: one for one in login.raw.headers.getlist("Set-Cookie")}
    assert "Domain" not in cookies["jupyterhub-hub-login"]
    assert "Domain=hub.test" in cookies["jupyterhub-session-id"]


def test_way_back_to_a_users_host_stays_on_our_domain(subdomains):
    browser = subdomains.browser("carla")
    for target, expected in (
        (f"http://carla.hub.test:{subdomains.port}/user/carla/x?y=1", "/user/carla/x?y=1"),
        ("http://evilhub.test/user/carla/", "/hub/spawn"),
        ("http://hub.test.evil.org/", "/hub/spawn"),
    ):
        answer = browser.get("/hub/login", params={"next": target})
        assert answer.headers["Location"] == expected


def test_odd_names_get_hosts_that_nobody_else_has(subdomains):
    browser = subdomains.browser("Zoë_ü")
    browser.start_server(requests.utils.quote("zoë_ü"))
    response = browser.follow("/user/" + requests.utils.quote("zoë_ü") + "/")
    host = response.url.split("/")[2]
    assert host.startswith("u-zo--") and response.json()["visitor"]["name"] == "zoë_ü"


def test_service_has_a_host_of_its_own(subdomains):
    assert "/board--service.hub.test/services/board" in subdomains.routes()
    page = subdomains.browser("dora").get("/hub/home").text
    assert f"http://board--service.hub.test:{subdomains.port}/services/board/" in page


def test_subdomain_hook_names_the_hosts(start_hub, monkeypatch):
    resolve_to_loopback(monkeypatch, "hub.test")
    port = free_port()
    service = {"name": "board", "url": "http://127.0.0.1:9", "api_token": "x" * 32}
    config = {"port": port, "subdomain_host": f"http://hub.test:{port}", "services": [service]}
    hub = start_hub({"JupyterHub": {**config, "subdomain_hook": "legacy"}})
    assert "/services.hub.test/services/board" in hub.routes()


def test_api_takes_a_token_on_every_host(subdomains):
    browser = subdomains.browser("eve")
    fields = {"note": "x", "expires_in": "", "scopes": ""}
    page = browser.submit("/hub/token", fields).text
    token = page.split('id="token-result"')[1].split('value="')[1].split('"')[0]
    for host in ("hub.test", "eve.hub.test"):
        answer = requests.get(
            f"http://{host}:{subdomains.port}/hub/api/user",
            headers={"Authorization": f"token {token}"},
            timeout=5,
        )
        assert answer.json()["name"] == "eve"
