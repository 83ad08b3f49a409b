"""Writes the departures to their topic and keeps where each of them went."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tidegate.demo.flights import Departure
from tidegate.demo.truth import PRODUCED_SCHEMA

_FLUSH_TIMEOUT = 60.0  # s; the queue holds at most 100 000 records, a second's worth
_CHECK_EVERY = 1000  # records between two looks at the pace and at `stop`


class DepartureProducer:
    """Produces in order, from a thread of its own, so that the view can draw. `speed`: times real time; None: as fast
    as it goes. `hold`: stop behind so many records until `release` is called; None: do not.

    `produced` is the number of records confirmed so far.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        departures: Iterable[Departure],
        speed: float | None,
        hold: int | None = None,
    ) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 20,
                "log_level": 0,
            }
        )
        self._topic, self._departures, self._speed, self._hold = topic, departures, speed, hold
        self._where: list[tuple[int | None, str | None, int, int, int]] = []
        self._ends: dict[int, int] = {}
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="producer", daemon=True)

    @property
    def produced(self) -> int:
        return len(self._where)

    @property
    def finished(self) -> bool:
        """Whether all are confirmed. Raises what went wrong in the thread."""
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def ends(self) -> dict[int, int]:
        """The offset behind the last confirmed record of each partition."""
        return dict(self._ends)

    def start(self) -> None:
        self._thread.start()

    def release(self, hold: int | None) -> None:
        """Go on up to `hold` records; None: to the end."""
        self._hold = hold

    def stop(self) -> None:
        """Give up what is not yet sent."""
        self._stop.set()
        self._thread.join()

    def table(self) -> pa.Table:
        """Where each record went, as PRODUCED_SCHEMA."""
        columns = zip(*self._where, strict=True) if self._where else ((),) * len(PRODUCED_SCHEMA)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, PRODUCED_SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=PRODUCED_SCHEMA)

    def _run(self) -> None:
        try:
            self._produce()
        except BaseException as error:  # handed to whoever asks `finished`
            self._error = error

    def _produce(self) -> None:
        started, first = time.monotonic(), None
        for number, departure in enumerate(self._departures):
            if first is None:
                first = departure.timestamp
            if self._speed is not None:
                due = started + (departure.timestamp - first) / 1000 / self._speed
                while (wait := due - time.monotonic()) > 0 and not self._stop.is_set():
                    self._producer.poll(min(wait, 0.1))
            if not self._may_go_on(number):
                self._producer.purge()
                return
            self._send(departure)
        if self._producer.flush(_FLUSH_TIMEOUT):
            raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))

    def _may_go_on(self, number: int) -> bool:
        """Wait while record `number` (0: the first) is held. False: it was told to stop."""
        while (hold := self._hold) is not None and number >= hold:
            if self._stop.is_set():
                return False
            self._producer.poll(0.1)
        return number % _CHECK_EVERY != 0 or not self._stop.is_set()

    def _send(self, departure: Departure) -> None:
        confirm = self._confirm(departure)
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    departure.value,
                    departure.key,
                    timestamp=departure.timestamp,
                    on_delivery=confirm,
                )
            except BufferError:  # the queue is full: let some go out
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def _confirm(self, departure: Departure) -> Callable[[KafkaError | None, Message], None]:
        def confirmed(error: KafkaError | None, message: Message) -> None:
            if error is None:
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                self._where.append((departure.row, departure.poison, partition, offset, departure.timestamp))
                self._ends[partition] = offset + 1
            elif not self._stop.is_set():
                self._error = KafkaException(error)

        return confirmed
