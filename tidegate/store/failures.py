"""What a database error means: the row's fault, another writer, an outage, or a set-up that is not what was checked."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import psycopg
from sqlalchemy.exc import DBAPIError

from tidegate.errors import ConfigError, LoginRefused, StoreUnavailable, TidegateError
from tidegate.store.login import login_is_refused


class Failure(Enum):
    REFUSED = "a value that the database does not hold"
    CONFLICT = "two transactions in each other's way: once more may do"
    AWAY = "the database is away, too slow, full or read-only"
    LOGIN = "the server does not take this user, password or database name"
    SETUP = "a table or right that prepare() found is gone"


# SQLSTATE classes. 22 data exception, 23 integrity, 44 check option, 54 program limit (an index entry too long).
_REFUSED_CLASSES = ("22", "23", "44", "54")
_CONFLICTS = ("40001", "40P01")  # serialization failure, deadlock
_SETUP_CLASSES = ("42", "3D", "3F", "0A")  # undefined table or column, no right, no such database or schema

_NOT_CONNECTED = "connection failed: "  # psycopg's own words; what follows is libpq's, in the language of its user


def driver_error(error: BaseException) -> BaseException:
    """The driver's own error inside SQLAlchemy's."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def failure_of(error: BaseException) -> Failure:
    """By class and SQLSTATE; by text only where there is neither."""
    error = driver_error(error)
    if isinstance(error, sqlite3.Error):
        return _sqlite_failure(error)
    if login_is_refused(error):
        return Failure.LOGIN
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is None:
        # No answer from the server: a lost or never made connection, or a value that the client could not even send.
        return Failure.REFUSED if isinstance(error, psycopg.DataError) else Failure.AWAY
    if state.startswith(_REFUSED_CLASSES):
        return Failure.REFUSED
    if state in _CONFLICTS:
        return Failure.CONFLICT
    return Failure.SETUP if state.startswith(_SETUP_CLASSES) else Failure.AWAY


def _sqlite_failure(error: sqlite3.Error) -> Failure:
    if isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError)):
        return Failure.REFUSED
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_TOOBIG:
        return Failure.REFUSED
    return Failure.SETUP if code == sqlite3.SQLITE_ERROR else Failure.AWAY


@contextmanager
def at_the_start(field: str) -> Iterator[None]:
    """A login that is refused before anything was done is a mistake in a setting, and not waited for. `field`: which."""
    try:
        yield
    except LoginRefused as error:
        raise ConfigError(
            str(error).splitlines()[0],
            field=field,
            expected="a user, a password and a database that this server knows",
            hint="try the same URL with psql",
        ) from error


def public_error(error: BaseException, where: str) -> TidegateError:
    """The error of the contract for a driver's error that no retry or bisection resolved. `where` names the store."""
    shown = str(driver_error(error)).strip() or type(driver_error(error)).__name__
    if failure_of(error) is Failure.SETUP:
        return ConfigError(
            f"{where} is not what it was when the pipeline started: {shown}",
            hint="check the tables and the rights of this user, then start again: missing tables are created",
        )
    if failure_of(error) is Failure.LOGIN:
        return LoginRefused(
            f"{where} refuses the login: {shown.splitlines()[0].rpartition('failed: ')[2].removeprefix('FATAL:').strip()}\n"
            "  hint:     check the user, the password and the database's name in its URL"
        )
    if shown.startswith(_NOT_CONNECTED):
        return StoreUnavailable(
            f"{where} takes no connection: {shown.removeprefix(_NOT_CONNECTED).splitlines()[0]}\n"
            "  hint:     check that the server is up, and that the address in its URL is the server's"
        )
    return StoreUnavailable(f"{where}: {shown}")
