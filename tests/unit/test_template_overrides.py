"""Overrides as JupyterHub's documentation has them: every block, variable and way to extend."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from page_cases import COMMON, PAGES

from minihub.hookinfo import UserInfo
from minihub.web.rendering import Renderer

#: The blocks of JupyterHub 6's templates, but those that are attributes inside a tag.
BLOCKS = {
    "page.html": (
        "title", "stylesheet", "favicon", "scripts", "meta", "nav_bar", "logo",
        "nav_bar_left_items", "service", "nav_bar_right_items", "theme_toggle", "login_widget",
        "header", "announcement", "main", "footer", "script",
    ),
    "404.html": ("error_detail", "main"),
    "accept-share.html": ("login_widget", "main"),
    "admin.html": ("main", "footer"),
    "error.html": ("login_widget", "main", "h1_error", "error_detail", "script"),
    "home.html": ("main", "script"),
    "login.html": (
        "login_widget", "main", "login", "login_container", "username_input", "password_input",
        "otp_input", "login_terms", "login_terms_text", "script",
    ),
    "logout.html": ("main",),
    "not_running.html": ("main", "heading", "message", "start_button", "script"),
    "oauth.html": ("login_widget", "main"),
    "spawn.html": ("main", "heading", "script"),
    "spawn_pending.html": ("main", "message", "script"),
    "stop_pending.html": ("main", "message", "script"),
    "token.html": ("main", "expiration_options", "token_row", "client_row", "script"),
}  # fmt: skip
#: Blocks that stand inside a tag take attributes.
ATTRIBUTES = ("username_input_attrs", "password_input_attrs", "otp_input_attrs")
#: What shows the parts of pages that are not always there.
EVERYTHING = {
    "services": [SimpleNamespace(name="grader", href="/services/grader/")],
    "authenticator": SimpleNamespace(request_otp=True, otp_prompt="Code", keeps_passwords=False),
    "login_term_url": "/terms",
    "announcement": "News",
}
MARK = "from the override"


def rendered(directory, page: str, source: str, name: str = "", **variables) -> list[str]:
    """Return a page in each of its cases, with an override of ``name`` (of the page itself)."""
    (directory / (name or page)).write_text(source)
    renderer = Renderer(template_paths=[str(directory)], template_vars=variables)
    cases = PAGES.get(page, [{}])  # a page of the override's own has none
    user = UserInfo("ana", admin=True, base_url="/")
    values = {**COMMON, "user": user, "no_spawner_check": True, **EVERYTHING}
    return [renderer.render(page, **{**values, **case}) for case in cases]


@pytest.mark.parametrize(
    ("page", "block"), [(page, block) for page, blocks in BLOCKS.items() for block in blocks]
)
def test_every_documented_block_can_be_added_to_and_replaced(tmp_path, page, block):
    name, original = page, f"templates/{page}"
    for scoped in ("", " scoped"):
        added = f"{{{{ super() }}}}{MARK}"
        for inner in (added, MARK):
            source = (
                f'{{% extends "{original}" %}}{{% block {block}{scoped} %}}{inner}{{% endblock %}}'
            )
            if page == "page.html":
                (tmp_path / "about.html").write_text('{% extends "page.html" %}')
            shown = "about.html" if page == "page.html" else page
            pages = rendered(tmp_path, shown, source, name)
            assert any(MARK in html for html in pages), (block, inner)


@pytest.mark.parametrize("block", ATTRIBUTES)
def test_documented_block_of_attributes_can_be_added_to(tmp_path, block):
    source = (
        '{% extends "templates/login.html" %}'
        f"{{% block {block} %}}{{{{ super() }}}} data-mark{{% endblock %}}"
    )
    assert any("data-mark" in html for html in rendered(tmp_path, "login.html", source))


@pytest.mark.parametrize("page", ["page.html", "login.html", "home.html", "spawn.html"])
def test_page_is_replaced_by_one_that_extends_the_frame(tmp_path, page):
    if page == "page.html":
        source = "<!DOCTYPE html><title>{% block title %}{% endblock %}</title><body>"
        source += f"{MARK}{{% block main %}}{{% endblock %}}{{{{ user.name }}}}</body>"
        assert all(MARK in html for html in rendered(tmp_path, "home.html", source, page))
    else:
        source = f'{{% extends "page.html" %}}{{% block main %}}<p>{MARK}</p>{{% endblock %}}'
        for html in rendered(tmp_path, page, source):
            assert f"<p>{MARK}</p>" in html and 'id="jupyterhub-logo"' in html


def test_message_below_the_text_of_a_start(tmp_path):
    source = (
        '{% extends "templates/spawn_pending.html" %} {% block message %} {{ super() }}\n'
        f"<p>{MARK}</p>\n{{% endblock %}}"
    )
    (first, *_others) = rendered(tmp_path, "spawn_pending.html", source)
    assert first.index("<h1>") < first.index(f"<p>{MARK}</p>") < first.index('id="progress-bar"')


@pytest.mark.parametrize("page", ["login", "home", "spawn", "logout"])
def test_announcement_of_a_page_goes_before_that_of_all(page):
    variables = {"announcement": "<b>for all</b>", f"announcement_{page}": "<i>for one</i>"}
    renderer = Renderer(template_vars=variables)
    for other in ("login", "home", "spawn", "logout", "token"):
        values = {**COMMON, **PAGES[f"{other}.html"][0], "announcement": None}
        html = renderer.render(f"{other}.html", **values)
        assert ("<i>for one</i>" in html) == (other == page)
        assert ("<b>for all</b>" in html) == (other != page)


def test_announcement_set_in_an_override_of_a_page(tmp_path):
    source = f"{{% extends \"templates/login.html\" %}} {{% set announcement = '{MARK}' %}}"
    assert all(MARK in html for html in rendered(tmp_path, "login.html", source))


def test_frame_of_an_override_goes_before_that_of_a_page(tmp_path):
    """As documented: what extends page.html goes before an extension of one page."""
    (tmp_path / "login.html").write_text(
        "{% extends \"templates/login.html\" %} {% set announcement = 'of the page' %}"
    )
    source = (
        f'{{% extends "templates/page.html" %}}{{% block announcement %}}{MARK}{{% endblock %}}'
    )
    (html, *_others) = rendered(tmp_path, "login.html", source, "page.html")
    assert "of the page" not in html or MARK in html


@pytest.mark.parametrize(
    "words",
    [
        "{{ user.name }}", "{{ user.json_escaped_name | safe }}", "{{ user.admin }}",
        "{{ user.url }}", "{{ base_url }}", "{{ prefix }}",
        "{{ logo_url or base_url }}", "{{ login_url }}", "{{ logout_url }}", "{{ xsrf_token }}",
        "{{ version_hash }}", "{{ static_url('js', include_version=False) }}",
        "{% if admin_access %}a{% endif %}", "{% if 'admin-ui' in parsed_scopes %}a{% endif %}",
        "{% if not no_spawner_check and user and user.spawner.options_form %}a{% endif %}",
        "{% for service in services %}{{ service.href }}{{ service.name }}{% endfor %}",
    ],
)  # fmt: skip
def test_what_the_frame_of_jupyterhub_uses_is_there(tmp_path, words):
    """A copy of JupyterHub's own page.html, changed here and there, goes on rendering."""
    source = (
        f"<!DOCTYPE html><body>{MARK}{words}"
        "{% block main %}{% endblock %}{% block script %}{% endblock %}</body>"
    )
    assert MARK in rendered(tmp_path, "home.html", source, "page.html")[0]
