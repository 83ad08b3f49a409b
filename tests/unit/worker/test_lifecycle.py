"""How a worker ends, and what counts as work that does not move."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.worker.pieces import small_plan
from tidegate.config.pipeline import Telemetry, Worker
from tidegate.errors import (
    BrokerUnavailable,
    ConfigError,
    FloodGuardTripped,
    OffsetOutOfRange,
    PipelineAborted,
    RowTooLarge,
)
from tidegate.record import TopicPartition
from transport.lifecycle import Lifecycle, exit_code
from worker.observe import Observer

TP = TopicPartition("flights", 0)
OTHER = TopicPartition("flights", 1)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong"), 2),
        (FloodGuardTripped("too many"), 65),
        (PipelineAborted("a rule"), 65),
        (OffsetOutOfRange("gone"), 66),
        (RowTooLarge("results", 1), 1),
        (BrokerUnavailable("away"), 1),
        (AssertionError("a bug"), 1),
    ],
)
def test_the_exit_code_says_whether_starting_again_can_help(error: Exception, code: int) -> None:
    """2: the configuration; 65: the data; 66: the log; 1: anything else."""
    assert exit_code(error) == code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("app", "command"),
    [("worker.app", "tidegate worker pipeline.yaml"), ("dlq.app", "tidegate dlq agent pipeline.yaml")],
)
def test_a_process_without_a_pipeline_says_what_to_do(app: str, command: str) -> None:
    """No traceback: the variable, what it takes, and both commands; exit code 2."""
    ended = subprocess.run([sys.executable, "-c", f"import {app}"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "TIDEGATE_PIPELINE is not set" in ended.stderr
    assert command in ended.stderr
    assert "Traceback" not in ended.stderr


_PIPELINE = """\
pipelineId: orders
source: {topics: [orders]}
schema: [{name: amount, type: int}]
rules:
  - {type: regex, column: amount, pattern: a}
"""


@pytest.mark.slow
def test_a_file_whose_parts_do_not_fit_is_named_with_its_line(tmp_path: Path) -> None:
    """As `tidegate check` does; exit code 2."""
    file = tmp_path / "orders.yaml"
    file.write_text(_PIPELINE)
    environment = {**os.environ, "TIDEGATE_PIPELINE": str(file)}
    importing = [sys.executable, "-c", "import worker.app"]
    ended = subprocess.run(importing, capture_output=True, text=True, timeout=60, env=environment)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"{file}:5: rules[0].column: a regex rule does not fit this column")


def test_last_words_name_the_file_and_the_line(tmp_path: Path) -> None:
    """Of a setting that turns out to be wrong when the world is asked; without the file when that has gone meanwhile."""
    life = Lifecycle("worker", Telemetry(), Observer(small_plan()), Worker())
    error = ConfigError(
        "there is no such topic", field="source.topics[0]", value="orders", expected="a topic that exists"
    )
    assert life._last_words(error) == f"worker stopped: {error}\n"
    life.file = tmp_path / "orders.yaml"
    assert life._last_words(error) == f"worker stopped: {error}\n"
    life.file.write_text(_PIPELINE)
    assert life._last_words(error).startswith(
        f"worker stopped: {life.file}:2: source.topics[0]: there is no such topic"
    )
    assert "found:    'orders'" in life._last_words(error)


class Consumer:
    """The transport's side. `lags`: tp → records behind; `delivered`: tp → batches not acknowledged."""

    def __init__(self, **more: Any) -> None:
        self.lags: dict[TopicPartition, int] = {}
        self.delivered: dict[TopicPartition, int] = {}
        self.silent_for: float | None = 0.1
        self.flow_active, self.rounds, self.opening = False, 0, set[TopicPartition]()
        vars(self).update(more)

    def lag(self, tp: TopicPartition) -> int | None:
        return self.lags.get(tp)

    def end_offset(self, tp: TopicPartition) -> int | None:
        return 100

    def in_flight(self, tp: TopicPartition) -> int:
        return self.delivered.get(tp, 0)

    def is_opening(self, tp: TopicPartition) -> bool:
        return tp in self.opening


def task(tp: TopicPartition, steps: int = 3, upto: int = 99) -> Any:
    return SimpleNamespace(tp=tp, steps=steps, upto=upto, doing="the stages of offsets 0 to 9 for 12 s")


def owner(*tasks: Any, opening: frozenset[TopicPartition] = frozenset(), left: tuple[Any, ...] = ()) -> Any:
    return SimpleNamespace(tasks={one.tp: one for one in tasks}, opening=set(opening), left_behind=list(left))


def work(of: Any, consumer: Consumer, *, waiting: dict[TopicPartition, str] | None = None) -> dict[str, int]:
    observer = Observer(small_plan())
    observer.waiting = waiting or {}
    return Lifecycle("worker", Telemetry(), observer, Worker())._work(of, cast(Any, consumer))


def test_what_counts_as_work() -> None:
    """Each partition by itself: records that wait, batches that were delivered, a state that is being opened."""
    assert work(owner(task(TP), task(OTHER)), Consumer()) == {}
    assert work(owner(task(TP), task(OTHER)), Consumer(lags={OTHER: 5})) == {"flights-1": 3}
    assert work(owner(task(TP)), Consumer(delivered={TP: 1})) == {"flights-0": 3}
    assert work(owner(opening=frozenset({TP})), Consumer()) == {"flights-0": 0}
    assert work(owner(task(TP)), Consumer(opening={TP})) == {"flights-0": 3}, "where it starts is being found out"
    assert work(owner(left=(task(TP),)), Consumer()) == {"flights-0 (given up)": 3}


def test_what_waits_on_purpose_is_no_work() -> None:
    """An outage elsewhere never makes a process dead: a restart does not mend it."""
    busy = Consumer(lags={TP: 5}, delivered={TP: 1})
    assert work(owner(task(TP)), busy, waiting={TP: "outage"}) == {}
    assert work(owner(opening=frozenset({TP})), Consumer(), waiting={TP: "outage"}) == {}
    for silent in (31.0, None):
        assert work(owner(task(TP)), Consumer(lags={TP: 5}, silent_for=silent)) == {}, "the broker is away"


def test_fetching_is_work_of_its_own() -> None:
    """A thread that hangs learns of no lag: its rounds stand still."""
    assert work(owner(task(TP)), Consumer(flow_active=True, rounds=7)) == {"fetching": 7}
    assert work(owner(), Consumer(flow_active=True, rounds=7)) == {}


@pytest.mark.slow
def test_nothing_holds_up_a_signal(tmp_path: Any) -> None:
    """SIGTERM, again and again, while the loop itself is blocked: /ready says so at once, the process is gone when its time
    is over, with a code that is not 0 and what it was at."""
    script = textwrap.dedent(
        """
        import asyncio, signal, time
        from transport import ending, lifecycle
        ending.GRACE = lifecycle.GRACE = 0.5
        from tests.unit.worker.test_lifecycle import Consumer, Observer, Telemetry, Worker, owner, small_plan, task, TP
        async def main():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: print("the loop heard it"))
            life = lifecycle.Lifecycle("worker", Telemetry(port=0), Observer(small_plan()), Worker(drain_timeout="1 s"))
            life.start()
            life.watch(owner(task(TP)), Consumer())
            begun = life._say_that_it_ends
            life._ending._begun = lambda: (begun(), print(dict(life.health.ready().reasons), flush=True))
            await asyncio.sleep(0)
            print("ready", flush=True)
            time.sleep(60)
        asyncio.run(main())
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        while "ready" not in process.stdout.readline():
            assert process.poll() is None, process.communicate()[1]
        process.send_signal(signal.SIGTERM)
        first, second = process.stdout.readline(), process.stdout.readline()
        assert "worker.stopping" in first
        assert "'stopping'" in second, "the loop has not heard of it, and /ready says it"
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 70
    assert said == ""
    assert "worker ended before it had finished, not within worker.drainTimeout (1 s) and 0.5 s more" in errors
    assert "flights-0: the stages of offsets 0 to 9 for 12 s" in errors
