"""What authenticators of a configuration see of a request."""

from unittest.mock import MagicMock

from minihub.web.handler import RequestView


def test_cookies_that_python_does_not_know_are_left_out():
    """Browsers send what other applications on the same host have set."""
    ctx = MagicMock()
    ctx.jar = {"a[1]": ["x"], "version": ["1"], "mine": ["old", "new"]}
    assert {name: one.value for name, one in RequestView(ctx).cookies.items()} == {"mine": "new"}
