"""Event time: who has one, who is late, what moves the high water."""

from __future__ import annotations

from tests.unit.stages.building import counting, log, run, stages_of
from tidegate.record import Stage
from tidegate.stages.batch import MissedWindow, PartitionState


def test_without_an_event_time_a_record_is_rejected_and_moves_nothing() -> None:
    """A null event time is MissingEventTime at stage event_time, and the high water stays."""
    result = run(stages_of(), log({"user": "ann"}, 5))
    [rejection] = result.rejected
    assert (rejection.offset, rejection.stage, rejection.reasons[0].error_type) == (
        0,
        Stage.EVENT_TIME,
        "MissingEventTime",
    )
    assert rejection.reasons[0].field == "at"
    assert result.state.high_water == 5


def test_a_record_from_the_future_cannot_make_others_late() -> None:
    """More than maxFutureSkew ahead of its Kafka timestamp is FutureEventTime; exactly that much is valid."""
    stages = stages_of(eventTime={"column": "at", "maxFutureSkew": "1 second"}, aggregations=[counting()])
    result = run(stages, log(6_000, 6_001, 10**12, 6_000, timestamp=5_000))
    assert {r.offset: r.reasons[0].error_type for r in result.rejected} == {1: "FutureEventTime", 2: "FutureEventTime"}
    assert result.rejected[0].reasons[0].message.startswith("the event time is 1001 ms ahead")
    assert (result.state.high_water, result.ledger.accepted) == (6_000, 2)


def test_the_first_record_of_a_partition_is_never_late() -> None:
    """Without a record before it there is no watermark, however old the record is."""
    assert run(stages_of(aggregations=[counting()]), log(-(10**9))).late == []


def test_late_is_judged_by_the_records_before() -> None:
    """A record does not move the watermark that it is judged by; the next is judged by it."""
    result = run(stages_of(aggregations=[counting()]), log(0, 5_000, 4_500, 900, 6_000))
    assert [(late.offset, late.watermark, late.missed) for late in result.late] == [
        (2, 5_000, (MissedWindow("per_second", 4_000, 5_000),)),
        (3, 5_000, (MissedWindow("per_second", 0, 1_000),)),
    ]
    assert (result.ledger.late, result.ledger.accepted) == (2, 3)


def test_delay_and_allowed_lateness_both_hold_a_window_open() -> None:
    """The window is closed for a record only when its end ≤ high water − delay − allowedLateness."""
    event_time = {"column": "at", "delay": "2 seconds", "allowedLateness": "1 second"}
    stages = stages_of(eventTime=event_time, aggregations=[counting()])
    assert run(stages, log(3_999, 0)).late == []
    [late] = run(stages, log(4_000, 0)).late
    assert late.watermark == 2_000


def test_a_record_late_for_some_windows_counts_in_the_others() -> None:
    """It is accepted, listed as partly late, and missing only where it is late."""
    day = {"name": "per_day", "window": {"size": "1 day"}, "measures": {"n": "count"}}
    result = run(stages_of(aggregations=[counting(), day]), log(5_000, 100))
    [late] = result.late
    assert (late.partial, late.missed) == (True, (MissedWindow("per_second", 0, 1_000),))
    assert (result.ledger.accepted, result.ledger.late) == (2, 0)
    assert result.deltas["per_day"]["n__n"].to_pylist() == [2]
    assert result.deltas["per_second"]["n__n"].to_pylist() == [1]
    assert result.late_windows is not None
    assert result.late_windows.to_pylist() == [
        {"aggregation": "per_second", "window_start": 0, "window_end": 1_000, "missing": 1}
    ]


def test_without_aggregations_nothing_is_late() -> None:
    """There is no window to be late for; the high water moves all the same."""
    result = run(stages_of(), log(10**9, 0))
    assert (result.late, result.late_windows, result.state.high_water) == ([], None, 10**9)


def test_a_record_on_its_second_way_is_never_late_and_moves_nothing() -> None:
    """A replay counts in its own window and in its own lane, and the high water does not see it."""
    rows = log(5_000, {"at": 100, "_replay": True}, {"at": 90_000, "_replay": True}, 5_500)
    result = run(stages_of(aggregations=[counting()]), rows)
    assert (result.late, result.state.high_water) == ([], 5_500)
    delta = result.deltas["per_second"].select(["window_start", "lane"]).to_pylist()
    found = sorted((row["window_start"], row["lane"]) for row in delta)
    assert found == [(0, "replay"), (5_000, "live"), (90_000, "replay")]


def test_a_replay_whose_window_is_forgotten_is_rejected() -> None:
    """Its totals are gone, so it cannot be added to them; a replay one millisecond inside the retention counts."""
    event_time = {"column": "at", "delay": "2 seconds", "allowedLateness": "1 second", "retention": "4 seconds"}
    stages = stages_of(eventTime=event_time, aggregations=[counting()])
    kept = run(stages, log(7_999, {"at": 0, "_replay": True}))
    assert (kept.rejected, kept.ledger.accepted) == ([], 2)
    [rejection] = run(stages, log(8_000, {"at": 0, "_replay": True})).rejected
    assert (rejection.offset, rejection.stage, rejection.reasons[0].error_type) == (
        1,
        Stage.EVENT_TIME,
        "WindowExpired",
    )
    assert "1970-01-01T00:00:00.000Z to 1970-01-01T00:00:01.000Z" in rejection.reasons[0].message


def test_the_high_water_goes_on_from_the_state() -> None:
    """A batch is judged by what came before it in the log, not by itself alone."""
    result = run(stages_of(aggregations=[counting()]), log(100), PartitionState(high_water=5_000))
    assert (result.ledger.late, result.state.high_water) == (1, 5_000)


def test_a_pipeline_without_event_time_accepts_all_that_is_valid() -> None:
    """`_event_time` is null throughout, and there is no high water."""
    result = run(stages_of(eventTime=None), log(1, 2))
    assert result.accepted["_event_time"].to_pylist() == [None, None]
    assert (result.state.high_water, result.ledger.accepted) == (None, 2)
