"""The flood guard stops the worker before a wrong pipeline empties its topic into the dead letters."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlq.policy import Failures, FloodGuard
from tests.unit.dlq.dead_letters import SOURCE, batch, letter, rejection, result
from tidegate.config.errorhandling import FloodGuard as FloodGuardConfig
from tidegate.errors import FloodGuardTripped
from tidegate.record import TopicPartition


def observe(
    guard: FloodGuard, flags: Sequence[bool], *, start: int = 0, step: int = 1, tp: TopicPartition = SOURCE
) -> None:
    """One batch: a flag for each record, True for a failed one. Rejections come in reverse, as stages may give them."""
    guard.observe(failures(flags, start=start, step=step, tp=tp))


def failures(flags: Sequence[bool], *, start: int = 0, step: int = 1, tp: TopicPartition = SOURCE) -> Failures:
    offsets = [start + i * step for i in range(len(flags))]
    rejected = [rejection(o) for o, failed in zip(offsets, flags, strict=True) if failed][::-1]
    return Failures.of(result(batch(offsets, tp=tp), rejected), [letter(r.offset, failed=r) for r in rejected])


def trips_at(flags: Sequence[bool], config: FloodGuardConfig) -> int | None:
    """The definition, record by record: how many records are read when the guard trips."""
    run = 0
    for read, failed in enumerate(flags, 1):
        run = run + 1 if failed else 0
        if config.max_consecutive is not None and run > config.max_consecutive:
            return read
        last = flags[max(0, read - config.window) : read]
        if len(last) == config.window and sum(last) / config.window > config.max_ratio + 1e-9:
            return read
    return None


@pytest.mark.slow
@settings(deadline=None)  # the first example pays for imports
@given(
    flags=st.lists(st.booleans(), min_size=1, max_size=120),
    cuts=st.lists(st.integers(1, 30), min_size=1),
    config=st.builds(
        FloodGuardConfig,
        max_ratio=st.sampled_from([0.1, 0.29, 0.5, 0.9, 1.0]),
        window=st.integers(1, 40),
        max_consecutive=st.none() | st.integers(1, 12),
    ),
    step=st.integers(1, 3),
)
def test_the_definition_under_every_batching(
    flags: list[bool], cuts: list[int], config: FloodGuardConfig, step: int
) -> None:
    """However the records are cut into batches, the guard trips in the batch in which the definition trips."""
    expected, guard, start, i = trips_at(flags, config), FloodGuard(config), 0, 0
    while start < len(flags):
        part = flags[start : start + cuts[i % len(cuts)]]
        if expected is not None and expected <= start + len(part):
            with pytest.raises(FloodGuardTripped):
                observe(guard, part, start=start * step, step=step)
            return
        observe(guard, part, start=start * step, step=step)
        start, i = start + len(part), i + 1


def test_what_it_says() -> None:
    """The error tells the partition, the share, the limit, the most frequent reasons with counts, and the way out."""
    guard = FloodGuard(FloodGuardConfig(max_ratio=0.5, window=10))
    offsets = list(range(10))
    rejected = [rejection(o, f"expected bigint, found {o}") for o in range(4)]
    rejected += [rejection(o, "missing", stack="s") for o in range(4, 6)]
    letters = [letter(r.offset, failed=r) for r in rejected]
    with pytest.raises(FloodGuardTripped) as error:
        guard.observe(Failures.of(result(batch(offsets), rejected), letters))
    text = str(error.value)
    assert "6 of 10 records of flights-1 failed (60.0%)" in text
    assert "maxRatio allows 50.0% of 10" in text
    assert f"4 × {letters[0].kind.fingerprint} WrongType: expected bigint, found" in text
    assert text.index("4 × ") < text.index(f"2 × {letters[5].kind.fingerprint}")
    assert "no offset moved" in text


def test_consecutive_across_batches() -> None:
    """A run of failures counts across batches and gaps of offsets; the limit itself is still allowed."""
    guard = FloodGuard(FloodGuardConfig(max_consecutive=3))
    observe(guard, [False, True, True], start=0, step=7)
    observe(guard, [True, False, True], start=100)
    observe(guard, [True, True], start=200)
    with pytest.raises(FloodGuardTripped, match="4 records of flights-1 in a row failed"):
        observe(guard, [True, False], start=300)


def test_tripping_again() -> None:
    """The batch that tripped is not remembered: given again it trips again, and the batch before it still counts."""
    guard = FloodGuard(FloodGuardConfig(max_consecutive=3))
    observe(guard, [True, True], start=0)
    for _ in range(2):
        with pytest.raises(FloodGuardTripped, match="4 records"):
            observe(guard, [True, True], start=10)


def test_a_batch_that_is_done_again() -> None:
    """A batch given again after a store failure does not count twice, and what was before it still counts."""
    guard = FloodGuard(FloodGuardConfig(max_consecutive=5))
    observe(guard, [True, True], start=0)
    for _ in range(5):
        observe(guard, [True, True, True], start=2)
    with pytest.raises(FloodGuardTripped, match="6 records"):
        observe(guard, [True], start=5)


def test_what_a_sink_refuses_counts() -> None:
    """A batch given again with more failures, which a sink found, is judged by the new account."""
    guard = FloodGuard(FloodGuardConfig(max_consecutive=3))
    observe(guard, [True, True], start=0)
    observe(guard, [True, False, True], start=2)
    with pytest.raises(FloodGuardTripped, match="5 records"):
        observe(guard, [True, True, True], start=2)


def test_going_back_further() -> None:
    """A partition that goes back behind its last batch is watched anew, since what it was is not known any more."""
    guard = FloodGuard(FloodGuardConfig(max_consecutive=3))
    observe(guard, [True, True], start=0)
    observe(guard, [True], start=2)
    observe(guard, [True, True, True], start=1)


def test_chunks_are_judged_as_the_batch_they_are_of() -> None:
    """Chunks joined trip on a run of failures across their border, however small they are."""
    guard = FloodGuard(FloodGuardConfig(max_consecutive=3))
    chunks = [[True, False, True], [True], [], [False, True, True]]
    parts = [failures(flags, start=10 * i) for i, flags in enumerate(chunks) if flags]
    guard.observe(Failures.joined(parts))
    with pytest.raises(FloodGuardTripped, match="4 records"):
        guard.observe(Failures.joined([failures([True], start=40), failures([True, False], start=50)]))


def test_a_restarted_worker_trips_again() -> None:
    """A new guard starts an empty window at the same offset and trips on the same poisoned batch."""
    config = FloodGuardConfig(max_ratio=0.5, window=100)
    for _ in range(2):
        with pytest.raises(FloodGuardTripped):
            observe(FloodGuard(config), [True] * 200, start=5000)


def test_partitions_are_apart() -> None:
    """Failures of one partition do not count against another; a partition that moved away is forgotten."""
    guard = FloodGuard(FloodGuardConfig(max_consecutive=2))
    observe(guard, [True, True], start=0, tp=TopicPartition("t", 0))
    observe(guard, [True, True], start=0, tp=TopicPartition("t", 1))
    guard.forget(TopicPartition("t", 0))
    observe(guard, [True, True], start=2, tp=TopicPartition("t", 0))
    with pytest.raises(FloodGuardTripped, match="t-1"):
        observe(guard, [True], start=2, tp=TopicPartition("t", 1))


def test_switched_off() -> None:
    """A guard that is not enabled never trips."""
    guard = FloodGuard(FloodGuardConfig(enabled=False, max_ratio=0.01, window=1, max_consecutive=1))
    observe(guard, [True] * 50)


def test_memory_is_bounded() -> None:
    """However long it runs, the guard remembers no more failures than one window can hold."""
    guard = FloodGuard(FloodGuardConfig(max_ratio=0.9, window=50))
    for i in range(300):
        observe(guard, [True, False] * 5, start=i * 10)
    window = guard._windows[SOURCE].after
    assert len(window.failed) == len(window.failures) <= 50
