"""One source partition over a real local state: what is emitted, closed, corrected, forgotten; and restarts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.worker.pieces import SIZE, Partition, partition, plan_of, record
from worker import keys


def shown(rows: list[dict[str, Any]]) -> list[tuple[str, int, int, int, bool]]:
    """(key of the group, window start in s, count, revision, final)"""
    return [
        (row["group"]["k"], int(row["window"]["start"][17:19]), row["values"]["n"], row["revision"], row["final"])
        for row in rows
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_updates_are_emitted_with_every_batch_and_the_last_as_final(path: Path) -> None:
    """`emit: updates` gives a result whenever one changes; a window that closes in this very batch comes once, as final."""
    with partition(plan_of(), path) as p:
        p.take(record(0, 1_000), record(1, 2_000))
        p.take(record(2, 3_000))
        p.take(record(3, 4_000), record(4, SIZE + 1_000))
        assert shown(p.results()) == [
            ("a", 0, 2, 1, False),
            ("a", 0, 3, 2, False),
            ("a", 0, 4, 3, True),
            ("a", 10, 1, 1, False),
        ]


def test_a_window_that_closes_untouched_is_emitted_again_as_final(path: Path) -> None:
    """Closing needs no change of the window: the state's own totals are emitted."""
    with partition(plan_of(), path) as p:
        p.take(record(0, 1_000, "a"), record(1, 1_000, "b"))
        step = p.take(record(2, SIZE + 1_000, "c"))
        assert sorted(shown(p.results())[2:]) == [("a", 0, 1, 1, True), ("b", 0, 1, 1, True), ("c", 10, 1, 1, False)]
        assert (step.windows_closed, step.open_windows) == ({"totals": 1}, {"totals": frozenset({2 * SIZE})})


def test_final_only_says_nothing_before_the_close(path: Path) -> None:
    """`emit: final` gives each result once, and each correction."""
    with partition(plan_of(emit="final"), path) as p:
        p.take(record(0, 1_000))
        assert p.results() == []
        p.take(record(1, SIZE + 1_000))
        assert shown(p.results()) == [("a", 0, 1, 1, True)]
        p.take(record(2, 2_000, replay=True))
        assert shown(p.results()) == [("a", 0, 1, 1, True), ("a", 0, 2, 2, True)]


def test_a_quiet_partition_closes_its_windows_when_it_is_told_to(path: Path) -> None:
    """Closing without a batch emits what is open up to the bound as final, once, and keeps it for corrections."""
    with partition(plan_of(), path) as p:
        p.take(record(0, 1_000), record(1, SIZE + 500))
        p.close_upto(SIZE)
        p.close_upto(SIZE)
        p.close_upto(2 * SIZE)
        assert shown(p.results())[2:] == [("a", 0, 1, 1, True), ("a", 10, 1, 1, True)]
        p.take(record(2, SIZE + 400))
        assert shown(p.results())[4:] == [("a", 10, 2, 2, True)]


def test_windows_are_forgotten_after_their_retention(path: Path) -> None:
    """The row goes when the watermark is `retention` past its window's end, and a replay for it is dead-lettered."""
    with partition(plan_of(), path) as p:
        p.take(record(0, 1_000))
        p.take(record(1, SIZE + 20_000 + 999))
        assert len(list(p.db.scan(keys.WINDOW, keys.WINDOW + b"\xff"))) == 2
        p.take(record(2, SIZE + 20_000 + 1_000))
        assert len(list(p.db.scan(keys.WINDOW, keys.WINDOW + b"\xff"))) == 1
        step = p.take(record(3, 2_000, replay=True))
        assert [(dead.kind.stage, dead.kind.error_type) for dead in step.dead] == [("event_time", "WindowExpired")]
        assert "1970-01-01T00:00:10.000Z of totals is forgotten" in step.dead[0].kind.message


def test_dead_letters_have_their_headers_packed(path: Path) -> None:
    """The producer is given the headers of letters as Kafka has them, those of late records too: it packs none of them anew."""
    with partition(plan_of(lateData={"strategy": "sendToDLQ"}), path) as p:
        step = p.take(record(0, 900_000), record(1, 1_000), record(2, 900_000, amount="no"))
        assert [(len(rows), rows.packed) for rows in step.effects.topics if rows.topic == "p.dlq"] == [(2, True)]


def test_a_window_that_opens_and_expires_in_one_batch_leaves_nothing(path: Path) -> None:
    """When the high water leaps within a batch, the state does not keep what nothing would ever delete."""
    with partition(plan_of(), path) as p:
        p.take(record(0, 1_000), record(1, 900_000))
        assert len(list(p.db.scan(keys.WINDOW, keys.WINDOW + b"\xff"))) == 1
        assert shown(p.results())[0] == ("a", 0, 1, 1, True)


def test_dedupe_forgets_what_is_past_the_horizon(path: Path) -> None:
    """Keys leave the state when no record can be their duplicate any more; a newer sighting keeps its key."""
    plan = plan_of(dedupe={"key": "id", "horizon": "5 seconds"})
    with partition(plan, path) as p:
        p.take(record(0, 1_000, id="x"), record(1, 2_000, id="y"), record(2, 2_000, id="x"))
        assert p.state.ledger.duplicate == 1
        assert len(list(p.db.scan(keys.SEEN, keys.SEEN + b"\xff"))) == 2
        p.take(record(3, 6_500, id="z"))
        assert [key for key, _ in p.db.scan(keys.SEEN, keys.SEEN + b"\xff")] == [keys.SEEN + b"y", keys.SEEN + b"z"]
        p.take(record(4, 6_600, id="x"))
        p.take(record(5, 7_100, id="q"))
        assert {key for key, _ in p.db.scan(keys.SEEN, keys.SEEN + b"\xff")} == {
            keys.SEEN + k for k in (b"x", b"z", b"q")
        }
        assert p.state.ledger.duplicate == 1


def test_the_watermark_is_written_last(path: Path) -> None:
    """Each step ends with the partition row, and tells the other partitions how far this one is."""
    with partition(plan_of(), path) as p:
        step = p.take(record(0, 5_000))
        assert [key for key, _ in step.effects.puts[-2:]] == [keys.CLOSED, keys.PARTITION]
        assert step.effects.topics[-1].topic == "p..watermarks"
        assert step.effects.topics[-1].keys == [b"flights-0"]


@st.composite
def _logs(draw: st.DrawFn) -> list[Any]:
    times = draw(st.lists(st.integers(0, 60_000), min_size=1, max_size=25))
    return [
        record(
            i,
            at,
            draw(st.sampled_from("abc")),
            id=draw(st.sampled_from([None, "x", "y", "z"])),
            replay=draw(st.integers(0, 9)) == 0,
        )
        for i, at in enumerate(times)
    ]


def _final(p: Partition) -> tuple[Any, Any, Any]:
    p.close_upto(100_000)
    newest = {key: (row["values"], row["records"], row["upto"], row["final"]) for key, row in p.newest().items()}
    late = sorted(key or b"" for key, _ in p.sent.get("p.late", []))
    return newest, p.state, late


@pytest.mark.slow
@given(log=_logs(), cuts=st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=25))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_cut_and_any_restart_give_the_same_final_results(log: list[Any], cuts: list[tuple[int, bool]]) -> None:
    """However the log is cut into batches, and wherever the worker starts anew over the same state, the newest result of
    every window and group, the ledger and the late records are those of one batch without a stop."""
    plan = plan_of(dedupe={"key": "id", "horizon": "20 seconds"})
    with tempfile.TemporaryDirectory() as directory:
        with partition(plan, Path(directory) / "whole") as whole:
            whole.take(*log)
            expected = _final(whole)
        with partition(plan, Path(directory) / "cut") as p:
            start = 0
            for size, restart in [*cuts, (len(log), False)]:
                if log[start : start + size]:
                    p.take(*log[start : start + size])
                    start += size
                if restart:
                    p.restart()
            assert _final(p) == expected
