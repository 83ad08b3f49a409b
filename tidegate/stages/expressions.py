"""SQL expressions of the pipeline file: parsed, checked to be scalar and repeatable, and typed against the schema.

A result must depend on the log alone, so an expression sees one record: no subquery, aggregate, window or table
function, and nothing that reads the clock, chance or the environment. DuckDB parses it (`json_serialize_sql`) and says
which functions are consistent; the walk below lets through only the kinds of node it knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from tidegate.errors import ConfigError
from tidegate.stages.sql import connect, query
from tidegate.stages.types import nearest_name, type_name

_Node = dict[str, Any]

_ALLOWED = frozenset(
    (
        "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION",
        "LAMBDA", "OPERATOR", "TYPE",
    )
)  # fmt: skip
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a position",
    "DEFAULT": "DEFAULT",
}
# DuckDB calls these consistent, or they look like columns to its parser; yet they read the clock or the installation.
_ENVIRONMENT = frozenset(
    (
        "current_catalog", "current_date", "current_localtime", "current_localtimestamp", "current_role",
        "current_schema", "current_time", "current_timestamp", "current_user", "getenv", "localtime",
        "localtimestamp", "rowid", "session_user", "user", "version",
    )
)  # fmt: skip
_REPEATABLE = "results depend on the log alone, so that a restart and the other engine give the same numbers"
_CLOCK_HINT = f"use a column of the record instead; {_REPEATABLE}"


def parenthesised(expression: str) -> str:
    """The expression as a part of a larger one. The line break ends a `--` comment in it."""
    return f"({expression}\n)"


def infer_type(expression: str, schema: pa.Schema, *, field: str) -> pa.DataType:
    """The Arrow type of a scalar SQL expression over the columns of `schema`.

    Raises ConfigError, naming `field` and the expression, when it does not parse, is no single scalar expression, uses
    an unknown column or function, or could give another answer tomorrow.
    """
    con = connect()
    try:
        _check(_parse(con, expression, schema, field), expression, schema, field)
        try:
            typed = query(con, f"SELECT {parenthesised(expression)} AS x FROM rows", rows=schema.empty_table())
        except duckdb.Error as error:
            raise ConfigError(_first_line(error), field=field, value=expression, expected=_columns(schema)) from error
        return typed.schema.field(0).type
    finally:
        con.close()


def columns_of(expressions: Iterable[str], schema: pa.Schema) -> list[str]:
    """The columns of `schema` that any of these looks at, in the schema's order; `infer_type` has accepted each of them."""
    con = connect()
    try:
        used = set[str]().union(*(_column_names(_parse(con, one, schema, "expression")) for one in expressions))
    finally:
        con.close()
    return [name for name in schema.names if name.lower() in used]


def _column_names(node: _Node) -> set[str]:
    here = {node["column_names"][0].lower()} if node["class"] == "COLUMN_REF" else set()
    return here.union(*(_column_names(child) for child in _nodes(node)))


def _parse(con: duckdb.DuckDBPyConnection, expression: str, schema: pa.Schema, field: str) -> _Node:
    """The syntax tree of the one expression. It must parse as it stands and in parentheses: `a) + (b` does only one."""
    selects = [_select(con, text, expression, schema, field) for text in (expression, parenthesised(expression))]
    select = selects[0]
    clauses = ("where_clause", "having", "sample", "qualify", "group_expressions", "modifiers")
    extra = any(select.get(clause) for clause in clauses) or select["cte_map"]["map"]
    if select["type"] != "SELECT_NODE" or extra or select["from_table"]["type"] != "EMPTY":
        raise _not_scalar(expression, field, "a query")
    if len(select["select_list"]) != 1:
        raise _not_scalar(expression, field, f"{len(select['select_list'])} expressions")
    node: _Node = select["select_list"][0]
    if node.get("alias"):
        raise _not_scalar(expression, field, f"an alias ({node['alias']})")
    return node


def _select(con: duckdb.DuckDBPyConnection, text: str, expression: str, schema: pa.Schema, field: str) -> _Node:
    if not expression.strip():
        raise ConfigError(
            "the expression is empty",
            field=field,
            value=expression,
            expected="a SQL expression over the record's columns",
        )
    [(serialised,)] = con.execute("SELECT json_serialize_sql(?)", [f"SELECT {text}\n"]).fetchall()
    parsed = json.loads(serialised)
    if parsed["error"]:
        if "Only SELECT" in parsed["error_message"]:
            raise _not_scalar(expression, field, "another statement")
        raise ConfigError(
            f"the expression does not parse: {parsed['error_message'].splitlines()[0]}",
            field=field,
            value=expression,
            expected="a SQL expression over the columns of one record",
            hint=_reserved_word(con, expression, schema),
        )
    if len(parsed["statements"]) != 1:
        raise _not_scalar(expression, field, f"{len(parsed['statements'])} statements")
    node: _Node = parsed["statements"][0]["node"]
    return node


def _reserved_word(con: duckdb.DuckDBPyConnection, expression: str, schema: pa.Schema) -> str | None:
    """A column that is called like a word of SQL's, and so needs quotes: the usual reason for "syntax error near )"."""
    listed = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category IN ('reserved', 'type_function')"
    reserved = con.execute(listed).fetchall()
    words = {word.lower() for word in re.findall(r"\w+", expression)}
    for name in schema.names:
        if name.lower() in words and (name.lower(),) in reserved:
            return f'{name} is a word of SQL\'s own: write "{name}" in double quotes'
    return None


def _check(node: _Node, expression: str, schema: pa.Schema, field: str, bound: frozenset[str] = frozenset()) -> None:
    """Refuse whatever is not known to be scalar, repeatable and about this record; `bound`: lambda parameters."""
    kind = node["class"]
    if kind not in _ALLOWED or node["type"] == "GROUPING_FUNCTION":
        raise _not_scalar(expression, field, _REFUSED.get(kind) or node["type"])
    if kind == "COLUMN_REF":
        _check_column(node["column_names"][0], expression, schema, field, bound)
    elif kind == "FUNCTION":
        _check_function(node, expression, field)
    if kind == "LAMBDA":
        bound |= {
            column["column_names"][0].lower() for column in _nodes(node["lhs"], itself=True) if "column_names" in column
        }
    for child in _nodes(node):
        _check(child, expression, schema, field, bound)


def _nodes(node: object, *, itself: bool = False) -> Iterator[_Node]:
    """The expressions right below a node: whatever in it has a `class`."""
    if itself and isinstance(node, dict) and "class" in node:
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        if isinstance(child, dict) and "class" in child:
            yield child
        elif isinstance(child, dict | list):
            yield from _nodes(child)


def _check_column(name: str, expression: str, schema: pa.Schema, field: str, bound: frozenset[str]) -> None:
    if name.lower() in bound or name.lower() in {known.lower() for known in schema.names}:
        return
    if name.lower() in _ENVIRONMENT:
        raise _not_repeatable(f"{name} is not in the log", expression, field)
    nearest = nearest_name(name, tuple(schema.names))
    raise ConfigError(
        f"there is no column {name!r}",
        field=field,
        value=expression,
        expected=_columns(schema),
        hint=f"did you mean {nearest!r}?" if nearest else f"for the text, write it in single quotes: '{name}'",
    )


def _check_function(node: _Node, expression: str, field: str) -> None:
    name = node["function_name"].lower()
    kinds = _functions().get(name)
    if kinds is None:
        nearest = nearest_name(name, tuple(_functions()))
        raise ConfigError(
            f"there is no function {name}",
            field=field,
            value=expression,
            expected="a scalar function of DuckDB",
            hint=f"did you mean {nearest}?" if nearest else None,
        )
    if "aggregate" in kinds or node.get("filter") or node.get("distinct"):
        raise _not_scalar(expression, field, f"an aggregate ({name})")
    if not kinds & {"scalar", "macro"}:
        raise _not_scalar(expression, field, f"a table function ({name})")
    clock_default = name == "age" and len(node["arguments"]) == 1  # age(t) is age(today, t)
    if name in _ENVIRONMENT or "varies" in kinds or clock_default:
        raise _not_repeatable(f"{name} can give another answer tomorrow", expression, field)


@cache
def _functions() -> dict[str, frozenset[str]]:
    """What DuckDB knows of each function: scalar, macro, aggregate, table, and `varies` when it is not consistent.

    A macro takes over what the functions in its definition are.
    """
    con = connect()
    try:
        listed = con.execute(
            "SELECT function_name, function_type, stability, macro_definition, internal FROM duckdb_functions()"
        ).fetchall()
        kinds: dict[str, set[str]] = {}
        bodies: dict[str, list[str]] = {}
        for name, kind, stability, body, _ in listed:
            kinds.setdefault(name, set()).add(kind)
            if stability not in (None, "CONSISTENT"):
                kinds[name].add("varies")
            if kind == "macro" and body:
                bodies.setdefault(name, []).append(body)
        used = {name: [_used(con, body) for body in texts] for name, texts in bodies.items()}
    finally:
        con.close()
    for _ in range(3):  # macros that use macros that use macros
        for name, uses in used.items():
            for function in frozenset().union(*uses):
                kinds[name] |= kinds.get(function, {"varies"}) - {"scalar", "macro", "table"}
    return {name: frozenset(of) for name, of in kinds.items()}


def _used(con: duckdb.DuckDBPyConnection, body: str) -> frozenset[str]:
    """The functions in a macro's definition, and the clock's and session's words in it."""
    [(serialised,)] = con.execute("SELECT json_serialize_sql(?)", [f"SELECT {body}"]).fetchall()
    parsed = json.loads(serialised)
    if parsed["error"]:
        return frozenset(("not parsed",))
    found: set[str] = set()

    def visit(node: _Node) -> None:
        if node["class"] == "SUBQUERY":
            found.add("a subquery")
        if node["class"] == "FUNCTION":
            found.add(node["function_name"].lower())
        if node["class"] == "COLUMN_REF" and node["column_names"][0].lower() in _ENVIRONMENT:
            found.add("the environment")
        for child in _nodes(node):
            visit(child)

    for node in _nodes(parsed["statements"][0]["node"]):
        visit(node)
    return frozenset(found)


def _not_scalar(expression: str, field: str, what: str) -> ConfigError:
    return ConfigError(
        f"the expression contains {what}",
        field=field,
        value=expression,
        expected="one scalar expression over the columns of one record",
    )


def _not_repeatable(problem: str, expression: str, field: str) -> ConfigError:
    expected = "an expression of the record alone"
    return ConfigError(problem, field=field, value=expression, expected=expected, hint=_CLOCK_HINT)


def _columns(schema: pa.Schema) -> str:
    return "columns " + ", ".join(f"{column.name} ({type_name(column.type)})" for column in schema)


def _first_line(error: duckdb.Error) -> str:
    return str(error).splitlines()[0]
