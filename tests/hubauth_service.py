"""A service as people write them with ``jupyterhub.services.auth``; run by the tests.

Usage: python hubauth_service.py KIND, in the environment that a hub gives its managed services.
With the kind ``oauth`` visitors log in through the hub, with ``token`` programs show a token.
"""

import json
import os
import sys
from urllib.parse import urlsplit

from jupyterhub.services.auth import (
    HubAuthenticated,
    HubOAuthCallbackHandler,
    HubOAuthenticated,
)
from jupyterhub.utils import url_path_join
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler, authenticated


class Page(HubOAuthenticated, RequestHandler):
    @authenticated
    def get(self) -> None:
        self.write(json.dumps(self.current_user))


class Program(HubAuthenticated, RequestHandler):
    def get(self) -> None:
        user = self.current_user
        self.set_status(200 if user else 403)
        self.write(json.dumps(user))


def main() -> None:
    prefix = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
    place = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    handler = {"oauth": Page, "token": Program}[sys.argv[1]]
    routes = [(prefix, handler), (url_path_join(prefix, "oauth_callback"), HubOAuthCallbackHandler)]
    Application(routes, cookie_secret=os.urandom(32)).listen(place.port, place.hostname)
    IOLoop.current().start()


if __name__ == "__main__":
    main()
