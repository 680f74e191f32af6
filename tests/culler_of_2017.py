"""A culler as JupyterHub 0.8 had one among its examples; run by the tests.

That release's package does not hold the script, so this asks what it asked, in its order and with
its headers: the list of users without any ``Accept``, their last activity compared with a time that
has no zone (which fails on dates that have one), then the stop of each server that is too idle and,
with ``--cull_users``, the end of its user. It runs in the environment of that time, on tornado.

Usage: python culler_of_2017.py --timeout=S --cull_every=S [--cull_users] [--once]
"""

import json
import os
from datetime import datetime, timedelta

from dateutil.parser import parse
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.options import define, options, parse_command_line


class Culler:
    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"token {token}"}
        self.client = AsyncHTTPClient()

    async def ask(self, path: str, method: str = "GET"):
        request = HTTPRequest(self.url + path, method=method, headers=self.headers)
        return await self.client.fetch(request)

    async def one_pass(self) -> None:
        oldest = datetime.utcnow() - timedelta(seconds=options.timeout)
        answer = await self.ask("/users")
        users = json.loads(answer.body.decode("utf8", "replace"))
        for user in users:
            if not user["server"] and not options.cull_users:
                continue
            if parse(user["last_activity"]) < oldest:
                await self.end(user)
        print("pass over", len(users), flush=True)

    async def end(self, user) -> None:
        name = user["name"]
        if user["server"]:
            answer = await self.ask(f"/users/{name}/server", "DELETE")
            print("stopped", name, answer.code, flush=True)
            if answer.code == 202:
                return
        if options.cull_users:
            answer = await self.ask(f"/users/{name}", "DELETE")
            print("deleted", name, answer.code, flush=True)


async def main() -> None:
    culler = Culler(os.environ["JUPYTERHUB_API_URL"], os.environ["JUPYTERHUB_API_TOKEN"])
    await culler.one_pass()
    if not options.once:
        PeriodicCallback(culler.one_pass, options.cull_every * 1000).start()


if __name__ == "__main__":
    define("timeout", default=600)
    define("cull_every", default=1)
    define("cull_users", default=False)
    define("once", default=False)
    parse_command_line()
    loop = IOLoop.current()
    if options.once:
        loop.run_sync(main)
    else:
        loop.add_callback(main)
        loop.start()
