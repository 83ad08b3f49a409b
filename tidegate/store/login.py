"""Why a server would not let us in: the SQLSTATE of a connection that was never made, which libpq itself does not tell.

Its text is in the server's language. The code beside it is to be had from libpq's trace of a second try.
"""

from __future__ import annotations

import os
import re
import select
import time
from typing import Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.errors import FinishedPGconn

# A wrong password, no such user or one that may not log in, no such database, no right to connect to it.
_REFUSALS: Final = ("28P01", "28000", "3D000", "42501")

# What the server itself has said: its severity, in its language, and two spaces. ("Connection refused" is libpq's.)
_ANSWER: Final = re.compile(r"failed: (\w+:  .*)")
_CODE: Final = re.compile(rb'ErrorResponse\t.* C "(\w{5})"')
_PATIENCE: Final = 10.0  # seconds; the server has answered a moment ago

# Where there is no trace (it is for Linux), or for servers whose codes say little (PgBouncer's are all 08P01), and for what
# libpq finds before it asks.
_WORDS: Final = re.compile(
    r"authentication failed for user|role \".*\" does not exist|is not permitted to log in|no pg_hba\.conf entry|"
    r"pg_hba\.conf rejects|database \".*\" does not exist|permission denied for database|no password supplied|"
    r"no such (database|user)|authentication failed$"
)


def login_is_refused(error: BaseException) -> bool:
    """Whether the user, the password or the database's name is at fault. False where a connection was made, or nobody answered.

    Every address that was tried must have refused: behind one that is away there may be the right server.
    """
    tried = [line for line in str(error).splitlines() if "failed:" in line]
    if not tried or not isinstance(error, psycopg.OperationalError) or not isinstance(error.pgconn, FinishedPGconn):
        return False
    if all(_WORDS.search(line) for line in tried):
        return True
    answers = {answer[1] if (answer := _ANSWER.search(line)) else None for line in tried}
    return None not in answers and len(answers) == 1 and _code(error) in _REFUSALS


def _code(error: psycopg.OperationalError) -> str | None:
    """The SQLSTATE, from another try with the same settings; it is asked for once for each error."""
    if error.sqlstate is None and error.pgconn is not None and hasattr(os, "memfd_create"):
        settings = {option.keyword.decode(): option.val.decode() for option in error.pgconn.info if option.val}
        error.sqlstate = _traced(make_conninfo("", **settings).encode())
    return error.sqlstate


def _traced(conninfo: bytes) -> str | None:
    # In memory alone: a trace has all that is sent, passwords too.
    with os.fdopen(os.memfd_create("trace"), "rb") as trace:
        connection = pq.PGconn.connect_start(conninfo)
        try:
            connection.trace(trace.fileno())
            _connect(connection, time.monotonic() + _PATIENCE)
            connection.untrace()
        except psycopg.Error:
            return None  # no address, or no trace on this system
        finally:
            connection.finish()
        trace.seek(0)
        codes = _CODE.findall(trace.read())
    return codes[-1].decode() if codes else None


def _connect(connection: pq.abc.PGconn, deadline: float) -> None:
    while (left := deadline - time.monotonic()) > 0:
        status = connection.connect_poll()
        if status == pq.PollingStatus.READING:
            select.select([connection.socket], [], [], left)
        elif status == pq.PollingStatus.WRITING:
            select.select([], [connection.socket], [], left)
        else:
            return
