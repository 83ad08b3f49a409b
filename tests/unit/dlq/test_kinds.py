"""Which letters of a batch are of one kind."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dlq import headers as h
from dlq.letter import Letter
from dlq.template import Slot, Template
from dlq.writing import LetterWriter
from tests.unit.dlq.dead_letters import NOW_MS, kinds, record, rejection, told, written
from tidegate.config.queue import DeadLetterConfig
from tidegate.record import Stage, TopicPartition
from tidegate.stages.batch import Reason

SAME = rejection(1, stage=Stage.VALIDATE, reasons=(Reason("RuleViolation", "expected 0 to 9", "range(n)", "n", "17"),))


def test_what_was_found_makes_no_kind() -> None:
    """The same failure of several records is one kind, whatever was there, and each letter tells its own."""
    made = kinds()
    other = replace(SAME, offset=2, reasons=(replace(SAME.reasons[0], found="-3"),))
    first, second = Letter.of(SAME, record(1), made), Letter.of(other, record(2, key=None), made)
    assert first.kind is second.kind
    assert [told(one).reasons[0].found for one in (first, second)] == ["17", "-3"]
    assert [told(one).origin.offset for one in (first, second)] == [1, 2]


@pytest.mark.parametrize(
    "changed",
    [
        {"stage": Stage.HANDLE},
        {"attempt": 2},
        {"stack": "at line 1"},
        *(
            {"reasons": (replace(SAME.reasons[0], **{name: "x"}),)}
            for name in ("error_type", "message", "rule", "field")
        ),
    ],
    ids=str,
)
def test_another_failure_is_another_kind(changed: dict[str, object]) -> None:
    """Whatever else is said of a record, or of a record of another partition, is not taken for the same."""
    made = kinds()
    kind = Letter.of(SAME, record(1), made).kind
    assert Letter.of(replace(SAME, **changed), record(1), made).kind is not kind
    assert Letter.of(SAME, record(1, tp=TopicPartition("flights", 2)), made).kind is not kind
    assert Letter.of(SAME, record(1, timestamp_type="CreateTime"), made).kind is not kind


def test_a_replay_is_of_its_own_kind() -> None:
    """A replay that fails as a record beside it does has its first failure, and the record beside it does not."""
    made = kinds(NOW_MS + 1000)
    replayed = tuple(written(Letter.of(SAME, record(1), kinds())).headers)
    plain, again = Letter.of(SAME, record(5), made), Letter.of(SAME, record(6, headers=replayed), made)
    assert again.kind is not plain.kind
    assert [one.kind.first_failure for one in (plain, again)] == [NOW_MS + 1000, NOW_MS]
    assert dict(written(again).headers)[h.ORIGIN_OFFSET] == b"1"


@pytest.mark.parametrize("size", [0, 1, 63, 64, 4_095, 4_096, 4_097, 8_191, 8_192])
def test_what_a_letter_has_of_its_own_is_of_any_length(size: int) -> None:
    """However many bytes the length takes, both forms have the same headers."""
    template = Template([("own", Slot.REASONS), ("shared", b"x" * size)], [("last", Slot.ID)])
    values = template.values("i" * size, b"r" * size, 7, None)
    wanted = [("own", b"r" * size), ("shared", b"x" * size), ("last", b"i" * size)]
    assert list(template.pack((), values, [])) == template.fill((), values, []) == wanted


def test_letters_of_a_kind_share_their_bytes() -> None:
    """What letters of one kind have in common is put into Kafka's form once for a batch, and is in memory once."""
    made, writer = kinds(), LetterWriter(DeadLetterConfig())
    pieces = [writer.packed(Letter.of(SAME, record(offset), made))[2].pieces for offset in (1, 2)]
    shared = [one for one, other in zip(*pieces, strict=True) if one is other]
    assert sum(map(len, shared)) > sum(map(len, pieces[0])) / 2
