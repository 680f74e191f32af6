"""Options beside the reference's 58 have JupyterHub's defaults, but for those recorded here."""

import pytest

from minihub import cli, config_render
from minihub.config_values import static_default

#: What JupyterHub 6.1.1 declares, or says at once where it works a default out.
JUPYTERHUB = {
    "JupyterHub.active_user_window": 1800,
    "JupyterHub.activity_resolution": 30,
    "JupyterHub.allow_existing_invalid_named_servers": "allow-start",
    "JupyterHub.api_page_default_limit": 50,
    "JupyterHub.api_page_max_limit": 200,
    "JupyterHub.authenticate_prometheus": True,
    "JupyterHub.bind_url": "http://:8000",
    "JupyterHub.cookie_host_prefix_enabled": False,
    "JupyterHub.custom_scopes": {},
    "JupyterHub.default_server_name": "",
    "JupyterHub.default_url": "",
    "JupyterHub.extra_user_scopes": set(),
    "JupyterHub.forwarded_host_header": "",
    "JupyterHub.hub_bind_url": "",
    "JupyterHub.hub_connect_url": "",
    "JupyterHub.hub_routespec": "/",
    "JupyterHub.implicit_spawn_seconds": 0,
    "JupyterHub.init_spawners_timeout": 10,
    "JupyterHub.load_roles": [],
    "JupyterHub.named_server_limit_per_user": 0,
    "JupyterHub.oauth_require_pkce": False,
    "JupyterHub.oauth_token_expires_in": 0,
    "JupyterHub.public_url": "",
    "JupyterHub.redirect_to_server": True,
    "JupyterHub.shutdown_on_logout": False,
    "JupyterHub.subdomain_hook": "idna",
    "JupyterHub.template_vars": {},
    "JupyterHub.token_expires_in_max_seconds": 0,
    "JupyterHub.trusted_downstream_ips": [],
    "JupyterHub.upgrade_db": False,
    "JupyterHub.use_legacy_stopped_server_status_code": False,
    "JupyterHub.user_redirect_hook": None,
    "Authenticator.admin_users": set(),
    "Authenticator.allow_all": False,
    "Authenticator.allow_existing_users": False,
    "Authenticator.allowed_users": set(),
    "Authenticator.any_allow_config": False,
    "Authenticator.auth_refresh_age": 300,
    "Authenticator.auto_login": False,
    "Authenticator.auto_login_oauth2_authorize": False,
    "Authenticator.blocked_users": set(),
    "Authenticator.delete_invalid_users": False,
    "Authenticator.enable_auth_state": False,
    "Authenticator.manage_groups": False,
    "Authenticator.manage_roles": False,
    "Authenticator.otp_prompt": "OTP:",
    "Authenticator.post_auth_hook": None,
    "Authenticator.refresh_pre_spawn": False,
    "Authenticator.request_otp": False,
    "Authenticator.username_map": {},
    "Authenticator.username_pattern": "",
    "Authenticator.whitelist": set(),
    "LocalAuthenticator.add_user_cmd": [],
    "LocalAuthenticator.allowed_groups": set(),
    "LocalAuthenticator.create_system_users": False,
    "LocalAuthenticator.group_whitelist": set(),
    "LocalAuthenticator.uids": {},
    "PAMAuthenticator.admin_groups": set(),
    "PAMAuthenticator.check_account": True,
    "PAMAuthenticator.encoding": "utf8",
    "PAMAuthenticator.open_sessions": False,
    "PAMAuthenticator.pam_normalize_username": False,
    "PAMAuthenticator.service": "login",
    "DummyAuthenticator.password": "",
    "SharedPasswordAuthenticator.admin_password": None,
    "SharedPasswordAuthenticator.password_groups": {},
    "SharedPasswordAuthenticator.user_password": None,
    "CryptKeeper.keys": [],
    "CryptKeeper.n_threads": 2,
    "Spawner.apply_user_options": None,
    "Spawner.args": [],
    "Spawner.auth_state_hook": None,
    "Spawner.cmd": ["jupyterhub-singleuser"],
    "Spawner.consecutive_failure_limit": 0,
    "Spawner.cpu_guarantee": None,
    "Spawner.cpu_limit": None,
    "Spawner.debug": False,
    "Spawner.default_url": "",
    "Spawner.disable_user_config": False,
    "Spawner.env_keep": ["JUPYTERHUB_SINGLEUSER_APP"],
    "Spawner.environment": {},
    "Spawner.group_overrides": {},
    "Spawner.http_timeout": 30,
    "Spawner.hub_connect_url": None,
    "Spawner.ip": "127.0.0.1",
    "Spawner.mem_guarantee": None,
    "Spawner.mem_limit": None,
    "Spawner.notebook_dir": "",
    "Spawner.oauth_client_allowed_scopes": [],
    "Spawner.options_form": "",
    "Spawner.options_from_form": "",
    "Spawner.poll_interval": 30,
    "Spawner.poll_jitter": 0.1,
    "Spawner.port": 0,
    "Spawner.post_stop_hook": None,
    "Spawner.pre_spawn_hook": None,
    "Spawner.progress_ready_hook": None,
    "Spawner.server_token_scopes": [],
    "Spawner.start_timeout": 60,
    "LocalProcessSpawner.interrupt_timeout": 30,
    "LocalProcessSpawner.kill_timeout": 5,
    "LocalProcessSpawner.popen_kwargs": {},
    "LocalProcessSpawner.shell_cmd": [],
    "LocalProcessSpawner.term_timeout": 30,
    "SimpleLocalProcessSpawner.home_dir_template": "/tmp/{username}",
    "Proxy.extra_routes": {},
    "Proxy.should_start": True,
    "ConfigurableHTTPProxy.api_url": "",
    "ConfigurableHTTPProxy.auth_token": "",
    "ConfigurableHTTPProxy.check_running_interval": 5,
    "ConfigurableHTTPProxy.command": ["configurable-http-proxy"],
    "ConfigurableHTTPProxy.command_umask": 7,
    "ConfigurableHTTPProxy.concurrency": 10,
    "ConfigurableHTTPProxy.debug": False,
    "ConfigurableHTTPProxy.log_level": "info",
    "ConfigurableHTTPProxy.pid_file": "jupyterhub-proxy.pid",
}

#: Our default where it is another; docs/decisions/0268 says why.
OTHER = {
    "JupyterHub.bind_url": "",  # ip and port say the same
    "JupyterHub.upgrade_db": True,
    "CryptKeeper.n_threads": 0,  # as many as there are processors, too
    "Spawner.options_from_form": "passthrough",  # the name of what an empty one does
    "SimpleLocalProcessSpawner.home_dir_template": "",
    "ConfigurableHTTPProxy.api_url": "http://127.0.0.1:8001",  # what it comes to
    "ConfigurableHTTPProxy.check_running_interval": 30,
    "ConfigurableHTTPProxy.command_umask": None,
    "ConfigurableHTTPProxy.pid_file": "",
}

OURS = {
    f"{cls.__name__}.{name}": trait
    for cls, traits in config_render.groups(cli._classes())
    for name, trait in traits.items()
}


@pytest.mark.parametrize("name", JUPYTERHUB)
def test_default_is_jupyterhubs_or_a_recorded_other_one(name):
    assert static_default(OURS[name]) == OTHER.get(name, JUPYTERHUB[name])
    assert name not in OTHER or OTHER[name] != JUPYTERHUB[name]
