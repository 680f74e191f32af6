"""Database servers for tests: PostgreSQL and MariaDB, each in a directory of its own.

They listen on a socket in their directory alone, run as an unprivileged user, and do not care
whether anything reaches the disk.
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 60.0


class Server(ABC):
    """A database server that runs until :meth:`stop`; tests use ``url``."""

    #: What ends it at once, whoever is connected.
    halt_signal = signal.SIGTERM
    #: A user other than root, who may not run such servers.
    account = "nobody"

    def __init__(self) -> None:
        # Not below pytest's own directory: the name of a socket may have 107 characters at most.
        self.directory = Path(tempfile.mkdtemp(prefix="db-", dir="/tmp"))
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            entry = pwd.getpwnam(self.account)
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self.log = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self.create()
            self.start()
        except BaseException:
            self.stop()
            raise

    def run(self, *command: str) -> None:
        """Run a command to its end."""
        done = subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, check=False, **self._as
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.directory, stdout=log, stderr=log, **self._as
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def halt(self) -> None:
        """End the server; its data stays."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.halt_signal)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def stop(self) -> None:
        """End the server and remove its data."""
        self.halt()
        shutil.rmtree(self.directory, ignore_errors=True)

    @abstractmethod
    def create(self) -> None:
        """Make an empty database in the directory."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line of the server."""

    @abstractmethod
    def connect(self) -> Any:
        """Return a connection of the driver."""

    #: What it logs once it lets clients in.
    ready = "ready to accept connections"

    def answers(self) -> bool:
        """Return whether clients are let in."""
        return self.ready in self.log.read_text(errors="replace")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        connection = self.connect()
        try:
            cursor = connection.cursor()
            cursor.execute(sql)
            rows = list(cursor.fetchall()) if cursor.description else []
            connection.commit()
            return rows
        finally:
            connection.close()


class Postgres(Server):
    halt_signal = signal.SIGINT

    def create(self) -> None:
        bin_dir = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        self.program = f"{bin_dir}/postgres"
        self.run(
            f"{bin_dir}/initdb",
            *("-D", "data", "-U", "hub", "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust"),
            "--no-sync",
        )

    def command(self) -> list[str]:
        place = str(self.directory)
        settings = ("listen_addresses=", f"unix_socket_directories={place}", "fsync=off")
        return [self.program, "-D", "data", *(word for one in settings for word in ("-c", one))]

    @property
    def url(self) -> str:
        return f"postgresql://hub:secret-word@/postgres?host={self.directory}"

    def connect(self) -> Any:
        import psycopg2

        return psycopg2.connect(dbname="postgres", user="hub", host=str(self.directory))


class MariaDB(Server):
    ready = "ready for connections"

    def create(self) -> None:
        self.run(
            "mariadb-install-db",
            *("--no-defaults", f"--datadir={self.directory}/data", "--skip-test-db"),
            *("--auth-root-authentication-method=normal", "--skip-name-resolve"),
        )

    def command(self) -> list[str]:
        place = self.directory
        program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin") or "mariadbd"
        return [
            program,
            "--no-defaults",
            f"--datadir={place}/data",
            f"--socket={place}/socket",
            f"--pid-file={place}/pid",
            "--skip-networking",
            "--innodb-flush-log-at-trx-commit=0",
        ]

    def start(self) -> None:
        super().start()
        self.query("CREATE DATABASE IF NOT EXISTS hub")
        self.query("CREATE USER IF NOT EXISTS 'hub'@'localhost' IDENTIFIED BY 'secret-word'")
        self.query("GRANT ALL ON hub.* TO 'hub'@'localhost'")

    @property
    def url(self) -> str:
        return f"mysql+pymysql://hub:secret-word@localhost/hub?unix_socket={self.directory}/socket"

    def connect(self) -> Any:
        import pymysql

        return pymysql.connect(unix_socket=f"{self.directory}/socket", user="root")
