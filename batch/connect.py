"""A session behind Spark Connect: Spark's driver is a server elsewhere, and all that is asked of it is to run tasks.

Claims, database connections and the order of writes stay in this process, as with any session. What this one has not is a JVM:
no streaming query (planned.py says where micro-batches end), no settings but those of a session, no pages of its own.
"""

from __future__ import annotations

import importlib
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from batch.quiet import silent_about_pandas
from tidegate.errors import ConfigError, StackError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from batch.options import Options

VARIABLE = "SPARK_REMOTE"
_SCHEME = "sc://"
_RETRIES = {"max_retries": 6, "max_backoff": 10_000}
"""25 s in all. PySpark's own 15 take ten minutes, and a server that has ended has forgotten the session anyway."""
_ALIVE = 60.0  # seconds between signs of life; a server forgets a session that says nothing for an hour
_CONF = {"spark.sql.adaptive.enabled": "false"}  # nothing is shuffled, so that there is nothing to adapt


def server() -> str | None:
    """The server that SPARK_REMOTE names, if it does. Raises ConfigError for what is no server's address."""
    address = os.environ.get(VARIABLE, "")
    if address and not address.startswith(_SCHEME):
        raise ConfigError(
            "that is no address of a Spark Connect server",
            field=VARIABLE,
            value=address,
            expected="sc://host:15002",
            hint="unset SPARK_REMOTE for a session of the run's own; --master says which",
        )
    return address or None


def require_fit(options: Options, *, ui: bool = False) -> None:
    """Raises ConfigError for an option that a session behind Spark Connect cannot have, if it is to be one."""
    if server() is None:
        return
    refused = (
        ("--master", options.master, "the server has its own"),
        (
            "--checkpoint",
            options.checkpoint,
            "Spark keeps no account of the run, so that there is nothing to put there",
        ),
        ("--ui", ui, "Spark's pages are the server's"),
    )
    for field, value, reason in refused:
        if value:
            raise ConfigError(
                f"with Spark Connect {reason}",
                field=field,
                value=None if value is True else str(value),
                expected=f"no {field} beside {VARIABLE}",
                hint=f"leave {field} out, or unset {VARIABLE}",
            )


@contextmanager
def connected(address: str) -> Iterator[SparkSession]:
    """A session on the server, released at the end. Raises StackError when there is none or tidegate lacks what it takes,
    ConfigError for an address that cannot be read."""
    session = _open(address)
    over = threading.Event()
    alive = threading.Thread(target=_stay, args=(session, over), name="connect", daemon=True)
    alive.start()
    try:
        yield session
    finally:
        over.set()
        with suppress(Exception):  # a server that has gone has nothing to release
            session.client.set_retry_policies([])
            session.stop()
        _close(session)


def _open(address: str) -> Any:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # its notes of each attempt to connect are for nobody
    try:
        with silent_about_pandas():
            connect = importlib.import_module("pyspark.sql.connect.session")
            retries = importlib.import_module("pyspark.sql.connect.client.retries")
    except ImportError as error:
        raise StackError(
            f"Spark Connect ({VARIABLE}) needs packages that are not installed: pip install 'tidegate[connect]' ({_first(error)})"
        ) from error
    from batch.failure import answer

    warnings.filterwarnings("ignore", r"\[RETRIES_EXCEEDED\]")  # the error itself is raised as well
    try:
        session = connect.SparkSession(connection=address)
    except ValueError as error:
        raise ConfigError(_first(error), field=VARIABLE, value=shown(address), expected="sc://host:15002") from None
    session.client.set_retry_policies([retries.DefaultPolicy(**_RETRIES)])
    try:
        for name, value in _CONF.items():
            session.conf.set(name, value)
    except BaseException as error:
        _close(session)
        if not isinstance(error, Exception):
            raise
        said = answer(error) or _first(error)
        raise StackError(f"no Spark Connect server answers at {shown(address)} ({VARIABLE}): {said}") from None
    return session


def _close(session: Any) -> None:
    """Now, and not once more: PySpark closes it again when the interpreter ends, and then it may wait for a lock that a thread of
    gRPC's had when it was ended (the process did not end in one of twelve runs)."""
    with suppress(Exception):
        session.client.close()
    session.client.close = lambda: None


def _stay(session: Any, over: threading.Event) -> None:
    """Whatever a call of the run's own would find is that call's to say."""
    while not over.wait(_ALIVE):
        with suppress(Exception):
            session.conf.get("spark.sql.session.timeZone")


def shown(address: str) -> str:
    """Without what is behind the host: there may be a token."""
    return address.removeprefix(_SCHEME).split("/")[0].split(";")[0]


def _first(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
