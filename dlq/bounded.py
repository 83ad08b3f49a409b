"""A call of Kafka's client that may never come back, although it was given a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

from confluent_kafka import KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from tidegate.errors import BrokerUnavailable

_ANSWER = 10.0  # seconds that the client is given
_AT_MOST = 12.0  # seconds after which it is given up


def send_offsets(producer: Producer, offsets: Sequence[KafkaPartition], group: object) -> None:
    """`send_offsets_to_transaction`, which hangs for good when the broker was killed within the transaction and has come back
    (librdkafka 2.16). The thread that waits for it is left behind then, and nothing else can be done with the producer: the
    next one with its id settles the transaction.

    Raises KafkaException, BrokerUnavailable.
    """
    answer: Future[None] = Future()

    def ask() -> None:
        try:
            producer.send_offsets_to_transaction(list(offsets), group, _ANSWER)
        except (KafkaException, SystemError) as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)

    threading.Thread(target=ask, name="offsets", daemon=True).start()
    try:
        answer.result(_AT_MOST)
    except TimeoutError:
        raise BrokerUnavailable(f"the offsets of a transaction were not taken within {_AT_MOST:g} s") from None
