"""
A real PostgreSQL server of one's own: in a temporary folder, on a free port of 127.0.0.1, as an ordinary user.

`with running() as server:` is all; where the programs are not installed, Unavailable says so. Any test may stop it,
start it and start it anew; its port stays the same.
"""

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
from attrs import define, field
from psycopg import sql

HOMES = ("/usr/lib/postgresql", "/usr/pgsql", "/usr/local", "/opt/homebrew")
"""Below which programs may be."""
PROGRAMS = ("initdb", "pg_ctl", "postgres")
USERS = ("postgres", "nobody")
"""As whom root runs it: the server refuses root."""
PATIENCE = "60"
"""Seconds for which pg_ctl waits."""
GUARDED = "guarded"
"""A role that must give a password; any other is let in without one."""

ACCESS = f"""
local all all trust
host all {GUARDED} 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""
FAST = {"fsync": "off", "full_page_writes": "off"}
"""For tests that end a server in any way but by pulling the plug of the machine."""
SETTINGS = {
    "autovacuum": "off",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
    "max_connections": "300",
    "max_wal_senders": "0",
    "shared_buffers": "16MB",
    "wal_level": "minimal",
}


KEEPER = """
read -r end
"$0" stop --mode immediate --pgdata "$1/data" --wait
rm -rf "$1"
"""
"""Stops a server and removes it as soon as whoever started it says so or has ended, in whichever way."""


class Unavailable(Exception):  # noqa: N818 (it is a state of the machine)
    """
    No server can be run here, and why.
    """


def programs():
    """
    The folder with the newest of the installed programs.
    """
    found = [path.parent for home in HOMES for path in Path(home).glob("**/bin/initdb")]
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve().parent)
    whole = [folder for folder in found if all((folder / name).exists() for name in PROGRAMS)]
    if not whole:
        raise Unavailable(f"PostgreSQL is not installed: {', '.join(PROGRAMS)} are not below {', '.join(HOMES)}")
    return max(whole, key=lambda folder: [int(number) for number in re.findall(r"\d+", str(folder))])


def ordinary():
    """
    As whom to run it: None as oneself.
    """
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in USERS:
        if name in known:
            return known[name]
    raise Unavailable("root may not run PostgreSQL, and there is no ordinary user")


def free_port():
    """
    A port that nobody listens on just now.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@define(eq=False)
class Server:
    """
    A cluster, and the server that runs it.
    """

    folder: Path
    bin: Path
    user: object
    settings: dict
    port: int = field(factory=free_port)
    made: set = field(factory=set)
    """Databases that are there."""

    def url(self, database="postgres", *, user="kling", password=None, **parameters):
        """
        Where a database is; it is made when it is first asked for.
        """
        if database != "postgres" and database not in self.made:
            self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
            self.made.add(database)
        secret = "" if password is None else f":{quote(password, safe='')}"
        query = f"?{urlencode(parameters)}" if parameters else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}{query}"

    def drop(self, database):
        """
        Remove a database, and end the connections to it.
        """
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))
        self.made.remove(database)

    def execute(self, statement, values=None, *, database="postgres"):
        """
        Do something as its owner, outside of any transaction; the rows that come of it.
        """
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            done = connection.execute(statement, values)
            return done.fetchall() if done.description else []

    def start(self):
        """
        Return when it takes connections.
        """
        settings = {**SETTINGS, **self.settings, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._control("start", "--options", options, "--log", self.folder / "log")

    def stop(self, mode="fast"):
        """
        Return when it has ended: `fast` ends all connections in good order, `immediate` is a crash.
        """
        self._control("stop", "--mode", mode)

    def restart(self, mode="fast"):
        """
        End it and start it anew; all connections are lost.
        """
        self.stop(mode)
        self.start()

    def make(self):
        """
        Make the cluster.
        """
        self.run("initdb", "--username=kling", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", self.data)
        (self.data / "pg_hba.conf").write_text(ACCESS)

    @property
    def rights(self):
        """
        Whose rights its programs have.
        """
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    @property
    def runs(self):
        """
        Whether it has been started and not stopped.
        """
        return (self.data / "postmaster.pid").exists()

    @property
    def data(self):
        """
        The folder of the cluster.
        """
        return self.folder / "data"

    def run(self, program, *words):
        """
        Run a program that belongs to it.
        """
        known = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with (self.folder / "said").open("w+") as said:
            # Not a pipe, which the server would keep open.
            done = subprocess.run(
                [self.bin / program, *words],
                stdout=said,
                stderr=said,
                env=known,
                cwd=self.folder,
                check=False,
                **self.rights,
            )
            said.seek(0)
            assert 0 == done.returncode, said.read()

    def _control(self, *words):
        self.run("pg_ctl", *words, "--pgdata", self.data, "--wait", "--timeout", PATIENCE)


@contextmanager
def running(**settings):
    """
    A server, as long as the block lasts.

    Args:
        settings: Of postgresql.conf. By default nothing is written through to the disk: `fsync="on"` for what needs it.
    """
    installed, user = programs(), ordinary()
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    server = Server(folder, installed, user, {**FAST, **settings})
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", "start_new_session": True}
    words = ["sh", "-c", KEEPER, installed / "pg_ctl", folder]
    with subprocess.Popen(words, stdin=subprocess.PIPE, **quiet, **server.rights):
        server.make()
        server.start()
        yield server
