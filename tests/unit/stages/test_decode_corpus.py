"""Bad records, each among good neighbours, through decode and rules."""

from __future__ import annotations

import pytest

from tests.corpus.records import BAD, GOOD, PIPELINE, Bad
from tests.unit.stages.records import raw
from tidegate.config.pipeline import Pipeline
from tidegate.stages.batch import Rejection
from tidegate.stages.decode import Decoder
from tidegate.stages.rules import RuleSet

CORPUS = Pipeline.model_validate(PIPELINE)
DECODER = Decoder(CORPUS)
RULES = RuleSet(CORPUS, DECODER.schema)


def _refused(values: list[bytes | None], keys: list[bytes | None]) -> tuple[list[Rejection], list[int]]:
    """What decode and rules refuse, and the offsets that pass both."""
    decoded = DECODER.decode(raw(values, keys=keys, first=0))
    checked = RULES.check(decoded.rows)
    passed = decoded.rows.filter(checked.passed).column("_offset").to_pylist()
    return [*decoded.rejected, *checked.rejected], passed


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_a_bad_record_is_refused_for_its_reason_and_its_neighbours_pass(bad: Bad) -> None:
    """Each record of the corpus gets its stage, error type, field and reason, and the good ones around it are not touched."""
    refused, passed = _refused([GOOD, bad.value, GOOD], [b"a", bad.key, b"b"])
    assert [one.offset for one in refused] == [1]
    assert passed == [0, 2]
    reason = refused[0].reasons[0]
    assert (refused[0].stage, reason.error_type, reason.field) == (bad.stage, bad.error_type, bad.field)
    assert bad.found is None or reason.found == bad.found
    assert reason.message
    assert bad.says in reason.message
    assert reason.found is None or (len(reason.found) <= 120 and reason.found.isprintable())


@pytest.mark.slow
def test_the_whole_corpus_in_one_batch_gives_the_same_verdicts() -> None:
    """A record's verdict does not depend on what else is in its batch."""
    values = [value for bad in BAD for value in (GOOD, bad.value)]
    keys = [key for bad in BAD for key in (b"k", bad.key)]
    refused, passed = _refused(values, keys)
    singly = [_refused([bad.value], [bad.key])[0][0].reasons for bad in BAD]
    assert passed == list(range(0, len(values), 2))
    by_offset = {one.offset: one.reasons for one in refused}
    assert [by_offset[index * 2 + 1] for index in range(len(BAD))] == singly
