"""Every option has a test that starts a real hub with another value than the default.

``PROOFS`` maps ``Class.option`` to the test that sees the effect from outside; the reference of the
options (``docs/options.md``) names it. The table is read as a literal, so it holds texts only.
After a change: ``python -m minihub options --markdown > docs/options.md``.
"""

import ast
from pathlib import Path

import pytest

from minihub import cli, config_render

ROOT = Path(__file__).resolve().parents[2]

PROOFS = {
    # -- a class, and guessing ---------------------------------------------------------------
    "ClassroomAuthenticator.signup": "tests/live/test_options_classroom.py"
    "::test_signup_decides_how_people_join",
    "ClassroomAuthenticator.minimum_password_length": "tests/live/test_options_classroom.py"
    "::test_minimum_password_length_counts_wherever_passwords_are_set",
    "ClassroomAuthenticator.code_lifetime": "tests/live/test_options_classroom.py"
    "::test_code_uses_lifetime_and_code_at_start_make_the_code_on_the_start_screen",
    "ClassroomAuthenticator.code_uses": "tests/live/test_options_classroom.py"
    "::test_code_uses_lifetime_and_code_at_start_make_the_code_on_the_start_screen",
    "ClassroomAuthenticator.code_at_start": "tests/live/test_options_classroom.py"
    "::test_code_uses_lifetime_and_code_at_start_make_the_code_on_the_start_screen",
    "ClassroomAuthenticator.one_time_code_lifetime": "tests/live/test_options_classroom.py"
    "::test_one_time_code_lifetime",
    "ClassroomAuthenticator.max_waiting": "tests/live/test_options_classroom.py"
    "::test_max_waiting_bounds_who_waits",
    "Authenticator.login_failures_per_client": "tests/live/test_options_classroom.py"
    "::test_login_failures_per_client",
    "Authenticator.login_failures_per_name": "tests/live/test_options_classroom.py"
    "::test_login_failures_per_name_count_whatever_the_address",
    "Authenticator.login_failures_per_address": "tests/live/test_options_classroom.py"
    "::test_login_failures_per_address",
    "Authenticator.login_failures_overall": "tests/live/test_options_classroom.py"
    "::test_login_failures_overall",
    "Authenticator.login_failure_window": "tests/live/test_options_classroom.py"
    "::test_login_failure_window_is_how_long_a_failure_counts",
    # -- network -----------------------------------------------------------------------------
    "JupyterHub.ip": "tests/live/test_options_network.py"
    "::test_ip_and_port_are_where_people_reach_the_hub",
    "JupyterHub.port": "tests/live/test_options_network.py"
    "::test_ip_and_port_are_where_people_reach_the_hub",
    "JupyterHub.base_url": "tests/live/test_options_network.py"
    "::test_base_url_moves_pages_servers_and_api",
    "JupyterHub.bind_url": "tests/live/test_options_network.py"
    "::test_urls_set_addresses_ports_and_base_url_at_once",
    "JupyterHub.hub_ip": "tests/live/test_options_network.py"
    "::test_hub_ip_and_hub_port_are_where_servers_reach_the_hub",
    "JupyterHub.hub_port": "tests/live/test_options_network.py"
    "::test_hub_ip_and_hub_port_are_where_servers_reach_the_hub",
    "JupyterHub.hub_bind_url": "tests/live/test_options_network.py"
    "::test_urls_set_addresses_ports_and_base_url_at_once",
    "JupyterHub.hub_connect_ip": "tests/live/test_options_network.py"
    "::test_hub_connect_ip_and_port_are_told_and_not_bound",
    "JupyterHub.hub_connect_port": "tests/live/test_options_network.py"
    "::test_hub_connect_ip_and_port_are_told_and_not_bound",
    "JupyterHub.hub_connect_url": "tests/live/test_options_network.py"
    "::test_urls_set_addresses_ports_and_base_url_at_once",
    "JupyterHub.public_url": "tests/live/test_options_network.py"
    "::test_public_url_is_told_and_makes_cookies_secure",
    "JupyterHub.subdomain_host": "tests/live/test_options_network.py"
    "::test_subdomain_host_gives_each_user_a_host",
    "JupyterHub.subdomain_hook": "tests/live/test_options_network.py"
    "::test_subdomain_hook_names_the_hosts",
    "JupyterHub.ssl_cert": "tests/live/test_options_network.py"
    "::test_certificate_makes_everything_https",
    "JupyterHub.ssl_key": "tests/live/test_options_network.py"
    "::test_certificate_makes_everything_https",
    "JupyterHub.allowed_hosts": "tests/security/test_hosts.py"
    "::test_allowed_hosts_are_the_only_names",
    "JupyterHub.trusted_downstream_ips": "tests/live/test_options_network.py"
    "::test_trusted_downstream_ips_decide_whose_word_counts",
    "JupyterHub.forwarded_host_header": "tests/live/test_options_network.py"
    "::test_forwarded_host_header_tells_the_host_people_asked_for",
    "JupyterHub.default_url": "tests/live/test_options_landing.py"
    "::test_default_url_is_where_people_go_who_ask_for_nothing",
    "JupyterHub.default_server_name": "tests/live/test_options_landing.py"
    "::test_default_server_name_is_meant_where_none_is_named",
    "JupyterHub.redirect_to_server": "tests/live/test_options_landing.py"
    "::test_redirect_to_server_decides_where_a_login_leads",
    "JupyterHub.user_redirect_hook": "tests/live/test_options_landing.py"
    "::test_user_redirect_hook_says_where_shared_links_lead",
    "JupyterHub.implicit_spawn_seconds": "tests/live/test_options_landing.py"
    "::test_implicit_spawn_seconds_is_in_the_page",
    "JupyterHub.use_legacy_stopped_server_status_code": "tests/live/test_options_landing.py"
    "::test_legacy_status_of_a_server_that_does_not_run",
    # -- proxy -------------------------------------------------------------------------------
    "JupyterHub.proxy_class": "tests/live/test_options_proxy.py"
    "::test_proxy_class_can_be_the_node_program",
    "JupyterHub.proxy_check_interval": "tests/live/test_options_proxy.py"
    "::test_proxy_that_hangs_is_replaced",
    "JupyterHub.proxy_cmd": "tests/live/test_options_proxy.py"
    "::test_deprecated_options_work_and_name_their_successors",
    "JupyterHub.proxy_auth_token": "tests/live/test_options_proxy.py"
    "::test_deprecated_options_work_and_name_their_successors",
    "JupyterHub.proxy_api_ip": "tests/live/test_options_proxy.py"
    "::test_proxy_api_ip_alone_takes_the_port_after_the_public_one",
    "JupyterHub.proxy_api_port": "tests/live/test_options_proxy.py"
    "::test_deprecated_options_work_and_name_their_successors",
    "JupyterHub.debug_proxy": "tests/live/test_options_proxy.py"
    "::test_deprecated_options_work_and_name_their_successors",
    "JupyterHub.hub_routespec": "tests/live/test_options_proxy.py"
    "::test_extra_routes_and_hub_routespec_share_the_site",
    "Proxy.should_start": "tests/live/test_options_proxy.py"
    "::test_should_start_false_uses_a_proxy_that_runs_elsewhere",
    "Proxy.extra_routes": "tests/live/test_options_proxy.py"
    "::test_extra_routes_and_hub_routespec_share_the_site",
    "ConfigurableHTTPProxy.api_url": "tests/live/test_options_proxy.py::test_proxys_own_options",
    "ConfigurableHTTPProxy.auth_token": "tests/live/test_options_proxy.py::test_proxys_own_options",
    "ConfigurableHTTPProxy.check_running_interval": "tests/live/test_options_proxy.py"
    "::test_proxys_own_options",
    "ConfigurableHTTPProxy.command": "tests/live/test_options_proxy.py"
    "::test_proxy_class_by_dotted_name_with_coroutines",
    "ConfigurableHTTPProxy.command_umask": "tests/live/test_options_proxy.py"
    "::test_proxys_own_options",
    "ConfigurableHTTPProxy.concurrency": "tests/live/test_options_proxy.py"
    "::test_concurrency_bounds_the_requests_to_the_proxy",
    "ConfigurableHTTPProxy.debug": "tests/live/test_options_proxy.py::test_proxys_own_options",
    "ConfigurableHTTPProxy.log_level": "tests/live/test_options_proxy.py"
    "::test_log_level_of_the_proxy",
    "ConfigurableHTTPProxy.pid_file": "tests/live/test_options_proxy.py::test_proxys_own_options",
    "ThreadedProxy.command": "tests/live/test_options_proxy.py::test_proxys_own_options",
    # -- lifecycle ---------------------------------------------------------------------------
    "JupyterHub.answer_yes": "tests/live/test_options_lifecycle.py"
    "::test_answer_yes_overwrites_without_a_question",
    "JupyterHub.cleanup_proxy": "tests/live/test_options_lifecycle.py"
    "::test_cleanup_servers_and_cleanup_proxy_say_what_ends_with_the_hub",
    "JupyterHub.cleanup_servers": "tests/live/test_options_lifecycle.py"
    "::test_cleanup_servers_and_cleanup_proxy_say_what_ends_with_the_hub",
    "JupyterHub.config_file": "tests/live/test_options_lifecycle.py"
    "::test_config_file_is_the_one_that_is_named",
    "JupyterHub.confirm_no_ssl": "tests/live/test_options_lifecycle.py"
    "::test_confirm_no_ssl_is_accepted_and_does_nothing",
    "JupyterHub.generate_config": "tests/live/test_options_lifecycle.py"
    "::test_generate_config_writes_a_file_that_the_hub_takes",
    "JupyterHub.pid_file": "tests/live/test_options_lifecycle.py"
    "::test_pid_file_holds_the_hub_while_it_runs",
    "JupyterHub.init_spawners_timeout": "tests/live/test_options_lifecycle.py"
    "::test_start_waits_only_so_long_for_the_servers_of_the_last_hub",
    "JupyterHub.reset_db": "tests/live/test_options_lifecycle.py"
    "::test_reset_db_deletes_everything_and_stops_what_ran",
    "JupyterHub.state_dir": "tests/live/test_options_lifecycle.py"
    "::test_state_dir_holds_everything_of_the_hubs_own",
    "JupyterHub.shutdown_on_logout": "tests/live/test_options_landing.py"
    "::test_shutdown_on_logout_stops_the_users_servers",
    # -- limits ------------------------------------------------------------------------------
    "JupyterHub.active_server_limit": "tests/live/test_options_limits.py"
    "::test_active_server_limit_is_exact_under_simultaneous_requests",
    "JupyterHub.queue_spawns": "tests/live/test_starting.py"
    "::test_starts_beyond_the_limits_wait_in_line",
    "JupyterHub.concurrent_spawn_limit": "tests/live/test_options_limits.py"
    "::test_concurrent_spawn_limit_refuses_with_advice_and_counts_only_starting_ones",
    "JupyterHub.spawn_throttle_retry_range": "tests/live/test_options_limits.py"
    "::test_concurrent_spawn_limit_refuses_with_advice_and_counts_only_starting_ones",
    "JupyterHub.allow_named_servers": "tests/live/test_options_limits.py"
    "::test_named_servers_are_refused_unless_allowed_and_limited_if_asked",
    "Spawner.mem_limit": "tests/live/test_options_limits.py"
    "::test_mem_limit_warns_and_ends_the_largest_process_then_the_server",
    "Spawner.mem_guarantee": "tests/live/test_options_limits.py"
    "::test_mem_guarantee_refuses_what_cannot_be_kept",
    "Spawner.cpu_limit": "tests/live/test_options_limits.py"
    "::test_cpu_limit_binds_to_processors_and_makes_nicer",
    "Spawner.cpu_guarantee": "tests/live/test_options_limits.py"
    "::test_cpu_limit_binds_to_processors_and_makes_nicer",
    # -- tokens and cookies ------------------------------------------------------------------
    "JupyterHub.api_tokens": "tests/live/test_options_tokens.py"
    "::test_api_tokens_make_the_user_and_work_at_once",
    "JupyterHub.service_tokens": "tests/live/test_options_tokens.py"
    "::test_service_tokens_have_the_rights_of_their_service",
    "JupyterHub.trust_user_provided_tokens": "tests/live/test_options_tokens.py"
    "::test_trusted_tokens_are_cheap_to_check",
    "JupyterHub.cookie_host_prefix_enabled": "tests/live/test_options_landing.py"
    "::test_cookie_host_prefix_keeps_users_hosts_from_setting_cookies",
    "JupyterHub.cookie_max_age_days": "tests/live/test_options_tokens.py"
    "::test_cookie_max_age_days_ends_logins_in_browser_and_hub",
    "JupyterHub.cookie_secret": "tests/live/test_options_tokens.py"
    "::test_cookie_secret_signs_the_cookies_and_makes_no_file",
    "JupyterHub.cookie_secret_file": "tests/live/test_options_tokens.py"
    "::test_cookie_secret_file_is_made_for_its_owner_and_kept",
    "JupyterHub.oauth_require_pkce": "tests/live/test_options_landing.py"
    "::test_oauth_require_pkce_refuses_who_offers_none",
    "JupyterHub.oauth_token_expires_in": "tests/live/test_options_landing.py"
    "::test_oauth_token_expires_in_is_told_and_kept",
    "JupyterHub.token_expires_in_max_seconds": "tests/live/test_options_landing.py"
    "::test_token_expires_in_max_seconds_bounds_new_tokens",
    # -- database ----------------------------------------------------------------------------
    "JupyterHub.db_url": "tests/live/test_options_database.py::test_hub_lives_on_a_database_server",
    "JupyterHub.upgrade_db": "tests/live/test_options_database.py"
    "::test_older_database_is_left_alone_without_upgrade_db",
    "JupyterHub.db_kwargs": "tests/live/test_options_database.py"
    "::test_connect_args_timeout_bounds_the_wait_for_a_locked_file",
    "JupyterHub.debug_db": "tests/live/test_options_database.py"
    "::test_debug_db_logs_every_statement_and_no_value",
    # -- people ------------------------------------------------------------------------------
    "JupyterHub.admin_users": "tests/live/test_options_people.py"
    "::test_admin_users_of_the_hub_count_while_the_authenticator_has_none",
    "JupyterHub.admin_access": "tests/live/test_options_people.py"
    "::test_admin_access_decides_what_admins_may_enter",
    "JupyterHub.load_groups": "tests/live/test_options_people.py"
    "::test_load_groups_adds_and_never_removes",
    "JupyterHub.extra_user_scopes": "tests/live/test_options_people.py"
    "::test_extra_user_scopes_are_everybodys",
    "JupyterHub.load_roles": "tests/live/test_api_roles.py"
    "::test_load_roles_are_the_whole_truth_at_each_start",
    "JupyterHub.custom_scopes": "tests/live/test_api_roles.py"
    "::test_custom_scopes_are_held_and_shown_like_others",
    "JupyterHub.named_server_limit_per_user": "tests/live/test_api_servers.py"
    "::test_named_servers_have_a_limit",
    "JupyterHub.allow_existing_invalid_named_servers": "tests/live/test_api_servers.py"
    "::test_allow_existing_invalid_named_servers_decides_what_becomes_of_old_names",
    "Spawner.progress_ready_hook": "tests/live/test_api_servers.py"
    "::test_one_server_too_many_is_refused_and_a_hook_changes_the_last_event",
    "JupyterHub.authenticator_class": "tests/live/test_options_people.py"
    "::test_classes_by_dotted_and_short_names",
    "JupyterHub.spawner_class": "tests/live/test_options_people.py"
    "::test_classes_of_the_configuration_file_are_used",
    # -- services ----------------------------------------------------------------------------
    "JupyterHub.services": "tests/live/test_options_services.py"
    "::test_managed_service_is_started_with_its_environment_and_directory",
    "JupyterHub.service_check_interval": "tests/live/test_options_services.py"
    "::test_service_check_interval_names_a_dead_service",
    # -- activity ----------------------------------------------------------------------------
    "JupyterHub.cull": "tests/live/test_culling.py::test_hub_culls_servers_and_users_by_itself",
    "JupyterHub.last_activity_interval": "tests/live/test_options_landing.py"
    "::test_activity_that_the_proxy_saw_is_collected",
    "JupyterHub.activity_resolution": "tests/live/test_options_landing.py"
    "::test_small_steps_of_activity_are_not_written",
    # -- logging -----------------------------------------------------------------------------
    "JupyterHub.log_level": "tests/live/test_options_logging.py"
    "::test_log_level_by_name_or_number_in_yaml",
    "JupyterHub.log_format": "tests/live/test_options_logging.py"
    "::test_log_format_and_datefmt_shape_the_lines",
    "JupyterHub.log_datefmt": "tests/live/test_options_logging.py"
    "::test_log_format_and_datefmt_shape_the_lines",
    "JupyterHub.extra_log_file": "tests/live/test_options_logging.py"
    "::test_extra_log_file_gets_the_same_lines",
    "JupyterHub.extra_log_handlers": "tests/live/test_options_logging.py"
    "::test_extra_log_handlers_take_any_handler",
    # -- statsd ------------------------------------------------------------------------------
    "JupyterHub.statsd_host": "tests/live/test_options_metrics.py"
    "::test_statsd_hears_a_day_at_the_hub",
    "JupyterHub.statsd_port": "tests/live/test_options_metrics.py"
    "::test_statsd_hears_a_day_at_the_hub",
    "JupyterHub.statsd_prefix": "tests/live/test_options_metrics.py"
    "::test_statsd_hears_a_day_at_the_hub",
    "JupyterHub.active_user_window": "tests/live/test_options_metrics.py"
    "::test_active_user_window_decides_who_is_active",
    "JupyterHub.api_page_default_limit": "tests/live/test_options_landing.py"
    "::test_pages_of_lists_are_as_long_as_they_are_told",
    "JupyterHub.api_page_max_limit": "tests/live/test_options_landing.py"
    "::test_pages_of_lists_are_as_long_as_they_are_told",
    "JupyterHub.authenticate_prometheus": "tests/live/test_options_metrics.py"
    "::test_authenticate_prometheus_false_shows_metrics_to_everybody",
    # -- pages -------------------------------------------------------------------------------
    "JupyterHub.template_paths": "tests/live/test_options_pages.py"
    "::test_template_paths_override_one_template_and_extend_the_original",
    "JupyterHub.template_vars": "tests/live/test_options_pages.py"
    "::test_template_vars_reach_every_page_and_functions_are_given_the_user",
    "JupyterHub.jinja_environment_options": "tests/live/test_options_pages.py"
    "::test_jinja_environment_options_are_added_to_ours",
    "JupyterHub.logo_file": "tests/live/test_options_pages.py::test_logo_file_replaces_the_logo",
    "JupyterHub.data_files_path": "tests/live/test_options_pages.py"
    "::test_data_files_path_may_hold_only_some_files",
    "JupyterHub.tornado_settings": "tests/live/test_options_pages.py"
    "::test_headers_are_added_and_may_replace_the_policy",
    # -- servers -----------------------------------------------------------------------------
    "Spawner.cmd": "tests/live/test_options_spawner.py"
    "::test_cmd_may_be_one_word_and_port_a_fixed_one",
    "Spawner.args": "tests/live/test_options_spawner.py::test_args_follow_the_command",
    "Spawner.ip": "tests/live/test_options_spawner.py::test_ip_is_where_the_server_listens",
    "Spawner.port": "tests/live/test_options_spawner.py"
    "::test_cmd_may_be_one_word_and_port_a_fixed_one",
    "Spawner.debug": "tests/live/test_options_spawner.py"
    "::test_options_reach_the_server_by_its_environment",
    "Spawner.default_url": "tests/live/test_options_spawner.py"
    "::test_options_reach_the_server_by_its_environment",
    "Spawner.notebook_dir": "tests/live/test_options_spawner.py"
    "::test_options_reach_the_server_by_its_environment",
    "Spawner.disable_user_config": "tests/live/test_options_spawner.py"
    "::test_options_reach_the_server_by_its_environment",
    "Spawner.environment": "tests/live/test_options_spawner.py"
    "::test_environment_wins_over_everything",
    "Spawner.env_keep": "tests/live/test_options_spawner.py"
    "::test_env_keep_is_all_that_comes_from_the_hub",
    "Spawner.oauth_client_allowed_scopes": "tests/live/test_options_spawner.py"
    "::test_scopes_of_visitors_are_those_the_client_may_have",
    "Spawner.server_token_scopes": "tests/live/test_options_spawner.py"
    "::test_scopes_of_the_servers_own_token_are_the_given_ones",
    "Spawner.start_timeout": "tests/live/test_options_spawner.py"
    "::test_start_timeout_ends_a_start_that_takes_too_long",
    "Spawner.http_timeout": "tests/live/test_options_spawner.py"
    "::test_http_timeout_ends_a_server_that_does_not_answer",
    "Spawner.options_form": "tests/live/test_options_spawner.py"
    "::test_options_form_is_shown_and_options_from_form_reads_it",
    "Spawner.options_from_form": "tests/live/test_options_spawner.py"
    "::test_options_form_is_shown_and_options_from_form_reads_it",
    "Spawner.options_from_query": "tests/live/test_options_spawner.py"
    "::test_options_from_query_reads_a_spawn_link",
    "Spawner.pre_spawn_hook": "tests/live/test_options_spawner.py"
    "::test_hooks_run_before_a_start_and_after_a_stop",
    "Spawner.post_stop_hook": "tests/live/test_options_spawner.py"
    "::test_hooks_run_before_a_start_and_after_a_stop",
    "LocalProcessSpawner.interrupt_timeout": "tests/live/test_options_spawner.py"
    "::test_patience_of_the_stop_is_that_of_the_options",
    "LocalProcessSpawner.term_timeout": "tests/live/test_options_spawner.py"
    "::test_patience_of_the_stop_is_that_of_the_options",
    "LocalProcessSpawner.kill_timeout": "tests/live/test_options_spawner.py"
    "::test_kill_timeout_is_when_a_server_counts_as_one_that_cannot_be_stopped",
    "LocalProcessSpawner.popen_kwargs": "tests/live/test_options_spawner.py"
    "::test_popen_kwargs_say_where_and_with_which_mask_it_starts",
    "LocalProcessSpawner.shell_cmd": "tests/live/test_options_spawner.py"
    "::test_shell_cmd_is_given_the_whole_command_line",
    "LocalProcessSpawner.rlimits": "tests/live/test_server_limits.py"
    "::test_rlimits_are_those_of_each_server",
    "LocalProcessSpawner.warm": "tests/live/test_warm.py"
    "::test_warm_decides_whether_servers_start_warm",
    "LocalProcessSpawner.warm_preload": "tests/live/test_warm.py"
    "::test_warm_preload_adds_modules_and_leaves_out_an_unfit_one",
    "LocalProcessSpawner.warm_mem_limit": "tests/live/test_warm.py"
    "::test_warm_mem_limit_bounds_the_memory_of_the_parent",
    "SimpleLocalProcessSpawner.home_dir_template": "tests/live/test_options_spawner.py"
    "::test_home_dir_template_is_where_homes_are",
    "SimpleLocalProcessSpawner.sandbox": "tests/live/test_sandbox.py"
    "::test_sandbox_off_closes_nothing",
    "SimpleLocalProcessSpawner.sandbox_read": "tests/live/test_sandbox.py"
    "::test_sandbox_read_is_for_reading",
    "SimpleLocalProcessSpawner.sandbox_write": "tests/live/test_sandbox.py"
    "::test_sandbox_write_is_for_writing_too",
    "Spawner.group_overrides": "tests/live/test_options_servers.py"
    "::test_group_overrides_change_the_servers_of_members",
    "Spawner.apply_user_options": "tests/live/test_options_servers.py"
    "::test_apply_user_options_as_a_dict_sets_what_it_names",
    "Spawner.hub_connect_url": "tests/live/test_options_servers.py"
    "::test_hub_connect_url_is_what_servers_are_told",
    "Spawner.profiles": "tests/live/test_starting.py"
    "::test_profiles_are_chosen_in_the_form_and_by_programs",
    "Spawner.poll_interval": "tests/live/test_options_servers.py"
    "::test_poll_interval_and_jitter_notice_an_ended_server",
    "Spawner.poll_jitter": "tests/live/test_options_servers.py"
    "::test_poll_interval_and_jitter_notice_an_ended_server",
    "Spawner.consecutive_failure_limit": "tests/live/test_options_servers.py"
    "::test_hub_ends_after_so_many_failed_starts_in_a_row",
    "Spawner.auth_state_hook": "tests/live/test_options_authstate.py"
    "::test_auth_state_is_kept_encrypted_and_given_to_hooks",
    # -- authenticators ----------------------------------------------------------------------
    "Authenticator.enable_auth_state": "tests/live/test_options_authstate.py"
    "::test_auth_state_is_kept_encrypted_and_given_to_hooks",
    "CryptKeeper.keys": "tests/live/test_options_authstate.py"
    "::test_first_key_encrypts_and_a_lost_key_is_as_if_nothing_was_kept",
    "CryptKeeper.n_threads": "tests/live/test_options_authstate.py"
    "::test_n_threads_bounds_how_many_encrypt_at_the_same_time",
    "Authenticator.admin_users": "tests/live/test_options_authenticators.py"
    "::test_admin_users_are_admins",
    "Authenticator.allow_all": "tests/live/test_options_authenticators.py"
    "::test_allow_all_lets_everybody_in",
    "Authenticator.allow_existing_users": "tests/live/test_options_authenticators.py"
    "::test_allow_existing_users_may_be_switched_off",
    "Authenticator.allowed_users": "tests/live/test_options_authenticators.py"
    "::test_allowed_users_may_log_in_and_others_not",
    "Authenticator.any_allow_config": "tests/live/test_options_authenticators.py"
    "::test_any_allow_config_silences_the_warning",
    "Authenticator.auth_refresh_age": "tests/live/test_options_authenticators.py"
    "::test_auth_refresh_age_asks_again_about_who_is_logged_in",
    "Authenticator.refresh_pre_spawn": "tests/live/test_options_authenticators.py"
    "::test_refresh_pre_spawn_asks_before_a_server_starts",
    "Authenticator.auto_login": "tests/live/test_options_authenticators.py"
    "::test_auto_login_asks_nobody_for_anything",
    "Authenticator.auto_login_oauth2_authorize": "tests/live/test_options_authenticators.py"
    "::test_auto_login_only_where_a_server_sends_somebody",
    "Authenticator.blacklist": "tests/live/test_options_authenticators.py"
    "::test_old_spellings_work_with_a_warning",
    "Authenticator.blocked_users": "tests/live/test_options_authenticators.py"
    "::test_blocked_users_may_not_whatever_else_allows_them",
    "Authenticator.delete_invalid_users": "tests/live/test_options_authenticators.py"
    "::test_delete_invalid_users_deletes_whom_the_authenticator_cannot_have",
    "Authenticator.manage_groups": "tests/live/test_options_authenticators.py"
    "::test_manage_groups_gives_the_groups_of_the_password",
    "Authenticator.manage_roles": "tests/live/test_options_authenticators.py"
    "::test_manage_roles_gives_the_roles_that_the_authenticator_says",
    "Authenticator.otp_prompt": "tests/live/test_options_authenticators.py"
    "::test_request_otp_asks_with_the_prompt",
    "Authenticator.post_auth_hook": "tests/live/test_options_authenticators.py"
    "::test_post_auth_hook_may_change_or_refuse",
    "Authenticator.request_otp": "tests/live/test_options_authenticators.py"
    "::test_request_otp_asks_with_the_prompt",
    "Authenticator.username_map": "tests/live/test_options_authenticators.py"
    "::test_username_map_gives_another_name",
    "Authenticator.username_pattern": "tests/live/test_options_authenticators.py"
    "::test_username_pattern_must_fit_the_whole_name",
    "Authenticator.whitelist": "tests/live/test_options_authenticators.py"
    "::test_old_spellings_work_with_a_warning",
    "LocalAuthenticator.add_user_cmd": "tests/live/test_options_authenticators.py"
    "::test_system_users_are_created_by_the_command",
    "LocalAuthenticator.allowed_groups": "tests/live/test_options_authenticators.py"
    "::test_allowed_groups_let_in_their_members",
    "LocalAuthenticator.create_system_users": "tests/live/test_options_authenticators.py"
    "::test_system_users_are_created_by_the_command",
    "LocalAuthenticator.group_whitelist": "tests/live/test_options_authenticators.py"
    "::test_allowed_groups_let_in_their_members",
    "LocalAuthenticator.uids": "tests/live/test_options_authenticators.py"
    "::test_system_users_are_created_by_the_command",
    "PAMAuthenticator.admin_groups": "tests/live/test_options_authenticators.py"
    "::test_pam_accounts_sessions_groups_and_names",
    "PAMAuthenticator.check_account": "tests/live/test_options_authenticators.py"
    "::test_pam_accounts_sessions_groups_and_names",
    "PAMAuthenticator.encoding": "tests/live/test_options_authenticators.py"
    "::test_pam_service_and_encoding_check_the_systems_passwords",
    "PAMAuthenticator.open_sessions": "tests/live/test_options_authenticators.py"
    "::test_pam_accounts_sessions_groups_and_names",
    "PAMAuthenticator.pam_normalize_username": "tests/live/test_options_authenticators.py"
    "::test_pam_normalize_username_takes_the_systems_own_name",
    "PAMAuthenticator.service": "tests/live/test_options_authenticators.py"
    "::test_pam_service_and_encoding_check_the_systems_passwords",
    "DummyAuthenticator.password": "tests/live/test_options_authenticators.py"
    "::test_password_of_the_dummy_is_asked_for",
    "SharedPasswordAuthenticator.admin_password": "tests/live/test_options_authenticators.py"
    "::test_shared_passwords_are_one_for_users_and_one_for_admins",
    "SharedPasswordAuthenticator.password_groups": "tests/live/test_options_authenticators.py"
    "::test_manage_groups_gives_the_groups_of_the_password",
    "SharedPasswordAuthenticator.user_password": "tests/live/test_options_authenticators.py"
    "::test_shared_passwords_are_one_for_users_and_one_for_admins",
}

OPTIONS = [
    f"{cls.__name__}.{name}"
    for cls, traits in config_render.groups(cli._classes())
    for name in traits
]


def _tests_in(path: Path) -> set[str]:
    """Return the names of a file's test functions, ``Class::name`` for those in a class."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        names |= {
            prefix + one.name
            for one in inner
            if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")
        }
    return names


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_has_a_proof(option):
    assert option in PROOFS, f"name the test that proves {option} in PROOFS"


@pytest.mark.parametrize("option, proof", PROOFS.items())
def test_proof_is_a_test_that_exists(option, proof):
    file, _, test = proof.partition("::")
    assert option in OPTIONS, f"there is no option {option}"
    assert file.startswith("tests/"), proof
    assert (ROOT / file).is_file(), f"there is no file {file}"
    assert test in _tests_in(ROOT / file), f"{file} has no {test}"
