"""Database URLs: whoever reads one that is accepted finds the same password in it."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url

from tidegate.config.urls import is_index_url, is_postgres_url

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(_TEXT, _TEXT, st.integers(1, 65535))
@example("u", "to/p@ss#w?rd:%41 ", 5432)
def test_what_is_written_with_escapes_is_read_alike_by_all(user: str, password: str, port: int) -> None:
    """SQLAlchemy, which connects, libpq, which `check --live` asks, and urlsplit, by which secrets are masked."""
    url = f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@h:{port}/db"
    assert is_postgres_url(url)
    assert is_index_url(url)
    found, parts = make_url(url), urlsplit(url)
    assert (found.username, found.password, found.port) == (user, password, port)
    asked = conninfo_to_dict(url)
    assert (asked["user"], asked["password"], int(str(asked["port"]))) == (user, password, port)
    assert (unquote(parts.password or ""), parts.hostname) == (password, "h")


@given(st.text("abc:@/?#%&[]1", min_size=1, max_size=12))
def test_what_is_accepted_is_read_alike(rest: str) -> None:
    """Whatever stands between scheme and database: if it is let through, all find the same host in it."""
    url = f"postgresql://{rest}/db"
    if not is_postgres_url(url):
        return
    found, parts = make_url(url), urlsplit(url)
    assert (found.host or None) == (parts.hostname or None)
    assert found.password == (None if parts.password is None else unquote(parts.password))
    assert (conninfo_to_dict(url).get("host") or None) == (found.host and unquote(found.host))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://localhost/postgres", "postgres://h", "postgresql+psycopg://u@h:5432/db", "postgresql:///db",
        "postgresql://u:p:q@[::1]:5432/db", "postgresql:///db?host=/var/run/postgresql&user=u", "postgresql://u:p!$&*+,;=~@h/d-b",
    ],
)  # fmt: skip
def test_usual_forms_are_accepted(url: str) -> None:
    """Without user, port or database, with a socket, an IPv6 address, options, or what needs no escape."""
    assert is_postgres_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql://h:0/db",
        "postgresql://h:65536/db",
        "postgresql://a:1,b:2/db",
        "postgresql://[1]/db",
        "postgresql://u:%ff@h/db",
    ],
)
def test_others_are_not(url: str) -> None:
    """No host, a port or an address that is none, several hosts, which SQLAlchemy does not take in this form, no UTF-8."""
    assert not is_postgres_url(url)
