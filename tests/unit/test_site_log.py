"""What the log of requests shows of paths that hold secrets."""

import pytest

from minihub.web import site, tables

ROUTES = {route.path: route for table in tables.ALL for route in table}


@pytest.mark.parametrize(
    ("pattern", "args", "path", "shown"),
    [
        (
            "api/authorizations/token/<token>",
            {"token": "s3cret"},
            "/hub/api/authorizations/token/s3cret",
            "/hub/api/authorizations/token/…",
        ),
        (
            "api/authorizations/cookie/<cookie>/<value>",
            {"cookie": "c", "value": "s3cret"},
            "/base/hub/api/authorizations/cookie/c/s3cret",
            "/base/hub/api/authorizations/cookie/c/…",
        ),
        ("api/users/<name>", {"name": "ada"}, "/hub/api/users/ada", "/hub/api/users/ada"),
    ],
)
def test_tokens_and_cookies_in_paths_are_not_logged(pattern, args, path, shown):
    assert site._without_secrets(path, ROUTES[pattern], args) == shown
