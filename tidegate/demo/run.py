"""`tidegate demo`: the whole way, from an empty machine with Java to the proof."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from tidegate.clock import Clock, SystemClock
from tidegate.demo.account import Accounts
from tidegate.demo.compare import Comparison, compare_places, compare_with_store
from tidegate.demo.fallback import BEFORE, Fallback, amend
from tidegate.demo.flights import Departure, read_departures
from tidegate.demo.mend import mend
from tidegate.demo.poison import with_poison
from tidegate.demo.produce import DepartureProducer
from tidegate.demo.replayed import place_of, read_replays
from tidegate.demo.report import print_comparison, print_dead_letters, print_ledger, print_results
from tidegate.demo.service import Service
from tidegate.demo.setting import TOPIC, Setting, create_topic, write_pipeline
from tidegate.demo.stream import Act, WorkerAlone, watch
from tidegate.demo.truth import compute_truth, dead_letters, open_letters, to_mend
from tidegate.demo.view import LiveView
from tidegate.local.progress import fetch
from tidegate.local.stack import LocalStack


@dataclass(frozen=True, slots=True)
class Options:
    """`limit`: flights (None: all). `speed`: times real time (None: no limit). `poison`: malformed records to add.
    `fallback`: with the second act. `console`: open the dead letters' console at the end, and keep the stack."""

    limit: int | None = None
    speed: float | None = None
    keep: bool = False
    poison: int = 40
    fallback: bool = False
    console: bool = False


def run_demo(options: Options, console: Console, clock: Clock | None = None) -> bool:
    """Run the demo. True: every number is as it must be.

    1. fetch      Kafka's jars, the first time, and Spark's for the second act
    2. start      Kafka, PostgreSQL, the topic, a Faust worker on flights.yaml, and the agent of dead letters
    3. stream     the flights in the order in which they left, watched until the last one is accounted for;
                  in the second act the worker is killed meanwhile, and Spark takes over (fallback.py)
    4. mend       dead letters, and send them back (mend.py)
    5. show       results, dead letters, late windows, ledger
    6. prove      compare everything with the truth

    Raises StackError when something cannot be started or ends before its time. Nothing stays behind in any case.
    """
    clock = clock or SystemClock()
    fetch("broker")
    if options.fallback:
        fetch("spark")
    with console.status("reading the flights"):
        departures = read_departures(options.limit)
    with console.status("starting Kafka and PostgreSQL") as status, LocalStack() as stack:
        create_topic(stack.kafka.bootstrap_servers)
        run = Run(Setting(stack, write_pipeline(stack), console, clock), options)
        status.update("starting the worker")
        run.start()
        status.stop()
        with Accounts(stack.postgres.url, run.setting.pipeline.id) as accounts:
            produced = run.stream(departures, accounts)
            run.mend(accounts)
        equal = run.report(produced)
        if options.keep or options.console:
            run.keep()
    return equal


class Run:
    """One run on the stack of `setting`."""

    def __init__(self, setting: Setting, options: Options) -> None:
        self.setting, self._options = setting, options
        self._worker, self._agent = setting.worker(), setting.agent()
        self._console = setting.console

    def start(self) -> None:
        """Returns when the worker is ready. The agent may still be starting; nobody needs it before the stream's end."""
        self._worker.start()
        self._worker.wait_ready()
        self._agent.start()

    def stream(self, departures: list[Departure], accounts: Accounts) -> DepartureProducer:
        """All flights and the poison, until the last is accounted for and the windows have closed."""
        setting, options = self.setting, self._options
        total = len(departures) + (options.poison if departures else 0)
        records = with_poison(departures, options.poison)
        hold = round(total * BEFORE) if options.fallback else None
        producer = DepartureProducer(setting.stack.kafka.bootstrap_servers, TOPIC, records, options.speed, hold)
        view = LiveView(self._console, setting.clock)
        act: Act = WorkerAlone(self._worker, setting.pipeline.worker)
        if options.fallback:
            act = Fallback(setting, self._worker, producer, total, view, accounts)
        try:
            watch(act, producer, total, view, setting.clock)
        finally:
            producer.stop()
        return producer

    def mend(self, accounts: Accounts) -> None:
        """Late flights come into their windows (after the second act), and dead letters go back."""
        if self._options.fallback:
            self._title("Late flights are brought into the windows that miss them")
            amend(self.setting)
        self._title("Dead letters are mended and go back")
        mend(self.setting, self._agent, accounts)

    def _title(self, text: str) -> None:
        self._console.print(Text(f"\n{text}", style="bold"))

    def report(self, producer: DepartureProducer) -> bool:
        """Print everything. True: all is equal to the truth and the ledger balances."""
        setting, console = self.setting, self._console
        print_results(console, setting.stack.postgres.url, setting.pipeline.id)
        letters = _lines(setting, "dlq", "export")
        print_dead_letters(console, letters)
        audit = setting.shell.ask("ledger")
        print_ledger(console, json.loads(audit.stdout)["partitions"])
        with console.status("computing the same in plain SQL"):
            compared = self._compare(producer, letters)
        return print_comparison(console, compared) and audit.returncode == 0

    def _compare(self, producer: DepartureProducer, letters: list[dict[str, Any]]) -> list[Comparison]:
        setting = self.setting
        stack = setting.stack
        replayed = read_replays(stack.kafka.bootstrap_servers, TOPIC, producer.ends())
        truth = compute_truth(producer.table(), replayed, amended=self._options.fallback)
        replays = zip(replayed["of_partition"].to_pylist(), replayed["of_offset"].to_pylist(), strict=True)
        still_open = json.loads(setting.shell.ask("dlq", "list", "--state", "open", "--limit", "10000").stdout)
        return [
            *compare_with_store(truth, stack.postgres.url, setting.pipeline.id),
            compare_places("dead letters", dead_letters(truth), map(_place, letters)),
            compare_places("replays", to_mend(truth), replays),
            compare_places("open dead letters", open_letters(truth), map(_place, still_open["letters"])),
        ]

    def keep(self) -> None:
        """Leave everything running until Ctrl-C, and say how to reach it."""
        setting = self.setting
        file = setting.pipeline.path
        services = [self._worker, self._agent]
        lines = [
            f"psql '{setting.stack.postgres.url}'",
            f"Kafka     {setting.stack.kafka.bootstrap_servers}",
            f"worker    {setting.pipeline.worker}/metrics",
            f"tidegate status {file}",
            f"tidegate dlq groups {file}",
        ]
        if self._options.console:
            services.append(self._open_console())
            lines.append(f"console   {setting.pipeline.console}  token {setting.pipeline.token}")
        text = "\nThe stack stays up until Ctrl-C. In another terminal:\n" + "\n".join(f"  {line}" for line in lines)
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                for service in services:
                    service.require()
                time.sleep(1)

    def _open_console(self) -> Service:
        service = self.setting.dead_letter_console()
        with self._console.status("opening the console"):
            service.start()
            service.wait_ready()
        return service


def _lines(setting: Setting, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in setting.shell.ask(*words).stdout.splitlines()]


def _place(letter: Mapping[str, Any]) -> tuple[int, int]:
    """Of the record that failed; of a replay that failed again it is the replay's own."""
    return place_of(letter["id"])
