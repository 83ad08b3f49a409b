"""Nobody is asked twice: answers that are known are taken, and the handlers are asked for the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidegate.arrow import where
from tidegate.errors import ConfigError
from tidegate.record import TopicPartition
from tidegate.stages.batch import Answers, RawBatch, Rejection
from tidegate.stages.eventtime import longs
from tidegate.stages.handle.chain import HandlerChain
from tidegate.stages.handle.step import Handled
from tidegate.stages.types import OFFSET
from tidegate.stages.windows import Longs

_WAY_OUT = "start once with the pipeline file as it was before the last stop, then change it"


@dataclass(frozen=True, slots=True)
class Asked:
    """`handled`: known and fresh together. `answers`: the same, for a repeat; None when nobody was asked."""

    handled: Handled
    answers: Answers | None


def ask(chain: HandlerChain, rows: pa.Table, raw: RawBatch, after: int, known: Answers | None) -> Asked:
    """What becomes of `rows` (as HandlerChain.apply takes them), which are what is left of `raw`, the records after `after`.

    1. rows with a known answer take it: refused, left out, or as the handlers gave them back
    2. the others go through the handlers
    3. both together, in offset order

    Raises ConfigError when the known answers are of another pipeline file: for other columns, or, being settled, not for
    each row that they must be for.
    """
    recalled = _Recalled.of(chain, rows, raw.tp, known)
    rest = rows if recalled is None else where(rows, ~recalled.answered)
    fresh = chain.apply(rest, raw.tp)
    rejected, filtered, out = fresh.rejected, _left_out(rest, fresh), fresh.rows
    if recalled is not None:
        rejected = sorted([*recalled.rejected, *rejected], key=lambda one: one.offset)
        filtered = np.sort(np.concatenate([recalled.filtered, filtered]))
        out = recalled.beside(out, rows)
    of_handlers = chain.asks or (known is not None and known.rows is not None)
    answers = None
    if of_handlers or rejected:
        given = out.select([*chain.output_schema.names, OFFSET]) if of_handlers else None
        answers = Answers(after, raw.last, given, {one.offset: one for one in rejected}, filtered)
    return Asked(Handled(out, rejected, len(filtered)), answers)


@dataclass(frozen=True, slots=True)
class _Recalled:
    """The known answers for some rows. `answered`: a mask over them."""

    answered: NDArray[np.bool_]
    rejected: list[Rejection]
    filtered: Longs
    accepted: NDArray[np.bool_]
    rows: pa.Table | None

    @classmethod
    def of(cls, chain: HandlerChain, rows: pa.Table, tp: TopicPartition, known: Answers | None) -> _Recalled | None:
        """None when nothing is known of any of the rows."""
        if known is None:
            return None
        offsets = longs(rows.column(OFFSET))
        rejected = np.isin(offsets, np.fromiter(known.rejected, np.int64, len(known.rejected)))
        filtered = np.isin(offsets, known.filtered)
        accepted, kept = np.zeros(len(offsets), np.bool_), None
        if known.rows is not None:
            _require_columns(chain, tp, known)
            given = longs(known.rows.column(OFFSET))
            accepted = np.isin(offsets, given) & ~rejected
            kept = known.rows.take(pa.array(np.searchsorted(given, offsets[accepted])))
        answered = rejected | filtered | accepted
        if known.settled and (chain.asks or known.rows is not None):
            _require_all(offsets[~answered], tp, known)
        if not answered.any():
            return None
        refusals = [known.rejected[offset] for offset in offsets[rejected].tolist()]
        return cls(answered, refusals, offsets[filtered], accepted, kept)

    def beside(self, fresh: pa.Table, rows: pa.Table) -> pa.Table:
        """What the handlers gave back then, with what travels beside from `rows`, and what came out now."""
        if self.rows is None or not self.accepted.any():
            return fresh
        carried = where(rows, self.accepted)
        from_then = set(self.rows.column_names)
        columns = [(self.rows if name in from_then else carried).column(name) for name in fresh.column_names]
        table = pa.Table.from_arrays(columns, schema=fresh.schema)
        return table if not len(fresh) else pa.concat_tables([table, fresh]).sort_by(OFFSET)


def _left_out(given: pa.Table, handled: Handled) -> Longs:
    """The offsets that the handlers left out on purpose."""
    if not handled.filtered:
        return np.empty(0, np.int64)
    rejected = np.array([one.offset for one in handled.rejected], np.int64)
    return np.setdiff1d(longs(given.column(OFFSET)), np.concatenate([longs(handled.rows.column(OFFSET)), rejected]))


def _require_columns(chain: HandlerChain, tp: TopicPartition, known: Answers) -> None:
    assert known.rows is not None
    found, wanted = known.rows.drop_columns([OFFSET]).schema, chain.output_schema
    if [(f.name, f.type) for f in found] != [(f.name, f.type) for f in wanted]:
        raise ConfigError(
            f"the batch of {tp} up to offset {known.upto} was half written, and the handlers' columns have changed since",
            field="handlers",
            value=", ".join(f"{f.name} {f.type}" for f in wanted),
            expected=", ".join(f"{f.name} {f.type}" for f in found),
            hint=_WAY_OUT,
        )


def _require_all(unanswered: Longs, tp: TopicPartition, known: Answers) -> None:
    """A record of the stretch that did not reach the handlers then must not reach them now."""
    strange = unanswered[(unanswered > known.after) & (unanswered <= known.upto)]
    if len(strange):
        raise ConfigError(
            f"the batch of {tp} up to offset {known.upto} was half written, and offset {strange[0]} did not reach the "
            "handlers then: the schema, the rules or the handlers have changed since",
            hint=_WAY_OUT,
        )
