"""The Renderer: where templates and static files come from, and how failures are named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
from page_cases import COMMON, PAGES

import minihub
from minihub.errors import ConfigError, MinihubError
from minihub.web.rendering import Renderer, TemplateError


@pytest.fixture
def overrides(tmp_path):
    """Return a function that writes a template into a directory and that directory."""
    directory = tmp_path / "templates"
    directory.mkdir()

    def write(name: str, text: str) -> str:
        (directory / name).write_text(text)
        return str(directory)

    return write


def error_page(renderer, status, **namespace):
    return renderer.render(f"{status}.html", "error.html", status_code=status, **namespace)


def _one(directory: str, **options) -> Renderer:
    return Renderer(template_paths=[directory], **options)


# -- overrides -------------------------------------------------------------------------------


def test_override_extends_the_original_of_the_same_name(overrides):
    text = (
        '{% extends "templates/login.html" %}'
        "{% block main %}<p id=mine>{{ login_error }}</p>{{ super() }}{% endblock %}"
    )
    html = _one(overrides("login.html", text)).render("login.html", login_error="<no>")
    assert "<p id=mine>&lt;no&gt;</p>" in html
    assert 'id="username_input"' in html


def test_override_of_the_frame_reaches_every_page(overrides):
    text = (
        '{% extends "templates/page.html" %}'
        "{% block footer %}<footer>University of Nowhere</footer>{% endblock %}"
        '{% block nav_bar_left_items %}{{ super() }}<li><a href="/help">Help</a></li>{% endblock %}'
    )
    renderer = _one(overrides("page.html", text))
    for name, cases in PAGES.items():
        html = renderer.render(name, **{**COMMON, **cases[0]})
        assert "<footer>University of Nowhere</footer>" in html
        assert ("Help" in html) == (cases[0].get("user", True) is not None)


def test_override_of_404_replaces_the_whole_page(overrides):
    renderer = _one(overrides("404.html", "Lost? {{ status_code }} {{ base_url }}"))
    assert renderer.render("404.html", status_code=404) == "Lost? 404 /hub/"
    assert error_page(renderer, 404) == "Lost? 404 /hub/"


def test_error_page_of_one_status_is_found_by_its_number(overrides):
    renderer = _one(overrides("503.html", "Back soon"))
    assert error_page(renderer, 503, message="down") == "Back soon"
    assert "There is nothing here" in error_page(renderer, 404)
    assert "Something went wrong" in error_page(renderer, 500)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "spawn_pending.html",
            '{% extends "templates/spawn_pending.html" %} {% block message %} {{ super() }}'
            "<p>It takes <b>long</b> today.</p>{% endblock %}",
            "<p>It takes <b>long</b> today.</p>",
        ),
        (
            "login.html",
            '{% extends "templates/login.html" %} {% set announcement = "Use <b>both</b>" %}',
            "Use <b>both</b>",
        ),
        (
            "page.html",
            '{% extends "templates/page.html" %}{% block scripts %}{{ super() }}'
            '<script src="{{ static_url(\'js/x.js\', include_version=False) }}" nonce="{{ '
            'csp_nonce }}"></script>{% endblock %}',
            '<script src="/hub/static/js/x.js" nonce="n0nce"></script>',
        ),
        (
            "login.html",
            '{% extends "page.html" %}{% block main %}<form action="{{ login_url }}" method="post">'
            '<input type="hidden" name="_xsrf" value="{{ xsrf }}">{{ username }}</form>'
            "{% endblock %}",
            '<form action="/hub/login" method="post">'
            '<input type="hidden" name="_xsrf" value="t0ken"></form>',
        ),
    ],
)
def test_usual_override_renders(overrides, name, text, expected):
    renderer = _one(overrides(name, text))
    page = "home.html" if name == "page.html" else name
    assert expected in renderer.render(page, xsrf="t0ken", csp_nonce="n0nce")


def test_first_template_path_wins_and_ours_fill_the_gaps(tmp_path):
    for name, files in {"one": ["home.html"], "two": ["home.html", "logout.html"]}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text(f"{name} {file}")
    renderer = Renderer(template_paths=[str(tmp_path / "one"), str(tmp_path / "two")])
    assert renderer.render("home.html") == "one home.html"
    assert renderer.render("logout.html") == "two logout.html"
    assert 'id="login-main"' in renderer.render("login.html")


def test_data_files_path_may_hold_only_some_files(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/logout.html").write_text("Bye")
    renderer = Renderer(data_files_path=str(tmp_path))  # and no static/ at all
    assert renderer.render("logout.html") == "Bye"
    assert 'id="login-main"' in renderer.render("login.html")
    assert renderer.static("css/minihub.css") is not None


def test_override_shows_without_a_restart_and_goes_when_removed(tmp_path):
    renderer = Renderer(template_paths=[str(tmp_path)])
    file = tmp_path / "logout.html"
    assert "You are logged out" in renderer.render("logout.html")
    file.write_text("first")
    assert renderer.render("logout.html") == "first"
    file.write_text("second, longer")
    assert renderer.render("logout.html") == "second, longer"
    file.unlink()
    assert "You are logged out" in renderer.render("logout.html")


@pytest.mark.parametrize("name", ["../secret.html", "/etc/passwd", ".hidden.html", "a/../b.html"])
def test_template_names_do_not_leave_their_directory(tmp_path, name):
    (tmp_path / "templates").mkdir()
    (tmp_path / "secret.html").write_text("secret")
    (tmp_path / "templates/.hidden.html").write_text("secret")
    (tmp_path / "templates/b.html").write_text("secret")
    with pytest.raises(TemplateError, match="there is no template"):
        Renderer(template_paths=[str(tmp_path / "templates")]).render(name)


# -- options ---------------------------------------------------------------------------------


def test_extensions_of_the_configuration_are_added_to_ours(overrides):
    directory = overrides("x.html", "{% set a = [] %}{% do a.append(7) %}{{ a }} {{ _('text') }}")
    renderer = _one(directory, jinja_environment_options={"extensions": ["jinja2.ext.do"]})
    assert renderer.render("x.html") == "[7] text"
    assert "You are logged out" in renderer.render("logout.html")


def test_environment_options_are_merged_over_ours(overrides):
    directory = overrides("x.html", "{% set a = 1 %}\n{{ a }} {{ username }}")
    renderer = _one(directory, jinja_environment_options={"trim_blocks": True})
    assert renderer.render("x.html", username="<b>") == "1 &lt;b&gt;"
    renderer = _one(directory, jinja_environment_options={"autoescape": False})
    assert renderer.render("x.html", username="<b>") == "\n1 <b>"


@pytest.mark.parametrize(
    "options",
    [
        {"no_such_option": 1},
        {"extensions": ["no.such.extension"]},
        {"block_start_string": "{{"},
        {"block_start_string": ""},
    ],
)
def test_environment_option_that_jinja_refuses_is_a_configuration_error(options):
    with pytest.raises(ConfigError, match="JupyterHub.jinja_environment_options: "):
        Renderer(jinja_environment_options=options)


def test_paths_that_cannot_be_read_are_all_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        Renderer(
            template_paths=[str(tmp_path), str(tmp_path / "a")],
            data_files_path=str(tmp_path / "b"),
            logo_file=str(tmp_path),  # there, but no file
        )
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "JupyterHub.template_paths",
        "JupyterHub.data_files_path",
        "JupyterHub.logo_file",
    ]


def test_template_vars_lie_between_the_defaults_and_what_the_page_gives(overrides):
    directory = overrides("x.html", "{{ announcement }}|{{ course }}|{{ who }}|{{ username }}")
    renderer = _one(
        directory,
        template_vars={
            "announcement": "all day",
            "course": "Maths",
            "who": lambda user: user.name if user else "nobody",
            "username": "default",
        },
    )
    assert renderer.render("x.html") == "all day|Maths|nobody|default"
    given = {"user": SimpleNamespace(name="ana"), "announcement": None, "username": "ana"}
    assert renderer.render("x.html", **given) == "all day|Maths|ana|ana"


def test_announcement_of_one_page_replaces_the_general_one():
    renderer = Renderer(template_vars={"announcement": "to all", "announcement_login": "to <b>me"})
    assert "to <b>me" in renderer.render("login.html")
    assert "to all" not in renderer.render("login.html")
    assert "to all" in renderer.render("home.html")


def test_texts_follow_the_language_that_the_page_is_given():
    @jinja2.pass_context
    def gettext(context, text, **values):
        return f"«{text}»"

    server = {"name": "", "ready": True, "pending": None, "active": True, "url": "/user/ana/"}
    html = Renderer().render("home.html", servers=[server], gettext=gettext)
    assert '<h2 id="my-server">«Your server»</h2>' in html
    assert ">«Running»</span>" in html  # from a macro


def test_base_url_reaches_every_link():
    renderer = Renderer(base_url="/jupyter")
    for name, cases in PAGES.items():
        links = re.findall(r'(?:href|src|action)="(/[^"]*)"', renderer.render(name))
        assert links and all(link.startswith("/jupyter/hub/") for link in links), (name, cases)


# -- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("one\ntwo {{ user.name.first }}\n", 2, "UndefinedError: "),
        ("one\n\n{% block main %}\n", 3, "Unexpected end of template"),
        ("{{ 1 / 0 }}", 1, "ZeroDivisionError: division by zero"),
        ("x\n{% include 'absent.html' %}", 2, "there is no template 'absent.html'"),
        ('{% extends "templates/page.html" %}\n{% block main %}{{ nosuch() }}{% endblock %}', 2,
         "'nosuch' is undefined"),
    ],
)  # fmt: skip
def test_failing_template_is_named_with_its_line(overrides, text, line, problem):
    directory = overrides("home.html", text)
    with pytest.raises(TemplateError) as caught:
        _one(directory).render("home.html", user=None)
    error = caught.value
    assert isinstance(error, MinihubError) and error.status == 500
    assert error.template == str(Path(directory) / "home.html")
    assert error.line == line
    assert problem in error.problem
    assert str(error) == f"{error.template}:{line}: {error.problem}"


def test_failing_template_var_is_named():
    renderer = Renderer(template_vars={"broken": lambda user: user.nosuch})
    with pytest.raises(TemplateError, match=r"JupyterHub.template_vars\['broken'\]: Attribute"):
        renderer.render("home.html", user=None)


def test_absent_and_unreadable_templates_are_template_errors(tmp_path):
    renderer = Renderer(template_paths=[str(tmp_path)])
    with pytest.raises(TemplateError, match=r"^no.html: there is no template 'no.html'$"):
        renderer.render("no.html")
    (tmp_path / "latin.html").write_bytes(b"\xe9")
    with pytest.raises(TemplateError, match="^latin.html: UnicodeDecodeError"):
        renderer.render("latin.html")


def test_originals_render_whatever_the_overrides_are(overrides):
    directory = overrides("page.html", "{{ broken( }}")
    renderer = _one(directory)
    with pytest.raises(TemplateError):
        renderer.render("error.html", status_code=500)
    with pytest.raises(TemplateError):
        error_page(renderer, 500)
    assert "Something went wrong" in renderer.render_original("error.html", status_code=500)


# -- static files ----------------------------------------------------------------------------


def test_own_static_file_has_type_and_etag():
    renderer = Renderer()
    css = renderer.static("css/minihub.css")
    assert css is not None
    assert css.content_type == "text/css; charset=utf-8"
    assert re.fullmatch(r'"[0-9a-f]{20}"', css.etag)
    assert css.mtime is None
    icon = renderer.static("favicon.ico")
    assert icon is not None and icon.content_type == "image/x-icon"


def test_static_url_changes_with_the_content(tmp_path):
    (tmp_path / "static").mkdir()
    file = tmp_path / "static/x.css"
    renderer = Renderer(data_files_path=str(tmp_path), base_url="/j/")
    assert renderer.static_url("x.css") == "/j/hub/static/x.css"
    file.write_text("one")
    first = renderer.static_url("x.css")
    assert re.fullmatch(r"/j/hub/static/x\.css\?v=[0-9a-f]{12}", first)
    assert renderer.static_url("x.css") == first
    file.write_text("second")
    assert renderer.static_url("x.css") != first
    assert renderer.static_url("x.css", include_version=False) == "/j/hub/static/x.css"
    assert renderer.static_url("js") == "/j/hub/static/js"
    assert "?v=" in renderer.static_url("css/minihub.css")


def test_static_file_of_the_user_wins_and_is_read_each_time(tmp_path):
    (tmp_path / "static/css").mkdir(parents=True)
    file = tmp_path / "static/css/minihub.css"
    renderer = Renderer(data_files_path=str(tmp_path))
    own = renderer.static("css/minihub.css")
    file.write_text("body{}")
    found = renderer.static("css/minihub.css")
    assert own is not None and found is not None
    assert found.body == b"body{}"
    assert found.mtime == file.stat().st_mtime
    assert found.etag != own.etag
    file.unlink()
    assert renderer.static("css/minihub.css") == own


@pytest.mark.parametrize(
    "path",
    [
        "", "/", ".", "..", "../secret", "css/../../secret", "css//x", "/etc/passwd", "link",
        "linked/secret", ".hidden", "css/.hidden", "css", "css/", "..\\secret", "x\0.css",
        "%2e%2e/secret", "../static/../secret", "secret/", "a" * 5000,
    ],
)  # fmt: skip
def test_static_path_never_leaves_the_directory(tmp_path, path):
    static = tmp_path / "static"
    (static / "css").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (static / ".hidden").write_text("secret")
    (static / "css/.hidden").write_text("secret")
    (static / "link").symlink_to(tmp_path / "secret")
    (static / "linked").symlink_to(tmp_path)
    renderer = Renderer(data_files_path=str(tmp_path))
    assert renderer.static(path) is None
    assert "?v=" not in renderer.static_url(path)


def test_special_file_is_no_static_file(tmp_path):
    (tmp_path / "static").mkdir()
    os.mkfifo(tmp_path / "static/pipe")
    assert Renderer(data_files_path=str(tmp_path)).static("pipe") is None


def test_logo_is_ours_unless_a_file_replaces_it(tmp_path):
    file = tmp_path / "school.png"
    file.write_bytes(b"\x89PNG school")
    renderer = Renderer(logo_file=str(file))
    assert renderer.logo().body == b"\x89PNG school"
    assert renderer.logo().content_type == "image/png"
    assert "<span>minihub</span>" not in renderer.render("home.html")
    file.unlink()
    assert renderer.logo() == Renderer().logo()
    assert Renderer().logo().content_type == "image/svg+xml"


# -- the file it runs from ---------------------------------------------------------------------


def test_pages_never_read_again_what_they_came_from(tmp_path):
    """The program may run from a zip file that is replaced under it."""
    package = Path(minihub.__file__).parent
    archive = tmp_path / "hub.pyz"
    with zipfile.ZipFile(archive, "w") as bundle:
        for path in package.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                bundle.write(path, f"minihub/{path.relative_to(package)}")
    script = f"""
import sys
sys.path.insert(0, {str(archive)!r})
from minihub.web import rendering
assert rendering.__file__.startswith({str(archive)!r}), rendering.__file__
renderer = rendering.Renderer()
open({str(archive)!r}, "wb").write(b"another build")
for name in {sorted(PAGES)!r}:
    assert "</html>" in renderer.render(name), name
assert renderer.static("css/minihub.css").body and renderer.logo().body
print("done")
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr
