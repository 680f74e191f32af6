"""What JupyterHub has and we have not: options, methods, packages of classes; each with a reason.

Rules of this file: data, and look-ups in it. A name may stand here although we declare the option
by now; the declaration wins.

Sources: the option reference of JupyterHub 6.1.
"""

from __future__ import annotations

from collections.abc import Iterator

_NO_INTERNAL_TLS = "connections between hub, proxy and servers on one machine are not encrypted"
_NO_TORNADO = "the hub does not run on tornado, so it cannot host tornado handlers"

#: Options that will not come, and why.
_REASONS = {
    "JupyterHub.external_ssl_authorities": _NO_INTERNAL_TLS,
    "JupyterHub.extra_handlers": _NO_TORNADO,
    "JupyterHub.generate_certs": _NO_INTERNAL_TLS,
    "JupyterHub.internal_certs_location": _NO_INTERNAL_TLS,
    "JupyterHub.internal_ssl": _NO_INTERNAL_TLS,
    "JupyterHub.recreate_internal_certs": _NO_INTERNAL_TLS,
    "JupyterHub.trusted_alt_names": _NO_INTERNAL_TLS,
    "Spawner.ssl_alt_names": _NO_INTERNAL_TLS,
    "Spawner.ssl_alt_names_include_local": _NO_INTERNAL_TLS,
}

_NAMES = {
    "JupyterHub": """
        active_user_window activity_resolution allow_existing_invalid_named_servers
        api_page_default_limit api_page_max_limit authenticate_prometheus bind_url
        cookie_host_prefix_enabled custom_scopes default_server_name default_url
        extra_user_scopes forwarded_host_header hub_bind_url hub_connect_url hub_routespec
        hub_socket_mode implicit_spawn_seconds init_spawners_timeout load_roles
        named_server_limit_per_user oauth_require_pkce oauth_token_expires_in public_url
        redirect_to_server shutdown_on_logout spawn_throttle_retry_range subdomain_hook
        template_vars token_expires_in_max_seconds trusted_downstream_ips upgrade_db
        use_legacy_stopped_server_status_code user_redirect_hook
    """,
    "Authenticator": """
        allow_all allow_existing_users allowed_users any_allow_config auth_refresh_age
        auth_refresh_strict auto_login auto_login_oauth2_authorize blacklist blocked_users
        delete_invalid_users enable_auth_state manage_groups manage_roles otp_prompt
        post_auth_hook reconcile_auth_state_hook refresh_pre_spawn refresh_pre_stop request_otp
        reset_managed_roles_on_startup username_map username_pattern whitelist
    """,
    "LocalAuthenticator": """
        add_user_cmd admin_groups allowed_groups create_system_users group_whitelist uids
    """,
    "PAMAuthenticator": """
        admin_groups check_account encoding executor_threads open_sessions
        pam_normalize_username service
    """,
    "DummyAuthenticator": "password",
    "SharedPasswordAuthenticator": "admin_password password_groups user_password",
    "Spawner": """
        apply_user_options args auth_state_hook cmd consecutive_failure_limit cpu_guarantee
        cpu_limit debug default_url disable_user_config env_keep environment group_overrides
        http_timeout hub_connect_url ip mem_guarantee mem_limit notebook_dir
        oauth_client_allowed_scopes oauth_roles options_form options_from_form
        options_from_query poll_interval poll_jitter port post_stop_hook pre_spawn_hook
        progress_ready_hook server_token_scopes start_timeout
    """,
    "LocalProcessSpawner": "interrupt_timeout kill_timeout popen_kwargs shell_cmd term_timeout",
    "SimpleLocalProcessSpawner": "home_dir_template",
    "Proxy": "extra_routes should_start",
    "ConfigurableHTTPProxy": """
        api_url auth_token check_running_interval command command_umask concurrency debug
        log_level pid_file
    """,
    "CryptKeeper": "keys n_threads",
}


def why_not(section: str, option: str) -> str:
    """Return why JupyterHub's option is not there, or an empty text if it is none of its own."""
    reason = _REASONS.get(f"{section}.{option}")
    if reason:
        return f"an option of JupyterHub that minihub does not have: {reason}"
    if option in _NAMES.get(section, "").split():
        return "an option of JupyterHub that minihub does not have"
    return ""


#: Methods that JupyterHub calls and this hub does not, by the base class they belong to, and what
#: does their work here.
_METHODS = {
    "Authenticator": {
        "get_handlers": _NO_TORNADO,
        "load_managed_roles": "the roles are those that authenticate() returns",
        "run_post_auth_hook": "use Authenticator.post_auth_hook, or get_authenticated_user()",
    },
    "Spawner": {
        "create_certs": _NO_INTERNAL_TLS,
        "get_url": "the URL is what start() returns",
        "move_certs": _NO_INTERNAL_TLS,
        "run_auth_state_hook": "use Spawner.auth_state_hook",
        "run_post_stop_hook": "use Spawner.post_stop_hook",
        "run_pre_spawn_hook": "use Spawner.pre_spawn_hook",
    },
    "LocalProcessSpawner": {
        "make_preexec_fn": "use LocalProcessSpawner.popen_kwargs, or shell_cmd",
    },
    "Proxy": dict.fromkeys(
        """
        add_all_services add_all_users add_hub_route add_service add_user check_routes
        delete_service delete_user restore_routes
        """.split(),
        "the hub itself decides on routes, and calls add_route() and delete_route()",
    ),
    "ConfigurableHTTPProxy": {
        "api_request": "override add_route(), delete_route() and get_all_routes()",
        "check_running": "use ConfigurableHTTPProxy.check_running_interval",
    },
}


def uncalled_methods(cls: type) -> Iterator[tuple[type, str, str]]:
    """Yield ``(class, method, why)`` for what a class of others defines and this hub never calls.

    JupyterHub would; who wrote it waits for that.
    """
    table = {
        name: why
        for base in cls.__mro__
        if base.__module__.partition(".")[0] == "minihub"
        for name, why in _METHODS.get(base.__name__, {}).items()
    }
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] != "minihub":
            for name in sorted(set(vars(base)) & set(table)):
                yield base, name, table[name]


#: Packages of classes for JupyterHub, and the short names by which it finds their classes.
_PACKAGES = {
    "batchspawner": "",
    "dockerspawner": "docker docker-swarm docker-system-user",
    "firstuseauthenticator": "firstuse",
    "jhub_remote_user_authenticator": "remote-user local-remote-user",
    "jhubauthenticators": "",
    "jupyterhub_traefik_proxy": "traefik_file traefik_redis",
    "jwtauthenticator": "",
    "kubespawner": "kubespawner",
    "ldapauthenticator": "ldap",
    "ltiauthenticator": "lti11 lti13",
    "marathonspawner": "",
    "nativeauthenticator": "native nativeauthenticator",
    "oauthenticator": """
        auth0 azuread bitbucket cilogon generic-oauth generic github gitlab globus google
        local-auth0 local-azuread local-generic local-github local-gitlab local-google mediawiki
        okpy openshift
    """,
    "ssoauthenticator": "",
    "sudospawner": "sudospawner",
    "swarmspawner": "",
    "systemdspawner": "systemd systemdspawner",
    "tmpauthenticator": "tmp tmpauthenticator",
    "wrapspawner": "",
    "yarnspawner": "",
}


def why_not_package(name: str) -> str:
    """Return why classes of a package for JupyterHub are refused; empty for other packages."""
    if name not in _PACKAGES:
        return ""
    return "a package for JupyterHub; minihub does not run its classes yet"


def why_not_class_name(name: str) -> str:
    """Return why a class with this short or dotted name is refused; empty for other names."""
    top, dot, _ = name.partition(".")
    for package, short_names in _PACKAGES.items():
        if (top == package and dot) or name.lower() in short_names.split():
            return f'"{name}" is a class of {package}, {why_not_package(package)}'
    return ""
