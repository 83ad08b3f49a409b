"""What a database's URL looks like.

It is read by SQLAlchemy, by libpq and by those who mask its password, and each finds another password in a URL that has
plain `/`, `@`, `#` or `?` in it: what one of them takes for the host would be shown. So such characters must be written as
%2F, %40, %23 and %3F, and the port must be one.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import unquote

_ESCAPED: Final = "%[0-9A-Fa-f]{2}"
_PLAIN: Final = rf"(?:[^\s%:/?#\[\]@]|{_ESCAPED})*"
_PASSWORD: Final = rf"(?:[^\s%/?#\[\]@]|{_ESCAPED})*"  # it may have a colon
_VALUE: Final = rf"(?:[^\s%?#@&=]|{_ESCAPED})*"
_OPTION: Final = rf"[a-z_]+={_VALUE}"
_HOST: Final = rf"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|{_PLAIN})"
_POSTGRES: Final = re.compile(
    rf"postgres(?:ql)?(?:\+psycopg)?://(?=\S)(?:{_PLAIN}(?::{_PASSWORD})?@)?{_HOST}(?::(?P<port>\d{{1,5}}))?"
    rf"(?:/{_PLAIN})?(?:\?{_OPTION}(?:&{_OPTION})*)?"
)
_SQLITE: Final = re.compile(r"sqlite:///.+")

POSTGRES_URL: Final = "postgresql://user:password@host:5432/database"
SQLITE_URL: Final = "sqlite:///path/of/file"
ENCODED: Final = "in user and password / ? # @ % are written %2F %3F %23 %40 %25"


def is_postgres_url(url: str) -> bool:
    """Whether all who read it take it, and find the same in it. (Only libpq knows what its options are.)"""
    found = _POSTGRES.fullmatch(url)
    if found is None:
        return False
    try:
        unquote(url, errors="strict")
        if found["address"] is not None:
            IPv6Address(found["address"])
    except ValueError:
        return False
    return found["port"] is None or 0 < int(found["port"]) < 65536


def is_index_url(url: str) -> bool:
    """Whether it names a PostgreSQL database or a SQLite file."""
    return is_postgres_url(url) or _SQLITE.fullmatch(url) is not None
