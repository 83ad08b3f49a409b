"""Every private name of Faust, mode and aiokafka that the worker uses: an upgrade fails here, and not in production."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version
from pathlib import Path

import aiokafka
import aiokafka.producer.sender
import faust.streams
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import lz4_encode
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from aiokafka.consumer.subscription_state import Subscription, SubscriptionState, TopicPartitionState
from aiokafka.producer.message_accumulator import MessageAccumulator, MessageBatch
from aiokafka.producer.sender import Sender
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchPy
from faust.app import App
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import ConsumerMessage

import worker.producer
from worker.packing import Batch

_HEADER = 61  # bytes of a record batch before its records
_LZ4 = 3  # in its attributes

# What we override or read, class by class. Public names are here too where their meaning is not documented.
USED: dict[type, tuple[str, ...]] = {
    faust_consumer.Consumer: (
        "_drain_messages", "_new_offset", "_read_offset", "_committed_offset", "_unacked_messages", "_acked",
        "_acked_index",
        "_n_acked", "_waiting_for_ack", "_wait_for_ack", "can_resume_flow", "flow_active", "force_commit",
        "perform_seek",
        "wait_empty", "verify_event_path", "on_partitions_assigned", "on_partitions_revoked", "consumer_stopped_errors",
    ),
    faust_consumer.ThreadDelegateConsumer: ("_new_consumer_thread", "_thread"),
    driver.AIOKafkaConsumerThread: ("_create_worker_consumer", "_commit", "_ensure_consumer", "call_thread",
        "__post_init__", "on_thread_stop"),
    driver.Producer: ("_settings_auth",),
    App: ("consumer_generation_id", "client_only", "stop", "on_stop", "on_shutdown", "crashed"),
    ConsumerMessage: ("generation_id", "tracked", "acked"),
    aiokafka.AIOKafkaConsumer: ("_fetcher", "_closed"),
    Fetcher: ("_subscriptions", "_records", "_closed", "_create_fetch_waiter", "fetched_records"),
    PartitionRecords: ("_consumer_record", "_records", "_records_iterator", "_unpack_records", "next_fetch_offset"),
    _DefaultRecordBatchPy: ("_read_msg", "_buffer", "_pos"),
    SubscriptionState: ("fetch_context", "reassignment_in_progress", "subscription"),
    Subscription: ("assignment",),
    TopicPartitionState: ("has_valid_position", "position", "lso", "highwater", "timestamp"),
    aiokafka.AIOKafkaProducer: ("_sender", "_closed", "_txn_manager", "_message_accumulator", "client"),
    Sender: ("sender_task", "close"),
    TransactionManager: ("_transaction_waiter",),
    MessageAccumulator: ("_batches",),
    MessageBatch: ("_drain_waiter",),
    AIOKafkaClient: ("close",),
}  # fmt: skip


@pytest.mark.parametrize("owner", USED, ids=lambda owner: owner.__name__)
def test_names_are_there(owner: type) -> None:
    """Each private name the worker uses exists in the installed version."""
    sources = "".join(inspect.getsource(inspect.getmodule(base)) for base in owner.__mro__[:-1])  # type: ignore[arg-type]  # each of these classes has a module
    missing = [name for name in USED[owner] if not hasattr(owner, name) and not re.search(rf"self\.{name}\b", sources)]
    assert not missing


def test_signatures_are_as_overridden() -> None:
    """What is overridden is called as before, and the fetcher calls the consumer's drain."""
    assert list(inspect.signature(faust_consumer.Consumer._drain_messages).parameters) == ["self", "fetcher"]
    assert "consumer._drain_messages(self)" in inspect.getsource(faust_consumer.Fetcher)
    assert list(inspect.signature(Fetcher.fetched_records).parameters) == [
        "self",
        "partitions",
        "timeout",
        "max_records",
    ]
    assert aiokafka.producer.sender.BACKOFF_OVERRIDE == worker.producer._RETRY_AFTER_MARKERS
    assert "return BACKOFF_OVERRIDE" in inspect.getsource(aiokafka.producer.sender)
    assert "MemoryRecords(" in inspect.getsource(Fetcher)
    assert "PartitionRecords(" in inspect.getsource(Fetcher)
    assert list(inspect.signature(PartitionRecords._consumer_record).parameters) == ["self", "tp", "record"]
    skipping = r"generation_id\s*!=\s*self\.app\.consumer_generation_id"
    assert re.search(skipping, inspect.getsource(faust.streams))


def test_batches_have_what_the_sender_asks_of_them() -> None:
    """Our batches stand in for aiokafka's, which only `send` appends to."""
    asked = set(
        re.findall(r"\b_?builder\.(\w+)", inspect.getsource(MessageBatch) + inspect.getsource(MessageAccumulator))
    )
    assert asked - set(dir(Batch)) == {"append"}
    assert asked >= {"record_count", "closed", "close", "_set_producer_state", "_build"}


def test_versions_are_the_pinned_ones() -> None:
    """The versions are those whose sources were read."""
    assert (version("faust-streaming"), version("aiokafka")) == ("0.15.3", "0.14.0")
    assert version("mode-streaming").startswith("0.7.")


def test_no_other_private_name_is_used() -> None:
    """No private name of another's object is used in the transport and the producer that this file does not list."""
    listed = {name for names in USED.values() for name in names}
    root = Path(inspect.getfile(worker)).parents[1]
    sources = [path.read_text() for path in (*root.glob("transport/*.py"), root / "worker" / "producer.py")]
    assert len(sources) > 5
    used = {name for text in sources for name in re.findall(r"(?<!self)(?<!_thread)(?<!\bos)\.(_[a-z]\w*)", text)}
    assert used <= listed


def test_headers_are_read_in_one_place() -> None:
    """Nobody asks confluent-kafka's message for its headers but the function that knows how: else some records are a crash."""
    root = Path(inspect.getfile(worker)).parents[1]
    sources = [
        path for name in ("tidegate", "transport", "dlq", "worker", "batch") for path in root.glob(f"{name}/**/*.py")
    ]
    assert len(sources) > 300
    assert [path.name for path in sources if re.search(r"\w\.headers\(\)(?!`)", path.read_text())] == []


def test_transactions_are_compressed_as_quickly_as_can_be() -> None:
    """aiokafka's own packer takes our level of lz4, not its own, which takes seven times as long."""
    batch = DefaultRecordBatchBuilder(2, _LZ4, 1, 0, 0, 0, 1 << 20)
    plain = DefaultRecordBatchBuilder(2, 0, 1, 0, 0, 0, 1 << 20)
    for number in range(200):
        for one in (batch, plain):
            one.append(number, 0, b"user %d" % (number * 7919 % 1000), b"%d" % (number**3), [])
    records = bytes(plain.build())[_HEADER:]
    assert bytes(batch.build())[_HEADER:] == lz4_encode(records, level=1) != lz4_encode(records)
