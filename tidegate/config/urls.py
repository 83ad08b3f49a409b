"""What a database's URL looks like.

It is read by SQLAlchemy, by libpq and by those who mask its password, and each finds another password in a URL that has
plain `/`, `@`, `#` or `?` in it: what one of them takes for the host would be shown. So such characters must be written as
%2F, %40, %23 and %3F, and the port must be one.
"""

from __future__ import annotations

import re
from typing import Final

_ESCAPED: Final = "%[0-9A-Fa-f]{2}"
_PLAIN: Final = rf"(?:[^\s%:/?#\[\]@]|{_ESCAPED})*"
_PASSWORD: Final = rf"(?:[^\s%/?#\[\]@]|{_ESCAPED})*"  # it may have a colon
_HOST: Final = rf"(?:\[[0-9A-Fa-f:.]+\]|{_PLAIN})"
_POSTGRES: Final = re.compile(
    rf"postgres(?:ql)?(?:\+psycopg)?://(?=\S)(?:{_PLAIN}(?::{_PASSWORD})?@)?{_HOST}(?::(\d{{1,5}}))?(?:/{_PLAIN})?(?:\?[^\s#]*)?"
)
_SQLITE: Final = re.compile(r"sqlite:///.+")

POSTGRES_URL: Final = "postgresql://user:password@host:5432/database"
SQLITE_URL: Final = "sqlite:///path/of/file"
ENCODED: Final = "in user and password / ? # @ % are written %2F %3F %23 %40 %25"


def is_postgres_url(url: str) -> bool:
    found = _POSTGRES.fullmatch(url)
    return found is not None and (found[1] is None or 0 < int(found[1]) < 65536)


def is_index_url(url: str) -> bool:
    """Whether it names a PostgreSQL database or a SQLite file."""
    return is_postgres_url(url) or _SQLITE.fullmatch(url) is not None
