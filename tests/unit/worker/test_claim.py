"""A worker's claim of a partition in the store: what it writes, and what it compares."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.aio import in_a_loop
from tests.unit.worker.pieces import TP
from tests.unit.worker.test_commit import QUIET, World
from tidegate.calls import Calls
from tidegate.clock import ManualClock
from tidegate.config.errorhandling import ErrorHandling
from tidegate.errors import ConfigError, StoreUnavailable
from tidegate.ledger import Ledger
from tidegate.resilience import Registry
from tidegate.resilience.guard import Guard
from tidegate.stages.batch import PartitionState
from worker.commit import StoreClaim


class TestTheClaim:
    """A worker's hold on one partition in the store."""

    @contextmanager
    def opened(self) -> Iterator[tuple[World, StoreClaim]]:
        """A store that remembers what was asked of it, and a claim that is not made yet."""
        guard = Guard("store", ErrorHandling.model_validate(QUIET), clock=ManualClock(), registry=Registry())
        with ThreadPoolExecutor(1) as executor:
            world = World()
            yield world, StoreClaim(cast(Any, world), guard, TP, "me", Calls(executor))

    def step(self, upto: int, *, after: int = -1) -> Any:
        def state(upto: int) -> PartitionState:
            return PartitionState(upto=upto, ledger=Ledger(read=upto + 1, accepted=upto + 1))

        result = SimpleNamespace(before=state(after), deltas={}, late_windows=None, answers=None, seen=[])
        return SimpleNamespace(state=state(upto), result=result)

    def test_every_write_compares_with_the_one_before(self) -> None:
        """The epoch of the claim and the offset of the last write; before the claim there is nothing."""

        @in_a_loop
        async def run() -> None:
            with self.opened() as (world, claim):
                assert (claim.upto, claim.read) == (-1, 0)
                await claim.claim()
                await claim.write(self.step(4))
                await claim.write(self.step(9, after=4))
                assert (claim.upto, claim.read) == (9, 10)
                assert world.events == ["claim", "store", "store"]

        run()

    def test_what_the_store_has_is_not_written_again(self) -> None:
        """A crash between store and Kafka leaves the store ahead: the batch comes again."""

        @in_a_loop
        async def run() -> None:
            with self.opened() as (world, claim):
                await claim.claim()
                await claim.write(self.step(9))
                await claim.write(self.step(9))
                await claim.write(self.step(5))
                assert world.events == ["claim", "store"]

        run()

    def test_a_state_of_a_version_that_did_not_count_replays(self) -> None:
        """A worker that went back to it for a while has left the state without them, and the database with: it goes on. What has
        become of the records must be the same."""

        @in_a_loop
        async def run() -> None:
            with self.opened() as (world, claim):
                await claim.claim()
                first, again = self.step(4), self.step(4)
                first.state = replace(first.state, ledger=replace(first.state.ledger, replayed=2))
                await claim.write(first)
                await claim.write(again)
                await claim.write(self.step(9, after=4))
                assert world.events == ["claim", "store", "store"]
                other = self.step(9)
                other.state = replace(other.state, ledger=replace(other.state.ledger, accepted=9, duplicate=1))
                with pytest.raises(ConfigError, match="would not be what the database has"):
                    await claim.write(other)

        run()

    def test_a_write_that_fails_moves_nothing(self) -> None:
        """The next one compares with what the store really has."""

        @in_a_loop
        async def run() -> None:
            with self.opened() as (world, claim):
                await claim.claim()
                world.faults = {"store": [StoreUnavailable("away")]}
                with pytest.raises(StoreUnavailable):
                    await claim.write(self.step(4))
                assert claim.upto == -1
                await claim.write(self.step(4))
                assert claim.upto == 4

        run()
