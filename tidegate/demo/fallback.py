"""The second act: the worker is killed in mid-stream, Spark takes the backlog over and hands back, a new worker goes on.

1. work      the first two fifths of the flights stream; the worker has counted some of them
2. kill      SIGKILL to the worker. Nobody has the pipeline; flights keep coming, up to four fifths
3. take over `tidegate batch catchup` starts Spark, holds the pipeline and drains the backlog
4. hand back a new worker takes the state over from the database; the last fifth comes in

After the stream `tidegate batch backfill --late` amends the windows that miss late flights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tidegate.demo.account import Accounts
from tidegate.demo.metrics import Snapshot, read_metrics
from tidegate.demo.produce import DepartureProducer
from tidegate.demo.service import Service
from tidegate.demo.setting import TOPIC, Setting
from tidegate.demo.shell import PROGRAM, typed
from tidegate.demo.view import LiveView
from tidegate.errors import StackError
from tidegate.local.process import GuardedProcess, tail

BEFORE, MEANWHILE = 0.4, 0.8
"""The share of all records that is in the topic when the worker is killed, and when Spark has handed back."""
_COUNTED = 0.1  # the share that the worker has counted when it is killed
_ALONE = 3.0  # s before somebody notices that no worker is there
_CATCHUP = ("batch", "catchup")
_AT_ONCE = "50000"  # records of a micro-batch: fewer than it could, so that one sees it go on


class Fallback:
    """`worker` is running. `total`: records that will be produced. The producer must hold at `BEFORE` of them."""

    def __init__(
        self,
        setting: Setting,
        worker: Service,
        producer: DepartureProducer,
        total: int,
        view: LiveView,
        accounts: Accounts,
    ) -> None:
        self.worker, self.who, self.over = worker, _worker(worker), False
        self._setting, self._producer, self._total, self._view = setting, producer, total, view
        self._accounts, self._metrics = accounts, f"{setting.pipeline.worker}/metrics"
        self._account = accounts.read()
        self._since, self._before = setting.clock.monotonic(), 0
        self._catchup: GuardedProcess | None = None
        self._go_on: Callable[[], None] = self._work

    def look(self) -> Snapshot:
        """Records and lag by the database, since they outlive every process; windows and breakers by the worker."""
        self._account = self._accounts.read()
        seen = read_metrics(self._metrics, TOPIC) if self.worker.process.alive else None
        return replace(
            seen or Snapshot(),
            processed=self._account.processed,
            partitions=self._account.partitions(self._producer.ends()),
            dead_letters={},  # a worker knows its own only
        )

    def step(self, seen: Snapshot) -> None:
        self._go_on()

    def _work(self) -> None:
        self.worker.require()
        if self._account.total.read >= self._total * _COUNTED:
            pid = self.worker.process.pid
            self.worker.process.kill()
            self._tell(
                "kill", "-KILL", str(pid), note="the worker is gone, and nobody has the pipeline; flights keep coming"
            )
            self._producer.release(round(self._total * MEANWHILE))
            self._turn("nobody", self._alone)

    def _alone(self) -> None:
        if self._setting.clock.monotonic() - self._since < _ALONE:
            return
        options = ("--max-lag", "0", "--max-records", _AT_ONCE)
        file = self._setting.pipeline.path
        command = [*PROGRAM, *_CATCHUP, str(file), *options]
        self._catchup = self._setting.stack.run("catchup", command, env=self._setting.environment)
        self._before = self._account.total.read
        self._tell("tidegate", *_CATCHUP, file.name, *options, note="Spark is starting; the backlog grows")
        self._turn("nobody; Spark is starting", self._spark_starts)

    def _spark_starts(self) -> None:
        holder = self._account.holder
        if holder is not None:
            self._view.tell(f"Spark has the pipeline ({holder})")
        if holder is not None or not self._catchup_runs():
            self._turn("Spark", self._spark_works)

    def _spark_works(self) -> None:
        if self._catchup_runs():
            return
        seconds = self._setting.clock.monotonic() - self._since
        records = self._accounts.read().total.read - self._before
        self._view.tell(f"handed back: Spark has done {records:,} records in {seconds:.0f} s")
        self.worker.start()
        self._tell("tidegate", "worker", self._setting.pipeline.path.name, note="a new worker is starting")
        self._producer.release(None)
        self._turn("nobody; a new worker is starting", self._worker_starts)

    def _worker_starts(self) -> None:
        if self.worker.is_ready():
            self._view.tell("the worker has the pipeline again, with the state that Spark has left in the database")
            self._turn(_worker(self.worker), self._to_the_end)
            self.over = True

    def _to_the_end(self) -> None:
        self.worker.require()

    def _catchup_runs(self) -> bool:
        """Raises StackError when it has failed."""
        assert self._catchup is not None
        code = self._catchup.poll()
        if code:
            raise StackError(f"the catch-up ended with code {code}:\n{tail(self._catchup.log, 40)}")
        return code is None

    def _turn(self, who: str, go_on: Callable[[], None]) -> None:
        self.who, self._go_on, self._since = who, go_on, self._setting.clock.monotonic()

    def _tell(self, *command: str, note: str) -> None:
        self._view.tell(typed(*command))
        self._view.tell(note)


def _worker(worker: Service) -> str:
    return f"worker {worker.process.pid}"


def amend(setting: Setting) -> bool:
    """Bring the late flights into their windows. True: all of them."""
    return setting.shell.show(["batch", "backfill"], "--late")
