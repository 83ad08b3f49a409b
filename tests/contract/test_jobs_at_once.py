"""Two replay jobs made at the same time, of the same letters."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from dlq.index.filters import LetterFilter
from dlq.replay.choice import next_chosen
from dlq.replay.jobs import Jobs
from dlq.replay.request import Request
from tests.contract.test_dlq_index import Index, dead
from tests.harness import wait_until

if TYPE_CHECKING:
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

_OTHER = (
    "INSERT INTO tidegate_dlq.replays (job, position, letter, detail) "
    "SELECT 'other', row_number() OVER (ORDER BY letter), letter, '' FROM tidegate_dlq.letters WHERE dlq_offset < 6"
)
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_what_another_job_has_taken_at_that_very_moment_leaves_no_gap(postgres: Database) -> None:
    """A job's letters are numbered from 1 to their number: what came behind that would be sent by nobody, and no other job could
    have it."""
    index = Index(postgres.url)
    index.database.prepare()
    index.write([dead(offset) for offset in range(10)])
    jobs = Jobs(index.database)
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(postgres.url) as other,
        psycopg.connect(postgres.url, autocommit=True) as looking,
    ):
        other.execute(_OTHER)
        making = pool.submit(jobs.create, Request(LetterFilter()), actor="ada")
        wait_until(lambda: looking.execute(_WAITING).fetchall() == [(1,)], 30, "the second job waits for the first")
        other.commit()
        job = making.result(30)
    chosen = next_chosen(index.database, job.id, 0, 10)
    assert (job.total, [one.position for one in chosen]) == (4, [1, 2, 3, 4])
    assert [one.offset for one in chosen] == [6, 7, 8, 9]
    index.database.close()
