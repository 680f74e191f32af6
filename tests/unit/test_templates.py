"""Every page: it renders, it is sound and safe HTML, and its names are those others rely on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import jinja2
import jinja2.meta
import pytest
from page_cases import CASES, COMMON, PAGES, RUNNING, make_server

from minihub.texts import Text
from minihub.web.rendering import DEFAULTS, Renderer

WEB = Path(__file__).parents[2] / "minihub" / "web"
STRICT = {"undefined": jinja2.StrictUndefined}
#: What a template may use beyond DEFAULTS; the Renderer gives it a value of its own.
BUILT_IN = {
    "base_url", "prefix", "login_url", "logout_url", "static_url", "version_hash", "own_logo",
    "xsrf_token", "xsrf_form_html", "gettext", "ngettext", "languages",
}  # fmt: skip
#: Variables our own templates leave alone, kept for overrides.
FOR_OVERRIDES = {"csp_nonce", "no_spawner_check", "xsrf"}
#: Variables whose value is put into the page as it is.
MARKUP = {
    "announcement", "announcement_home", "announcement_login", "announcement_logout",
    "announcement_spawn", "custom_html", "error_html_message", "extra_error_html",
    "failed_html_message", "message_html", "spawner_options_form",
}  # fmt: skip
VOID = {"br", "circle", "hr", "img", "input", "link", "meta", "path"}


class Page(HTMLParser):
    """A parsed page: its elements in order, and whether its tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        names = [name for name, _value in attrs]
        assert len(names) == len(set(names)), f"<{tag}> repeats an attribute"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and all(attrs.get(key) == value for key, value in wanted.items())
        ]

    def by_id(self, element_id: str) -> tuple[str, dict[str, str]]:
        (found,) = [element for element in self.elements if element[1].get("id") == element_id]
        return found


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(jinja_environment_options=STRICT)


def _render(renderer: Renderer, name: str, case: dict) -> str:
    return renderer.render(name, **{**COMMON, **case})


def _case_ids() -> Iterator[str]:
    for name, cases in PAGES.items():
        yield from (f"{name}-{index}" for index in range(len(cases)))


each_case = pytest.mark.parametrize(("name", "case"), CASES, ids=list(_case_ids()))
each_page = pytest.mark.parametrize("name", PAGES)


# -- they render -----------------------------------------------------------------------------


def test_every_template_has_realistic_cases_here():
    names = {path.name for path in (WEB / "templates").iterdir()}
    assert names - {"page.html", "_parts.html"} == set(PAGES)


@each_page
def test_page_renders_without_any_variable(renderer, name):
    """Whatever the web layer leaves out has a value in DEFAULTS."""
    page = Page(renderer.render(name))
    assert page.all("main")


@pytest.mark.parametrize("path", sorted((WEB / "templates").iterdir()), ids=lambda path: path.name)
def test_template_uses_declared_variables_only(path):
    environment = jinja2.Environment(extensions=["jinja2.ext.i18n"])
    environment.filters.update(when=str, tell=str)
    tree = environment.parse(path.read_text())
    used = jinja2.meta.find_undeclared_variables(tree)
    set_here = {node.name for node in tree.find_all(jinja2.nodes.Name) if node.ctx == "store"}
    imported = {node.target for node in tree.find_all(jinja2.nodes.Import)}
    macros = {node.name for node in tree.find_all(jinja2.nodes.Macro)}
    assert used - set_here - imported - macros <= set(DEFAULTS) | BUILT_IN


def test_every_default_is_used_by_some_template():
    text = "".join(path.read_text() for path in (WEB / "templates").iterdir())
    assert {name for name in DEFAULTS if not re.search(rf"\b{name}\b", text)} <= FOR_OVERRIDES


# -- they are sound --------------------------------------------------------------------------


@each_case
def test_page_is_sound_html(renderer, name, case):
    html = _render(renderer, name, case)
    assert html.startswith("<!DOCTYPE html>")
    page = Page(html)
    ids = [attrs["id"] for _tag, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    if "custom_html" not in case:
        assert len(page.all("h1")) == 1
    (html_tag,) = page.all("html")
    assert html_tag["lang"] == "en"
    assert all("alt" in image for image in page.all("img"))
    labelled = {label["for"] for label in page.all("label")}
    for tag in ("input", "select", "textarea"):
        for field in page.all(tag):
            if field.get("type") not in ("hidden", "submit"):
                assert field.get("id") in labelled or "aria-labelledby" in field
    for attribute in ("aria-labelledby", "aria-describedby", "aria-controls", "for"):
        for _tag, attrs in page.elements:
            assert set(attrs.get(attribute, "").split()) <= set(ids)


@each_case
def test_page_holds_nothing_the_content_security_policy_refuses(renderer, name, case):
    page = Page(_render(renderer, name, case))
    for tag, attrs in page.elements:
        assert not [key for key in attrs if key == "style" or key.startswith("on")]
        assert tag not in ("style", "iframe", "object", "embed", "base")
        if tag == "script":
            assert attrs.get("type") == "application/json" or "src" in attrs
        for key in ("href", "src", "action", "content", "data-url"):
            assert not re.match(r"\s*(//|[a-z][a-z0-9+.-]*:)", attrs.get(key, ""), re.IGNORECASE)


def test_no_template_or_static_file_names_another_host():
    for path in [*(WEB / "templates").rglob("*"), *(WEB / "static").rglob("*")]:
        if path.is_file() and path.suffix != ".ico":
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
            text = re.sub(r"[^\s:\"'(] +// .*$", "", text, flags=re.MULTILINE)
            assert not re.search(r"https?:/|//|@import", text), path.name


@each_case
def test_every_post_form_carries_the_xsrf_token(renderer, name, case):
    html = _render(renderer, name, case)
    posts = re.findall(r'<form[^>]*method="post".*?</form>', html, re.DOTALL)
    assert len(posts) == len(Page(html).all("form", method="post"))
    assert all('<input type="hidden" name="_xsrf" value="2|token|of-this-session">' in form
               for form in posts)  # fmt: skip


def test_jhdata_is_read_before_any_script_of_an_override(renderer):
    html = _render(renderer, "home.html", PAGES["home.html"][0] | {"admin_access": True})
    data = re.search(r'<script type="application/json" id="jhdata">(.*?)</script>', html)
    assert data is not None
    jhdata = json.loads(data[1])
    assert jhdata.pop("version_hash")
    assert jhdata == {
        "base_url": "/hub/",
        "prefix": "/",
        "user": "ana",
        "xsrf_token": "2|token|of-this-session",
        "admin_access": True,
        "options_form": False,
    }
    boot = re.search(r'<script src="/hub/static/js/boot.js\?v=[0-9a-f]+"></script>', html)
    assert boot is not None and boot.start() > data.start()
    assert "<script" not in html[: data.start()]


def test_every_static_file_a_page_names_exists(renderer):
    for name, case in CASES:
        for _tag, attrs in Page(_render(renderer, name, case)).elements:
            for value in attrs.values():
                if value.startswith("/hub/static/"):
                    assert renderer.static(value.removeprefix("/hub/static/").split("?")[0])


# -- whatever people type stays text ----------------------------------------------------------

PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</title></textarea></pre><img src=x onerror=alert(1)>",
    "'\"><svg onload=alert(1)>",
    '" onfocus=alert(1) autofocus x="',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "%(name)s %s %",
    "&lt;script&gt;",
    "\u2028\u2029</script\u0000>",
]
_NOT_TEXT = {"pending", "created", "last_activity", "expires_at", "at", "shown", "sort"} | MARKUP


def _replace(value, text: str, key: str = ""):
    """Return ``value`` with every text in it replaced."""
    if key in _NOT_TEXT:
        return value
    if isinstance(value, Text):
        return Text("%(text)s", text=text)
    if isinstance(value, str):
        return text if value else value
    if isinstance(value, SimpleNamespace):
        return SimpleNamespace(**_replace(vars(value), text))
    if isinstance(value, dict):
        return {name: _replace(item, text, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, text) for item in value]
    return value


def _shape(html: str) -> list[tuple[str, list[str]]]:
    return [(tag, sorted(attrs)) for tag, attrs in Page(html).elements]


@each_case
def test_text_from_people_never_becomes_markup(renderer, name, case):
    """A page has the same elements and attributes whatever the texts in it are."""
    values = {**COMMON, **case}
    harmless = _replace(values, "harmless") | {"parsed_scopes": COMMON["parsed_scopes"]}
    shape = _shape(renderer.render(name, **harmless))
    for payload in PAYLOADS:
        hostile = _replace(values, payload) | {"parsed_scopes": COMMON["parsed_scopes"]}
        assert _shape(renderer.render(name, **hostile)) == shape


def test_log_lines_and_hints_are_shown_as_written(renderer):
    line = "<b>100%</b> {{ 7 }} & done"
    html = renderer.render("not_running.html", failed=True, log_tail=[line], hint=line)
    assert Page(html).texts.count(line) == 1  # the hint
    assert f"{line}\n" in Page(html).texts  # the log


# -- names that scripts, tests and overrides rely on --------------------------------------------


def test_login_form_has_the_names_that_scripted_logins_use(renderer):
    case = {"user": None, "login_error": "Invalid username or password", "next": "/hub/token?a=1"}
    page = Page(_render(renderer, "login.html", case))
    assert page.by_id("login-main")[0] == "div"
    assert page.by_id("username_input")[1]["name"] == "username"
    assert page.by_id("password_input")[1]["name"] == "password"
    assert page.by_id("login_submit")[1]["type"] == "submit"
    assert any("login_error" in p.get("class", "").split() for p in page.all("p"))
    form = page.all("form")[0]
    assert form["action"] == "/hub/login?next=/hub/token%3Fa%3D1"


def test_login_page_says_when_only_the_list_keeps_somebody_out(renderer):
    wrong = _render(renderer, "login.html", {"user": None, "login_error": "Invalid"})
    closed = _render(renderer, "login.html", {"user": None, "not_allowed": True})
    assert "Your password is right" in closed
    assert "Your password is right" not in wrong


def test_home_has_start_and_stop(renderer):
    page = Page(_render(renderer, "home.html", {"servers": [RUNNING]}))
    assert page.by_id("start") == ("a", page.by_id("start")[1])
    assert page.by_id("start")[1]["href"] == "/user/ana/"
    assert page.by_id("stop")[0] == "button"
    assert page.all("form", action="/hub/stop/ana", method="post")
    stopped = Page(_render(renderer, "home.html", {"servers": [make_server()]}))
    assert stopped.by_id("start")[1]["href"] == "/hub/spawn/ana"
    assert not [attrs for _tag, attrs in stopped.elements if attrs.get("id") == "stop"]


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("spawn.html", {"spawn_form"}),
        (
            "spawn_pending.html",
            {"progress-bar", "progress-message", "progress-details", "progress-log"},
        ),
        ("not_running.html", {"start"}),
        ("stop_pending.html", {"refresh"}),
        ("logout.html", {"logout-main", "login"}),
        ("home.html", {"jupyterhub-logo", "login_widget", "logout", "dark-theme-toggle"}),
        (
            "token.html",
            {
                "request-token-form", "request-token", "token-note", "token-expiration-seconds",
                "token-scopes", "token-area", "token-result", "api-tokens-section",
                "api-tokens-table", "oauth-clients-section", "oauth-tokens-table",
            },
        ),
    ],
)  # fmt: skip
def test_page_keeps_the_ids_of_jupyterhub(renderer, name, ids):
    page = Page(_render(renderer, name, PAGES[name][0]))
    assert ids <= {attrs.get("id") for _tag, attrs in page.elements}


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        (
            "page.html",
            "title stylesheet favicon scripts meta nav_bar logo nav_bar_left_items service"
            " nav_bar_right_items theme_toggle login_widget header announcement main footer script",
        ),
        (
            "login.html",
            "login login_container username_input username_input_attrs password_input"
            " password_input_attrs otp_input otp_input_attrs login_terms login_terms_text",
        ),
        ("spawn.html", "heading main"),
        ("spawn_pending.html", "message main script"),
        ("stop_pending.html", "message main"),
        ("not_running.html", "heading message start_button"),
        ("error.html", "h1_error error_detail"),
        ("404.html", "error_detail"),
        ("token.html", "expiration_options token_row client_row"),
    ],
)
def test_template_keeps_the_blocks_of_jupyterhub(name, blocks):
    environment = jinja2.Environment(extensions=["jinja2.ext.i18n"])
    environment.filters.update(when=str, tell=str)
    tree = environment.parse((WEB / "templates" / name).read_text())
    assert set(blocks.split()) <= {node.name for node in tree.find_all(jinja2.nodes.Block)}


def test_pages_for_one_thing_go_on_without_javascript(renderer):
    for name in ("spawn_pending.html", "stop_pending.html"):
        html = _render(renderer, name, PAGES[name][0])
        assert '<noscript><meta http-equiv="refresh"' in html


@pytest.mark.parametrize(
    ("longest", "seconds", "chosen"),
    [
        (0, ["3600", "86400", "604800", "2592000", "31536000", ""], "2592000"),
        (604800, ["3600", "86400", "604800"], "604800"),
        (700000, ["3600", "86400", "604800", "700000"], "604800"),
        (600, ["600"], "600"),
    ],
)
def test_token_page_offers_no_longer_life_than_allowed(renderer, longest, seconds, chosen):
    page = Page(renderer.render("token.html", token_expires_in_max_seconds=longest))
    options = page.all("option")
    assert [option["value"] for option in options] == seconds
    assert [option["value"] for option in options if "selected" in option] == [chosen]


def test_admin_link_shows_only_to_those_who_may_use_it(renderer):
    assert "/hub/admin" in _render(renderer, "home.html", {})
    assert "/hub/admin" not in _render(renderer, "home.html", {"parsed_scopes": {}})


# -- the look ---------------------------------------------------------------------------------


def _blocks() -> list[dict[str, str]]:
    """Return the colour tokens: light, dark by the system's wish, dark by the switch."""
    css = (WEB / "static/css/minihub.css").read_text()
    found = re.findall(r"color-scheme: (?:light|dark);(.*?)}", css, re.DOTALL)
    assert len(found) == 3
    return [dict(re.findall(r"--([a-z-]+): ([^;]+);", block)) for block in found]


def _luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_dark_is_the_same_by_wish_and_by_switch():
    light, wished, switched = _blocks()
    assert wished == switched
    assert light.keys() == wished.keys()


@pytest.mark.parametrize("tokens", _blocks()[:2], ids=["light", "dark"])
def test_colours_keep_the_contrast_of_wcag_aa(tokens):
    """4.5 for text, 3 for the edges of controls (WCAG 2.2, 1.4.3 and 1.4.11)."""
    softs = [name for name in tokens if name.endswith("-soft")]
    for ground in ("ground", "surface", "raised", *softs):
        assert _contrast(tokens["ink"], tokens[ground]) >= 7, ground
    for ground in ("ground", "surface", "raised"):
        assert _contrast(tokens["muted"], tokens[ground]) >= 4.5, ground
        assert _contrast(tokens["accent"], tokens[ground]) >= 4.5, ground
    for word in ("danger", "warning", "success"):
        assert _contrast(tokens[word], tokens["surface"]) >= 4.5, word
        assert _contrast(tokens[word], tokens[f"{word}-soft"]) >= 4.5, word
    for button in ("accent", "accent-strong"):
        assert _contrast(tokens["on-accent"], tokens[button]) >= 4.5, button
    assert _contrast(tokens["accent-strong"], tokens["accent-soft"]) >= 4.5
    assert _contrast(tokens["control-line"], tokens["surface"]) >= 3


def test_colours_are_written_among_the_tokens_only():
    css = (WEB / "static/css/minihub.css").read_text()
    below = css.split("/* 2 Ground")[1].split("@media print")[0]
    assert not re.search(r"#[0-9a-f]{3,8}\b|rgba?\(|hsla?\(", below)
