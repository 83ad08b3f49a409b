"""What an engine says of a cluster that does not answer."""

from __future__ import annotations

import asyncio
import gc
import select
import socket
import struct

import pytest

from tidegate.config.kafka import Kafka, Tls
from tidegate.errors import BrokerUnavailable
from tidegate.reach import _wrong_tls, why_unreachable
from tidegate.topics import reached_partitions


@pytest.mark.slow
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The address, what the system says of it and the setting, once: none of what the client writes at each try."""
    monkeypatch.setattr("tidegate.topics._REACH", (0.3, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        servers = f"127.0.0.1:{nobody.getsockname()[1]}"
    with pytest.raises(BrokerUnavailable) as caught:
        asyncio.run(reached_partitions(Kafka(bootstrap_servers=servers), ["orders"]))
    assert str(caught.value).splitlines() == [
        f"Kafka cannot be reached: {servers} (connection refused)",
        "  hint:     check `kafka.bootstrapServers`, and that a broker listens there",
    ]
    assert capfd.readouterr().err == ""


def test_a_broker_that_hangs_is_no_mistake_in_a_setting() -> None:
    """It listens and says nothing, as one does that is stopped or out of memory: that is waited for, with TLS as without."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        servers = f"127.0.0.1:{silent.getsockname()[1]}"
        for tls in (None, Tls()):
            reason = why_unreachable(Kafka(bootstrap_servers=servers, tls=tls), "timed out", timeout=0.05)
            assert isinstance(reason, BrokerUnavailable)
            assert f"Kafka at {servers} does not answer: timed out" in str(reason)


@pytest.mark.parametrize("tls", [None, Tls()])
def test_a_broker_that_goes_away_meanwhile_leaves_nothing_open(tls: Tls | None) -> None:
    """It is killed between the connection and the first words: no socket is left to the garbage collector."""
    with socket.create_server(("127.0.0.1", 0)) as killed, socket.create_connection(killed.getsockname()) as connection:
        accepted, _ = killed.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close: a reset
        accepted.close()
        select.select([connection], [], [], 5)
        _wrong_tls(Kafka(bootstrap_servers="127.0.0.1:1", tls=tls), "127.0.0.1", "127.0.0.1:1", connection)
    gc.collect()  # a ResourceWarning fails the test
