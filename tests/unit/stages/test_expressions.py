"""Expressions: one scalar SQL expression over one record, the same today and tomorrow."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from tidegate.errors import ConfigError
from tidegate.stages.expressions import columns_of, infer_type
from tidegate.stages.sql import connect

SCHEMA = pa.schema(
    [
        ("amount", pa.int64()),
        ("price", pa.decimal128(10, 2)),
        ("name", pa.string()),
        ("ts", pa.timestamp("us")),
        ("at", pa.timestamp("us")),
        ("tags", pa.list_(pa.int32())),
        ("address", pa.struct([("city", pa.string())])),
    ]
)


@pytest.mark.parametrize(
    ("expression", "type_"),
    [
        ("amount + 1", pa.int64()),
        ("AMOUNT > 1 -- with a comment", pa.bool_()),
        ("price * 2 > 1.5 AND NOT (name IS NULL OR name LIKE 'a%')", pa.bool_()),
        ("amount BETWEEN 1 AND 2 OR amount IN (4, 5)", pa.bool_()),
        ("CASE WHEN amount > 1 THEN 'many' ELSE name END", pa.string()),
        ("address.city", pa.string()),
        ("tags[1]", pa.int32()),
        ("list_transform(tags, lambda t: t + amount)", pa.list_(pa.field("l", pa.int64()))),
        ("[t FOR t IN tags IF t > 2]", pa.list_(pa.field("l", pa.int32()))),
        ("split_part(name, ' ', 1) || upper(name)", pa.string()),
        ("date_trunc('hour', ts)", pa.timestamp("us")),
        ('CAST("at" AS DATE)', pa.date32()),
        ("TRY_CAST(name AS INTEGER)", pa.int32()),
        ("age(ts, TIMESTAMP '2024-01-01') > INTERVAL 1 DAY", pa.bool_()),
        ("regexp_matches(name, '^a')", pa.bool_()),
    ],
)
def test_a_scalar_expression_has_a_type(expression: str, type_: pa.DataType) -> None:
    """Whatever sees one record only is accepted, and typed against the schema."""
    assert infer_type(expression, SCHEMA, field="x") == type_


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "is empty"),
        ("amount +", "does not parse"),
        ("amount) + (amount", "does not parse"),
        ("amount /* open", "does not parse"),
        ("amount;", "does not parse"),
        ("amount; SELECT 1", "2 statements"),
        ("1; DROP TABLE rows", "another statement"),
        ("amount, name", "2 expressions"),
        ("amount FROM rows", "does not parse"),
        ("amount ORDER BY 1", "does not parse"),
        ("(SELECT 1)", "a subquery"),
        ("amount IN (SELECT 1)", "a subquery"),
        ("EXISTS (SELECT 1)", "a subquery"),
        ("sum(amount)", r"an aggregate \(sum\)"),
        ("count(*)", "an aggregate"),
        ("wavg(amount, amount)", r"an aggregate \(wavg\)"),
        ("row_number() OVER ()", "a window function"),
        ("unnest(tags)", r"a table function \(unnest\)"),
        ("read_text('/etc/passwd')", "a table function"),
        ("*", "a star"),
        ("COLUMNS('a.*')", "a star"),
        ("?", "a parameter"),
        ("#1", "a position"),
        ("at > '2024-01-01'", 'write "at" in double quotes'),
        ("amuont > 1", "did you mean 'amount'"),
        ("nmae", "did you mean 'name'"),
        ('name = "abc"', "single quotes: 'abc'"),
        ("lwer(name)", "did you mean lower"),
        ("list_transform(tags, lambda t: u)", "there is no column 'u'"),
        ("amount + name", "No function matches"),
        ("address.town", "town"),
    ],
)
def test_what_is_no_scalar_expression_over_the_columns_is_refused(expression: str, message: str) -> None:
    """Queries, aggregates, unknown names and bad types are configuration errors that say so."""
    with pytest.raises(ConfigError, match=message) as caught:
        infer_type(expression, SCHEMA, field="rules[0].expression")
    assert caught.value.field == "rules[0].expression"


@pytest.mark.parametrize(
    "expression",
    [
        "now()", "today()", "current_timestamp", "current_date", "localtime", "get_current_timestamp()", "random()",
        "uuid()", "gen_random_uuid()", "nextval('s')", "current_setting('threads')", "getvariable('x')", "user",
        "current_user", "version()", "txid_current()", "age(ts)", "ago(INTERVAL 1 DAY)", "pg_sleep(1)",
        "pg_get_viewdef(1)", "amount + CAST(random() AS BIGINT)", "list_transform(tags, lambda t: t + random())",
    ],
)  # fmt: skip
def test_what_could_differ_tomorrow_is_refused(expression: str) -> None:
    """Nothing may read the clock, chance, the session or the installation, nor hide it in a macro or a lambda."""
    with pytest.raises(ConfigError, match="results depend on the log alone"):
        infer_type(expression, SCHEMA, field="x")


def test_the_environment_is_not_reachable() -> None:
    """The function that reads environment variables does not exist here."""
    with pytest.raises(ConfigError, match="no function getenv"):
        infer_type("getenv('HOME')", SCHEMA, field="x")


def test_a_column_called_like_a_clock_is_a_column() -> None:
    """A record's own field may be called `user`."""
    assert infer_type('"user"', pa.schema([("user", pa.string())]), field="x") == pa.string()


def test_columns_of_an_expression_are_those_it_looks_at() -> None:
    """Whatever the case, nested fields count as their column, lambda parameters do not."""
    assert columns_of(["ADDRESS.city = 'x' AND len([t FOR t IN tags]) > amount"], SCHEMA) == [
        "amount",
        "tags",
        "address",
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "SET threads = 4",
        "SELECT * FROM read_text('/etc/passwd')",
        "INSTALL httpfs",
        "LOAD httpfs",
        "ATTACH '/tmp/x.db'",
    ],
)
def test_the_database_reaches_nothing_outside(statement: str) -> None:
    """Files, extensions and settings are out of reach for any SQL that gets this far."""
    con = connect()
    with pytest.raises(duckdb.Error):
        con.execute(statement)
    con.close()
