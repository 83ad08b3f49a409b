"""All rules of a pipeline over one batch: one query, the verdicts, and what each rule counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidegate.config.pipeline import Pipeline
from tidegate.config.stages import AllowedValues, Expect, Length, NotNull, Range, Regex
from tidegate.errors import ConfigError, PipelineAborted
from tidegate.record import Stage
from tidegate.stages.batch import Reason, Rejection, RuleTally
from tidegate.stages.prepared import Prepared
from tidegate.stages.rules.allowed_values import AllowedValuesCheck
from tidegate.stages.rules.base import Check
from tidegate.stages.rules.expect import ExpectCheck
from tidegate.stages.rules.length import LengthCheck
from tidegate.stages.rules.not_null import NotNullCheck
from tidegate.stages.rules.range import RangeCheck
from tidegate.stages.rules.regex import RegexCheck
from tidegate.stages.sql import connect, query
from tidegate.stages.types import OFFSET

CHECKS: dict[type, type[Check[Any]]] = {
    NotNull: NotNullCheck,
    Range: RangeCheck,
    Regex: RegexCheck,
    AllowedValues: AllowedValuesCheck,
    Length: LengthCheck,
    Expect: ExpectCheck,
}

MAX_SAMPLES = 10  # failures shown per rule and batch
_NOT_EVALUATED = "cannot be evaluated for this record"

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Checked:
    """`passed`: a flag per row. `rejected`: in offset order, with all their failed rules. `tallies`: one per rule."""

    passed: Flags
    rejected: list[Rejection]
    tallies: dict[str, RuleTally]


@dataclass(frozen=True, slots=True)
class _Verdict:
    """One rule on one batch: which rows failed, and for which of those the expression itself broke down."""

    failed: Flags
    broke: Flags


class RuleSet:
    """The rules of a pipeline, compiled. Not for use by two threads at once.

    Raises ConfigError when a rule does not fit the schema.
    """

    def __init__(self, pipeline: Pipeline, schema: pa.Schema) -> None:
        rules = enumerate(pipeline.rules)
        self.checks: list[Check[Any]] = [CHECKS[type(rule)](rule, schema, f"rules[{index}]") for index, rule in rules]
        self.names = _names(self.checks)
        self._columns = [name for name in schema.names if any(name in check.columns for check in self.checks)]
        self._con = connect()
        self._try_out(schema)
        self._flags = Prepared(self._con, lambda table: self._sql(table, "{}"))
        self._tried_flags = Prepared(self._con, lambda table: self._sql(table, "TRY({})"))

    def check(self, rows: pa.Table) -> Checked:
        """Judge every row by every rule. `rows` has the schema's columns and `_offset`.

        1. one query gives a flag per row and rule
        2. a rule that says `abort` and failed anywhere: PipelineAborted, with the first such record
        3. rules that say `deadLetter` reject; a record keeps all of those it failed
        4. every rule counts its failures, with the first ten as samples
        """
        tallies = {
            name: RuleTally(check.severity, check.on_failure == "deadLetter")
            for name, check in zip(self.names, self.checks, strict=True)
        }
        passed = np.ones(len(rows), dtype=bool)
        if not self.checks or not len(rows):
            return Checked(passed, [], tallies)
        verdicts = self._verdicts(rows)
        offsets, reasons = rows.column(OFFSET).to_numpy(), dict[int, tuple[Reason, ...]]()
        for name, check, verdict in zip(self.names, self.checks, verdicts, strict=True):
            failing = np.flatnonzero(verdict.failed)
            if not len(failing):
                continue
            if check.on_failure == "abort":
                raise self._abort(name, check, rows, verdict, int(failing[0]))
            tally = tallies[name]
            told = failing if tally.rejects else failing[:MAX_SAMPLES]
            found = self._describe(name, check, rows, verdict, told)
            at = offsets[told].tolist()
            tally.failures = len(failing)
            tally.samples = [(offset, one.found or "") for offset, one in zip(at[:MAX_SAMPLES], found, strict=False)]
            if tally.rejects:
                passed[failing] = False
                if not reasons:  # as a rule no other has failed
                    reasons = dict(zip(at, zip(found), strict=True))
                    continue
                for offset, reason in zip(at, found, strict=True):
                    reasons[offset] = (*reasons.get(offset, ()), reason)
        return Checked(passed, [Rejection(at, Stage.VALIDATE, reasons[at]) for at in sorted(reasons)], tallies)

    def _try_out(self, schema: pa.Schema) -> None:
        """Run each condition on no rows, so that what only DuckDB can refuse (a number of 50 digits) is refused now."""
        for check in self.checks:
            try:
                query(self._con, f"SELECT {check.condition} AS c FROM rows", rows=schema.empty_table())
            except duckdb.Error as error:
                problem = str(error).splitlines()[0]
                raise ConfigError(
                    f"the rule cannot be run: {problem}", field=check.at, value=check.condition
                ) from error

    def _verdicts(self, rows: pa.Table) -> list[_Verdict]:
        # A table without columns has no rows for DuckDB, so `_offset` is always there.
        judged = rows.select([*self._columns, OFFSET])
        try:
            flags = self._flags.run(judged)
        except duckdb.Error:
            # A cast or an overflow in an expression broke the query. TRY gives NULL for just those rows; it is not used
            # in the first place because it evaluates row by row.
            flags = self._tried_flags.run(judged)
        verdicts = []
        for flag in flags.columns:
            broke = flag.is_null().to_numpy()
            verdicts.append(_Verdict(~pc.fill_null(flag, False).to_numpy(), broke))
        return verdicts

    def _sql(self, rows: str, form: str) -> str:
        """A column per rule, TRUE where a row passes; nothing is null, except where TRY caught an error."""
        conditions = [form.format(f"({check.condition}) IS TRUE") for check in self.checks]
        selected = ", ".join(f"{condition} AS c{index}" for index, condition in enumerate(conditions))
        return f"SELECT {selected} FROM {rows}"

    def _describe(
        self, name: str, check: Check[Any], rows: pa.Table, verdict: _Verdict, indices: npt.NDArray[np.intp]
    ) -> list[Reason]:
        """The reason of each of the rows at `indices`, all of which failed."""
        found: Sequence[str | None] = [None] * len(indices)
        if check.columns:
            at = pa.array(indices)
            found = check.found([rows.column(name).take(at) for name in check.columns])
        expected, field = check.expectation, check.field or None
        broke = verdict.broke[indices]
        if not broke.any():
            return [Reason("RuleViolation", expected, name, field, one) for one in found]
        broken = f"{expected}, but it {_NOT_EVALUATED}"
        return [
            Reason("ExpressionError", broken, name, field, one)
            if is_broken
            else Reason("RuleViolation", expected, name, field, one)
            for one, is_broken in zip(found, broke.tolist(), strict=True)
        ]

    def _abort(self, name: str, check: Check[Any], rows: pa.Table, verdict: _Verdict, row: int) -> PipelineAborted:
        [reason] = self._describe(name, check, rows, verdict, np.array([row]))
        offset = rows.column(OFFSET)[row].as_py()
        found = f", found {reason.found}" if reason.found is not None else ""
        return PipelineAborted(f"rule {name!r} says `onFailure: abort`; offset {offset}: {reason.message}{found}")


def _names(checks: Sequence[Check[Any]]) -> list[str]:
    """The given names, else `type(column)`, with a number when that is taken."""
    names = [check.rule.name for check in checks]
    taken = {name for name in names if name is not None}
    for index, check in enumerate(checks):
        if names[index] is None:
            base = name = f"{check.label}({check.subject})"
            number = 1
            while name in taken:
                number += 1
                name = f"{base}#{number}"
            names[index] = name
            taken.add(name)
    return [name for name in names if name is not None]
