"""regex: the whole value matches."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from tidegate.config.stages import Regex
from tidegate.errors import ConfigError
from tidegate.stages.rules.base import ColumnCheck
from tidegate.stages.sql import connect, literal


class RegexCheck(ColumnCheck[Regex]):
    """RE2, matched from the first character to the last: `[a-z]+` does not match "ab\\n". A null passes."""

    label = "regex"

    def fit(self) -> None:
        if not pa.types.is_string(self.type):
            raise self.does_not_fit("a string column")
        con = connect()
        try:
            con.execute(f"SELECT {self._match(literal(''))}").fetchall()
        except duckdb.Error as error:
            raise ConfigError(
                f"the pattern does not compile: {str(error).splitlines()[0]}",
                field=f"{self.at}.pattern",
                value=self.rule.pattern,
                expected="a regular expression of RE2 (no look-around, no back-references)",
            ) from error
        finally:
            con.close()

    def _match(self, value: str) -> str:
        return f"regexp_full_match({value}, {literal(self.rule.pattern)})"

    @property
    def condition(self) -> str:
        return f"coalesce({self._match(self.value)}, TRUE)"

    @property
    def expectation(self) -> str:
        return f"expected a match of {self.rule.pattern}"
